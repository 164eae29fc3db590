/* Moments that a convolution leaves for the norm behind it: which nodes change, and that results and
 * gradients are those of a norm that reads its input for them. */
#include "step_fixture.h"

#include "base/rng.h"
#include "ops/conv/conv_attrs.h"

/* A convolution in parameters' place: kernel 3, but for the attributes that differ. */
static value_id convolve(builder *b, const char *name, int64_t features, int64_t groups,
                         int64_t kernel, value_id x) {
  void *given = attrs_of("conv3d", NULL, NULL);
  conv3d_attrs *attrs = given;
  attrs->features = features;
  attrs->groups = groups;
  for (int a = 0; a < 3; a++) attrs->kernel[a] = kernel;
  value_id y;
  must(build_apply(b, name, op_find("conv3d"), given, &x, 1, &y));
  free(given);
  return y;
}

static value_id transpose(builder *b, const char *name, int64_t features, value_id x) {
  const op *o = op_find("conv_transpose3d");
  void *attrs = attrs_of("conv_transpose3d", "kernel", "2");
  *attr_integer(o, attrs, "features") = features;
  value_id y;
  must(build_apply(b, name, o, attrs, &x, 1, &y));
  free(attrs);
  return y;
}

static const node *maker(const graph *g, value_id v) {
  return &g->nodes[g->values[v].producer];
}

static void expect_op(const graph *g, value_id v, const char *name) {
  assert_string_equal(maker(g, v)->op->name, name);
}

/* ---- the pass ---------------------------------------------------------------------------------- */

static void every_norm_behind_a_convolution_takes_its_moments(void **state) {
  (void)state;
  graph *g = graph_new(true);
  builder b = {.g = g, .prefix = ""};
  value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(2, 6, 6, 6, 4));
  value_id y = convolve(&b, "conv", 8, 1, 3, x);
  value_id instance = APPLY(&b, "instance", "instance_norm", NULL, NULL, y);
  value_id other = APPLY(&b, "other", "gelu", NULL, NULL, y);
  value_id group = APPLY(&b, "group", "group_norm", "groups", "2", y);
  value_id batch = APPLY(&b, "batch", "batch_norm", NULL, NULL, y);
  graph_pass_moments(g);
  must(graph_verify(g));
  expect_op(g, y, "conv3d_with_moments");
  expect_op(g, instance, "instance_norm_of_moments");
  expect_op(g, group, "group_norm_of_moments");
  expect_op(g, batch, "batch_norm_of_moments");
  expect_op(g, other, "gelu");
  value_id norms[] = {instance, group, batch};
  for (int i = 0; i < 3; i++) {
    const node *n = maker(g, norms[i]);
    assert_int_equal(n->in[n->in_count - 1], maker(g, y)->out[1]);
  }
  int values = g->value_count;
  graph_pass_moments(g); /* does nothing */
  must(graph_verify(g));
  assert_int_equal(g->value_count, values);
  graph_free(g);
}

static void other_norms_stay_as_they_are(void **state) {
  (void)state;
  for (int training = 0; training < 2; training++) {
    graph *g = graph_new(training);
    builder b = {.g = g, .prefix = ""};
    value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(1, 4, 4, 4, 8));
    value_id depthwise = convolve(&b, "depthwise", 8, 8, 3, x);
    value_id up = transpose(&b, "up", 8, x);
    value_id alone = convolve(&b, "alone", 8, 1, 3, x);
    value_id between = APPLY(&b, "between", "gelu", NULL, NULL, alone);
    value_id inputs[] = {x, depthwise, up, between};
    for (int i = 0; i < 4; i++) {
      char name[16];
      snprintf(name, sizeof name, "norm%d", i);
      value_id y = APPLY(&b, name, "instance_norm", NULL, NULL, inputs[i]);
      graph_pass_moments(g);
      expect_op(g, y, "instance_norm");
    }
    expect_op(g, depthwise, "conv3d");
    expect_op(g, up, "conv_transpose3d");
    expect_op(g, alone, "conv3d");
    /* Running statistics are taken in training alone. */
    value_id last = APPLY(&b, "batch", "batch_norm", NULL, NULL, alone);
    graph_pass_moments(g);
    expect_op(g, last, training ? "batch_norm_of_moments" : "batch_norm_inference");
    expect_op(g, alone, training ? "conv3d_with_moments" : "conv3d");
    must(graph_verify(g));
    graph_free(g);
  }
}

static int nodes_of(const graph *g, const char *op_name) {
  int count = 0;
  for (int i = 0; i < g->node_count; i++) count += strcmp(g->nodes[i].op->name, op_name) == 0;
  return count;
}

static void a_stage_passes_moments_where_the_device_is_the_host(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL);
  device *cpu;
  must(device_open("cpu", 1, &cpu, NULL));
  for (int host = 0; host < 2; host++) {
    device d = *cpu;
    d.is_host = host;
    stage_graph s;
    step_memory memory;
    expand_tiny(p, 1, true, NULL, &s);
    int norms = nodes_of(s.g, "instance_norm");
    assert_true(norms > 0);
    must(stage_fit_memory(&p->stages[1], &d, &s, &memory));
    must(graph_verify(s.g));
    assert_int_equal(nodes_of(s.g, "instance_norm_of_moments") > 0, host);
    assert_int_equal(nodes_of(s.g, "conv3d_with_moments") > 0, host);
    assert_int_equal(nodes_of(s.g, "instance_norm") + nodes_of(s.g, "instance_norm_of_moments"),
                     norms);
    stage_graph_free(&s);
  }
  device_close(cpu);
  pipeline_free(p);
}

/* ---- results ----------------------------------------------------------------------------------- */

enum { SAMPLES = 3, SIDE = 7, CHANNELS = 3 };

/* x → conv → norm → mean square. */
typedef struct network {
  graph *g;
  value_id x, y, target, loss;
  device *device;
  parameters parameters;
  program program;
  void *sgd;
} network;

typedef struct network_case {
  const char *norm;
  int64_t channels, kernel; /* of the convolution's input */
} network_case;

/* The direct product, Winograd's filtering, and the matrix product. */
static const network_case cases[] = {
    {"instance_norm", CHANNELS, 3}, {"group_norm", 16, 3}, {"instance_norm", 16, 1},
    {"batch_norm", CHANNELS, 3},    {"batch_norm", 16, 3}, {"group_norm", 16, 1},
};
enum { CASES = sizeof cases / sizeof *cases, FEATURES = 20 };

/* Apart, what the convolution makes is copied before it is normalized. */
static void network_open(network *n, const network_case *c, bool apart, int threads) {
  *n = (network){.g = graph_new(true)};
  builder b = {.g = n->g, .prefix = ""};
  n->x = build_input(&b, "x", DTYPE_F32, SHAPE(SAMPLES, SIDE, SIDE, SIDE, c->channels));
  value_id y = convolve(&b, "conv", FEATURES, 1, c->kernel, n->x);
  if (apart) y = APPLY(&b, "copy", "scale", "factor", "1", y);
  bool in_groups = strcmp(c->norm, "group_norm") == 0;
  n->y = APPLY(&b, "norm", c->norm, in_groups ? "groups" : NULL, "5", y);
  n->target = build_input(&b, "target", DTYPE_F32, value_type(&b, n->y)->shape);
  n->loss = APPLY(&b, "loss", "mse", NULL, NULL, n->y, n->target);
  must(graph_differentiate(n->g, n->loss));
  value_id keep[] = {n->y, n->loss};
  graph_prune(n->g, keep, 2);
  must(device_open("cpu", threads, &n->device, NULL));
  must(parameters_create(n->g, n->device, &n->parameters));
  must(parameters_initialize(&n->parameters, 3));
  n->sgd = attrs_of("sgd", NULL, NULL);
  optimizer_use sgd = {.op = op_find("sgd"), .attrs = n->sgd};
  must(program_create(n->g, n->device, &n->parameters, keep, 2, 0, &sgd, &n->program));
  assert_int_equal(nodes_of(n->g, "conv3d_with_moments"), !apart);
  rng r = rng_open(rng_key_of(7, "data", 0, "test", 0), 0);
  value_id inputs[] = {n->x, n->target};
  for (int i = 0; i < 2; i++) {
    float *data = program_data(&n->program, inputs[i]);
    float offset = i == 0 ? 2 : 0; /* the mean is no small part of it */
    for (int64_t k = 0; k < shape_elements(&n->g->values[inputs[i]].type.shape); k++)
      data[k] = offset + rng_normal(&r);
  }
}

static void network_close(network *n) {
  program_free(&n->program);
  parameters_free(&n->parameters);
  graph_free(n->g);
  device_close(n->device);
  free(n->sgd);
}

static const float *data_of(const network *n, value_id v, int64_t *count) {
  *count = shape_elements(&n->g->values[v].type.shape);
  return program_data(&n->program, v);
}

static void expect_near(const network *a, value_id va, const network *b, value_id vb,
                        const char *what) {
  int64_t count, same;
  const float *x = data_of(a, va, &count), *y = data_of(b, vb, &same);
  assert_int_equal(count, same);
  double largest = 0;
  for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs((double)y[i]));
  for (int64_t i = 0; i < count; i++)
    if (fabs((double)x[i] - (double)y[i]) > 2e-4 * largest + 1e-6)
      fail_msg("%s, element %d: expected %g, got %g", what, (int)i, (double)y[i], (double)x[i]);
}

static void results_and_gradients_are_those_of_a_norm_of_its_own(void **state) {
  (void)state;
  for (int i = 0; i < CASES; i++) {
    network apart, together, threads;
    network_open(&apart, &cases[i], true, 2);
    network_open(&together, &cases[i], false, 1);
    network_open(&threads, &cases[i], false, 2);
    network *all[] = {&apart, &together, &threads};
    for (int k = 0; k < 3; k++) must(program_run(&all[k]->program));
    expect_near(&together, together.y, &apart, apart.y, cases[i].norm);
    for (int k = 0; k < together.parameters.count; k++) {
      const char *name = together.parameters.list[k].name;
      value_id a = parameter_value(together.g, name), b = parameter_value(apart.g, name);
      if (together.g->values[a].state) expect_near(&together, a, &apart, b, name);
      /* The norm takes away what the bias adds: its gradient is rounding. */
      else if (strcmp(name, "conv.bias") != 0)
        expect_near(&together, together.g->values[a].gradient, &apart, apart.g->values[b].gradient,
                    name);
    }
    int64_t count;
    const float *one = data_of(&together, together.y, &count);
    assert_memory_equal(one, data_of(&threads, threads.y, &count), (size_t)count * sizeof *one);
    assert_memory_equal(together.parameters.data, threads.parameters.data,
                        (size_t)together.parameters.elements * sizeof(float));
    for (int k = 0; k < 3; k++) network_close(all[k]);
  }
}

static double loss_of(network *n) {
  must(program_run(&n->program));
  return (double)*(const float *)program_data(&n->program, n->loss);
}

/* Along the gradient itself, by central differences. */
static void the_gradient_is_that_of_the_result(void **state) {
  (void)state;
  for (int i = 0; i < CASES; i++) {
    network n;
    network_open(&n, &cases[i], false, 2);
    value_id weight = parameter_value(n.g, "conv.weight");
    float *w = program_data(&n.program, weight);
    int64_t count;
    loss_of(&n);
    const float *gradient = data_of(&n, n.g->values[weight].gradient, &count);
    float *start = malloc((size_t)count * sizeof *start), *u = malloc((size_t)count * sizeof *u);
    double squares = 0;
    for (int64_t k = 0; k < count; k++) squares += (double)gradient[k] * (double)gradient[k];
    for (int64_t k = 0; k < count; k++) start[k] = w[k], u[k] = gradient[k] / (float)sqrt(squares);
    double side[2], h = 0.02;
    for (int s = 0; s < 2; s++) {
      for (int64_t k = 0; k < count; k++) w[k] = start[k] + (float)(s ? h : -h) * u[k];
      side[s] = loss_of(&n);
    }
    double difference = (side[1] - side[0]) / (2 * h);
    if (fabs(difference / sqrt(squares) - 1) > 0.02)
      fail_msg("%s: the gradient is %g, the differences are %g", cases[i].norm, sqrt(squares),
               difference);
    free(start), free(u);
    network_close(&n);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_norm_behind_a_convolution_takes_its_moments),
      cmocka_unit_test(other_norms_stay_as_they_are),
      cmocka_unit_test(a_stage_passes_moments_where_the_device_is_the_host),
      cmocka_unit_test(results_and_gradients_are_those_of_a_norm_of_its_own),
      cmocka_unit_test(the_gradient_is_that_of_the_result),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
