/* Shared by the data tests: operators from text, temporary folders, small datasets on disk. */
#ifndef STRATA_TESTS_DATA_FIXTURE_H
#define STRATA_TESTS_DATA_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/files.h"
#include "data/dataset.h"
#include "data/host.h"
#include "language/bind.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline void expect_ok(status error) {
  if (error) {
    error_print(stderr, error);
    fail_msg("%s", error_message(error));
  }
}

/* The error must mention `word`. */
static inline void expect_error(status error, const char *word) {
  if (!error) fail_msg("expected an error that says \"%s\"", word);
  if (!strstr(error_message(error), word)) {
    error_print(stderr, error);
    fail_msg("expected an error that says \"%s\", got \"%s\"", word, error_message(error));
  }
  error_free(error);
}

/* attributes: name, value, …, NULL */
static inline op_use use_operator(arena *memory, const char *name, const char *const *attributes) {
  const op *o = op_find(name);
  if (!o) fail_msg("no operator %s", name);
  op_use use = {.op = o, .attrs = arena_alloc(memory, o->attrs_bytes)};
  op_defaults(o, use.attrs);
  for (; attributes && attributes[0]; attributes += 2) {
    const attr *a = o->attrs;
    while (a->name && strcmp(a->name, attributes[0]) != 0) a++;
    if (!a->name) fail_msg("%s has no attribute %s", name, attributes[0]);
    expect_ok(bind_attr_text(a, attributes[1], memory, use.attrs));
  }
  return use;
}
#define USE(memory, name, ...)                                                                     \
  use_operator(memory, name, (const char *const[]){__VA_ARGS__, NULL, NULL})

/* A folder of its own under the build folder the test runs in. */
static inline char *temporary_folder(void) {
  char *path = strdup("strata-test-XXXXXX");
  assert_non_null(mkdtemp(path));
  return path;
}

static inline void remove_folder(char *path) {
  char command[256];
  snprintf(command, sizeof command, "rm -rf -- '%s'", path);
  assert_int_equal(system(command), 0);
  free(path);
}

static inline void write_text(const char *path, const char *text) {
  expect_ok(file_write_atomic(path, text, strlen(text)));
}

/* Distinct voxel values, and an affine with distinct entries. */
static inline volume numbered_volume(int64_t x, int64_t y, int64_t z, int64_t channels) {
  volume v = {0};
  expect_ok(volume_allocate(&v, (int64_t[]){x, y, z}, channels));
  for (int64_t i = 0; i < x * y * z * channels; i++) v.data[i] = (float)(i + 1);
  const double affine[4][4] = {
      {-1.5, 0, 0.1, 20}, {0, -2, 0, 30}, {-0.1, 0, 2.5, -40}, {0, 0, 0, 1}};
  memcpy(v.affine, affine, sizeof affine);
  return v;
}

static inline void place_mm(const double affine[4][4], const int64_t at[3], double mm[3]) {
  for (int r = 0; r < 3; r++)
    mm[r] = affine[r][0] * (double)at[0] + affine[r][1] * (double)at[1] +
            affine[r][2] * (double)at[2] + affine[r][3];
}

/* Every voxel of `out` that is not 0 must have its value at the same place of `in`. */
static inline void expect_same_places(const volume *in, const volume *out) {
  double to_voxel[4][4];
  affine_inverse(in->affine, to_voxel);
  int64_t at[3], found = 0;
  for (at[0] = 0; at[0] < out->size[0]; at[0]++)
    for (at[1] = 0; at[1] < out->size[1]; at[1]++)
      for (at[2] = 0; at[2] < out->size[2]; at[2]++) {
        int64_t from[3], i = ((at[0] * out->size[1] + at[1]) * out->size[2] + at[2]);
        if (out->data[i * out->channels] == 0) continue;
        double mm[3], voxel[3];
        place_mm((const double(*)[4])out->affine, at, mm);
        for (int r = 0; r < 3; r++) {
          voxel[r] = to_voxel[r][3];
          for (int k = 0; k < 3; k++) voxel[r] += to_voxel[r][k] * mm[k];
          assert_true(fabs(voxel[r] - rint(voxel[r])) < 1e-6);
          from[r] = (int64_t)rint(voxel[r]);
          assert_in_range(from[r], 0, in->size[r] - 1);
        }
        int64_t j = (from[0] * in->size[1] + from[1]) * in->size[2] + from[2];
        for (int64_t c = 0; c < in->channels; c++)
          assert_true(out->data[i * out->channels + c] == in->data[j * in->channels + c]);
        found++;
      }
  assert_true(found > 0);
}

/* What a sample operator makes of an image, crop after crop. */
static inline medical_case apply_with(op_use use, const volume *v, int crop) {
  medical_case in = {.name = "case", .image = *v}, out;
  data_spec spec = {.sample = &use, .sample_count = 1};
  expect_ok(case_sample(&spec, &in, rng_key_of(1, "stage", 0, "case", crop), &out));
  return out;
}

static inline medical_case apply(op_use use, const volume *v) {
  return apply_with(use, v, 0);
}

#endif
