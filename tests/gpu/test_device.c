/* The CUDA device itself, on the plug-in that STRATA_CUDA_PLUGIN names. */
#include "gpu/cuda_fixture.h"
#include "gradient/trial.h"

#include "graph/precision.h"
#include "language/bind.h"

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

static void uploads_of_any_size_take_what_their_source_is_then(void **state) {
  (void)state;
  enum { MOST = 50000 };
  static float values[MOST], back[MOST];
  static const int counts[] = {1, 1023, 1024, 1025, 20000, MOST};
  void *memory;
  assert_null(cuda->allocate(cuda, sizeof back, &memory));
  for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
    for (int i = 0; i < MOST; i++) values[i] = (float)(i + counts[k]);
    assert_null(cuda->upload(cuda, memory, values, (size_t)counts[k] * sizeof *values));
    for (int i = 0; i < MOST; i++) values[i] = -1;
    assert_null(cuda->download(cuda, back, memory, sizeof back));
    for (int i = 0; i < counts[k]; i++) assert_true(back[i] == (float)(i + counts[k]));
  }
  cuda->release(cuda, memory, sizeof back);
}

static void a_target_without_an_output_is_reported_when_the_step_ends(void **state) {
  (void)state;
  static const char label[] = "a label is 7, but the network has 3 outputs";
  static const char set[] = "lies in region 4 of data: regions, but the network's outputs end at "
                            "region 3";
  static const struct {
    const char *loss, *target, *words;
  } cases[] = {{"dice_ce", "7..7", label},
               {"cross_entropy", "7..7", label},
               {"boundary", "7..7", label},
               {"dice_ce", "8..15 sets", set},
               {"focal", "8..15 sets", set}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    trial t;
    char inputs[64];
    snprintf(inputs, sizeof inputs, "[1, 2, 2, 2, 3]; [1, 2, 2, 2] in %s", cases[i].target);
    op_case wrong = {"{}", inputs, 0};
    assert_null(trial_build(op_find(cases[i].loss), &wrong, 1, &t));
    assert_null(trial_open(&t, cuda));
    status error = program_run(&t.program);
    assert_non_null(error);
    assert_int_equal(error_code_of(error), ERROR_DATA);
    assert_non_null(strstr(error_message(error), cases[i].words));
    error_free(error);
    trial_close(&t);
    /* The fault is gone with its report. */
    op_case right = {"{}", "[1, 2, 2, 2, 3]; [1, 2, 2, 2] in 0..2", 0};
    trial_free(&t);
    assert_null(trial_build(op_find(cases[i].loss), &right, 1, &t));
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
  const void *const *recording =
      (const void *const *)&p->recordings[true]; /* it ends in an update */
  run_and_read(&t, result, first);
  assert_null(*recording);
  run_and_read(&t, result, now); /* is recorded, and replayed at once */
  assert_non_null(*recording);
  assert_memory_equal(now, first, sizeof now);
  const void *kept = *recording;

  /* Other values at the same place. */
  assert_null(program_read(p, image, input));
  for (int i = 0; i < COUNT; i++) input[i] = (float)i;
  assert_null(program_write(p, image, input));
  run_and_read(&t, result, now);
  for (int i = 0; i < COUNT; i++) assert_true(now[i] == 3 * (float)i);

  /* Another number of those that schedules change. */
  int scale_call = 0;
  while (strcmp(program_call_node(p, scale_call)->op->name, "scale") != 0) scale_call++;
  const node *n = program_call_node(p, scale_call);
  for (int factor = 5; factor < 8; factor++) {
    *attr_number(n->op, (void *)(uintptr_t)n->attrs, "factor") = factor;
    run_and_read(&t, result, now);
    for (int i = 0; i < COUNT; i++) assert_true(now[i] == (float)factor * (float)i);
  }
  assert_ptr_equal(*recording, kept);
  int64_t launches = emulator_count("emulator_single_launches");
  run_and_read(&t, result, now); /* forward, backward and update: all of it in the recording */
  assert_int_equal(emulator_count("emulator_single_launches"), launches);
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
  assert_non_null(small.program.recordings[true]);
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

/* ---- updates: what is no node of a graph, and so nothing that compare_devices knows ------------- */

enum { UPDATE_ELEMENTS = 5000, UPDATE_BUFFERS = 5, UPDATE_STEPS = 3 };

typedef struct update_case {
  const char *op;
  const char *set[4][2]; /* attributes */
} update_case;

static const update_case update_cases[] = {
    {"sgd", {{"lr", "0.1"}}},
    {"sgd", {{"lr", "0.1"}, {"momentum", "0.9"}, {"weight_decay", "0.01"}}},
    {"sgd", {{"lr", "0.1"}, {"momentum", "0.9"}, {"weight_decay", "0.01"}, {"nesterov", "true"}}},
    {"adam", {{"lr", "0.01"}, {"weight_decay", "0.1"}}},
    {"adamw", {{"lr", "0.01"}, {"weight_decay", "0.1"}, {"beta2", "0.99"}}},
    {"gradient_accumulate", {{"parts", "3"}, {"part", "0"}}},
    {"gradient_accumulate", {{"parts", "3"}, {"part", "1"}}},
    {"gradient_accumulate", {{"parts", "3"}, {"part", "2"}}},
    {"gradient_clamp", {{"max_value", "0.5"}}},
    {"gradient_clip", {{"max_norm", "2"}}},
    {"gradient_clip", {{"max_norm", "1000"}}},
    {"weight_average", {{"decay", "0.9"}}},
    {"weight_exchange", {{NULL, NULL}}},
};

/* The operator's flat buffers after some steps, one behind the other, and then its scalar result. */
static void update_on(device *d, const update_case *c, float *out) {
  const op *o = op_find(c->op);
  assert_non_null(o);
  bool is_optimizer = o->traits & OP_OPTIMIZER;
  int buffers = is_optimizer ? 2 + o->state_buffers : port_count(o->inputs);
  arena memory = {0};
  void *attrs = calloc(1, o->attrs_bytes + 1), *data[UPDATE_BUFFERS], *step, *result;
  op_defaults(o, attrs);
  for (int k = 0; k < 4 && c->set[k][0]; k++)
    for (const attr *a = o->attrs; a->name; a++)
      if (strcmp(a->name, c->set[k][0]) == 0)
        assert_null(bind_attr_text(a, c->set[k][1], &memory, attrs));
  tensor in[UPDATE_BUFFERS + 1], norm = {.dtype = DTYPE_F32, .shape = {.rank = 0}};
  rng random = rng_open(rng_key_of(1, "update", 0, "", 0), 0);
  int count = 0;
  assert_null(d->allocate(d, 64, &step));
  assert_null(d->allocate(d, 64, &result));
  for (int b = 0; b < buffers; b++) {
    assert_null(d->allocate(d, UPDATE_ELEMENTS * sizeof(float), &data[b]));
    for (int i = 0; i < UPDATE_ELEMENTS; i++) out[i] = (float)rng_normal(&random);
    /* Moments begin at zero. */
    if (!is_optimizer || b < 2)
      assert_null(d->upload(d, data[b], out, UPDATE_ELEMENTS * sizeof *out));
    in[count++] = (tensor){.dtype = DTYPE_F32, .shape = SHAPE(UPDATE_ELEMENTS), .data = data[b]};
    if (is_optimizer && b == 1)
      in[count++] = (tensor){.dtype = DTYPE_I32, .shape = SHAPE(1), .data = step};
  }
  norm.data = result;
  call run = {.attrs = attrs, .in = in, .in_count = count, .pool = d->pool, .out = &norm};
  run.out_count = o->outputs && o->outputs[0].name ? 1 : 0;
  size_t workspace =
      o->workspace_bytes ? o->workspace_bytes(attrs, in, count, &norm, device_plan_threads(d)) : 0;
  if (d->is_host && workspace > 0) assert_null(d->allocate(d, workspace, &run.workspace));
  if (d->reserve) assert_null(d->reserve(d, o, &run));
  for (int32_t s = 1; s <= UPDATE_STEPS; s++) {
    assert_null(d->upload(d, step, &s, sizeof s));
    assert_null(d->launch(d, o, &run));
    assert_null(d->synchronize(d));
  }
  for (int b = 0; b < buffers; b++)
    assert_null(d->download(d, out + b * UPDATE_ELEMENTS, data[b], UPDATE_ELEMENTS * sizeof *out));
  assert_null(d->download(d, out + buffers * UPDATE_ELEMENTS, result, sizeof *out));
  for (int b = 0; b < buffers; b++) d->release(d, data[b], UPDATE_ELEMENTS * sizeof(float));
  if (run.workspace) d->release(d, run.workspace, workspace);
  d->release(d, step, 64);
  d->release(d, result, 64);
  free(attrs);
  arena_free(&memory);
}

static void updates_equal_the_cpus(void **state) {
  (void)state;
  enum { VALUES = UPDATE_BUFFERS * UPDATE_ELEMENTS + 1 };
  device *cpu;
  assert_null(device_open("cpu", 1, &cpu, NULL));
  float *expected = calloc(VALUES, sizeof *expected), *made = calloc(VALUES, sizeof *made);
  for (size_t k = 0; k < sizeof update_cases / sizeof *update_cases; k++) {
    memset(expected, 0, VALUES * sizeof *expected);
    memset(made, 0, VALUES * sizeof *made);
    update_on(cpu, &update_cases[k], expected);
    update_on(cuda, &update_cases[k], made);
    for (int i = 0; i < VALUES; i++)
      if (!(fabsf(made[i] - expected[i]) <= 1e-5f * (1 + fabsf(expected[i]))))
        fail_msg("%s (case %zu): value %d is %g, the CPU's is %g", update_cases[k].op, k, i,
                 (double)made[i], (double)expected[i]);
  }
  free(expected);
  free(made);
  device_close(cpu);
}

static void every_update_operator_is_compared(void **state) {
  (void)state;
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    if (!o->cpu || strcmp(o->family, "optimizer") != 0) continue;
    bool found = false;
    for (size_t k = 0; k < sizeof update_cases / sizeof *update_cases; k++)
      found |= strcmp(update_cases[k].op, o->name) == 0;
    if (!found) fail_msg("%s is compared by no case", o->name);
  }
}

static void every_step_operator_has_a_kernel(void **state) {
  (void)state;
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    if (!o->cpu || o->traits & OP_CPU_ONLY) continue;
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

static void a_card_that_is_not_there_is_an_error_that_names_those_that_are(void **state) {
  (void)state;
  device *none;
  status error = device_open("cuda:999", 1, &none, NULL);
  assert_non_null(error);
  assert_non_null(strstr(error_message(error), "device: cuda:999: there "));
  assert_non_null(strstr(error_message(error), " here, cuda:0"));
  error_free(error);
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
      cmocka_unit_test(uploads_of_any_size_take_what_their_source_is_then),
      cmocka_unit_test(a_target_without_an_output_is_reported_when_the_step_ends),
      cmocka_unit_test(a_step_that_comes_again_is_recorded_and_replayed),
      cmocka_unit_test(a_recording_survives_that_scratch_memory_moves),
      cmocka_unit_test(tf32_rounds_factors_of_matrix_products_and_convolutions),
      cmocka_unit_test(updates_equal_the_cpus),
      cmocka_unit_test(every_update_operator_is_compared),
      cmocka_unit_test(every_step_operator_has_a_kernel),
      cmocka_unit_test(without_cudnn_a_device_says_so_and_has_other_arithmetic),
      cmocka_unit_test(a_card_that_is_not_there_is_an_error_that_names_those_that_are),
      cmocka_unit_test(another_plug_in_is_an_error_that_names_it),
  };
  return cmocka_run_group_tests(tests, open_cuda, close_cuda);
}
