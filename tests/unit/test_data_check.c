/* A data set looked through: what it is like, and every way in which a file of it can be broken. Each
 * is named, and the other cases are looked at all the same. */
#include "data_folder.h"

#include "data/check.h"

#include <jansson.h>
#include <limits.h>
#include <sys/stat.h>
#include <zlib.h>

enum { X = 6, Y = 5, Z = 4, VOXELS = X * Y * Z, HEADER = 352 };

static void make_volume(volume *v) {
  *v = numbered_volume(X, Y, Z, 1);
  for (int i = 0; i < VOXELS; i++) v->data[i] += 0.5f; /* float32 in the file */
}

/* Classes 1 and 2, six voxels each. */
static void make_labels(labels *l) {
  volume v;
  make_volume(&v);
  *l = (labels){0};
  expect_ok(labels_allocate(l, v.size));
  memcpy(l->affine, v.affine, sizeof l->affine);
  for (int i = 0; i < 12; i++) l->data[40 + i] = 1 + i / 6;
  volume_free(&v);
}

static void put_image(const char *name) {
  volume v;
  make_volume(&v);
  expect_ok(nifti_write_volume(inside(name), &v));
  volume_free(&v);
}

static void put_label(const char *name) {
  labels l;
  make_labels(&l);
  expect_ok(nifti_write_labels(inside(name), &l, NULL));
  labels_free(&l);
}

/* bad.nii is the one that gets broken. */
static data_spec make_good_cases(void) {
  static const char *images[] = {"img/*.nii"}, *classes[] = {"background", "a", "b"};
  expect_ok(folder_create(inside("img")));
  expect_ok(folder_create(inside("seg")));
  static const char *const names[] = {"bad", "good"};
  for (int i = 0; i < 2; i++) {
    char name[64];
    snprintf(name, sizeof name, "img/%s.nii", names[i]);
    put_image(name);
    snprintf(name, sizeof name, "seg/%s.nii", names[i]);
    put_label(name);
  }
  return (data_spec){.layout = DATASET_FILES,
                     .dataset = folder,
                     .image_patterns = images,
                     .image_pattern_count = 1,
                     .label_pattern = "seg/*.nii",
                     .class_names = classes,
                     .class_count = 3,
                     .split = {1, 0, 0}};
}

/* ---- ways to break a file ---- */

typedef struct bytes {
  unsigned char data[8192];
  size_t length;
} bytes;

typedef void (*breaker)(bytes *b);

static void break_file(const char *path, breaker how) {
  char *data;
  bytes b;
  expect_ok(file_read(path, sizeof b.data, &data, &b.length));
  memcpy(b.data, data, b.length);
  free(data);
  how(&b);
  expect_ok(file_write_atomic(path, b.data, b.length));
}

static void put(bytes *b, size_t at, const void *value, size_t size) {
  memcpy(b->data + at, value, size);
}
static void put16(bytes *b, size_t at, int16_t value) {
  put(b, at, &value, sizeof value);
}
static void put32(bytes *b, size_t at, int32_t value) {
  put(b, at, &value, sizeof value);
}
static void put_float(bytes *b, size_t at, float value) {
  put(b, at, &value, sizeof value);
}

enum {
  DIM = 40,
  DATATYPE = 70,
  BITPIX = 72,
  PIXDIM = 76,
  VOX_OFFSET = 108,
  SCL_SLOPE = 112,
  SCL_INTER = 116,
  QFORM_CODE = 252,
  SFORM_CODE = 254,
  SROW_X = 280,
  SROW_Y = 296,
  MAGIC = 344
};

/* The whole file as a gzip stream, which is told by its first bytes, not by the name. */
static void gzip(bytes *b) {
  bytes out = {0};
  z_stream z = {.next_in = b->data, .avail_in = (unsigned)b->length, .next_out = out.data};
  z.avail_out = sizeof out.data;
  assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
  out.length = z.total_out;
  deflateEnd(&z);
  *b = out;
}

static void be_empty(bytes *b) {
  b->length = 0;
}
static void be_text(bytes *b) {
  b->length = 400;
  memset(b->data, 'x', b->length);
}
static void be_html(bytes *b) {
  static const char page[] = "<!DOCTYPE html><html>Sign in to download</html>";
  b->length = sizeof page;
  put(b, 0, page, sizeof page);
}
static void stop_in_header(bytes *b) {
  b->length = 200;
}
static void stop_in_voxels(bytes *b) {
  b->length -= 100;
}
static void stop_in_gzip(bytes *b) {
  gzip(b);
  b->length -= 60;
}
static void stop_in_gzip_header(bytes *b) {
  gzip(b);
  b->length = 30;
}
static void damage_gzip(bytes *b) {
  gzip(b);
  memset(b->data + b->length / 2, 0xA5, 24);
}
static void damage_checksum(bytes *b) {
  gzip(b);
  b->data[b->length - 6] ^= 0x55;
}
static void claim_more_than_gzip_holds(bytes *b) {
  for (int a = 1; a <= 3; a++) put16(b, DIM + 2 * a, 500);
  gzip(b);
}
static void have_no_magic(bytes *b) {
  put(b, MAGIC, "abcd", 4);
}
static void be_half_of_a_pair(bytes *b) {
  put(b, MAGIC, "ni1", 4);
}
static void have_a_wrong_header_size(bytes *b) {
  put32(b, 0, 123);
}
static void have_no_dimensions(bytes *b) {
  put16(b, DIM, 0);
}
static void have_nine_dimensions(bytes *b) {
  put16(b, DIM, 9);
}
static void have_a_negative_extent(bytes *b) {
  put16(b, DIM + 4, -5);
}
static void have_an_extent_of_zero(bytes *b) {
  put16(b, DIM + 6, 0);
}
static void be_huge(bytes *b) {
  for (int a = 1; a <= 3; a++) put16(b, DIM + 2 * a, SHRT_MAX);
}
static void be_longer_than_the_file(bytes *b) {
  put16(b, DIM + 2, 60);
}
static void have_five_dimensions(bytes *b) {
  put16(b, DIM, 5);
  put16(b, DIM + 10, 3);
}
static void be_complex(bytes *b) {
  put16(b, DATATYPE, 32);
}
static void be_rgb(bytes *b) {
  put16(b, DATATYPE, 128);
}
static void have_other_bits(bytes *b) {
  put16(b, BITPIX, 64);
}
static void have_voxels_in_the_header(bytes *b) {
  put_float(b, VOX_OFFSET, 100);
}
static void have_voxels_nowhere(bytes *b) {
  put_float(b, VOX_OFFSET, NAN);
}
static void have_no_spacing(bytes *b) {
  for (size_t r = 0; r < 3; r++) put_float(b, SROW_X + 16 * r + 4, 0);
}
static void be_placed_by_the_qform(bytes *b, float spacing_y) {
  put16(b, QFORM_CODE, 1);
  put16(b, SFORM_CODE, 0);
  put_float(b, PIXDIM + 8, spacing_y);
}
static void have_no_spacing_in_the_qform(bytes *b) {
  be_placed_by_the_qform(b, 0);
}
static void have_a_negative_spacing_in_the_qform(bytes *b) {
  be_placed_by_the_qform(b, -2);
}
static void have_a_spacing_that_is_no_number(bytes *b) {
  be_placed_by_the_qform(b, NAN);
}
static void have_a_place_that_is_no_number(bytes *b) {
  put_float(b, SROW_X + 12, NAN);
}
static void be_flat(bytes *b) {
  put(b, SROW_Y, b->data + SROW_X, 16);
}
static void have_an_offset_that_is_no_number(bytes *b) {
  put_float(b, SCL_SLOPE, 1);
  put_float(b, SCL_INTER, NAN);
}
static void have_a_voxel_that_is_no_number(bytes *b) {
  put_float(b, HEADER + 4 * 17, NAN);
}
static void have_an_infinite_voxel(bytes *b) {
  put_float(b, HEADER + 4 * 17, INFINITY);
}
static void have_two_channels(bytes *b) {
  size_t voxels = b->length - HEADER;
  put16(b, DIM, 4);
  put16(b, DIM + 8, 2);
  memcpy(b->data + b->length, b->data + HEADER, voxels);
  b->length += voxels;
}
static void be_turned(bytes *b) { /* as many voxels, other extents */
  put16(b, DIM + 2, Y);
  put16(b, DIM + 4, X);
}
static void be_shifted(bytes *b) {
  put_float(b, SROW_X + 12, 26);
}
static void be_mirrored(bytes *b) {
  float first;
  memcpy(&first, b->data + SROW_X, sizeof first);
  put_float(b, SROW_X, -first);
}
static void have_a_class_in_between(bytes *b) {
  put_float(b, SCL_SLOPE, 0.5f);
}
static void have_a_negative_class(bytes *b) {
  put_float(b, SCL_SLOPE, -1);
}
static void have_an_undeclared_class(bytes *b) {
  b->data[HEADER + 30] = 7;
}
static void have_a_class_beyond_all(bytes *b) {
  put_float(b, SCL_SLOPE, 200);
}

static const struct {
  const char *file;
  breaker how;
  const char *word;
} rows[] = {
    {"img/bad.nii", be_empty, "ends after 0 bytes"},
    {"img/bad.nii", be_text, "not a NIfTI file"},
    {"img/bad.nii", be_html, "not a NIfTI file"},
    {"img/bad.nii", stop_in_header, "within the NIfTI header"},
    {"img/bad.nii", stop_in_voxels, "the download may be incomplete"},
    {"img/bad.nii", stop_in_gzip, "stops before its end"},
    {"img/bad.nii", stop_in_gzip_header, "within the header"},
    {"img/bad.nii", damage_gzip, "gzip stream"},
    {"img/bad.nii", damage_checksum, "checksum"},
    {"img/bad.nii", claim_more_than_gzip_holds, "of gzip can hold"},
    {"img/bad.nii", have_no_magic, "magic"},
    {"img/bad.nii", be_half_of_a_pair, "two-file NIfTI"},
    {"img/bad.nii", have_a_wrong_header_size, "neither 348 nor 540"},
    {"img/bad.nii", have_no_dimensions, "claims 0 dimensions"},
    {"img/bad.nii", have_nine_dimensions, "claims 9 dimensions"},
    {"img/bad.nii", have_a_negative_extent, "size of -5 along dimension 2"},
    {"img/bad.nii", have_an_extent_of_zero, "size of 0 along dimension 3"},
    {"img/bad.nii", be_huge, "more than the"},
    {"img/bad.nii", be_longer_than_the_file, "the download may be incomplete"},
    {"img/bad.nii", have_five_dimensions, "along dimension 5"},
    {"img/bad.nii", be_complex, "data type 32"},
    {"img/bad.nii", be_rgb, "data type 128"},
    {"img/bad.nii", have_other_bits, "64 bits a voxel"},
    {"img/bad.nii", have_voxels_in_the_header, "at byte 100"},
    {"img/bad.nii", have_voxels_nowhere, "which is impossible"},
    {"img/bad.nii", have_no_spacing, "no valid position in space"},
    {"img/bad.nii", have_no_spacing_in_the_qform, "voxel size along y (pixdim) in the header is 0"},
    {"img/bad.nii", have_a_negative_spacing_in_the_qform, "is -2"},
    {"img/bad.nii", have_a_spacing_that_is_no_number, "is nan"},
    {"img/bad.nii", have_a_place_that_is_no_number, "no valid position in space"},
    {"img/bad.nii", be_flat, "no valid position in space"},
    {"img/bad.nii", have_an_offset_that_is_no_number, "scl_inter"},
    {"img/bad.nii", have_a_voxel_that_is_no_number, "is not a finite number"},
    {"img/bad.nii", have_an_infinite_voxel, "is not a finite number"},
    {"img/bad.nii", have_two_channels, "has 2 channels, the data set 1"},
    {"seg/bad.nii", be_empty, "ends after 0 bytes"},
    {"seg/bad.nii", be_turned, "has 5 × 6 × 4 voxels"},
    {"seg/bad.nii", be_shifted, "place them apart"},
    {"seg/bad.nii", be_mirrored, "place them apart"},
    {"seg/bad.nii", have_two_channels, "a label map has one channel"},
    {"seg/bad.nii", have_a_class_in_between, "classes are whole numbers"},
    {"seg/bad.nii", have_a_negative_class, "classes are whole numbers"},
    {"seg/bad.nii", have_an_undeclared_class, "contains class 7"},
    {"seg/bad.nii", have_a_class_beyond_all, "classes are whole numbers"},
};

static void every_broken_file_is_named_and_the_others_are_read(void **state) {
  (void)state;
  data_spec spec = make_good_cases();
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    put_image("img/bad.nii");
    put_label("seg/bad.nii");
    /* The good case comes first, so that it tells how many channels there are. */
    assert_int_equal(rename(inside("img/bad.nii"), inside("img/x.nii")), 0);
    assert_int_equal(rename(inside("seg/bad.nii"), inside("seg/x.nii")), 0);
    char file[16];
    snprintf(file, sizeof file, "%.4sx.nii", rows[i].file);
    break_file(inside(file), rows[i].how);
    problems found = {0};
    dataset *d;
    dataset_look look;
    expect_ok(dataset_inspect(&spec, 1, &found, &d));
    assert_int_equal(found.count, 0);
    expect_ok(dataset_look_at(d, NULL, NULL, &look));
    const case_look *bad = &look.cases[1], *good = &look.cases[0];
    if (bad->problem_count != 1 || !strstr(bad->problems[0], rows[i].word) ||
        !strstr(bad->problems[0], file))
      fail_msg("row %zu: expected \"%s\" of %s, got \"%s\"", i, rows[i].word, file,
               bad->problem_count ? bad->problems[0] : "nothing");
    assert_int_equal(look.found.count, 1);
    assert_true(!bad->is_good && good->is_good && good->class_voxels[2] == 6);
    dataset_look_free(&look);

    /* Where the case is needed, the same sentence ends the work. */
    medical_case c;
    status error = case_prepare(&spec, &d->cases[1], NULL, &c);
    if (rows[i].how != have_two_channels || rows[i].file[0] == 's')
      expect_error(error, rows[i].word);
    else
      case_free(&c);
    dataset_free(d);
  }
}

static void what_headers_tell_is_found_without_voxels(void **state) {
  (void)state;
  static const struct {
    const char *file;
    breaker how;
    const char *word;
  } of_headers[] = {
      {"img/bad.nii", have_no_spacing_in_the_qform, "voxel size along y"},
      {"seg/bad.nii", have_two_channels, "a label map has one channel"},
      {"seg/bad.nii", be_turned, "has 5 × 6 × 4 voxels"},
  };
  data_spec spec = make_good_cases();
  for (size_t i = 0; i < sizeof of_headers / sizeof *of_headers; i++) {
    put_image("img/bad.nii");
    put_label("seg/bad.nii");
    break_file(inside(of_headers[i].file), of_headers[i].how);
    problems found = {0};
    dataset *d;
    expect_ok(dataset_inspect(&spec, 1, &found, &d));
    for (int k = 0; k < d->case_count; k++) d->cases[k].role = ROLE_TEST;
    expect_error(dataset_read_headers(d, NULL, NULL), of_headers[i].word);
    dataset_free(d);
  }
}

static void missing_files_and_folders_in_their_place_are_told(void **state) {
  (void)state;
  expect_ok(folder_create(inside("d")));
  put_image("d/a.nii");
  expect_ok(folder_create(inside("d/b.nii")));
  assert_int_equal(symlink("nowhere.nii", inside("d/c.nii")), 0);
  assert_int_equal(mkfifo(inside("d/e.nii"), 0600), 0);
  write_text(inside("d/dataset.json"),
             "{\"labels\": {\"0\": \"background\", \"1\": \"x\"}, \"training\": [{\"image\": "
             "\"a.nii\"}, {\"image\": \"b.nii\"}, {\"image\": \"c.nii\"}, {\"image\": \"e.nii\"}, "
             "{\"image\": \"f.nii\"}]}");
  data_spec spec = {.dataset = inside("d/dataset.json"), .split = {1, 0, 0}};
  problems found = {0};
  dataset *d;
  expect_ok(dataset_inspect(&spec, 1, &found, &d));
  assert_int_equal(d->case_count, 1);
  assert_int_equal(found.count, 4);
  static const char *const words[] = {"b.nii is not a file", "c.nii is missing",
                                      "e.nii is not a file", "f.nii is missing"};
  for (int i = 0; i < 4; i++) assert_non_null(strstr(error_message(found.list[i]), words[i]));
  problems_free(&found);
  dataset_look look;
  expect_ok(dataset_look_at(d, NULL, NULL, &look));
  assert_true(look.cases[0].is_good && !look.cases[0].class_voxels);
  dataset_look_free(&look);
  dataset_free(d);
  status error = dataset_open(&spec, 1, &d);
  assert_int_equal(error_count(error), 4);
  error_free(error);
}

/* File names are any bytes, JSON is UTF-8. */
static void names_that_are_no_text_are_in_the_json_as_far_as_they_are(void **state) {
  (void)state;
  static const char *images[] = {"*.nii"};
  expect_ok(folder_create(inside("caf\xe9")));
  put_image("caf\xe9/scan\xff.nii");
  break_file(inside("caf\xe9/scan\xff.nii"), stop_in_voxels);
  data_spec spec = {.layout = DATASET_FILES,
                    .dataset = inside("caf\xe9"),
                    .image_patterns = images,
                    .image_pattern_count = 1,
                    .split = {1, 0, 0}};
  problems found = {0};
  dataset *d;
  dataset_look look;
  expect_ok(dataset_inspect(&spec, 1, &found, &d));
  expect_ok(dataset_look_at(d, NULL, NULL, &look));
  expect_ok(dataset_look_write(&look, inside("look.json")));
  json_t *root = json_load_file(inside("look.json"), 0, NULL);
  assert_string_equal(json_string_value(json_object_get(root, "name")), "caf?");
  const json_t *only = json_array_get(json_object_get(root, "cases"), 0);
  assert_string_equal(json_string_value(json_object_get(only, "name")), "scan?");
  const json_t *problem = json_array_get(json_object_get(only, "problems"), 0);
  assert_non_null(strstr(json_string_value(problem), "scan?.nii"));
  json_decref(root);
  dataset_look_free(&look);
  dataset_free(d);
}

/* ---- what a good data set is like ---- */

static double number_in(const json_t *t, const char *key) {
  const json_t *value = json_object_get(t, key);
  if (!json_is_number(value)) fail_msg("no number %s", key);
  return json_number_value(value);
}

/* The first file axis runs to posterior in one file and up in the other. */
static void put_turned(const char *name, const int column[3]) {
  volume v, turned;
  make_volume(&v);
  make_volume(&turned);
  for (int r = 0; r < 3; r++)
    for (int a = 0; a < 3; a++) turned.affine[r][a] = v.affine[r][column[a]];
  expect_ok(nifti_write_volume(inside(name), &turned));
  volume_free(&v);
  volume_free(&turned);
}

static void spacings_are_told_by_direction_too(void **state) {
  (void)state;
  static const char *images[] = {"turned/*.nii"}, *classes[] = {"background"};
  expect_ok(folder_create(inside("turned")));
  put_turned("turned/a.nii", (const int[3]){1, 0, 2});
  put_turned("turned/b.nii", (const int[3]){2, 0, 1});
  data_spec spec = {.layout = DATASET_FILES,
                    .dataset = folder,
                    .image_patterns = images,
                    .image_pattern_count = 1,
                    .class_names = classes,
                    .class_count = 1,
                    .split = {1, 0, 0}};
  problems found = {0};
  dataset *d;
  dataset_look look;
  expect_ok(dataset_inspect(&spec, 1, &found, &d));
  expect_ok(dataset_look_at(d, NULL, NULL, &look));
  assert_string_equal(look.cases[0].axes, "PLS");
  assert_string_equal(look.cases[1].axes, "SLP");
  assert_float_equal(look.cases[1].spacing_mm[1], look.cases[1].spacing_ras_mm[0], 0);
  for (int world = 0; world < 3; world++)
    assert_float_equal(look.cases[0].spacing_ras_mm[world], look.cases[1].spacing_ras_mm[world],
                       1e-6);
  int mixed = 0;
  for (int i = 0; i < look.note_count; i++)
    mixed += strstr(look.notes[i], "(case a PLS, case b SLP), so spacing_mm mixes") != NULL;
  assert_int_equal(mixed, 1);
  expect_ok(dataset_look_write(&look, inside("turned.json")));
  json_t *root = json_load_file(inside("turned.json"), 0, NULL);
  const json_t *median = json_object_get(json_object_get(root, "spacing_ras_mm"), "median");
  for (int world = 0; world < 3; world++)
    assert_float_equal(json_number_value(json_array_get(median, (size_t)world)),
                       look.cases[0].spacing_ras_mm[world], 1e-6);
  json_decref(root);
  dataset_look_free(&look);
  dataset_free(d);
}

static void a_good_data_set_is_described(void **state) {
  (void)state;
  data_spec spec = make_good_cases();
  unlink(inside("img/x.nii"));
  unlink(inside("seg/x.nii"));
  problems found = {0};
  dataset *d;
  thread_pool *three;
  dataset_look look;
  expect_ok(pool_create(3, &three));
  expect_ok(dataset_inspect(&spec, 1, &found, &d));
  expect_ok(dataset_look_at(d, three, NULL, &look));
  assert_int_equal(look.found.count, 0);
  assert_int_equal(look.note_count, 1);
  assert_string_equal(look.notes[0], "cases bad and good hold the same image");
  const case_look *c = &look.cases[0];
  assert_string_equal(c->axes, "LPS");
  assert_int_equal(c->class_voxels[1], 6);
  /* Voxels 40 to 51 of both, whose values are 41.5 to 52.5. */
  const channel_values *v = &look.channels[0];
  assert_int_equal(v->count, 24);
  assert_float_equal(v->mean, 47, 1e-9);
  assert_float_equal(v->median, 47, 1e-9);
  assert_float_equal(v->min, 41.5, 0);
  assert_float_equal(v->max, 52.5, 0);
  assert_float_equal(v->percentile_99_5, 52.5, 0);
  assert_float_equal(v->deviation, sqrt(143.0 / 12), 1e-9);
  expect_ok(dataset_look_write(&look, inside("look.json")));
  json_t *root = json_load_file(inside("look.json"), 0, NULL);
  assert_float_equal(number_in(root, "good"), 2, 0);
  const json_t *class_b = json_array_get(json_object_get(root, "classes"), 1);
  assert_string_equal(json_string_value(json_object_get(class_b, "name")), "b");
  double voxel_ml = affine_voxel_mm3((const double[4][4]){
                        {-1.5, 0, 0.1, 20}, {0, -2, 0, 30}, {-0.1, 0, 2.5, -40}, {0, 0, 0, 1}}) /
                    1000;
  assert_float_equal(number_in(json_object_get(class_b, "volume_ml"), "median"), 6 * voxel_ml,
                     1e-8);
  json_decref(root);
  char *text = NULL;
  size_t length;
  FILE *out = open_memstream(&text, &length);
  dataset_look_print(&look, out);
  fclose(out);
  assert_non_null(strstr(text, "2 cases: 2 train, 0 validation, 0 test; 2 good"));
  assert_non_null(strstr(text, "LPS (2)"));
  free(text);
  dataset_look_free(&look);
  dataset_free(d);
  pool_destroy(three);
}

/* qform and sform are written alike; the sform is moved by half a voxel here. */
static void be_moved_in_the_sform(bytes *b) {
  float at;
  memcpy(&at, b->data + SROW_X + 12, sizeof at);
  put_float(b, SROW_X + 12, at + 0.75f);
}

static void forms_that_disagree_are_noted(void **state) {
  (void)state;
  data_spec spec = make_good_cases();
  volume v;
  make_volume(&v);
  const double straight[4][4] = {{-1.5, 0, 0, 20}, {0, -2, 0, 30}, {0, 0, 2.5, -40}, {0, 0, 0, 1}};
  memcpy(v.affine, straight, sizeof straight);
  expect_ok(nifti_write_volume(inside("img/bad.nii"), &v));
  labels l;
  make_labels(&l);
  memcpy(l.affine, straight, sizeof straight);
  expect_ok(nifti_write_labels(inside("seg/bad.nii"), &l, NULL));
  break_file(inside("img/bad.nii"), be_moved_in_the_sform);
  break_file(inside("seg/bad.nii"), be_moved_in_the_sform);
  problems found = {0};
  dataset *d;
  dataset_look look;
  expect_ok(dataset_inspect(&spec, 1, &found, &d));
  expect_ok(dataset_look_at(d, NULL, NULL, &look));
  assert_int_equal(look.found.count, 0);
  assert_int_equal(look.note_count, 2);
  assert_non_null(strstr(look.notes[0], "img/bad.nii: qform and sform"));
  assert_non_null(strstr(look.notes[0], "0.5 voxels"));
  dataset_look_free(&look);
  dataset_free(d);
  volume_free(&v);
  labels_free(&l);
}

static void classes_that_no_label_has_are_noted(void **state) {
  (void)state;
  data_spec spec = make_good_cases();
  static const char *classes[] = {"background", "a", "b", "spleen"};
  spec.class_names = classes;
  spec.class_count = 4;
  problems found = {0};
  dataset *d;
  dataset_look look;
  expect_ok(dataset_inspect(&spec, 1, &found, &d));
  expect_ok(dataset_look_at(d, NULL, NULL, &look));
  bool told = false;
  for (int i = 0; i < look.note_count; i++)
    told |= strstr(look.notes[i], "class 3 (spleen)") != NULL;
  assert_true(told);
  dataset_look_free(&look);
  dataset_free(d);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_broken_file_is_named_and_the_others_are_read),
      cmocka_unit_test(what_headers_tell_is_found_without_voxels),
      cmocka_unit_test(missing_files_and_folders_in_their_place_are_told),
      cmocka_unit_test(names_that_are_no_text_are_in_the_json_as_far_as_they_are),
      cmocka_unit_test(spacings_are_told_by_direction_too),
      cmocka_unit_test(a_good_data_set_is_described),
      cmocka_unit_test(forms_that_disagree_are_noted),
      cmocka_unit_test(classes_that_no_label_has_are_noted),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
