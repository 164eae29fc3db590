#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/text.h"
#include "language/bind.h"

typedef struct sample_attrs {
  bool flag;
  int64_t whole, sides[3];
  double real, spacing[3], range[2];
  int mode;
  const char *name;
  unsigned axes;
  int_list ints;
  float_list floats;
} sample_attrs;

static const char *const modes[] = {"linear", "nearest", "none", NULL};
#define FIELD(f) offsetof(sample_attrs, f)
static const attr list[] = {
    {"flag", ATTR_BOOL, FIELD(flag), "false", 0, 0, NULL, 0, "a switch"},
    {"whole", ATTR_INT, FIELD(whole), NULL, 1, 10, NULL, 0, "how many"},
    {"sides", ATTR_INT3, FIELD(sides), "[1, 2, 3]", 1, 1e12, NULL, 0, "voxels"},
    {"real", ATTR_FLOAT, FIELD(real), "0.1", 0, 1, NULL, ATTR_SCHEDULABLE, "fraction"},
    {"spacing", ATTR_FLOAT3, FIELD(spacing), "1.5", 0, 0, NULL, 0, "mm"},
    {"range", ATTR_RANGE, FIELD(range), "[-175, 250]", 0, 0, NULL, 0, "HU"},
    {"mode", ATTR_CHOICE, FIELD(mode), "linear", 0, 0, modes, 0, "interpolation"},
    {"name", ATTR_STRING, FIELD(name), "x", 0, 0, NULL, 0, "text"},
    {"axes", ATTR_AXES, FIELD(axes), "[x, y]", 0, 0, NULL, 0, "axes"},
    {"ints", ATTR_INTS, FIELD(ints), "[1, 2]", 0, 0, NULL, 0, "integers"},
    {"floats", ATTR_FLOATS, FIELD(floats), "[0.5]", 0, 0, NULL, 0, "numbers"},
    {0},
};
static const op sample_op = {
    .name = "sampler", .family = "test", .attrs = list, .attrs_bytes = sizeof(sample_attrs)};

static arena memory;

static int end(void **state) {
  (void)state;
  arena_free(&memory);
  return 0;
}

static sample_attrs bind(const char *text, problems *all) {
  static const char *const reserved[] = {"when", "sampler", NULL};
  tree *t = NULL;
  sample_attrs attrs;
  if (text) assert_null(tree_parse(&memory, text, strlen(text), "test", &t));
  bind_attrs(&sample_op, t, reserved, (source_pos){"test", 9, 9}, &memory, &attrs, all);
  return attrs;
}

static void values_and_defaults_are_stored(void **state) {
  (void)state;
  problems all = {0};
  sample_attrs a = bind("{sampler: x, when: true, whole: 3, sides: 4, mode: nearest, axes: z, "
                        "spacing: [1, 1, 2.5], name: \"a b\", ints: [], floats: [1, 2, 3]}",
                        &all);
  assert_int_equal(all.count, 0);
  assert_false(a.flag);
  assert_int_equal(a.whole, 3);
  assert_int_equal(a.sides[2], 4);
  assert_true(a.real == 0.1);
  assert_true(a.spacing[2] == 2.5);
  assert_true(a.range[0] == -175 && a.range[1] == 250);
  assert_int_equal(a.mode, 1);
  assert_string_equal(a.name, "a b");
  assert_int_equal(a.axes, 4);
  assert_int_equal(a.ints.count, 0);
  assert_int_equal(a.floats.count, 3);
}

static void every_problem_is_reported_at_its_place(void **state) {
  (void)state;
  char too_long[600] = "{whole: 1, floats: [1";
  for (int i = 0; i < 256; i++) strcat(too_long, ",1");
  strcat(too_long, "]}");
  const struct {
    const char *text, *message;
  } cases[] = {
      {NULL, "sampler needs \"whole\": how many."},
      {"{}", "sampler needs \"whole\": how many."},
      {"[1]", "sampler: expected a mapping of its attributes, not a list of 1."},
      {"{whole: 11}", "sampler: whole: must be from 1 to 10, not 11."},
      {"{whole: x}", "sampler: whole: expected an integer, not \"x\"."},
      {"{whole: 1, sidse: 2}", "sampler has no attribute \"sidse\"; did you mean \"sides\"?"},
      {"{whole: 1, sides: [1, 2]}", "must be [x, y, z] or one integer, not a list of 2."},
      {"{whole: 1, sides: [1, 0, 1]}", "sides: must be at least 1, not 0."},
      {"{whole: 1, range: [3, 1]}", "low ≤ high, not [3, 1]."},
      {"{whole: 1, range: 3}", "must be [low, high], not \"3\"."},
      {"{whole: 1, mode: liner}", "must be linear, nearest or none, not \"liner\"; did you mean"},
      {"{whole: 1, mode: [x]}", "must be linear, nearest or none, not a list of 1."},
      {"{whole: 1, axes: [x, x]}", "has the axis x twice."},
      {"{whole: 1, axes: w}", "must be x, y, z or a list of them, not \"w\"."},
      {"{whole: 1, flag: 1}", "expected true or false, not \"1\"."},
      {"{whole: 1, name: ~}", "expected text, not nothing."},
      {"{whole: 1, ints: 1}", "a list of at most 256 integers"},
      {too_long, "a list of at most 256 numbers"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    problems all = {0};
    bind(cases[i].text, &all);
    assert_int_equal(all.count, 1);
    if (!strstr(error_message(all.list[0]), cases[i].message))
      print_error("%s: %s\n", cases[i].text, error_message(all.list[0]));
    assert_non_null(strstr(error_message(all.list[0]), cases[i].message));
    assert_true(error_position(all.list[0]).line > 0);
    problems_free(&all);
  }
  problems all = {0};
  bind("{flag: 3, real: 2, sids: 1}", &all);
  assert_int_equal(all.count, 4);
  problems_free(&all);
}

static void formatted_attributes_bind_to_the_same_values(void **state) {
  (void)state;
  problems all = {0};
  sample_attrs a = bind("{whole: 3, real: 0.30000000000000004, name: \"a: 'b' # c\", axes: [z, x], "
                        "mode: none, floats: [1e-30, 2.5], range: [-1, 1e10], flag: true}",
                        &all);
  assert_int_equal(all.count, 0);
  sample_attrs b;
  memset(&b, 0xFF, sizeof b);
  for (const attr *f = list; f->name; f++)
    assert_null(bind_attr_text(f, attr_format(f, &a, &memory), &memory, &b));
  assert_string_equal(a.name, b.name);
  for (const attr *f = list; f->name; f++)
    assert_string_equal(attr_format(f, &a, &memory), attr_format(f, &b, &memory));
  assert_string_equal(attr_format(&list[3], &a, &memory), "0.30000000000000004");
  assert_string_equal(attr_format(&list[8], &a, &memory), "[x, z]");
}

static void the_defaults_of_every_operator_parse_and_are_in_range(void **state) {
  (void)state;
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    void *attrs = arena_alloc(&memory, o->attrs_bytes + 16);
    for (const attr *a = o->attrs; a && a->name; a++) {
      if (!a->fallback || (a->kind == ATTR_STRING && !a->fallback[0])) continue;
      status error = bind_attr_text(a, a->fallback, &memory, attrs);
      if (error) print_error("%s: %s\n", o->name, error_message(error));
      assert_null(error);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_teardown(values_and_defaults_are_stored, end),
      cmocka_unit_test_teardown(every_problem_is_reported_at_its_place, end),
      cmocka_unit_test_teardown(formatted_attributes_bind_to_the_same_values, end),
      cmocka_unit_test_teardown(the_defaults_of_every_operator_parse_and_are_in_range, end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
