/* What reaches the page from strangers' files, and what a run folder has to say. */
#include "data_fixture.h"

#include "report/html.h"
#include "report/overlay.h"
#include "report/record.h"

static void text_cannot_become_markup(void **state) {
  (void)state;
  static const char *const pairs[][2] = {
      {"a<b>&\"'", "a&lt;b&gt;&amp;&quot;&#39;"},
      {"liver ± 3 µm → 漢", "liver ± 3 µm → 漢"},
      {"\x01\x1b[31m\x7f", "\xEF\xBF\xBD\xEF\xBF\xBD[31m\xEF\xBF\xBD"},
      {"tab\tline\n", "tab\tline\n"},
      {"bad \xff\xc0\xaf utf-8 \xe2\x82",
       "bad \xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD utf-8 \xEF\xBF\xBD"},
      {"\xED\xA0\x80 surrogate", "\xEF\xBF\xBD surrogate"},
      {"\xEF\xBF\xBF", "\xEF\xBF\xBD"},
  };
  for (size_t k = 0; k < sizeof pairs / sizeof pairs[0]; k++) {
    text_buffer out = {0};
    text_append(&out, "", 0);
    html_text(&out, pairs[k][0]);
    assert_string_equal(out.data, pairs[k][1]);
    text_free(&out);
  }
}

static void data_cannot_end_its_script(void **state) {
  (void)state;
  text_buffer out = {0};
  json_t *value = json_pack("{s:s, s:f}", "</script><!--", "]]>&é", "n", 0.1234567);
  html_data(&out, "d", value);
  json_decref(value);
  assert_string_equal(out.data,
                      "<script type=\"application/json\" id=\"d\">{\"\\u003c/script\\u003e"
                      "\\u003c!--\":\"]]\\u003e\\u0026\\u00E9\",\"n\":0.123457}</script>\n");
  text_free(&out);
}

/* A folder with these files: name, text, …, NULL. */
static char *run_folder(const char *const *files) {
  char *folder = temporary_folder();
  for (; files[0]; files += 2) {
    char *path = path_join(folder, files[0]);
    write_text(path, files[1]);
    free(path);
  }
  return folder;
}

static bool has_note(const run_record *r, const char *word) {
  for (int i = 0; i < r->note_count; i++)
    if (strstr(r->notes[i], word)) return true;
  return false;
}

static void series_are_read_by_stage_and_name(void **state) {
  (void)state;
  char *folder = run_folder((const char *const[]){
      "run.json", "{\"name\": \"x\"}", "metrics.jsonl",
      "{\"stage\":\"a\",\"epoch\":1,\"loss\":3,\"note\":\"text\",\"bad\":null}\n"
      "not json\n"
      "{\"stage\":\"a\",\"epoch\":2,\"loss\":2,\"validation.dice\":0.5}\n"
      "{\"stage\":\"b\",\"epoch\":1,\"loss\":1}\n"
      "{\"stage\":\"b\",\"epoch\":2,\"lo",
      NULL});
  run_record r;
  expect_ok(record_open(folder, &r));
  const series *s = record_series(&r, "a", "loss");
  assert_non_null(s);
  assert_int_equal(s->count, 2);
  assert_true(s->epoch[1] == 2 && s->value[0] == 3 && s->value[1] == 2);
  s = record_series(&r, "a", "validation.dice");
  assert_true(s && s->count == 1 && s->epoch[0] == 2);
  s = record_series(&r, "b", "loss");
  assert_true(s && s->count == 1);
  assert_null(record_series(&r, "a", "note"));
  assert_null(record_series(&r, "a", "bad"));
  assert_true(has_note(&r, "pipeline.lock.yaml"));
  assert_true(has_note(&r, "no evaluation.json"));
  assert_string_equal(r.name, "x");
  record_close(&r);
  remove_folder(folder);
}

static void damaged_files_are_notes_and_no_run_is_an_error(void **state) {
  (void)state;
  char *folder =
      run_folder((const char *const[]){"run.json", "{\"name\": 3}", "evaluation.json", "[1, 2]",
                                       "pipeline.lock.yaml", "strata: [", NULL});
  run_record r;
  expect_ok(record_open(folder, &r));
  assert_string_equal(r.name, "");
  assert_null(r.evaluation);
  assert_null(r.p);
  assert_true(has_note(&r, "evaluation.json is damaged"));
  assert_true(has_note(&r, "no metrics.jsonl"));
  record_close(&r);
  remove_folder(folder);
  folder = temporary_folder();
  expect_error(record_open(folder, &r), "is not a run folder");
  record_close(&r);
  remove_folder(folder);
  folder = run_folder((const char *const[]){"run.json", "[]", NULL});
  expect_error(record_open(folder, &r), "is not a run folder");
  record_close(&r);
  remove_folder(folder);
}

/* ---- overlays --------------------------------------------------------------------------------- */

static const double spacing_2[4][4] = {{2, 0, 0, 0}, {0, 2, 0, 0}, {0, 0, 2, 0}, {0, 0, 0, 1}};

/* A block of class 1 in a 40³ volume of 2 mm voxels. */
static void write_block(const char *path, const int64_t size[3], int low, int high) {
  labels l = {0};
  expect_ok(labels_allocate(&l, size));
  memcpy(l.affine, spacing_2, sizeof spacing_2);
  for (int x = low; x < high; x++)
    for (int y = low; y < high; y++)
      for (int z = low; z < high; z++) l.data[(x * size[1] + y) * size[2] + z] = 1;
  expect_ok(nifti_write_labels(path, &l, NULL));
  labels_free(&l);
}

static void overlays_show_the_labelled_box_with_a_margin(void **state) {
  (void)state;
  char *folder = temporary_folder();
  char *image_path = path_join(folder, "i.nii"), *reference = path_join(folder, "r.nii");
  char *prediction = path_join(folder, "p.nii"), *other = path_join(folder, "o.nii");
  static const int64_t size[3] = {40, 40, 40}, small[3] = {30, 40, 40};
  volume v = {0};
  expect_ok(volume_allocate(&v, size, 1));
  memcpy(v.affine, spacing_2, sizeof spacing_2);
  for (int i = 0; i < 40 * 40 * 40; i++) v.data[i] = (float)(i % 40);
  expect_ok(nifti_write_volume(image_path, &v));
  volume_free(&v);
  write_block(reference, size, 10, 20);
  write_block(prediction, size, 12, 24);
  write_block(other, small, 12, 24);
  overlay_plane planes[PLANE_COUNT];
  overlay_size wanted = {.side = 96, .slices = 7};
  expect_ok(overlay_make(image_path, reference, 0, prediction, wanted, planes));
  for (int p = 0; p < PLANE_COUNT; p++) {
    assert_int_equal(planes[p].count, 7);
    assert_true(planes[p].width_mm == 48);      /* 10 … 23 and 5 voxels (10 mm) around it */
    assert_int_equal(planes[p].grey.width, 24); /* no finer than the voxels */
    assert_int_equal(planes[p].grey.height, 7 * 24);
    assert_int_equal(planes[p].reference.width, 2 * 96);
    assert_int_equal(planes[p].prediction.height, 7 * 2 * 96);
    assert_in_range(planes[p].first_shown, 0, 6);
  }
  overlay_free(planes);
  expect_ok(overlay_make(image_path, NULL, 0, prediction, wanted, planes));
  assert_null(planes[0].reference.rgba);
  assert_true(planes[0].width_mm == 44); /* 12 … 23 */
  overlay_free(planes);
  expect_error(overlay_make(image_path, reference, 0, other, wanted, planes), "not on the grid");
  assert_null(planes[0].grey.rgba);
  remove(image_path);
  expect_error(overlay_make(image_path, reference, 0, prediction, wanted, planes), "i.nii");
  free(image_path);
  free(reference);
  free(prediction);
  free(other);
  remove_folder(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(text_cannot_become_markup),
      cmocka_unit_test(data_cannot_end_its_script),
      cmocka_unit_test(series_are_read_by_stage_and_name),
      cmocka_unit_test(damaged_files_are_notes_and_no_run_is_an_error),
      cmocka_unit_test(overlays_show_the_labelled_box_with_a_margin),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
