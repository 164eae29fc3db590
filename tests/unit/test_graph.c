/* The graph builder, differentiation, fuse and prune. Dumps are compared with golden/ir/NAME.txt;
 * UPDATE_GOLDEN=1 writes them anew. */
#include "step_fixture.h"

/* ---- building -------------------------------------------------------------------------------- */

static void a_shape_mistake_is_reported_where_the_node_stands(void **state) {
  (void)state;
  graph *g = graph_new(true);
  builder b = {.g = g, .prefix = "", .at = {"net.yaml", 7, 3}};
  value_id in[2] = {build_input(&b, "x", DTYPE_F32, SHAPE(2, 3)),
                    build_input(&b, "y", DTYPE_F32, SHAPE(2, 4))};
  value_id out;
  status error = build_apply(&b, "sum", op_find("add"), NULL, in, 2, &out);
  assert_non_null(error);
  assert_string_equal(error_position(error).file, "net.yaml");
  assert_int_equal(error_position(error).line, 7);
  must_fail(error, "sum (add): the inputs must have one shape");
  must_fail(build_apply(&b, "act", op_find("relu"), NULL, in, 2, &out), "takes 1 input");
  value_id label = build_input(&b, "label", DTYPE_I32, SHAPE(2, 3));
  must_fail(build_apply(&b, "act", op_find("relu"), NULL, &label, 1, &out),
            "must hold real numbers (f32), but label holds class numbers (i32)");
  assert_int_equal(g->node_count, 0);
  graph_free(g);
}

static void one_parameter_name_is_one_parameter(void **state) {
  (void)state;
  graph *g = graph_new(true);
  builder b = {.g = g, .prefix = ""};
  param_spec spec = {.shape = SHAPE(4, 4), .init = INIT_ONES};
  value_id first, second;
  must(build_param(&b, "w", spec, &first));
  must(build_param(&b, "w", spec, &second));
  assert_int_equal(first, second);
  spec.shape = SHAPE(4, 5);
  must_fail(build_param(&b, "w", spec, &second), "parameter w is used twice with different shapes");
  graph_free(g);
}

/* ---- differentiation ------------------------------------------------------------------------- */

/* A graph with its gradients, run once. */
typedef struct ran {
  graph *g;
  device *device;
  parameters parameters;
  program program;
} ran;

static void fill(parameters *ps, uint64_t seed) {
  for (int i = 0; i < ps->count; i++) {
    /* The same values for "first.weight" and "second.weight": by the name's last part. */
    const char *dot = strrchr(ps->list[i].name, '.');
    rng r = rng_open(rng_key_of(seed, "fill", 0, dot ? dot : ps->list[i].name, 0), 0);
    int64_t n = shape_elements(&ps->list[i].shape);
    for (int64_t k = 0; k < n; k++) ps->data[ps->list[i].offset + k] = rng_normal(&r);
  }
}

static void run_graph(ran *r, graph *g, value_id loss) {
  *r = (ran){.g = g};
  must(graph_verify(g));
  must(device_open("cpu", 2, &r->device, NULL));
  must(parameters_create(g, r->device, &r->parameters));
  fill(&r->parameters, 3);
  void *attrs = attrs_of("sgd", NULL, NULL);
  optimizer_use sgd = {.op = op_find("sgd"), .attrs = attrs}; /* lr stays 0: gradients only */
  must(program_create(g, r->device, &r->parameters, &loss, 1, 1, &sgd, &r->program));
  rng values = rng_open(rng_key_of(4, "inputs", 0, "x", 0), 0);
  for (int v = 0; v < g->value_count; v++) {
    float *to = g->values[v].kind == VALUE_INPUT ? program_data(&r->program, v) : NULL;
    int64_t n = shape_elements(&g->values[v].type.shape);
    for (int64_t k = 0; to && k < n; k++) to[k] = rng_normal(&values);
  }
  must(program_run(&r->program));
  free(attrs);
}

static void close_graph(ran *r) {
  program_free(&r->program);
  parameters_free(&r->parameters);
  device_close(r->device);
  graph_free(r->g);
}

static const float *gradient_of(const ran *r, const char *name) {
  value_id gradient = r->g->values[parameter_value(r->g, name)].gradient;
  assert_int_not_equal(gradient, VALUE_NONE);
  return program_data(&r->program, gradient);
}

/* fc(x) · fc(y) against z, with one layer `fc` or with two. */
static void build_shared(ran *r, bool shared) {
  graph *g = graph_new(true);
  builder b = {.g = g, .prefix = ""};
  value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(5, 3));
  value_id y = build_input(&b, "y", DTYPE_F32, SHAPE(5, 3));
  value_id z = build_input(&b, "z", DTYPE_F32, SHAPE(5, 4));
  value_id a = APPLY(&b, shared ? "fc" : "first", "linear", "features", "4", x);
  value_id c = APPLY(&b, shared ? "fc" : "second", "linear", "features", "4", y);
  value_id loss =
      APPLY(&b, "loss", "mse", NULL, NULL, APPLY(&b, "product", "multiply", NULL, NULL, a, c), z);
  must(graph_differentiate(g, loss));
  graph_prune(g, &loss, 1);
  run_graph(r, g, loss);
}

static void shared_weights_add_their_gradients(void **state) {
  (void)state;
  ran one, two;
  build_shared(&one, true);
  build_shared(&two, false);
  assert_int_equal(one.parameters.count, 2);
  assert_int_equal(two.parameters.count, 4);
  const float *sum = gradient_of(&one, "fc.weight");
  const float *first = gradient_of(&two, "first.weight");
  const float *second = gradient_of(&two, "second.weight");
  for (int i = 0; i < 12; i++) {
    assert_true(first[i] != 0 && second[i] != 0);
    assert_true(sum[i] == first[i] + second[i]);
  }
  close_graph(&one);
  close_graph(&two);
}

/* loss = mean (w·w − t)²: dw = 2·2w·(w² − t) / n. */
static void a_value_used_twice_collects_both_gradients(void **state) {
  (void)state;
  graph *g = graph_new(true);
  builder b = {.g = g, .prefix = ""};
  value_id w, t = build_input(&b, "t", DTYPE_F32, SHAPE(6));
  must(build_param(&b, "w", (param_spec){.shape = SHAPE(6)}, &w));
  value_id square = APPLY(&b, "square", "multiply", NULL, NULL, w, w);
  value_id loss = APPLY(&b, "loss", "mse", NULL, NULL, square, t);
  must(graph_differentiate(g, loss));
  ran r;
  run_graph(&r, g, loss);
  const float *got = gradient_of(&r, "w"), *at = program_data(&r.program, w);
  const float *target = program_data(&r.program, t);
  for (int i = 0; i < 6; i++) {
    float expected = 4 * at[i] * (at[i] * at[i] - target[i]) / 6;
    assert_true(fabsf(got[i] - expected) <= 1e-5f * fabsf(expected) + 1e-7f);
  }
  close_graph(&r);
}

/* The same value many times over: more than one `add` takes. */
static void a_value_used_a_hundred_times(void **state) {
  (void)state;
  enum { USES = 100 };
  graph *g = graph_new(true);
  builder b = {.g = g, .prefix = ""};
  value_id w, t = build_input(&b, "t", DTYPE_F32, SHAPE(3));
  must(build_param(&b, "w", (param_spec){.shape = SHAPE(3)}, &w));
  value_id sum = w;
  for (int i = 1; i < USES; i++) sum = APPLY(&b, "sum", "add", NULL, NULL, sum, w);
  value_id loss = APPLY(&b, "loss", "mse", NULL, NULL, sum, t);
  must(graph_differentiate(g, loss));
  ran r;
  run_graph(&r, g, loss);
  const float *got = gradient_of(&r, "w"), *at = program_data(&r.program, w);
  const float *target = program_data(&r.program, t);
  for (int i = 0; i < 3; i++) {
    double expected = 2.0 * USES * (USES * (double)at[i] - (double)target[i]) / 3;
    assert_true(fabs((double)got[i] - expected) <= 1e-4 * fabs(expected));
  }
  close_graph(&r);
}

typedef struct cuts {
  int count;
  int64_t start[3], size[3];
  bool are_the_whole;
} cuts;

static value_id cut(builder *b, value_id x, int64_t start, int64_t size) {
  const op *slice = op_find("slice");
  void *attrs = attrs_of("slice", NULL, NULL);
  value_id part;
  *attr_integer(slice, attrs, "start") = start;
  *attr_integer(slice, attrs, "size") = size;
  must(build_apply(b, "cut", slice, attrs, &x, 1, &part));
  free(attrs);
  return part;
}

static int nodes_of(const graph *g, const char *op_name) {
  int count = 0;
  for (int i = 0; i < g->node_count; i++) count += strcmp(g->nodes[i].op->name, op_name) == 0;
  return count;
}

/* loss = mean (cuts of w, side by side − t)²: dw = Σ over the cuts of 2·(w − t) / n. */
static void slices_that_are_the_whole_join_their_gradients(void **state) {
  (void)state;
  enum { ROWS = 3, WIDTH = 6 };
  static const cuts cases[] = {
      {3, {3, 0, 2}, {3, 2, 1}, true}, /* in any order */
      {2, {0, 4}, {2, 2}, false},      /* a hole */
      {2, {0, 2}, {2, 3}, false},      /* not to the end */
      {2, {0, 3}, {4, 3}, false},      /* twice the same */
      {3, {0, 0, 3}, {3, 3, 3}, false},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const cuts *c = &cases[i];
    graph *g = graph_new(true);
    builder b = {.g = g, .prefix = ""};
    value_id w, parts[3];
    must(build_param(&b, "w", (param_spec){.shape = SHAPE(ROWS, WIDTH)}, &w));
    int64_t wide = 0;
    for (int k = 0; k < c->count; wide += c->size[k++])
      parts[k] = cut(&b, w, c->start[k], c->size[k]);
    value_id t = build_input(&b, "t", DTYPE_F32, SHAPE(ROWS, wide));
    value_id joined = apply(&b, "joined", "concat", NULL, NULL, parts, c->count);
    value_id loss = APPLY(&b, "loss", "mse", NULL, NULL, joined, t);
    must(graph_differentiate(g, loss));
    graph_prune(g, &loss, 1);
    assert_int_equal(nodes_of(g, "slice_backward"), c->are_the_whole ? 0 : c->count);
    ran r;
    run_graph(&r, g, loss);
    const float *got = gradient_of(&r, "w"), *at = program_data(&r.program, w);
    const float *target = program_data(&r.program, t);
    for (int64_t e = 0; e < ROWS * WIDTH; e++) {
      float expected = 0;
      int64_t row = e / WIDTH, column = e % WIDTH, before = 0;
      for (int k = 0; k < c->count; before += c->size[k++])
        if (column >= c->start[k] && column < c->start[k] + c->size[k])
          expected += 2 * (at[e] - target[row * wide + before + column - c->start[k]]) /
                      (float)(ROWS * wide);
      assert_true(fabsf(got[e] - expected) <= 1e-5f * fabsf(expected) + 1e-7f);
    }
    close_graph(&r);
  }
}

/* Two parameters whose gradients are one and the same value each get their own copy. */
static void equal_gradients_do_not_share_memory(void **state) {
  (void)state;
  graph *g = graph_new(true);
  builder b = {.g = g, .prefix = ""};
  value_id v, w, t = build_input(&b, "t", DTYPE_F32, SHAPE(4));
  must(build_param(&b, "v", (param_spec){.shape = SHAPE(4)}, &v));
  must(build_param(&b, "w", (param_spec){.shape = SHAPE(4)}, &w));
  value_id loss =
      APPLY(&b, "loss", "mse", NULL, NULL, APPLY(&b, "sum", "add", NULL, NULL, v, w), t);
  must(graph_differentiate(g, loss));
  ran r;
  run_graph(&r, g, loss);
  const float *dv = gradient_of(&r, "v"), *dw = gradient_of(&r, "w");
  assert_ptr_not_equal(dv, dw);
  assert_memory_equal(dv, dw, 4 * sizeof(float));
  close_graph(&r);
}

static void a_missing_gradient_rule_is_reported_at_its_line(void **state) {
  (void)state;
  graph *g = graph_new(true);
  builder b = {.g = g, .prefix = "", .at = {"net.yaml", 4, 9}};
  value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(1, 4, 4, 4, 1));
  value_id features = APPLY(&b, "up", "linear", "features", "1", x);
  b.at.line = 5;
  value_id mixed = APPLY(&b, "mixed", "shuffle_slabs", "slabs", "2", features);
  b.at.line = 6;
  value_id loss = APPLY(&b, "loss", "mse", NULL, NULL, mixed, x);
  status error = graph_differentiate(g, loss);
  assert_non_null(error);
  assert_int_equal(error_position(error).line, 5);
  must_fail(error, "mixed: operator shuffle_cells has no gradient");
  graph_free(g);
}

/* What no parameter is upstream of needs no rule and gets no backward nodes. */
static void no_gradient_is_asked_for_before_the_first_parameter(void **state) {
  (void)state;
  graph *g = graph_new(true);
  builder b = {.g = g, .prefix = ""};
  value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(1, 4, 4, 4, 1));
  value_id mixed = APPLY(&b, "mixed", "shuffle_slabs", "slabs", "2", x);
  value_id loss =
      APPLY(&b, "loss", "mse", NULL, NULL, APPLY(&b, "up", "linear", "features", "1", mixed), x);
  must(graph_differentiate(g, loss));
  for (int i = 0; i < g->node_count; i++)
    if (g->nodes[i].backward) assert_string_not_equal(g->nodes[i].name, "mixed");
  graph_free(g);
}

static void a_loss_without_parameters_is_an_error(void **state) {
  (void)state;
  graph *g = graph_new(true);
  builder b = {.g = g, .prefix = ""};
  value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(3));
  must_fail(graph_differentiate(g, APPLY(&b, "loss", "mse", NULL, NULL, x, x)),
            "does not depend on any parameter");
  graph_free(g);
}

/* ---- fuse ------------------------------------------------------------------------------------ */

static void compare_dump(const graph *g, const char *name) {
  char *text = NULL, path[4096];
  size_t length;
  FILE *out = open_memstream(&text, &length);
  graph_dump(g, out);
  fclose(out);
  snprintf(path, sizeof path, "%s/golden/ir/%s.txt", TEST_DATA, name);
  if (getenv("UPDATE_GOLDEN")) must(file_write_atomic(path, text, length));
  char *expected = NULL;
  size_t expected_length;
  must(file_read(path, 1 << 20, &expected, &expected_length));
  if (strcmp(text, expected) != 0) fail_msg("%s:\n%s", path, text);
  free(expected);
  free(text);
}

static int count_nodes(const graph *g, const char *op_name) {
  int count = 0;
  for (int i = 0; i < g->node_count; i++) count += strcmp(g->nodes[i].op->name, op_name) == 0;
  return count;
}

/* A residual block: every pattern that fuse knows. */
static value_id build_block(builder *b, value_id x) {
  value_id c1 = APPLY(b, "conv1", "instance_norm", NULL, NULL, x);
  value_id a1 = APPLY(b, "act1", "leaky_relu", "slope", "0.01", c1);
  value_id n2 =
      APPLY(b, "norm2", "instance_norm", NULL, NULL, APPLY(b, "fc", "linear", "features", "2", a1));
  value_id n3 = APPLY(b, "norm3", "instance_norm", NULL, NULL,
                      APPLY(b, "skip", "linear", "features", "2", x));
  value_id sum = APPLY(b, "sum", "add", NULL, NULL, n3, n2);
  return APPLY(b, "act2", "leaky_relu", "slope", "0.2", sum);
}

static void norm_add_and_activation_become_one_node(void **state) {
  (void)state;
  graph *g = graph_new(true);
  builder b = {.g = g, .prefix = ""};
  value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(1, 4, 4, 4, 1));
  value_id out = build_block(&b, x);
  compare_dump(g, "block");
  graph_fuse(g, &out, 1);
  must(graph_verify(g));
  compare_dump(g, "block_fused");
  assert_int_equal(count_nodes(g, "leaky_relu"), 0);
  assert_int_equal(count_nodes(g, "add"), 0);
  assert_int_equal(count_nodes(g, "instance_norm"), 3);
  graph_free(g);
}

static void fused_and_unfused_agree(void **state) {
  (void)state;
  ran r[2];
  for (int fused = 0; fused < 2; fused++) {
    graph *g = graph_new(true);
    builder b = {.g = g, .prefix = ""};
    value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(1, 4, 4, 4, 1));
    value_id t = build_input(&b, "t", DTYPE_F32, SHAPE(1, 4, 4, 4, 2));
    value_id loss = APPLY(&b, "loss", "mse", NULL, NULL, build_block(&b, x), t);
    if (fused) graph_fuse(g, &loss, 1);
    must(graph_differentiate(g, loss));
    graph_prune(g, &loss, 1);
    if (fused) compare_dump(g, "block_training");
    run_graph(&r[fused], g, loss);
  }
  const char *const names[] = {"fc.weight", "fc.bias", "skip.weight", "skip.bias"};
  for (int i = 0; i < 4; i++) {
    const float *plain = gradient_of(&r[0], names[i]), *fused = gradient_of(&r[1], names[i]);
    int64_t n = shape_elements(&r[0].g->values[parameter_value(r[0].g, names[i])].type.shape);
    for (int64_t k = 0; k < n; k++)
      assert_true(fabsf(plain[k] - fused[k]) <= 1e-5f * (1 + fabsf(plain[k])));
  }
  close_graph(&r[0]);
  close_graph(&r[1]);
}

static void what_others_read_is_not_fused(void **state) {
  (void)state;
  for (int reader = 0; reader < 4; reader++) {
    graph *g = graph_new(true);
    builder b = {.g = g, .prefix = ""};
    value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(1, 4, 4, 4, 2));
    value_id norm = APPLY(&b, "norm", "instance_norm", NULL, NULL, x);
    value_id in = reader == 3 ? APPLY(&b, "sum", "add", NULL, NULL, norm, x, x) : norm;
    value_id act = APPLY(&b, "act", "leaky_relu", "slope", "0.1", in), keep[2] = {act, VALUE_NONE};
    if (reader == 0) keep[1] = norm; /* read from outside */
    if (reader == 1) keep[1] = APPLY(&b, "other", "relu", NULL, NULL, norm);
    if (reader == 2) keep[1] = APPLY(&b, "again", "leaky_relu", "slope", "0.3", norm);
    int before = g->node_count;
    graph_fuse(g, keep, 2);
    assert_int_equal(g->node_count, before);
    must(graph_verify(g));
    graph_free(g);
  }
}

static void group_and_batch_norm_fuse_too(void **state) {
  (void)state;
  static const struct {
    const char *op, *attribute, *text, *built;
    bool training;
  } norms[] = {{"group_norm", "groups", "2", "group_norm", true},
               {"batch_norm", NULL, NULL, "batch_norm_training", true},
               {"batch_norm", NULL, NULL, "batch_norm_inference", false}};
  for (int i = 0; i < 3; i++) {
    graph *g = graph_new(norms[i].training);
    builder b = {.g = g, .prefix = ""};
    value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(2, 4, 4, 4, 2));
    value_id norm = APPLY(&b, "norm", norms[i].op, norms[i].attribute, norms[i].text, x);
    value_id act = APPLY(&b, "act", "leaky_relu", "slope", "0.1",
                         APPLY(&b, "sum", "add", NULL, NULL, x, norm));
    graph_fuse(g, &act, 1);
    must(graph_verify(g));
    assert_int_equal(g->node_count, 1);
    assert_string_equal(g->nodes[0].op->name, norms[i].built);
    assert_int_equal(g->nodes[0].in[3], x);
    graph_free(g);
  }
}

static void a_norm_is_fused_once(void **state) {
  (void)state;
  graph *g = graph_new(true);
  builder b = {.g = g, .prefix = ""};
  value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(1, 4, 4, 4, 2));
  value_id act = APPLY(&b, "act", "leaky_relu", "slope", "0.1",
                       APPLY(&b, "norm", "instance_norm", NULL, NULL, x));
  value_id twice = APPLY(&b, "twice", "leaky_relu", "slope", "0.5", act);
  graph_fuse(g, &twice, 1);
  must(graph_verify(g));
  assert_int_equal(count_nodes(g, "leaky_relu"), 1);
  const double *slope = attr_number(g->nodes[0].op, g->nodes[0].attrs, "slope");
  assert_true(*slope == 0.1);
  graph_free(g);
}

/* ---- prune ----------------------------------------------------------------------------------- */

static void prune_drops_what_nobody_asked_for(void **state) {
  (void)state;
  graph *g = graph_new(false);
  builder b = {.g = g, .prefix = ""};
  value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(2, 3));
  value_id used = APPLY(&b, "used", "relu", NULL, NULL, x);
  value_id dead = APPLY(&b, "dead", "linear", "features", "2", used);
  APPLY(&b, "deader", "relu", NULL, NULL, dead);
  value_id kept = APPLY(&b, "kept", "gelu", NULL, NULL, used);
  graph_prune(g, (value_id[]){kept, VALUE_NONE}, 2);
  must(graph_verify(g));
  assert_int_equal(g->node_count, 2);
  assert_string_equal(g->nodes[0].name, "used");
  assert_string_equal(g->nodes[1].name, "kept");
  assert_int_equal(g->values[kept].producer, 1);
  graph_prune(g, &kept, 0);
  assert_int_equal(g->node_count, 0);
  graph_free(g);
}

static void prune_keeps_the_gradients_of_parameters(void **state) {
  (void)state;
  graph *g = graph_new(true);
  builder b = {.g = g, .prefix = ""};
  value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(2, 3));
  value_id loss =
      APPLY(&b, "loss", "mse", NULL, NULL, APPLY(&b, "fc", "linear", "features", "3", x), x);
  must(graph_differentiate(g, loss));
  graph_prune(g, NULL, 0);
  must(graph_verify(g));
  value_id gradient = g->values[parameter_value(g, "fc.weight")].gradient;
  assert_true(g->values[gradient].producer >= 0);
  graph_free(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_shape_mistake_is_reported_where_the_node_stands),
      cmocka_unit_test(one_parameter_name_is_one_parameter),
      cmocka_unit_test(shared_weights_add_their_gradients),
      cmocka_unit_test(a_value_used_twice_collects_both_gradients),
      cmocka_unit_test(a_value_used_a_hundred_times),
      cmocka_unit_test(slices_that_are_the_whole_join_their_gradients),
      cmocka_unit_test(equal_gradients_do_not_share_memory),
      cmocka_unit_test(a_missing_gradient_rule_is_reported_at_its_line),
      cmocka_unit_test(no_gradient_is_asked_for_before_the_first_parameter),
      cmocka_unit_test(a_loss_without_parameters_is_an_error),
      cmocka_unit_test(norm_add_and_activation_become_one_node),
      cmocka_unit_test(fused_and_unfused_agree),
      cmocka_unit_test(what_others_read_is_not_fused),
      cmocka_unit_test(group_and_batch_norm_fuse_too),
      cmocka_unit_test(a_norm_is_fused_once),
      cmocka_unit_test(prune_drops_what_nobody_asked_for),
      cmocka_unit_test(prune_keeps_the_gradients_of_parameters),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
