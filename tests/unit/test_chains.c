/* Calls that run the next one on what they have just written: which do, and that results are those of one
 * after the other, to the bit. */
#include "step_fixture.h"

#include "base/rng.h"
#include "execute/bound.h"
#include "graph/precision.h"

/* x + r → layer_norm → linear → gelu → mean square. */
typedef struct network {
  graph *g;
  value_id x, r, sum, y, target, loss;
  device *device;
  parameters parameters;
  program program;
  void *sgd;
} network;

typedef struct network_case {
  int64_t rows, channels;
  const char *features;
  bool one_row; /* of r, which is repeated */
  bool bf16;
  int chains; /* in training */
} network_case;

static const network_case cases[] = {
    {300, 40, "64", false, false, 2},  /* tasks take rows */
    {300, 40, "64", false, true, 2},   /* factors are rounded */
    {9, 32, "900", false, false, 2},   /* tasks take columns */
    {20, 2100, "40", false, false, 2}, /* and slabs of k */
    {50, 24, "5", false, false, 2},    /* too narrow for parts */
    {30, 33, "70", true, false, 2},    /* a sum that repeats */
    {1, 7, "3", false, false, 2},
};
enum { CASES = sizeof cases / sizeof *cases };

static void network_open(network *n, const network_case *c, bool training, int threads) {
  *n = (network){.g = graph_new(training)};
  builder b = {.g = n->g, .prefix = ""};
  n->x = build_input(&b, "x", DTYPE_F32, SHAPE(1, c->rows, c->channels));
  n->r = build_input(&b, "r", DTYPE_F32, SHAPE(1, c->one_row ? 1 : c->rows, c->channels));
  n->sum = APPLY(&b, "sum", "add", "broadcast", c->one_row ? "true" : "false", n->x, n->r);
  value_id normed = APPLY(&b, "norm", "layer_norm", NULL, NULL, n->sum);
  value_id before = APPLY(&b, "linear", "linear", "features", c->features, normed);
  n->y = APPLY(&b, "gelu", "gelu", NULL, NULL, before);
  n->target = build_input(&b, "target", DTYPE_F32, value_type(&b, n->y)->shape);
  n->loss = APPLY(&b, "loss", "mse", NULL, NULL, n->y, n->target);
  if (training) must(graph_differentiate(n->g, n->loss));
  value_id keep[] = {n->sum, n->y, n->loss};
  graph_prune(n->g, keep, 3);
  graph_set_precision(n->g, c->bf16 ? PRECISION_BF16 : PRECISION_F32);
  must(device_open("cpu", threads, &n->device, NULL));
  must(parameters_create(n->g, n->device, &n->parameters));
  must(parameters_initialize(&n->parameters, 3));
  n->sgd = attrs_of("sgd", "lr", "0.1");
  optimizer_use sgd = {.op = op_find("sgd"), .attrs = n->sgd};
  must(program_create(n->g, n->device, &n->parameters, keep, 3, 0, training ? &sgd : NULL,
                      &n->program));
  rng random = rng_open(rng_key_of(7, "data", 0, "test", 0), 0);
  value_id inputs[] = {n->x, n->r, n->target};
  for (int i = 0; i < 3; i++) {
    float *data = program_data(&n->program, inputs[i]);
    int64_t count = shape_elements(&n->g->values[inputs[i]].type.shape);
    for (int64_t k = 0; k < count; k++) data[k] = rng_normal(&random);
  }
}

static void network_close(network *n) {
  program_free(&n->program);
  parameters_free(&n->parameters);
  graph_free(n->g);
  device_close(n->device);
  free(n->sgd);
}

static int chains_of(const network *n) {
  int count = 0;
  for (int i = 0; i < n->program.call_count; i++) count += n->program.calls[i].chained;
  return count;
}

static void expect_same(const network *a, const network *b, value_id v) {
  assert_memory_equal(program_data(&a->program, v), program_data(&b->program, v),
                      tensor_bytes(&a->g->values[v].type));
}

/* Three steps, so that gradients show in the weights. */
static void chains_change_no_bit(void **state) {
  (void)state;
  for (int c = 0; c < CASES; c++)
    for (int training = 0; training < 2; training++)
      for (int threads = 1; threads <= 3; threads += 2) {
        network chained, apart;
        network_open(&chained, &cases[c], training, threads);
        network_open(&apart, &cases[c], training, 1);
        for (int i = 0; i < apart.program.call_count; i++) apart.program.calls[i].chained = false;
        if (training) assert_int_equal(chains_of(&chained), cases[c].chains);
        assert_true(chains_of(&chained) > 0);
        for (int step = 0; step < 3; step++) {
          must(program_run(&chained.program));
          must(program_run(&apart.program));
          expect_same(&chained, &apart, chained.sum);
          expect_same(&chained, &apart, chained.y);
          expect_same(&chained, &apart, chained.loss);
        }
        assert_memory_equal(chained.parameters.data, apart.parameters.data,
                            (size_t)chained.parameters.elements * sizeof(float));
        network_close(&chained);
        network_close(&apart);
      }
}

/* What was made of parts must not have been read yet by those that come: a result in the place of an input
 * that every part reads, or of workspace, is made afterwards. */
static void a_result_where_the_call_still_reads_waits(void **state) {
  (void)state;
  network n;
  network_open(&n, &cases[0], true, 1);
  program *p = &n.program;
  int linear = 0;
  while (strcmp(p->calls[linear].op->name, "linear") != 0) linear++;
  bound_call *own = &p->calls[linear], *gelu = own + 1;
  assert_true(own->chained);
  void *places[] = {own->call.in[0].data, own->call.workspace,
                    (char *)own->call.in[0].data + tensor_bytes(&own->call.in[0]) - 4,
                    own->call.out[0].data};
  for (int i = 0; i < 4; i++) {
    ((tensor *)gelu->call.out)[0].data = places[i];
    assert_int_equal(bound_can_chain(own, gelu), i == 3);
  }
  int sum = 0;
  while (strcmp(p->calls[sum].op->name, "add") != 0) sum++;
  own = &p->calls[sum];
  bound_call *norm = own + 1;
  assert_true(own->chained);
  ((tensor *)norm->call.out)[0].data = own->call.in[1].data; /* row by row */
  assert_true(bound_can_chain(own, norm));
  ((tensor *)norm->call.out)[0].data = (char *)own->call.in[1].data + 64;
  assert_false(bound_can_chain(own, norm));
  ((tensor *)norm->call.out)[0].data = own->call.in[1].data;
  ((tensor *)norm->call.out)[1].data = own->call.in[0].data;
  assert_false(bound_can_chain(own, norm));
  network_close(&n);
}

/* A step that is looked at after every node runs the nodes one by one. */
static status count_nodes(void *context, program *p, const node *n, bool *again) {
  (void)p, (void)n, (void)again;
  ++*(int *)context;
  return OK;
}

static void a_visited_step_runs_every_node(void **state) {
  (void)state;
  network chained, visited;
  network_open(&chained, &cases[0], true, 1);
  network_open(&visited, &cases[0], true, 1);
  int nodes = 0;
  must(program_run(&chained.program));
  must(program_run_forward(&visited.program, count_nodes, &nodes));
  assert_int_equal(nodes, 5);
  expect_same(&chained, &visited, chained.y);
  network_close(&chained);
  network_close(&visited);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(chains_change_no_bit),
      cmocka_unit_test(a_result_where_the_call_still_reads_waits),
      cmocka_unit_test(a_visited_step_runs_every_node),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
