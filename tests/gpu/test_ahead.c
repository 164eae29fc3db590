/* Batches that are made beside the steps that run: what one waits for and what it does not. The emulated
 * device runs its streams in the most unfavourable order, so a step that does not wait for its batch, or
 * a batch that does not wait for the step before it, gives other values. */
#include "gpu/sampling_fixture.h"

enum { STEPS = 7 };

/* What steps have read, noted by the device, two at a time. */
typedef struct reading {
  inputs in;
  void *notes[2];
  float *values; /* image, then label */
} reading;

static void reading_open(const drawn_batch *like, reading *r) {
  *r = (reading){0};
  inputs_open_for(like, &r->in);
  r->values = malloc((size_t)(SAMPLES * (like->values + like->voxels)) * sizeof *r->values);
}

static void reading_close(reading *r) {
  for (int i = 0; i < 2; i++) cuda->forget_note(cuda, r->notes[i]);
  free(r->values);
  inputs_close(&r->in);
}

static void start_step(reading *r, int step) {
  value_id values[] = {r->in.image, r->in.label};
  expect_ok(program_start_part(&r->in.program, 0, 1));
  expect_ok(program_note(&r->in.program, values, 2, &r->notes[step % 2]));
}

static void check_step(reading *r, int step, const drawn_batch *expected) {
  expect_ok(cuda->read_note(cuda, r->notes[step % 2], r->values));
  const void *classes = r->values + SAMPLES * expected->values;
  comparison c = compare_inputs(expected, r->values, classes);
  if (!(c.worst <= 1e-5)) fail_msg("step %d reads voxels that differ by %.3g", step, c.worst);
}

static sampling sampling_for(int k) {
  const int64_t size[3] = {17, 16, 12};
  sampling s = sampling_of(size, 1 + k % 2, k < 2);
  sampling_add(&s, "random_crop", "{size: [14, 14, 11]}");
  sampling_add(&s, "random_affine", "{rotation: 180, plane: [x, y], rotate_probability: 0.5}");
  sampling_add(&s, "centre_crop", "{size: [10, 10, 9]}");
  sampling_add(&s, "random_blur", "{probability: 0.5}");
  sampling_add(&s, "random_contrast", "{probability: 0.5}");
  sampling_add(&s, "random_flip", "{probability: 0.5}");
  return s;
}

/* As a stage does it. `between`: also batches for another program, as in a validation. */
static void run_steps(sampling *s, feed *f, int copied, bool between, int64_t *waits) {
  drawn_batch batches[STEPS];
  reading r, other;
  for (int k = 0; k < STEPS; k++) draw_batch(s, (uint64_t)k, copied, &batches[k]);
  reading_open(&batches[0], &r);
  reading_open(&batches[0], &other);
  program *p = &r.in.program;
  value_id image = r.in.image, label = label_of(&r.in, &batches[0]);
  expect_ok(feed_ahead(f, &batches[0].b, p, image, label));
  for (int k = 0; k < STEPS; k++) {
    int64_t before = emulator_count("emulator_waits");
    expect_ok(feed_deliver(f, &batches[k].b, p, image, label));
    start_step(&r, k);
    if (k + 1 < STEPS) expect_ok(feed_ahead(f, &batches[k + 1].b, p, image, label));
    if (between) {
      const drawn_batch *validated = &batches[STEPS - 1 - k];
      expect_ok(feed_write(f, &validated->b, &other.in.program, image, label));
      start_step(&other, k);
      if (k > 0) check_step(&other, k - 1, &batches[STEPS - k]);
    }
    if (k > 0) check_step(&r, k - 1, &batches[k - 1]);
    if (waits) waits[k] = emulator_count("emulator_waits") - before;
  }
  check_step(&r, STEPS - 1, &batches[STEPS - 1]);
  if (between) check_step(&other, STEPS - 1, &batches[0]);
  reading_close(&r);
  reading_close(&other);
  for (int k = 0; k < STEPS; k++) free_batch(&batches[k]);
}

static void steps_read_the_batches_that_were_made_beside_them(void **state) {
  (void)state;
  for (int k = 0; k < 4; k++) {
    sampling s = sampling_for(k);
    feed f;
    sampling_begin(&s, &f);
    assert_true(feed_works_ahead(&f));
    run_steps(&s, &f, 0, false, NULL);
    assert_int_equal(f.cases.uploads, SAMPLES);
    sampling_finish(&s, &f);
  }
}

static void a_batch_of_another_program_may_come_in_between(void **state) {
  (void)state;
  sampling s = sampling_for(0);
  feed f;
  sampling_begin(&s, &f);
  run_steps(&s, &f, 0, true, NULL);
  sampling_finish(&s, &f);
}

static void a_batch_takes_the_place_of_another_after_the_step_that_reads_it(void **state) {
  (void)state;
  drawn_batch batches[STEPS];
  reading r;
  sampling s = sampling_for(0);
  feed f;
  sampling_begin(&s, &f);
  for (int k = 0; k < STEPS; k++) draw_batch(&s, (uint64_t)k, 0, &batches[k]);
  reading_open(&batches[0], &r);
  for (int k = 0; k < STEPS; k++) {
    expect_ok(feed_write(&f, &batches[k].b, &r.in.program, r.in.image, r.in.label));
    start_step(&r, k);
    if (k > 0) check_step(&r, k - 1, &batches[k - 1]);
  }
  check_step(&r, STEPS - 1, &batches[STEPS - 1]);
  reading_close(&r);
  for (int k = 0; k < STEPS; k++) free_batch(&batches[k]);
  sampling_finish(&s, &f);
}

static void batches_of_the_loader_are_copied_ahead(void **state) {
  (void)state;
  for (int copied = 2; copied <= SAMPLES; copied += 2) {
    sampling s = sampling_for(0);
    feed f;
    sampling_begin(&s, &f);
    run_steps(&s, &f, copied, true, NULL);
    sampling_finish(&s, &f);
  }
}

static void cases_leave_the_device_after_their_last_reader(void **state) {
  (void)state;
  sampling s = sampling_for(0);
  feed f;
  sampling_begin(&s, &f);
  f.cases.bound_bytes = 17 * 16 * 12 * 5; /* one case with its label */
  run_steps(&s, &f, 0, true, NULL);
  assert_true(f.cases.uploads > STEPS * SAMPLES);
  sampling_finish(&s, &f);
}

static void the_host_waits_for_the_step_before_and_for_nothing_else(void **state) {
  (void)state;
  int64_t waits[STEPS];
  sampling s = sampling_for(0);
  feed f;
  sampling_begin(&s, &f);
  for (int turn = 0; turn < 2; turn++) run_steps(&s, &f, 0, false, waits);
  for (int k = 2; k < STEPS; k++) assert_true(waits[k] <= 1);
  sampling_finish(&s, &f);
}

/* Steps that have not run yet when the numbers change again. */
static void each_step_has_the_scheduled_numbers_of_its_start(void **state) {
  (void)state;
  enum { COUNT = 24, RUNS = 80 }; /* more than uploads are on their way at a time */
  graph *g = graph_new(false);
  builder b = {.g = g, .prefix = ""};
  const op *scale = op_find("scale");
  double factor = 1;
  float input[COUNT], read[RUNS][COUNT];
  void *notes[RUNS] = {NULL};
  parameters parameters;
  program p;
  value_id scaled, image = build_input(&b, "image", DTYPE_F32, SHAPE(COUNT));
  expect_ok(build_node(&b, "scale", &factor, &image, 1, &scaled));
  expect_ok(parameters_create(g, cuda, &parameters));
  expect_ok(program_create(g, cuda, &parameters, &scaled, 1, 0, NULL, &p));
  for (int i = 0; i < COUNT; i++) input[i] = (float)(i + 1);
  for (int k = 0; k < RUNS; k++) {
    *attr_number(scale, (void *)(uintptr_t)program_call_node(&p, 0)->attrs, "factor") = k;
    expect_ok(program_write(&p, image, input));
    expect_ok(program_start_part(&p, 0, 1));
    expect_ok(program_note(&p, &scaled, 1, &notes[k]));
  }
  for (int k = 0; k < RUNS; k++) {
    expect_ok(cuda->read_note(cuda, notes[k], read[k]));
    for (int i = 0; i < COUNT; i++) assert_true(read[k][i] == (float)k * (float)(i + 1));
    cuda->forget_note(cuda, notes[k]);
  }
  program_free(&p);
  parameters_free(&parameters);
  graph_free(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(steps_read_the_batches_that_were_made_beside_them),
      cmocka_unit_test(a_batch_of_another_program_may_come_in_between),
      cmocka_unit_test(a_batch_takes_the_place_of_another_after_the_step_that_reads_it),
      cmocka_unit_test(batches_of_the_loader_are_copied_ahead),
      cmocka_unit_test(cases_leave_the_device_after_their_last_reader),
      cmocka_unit_test(the_host_waits_for_the_step_before_and_for_nothing_else),
      cmocka_unit_test(each_step_has_the_scheduled_numbers_of_its_start),
  };
  return cmocka_run_group_tests(tests, open_cuda, close_cuda);
}
