/* Weight files: what is written comes back, what PyTorch users write is read, and files made to do
 * harm are refused. */
#include "run/weights.h"

#include "base/files.h"
#include "base/text.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FIXTURE_FILE "w.safetensors"
#include "tests/unit/file_fixture.h"

static void assert_ok(status error) {
  if (error) print_error("%s\n", error_message(error));
  assert_null(error);
}

static void what_is_written_comes_back(void **unused) {
  (void)unused;
  float a[6] = {0, -0.0f, 1e-45f, INFINITY, -3.5f, 1e38f}, b[1] = {2};
  int32_t c[4] = {INT32_MIN, -1, 0, INT32_MAX};
  const named_tensor list[] = {{"b.weight", {DTYPE_F32, SHAPE(2, 3), a}},
                               {"a \"quoted\" ü", {DTYPE_F32, {.rank = 0}, b}},
                               {"z", {DTYPE_I32, SHAPE(4, 1, 1, 1, 1, 1, 1, 1), c}},
                               {"b.empty", {DTYPE_F32, SHAPE(0, 7), NULL}}};
  assert_ok(weights_write(path, list, 4, (const char *[]){"step", "12", "a\nb", "", NULL}));
  weights w;
  assert_ok(weights_read(path, &w));
  assert_int_equal(w.count, 4);
  static const char *const order[] = {"a \"quoted\" ü", "b.empty", "b.weight", "z"};
  for (int i = 0; i < 4; i++) assert_string_equal(w.list[i].name, order[i]);
  for (int i = 0; i < 4; i++) {
    const named_tensor *t = weights_find(&w, list[i].name);
    assert_non_null(t);
    assert_int_equal(t->tensor.dtype, list[i].tensor.dtype);
    assert_true(shape_equal(&t->tensor.shape, &list[i].tensor.shape));
    size_t bytes = tensor_bytes(&t->tensor);
    if (bytes) assert_memory_equal(t->tensor.data, list[i].tensor.data, bytes);
  }
  assert_null(weights_find(&w, "b"));
  assert_string_equal(w.metadata[0], "a\nb");
  assert_string_equal(w.metadata[1], "");
  assert_string_equal(w.metadata[2], "step");
  assert_string_equal(w.metadata[3], "12");
  assert_null(w.metadata[4]);
  ((float *)weights_find(&w, "b.weight")->tensor.data)[0] = 5; /* stays in this process */
  weights_close(&w);
  assert_ok(weights_read(path, &w));
  assert_true(((float *)weights_find(&w, "b.weight")->tensor.data)[0] == 0);
  weights_close(&w);
  weights_close(&w);
}

static void the_same_input_gives_the_same_bytes(void **unused) {
  (void)unused;
  float a[2] = {1, 2}, b[1] = {3};
  const named_tensor forth[] = {{"a", {DTYPE_F32, SHAPE(2), a}}, {"b", {DTYPE_F32, SHAPE(1), b}}};
  const named_tensor back[] = {forth[1], forth[0]};
  char *first, *second;
  size_t first_bytes, second_bytes;
  assert_ok(weights_write(path, forth, 2, (const char *[]){"k", "1", "l", "2", NULL}));
  assert_ok(file_read(path, 1 << 20, &first, &first_bytes));
  assert_ok(weights_write(path, back, 2, (const char *[]){"l", "2", "k", "1", NULL}));
  assert_ok(file_read(path, 1 << 20, &second, &second_bytes));
  assert_int_equal(first_bytes, second_bytes);
  assert_memory_equal(first, second, first_bytes);
  const char *header = "{\"__metadata__\":{\"k\":\"1\",\"l\":\"2\"},"
                       "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                       "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}";
  assert_memory_equal(first + 8, header, strlen(header));
  uint64_t header_bytes;
  memcpy(&header_bytes, first, 8);
  assert_int_equal(header_bytes % 8, 0);
  assert_int_equal(8 + header_bytes + 12, first_bytes);
  free(first);
  free(second);
}

static void nothing_is_a_file_too(void **unused) {
  (void)unused;
  weights w;
  assert_ok(weights_write(path, NULL, 0, NULL));
  assert_ok(weights_read(path, &w));
  assert_int_equal(w.count, 0);
  assert_null(w.metadata[0]);
  assert_null(weights_find(&w, "a"));
  weights_close(&w);
}

static const float *floats_of(const weights *w, const char *name, int64_t elements) {
  const named_tensor *t = weights_find(w, name);
  assert_non_null(t);
  assert_int_equal(t->tensor.dtype, DTYPE_F32);
  assert_int_equal(shape_elements(&t->tensor.shape), elements);
  return t->tensor.data;
}

static void assert_same_floats(const float *got, const float *expected, int n) {
  for (int i = 0; i < n; i++) {
    bool same = isnan(expected[i])
                    ? isnan(got[i])
                    : got[i] == expected[i] && signbit(got[i]) == signbit(expected[i]);
    if (!same) print_error("entry %d: expected %a, got %a\n", i, expected[i], got[i]);
    assert_true(same);
  }
}

static void every_type_pytorch_writes_is_read(void **unused) {
  (void)unused;
  weights w;
  assert_ok(weights_read(TEST_DATA "/golden/weights_types.safetensors", &w));
  assert_int_equal(w.count, 12);
  assert_string_equal(w.metadata[0], "format");
  assert_string_equal(w.metadata[1], "pt");
  assert_string_equal(w.metadata[3], "ü \"1\"");
  const float *f32 = floats_of(&w, "net.f32", 24), *f64 = floats_of(&w, "net.f64", 24);
  for (int i = 0; i < 24; i++) {
    assert_true(f32[i] == (float)(i / 3.0 - 2));
    assert_true(f64[i] == (float)(i / 3.0 - 2));
  }
  assert_same_floats(floats_of(&w, "net.f16", 12),
                     (float[]){0, -0.0f, 1, -2.5f, 65504, 0x1p-24f, -0x1p-14f, 0x1p-15f + 0x1p-24f,
                               INFINITY, -INFINITY, NAN, 0.333251953125f},
                     12);
  assert_same_floats(
      floats_of(&w, "net.bf16", 9),
      (float[]){0, -0.0f, 1, -2.5f, 0x1.fep127f, 0x1p-133f, INFINITY, NAN, 0.333984375f}, 9);
  static const struct {
    const char *name;
    int n;
    int32_t values[4];
  } integers[] = {{"count.i64", 4, {INT32_MIN, -1, 0, INT32_MAX}},
                  {"count.i32", 4, {INT32_MIN, -1, 0, INT32_MAX}},
                  {"count.i16", 4, {INT16_MIN, -1, 0, INT16_MAX}},
                  {"count.i8", 4, {-128, -1, 0, 127}},
                  {"count.u8", 4, {0, 1, 128, 255}},
                  {"mask.bool", 3, {1, 0, 1}}};
  for (int i = 0; i < 6; i++) {
    const named_tensor *t = weights_find(&w, integers[i].name);
    assert_non_null(t);
    assert_int_equal(t->tensor.dtype, DTYPE_I32);
    assert_int_equal(shape_elements(&t->tensor.shape), integers[i].n);
    assert_memory_equal(t->tensor.data, integers[i].values, (size_t)integers[i].n * 4);
  }
  assert_int_equal(weights_find(&w, "scalar")->tensor.shape.rank, 0);
  assert_true(*floats_of(&w, "scalar", 1) == 1.5f);
  floats_of(&w, "empty", 0);
  weights_close(&w);
}

/* Header text and data, with the true header length unless `claimed` ≥ 0. */
static void write_raw(const char *header, size_t header_bytes, size_t data_bytes, int64_t claimed) {
  text_buffer t = {0};
  uint64_t length = claimed >= 0 ? (uint64_t)claimed : header_bytes;
  text_append(&t, (const char *)&length, 8);
  text_append(&t, header, header_bytes);
  for (size_t i = 0; i < data_bytes; i++) text_append(&t, "\x3f", 1);
  assert_ok(file_write_atomic(path, t.data, t.length));
  text_free(&t);
}

static void tensors_at_odd_offsets_are_read(void **unused) {
  (void)unused;
  const char *header = "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                       "\"c\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[5,13]},"
                       "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]}} ";
  for (size_t pad = 0; pad < 8; pad++) {
    char padded[400];
    snprintf(padded, sizeof padded, "%s%*s", header, (int)pad, "");
    write_raw(padded, strlen(padded), 13, -1);
    weights w;
    assert_ok(weights_read(path, &w));
    assert_int_equal((uintptr_t)weights_find(&w, "b")->tensor.data % 4, 0);
    assert_true(*floats_of(&w, "b", 1) == 0x1.7e7e7ep-1f);
    floats_of(&w, "c", 1);
    weights_close(&w);
  }
}

#define TENSOR(name, type, shape, offsets)                                                         \
  "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void hostile_files_are_refused(void **unused) {
  (void)unused;
  static const struct {
    const char *header;
    size_t data_bytes;
    const char *expected;
    int64_t claimed;
  } cases[] = {
      {"{}", 0, "cut short", 3},
      {"{}", 0, "cut short", INT64_MAX},
      {"{}", 0, "does not begin", 0},
      {"{}", 0, "does not begin", 1},
      {"{}", 1, "1 bytes at the end", -1},
      {"[]", 0, "does not begin", -1},
      {" {}", 0, "does not begin", -1},
      {"{]", 0, "not JSON", -1},
      {"{\"a\"", 0, "not JSON", -1},
      {"{\"\xff\":1}", 0, "not JSON", -1},
      {"{\"a\\u0000b\":1}", 0, "not JSON", -1},
      {"{} {}", 0, "not JSON", -1},
      {"{\"a\":1}", 0, "no dtype", -1},
      {"{\"a\":[]}", 0, "no dtype", -1},
      {"{\"a\":{\"dtype\":4}}", 0, "no dtype", -1},
      {"{\"a\":{\"dtype\":\"F32\"}}", 0, "no shape", -1},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "no data_offsets", -1},
      {"{" TENSOR("", "F32", "[1]", "[0,4]") "}", 4, "name is empty", -1},
      {"{" TENSOR("a\\n", "F32", "[1]", "[0,4]") "}", 4, "control characters", -1},
      {"{" TENSOR("a\\u001b[2J", "F32", "[1]", "[0,4]") "}", 4, "control characters", -1},
      {"{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("a", "F32", "[1]", "[4,8]") "}", 8,
       "duplicate object key", -1},
      {"{" TENSOR("a", "F8_E4M3", "[4]", "[0,4]") "}", 4, "type F8_E4M3", -1},
      {"{" TENSOR("a", "f32", "[1]", "[0,4]") "}", 4, "type f32", -1},
      {"{" TENSOR("a", "C64", "[1]", "[0,8]") "}", 8, "type C64", -1},
      {"{" TENSOR("a", "F32", "{}", "[0,4]") "}", 4, "no shape", -1},
      {"{" TENSOR("a", "F32", "[-1]", "[0,4]") "}", 4, "whole number", -1},
      {"{" TENSOR("a", "F32", "[1.0]", "[0,4]") "}", 4, "whole number", -1},
      {"{" TENSOR("a", "F32", "[true]", "[0,4]") "}", 4, "whole number", -1},
      {"{" TENSOR("a", "F32", "[\"1\"]", "[0,4]") "}", 4, "whole number", -1},
      {"{" TENSOR("a", "F32", "[99999999999999999999]", "[0,4]") "}", 4, "not JSON", -1},
      {"{" TENSOR("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "9 dimensions", -1},
      {"{" TENSOR("a", "F32", "[4611686018427387904,4]", "[0,0]") "}", 0, "any memory", -1},
      {"{" TENSOR("a", "F32", "[4294967296,4294967296]", "[0,0]") "}", 0, "any memory", -1},
      {"{" TENSOR("a", "F32", "[0,4294967296,4294967296]", "[0,0]") "}", 0, "any memory", -1},
      {"{" TENSOR("a", "F32", "[2]", "[0,4]") "}", 4, "takes 8 bytes, but 4 are given", -1},
      {"{" TENSOR("a", "F32", "[1]", "[0,8]") "}", 8, "takes 4 bytes, but 8 are given", -1},
      {"{" TENSOR("a", "F32", "[1]", "[4,0]") "}", 4, "no data_offsets", -1},
      {"{" TENSOR("a", "F32", "[1]", "[-4,0]") "}", 4, "no data_offsets", -1},
      {"{" TENSOR("a", "F32", "[1]", "[0]") "}", 4, "no data_offsets", -1},
      {"{" TENSOR("a", "F32", "[1]", "[0,4,8]") "}", 4, "no data_offsets", -1},
      {"{" TENSOR("a", "F32", "[1]", "[0.0,4]") "}", 4, "no data_offsets", -1},
      {"{" TENSOR("a", "F32", "[2]", "[0,8]") "}", 7, "cut", -1},
      {"{" TENSOR("a", "F32", "[1]", "[9223372036854775803,9223372036854775807]") "}", 4, "cut",
       -1},
      {"{" TENSOR("a", "F32", "[1]", "[4,8]") "}", 8, "4 bytes before tensor 'a'", -1},
      {"{" TENSOR("a", "F32", "[1]", "[0,4]") "}", 8, "4 bytes at the end", -1},
      {"{" TENSOR("a", "F32", "[2]", "[0,8]") "," TENSOR("b", "F32", "[2]", "[4,12]") "}", 12,
       "'a' and 'b' overlap", -1},
      {"{" TENSOR("b", "F32", "[1]", "[0,4]") "," TENSOR("a", "F32", "[1]", "[0,4]") "}", 4,
       "'a' and 'b' overlap", -1},
      {"{" TENSOR("a", "F32", "[2]", "[0,8]") "," TENSOR("b", "F32", "[0]", "[4,4]") "}", 8,
       "overlap", -1},
      {"{" TENSOR("a", "I64", "[1]", "[0,8]") "}", 8, "do not fit i32", -1},
      {"{\"__metadata__\":1}", 0, "not an object", -1},
      {"{\"__metadata__\":{\"a\":1}}", 0, "something else than text", -1},
      {"{\"__metadata__\":{\"a\":{}}}", 0, "something else than text", -1},
      {"{\"__metadata__\":{\"a\":\"\\u0000\"}}", 0, "not JSON", -1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    weights w;
    write_raw(cases[i].header, strlen(cases[i].header), cases[i].data_bytes, cases[i].claimed);
    status error = weights_read(path, &w);
    bool as_expected = error && error_code_of(error) == ERROR_DATA &&
                       strstr(error_message(error), cases[i].expected) &&
                       strstr(error_message(error), path);
    if (!as_expected)
      print_error("%s\nexpected: %s\ngot: %s\n", cases[i].header, cases[i].expected,
                  error ? error_message(error) : "no error");
    assert_true(as_expected);
    assert_true(w.count == 0 && !w.impl && !w.list);
    error_free(error);
  }
}

static void large_hostile_headers_are_refused(void **unused) {
  (void)unused;
  size_t bytes = WEIGHTS_MAX_HEADER_BYTES + 8;
  char *header = malloc(bytes);
  assert_non_null(header);
  static const char *const expected[] = {"its header has", "not JSON", "not JSON"};
  for (int i = 0; i < 3; i++) {
    size_t used = i == 0 ? bytes : i == 1 ? 100000 : 1 << 20;
    memset(header, i == 0 ? ' ' : i == 1 ? '[' : 'x', used);
    memcpy(header, "{\"a\":", i == 0 ? 1 : 5);
    if (i == 2) header[5] = '"';
    write_raw(header, used, 0, -1);
    weights w;
    status error = weights_read(path, &w);
    assert_int_equal(error_code_of(error), ERROR_DATA);
    assert_non_null(strstr(error_message(error), expected[i]));
    error_free(error);
  }
  free(header);
}

/* Every cut and every changed byte of a good file: an error or a file, never a crash. */
static void damaged_files_do_no_harm(void **unused) {
  (void)unused;
  float a[2] = {1, 2};
  const named_tensor list[] = {{"a", {DTYPE_F32, SHAPE(2), a}}, {"b", {DTYPE_F32, SHAPE(1, 2), a}}};
  assert_ok(weights_write(path, list, 2, (const char *[]){"k", "v", NULL}));
  char *good, copy[512];
  size_t length;
  assert_ok(file_read(path, sizeof copy, &good, &length));
  /* Plain writes: an atomic one per case would wait for the disk each time. */
  for (size_t i = 0; i < 2 * length; i++) {
    size_t bytes = i < length ? i : length;
    memcpy(copy, good, length);
    if (i >= length) copy[i - length] ^= (char)(1 << i % 7);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(copy, 1, bytes, out), bytes);
    assert_int_equal(fclose(out), 0);
    weights w;
    status error = weights_read(path, &w);
    if (i < length) assert_non_null(error);
    if (!error) weights_close(&w);
    error_free(error);
  }
  free(good);
}

static void missing_files_and_folders_are_named(void **unused) {
  (void)unused;
  weights w;
  status error = weights_read("no/such/file.safetensors", &w);
  assert_int_equal(error_code_of(error), ERROR_IO);
  assert_non_null(strstr(error_message(error), "no/such/file.safetensors"));
  error_free(error);
  error = weights_read(folder, &w);
  assert_non_null(strstr(error_message(error), "it is a folder"));
  error_free(error);
  error = weights_write("no/such/file.safetensors", NULL, 0, NULL);
  assert_int_equal(error_code_of(error), ERROR_IO);
  error_free(error);
}

static void unusable_names_are_not_written(void **unused) {
  (void)unused;
  float a[1] = {1};
  static const char *const names[] = {"", "__metadata__", "a\nb", "\xff"};
  for (int i = 0; i < 4; i++) {
    named_tensor t = {names[i], {DTYPE_F32, SHAPE(1), a}};
    status error = weights_write(path, &t, 1, NULL);
    assert_int_equal(error_code_of(error), ERROR_DATA);
    error_free(error);
  }
  const named_tensor twice[] = {{"a", {DTYPE_F32, SHAPE(1), a}}, {"a", {DTYPE_F32, SHAPE(1), a}}};
  status error = weights_write(path, twice, 2, NULL);
  assert_non_null(strstr(error_message(error), "two tensors are named 'a'"));
  error_free(error);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_written_comes_back),
      cmocka_unit_test(the_same_input_gives_the_same_bytes),
      cmocka_unit_test(nothing_is_a_file_too),
      cmocka_unit_test(every_type_pytorch_writes_is_read),
      cmocka_unit_test(tensors_at_odd_offsets_are_read),
      cmocka_unit_test(hostile_files_are_refused),
      cmocka_unit_test(large_hostile_headers_are_refused),
      cmocka_unit_test(damaged_files_do_no_harm),
      cmocka_unit_test(missing_files_and_folders_are_named),
      cmocka_unit_test(unusable_names_are_not_written),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
