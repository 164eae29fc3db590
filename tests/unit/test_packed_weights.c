/* Weights that stay the same from run to run, packed once in the order in which kernels read them. */
#include "step_fixture.h"

#include "base/rng.h"
#include "ops/conv/conv_attrs.h"

/* The result of a stage of tiny.yaml for random windows. */
typedef struct inference {
  device *device;
  stage_graph graph;
  parameters parameters;
  program program;
  float *out;
  size_t bytes;
} inference;

static void inference_open(inference *n, pipeline *p, int threads, bool packs) {
  *n = (inference){0};
  expand_tiny(p, 1, false, "net.out", &n->graph);
  graph *g = n->graph.g;
  must(device_open("cpu", threads, &n->device, NULL));
  if (packs) graph_pack(g, n->graph.keep, n->graph.keep_count);
  must(parameters_create(g, n->device, &n->parameters));
  must(parameters_initialize(&n->parameters, 3));
  must(program_create(g, n->device, &n->parameters, n->graph.keep, n->graph.keep_count, TINY_BATCH,
                      NULL, &n->program));
  n->bytes = tensor_bytes(&g->values[n->graph.keep[0]].type);
  n->out = malloc(n->bytes);
}

static status take_planes(void *context, int64_t sample, int64_t from, int64_t to,
                          const float *data) {
  inference *n = context;
  const shape *s = &n->graph.g->values[n->graph.keep[0]].type.shape;
  int64_t plane = shape_elements(s) / s->dim[0] / s->dim[1];
  memcpy(n->out + (sample * s->dim[1] + from) * plane, data,
         (size_t)((to - from) * plane) * sizeof *data);
  return OK;
}

/* As the sliding window runs it. */
static void inference_run(inference *n, uint64_t windows) {
  const tensor *image = &n->graph.g->values[n->graph.image].type;
  float *x = program_data(&n->program, n->graph.image);
  rng r = rng_open(rng_key_of(windows, "test", 0, "windows", 0), 0);
  for (int64_t i = 0; i < shape_elements(&image->shape); i++) x[i] = rng_normal(&r);
  must(program_run_by_planes(&n->program, n->graph.keep[0], NULL, take_planes, n));
}

static void inference_close(inference *n) {
  program_free(&n->program);
  parameters_free(&n->parameters);
  stage_graph_free(&n->graph);
  device_close(n->device);
  free(n->out);
}

static int packed_nodes(const graph *g) {
  int count = 0;
  for (int i = 0; i < g->node_count; i++) {
    const bool *packed = node_packed(&g->nodes[i]);
    count += packed && *packed;
  }
  return count;
}

static void expect_same(const inference *a, const inference *b) {
  assert_int_equal(a->bytes, b->bytes);
  assert_memory_equal(a->out, b->out, a->bytes);
}

/* Whether any weight differs from that of the network that packs none. */
static bool parameters_differ(const inference *a, const inference *b) {
  bool differ = false;
  for (int i = 0; i < a->parameters.count; i++) {
    const parameter *p = &a->parameters.list[i], *q = parameters_find(&b->parameters, p->name);
    assert_non_null(q);
    differ |= memcmp(a->parameters.data + p->offset, b->parameters.data + q->offset,
                     (size_t)shape_elements(&p->shape) * sizeof(float)) != 0;
  }
  return differ;
}

/* Weights that Winograd's way transforms among them. */
static bool packs_growing_weights(const graph *g) {
  for (int v = 0; v < g->value_count; v++)
    if (g->values[v].kind == VALUE_PARAM &&
        graph_packed_bytes(g, v) * 9 >= tensor_bytes(&g->values[v].type) * 16)
      return true;
  return false;
}

static void they_change_no_bit_of_a_result_and_little_memory(void **state) {
  (void)state;
  for (int bf16 = 0; bf16 < 2; bf16++) {
    pipeline *p = load_tiny("stages.segment.precision", bf16 ? "bf16" : "f32");
    for (int threads = 1; threads <= 2; threads++) {
      inference plain, packed;
      inference_open(&plain, p, threads, false);
      inference_open(&packed, p, threads, true);
      assert_int_equal(packed_nodes(plain.graph.g), 0);
      assert_true(packed_nodes(packed.graph.g) > 5);
      assert_true(packs_growing_weights(packed.graph.g));
      assert_true(packed.program.plan.arena_bytes <= plain.program.plan.arena_bytes);
      assert_true(packed.parameters.elements <= 2 * plain.parameters.elements);
      for (uint64_t windows = 0; windows < 3; windows++) {
        inference_run(&plain, windows);
        inference_run(&packed, windows);
        expect_same(&plain, &packed);
        assert_true(parameters_differ(&plain, &packed)); /* it has happened */
      }
      inference_close(&plain);
      inference_close(&packed);
    }
    pipeline_free(p);
  }
}

/* As an ensemble fills them, member by member. */
static void parameters_that_are_filled_anew_are_packed_anew(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL);
  inference plain, packed;
  inference_open(&plain, p, 2, false);
  inference_open(&packed, p, 2, true);
  for (uint64_t member = 0; member < 3; member++) {
    must(parameters_initialize(&plain.parameters, member));
    must(parameters_initialize(&packed.parameters, member));
    assert_false(packed.parameters.packed);
    assert_false(parameters_differ(&plain, &packed));
    inference_run(&plain, 1);
    inference_run(&packed, 1);
    assert_true(packed.parameters.packed);
    expect_same(&plain, &packed);
  }
  inference_close(&plain);
  inference_close(&packed);
  pipeline_free(p);
}

/* Another reader would take the weight for what it was: a second layer, a view, the caller. */
static void a_weight_that_somebody_else_reads_stays_as_it_is(void **state) {
  (void)state;
  enum { ROWS = 32, CHANNELS = 32 };
  for (int other = 0; other < 4; other++) {
    graph *g = graph_new(false);
    builder b = {.g = g, .prefix = ""};
    value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(ROWS, CHANNELS));
    value_id y = APPLY(&b, "fc", "linear", "features", "32", x);
    value_id weight = parameter_value(g, "fc.weight"), keep[] = {y, VALUE_NONE};
    node first = g->nodes[g->node_count - 1];
    value_id in[] = {y, weight, first.in[2]}, last = y;
    if (other == 1) must(build_node(&b, "linear", first.attrs, in, 3, &last));
    if (other == 2) must(build_node(&b, "add", NULL, (value_id[]){y, weight}, 2, &last));
    keep[0] = last;
    if (other == 3) keep[1] = weight;
    must(graph_verify(g));
    graph_pack(g, keep, 2);
    assert_int_equal(packed_nodes(g), other == 0 ? 1 : 0);
    graph_free(g);
  }
}

/* A form is made for one number of voxels, and a head is run for fewer. */
static void a_head_that_can_run_by_planes_stays_as_it_is(void **state) {
  (void)state;
  for (int other = 0; other < 2; other++) {
    graph *g = graph_new(false);
    builder b = {.g = g, .prefix = ""};
    value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(1, 4, 4, 4, 16));
    void *attrs = attrs_of("conv3d", "features", "16");
    for (int a = 0; a < 3; a++) ((conv3d_attrs *)attrs)->kernel[a] = 1;
    value_id last;
    must(build_apply(&b, "head", op_find("conv3d"), attrs, &x, 1, &last));
    free(attrs);
    if (other) last = APPLY(&b, "act", "leaky_relu", NULL, NULL, last);
    graph_pack(g, &last, 1);
    assert_int_equal(packed_nodes(g), other);
    graph_free(g);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(they_change_no_bit_of_a_result_and_little_memory),
      cmocka_unit_test(parameters_that_are_filled_anew_are_packed_anew),
      cmocka_unit_test(a_weight_that_somebody_else_reads_stays_as_it_is),
      cmocka_unit_test(a_head_that_can_run_by_planes_stays_as_it_is),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
