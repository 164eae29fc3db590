/* Hashes of a data set's files are kept with the prepared cases, and used only while the files are the
 * ones that were hashed. */
#include "data_folder.h"

#include "data/cases.h"

/* Stamps are given to files that have not changed for longer than this. */
static const unsigned STAMP_AGE_S = 3;

static dataset *open_cases(const data_spec *spec) {
  dataset *d;
  expect_ok(dataset_open(spec, 1, &d));
  return d;
}

static uint64_t content(const data_spec *spec) {
  dataset *d = open_cases(spec);
  expect_ok(dataset_hash(spec, d, inside("cache"), NULL));
  uint64_t hash = dataset_content(d);
  dataset_free(d);
  return hash;
}

static void hashes_are_kept_while_files_are_as_they_were(void **state) {
  (void)state;
  static const char *images[] = {"*.nii"}, *classes[] = {"background"};
  for (int i = 0; i < 2; i++) {
    volume v = numbered_volume(4, 4, 4, 1);
    v.data[0] = (float)i;
    expect_ok(nifti_write_volume(inside(i ? "b.nii" : "a.nii"), &v));
    volume_free(&v);
  }
  data_spec spec = {.layout = DATASET_FILES,
                    .dataset = folder,
                    .image_patterns = images,
                    .image_pattern_count = 1,
                    .class_names = classes,
                    .class_count = 1,
                    .label_fraction = 1,
                    .split = {1, 0, 0}};
  uint64_t right = content(&spec);
  sleep(STAMP_AGE_S);
  assert_int_equal(content(&spec), right); /* and are kept from here on */

  /* A hash that only an entry can hold shows that the entry is what counts. */
  dataset *d = open_cases(&spec);
  uint64_t stamp[2];
  content_hash kept[1] = {{0}}, wrong[1] = {{true, 7, 8, 9}};
  assert_true(case_stamp(&d->cases[0], stamp));
  assert_true(content_known(inside("cache"), stamp, kept, 1));
  content_keep(inside("cache"), stamp, wrong, 1);
  assert_int_not_equal(content(&spec), right);

  /* A damaged entry, and one of another number of files, are none. */
  char name[64];
  snprintf(name, sizeof name, "cache/%016llx%016llx.hash", (unsigned long long)stamp[1],
           (unsigned long long)stamp[0]);
  assert_false(content_known(inside("cache"), stamp, kept, 2));
  char *bytes;
  size_t length;
  expect_ok(file_read(inside(name), 4096, &bytes, &length));
  bytes[length / 2] ^= 1;
  expect_ok(file_write_atomic(inside(name), bytes, length));
  assert_false(content_known(inside("cache"), stamp, kept, 1));
  expect_ok(file_write_atomic(inside(name), bytes, length - 1));
  assert_false(content_known(inside("cache"), stamp, kept, 1));
  free(bytes);
  assert_int_equal(content(&spec), right);

  /* A file that is written again is read again, though its bytes and size are the same. */
  assert_true(content_known(inside("cache"), stamp, kept, 1));
  content_keep(inside("cache"), stamp, wrong, 1);
  volume v = numbered_volume(4, 4, 4, 1);
  v.data[0] = 0;
  expect_ok(nifti_write_volume(inside("a.nii"), &v));
  volume_free(&v);
  assert_int_equal(content(&spec), right);
  dataset_free(d);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(hashes_are_kept_while_files_are_as_they_were, begin, end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
