#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/text.h"
#include "language/tree.h"

static arena memory;

static int end_test(void **state) {
  (void)state;
  arena_free(&memory);
  return 0;
}

static tree *parse(const char *text) {
  tree *t;
  status error = tree_parse(&memory, text, strlen(text), "test", &t);
  if (error) error_print(stderr, error);
  assert_null(error);
  return t;
}

static bool same(const tree *a, const tree *b) {
  if (a->kind != b->kind || a->count != b->count || a->quoted != b->quoted) return false;
  if (a->kind == TREE_SCALAR) return strcmp(a->text, b->text) == 0;
  for (int i = 0; i < a->count; i++) {
    if (a->kind == TREE_MAP && !same(a->keys[i], b->keys[i])) return false;
    if (!same(a->items[i], b->items[i])) return false;
  }
  return true;
}

static void what_is_written_reads_back_the_same(void **state) {
  (void)state;
  static const char *const texts[] = {
      "a: 1\nb: [1, 2, x]\nc: {d: [], e: {}}\n",
      "- - 1\n  - [2, [3]]\n- {a: b, c: [{d: 1}]}\n-\n- ~\n- null\n",
      "a: |\n  two\n  lines\nb: >-\n  folded\n  text\nc: \"\\x01\\t\\u2028\\U0001F600\\\\ \\\"\"\n",
      "a: '- x'\nb: \"true\"\nc: true\nd: '12'\ne: 12\nf: a b, c\ng: x:y\nh: -1e-3\ni: ''\n",
      "? key: with\n: 1\n\"a: b\": 2\n'': x\n",
      "\"[x\": {\"#\": \"# no comment\", \"&a\": \"*b\", \"!t\": \"%\", \"-\": \"- \"}\n",
      "plain text\n",
      "a: !!str 12\nb: ! x\nc: !!int \"3\"\n",
      "a: &x [1, {b: 2}]\nc: *x\nd: [*x, *x]\n",
      "größe: naïve\n日本: [語, x]\n",
      "a: ${x}\nb: \"${x}\"\nc: [\"${x}\"]\nd: what is this ${x}, [y]\n",
  };
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    tree *first, *second;
    status error = tree_parse(&memory, texts[i], strlen(texts[i]), "test", &first);
    if (error && strstr(texts[i], "'': x")) { /* empty keys are refused */
      error_free(error);
      continue;
    }
    assert_null(error);
    text_buffer written = {0};
    tree_write(first, &written, 0);
    second = parse(written.data);
    if (!same(first, second)) print_error("%s\nwas written as\n%s", texts[i], written.data);
    assert_true(same(first, second));
    text_free(&written);
  }
}

static void every_byte_in_a_scalar_survives_writing(void **state) {
  (void)state;
  char text[8];
  for (unsigned code = 1; code < 0x3000; code++) {
    if (code < 0x80)
      snprintf(text, sizeof text, "%c", (int)code);
    else if (code < 0x800)
      snprintf(text, sizeof text, "%c%c", (int)(0xC0 | code >> 6), (int)(0x80 | (code & 0x3F)));
    else
      snprintf(text, sizeof text, "%c%c%c", (int)(0xE0 | code >> 12),
               (int)(0x80 | (code >> 6 & 0x3F)), (int)(0x80 | (code & 0x3F)));
    tree *list = tree_new(&memory, NOWHERE, TREE_LIST, 2);
    list->count = 2;
    list->items[0] = tree_scalar(&memory, NOWHERE, text, false);
    list->items[1] = tree_scalar(&memory, NOWHERE, arena_printf(&memory, "x%sx", text), false);
    text_buffer written = {0};
    tree_write(list, &written, 0);
    assert_true(same(list, parse(written.data)));
    text_free(&written);
  }
}

static void places_count_lines_and_characters_from_one(void **state) {
  (void)state;
  tree *t = parse("a: 1\nbé: {c: [x, yy]}\n");
  assert_int_equal(t->items[0]->at.line, 1);
  assert_int_equal(t->items[0]->at.column, 4);
  const tree *list = tree_get(t->items[1], "c");
  assert_int_equal(list->items[1]->at.line, 2);
  assert_int_equal(list->items[1]->at.column, 13);
  assert_string_equal(list->at.file, "test");
  assert_ptr_equal(list->at.file, intern_file("test"));
}

static void integers(void **state) {
  (void)state;
  static const struct {
    const char *text;
    bool fine;
    int64_t value;
  } cases[] = {
      {"12", true, 12},
      {"-3", true, -3},
      {"+4", true, 4},
      {"1_000", true, 1000},
      {"1e3", true, 1000},
      {"2.0", true, 2},
      {"9223372036854775807", true, INT64_MAX},
      {"9223372036854775808", false, 0},
      {"1e30", false, 0},
      {"1.5", false, 0},
      {"\"12\"", false, 0},
      {"0x10", false, 0},
      {"1_", false, 0},
      {"_1", false, 0},
      {"1e", false, 0},
      {"--1", false, 0},
      {"x", false, 0},
      {"~", false, 0},
      {"[1]", false, 0},
      {"true", false, 0},
      {"1 2", false, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    int64_t value = 0;
    status error = tree_int(parse(cases[i].text), &value);
    if ((error == OK) != cases[i].fine) print_error("integer %s\n", cases[i].text);
    assert_int_equal(error == OK, cases[i].fine);
    assert_int_equal(value, cases[i].value);
    error_free(error);
  }
}

static void numbers(void **state) {
  (void)state;
  static const struct {
    const char *text;
    bool fine;
    double value;
  } cases[] = {
      {"1.0e-4", true, 1e-4}, {"1e-4", true, 1e-4}, {"3", true, 3},      {".5", true, 0.5},
      {"-2.", true, -2},      {"1e999", false, 0},  {".nan", false, 0},  {".inf", false, 0},
      {"nan", false, 0},      {"1.2.3", false, 0},  {"'1.5'", false, 0}, {"e5", false, 0},
      {"1e5.0", false, 0},    {".", false, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    double value = 0;
    status error = tree_float(parse(cases[i].text), &value);
    if ((error == OK) != cases[i].fine) print_error("number %s\n", cases[i].text);
    assert_int_equal(error == OK, cases[i].fine);
    assert_true(value == cases[i].value);
    error_free(error);
  }
}

static void unknown_keys_are_all_reported(void **state) {
  (void)state;
  static const char *const allowed[] = {"epochs", "batch", NULL};
  problems all = {0};
  tree_check_keys(parse("{epoch: 1, batch: 2, zzzzzz: 3}"), "stage", allowed, &all);
  assert_int_equal(all.count, 2);
  assert_string_equal(error_message(all.list[0]),
                      "stage has no key \"epoch\"; did you mean \"epochs\"?");
  assert_string_equal(error_message(all.list[1]),
                      "stage has no key \"zzzzzz\"; it can have epochs, batch.");
  problems_free(&all);
}

static void aliases_are_copies(void **state) {
  (void)state;
  tree *t = parse("a: &x [1, 2]\nb: *x\n");
  assert_ptr_not_equal(t->items[0], t->items[1]);
  assert_true(same(t->items[0], t->items[1]));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_teardown(what_is_written_reads_back_the_same, end_test),
      cmocka_unit_test_teardown(every_byte_in_a_scalar_survives_writing, end_test),
      cmocka_unit_test_teardown(places_count_lines_and_characters_from_one, end_test),
      cmocka_unit_test_teardown(integers, end_test),
      cmocka_unit_test_teardown(numbers, end_test),
      cmocka_unit_test_teardown(unknown_keys_are_all_reported, end_test),
      cmocka_unit_test_teardown(aliases_are_copies, end_test),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
