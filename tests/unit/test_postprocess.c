/* Postprocess operators against MONAI and SciPy (tests/golden/make_postprocess.py), and by definition. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "data/postprocess.h"
#include "data_fixture.h"

/* 0.5 × 1 × 2 mm, turned, so that the volume of a voxel is no product of the diagonal. */
static const double one_mm3[4][4] = {{0, -1, 0, 5}, {0.5, 0, 0, -3}, {0, 0, 2, 1}, {0, 0, 0, 1}};

static labels make_labels(const int64_t size[3], const char *digits) {
  labels l = {0};
  expect_ok(labels_allocate(&l, size));
  memcpy(l.affine, one_mm3, sizeof one_mm3);
  for (size_t v = 0; digits[v]; v++) l.data[v] = (uint8_t)(digits[v] - '0');
  return l;
}

static op_use read_use(arena *memory, const char *yaml) {
  tree *list;
  evaluate_spec e = {0};
  problems found = {0};
  expect_ok(tree_parse(memory, yaml, strlen(yaml), "test", &list));
  postprocess_read(memory, list, &e, &found);
  expect_ok(problems_take(&found));
  assert_int_equal(e.postprocess_count, 1);
  return e.postprocess[0];
}

static void expect_labels(const char *what, const labels *l, const char *digits) {
  for (size_t v = 0; digits[v]; v++)
    if (l->data[v] != digits[v] - '0')
      fail_msg("%s: voxel %zu is %d, expected %c", what, v, (int)l->data[v], digits[v]);
}

static void operators_do_what_monai_and_scipy_do(void **state) {
  (void)state;
  json_error_t error;
  json_t *cases = json_load_file(TEST_DATA "/golden/postprocess/cases.json", 0, &error), *c;
  assert_non_null(cases);
  assert_true(json_array_size(cases) > 20);
  size_t i;
  json_array_foreach(cases, i, c) {
    arena memory = {0};
    int64_t size[3];
    for (size_t a = 0; a < 3; a++)
      size[a] = json_integer_value(json_array_get(json_object_get(c, "size"), a));
    char *attributes = json_dumps(json_object_get(c, "attributes"), 0);
    const char *yaml = arena_printf(&memory, "[{%s: %s}]",
                                    json_string_value(json_object_get(c, "operator")), attributes);
    op_use use = read_use(&memory, yaml);
    labels l = make_labels(size, json_string_value(json_object_get(c, "before")));
    expect_ok(postprocess(&use, 1, &l));
    expect_labels(yaml, &l, json_string_value(json_object_get(c, "after")));
    labels_free(&l);
    free(attributes);
    arena_free(&memory);
  }
  json_decref(cases);
}

/* What `yaml` makes of one row of voxels. */
static void expect_row(const char *yaml, const char *before, const char *after) {
  arena memory = {0};
  op_use use = read_use(&memory, yaml);
  labels l = make_labels((const int64_t[3]){1, 1, (int64_t)strlen(before)}, before);
  expect_ok(postprocess(&use, 1, &l));
  expect_labels(yaml, &l, after);
  labels_free(&l);
  arena_free(&memory);
}

static void of_equal_components_the_first_stays(void **state) {
  (void)state;
  expect_row("[keep_largest]", "055055070000", "055000070000");
  expect_row("[keep_largest: {components: 2}]", "550555055055", "550555000000");
  expect_row("[keep_largest: {classes: [5], replace: 2}]", "550555070700", "220555070700");
}

static void what_is_as_large_as_the_bound_stays(void **state) {
  (void)state;
  expect_row("[remove_small: {below: 0.003}]", "110111022220", "000111022220");
  expect_row("[remove_small: {below: 0.0031}]", "110111022220", "000000022220");
  expect_row("[remove_small: {below: 0.005, total: true, classes: [1]}]", "110111022220",
             "110111022220");
  expect_row("[remove_small: {below: 0}]", "101", "101");
}

/* Ten voxels of 0.7 mm, which single precision rounds down, are not less than ten voxels of 0.7 mm. */
static void a_bound_is_met_in_single_precision(void **state) {
  (void)state;
  arena memory = {0};
  op_use use = read_use(&memory, "[remove_small: {below: 0.00343}]");
  labels l = make_labels((const int64_t[3]){1, 1, 20}, "11111111110111111111");
  for (int row = 0; row < 3; row++)
    for (int column = 0; column < 4; column++)
      l.affine[row][column] = row == column ? (double)0.7F : 0;
  expect_ok(postprocess(&use, 1, &l));
  expect_labels("ten voxels and nine", &l, "11111111110000000000");
  labels_free(&l);
  arena_free(&memory);
}

static void without_spaces(const char *text, char out[28]) {
  for (; *text; text++)
    if (*text != ' ') *out++ = *text;
  *out = 0;
}

static void what_lies_at_the_border_is_no_hole(void **state) {
  (void)state;
  expect_row("[fill_holes]", "1011", "1011"); /* a row is all border */
  arena memory = {0};
  op_use use = read_use(&memory, "[fill_holes]");
  static const struct {
    const char *what, *before, *after;
  } cases[] = {
      /* 3 × 3 × 3: planes along x, rows along y. What follows in memory is 1, too. */
      {"the middle", "111111111 111101111 111111111", "111111111 111111111 111111111"},
      {"a way out before x", "111101111 111101111 111111111", NULL},
      {"a way out after x", "111111111 111101111 111101111", NULL},
      {"a way out before y", "111111111 101101111 111111111", NULL},
      {"a way out after y", "111111111 111101101 111111111", NULL},
      {"a way out before z", "111111111 111001111 111111111", NULL},
      {"a way out after z", "111111111 111100111 111111111", NULL},
      {"a way out by a corner is none", "011111111 111101111 111111111",
       "011111111 111111111 111111111"},
      {"a way out by an edge is none", "101111111 111101111 111111111",
       "101111111 111111111 111111111"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char before[28], after[28];
    without_spaces(cases[i].before, before);
    without_spaces(cases[i].after ? cases[i].after : cases[i].before, after);
    labels l = make_labels((const int64_t[3]){4, 3, 3}, before);
    memset(l.data + 27, 1, 9);
    l.size[0] = 3;
    expect_ok(postprocess(&use, 1, &l));
    expect_labels(cases[i].what, &l, after);
    labels_free(&l);
  }
  arena_free(&memory);
}

static void nothing_is_made_of_nothing(void **state) {
  (void)state;
  static const char *const operators[] = {"[keep_largest]",
                                          "[keep_largest: {together: true, replace: 3}]",
                                          "[remove_small: {below: 5, replace: 3}]", "[fill_holes]"};
  for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
    expect_row(operators[i], "00000", "00000");
}

static void classes_that_do_not_exist_are_an_error(void **state) {
  (void)state;
  arena memory = {0};
  op_use uses[] = {read_use(&memory, "[keep_largest: {classes: [1, 3]}]"),
                   read_use(&memory, "[remove_small: {below: 1, replace: 4}]")};
  expect_ok(postprocess_check(uses, 1, 4));
  status error = postprocess_check(uses, 2, 3);
  assert_int_equal(error_count(error), 2);
  assert_non_null(strstr(error_message(error), "keep_largest has class 3"));
  error_free(error);
  arena_free(&memory);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(operators_do_what_monai_and_scipy_do),
      cmocka_unit_test(of_equal_components_the_first_stays),
      cmocka_unit_test(what_is_as_large_as_the_bound_stays),
      cmocka_unit_test(a_bound_is_met_in_single_precision),
      cmocka_unit_test(what_lies_at_the_border_is_no_hole),
      cmocka_unit_test(nothing_is_made_of_nothing),
      cmocka_unit_test(classes_that_do_not_exist_are_an_error),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
