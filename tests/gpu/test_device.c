/* The CUDA device itself, on the plug-in that STRATA_CUDA_PLUGIN names. */
#include "gradient/trial.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static device *cuda;

static int open_cuda(void **state) {
  (void)state;
  status error = device_open("cuda", 1, &cuda, NULL);
  if (error) error_print(stderr, error);
  return error != NULL;
}

static int close_cuda(void **state) {
  (void)state;
  device_close(cuda);
  return 0;
}

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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(memory_is_zeroed_and_keeps_what_is_copied),
      cmocka_unit_test(a_label_that_is_no_class_is_reported_when_the_step_ends),
      cmocka_unit_test(every_step_operator_has_a_kernel),
      cmocka_unit_test(another_plug_in_is_an_error_that_names_it),
  };
  return cmocka_run_group_tests(tests, open_cuda, close_cuda);
}
