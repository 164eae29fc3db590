/* What an operator keeps between steps: batch_norm's running statistics, which are parameters in
 * everything but training. */
#include "step_fixture.h"

#include "run/state.h"
#include "run/weights.h"
#include "train/transfer.h"

#define STATE_FILE "strata-test-running.safetensors"

enum { SAMPLES = 2, SIDE = 3, CHANNELS = 3, ELEMENTS = SAMPLES * SIDE * SIDE * SIDE * CHANNELS };

static int remove_file(void **state) {
  (void)state;
  remove(STATE_FILE);
  return 0;
}

/* x → batch_norm → linear → mean square. */
typedef struct network {
  graph *g;
  value_id x, y, loss;
  device *device;
  parameters own, *parameters;
  program program;
  void *sgd;
  rng data;
} network;

/* `shared`: another network's parameters, or NULL. */
static void network_make(network *n, bool training, int threads, parameters *shared) {
  *n = (network){.g = graph_new(training)};
  builder b = {.g = n->g, .prefix = ""};
  n->x = build_input(&b, "x", DTYPE_F32, SHAPE(SAMPLES, SIDE, SIDE, SIDE, CHANNELS));
  n->y = APPLY(&b, "norm", "batch_norm", NULL, NULL, n->x);
  value_id out = APPLY(&b, "fc", "linear", "features", "2", n->y);
  value_id zero = build_input(&b, "zero", DTYPE_F32, value_type(&b, out)->shape);
  n->loss = APPLY(&b, "loss", "mse", NULL, NULL, out, zero);
  value_id keep[] = {n->y, n->loss};
  if (training) must(graph_differentiate(n->g, n->loss));
  graph_prune(n->g, keep, 2);
  must(graph_verify(n->g));
  must(device_open("cpu", threads, &n->device, NULL));
  n->parameters = shared;
  if (!shared) {
    must(parameters_create(n->g, n->device, &n->own));
    must(parameters_initialize(&n->own, 3));
    n->parameters = &n->own;
  }
  n->sgd = attrs_of("sgd", "weight_decay", "0.1");
  optimizer_use sgd = {.op = op_find("sgd"), .attrs = n->sgd};
  must(program_create(n->g, n->device, n->parameters, keep, 2, SAMPLES, training ? &sgd : NULL,
                      &n->program));
  n->data = rng_open(rng_key_of(7, "data", 0, "test", 0), 0);
}

static void network_free(network *n) {
  program_free(&n->program);
  parameters_free(&n->own);
  graph_free(n->g);
  device_close(n->device);
  free(n->sgd);
}

static void network_step(network *n) {
  float *x = program_data(&n->program, n->x);
  for (int i = 0; i < ELEMENTS; i++) x[i] = 5 + (float)(i % CHANNELS + 1) * rng_normal(&n->data);
  must(program_run(&n->program));
}

static float *values_of(network *n, const char *name) {
  const parameter *p = parameters_find(n->parameters, name);
  assert_non_null(p);
  return n->parameters->data + p->offset;
}

static void they_follow_the_batches_and_no_optimizer_touches_them(void **state) {
  (void)state;
  network n;
  network_make(&n, true, 2, NULL);
  assert_int_equal(n.own.count, 6);
  for (int i = 0; i < n.own.count; i++) {
    const parameter *p = &n.own.list[i];
    bool running = text_starts_with(p->name, "norm.running_");
    assert_true(p->trained == !running);
    assert_true(running == (p->offset >= n.own.trained_elements));
  }
  /* weight and bias of the norm; 2 × 3 weights and 2 biases of the linear layer. */
  assert_int_equal(graph_param_elements(n.g), 2 * CHANNELS + 8);
  double mean[CHANNELS] = {0}, variance[CHANNELS] = {1, 1, 1};
  for (int step = 0; step < 3; step++) {
    network_step(&n);
    const float *x = program_data(&n.program, n.x);
    for (int c = 0; c < CHANNELS; c++) {
      const int count = ELEMENTS / CHANNELS;
      double sum = 0, squares = 0;
      for (int i = c; i < ELEMENTS; i += CHANNELS) sum += (double)x[i];
      for (int i = c; i < ELEMENTS; i += CHANNELS)
        squares += ((double)x[i] - sum / count) * ((double)x[i] - sum / count);
      mean[c] = 0.9 * mean[c] + 0.1 * sum / count;
      variance[c] = 0.9 * variance[c] + 0.1 * squares / (count - 1);
      assert_true(fabs((double)values_of(&n, "norm.running_mean")[c] - mean[c]) < 1e-5);
      assert_true(fabs((double)values_of(&n, "norm.running_var")[c] - variance[c]) < 1e-5);
    }
  }
  network_free(&n);
}

static void validation_reads_them_and_leaves_them_alone(void **state) {
  (void)state;
  network n, check;
  network_make(&n, true, 1, NULL);
  network_make(&check, false, 1, &n.own);
  for (int step = 0; step < 2; step++) {
    network_step(&n);
    network_step(&check);
    uint64_t before = bytes_hash(n.own.data, (size_t)n.own.elements * sizeof(float));
    must(program_run(&check.program));
    assert_true(before == bytes_hash(n.own.data, (size_t)n.own.elements * sizeof(float)));
    const float *x = program_data(&check.program, check.x);
    const float *y = program_data(&check.program, check.y);
    for (int i = 0; i < ELEMENTS; i++) {
      int c = i % CHANNELS;
      double centred = (double)x[i] - (double)values_of(&n, "norm.running_mean")[c];
      double want = centred / sqrt((double)values_of(&n, "norm.running_var")[c] + 1e-5) *
                        (double)values_of(&n, "norm.weight")[c] +
                    (double)values_of(&n, "norm.bias")[c];
      assert_true(fabs((double)y[i] - want) < 1e-5);
    }
  }
  network_free(&check);
  network_free(&n);
}

static void a_resumed_run_goes_on_to_the_same_bits(void **state) {
  (void)state;
  network whole, resumed;
  network_make(&whole, true, 3, NULL);
  for (int i = 0; i < 3; i++) network_step(&whole);
  run_state s = {.updates = whole.program.updates};
  must(state_save(STATE_FILE, &s, &whole.program));
  network_make(&resumed, true, 1, NULL);
  must(state_restore(STATE_FILE, &resumed.program));
  resumed.program.updates = s.updates;
  resumed.data = whole.data;
  for (int i = 0; i < 3; i++) network_step(&whole);
  for (int i = 0; i < 3; i++) network_step(&resumed);
  assert_true(values_of(&whole, "norm.running_mean")[0] > 1);
  assert_memory_equal(whole.own.data, resumed.own.data, (size_t)whole.own.elements * sizeof(float));
  network_free(&whole);
  network_free(&resumed);
}

static void count_unused(void *context, const char *text) {
  *(int *)context += text_starts_with(text, "  unused ");
}

/* A file that PyTorch wrote holds the counters too. */
static void they_are_transferred_and_pytorchs_counters_passed_over(void **state) {
  (void)state;
  network n;
  network_make(&n, true, 1, NULL);
  named_tensor list[7];
  float numbers[6][8];
  int32_t counter = 12;
  for (int i = 0; i < n.own.count; i++) {
    const parameter *p = &n.own.list[i];
    for (int k = 0; k < 8; k++) numbers[i][k] = (float)(10 * i + k);
    list[i] = (named_tensor){p->name, {DTYPE_F32, p->shape, numbers[i]}};
  }
  list[6] = (named_tensor){"norm.num_batches_tracked", {DTYPE_I32, {.rank = 0}, &counter}};
  must(weights_write(STATE_FILE, list, 7, NULL));
  int unused = 0;
  reporter report = {.line = count_unused, .context = &unused};
  stage_graph graph = {.g = n.g};
  must(transfer_weights(STATE_FILE, &graph, &(stage_spec){0}, n.parameters, &report));
  assert_int_equal(unused, 1);
  for (int i = 0; i < n.own.count; i++)
    assert_true(n.own.data[n.own.list[i].offset + 1] == numbers[i][1]);
  must(weights_write(STATE_FILE, list, 5, NULL));
  must_fail(transfer_weights(STATE_FILE, &graph, &(stage_spec){0}, n.parameters, &report),
            "norm.running_");
  network_free(&n);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(they_follow_the_batches_and_no_optimizer_touches_them),
      cmocka_unit_test(validation_reads_them_and_leaves_them_alone),
      cmocka_unit_test(a_resumed_run_goes_on_to_the_same_bits),
      cmocka_unit_test(they_are_transferred_and_pytorchs_counters_passed_over),
  };
  return cmocka_run_group_tests(tests, NULL, remove_file);
}
