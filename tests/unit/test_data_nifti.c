/* Volumes: reading every kind as nibabel does, refusing damaged files, writing label maps. */
#include "data_fixture.h"

#define NIFTI TEST_DATA "/golden/nifti/"

static double checksum(const volume *v) {
  double sum = 0;
  for (int64_t i = 0; i < v->size[0] * v->size[1] * v->size[2] * v->channels; i++)
    sum += (double)v->data[i] * (double)(i * 7919 % 101);
  return sum;
}

static void reads_what_nibabel_reads(void **state) {
  (void)state;
  FILE *in = fopen(NIFTI "expected.txt", "r");
  assert_non_null(in);
  char name[64], path[512];
  long long size[4];
  double sum, affine[12];
  int files = 0;
  while (fscanf(in, "%63s %lld %lld %lld %lld %lf", name, &size[0], &size[1], &size[2], &size[3],
                &sum) == 6) {
    for (int i = 0; i < 12; i++) assert_int_equal(fscanf(in, "%lf", &affine[i]), 1);
    snprintf(path, sizeof path, NIFTI "%s", name);
    volume v, header;
    expect_ok(nifti_read_volume(path, &v));
    expect_ok(nifti_read_grid(path, &header));
    assert_null(header.data);
    assert_memory_equal(header.affine, v.affine, sizeof v.affine);
    for (int a = 0; a < 3; a++) assert_int_equal(v.size[a], size[a]);
    assert_int_equal(v.channels, size[3]);
    assert_int_equal(header.channels, size[3]);
    for (int i = 0; i < 12; i++)
      if (!(fabs(v.affine[i / 4][i % 4] - affine[i]) < 1e-5))
        fail_msg("%s: affine entry %d is %g, nibabel reads %g", name, i, v.affine[i / 4][i % 4],
                 affine[i]);
    if (checksum(&v) != sum) fail_msg("%s: voxels differ from nibabel's", name);
    volume_free(&v);
    files++;
  }
  fclose(in);
  assert_true(files >= 20);
}

static void refuses_damaged_files(void **state) {
  (void)state;
  FILE *in = fopen(NIFTI "bad.txt", "r");
  assert_non_null(in);
  char line[256], path[512];
  int files = 0;
  while (fgets(line, sizeof line, in)) {
    line[strcspn(line, "\n")] = 0;
    char *word = strchr(line, ' ');
    *word++ = 0;
    snprintf(path, sizeof path, NIFTI "%s", line);
    volume v;
    status error = nifti_read_volume(path, &v);
    if (error && !strstr(error_message(error), line))
      fail_msg("the error does not name %s: %s", line, error_message(error));
    expect_error(error, word);
    assert_null(v.data);
    files++;
  }
  fclose(in);
  assert_true(files >= 20);
}

static void refuses_what_is_no_file(void **state) {
  (void)state;
  volume v;
  expect_error(nifti_read_volume(TEST_DATA, &v), "it is a folder");
  expect_error(nifti_read_volume("/dev/zero", &v), "not a regular file");
  expect_error(nifti_read_volume("no/such/file.nii", &v), "no/such/file.nii");
}

/* A grid that has no place in a patient: what is computed from it would not be finite either. */
static void refuses_positions_out_of_proportion(void **state) {
  (void)state;
  enum { PIXDIM = 76, QUATERN_B = 256, QOFFSET_X = 268, SROW_X = 280, SROW_Y = 296, SROW_Z = 312 };
  static const struct {
    const char *file;
    size_t field; /* of the header: the first of `count` floats that are multiplied by `factor` */
    int count;
    double factor;
    const char *expected; /* NULL: it is read */
  } cases[] = {
      {"u1.nii", SROW_X, 12, 1e-4, NULL},
      {"u1.nii", SROW_X, 12, 1e-9, "sform"},
      {"u1.nii", SROW_X, 12, 1e4, NULL},
      {"u1.nii", SROW_X, 12, 1e9, "sform"},
      {"u1.nii", SROW_Y, 4, 0, "sform"},
      {"u1.nii", SROW_Z + 12, 1, 1e30, "sform"},
      {"qform_only.nii", PIXDIM + 4, 3, 1e-30, "qform"},
      {"qform_only.nii", PIXDIM + 8, 1, (double)NAN, "qform"},
      {"qform_only.nii", QUATERN_B, 3, (double)NAN, "qform"},
      {"qform_only.nii", QUATERN_B, 3, (double)INFINITY, "qform"},
      {"qform_only.nii", QOFFSET_X, 3, 1e30, "qform"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char path[512], *bytes;
    size_t length;
    snprintf(path, sizeof path, NIFTI "%s", cases[i].file);
    expect_ok(file_read(path, 1 << 20, &bytes, &length));
    for (int k = 0; k < cases[i].count; k++) {
      float value;
      char *at = bytes + cases[i].field + (size_t)k * sizeof value;
      memcpy(&value, at, sizeof value);
      value = (float)((double)value * cases[i].factor);
      memcpy(at, &value, sizeof value);
    }
    volume v;
    status error = nifti_parse_volume(path, bytes, length, &v);
    if (cases[i].expected) {
      expect_error(error, cases[i].expected);
    } else {
      expect_ok(error);
      volume_free(&v);
    }
    free(bytes);
  }
}

/* The sform counts, and the other form may be anything. */
static void a_qform_that_is_no_position_differs_from_any_sform(void **state) {
  (void)state;
  enum { QUATERN_B = 256 };
  char *bytes;
  size_t length;
  double voxels[3];
  const float none = NAN;
  expect_ok(file_read(NIFTI "both_forms.nii", 1 << 20, &bytes, &length));
  memcpy(bytes + QUATERN_B, &none, sizeof none);
  assert_true(nifti_forms_differ("forms.nii", bytes, length, voxels));
  assert_true(isinf(voxels[0]) && isinf(voxels[1]) && isinf(voxels[2]));
  free(bytes);
}

/* Every prefix and every single damaged byte of a file is either read or refused, never more. */
static void survives_every_cut_and_flip(void **state) {
  (void)state;
  static const char *const names[] = {NIFTI "big_endian.nii", NIFTI "nifti2.nii.gz",
                                      NIFTI "channels.nii.gz"};
  for (int f = 0; f < 3; f++) {
    char *bytes;
    size_t length;
    expect_ok(file_read(names[f], 1 << 20, &bytes, &length));
    for (size_t cut = 0; cut < length; cut++) {
      char *part = malloc(cut ? cut : 1); /* exact size, so that reading past it is found */
      memcpy(part, bytes, cut);
      volume v;
      expect_error(nifti_parse_volume("cut.nii", part, cut, &v), "cut.nii");
      free(part);
    }
    for (size_t i = 0; i < length; i++)
      for (int bit = 0; bit < 8; bit += 7) {
        bytes[i] ^= (char)(1 << bit);
        volume v;
        status error = nifti_parse_volume("flip.nii", bytes, length, &v);
        if (error)
          error_free(error);
        else
          volume_free(&v);
        bytes[i] ^= (char)(1 << bit);
      }
    free(bytes);
  }
}

static void refuses_labels_that_are_no_classes(void **state) {
  (void)state;
  labels l;
  expect_error(nifti_read_labels(NIFTI "f4.nii", &l), "voxel (0, 0, 0)");
  expect_error(nifti_read_labels(NIFTI "i2.nii", &l), "-50");
  expect_error(nifti_read_labels(NIFTI "channels.nii.gz", &l), "3");
  expect_ok(nifti_read_labels(NIFTI "u2.nii", &l));
  assert_int_equal(l.data[1], 1);
  labels_free(&l);
}

static void writes_labels_with_the_geometry_of_the_reference(void **state) {
  (void)state;
  static const char *const likes[] = {"qform_only.nii", "both_forms.nii", "big_endian.nii",
                                      "nifti2.nii", "u1.nii"};
  char *folder = temporary_folder();
  for (int i = 0; i < 5; i++) {
    char like[512], path[512];
    snprintf(like, sizeof like, NIFTI "%s", likes[i]);
    volume grid, back;
    expect_ok(nifti_read_grid(like, &grid));
    labels l = {0}, again;
    expect_ok(labels_allocate(&l, grid.size));
    for (int64_t k = 0; k < 6 * 5 * 4; k++) l.data[k] = (uint8_t)(k * 2);
    for (int zipped = 0; zipped < 2; zipped++) {
      snprintf(path, sizeof path, "%s/label.nii%s", folder, zipped ? ".gz" : "");
      expect_ok(nifti_write_labels(path, &l, like));
      expect_ok(nifti_read_labels(path, &again));
      assert_memory_equal(again.data, l.data, 6 * 5 * 4 * sizeof *l.data);
      expect_ok(nifti_read_grid(path, &back));
      assert_memory_equal(back.affine, grid.affine, sizeof grid.affine);
      labels_free(&again);
      char *first, *second;
      size_t n, m;
      expect_ok(file_read(path, 1 << 20, &first, &n));
      expect_ok(nifti_write_labels(path, &l, like));
      expect_ok(file_read(path, 1 << 20, &second, &m));
      assert_int_equal(n, m);
      assert_memory_equal(first, second, n);
      free(first);
      free(second);
    }
    labels_free(&l);
  }
  labels other = {0};
  expect_ok(labels_allocate(&other, (int64_t[]){2, 2, 2}));
  expect_error(nifti_write_labels("other.nii", &other, NIFTI "u1.nii"), "does not fit");
  labels_free(&other);
  remove_folder(folder);
}

static void round_trips_volumes(void **state) {
  (void)state;
  char *folder = temporary_folder(), path[512];
  for (int fraction = 0; fraction < 2; fraction++)
    for (int channels = 1; channels < 4; channels += 2) {
      volume v = numbered_volume(5, 4, 7, channels), back;
      if (fraction) v.data[3] += 0.25f;
      snprintf(path, sizeof path, "%s/v.nii.gz", folder);
      expect_ok(nifti_write_volume(path, &v));
      expect_ok(nifti_read_volume(path, &back));
      assert_int_equal(back.channels, channels);
      assert_memory_equal(back.data, v.data, (size_t)(5 * 4 * 7 * channels) * sizeof *v.data);
      for (int i = 0; i < 16; i++)
        assert_true(fabs(back.affine[i / 4][i % 4] - v.affine[i / 4][i % 4]) < 1e-5);
      volume_free(&v);
      volume_free(&back);
    }
  remove_folder(folder);
}

static uint8_t large_class(int64_t v) {
  return (uint8_t)(v % 1009 % 251);
}

/* More than is unzipped in one go: 129 MiB. */
static void a_large_file_is_decoded_as_it_is_unzipped(void **state) {
  (void)state;
  char *folder = temporary_folder(), path[512];
  snprintf(path, sizeof path, "%s/large.nii.gz", folder);
  labels l = {0}, back;
  expect_ok(labels_allocate(&l, (const int64_t[3]){512, 514, 514}));
  const int64_t voxels = l.size[0] * l.size[1] * l.size[2];
  for (int64_t v = 0; v < voxels; v++) l.data[v] = large_class(v);
  for (int a = 0; a < 4; a++) l.affine[a][a] = 1;
  expect_ok(nifti_write_labels(path, &l, NULL));
  labels_free(&l);
  expect_ok(nifti_read_labels(path, &back));
  int64_t wrong = 0;
  for (int64_t v = 0; v < voxels; v++) wrong += back.data[v] != large_class(v);
  assert_int_equal(wrong, 0);
  labels_free(&back);
  unsigned char *bytes;
  size_t length;
  expect_ok(nifti_load_bytes(path, &bytes, &length));
  expect_error(nifti_parse_labels(path, bytes, length / 2, &back), "incomplete");
  bytes[length - 6] ^= 1; /* the checksum */
  expect_error(nifti_parse_labels(path, bytes, length, &back), "damaged");
  free(bytes);
  remove_folder(folder);
}

static void refuses_sizes_that_overflow(void **state) {
  (void)state;
  volume v = {0};
  expect_error(volume_allocate(&v, (int64_t[]){INT64_MAX / 2, INT64_MAX / 2, 4}, 1), "limit");
  expect_error(volume_allocate(&v, (int64_t[]){4, 4, 4}, INT64_MAX), "limit");
  expect_error(volume_allocate(&v, (int64_t[]){4, 0, 4}, 1), "empty");
  expect_error(volume_allocate(&v, (int64_t[]){4, 4, -4}, 1), "empty");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_what_nibabel_reads),
      cmocka_unit_test(refuses_damaged_files),
      cmocka_unit_test(refuses_what_is_no_file),
      cmocka_unit_test(refuses_positions_out_of_proportion),
      cmocka_unit_test(a_qform_that_is_no_position_differs_from_any_sform),
      cmocka_unit_test(survives_every_cut_and_flip),
      cmocka_unit_test(refuses_labels_that_are_no_classes),
      cmocka_unit_test(writes_labels_with_the_geometry_of_the_reference),
      cmocka_unit_test(round_trips_volumes),
      cmocka_unit_test(a_large_file_is_decoded_as_it_is_unzipped),
      cmocka_unit_test(refuses_sizes_that_overflow),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
