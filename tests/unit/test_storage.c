/* What is stored as bf16 (graph/storage.h), and what is not. */
#include "step_fixture.h"

#include "graph/storage.h"
#include "plan/plan.h"

/* ---- graphs small enough to read --------------------------------------------------------------- */

typedef struct sketch {
  graph *g;
  builder b;
  value_id x;
} sketch;

static sketch sketch_open(bool training, shape s) {
  sketch k = {.g = graph_new(training)};
  k.b = (builder){.g = k.g, .prefix = ""};
  k.x = build_input(&k.b, "x", DTYPE_F32, s);
  return k;
}

static value_id linear_of(sketch *k, const char *name, value_id x) {
  return APPLY(&k->b, name, "linear", "features", "32", x);
}

static value_id conv_of(sketch *k, const char *name, value_id x, bool bias) {
  const op *o = op_find("conv3d");
  void *attrs = attrs_of("conv3d", "kernel", "3");
  value_id out;
  *attr_integer(o, attrs, "features") = 8;
  for (const attr *a = o->attrs; a->name; a++)
    if (strcmp(a->name, "bias") == 0) *(bool *)((char *)attrs + a->offset) = bias;
  must(build_apply(&k->b, name, o, attrs, &x, 1, &out));
  free(attrs);
  return out;
}

/* Everything that leads to `result`, in bf16; a training graph is differentiated. */
static void finish(sketch *k, value_id result) {
  value_id keep = result;
  if (k->g->training) {
    value_id seed = build_input(&k->b, "seed", DTYPE_F32, k->g->values[result].type.shape);
    must(graph_differentiate_from(k->g, &result, &seed, 1));
  }
  graph_prune(k->g, &keep, 1);
  graph_set_precision(k->g, PRECISION_BF16);
  must(graph_verify(k->g));
  must(graph_choose_storage(k->g, &keep, 1));
}

static bool is_stored(const graph *g, value_id v) {
  return g->values[v].type.dtype == DTYPE_BF16;
}

static const node *node_called(const graph *g, const char *name, const char *op_name) {
  for (int i = 0; i < g->node_count; i++)
    if (strcmp(g->nodes[i].name, name) == 0 && strcmp(g->nodes[i].op->name, op_name) == 0)
      return &g->nodes[i];
  fail_msg("no node %s (%s)", name, op_name);
  return NULL;
}

static void what_only_products_read_is_stored(void **unused) {
  (void)unused;
  sketch k = sketch_open(true, SHAPE(2, 8, 32));
  value_id a = linear_of(&k, "first", k.x), h = APPLY(&k.b, "act", "gelu", NULL, NULL, a);
  value_id y = linear_of(&k, "second", h);
  finish(&k, y);
  assert_true(is_stored(k.g, h));
  assert_false(is_stored(k.g, a)); /* gelu and its gradient read it as it is */
  assert_false(is_stored(k.g, y)); /* kept */
  assert_false(is_stored(k.g, k.x));
  for (int v = 0; v < k.g->value_count; v++)
    if (k.g->values[v].kind == VALUE_PARAM) {
      assert_false(is_stored(k.g, v));
      assert_false(is_stored(k.g, k.g->values[v].gradient));
    }
  graph_free(k.g);
}

static void nothing_is_stored_where_products_are_f32(void **unused) {
  (void)unused;
  sketch k = sketch_open(true, SHAPE(2, 8, 32));
  value_id h = APPLY(&k.b, "act", "gelu", NULL, NULL, k.x);
  value_id y = APPLY(&k.b, "one", "linear", "features", "32", h);
  value_id keep = y;
  graph_set_precision(k.g, PRECISION_TF32);
  must(graph_choose_storage(k.g, &keep, 1));
  assert_false(is_stored(k.g, h));
  graph_free(k.g);
}

static void a_reader_of_exact_numbers_keeps_f32(void **unused) {
  (void)unused;
  for (int same = 0; same < 2; same++) {
    sketch k = sketch_open(false, SHAPE(2, 8, 32));
    value_id h = APPLY(&k.b, "act", "gelu", NULL, NULL, k.x), y = linear_of(&k, "one", h);
    value_id other = same ? linear_of(&k, "two", h) : APPLY(&k.b, "two", "sigmoid", NULL, NULL, h);
    if (same) /* the same operator, but the item stays f32 */
      *attr_choice(op_find("linear"), node_called(k.g, "two", "linear")->attrs, "precision") =
          PRECISION_F32;
    finish(&k, APPLY(&k.b, "sum", "add", NULL, NULL, y, other));
    assert_false(is_stored(k.g, h));
    graph_free(k.g);
  }
}

/* A norm's gradient makes what a convolution's gradients read; a bias adds it up as it is. */
static void a_gradient_of_a_bias_keeps_f32(void **unused) {
  (void)unused;
  for (int bias = 0; bias < 2; bias++) {
    sketch k = sketch_open(true, SHAPE(1, 4, 4, 4, 8));
    value_id conv = conv_of(&k, "conv", conv_of(&k, "first", k.x, true), bias);
    value_id norm = APPLY(&k.b, "norm", "instance_norm", "slope", "0.01", conv);
    finish(&k, conv_of(&k, "last", norm, true));
    const node *back = node_called(k.g, "norm", "channel_norm_backward");
    assert_int_equal(is_stored(k.g, back->out[0]), !bias);
    assert_true(is_stored(k.g, norm)); /* its gradient reads only its sign */
    graph_free(k.g);
  }
}

static void a_view_is_stored_as_what_it_looks_at(void **unused) {
  (void)unused;
  for (int exact = 0; exact < 2; exact++) {
    sketch k = sketch_open(false, SHAPE(1, 4, 4, 4, 8));
    value_id h = APPLY(&k.b, "act", "relu", NULL, NULL, k.x);
    value_id tokens = APPLY(&k.b, "tokens", "grid_to_tokens", NULL, NULL, h);
    value_id y = linear_of(&k, "one", tokens);
    if (exact) { /* a reader of the view, of the same numbers */
      value_id other = APPLY(&k.b, "wide", "concat", NULL, NULL, tokens, tokens, tokens, tokens);
      y = APPLY(&k.b, "sum", "add", NULL, NULL, y, other);
    }
    finish(&k, y);
    assert_int_equal(is_stored(k.g, h), !exact);
    assert_int_equal(is_stored(k.g, tokens), !exact);
    plan p;
    plan_use use = {.keep = &y, .keep_count = 1};
    must(plan_memory(k.g, &use, &p));
    must(plan_verify(k.g, &p, &use));
    assert_int_equal(p.values[tokens].root, p.values[h].root);
    plan_free(&p);
    graph_free(k.g);
  }
}

static void one_input_of_a_concat_may_be_f32(void **unused) {
  (void)unused;
  sketch k = sketch_open(false, SHAPE(2, 8, 32));
  value_id a = APPLY(&k.b, "a", "relu", NULL, NULL, k.x);
  value_id c = APPLY(&k.b, "c", "gelu", NULL, NULL, k.x);
  value_id both = APPLY(&k.b, "both", "concat", NULL, NULL, a, c);
  value_id y = linear_of(&k, "one", both);
  value_id sum = APPLY(&k.b, "sum", "add", NULL, NULL, y, a);
  finish(&k, sum);
  assert_true(is_stored(k.g, both));
  assert_true(is_stored(k.g, c));
  assert_false(is_stored(k.g, a));
  graph_free(k.g);
}

static void what_is_carried_to_an_exact_reader_keeps_f32(void **unused) {
  (void)unused;
  sketch k = sketch_open(false, SHAPE(2, 8, 32));
  value_id h = APPLY(&k.b, "act", "gelu", NULL, NULL, k.x);
  value_id part = APPLY(&k.b, "part", "slice", "size", "32", h);
  value_id y = linear_of(&k, "one", h);
  value_id sum = APPLY(&k.b, "sum", "add", NULL, NULL, y, part);
  finish(&k, sum);
  assert_false(is_stored(k.g, part));
  assert_false(is_stored(k.g, h));
  graph_free(k.g);
}

/* In f32 a ReLU takes its input's memory over; in half the bytes it cannot. */
static void what_shrinks_is_not_made_in_place(void **unused) {
  (void)unused;
  sketch k = sketch_open(false, SHAPE(2, 8, 32));
  value_id a = linear_of(&k, "first", k.x), h = APPLY(&k.b, "act", "relu", NULL, NULL, a);
  value_id y = linear_of(&k, "second", h);
  plan_use use = {.keep = &y, .keep_count = 1};
  plan before, after;
  must(plan_memory(k.g, &use, &before));
  assert_int_equal(before.values[h].root, a);
  finish(&k, y);
  must(plan_memory(k.g, &use, &after));
  must(plan_verify(k.g, &after, &use));
  assert_true(is_stored(k.g, h));
  assert_int_equal(after.values[h].root, h);
  plan_free(&before);
  plan_free(&after);
  graph_free(k.g);
}

static void what_is_made_again_is_stored_as_before(void **unused) {
  (void)unused;
  sketch k = sketch_open(true, SHAPE(2, 8, 32));
  value_id a = linear_of(&k, "first", k.x), h = APPLY(&k.b, "act", "gelu", NULL, NULL, a);
  finish(&k, linear_of(&k, "second", h));
  graph again;
  arena memory = {0};
  bool *chosen = arena_alloc(&memory, (size_t)k.g->node_count);
  chosen[k.g->values[h].producer] = true;
  graph_recompute(k.g, chosen, &memory, &again, NULL);
  must(graph_verify(&again));
  assert_true(again.stored);
  int twins = 0;
  for (int i = 0; i < again.node_count; i++) {
    if (!again.nodes[i].recomputed) continue;
    assert_true(is_stored(&again, again.nodes[i].out[0]));
    twins++;
  }
  assert_int_equal(twins, 1);
  arena_free(&memory);
  graph_free(k.g);
}

/* 1/√16 is a power of two, 1/√8 is none: there, queries are rounded after they are scaled. */
static void queries_are_stored_where_their_scale_rounds_nothing(void **unused) {
  (void)unused;
  static const struct {
    int64_t channels;
    bool stored;
  } cases[] = {{32, true}, {16, false}};
  for (int i = 0; i < 2; i++) {
    int64_t c = cases[i].channels;
    sketch k = sketch_open(true, SHAPE(1, 8, c));
    value_id in[3];
    const char *names[] = {"q", "k", "v"};
    for (int j = 0; j < 3; j++) in[j] = APPLY(&k.b, names[j], "scale", "factor", "0.5", k.x);
    value_id y = APPLY(&k.b, "attend", "attention", "heads", "2", in[0], in[1], in[2]);
    value_id keep = y;
    graph_set_precision(k.g, PRECISION_BF16);
    must(graph_choose_storage(k.g, &keep, 1));
    assert_int_equal(is_stored(k.g, in[0]), cases[i].stored);
    assert_true(is_stored(k.g, in[1]) && is_stored(k.g, in[2]));
    graph_free(k.g);
  }
}

/* ---- a stage ------------------------------------------------------------------------------------- */

static void a_stage_says_what_it_would_store_and_stores_it(void **unused) {
  (void)unused;
  pipeline *p = load_tiny("stages.segment.precision", "bf16");
  stage_graph s;
  expand_tiny(p, 1, true, NULL, &s);
  plan_use use = {.keep = s.keep, .keep_count = s.keep_count};
  plan before, after;
  storage_share would, has;
  must(plan_memory(s.g, &use, &before));
  must(graph_storage(s.g, s.keep, s.keep_count, &would));
  assert_false(s.g->stored);
  must(graph_choose_storage(s.g, s.keep, s.keep_count));
  must(graph_choose_storage(s.g, s.keep, s.keep_count)); /* does nothing */
  must(graph_storage(s.g, s.keep, s.keep_count, &has));
  assert_true(has.values > 10);
  assert_int_equal(has.values, would.values);
  assert_int_equal(has.bytes, would.bytes);
  must(plan_memory(s.g, &use, &after));
  must(plan_verify(s.g, &after, &use));
  assert_true(after.arena_bytes < before.arena_bytes);
  for (int i = 0; i < s.keep_count; i++)
    if (s.keep[i] != VALUE_NONE) assert_false(is_stored(s.g, s.keep[i]));
  plan_free(&before);
  plan_free(&after);
  stage_graph_free(&s);
  pipeline_free(p);
}

/* The CPU's kernels do not read bf16: there everything stays as it is. */
static void the_cpu_stores_f32(void **unused) {
  (void)unused;
  device *d;
  must(device_open("cpu", 1, &d, NULL));
  assert_false(d->stores_bf16);
  device_close(d);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_only_products_read_is_stored),
      cmocka_unit_test(nothing_is_stored_where_products_are_f32),
      cmocka_unit_test(a_reader_of_exact_numbers_keeps_f32),
      cmocka_unit_test(a_gradient_of_a_bias_keeps_f32),
      cmocka_unit_test(a_view_is_stored_as_what_it_looks_at),
      cmocka_unit_test(one_input_of_a_concat_may_be_f32),
      cmocka_unit_test(what_is_carried_to_an_exact_reader_keeps_f32),
      cmocka_unit_test(what_shrinks_is_not_made_in_place),
      cmocka_unit_test(what_is_made_again_is_stored_as_before),
      cmocka_unit_test(queries_are_stored_where_their_scale_rounds_nothing),
      cmocka_unit_test(a_stage_says_what_it_would_store_and_stores_it),
      cmocka_unit_test(the_cpu_stores_f32),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
