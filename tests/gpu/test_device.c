/* The CUDA device itself, on the plug-in that STRATA_CUDA_PLUGIN names. */
#include "gpu/cuda_fixture.h"
#include "gradient/trial.h"

#include "graph/precision.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void memory_is_zeroed_and_keeps_what_is_copied(void **state) {
  (void)state;
  enum { COUNT = 1000 };
  float values[COUNT], back[COUNT];
  void *memory;
  for (int i = 0; i < COUNT; i++) values[i] = (float)i;
  assert_null(cuda->allocate(cuda, sizeof values, &memory));
  assert_null(cuda->download(cuda, back, memory, sizeof back));
  for (int i = 0; i < COUNT; i++) assert_true(back[i] == 0.0f);
  assert_null(cuda->upload(cuda, memory, values, sizeof values));
  assert_null(cuda->download(cuda, back, memory, sizeof back));
  assert_memory_equal(values, back, sizeof values);
  cuda->release(cuda, memory, sizeof values);
}

static void small_uploads_may_be_many_and_their_source_changes_at_once(void **state) {
  (void)state;
  enum { COUNT = 300 };
  int32_t back[COUNT];
  void *memory;
  assert_null(cuda->allocate(cuda, sizeof back, &memory));
  for (int32_t i = 0; i < COUNT; i++)
    assert_null(cuda->upload(cuda, (int32_t *)memory + i, &i, sizeof i));
  assert_null(cuda->download(cuda, back, memory, sizeof back));
  for (int32_t i = 0; i < COUNT; i++) assert_int_equal(back[i], i);
  cuda->release(cuda, memory, sizeof back);
}

static void a_label_that_is_no_class_is_reported_when_the_step_ends(void **state) {
  (void)state;
  static const char *const losses[] = {"dice_ce", "cross_entropy", "boundary"};
  for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
    trial t;
    op_case wrong = {"{}", "[1, 2, 2, 2, 3]; [1, 2, 2, 2] in 7..7", 0};
    assert_null(trial_build(op_find(losses[i]), &wrong, 1, &t));
    assert_null(trial_open(&t, cuda));
    status error = program_run(&t.program);
    assert_non_null(error);
    assert_int_equal(error_code_of(error), ERROR_DATA);
    assert_non_null(strstr(error_message(error), "a label is 7, but the network has 3 outputs"));
    error_free(error);
    trial_close(&t);
    /* The fault is gone with its report. */
    op_case right = {"{}", "[1, 2, 2, 2, 3]; [1, 2, 2, 2] in 0..2", 0};
    trial_free(&t);
    assert_null(trial_build(op_find(losses[i]), &right, 1, &t));
    assert_null(trial_open(&t, cuda));
    assert_null(program_run(&t.program));
    trial_close(&t);
    trial_free(&t);
  }
}

static void run_and_read(trial *t, value_id v, float *out) {
  assert_null(program_run(&t->program));
  assert_null(program_read(&t->program, v, out));
}

static void a_step_that_comes_again_is_recorded_and_replayed(void **state) {
  (void)state;
  enum { COUNT = 24 };
  trial t;
  op_case scaled = {"{factor: 3}", "[2, 3, 4]", 0};
  float first[COUNT], now[COUNT], input[COUNT];
  assert_null(trial_build(op_find("scale"), &scaled, 1, &t));
  assert_null(trial_open(&t, cuda));
  program *p = &t.program;
  value_id image = t.param_count ? t.params[0] : t.images[0], result = t.results[0];
  run_and_read(&t, result, first);
  assert_null(p->recording);
  run_and_read(&t, result, now); /* is recorded, and replayed at once */
  assert_non_null(p->recording);
  assert_memory_equal(now, first, sizeof now);
  const void *kept = p->recording;

  /* Other values at the same place. */
  assert_null(program_read(p, image, input));
  for (int i = 0; i < COUNT; i++) input[i] = (float)i;
  assert_null(program_write(p, image, input));
  run_and_read(&t, result, now);
  assert_ptr_equal(p->recording, kept);
  for (int i = 0; i < COUNT; i++) assert_true(now[i] == 3 * (float)i);

  /* Another attribute: at once, and in a recording when it stays. */
  int scale_call = 0;
  while (strcmp(program_call_node(p, scale_call)->op->name, "scale") != 0) scale_call++;
  const node *n = program_call_node(p, scale_call);
  *attr_number(n->op, (void *)(uintptr_t)n->attrs, "factor") = 5;
  for (int run = 0; run < 3; run++) {
    run_and_read(&t, result, now);
    for (int i = 0; i < COUNT; i++) assert_true(now[i] == 5 * (float)i);
  }
  assert_ptr_not_equal(p->recording, NULL);
  trial_close(&t);
  trial_free(&t);
}

static void a_recording_survives_that_scratch_memory_moves(void **state) {
  (void)state;
  trial small, large;
  op_case few = {"{features: 2, kernel: 3}", "[1, 4, 4, 4, 2]", 0};
  op_case many = {"{features: 16, kernel: 3}", "[1, 8, 8, 8, 64]", 0};
  float first[128], now[128];
  assert_null(trial_build(op_find("conv3d"), &few, 1, &small));
  assert_null(trial_open(&small, cuda));
  for (int run = 0; run < 2; run++) run_and_read(&small, small.results[0], first);
  assert_non_null(small.program.recording);
  assert_null(trial_build(op_find("conv3d"), &many, 1, &large));
  assert_null(trial_open(&large, cuda)); /* which takes more scratch memory */
  assert_null(program_run(&large.program));
  for (int run = 0; run < 2; run++) {
    run_and_read(&small, small.results[0], now);
    assert_memory_equal(now, first, sizeof now);
  }
  trial_close(&large);
  trial_free(&large);
  trial_close(&small);
  trial_free(&small);
}

/* The results of a trial of `o` with its products in `p`; on the heap. */
static float *results_in(const char *o, const op_case *c, precision p, int64_t *count) {
  trial t;
  assert_null(trial_build(op_find(o), c, 1, &t));
  graph_set_precision(t.g, p);
  assert_null(trial_open(&t, cuda));
  *count = shape_elements(&t.g->values[t.results[0]].type.shape);
  float *out = malloc((size_t)*count * sizeof *out);
  run_and_read(&t, t.results[0], out);
  trial_close(&t);
  trial_free(&t);
  return out;
}

/* compare_devices says that it is near f32. */
static void tf32_rounds_factors_of_matrix_products_and_convolutions(void **state) {
  (void)state;
  static const char *const ops[] = {"linear", "matmul", "conv3d"};
  static const op_case cases[] = {{"{features: 128}", "[128, 64]", 0},
                                  {"{}", "[128, 64]; [64, 128]", 0},
                                  {"{features: 32, kernel: 3}", "[1, 6, 6, 6, 32]", 0}};
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
    int64_t count;
    float *exact = results_in(ops[i], &cases[i], PRECISION_F32, &count);
    float *rounded = results_in(ops[i], &cases[i], PRECISION_TF32, &count);
    double squares = 0, length = 0;
    for (int64_t k = 0; k < count; k++) {
      squares += ((double)rounded[k] - exact[k]) * ((double)rounded[k] - exact[k]);
      length += (double)exact[k] * exact[k];
    }
    if (sqrt(squares / length) < 2e-5) fail_msg("%s in tf32 is f32", ops[i]);
    free(exact);
    free(rounded);
  }
}

static void every_step_operator_has_a_kernel(void **state) {
  (void)state;
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    if (!o->cpu) continue;
    if (!cuda->supports(cuda, o)) fail_msg("%s has no CUDA kernel", o->name);
  }
}

static void another_plug_in_is_an_error_that_names_it(void **state) {
  (void)state;
  char *kept = strdup(getenv("STRATA_CUDA_PLUGIN"));
  device *none;
  setenv("STRATA_CUDA_PLUGIN", "/dev/null", 1);
  status error = device_open("cuda", 1, &none, NULL);
  assert_non_null(error);
  assert_non_null(strstr(error_message(error), "STRATA_CUDA_PLUGIN"));
  error_free(error);
  char why[200];
  assert_null(device_open("auto", 1, &none, why));
  assert_string_equal(none->name, "cpu");
  assert_non_null(strstr(why, "so the CPU is used"));
  device_close(none);
  setenv("STRATA_CUDA_PLUGIN", kept, 1);
  free(kept);
}

static void without_cudnn_a_device_says_so_and_has_other_arithmetic(void **state) {
  (void)state;
  device *own;
  setenv("STRATA_CUDNN", "off", 1);
  assert_null(device_open("cuda", 1, &own, NULL));
  assert_non_null(strstr(own->description, "no cuDNN: STRATA_CUDNN=off"));
  assert_string_not_equal(own->numerics, cuda->numerics);
  device_close(own);
  unsetenv("STRATA_CUDNN");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(memory_is_zeroed_and_keeps_what_is_copied),
      cmocka_unit_test(small_uploads_may_be_many_and_their_source_changes_at_once),
      cmocka_unit_test(a_label_that_is_no_class_is_reported_when_the_step_ends),
      cmocka_unit_test(a_step_that_comes_again_is_recorded_and_replayed),
      cmocka_unit_test(a_recording_survives_that_scratch_memory_moves),
      cmocka_unit_test(tf32_rounds_factors_of_matrix_products_and_convolutions),
      cmocka_unit_test(every_step_operator_has_a_kernel),
      cmocka_unit_test(without_cudnn_a_device_says_so_and_has_other_arithmetic),
      cmocka_unit_test(another_plug_in_is_an_error_that_names_it),
  };
  return cmocka_run_group_tests(tests, open_cuda, close_cuda);
}
