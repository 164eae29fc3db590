#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/text.h"
#include "language/scope.h"

static arena memory;
static scope names;

static tree *parse(const char *text) {
  tree *t;
  assert_null(tree_parse(&memory, text, strlen(text), "test", &t));
  return t;
}

static bool lookup(void *context, arena *into, const char *name, source_pos at, tree **out) {
  (void)context;
  if (strcmp(name, "x.channels") != 0) return false;
  *out = tree_scalar(into, at, "32", false);
  return true;
}

static int begin(void **state) {
  (void)state;
  static scope outer;
  outer = (scope){0};
  names = (scope){.parent = &outer, .lookup = lookup};
  scope_set(&outer, &memory, "n", parse("1"));
  scope_set(&outer, &memory, "far", parse("away"));
  scope_set(&names, &memory, "n", parse("7"));
  scope_set(&names, &memory, "roi", parse("[96, 64, 32]"));
  scope_set(&names, &memory, "half", parse("0.5"));
  scope_set(&names, &memory, "on", parse("true"));
  scope_set(&names, &memory, "text", parse("\"12\""));
  scope_set(&names, &memory, "map", parse("{a: {b: 3}, list: [4, 5], rows: [{c: {d: 6}}]}"));
  scope_set(&names, &memory, "nothing", parse("~"));
  scope_set(&names, &memory, "empty", parse("[]"));
  tree *list = tree_new(&memory, NOWHERE, TREE_LIST, 65);
  while (list->count < 65) list->items[list->count++] = parse("1");
  scope_set(&names, &memory, "long", list);
  return 0;
}

static int end(void **state) {
  (void)state;
  arena_free(&memory);
  return 0;
}

static const struct {
  const char *expression, *result;
} values[] = {
    {"n", "7"},
    {"far", "away"},
    {"1 + 2 * 3", "7"},
    {"(1 + 2) * 3", "9"},
    {"n / 2", "3.5"},
    {"8 / 2", "4"},
    {"n // 2", "3"},
    {"-7 // 2", "-4"},
    {"-7 % 3", "2"},
    {"7 % -3", "-2"},
    {"-7.5 // 2", "-4.0"},
    {"2 * half", "1.0"},
    {"1e3", "1000.0"},
    {"0.1 + 0.2", "0.30000000000000004"},
    {"- - 3", "3"},
    {"roi[0] // 16", "6"},
    {"roi[-1]", "32"},
    {"len(roi)", "3"},
    {"min(3, n, 5)", "3"},
    {"max(3, 2.5)", "3"},
    {"max(roi)", "96"},
    {"min(40, roi)", "32"},
    {"max(roi // 2 - 40)", "8"},
    {"n == 7 and not (n < 3)", "true"},
    {"if(n == 7, 1, undefined_name)", "1"},
    {"if(n != 7, roi[5], if(on, half, 2))", "0.5"},
    {"1 + if(0, 'a', 2) * 2", "5"},
    {"max(if(on, roi, 7))", "96"},
    {"n != 7 or on", "true"},
    {"false and undefined_name > 1", "false"},
    {"len(roi) > 5 and roi[5] == 1", "false"},
    {"text == '12'", "true"},
    {"text == 12", "false"},
    {"far == \"away\"", "true"},
    {"map.a.b + map.list[1]", "8"},
    {"map.rows[0].c.d + 1", "7"},
    {"false and map.rows[0].c.e", "false"},
    {"x.channels * 2", "64"},
    {"nothing == nothing", "true"},
    {"1 <= 1", "true"},
    {"1 >= 2", "false"},
};

static void expressions_have_their_values(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {

    tree *in =
        tree_scalar(&memory, NOWHERE, arena_printf(&memory, "${%s}", values[i].expression), false);
    tree *out;
    status error = scope_eval(&names, &memory, in, &out);
    if (error) error_print(stderr, error);
    assert_null(error);
    if (strcmp(out->text, values[i].result) != 0) print_error("%s\n", values[i].expression);
    assert_string_equal(out->text, values[i].result);
  }
}

static const struct {
  const char *text, *message;
} wrong[] = {
    {"${ro}", "did you mean \"roi\"?"},
    {"${quite.unknown}", "\"quite\" is not defined"},
    {"${map.c}", "there is no \"c\""},
    {"${n.a}", "is asked of a number"},
    {"${roi[0].a}", "\"a\" is asked of a number"},
    {"${map.rows[0].d}", "there is no \"d\"; did you mean \"c\"?"},
    {"${map.rows[0].+ 1}", "a name must follow"},
    {"${1 +}", "expected a value"},
    {"${1 2}", "2 is not expected here"},
    {"${1 / 0}", "division by zero"},
    {"${1 % 0}", "division by zero"},
    {"${1.0 // 0}", "division by zero"},
    {"${roi[3]}", "index 3 is outside roi, a list of 3"},
    {"${roi[0.5]}", "index must be an integer"},
    {"${n[0]}", "needs a list"},
    {"${roi + map.list}", "lists of one length, not 3 and 2"},
    {"${roi + far}", "needs numbers"},
    {"${roi + map}", "needs numbers"},
    {"${roi / 0}", "division by zero"},
    {"${max(map.list, far)}", "needs numbers"},
    {"${min(empty)}", "of an empty list"},
    {"${if(on, 1)}", "expected \",\""},
    {"${if(far, 1, 2)}", "expected true, false or a number"},
    {"${if(on, 1, 2, 3)}", "expected \")\""},
    {"${long * 2}", "at most 64 numbers"},
    {"${min(1, long)}", "at most 64 numbers"},
    {"${roi == roi}", "cannot compare"},
    {"${far < 'b'}", "needs numbers"},
    {"${9223372036854775807 * 2}", "too large"},
    {"${(0 - 9223372036854775807 - 1) // -1}", "too large"},
    {"${1e308 * 10}", "too large"},
    {"${1 < 2 < 3}", "join comparisons"},
    {"${}", "empty"},
    {"${'a}", "has no \"}\""},
    {"${n", "has no \"}\""},
    {"a${roi}", "A list cannot be pasted"},
    {"a${nothing}", "Nothing (null) cannot be pasted"},
    {"${not far}", "expected true, false or a number"},
    {"${exec('x')}", "no function \"exec\""},
    {"${len(n)}", "len needs a list"},
    {"${min()}", "expected a value"},
    {"${n @ 2}", "is not understood"},
    {"${1.2.3}", "is not a number"},
    {"${n.}", "a name must follow"},
};

static void wrong_expressions_are_explained(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    tree *out, *in = tree_scalar(&memory, (source_pos){"f", 3, 4}, wrong[i].text, false);
    status error = scope_eval(&names, &memory, in, &out);
    if (!error || !strstr(error_message(error), wrong[i].message))
      print_error("%s: %s\n", wrong[i].text, error_message(error));
    assert_non_null(error);
    assert_non_null(strstr(error_message(error), wrong[i].message));
    assert_int_equal(error_position(error).line, 3);
    error_free(error);
  }
}

static void whole_values_keep_their_kind_and_text_is_pasted(void **state) {
  (void)state;
  tree *out;
  assert_null(scope_eval(&names, &memory,
                         parse("{a: \"${roi}\", b: \"x${n}y\", \"k${n}\": 1, c: \"$$${n}\", "
                               "d: \"${text}\", e: \"${n}\", f: \"a$b\"}"),
                         &out));
  assert_int_equal(tree_get(out, "a")->kind, TREE_LIST);
  assert_string_equal(tree_get(out, "b")->text, "x7y");
  assert_non_null(tree_get(out, "k7"));
  assert_string_equal(tree_get(out, "c")->text, "$7");
  assert_true(tree_get(out, "d")->quoted);
  assert_false(tree_get(out, "e")->quoted);
  assert_string_equal(tree_get(out, "f")->text, "a$b");
}

static void lists_are_calculated_number_by_number(void **state) {
  (void)state;
  static const struct {
    const char *expression, *numbers;
  } cases[] = {{"(roi - 2) // 2", "47 31 15 "},
               {"roi + roi", "192 128 64 "},
               {"-roi", "-96 -64 -32 "},
               {"2 * roi / roi", "2 2 2 "},
               {"roi * half", "48.0 32.0 16.0 "}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    tree *out;
    char numbers[64] = "";
    assert_null(scope_eval(
        &names, &memory,
        tree_scalar(&memory, NOWHERE, arena_printf(&memory, "${%s}", cases[i].expression), false),
        &out));
    assert_int_equal(out->kind, TREE_LIST);
    for (int k = 0; k < out->count; k++)
      snprintf(numbers + strlen(numbers), sizeof numbers - strlen(numbers), "%s ",
               out->items[k]->text);
    assert_string_equal(numbers, cases[i].numbers);
  }
}

static void keys_that_become_equal_are_an_error(void **state) {
  (void)state;
  tree *out;
  status error = scope_eval(&names, &memory, parse("{\"a${n}\": 1, a7: 2}"), &out);
  assert_non_null(error);
  assert_non_null(strstr(error_message(error), "twice"));
  error_free(error);
}

static void evaluation_is_bounded(void **state) {
  (void)state;
  tree *out;
  char deep[300] = "${", text[2000] = "${";
  for (int i = 0; i < 100; i++) strcat(deep, "(");
  strcat(deep, "1}");
  for (int i = 0; i < 1500; i++) text[2 + i] = ' ';
  strcat(text, "1}");
  const char *hostile[] = {deep, text};
  for (int i = 0; i < 2; i++) {
    status error =
        scope_eval(&names, &memory, tree_scalar(&memory, NOWHERE, hostile[i], false), &out);
    assert_non_null(error);
    error_free(error);
  }
  /* Ten levels, each ten times the one before: 10^10 values. */
  tree *list = parse("[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]");
  status error = OK;
  for (int level = 0; level < 10 && !error; level++) {
    scope_set(&names, &memory, "l", list);
    error = scope_eval(&names, &memory,
                       parse("['${l}', '${l}', '${l}', '${l}', '${l}', '${l}', "
                             "'${l}', '${l}', '${l}', '${l}']"),
                       &list);
  }
  assert_non_null(error);
  error_free(error);
}

static void truth(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int truth; /* −1: an error */
  } cases[] = {{"true", 1}, {"false", 0}, {"2", 1},        {"0", 0}, {"0.0", 0},
               {"x", -1},   {"[1]", -1},  {"${n > 3}", 1}, {"~", -1}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    bool is_true = false;
    status error = scope_truth(&names, &memory, parse(cases[i].text), &is_true);
    assert_int_equal(error ? -1 : is_true, cases[i].truth);
    error_free(error);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(expressions_have_their_values, begin, end),
      cmocka_unit_test_setup_teardown(wrong_expressions_are_explained, begin, end),
      cmocka_unit_test_setup_teardown(whole_values_keep_their_kind_and_text_is_pasted, begin, end),
      cmocka_unit_test_setup_teardown(lists_are_calculated_number_by_number, begin, end),
      cmocka_unit_test_setup_teardown(keys_that_become_equal_are_an_error, begin, end),
      cmocka_unit_test_setup_teardown(evaluation_is_bounded, begin, end),
      cmocka_unit_test_setup_teardown(truth, begin, end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
