/* Samples that a device makes against those of the host: every sample operator over its declared
 * cases, lists of them, the device's memory of prepared cases, and what the device cannot do. */
#include "gpu/sampling_fixture.h"

/* One batch on both, `copied` of whose samples the loader has made already. */
static comparison compare_batch(sampling *s, feed *f, uint64_t seed, int copied) {
  drawn_batch d;
  inputs in;
  draw_batch(s, seed, copied, &d);
  inputs_open_for(&d, &in);
  int64_t waited[3] = {emulator_count("emulator_waits")};
  expect_ok(feed_write(f, &d.b, &in.program, in.image, label_of(&in, &d)));
  waited[1] = emulator_count("emulator_waits");
  expect_ok(program_run(&in.program));
  waited[2] = emulator_count("emulator_waits");
  float *image = malloc((size_t)(SAMPLES * d.values) * sizeof *image);
  int32_t *classes = malloc((size_t)(SAMPLES * d.voxels) * sizeof *classes);
  expect_ok(program_read(&in.program, in.image, image));
  expect_ok(program_read(&in.program, in.label, classes));
  comparison c = compare_inputs(&d, image, classes);
  c.waits = waited[1] - waited[0];
  c.step_waits = waited[2] - waited[1];
  free(image);
  free(classes);
  inputs_close(&in);
  free_batch(&d);
  return c;
}

static void compare_operator(const op *o, const op_case *declared, int64_t channels, bool label,
                             bool cropped) {
  const char *attributes = declared->attrs;
  const int64_t size[3] = {13, 12, 17};
  sampling s = sampling_of(size, channels, label);
  if (cropped) sampling_add(&s, "random_crop", "{size: [9, 9, 11]}");
  sampling_add(&s, o->name, attributes);
  feed f;
  sampling_begin(&s, &f);
  if (!f.makes_samples) fail_msg("%s %s: %s", o->name, attributes, f.why_not);
  comparison c = compare_batch(&s, &f, 1, 0);
  if (!(c.worst <= declared->tolerance) || (declared->tolerance == 0 && !c.same_bits))
    fail_msg("%s %s, %d channels: the device's samples differ by %.3g of the largest value",
             o->name, attributes, (int)channels, c.worst);
  assert_int_equal(f.cases.uploads, SAMPLES);
  sampling_finish(&s, &f);
}

static void every_sample_operator_makes_on_the_device_what_it_makes_on_the_host(void **state) {
  (void)state;
  int compared = 0;
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    if (!(o->traits & OP_SAMPLE)) continue;
    if (!o->cases || !o->cases->attrs) fail_msg("%s declares no cases", o->name);
    const bool crops = strcmp(o->name, "random_crop") == 0; /* looks at the prepared label */
    for (const op_case *c = o->cases; c->attrs; c++, compared++)
      for (int k = 0; k < 4; k++) compare_operator(o, c, k % 2 ? 3 : 1, k < 2, !crops && k > 0);
  }
  assert_true(compared >= 30);
}

/* What nnU-Net does, with a crop that the rotation may take its corners from. */
static void add_long_list(sampling *s) {
  sampling_add(s, "random_crop", "{size: [14, 14, 11]}");
  sampling_add(s, "random_affine",
               "{rotation: 180, zoom: [0.7, 1.4], rotate_probability: 0.5,"
               " zoom_probability: 0.5, plane: [x, y]}");
  sampling_add(s, "random_shift_intensity", "{probability: 0.5}");
  sampling_add(s, "random_elastic", "{probability: 0.5, sigma: [2, 3], magnitude: [5, 30]}");
  sampling_add(s, "centre_crop", "{size: [10, 10, 9]}");
  sampling_add(s, "random_noise", "{probability: 0.5}");
  sampling_add(s, "random_blur", "{probability: 0.5}");
  sampling_add(s, "random_brightness", "{probability: 0.5}");
  sampling_add(s, "random_contrast", "{probability: 0.5}");
  sampling_add(s, "random_gamma", "{probability: 0.5, keep_statistics: true}");
  sampling_add(s, "random_flip", "{probability: 0.5}");
  sampling_add(s, "random_rot90", "{probability: 0.5}");
}

static void lists_of_operators_agree(void **state) {
  (void)state;
  const int64_t size[3] = {17, 16, 12};
  for (int k = 0; k < 4; k++) {
    sampling s = sampling_of(size, 1 + k % 2, k < 3);
    add_long_list(&s);
    feed f;
    sampling_begin(&s, &f);
    assert_true(f.makes_samples);
    for (uint64_t seed = 0; seed < 6; seed++) {
      comparison c = compare_batch(&s, &f, seed, 0);
      if (!(c.worst <= 1e-5)) fail_msg("the device's samples differ by %.3g", c.worst);
    }
    assert_int_equal(f.cases.uploads, SAMPLES); /* each case once in six batches */
    sampling_finish(&s, &f);
  }
}

static void a_list_without_changes_is_a_copy(void **state) {
  (void)state;
  const int64_t size[3] = {5, 4, 6};
  sampling s = sampling_of(size, 2, true);
  sampling_add(&s, "random_flip", "{probability: 0}");
  feed f;
  sampling_begin(&s, &f);
  assert_true(compare_batch(&s, &f, 1, 0).same_bits);
  s.spec.sample_count = 0;
  assert_true(compare_batch(&s, &f, 1, 0).same_bits);
  sampling_finish(&s, &f);
}

static void a_step_waits_for_the_device_only_at_its_end(void **state) {
  (void)state;
  const int64_t size[3] = {17, 16, 12};
  sampling s = sampling_of(size, 1, true);
  add_long_list(&s);
  feed f;
  sampling_begin(&s, &f);
  /* Once before, when cases are uploaded and memory grows. */
  for (uint64_t seed = 0; seed < 4; seed++) compare_batch(&s, &f, seed, 0);
  for (uint64_t seed = 0; seed < 4; seed++) {
    comparison c = compare_batch(&s, &f, seed, 0);
    assert_int_equal(c.waits, 0);
    assert_int_equal(c.step_waits,
                     emulator_count("emulator_waits") > 0); /* or they are not counted */
  }
  sampling_finish(&s, &f);
}

static void more_channels_than_a_kernel_takes_factors_for(void **state) {
  (void)state;
  const int64_t size[3] = {4, 3, 5};
  sampling s = sampling_of(size, 150, true);
  sampling_add(&s, "random_brightness", "{probability: 1}");
  sampling_add(&s, "random_contrast", "{probability: 1}");
  feed f;
  sampling_begin(&s, &f);
  assert_true(compare_batch(&s, &f, 1, 0).worst <= 1e-5);
  sampling_finish(&s, &f);
}

/* ---- the device's memory ------------------------------------------------------------------------- */

static void samples_that_the_device_has_no_room_for_are_made_on_the_host(void **state) {
  (void)state;
  const int64_t size[3] = {17, 16, 12};
  sampling s = sampling_of(size, 1, true);
  add_long_list(&s);
  feed f;
  sampling_begin(&s, &f);
  f.cases.bound_bytes = 17 * 16 * 12 * 5 - 1; /* a byte too few */
  comparison c = compare_batch(&s, &f, 1, 0);
  assert_true(c.same_bits); /* the host's own */
  assert_int_equal(f.cases.uploads, 0);
  f.cases.bound_bytes++;
  c = compare_batch(&s, &f, 1, 2); /* and two of the four by the loader */
  assert_true(c.worst <= 1e-5);
  assert_int_equal(f.cases.uploads, 2);
  assert_int_equal(f.cases.count, 1);
  sampling_finish(&s, &f);
}

static void expect_uploads(device_cases *c, sampling *s, int n, bool label, int64_t uploads) {
  device_case out;
  bool is_there;
  expect_ok(device_cases_get(c, &s->entries[n], &s->cases[n], label, &out, &is_there));
  assert_true(is_there);
  assert_int_equal(c->uploads, uploads);
  assert_true(c->used_bytes <= c->bound_bytes);
  const int64_t voxels = out.size[0] * out.size[1] * out.size[2];
  float *image = malloc((size_t)voxels * sizeof *image);
  uint8_t *classes = malloc((size_t)voxels);
  expect_ok(cuda->download(cuda, image, out.image, (size_t)voxels * sizeof *image));
  assert_memory_equal(image, s->cases[n].image.data, (size_t)voxels * sizeof *image);
  if (label) {
    expect_ok(cuda->download(cuda, classes, out.label, (size_t)voxels));
    assert_memory_equal(classes, s->cases[n].label.data, (size_t)voxels);
  }
  free(image);
  free(classes);
}

static void the_least_recently_used_case_leaves_the_device(void **state) {
  (void)state;
  const int64_t size[3] = {4, 5, 6};
  sampling s = sampling_of(size, 1, true);
  device_cases c;
  device_cases_open(cuda, 2 * 120 * 5, &c); /* two cases with labels */
  expect_uploads(&c, &s, 0, true, 1);
  expect_uploads(&c, &s, 1, true, 2);
  expect_uploads(&c, &s, 0, true, 2);
  expect_uploads(&c, &s, 2, true, 3); /* in the place of 1 */
  expect_uploads(&c, &s, 0, true, 3);
  expect_uploads(&c, &s, 1, true, 4); /* in the place of 2 */
  expect_uploads(&c, &s, 0, true, 4);
  /* Images alone leave room for one case less than the labels of all would fill. */
  expect_uploads(&c, &s, 3, false, 5);
  expect_uploads(&c, &s, 3, false, 5);
  expect_uploads(&c, &s, 3, true, 6); /* the label is asked for later */
  expect_uploads(&c, &s, 3, false, 6);
  device_cases_close(&c);
  sampling_end(&s);
}

/* ---- what the device cannot do --------------------------------------------------------------------- */

static void a_crop_that_looks_at_changed_labels_is_made_on_the_host(void **state) {
  (void)state;
  const int64_t size[3] = {10, 9, 11};
  sampling s = sampling_of(size, 2, true);
  sampling_add(&s, "random_affine", "{}");
  sampling_add(&s, "random_crop", "{size: 8}");
  feed f;
  sampling_begin(&s, &f);
  assert_false(f.makes_samples);
  assert_int_equal(feed_case_bytes(&f), 0);
  assert_non_null(strstr(f.why_not, "random_crop"));
  assert_true(compare_batch(&s, &f, 1, SAMPLES).same_bits);
  sampling_finish(&s, &f);
}

static void an_operator_without_a_kernel_is_made_on_the_host(void **state) {
  (void)state;
  sampling s = {0};
  sampling_add(&s, "random_crop", "{size: 8}");
  sampling_add(&s, "random_noise", "{}");
  op stranger = *s.uses[1].op;
  stranger.name = "stranger";
  s.uses[1].op = &stranger;
  feed f;
  sampling_begin(&s, &f);
  assert_false(f.makes_samples);
  assert_non_null(strstr(f.why_not, "stranger has no kernel for cuda"));
  sampling_finish(&s, &f);
}

static status writes_at_once(host_call *call) {
  return host_own(call);
}

static void an_operator_that_changes_voxels_by_itself_is_in_no_recipe(void **state) {
  (void)state;
  const int64_t size[3] = {4, 5, 6};
  sampling s = sampling_of(size, 1, true);
  const op writer = {.name = "writer", .traits = OP_SAMPLE, .host = writes_at_once};
  s.uses[s.spec.sample_count++].op = &writer;
  s.spec.sample = s.uses;
  recipe r = {0};
  rng_key key = rng_key_of(1, "stage", 0, "case", 0);
  expect_error(case_draw(&s.spec, &s.cases[0], key, &s.cases[0].image, &r), "by itself");
  /* Nor is a sample of another size. */
  s.spec.sample_count = 0;
  expect_error(
      case_draw(&s.spec, &s.cases[0], key, &(volume){.size = {4, 4, 4}, .channels = 1}, &r),
      "expects 4 × 4 × 4");
  recipe_free(&r);
  sampling_end(&s);
}

static void the_host_makes_its_own_samples(void **state) {
  (void)state;
  device *cpu;
  expect_ok(device_open("cpu", 1, &cpu, NULL));
  data_spec spec = {0};
  feed f;
  expect_ok(feed_open(&spec, cpu, &f));
  assert_false(f.makes_samples);
  assert_string_equal(f.why_not, "");
  assert_int_equal(feed_case_bytes(&f), 0);
  feed_close(&f);
  device_close(cpu);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_sample_operator_makes_on_the_device_what_it_makes_on_the_host),
      cmocka_unit_test(lists_of_operators_agree),
      cmocka_unit_test(a_list_without_changes_is_a_copy),
      cmocka_unit_test(a_step_waits_for_the_device_only_at_its_end),
      cmocka_unit_test(more_channels_than_a_kernel_takes_factors_for),
      cmocka_unit_test(samples_that_the_device_has_no_room_for_are_made_on_the_host),
      cmocka_unit_test(the_least_recently_used_case_leaves_the_device),
      cmocka_unit_test(a_crop_that_looks_at_changed_labels_is_made_on_the_host),
      cmocka_unit_test(an_operator_without_a_kernel_is_made_on_the_host),
      cmocka_unit_test(an_operator_that_changes_voxels_by_itself_is_in_no_recipe),
      cmocka_unit_test(the_host_makes_its_own_samples),
  };
  return cmocka_run_group_tests(tests, open_cuda, close_cuda);
}
