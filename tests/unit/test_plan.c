/* The memory plan: nothing alive is overwritten, and little is wasted. */
#include "step_fixture.h"

#include "plan/plan.h"

typedef struct planned {
  pipeline *p;
  stage_graph graph;
  plan_use use;
  plan plan;
} planned;

/* Of a graph made by hand. */
static plan_use use_of(const value_id *keep, int count) {
  return (plan_use){.keep = keep, .keep_count = count, .threads = 1};
}

static void plan_stage(planned *x, int stage, bool training, int threads, bool consume) {
  x->p = load_tiny(NULL, NULL);
  expand_tiny(x->p, stage, training, training ? NULL : "net.out", &x->graph);
  x->use = (plan_use){x->graph.keep, x->graph.keep_count, threads, true, consume};
  must(plan_memory(x->graph.g, &x->use, &x->plan));
}

static void release(planned *x) {
  plan_free(&x->plan);
  stage_graph_free(&x->graph);
  pipeline_free(x->p);
}

static void plans_are_valid_and_between_their_bounds(void **state) {
  (void)state;
  for (int stage = 0; stage < 2; stage++)
    for (int kind = 0; kind < 3; kind++) /* inference, training, training that consumes gradients */
      for (int threads = 1; threads <= 64; threads *= 8) {
        planned x;
        plan_stage(&x, stage, kind > 0, threads, kind > 1);
        must(plan_verify(x.graph.g, &x.plan, &x.use));
        assert_true(x.plan.lower_bound_bytes <= x.plan.arena_bytes);
        assert_true(x.plan.arena_bytes <= x.plan.naive_bytes);
        /* Greedy by size comes close to what is alive at once; a plan far off would be a mistake. */
        assert_true((double)x.plan.arena_bytes < 1.3 * (double)x.plan.lower_bound_bytes);
        release(&x);
      }
}

static void inference_needs_less_than_training(void **state) {
  (void)state;
  planned training, inference;
  plan_stage(&training, 1, true, 2, false);
  plan_stage(&inference, 1, false, 2, false);
  assert_true(inference.plan.arena_bytes * 2 < training.plan.arena_bytes);
  release(&training);
  release(&inference);
}

static void offsets_are_aligned_and_inside(void **state) {
  (void)state;
  planned x;
  plan_stage(&x, 0, true, 3, false);
  const graph *g = x.graph.g;
  for (int v = 0; v < g->value_count; v++) {
    placement at = x.plan.values[v];
    if (at.offset < 0) continue;
    assert_int_equal(at.offset % PLAN_ALIGN, 0);
    assert_true((size_t)at.offset + tensor_bytes(&g->values[v].type) <= x.plan.arena_bytes);
    assert_int_equal(x.plan.values[at.root].root, at.root);
    assert_int_equal(x.plan.values[at.root].offset, at.offset);
  }
  for (int i = 0; i < g->node_count; i++)
    assert_true(x.plan.workspace[i] < (int64_t)x.plan.arena_bytes);
  release(&x);
}

static void parameters_and_their_gradients_stay_outside(void **state) {
  (void)state;
  planned x;
  plan_stage(&x, 0, true, 2, false);
  const graph *g = x.graph.g;
  int gradients = 0;
  for (int v = 0; v < g->value_count; v++) {
    if (g->values[v].kind != VALUE_PARAM) continue;
    assert_int_equal(x.plan.values[v].offset, -1);
    value_id gradient = g->values[v].gradient;
    if (gradient == VALUE_NONE) continue;
    gradients++;
    assert_int_equal(x.plan.values[gradient].offset, -1);
    assert_int_equal(x.plan.values[gradient].root, gradient);
  }
  assert_true(gradients > 50);
  release(&x);
}

/* x → a → b elementwise; c reads a as well when `twice`. */
static void plan_chain(bool twice, bool keep_first, bool *in_place) {
  graph *g = graph_new(false);
  builder b = {.g = g, .prefix = ""};
  value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(2, 64));
  value_id a = APPLY(&b, "a", "add", NULL, NULL, x, x);
  value_id r = APPLY(&b, "b", "add", NULL, NULL, a, x);
  value_id c = twice ? APPLY(&b, "c", "multiply", NULL, NULL, r, a)
                     : APPLY(&b, "c", "multiply", NULL, NULL, r, x);
  value_id keep[2] = {c, keep_first ? a : VALUE_NONE};
  plan p;
  plan_use use = use_of(keep, 2);
  must(plan_memory(g, &use, &p));
  must(plan_verify(g, &p, &use));
  assert_int_equal(p.values[x].root, x);
  *in_place = p.values[r].root == a;
  plan_free(&p);
  graph_free(g);
}

static void elementwise_results_take_over_memory_that_dies(void **state) {
  (void)state;
  bool in_place;
  plan_chain(false, false, &in_place);
  assert_true(in_place);
  plan_chain(true, false, &in_place); /* a is read later */
  assert_false(in_place);
  plan_chain(false, true, &in_place); /* a is read from outside */
  assert_false(in_place);
}

/* A view keeps alive what it looks at. */
static void views_share_memory_and_prolong_its_life(void **state) {
  (void)state;
  graph *g = graph_new(false);
  builder b = {.g = g, .prefix = ""};
  value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(4, 64));
  value_id a = APPLY(&b, "a", "add", NULL, NULL, x, x);
  value_id seen = APPLY(&b, "seen", "identity", NULL, NULL, a);
  value_id other = APPLY(&b, "other", "multiply", NULL, NULL, x, x);
  value_id last = APPLY(&b, "last", "add", NULL, NULL, other, seen);
  plan p;
  plan_use use = use_of(&last, 1);
  must(plan_memory(g, &use, &p));
  must(plan_verify(g, &p, &use));
  assert_int_equal(p.values[seen].root, a);
  assert_int_not_equal(p.values[other].offset, p.values[a].offset);
  plan_free(&p);
  graph_free(g);
}

/* The check itself: any buffer moved onto another that is alive with it is noticed. */
static void a_wrong_plan_is_noticed(void **state) {
  (void)state;
  graph *g = graph_new(false);
  builder b = {.g = g, .prefix = ""};
  value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(2, 40, 12));
  value_id a = APPLY(&b, "a", "self_attention", "heads", "2", x);
  value_id c = APPLY(&b, "c", "linear", "features", "6", a);
  plan p;
  plan_use use = use_of(&c, 1);
  must(plan_memory(g, &use, &p));
  must(plan_verify(g, &p, &use));
  int64_t right = p.values[c].offset;
  /* Onto its own input, which the kernel still reads while it writes. */
  p.values[c].offset = p.values[a].offset;
  must_fail(plan_verify(g, &p, &use), "c overwrites its input a");
  p.values[c].offset = right;
  must(plan_verify(g, &p, &use));
  /* A workspace onto the input. */
  int with_workspace = -1;
  for (int i = 0; i < g->node_count; i++)
    if (p.workspace[i] >= 0) with_workspace = i;
  if (with_workspace >= 0) {
    p.workspace[with_workspace] = p.values[g->nodes[with_workspace].in[0]].offset;
    must_fail(plan_verify(g, &p, &use), "overwrites its input");
  }
  plan_free(&p);
  graph_free(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(plans_are_valid_and_between_their_bounds),
      cmocka_unit_test(inference_needs_less_than_training),
      cmocka_unit_test(offsets_are_aligned_and_inside),
      cmocka_unit_test(parameters_and_their_gradients_stay_outside),
      cmocka_unit_test(elementwise_results_take_over_memory_that_dies),
      cmocka_unit_test(views_share_memory_and_prolong_its_life),
      cmocka_unit_test(a_wrong_plan_is_noticed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
