/* Recomputation: what runs twice, that it changes no bit, and that budgets are met or refused; and
 * updates that consume their gradients. */
#include "step_fixture.h"

#include "plan/budget.h"

enum { PRETRAIN, SEGMENT };

/* ---- a graph small enough to read ------------------------------------------------------------ */

typedef struct chain {
  graph *g;
  value_id loss;
  plan_use use;
} chain;

/* loss = mse(second(gelu(first(x))), y), differentiated */
static void build_chain(chain *c) {
  c->g = graph_new(true);
  builder b = {.g = c->g, .prefix = ""};
  value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(64, 32));
  value_id y = build_input(&b, "y", DTYPE_F32, SHAPE(64, 32));
  value_id a = APPLY(&b, "first", "linear", "features", "128", x);
  value_id h = APPLY(&b, "act", "gelu", NULL, NULL, a);
  value_id z = APPLY(&b, "second", "linear", "features", "32", h);
  c->loss = APPLY(&b, "loss", "mse", NULL, NULL, z, y);
  must(graph_differentiate(c->g, c->loss));
  graph_prune(c->g, &c->loss, 1);
  c->use = (plan_use){.keep = &c->loss, .keep_count = 1, .threads = 1};
}

static int node_called(const graph *g, const char *name, const char *op_name) {
  for (int i = 0; i < g->node_count; i++)
    if (strcmp(g->nodes[i].name, name) == 0 && strcmp(g->nodes[i].op->name, op_name) == 0) return i;
  fail_msg("no node %s (%s)", name, op_name);
  return -1;
}

static void a_node_runs_again_just_before_its_first_backward_reader(void **unused) {
  (void)unused;
  chain c;
  build_chain(&c);
  graph *g = c.g, again;
  arena memory = {0};
  int act = node_called(g, "act", "gelu"), forward = graph_forward_nodes(g), place[64];
  assert_int_equal(forward, 4); /* first, act, second, loss */
  value_id h = g->nodes[act].out[0];
  int reader = node_called(g, "second", "linear_backward_weight");
  bool *chosen = arena_alloc(&memory, (size_t)g->node_count);
  chosen[act] = true;
  graph_recompute(g, chosen, &memory, &again, place);
  must(graph_verify(&again));
  assert_int_equal(again.node_count, g->node_count + 1);
  const node *twice = &again.nodes[reader], *after = &again.nodes[reader + 1];
  assert_string_equal(twice->name, "act");
  assert_true(twice->recomputed && twice->backward && twice->op == g->nodes[act].op);
  assert_int_equal(place[reader], reader);
  assert_int_equal(place[reader + 1], reader);
  assert_int_equal(node_stream(twice), node_stream(&g->nodes[act])); /* the same random numbers */
  assert_int_equal(twice->in[0], g->nodes[act].in[0]);
  assert_string_equal(after->op->name, "linear_backward_weight");
  bool reads_second = false;
  for (int k = 0; k < after->in_count; k++) {
    assert_int_not_equal(after->in[k], h);
    reads_second |= after->in[k] == twice->out[0];
  }
  assert_true(reads_second);
  assert_int_equal(again.nodes[2].in[0], h); /* the forward part is as it was */
  arena_free(&memory);
  graph_free(g);
}

static void what_is_made_again_takes_its_inputs_from_what_is_made_again(void **unused) {
  (void)unused;
  chain c;
  build_chain(&c);
  graph *g = c.g, again;
  arena memory = {0};
  int first = node_called(g, "first", "linear"), act = node_called(g, "act", "gelu");
  bool *chosen = arena_alloc(&memory, (size_t)g->node_count);
  chosen[first] = chosen[act] = true;
  graph_recompute(g, chosen, &memory, &again, NULL);
  must(graph_verify(&again));
  assert_int_equal(again.node_count, g->node_count + 2);
  int reader = node_called(g, "second", "linear_backward_weight");
  assert_string_equal(again.nodes[reader].name, "first");
  assert_string_equal(again.nodes[reader + 1].name, "act");
  assert_int_equal(again.nodes[reader + 1].in[0], again.nodes[reader].out[0]);
  /* gelu's gradient reads what came out of `first`: the second one. */
  const node *gradient = &again.nodes[node_called(&again, "act", "gelu_backward")];
  bool reads_second = false;
  for (int k = 0; k < gradient->in_count; k++)
    reads_second |= gradient->in[k] == again.nodes[reader].out[0];
  assert_true(reads_second);
  arena_free(&memory);
  graph_free(g);
}

/* gelu costs a pass over memory and the linear layers 64 times as much: it goes first. */
static void cheap_results_go_first(void **unused) {
  (void)unused;
  chain c;
  build_chain(&c);
  recomputation r;
  plan before;
  must(plan_memory(c.g, &c.use, &before));
  must(plan_within(c.g, &c.use, before.arena_bytes, &r));
  assert_int_equal(r.nodes, 0);
  assert_int_equal(r.arena_bytes, before.arena_bytes);
  must(plan_within(c.g, &c.use, before.arena_bytes - 1, &r));
  assert_int_equal(r.arena_before_bytes, before.arena_bytes);
  assert_true(r.arena_bytes < before.arena_bytes);
  assert_int_equal(r.nodes, 1);
  assert_true(c.g->nodes[node_called(c.g, "act", "gelu")].op->cpu != NULL);
  int count = 0;
  for (int i = 0; i < c.g->node_count; i++)
    if (c.g->nodes[i].recomputed) {
      assert_string_equal(c.g->nodes[i].name, "act");
      count++;
    }
  assert_int_equal(count, 1);
  plan after;
  must(plan_memory(c.g, &c.use, &after));
  must(plan_verify(c.g, &after, &c.use));
  assert_int_equal(after.arena_bytes, r.arena_bytes); /* what is printed is what is used */
  plan_free(&before);
  plan_free(&after);
  graph_free(c.g);
}

static void an_impossible_budget_leaves_the_graph_and_names_one_that_is_possible(void **unused) {
  (void)unused;
  chain c;
  build_chain(&c);
  int nodes = c.g->node_count;
  recomputation r;
  must(plan_within(c.g, &c.use, 0, &r));
  assert_true(r.arena_bytes > 0 && r.arena_bytes <= r.arena_before_bytes);
  assert_int_equal(c.g->node_count, nodes);
  assert_int_equal(r.nodes, 0);
  size_t smallest = r.arena_bytes;
  must(plan_within(c.g, &c.use, smallest, &r));
  assert_true(r.arena_bytes <= smallest);
  graph_free(c.g);
}

/* ---- networks -------------------------------------------------------------------------------- */

typedef struct network_case {
  const char *name;
  int stage;
  int64_t batch, size[3];
  override set[6];
  int set_count;
} network_case;

static const network_case networks[] = {
    /* Shuffled slabs, masks and dropout draw random numbers, twice the same. */
    {"UNETR with dropout, step 1", PRETRAIN, 2, {16, 16, 32}, {{0}}, 0},
    {"UNETR with averaged weights",
     SEGMENT,
     2,
     {16, 16, 32},
     {{"stages.segment.clip_norm", "0"},
      {"stages.segment.clip_value", "0.01"},
      {"stages.segment.ema", "{decay: 0.9}"}},
     3},
    {"Swin UNETR with batch norm",
     SEGMENT,
     2,
     {32, 32, 32},
     {{"model.use", "models/swin_unetr.yaml"},
      {"model.with",
       "{features: 6, depths: [2, 1, 1, 1], heads: [1, 2, 2, 4], window: [4, 4, 4], norm: batch, dropout: "
       "0.1, attention_dropout: 0.1, drop_path: 0.2}"},
      {"stages.segment.clip_norm", "0"}},
     3},
    {"UNETR++",
     SEGMENT,
     2,
     {16, 32, 32},
     {{"model.use", "models/unetr_plus_plus.yaml"},
      {"model.with", "{features: 2, depths: [1, 1, 1, 1], decoder_depth: 1, heads: 2, projections: "
                     "[8, 8, 8, 4]}"}},
     2},
    {"residual DynUNet with batch norm",
     SEGMENT,
     2,
     {16, 16, 16},
     {{"model.use", "models/dynunet.yaml"},
      {"model.with",
       "{filters: [4, 8, 8], kernel_size: [3, 3, 3], strides: [1, 2, 2], "
       "upsample_kernel_size: [2, 2], levels: [0, 1], res_block: true, norm: batch, dropout: 0.2}"},
      {"stages.segment.clip_norm", "0"}},
     3},
};

/* Weights, running statistics, moments, averages and the loss after some steps. */
static uint64_t trained(pipeline *p, const network_case *n, int threads, int64_t budget,
                        compiled *c) {
  p->stages[n->stage].memory_bytes = budget;
  compile_sized(c, p, n->stage, threads, n->batch, n->size);
  step_tiny(c, 2);
  return digest_tiny(c);
}

static void budgets_change_no_bit(void **unused) {
  (void)unused;
  for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) {
    const network_case *n = &networks[i];
    pipeline *p = load_tiny_with(n->set, n->set_count);
    compiled plain;
    uint64_t expected = trained(p, n, 2, 0, &plain);
    size_t outside = plain.memory.outside_bytes, whole = plain.program.plan.arena_bytes;
    recomputation r;
    must(plan_within(plain.graph.g, &plain.memory.use, 0, &r));
    size_t least = r.arena_bytes;
    print_message("%s: arena %zu KiB, at least %zu KiB\n", n->name, whole / 1024, least / 1024);
    assert_int_equal(whole, r.arena_before_bytes);
    assert_true(least < whole);
    for (int part = 0; part < 2; part++) {
      size_t budget = outside + (part == 0 ? least : (least + whole) / 2);
      compiled c;
      uint64_t got = trained(p, n, 1 + 2 * part, (int64_t)budget, &c);
      assert_true(c.memory.again.nodes > 0);
      assert_true(c.program.plan.arena_bytes + outside <= budget);
      must(plan_verify(c.graph.g, &c.program.plan, &c.memory.use));
      for (int k = 0; k < c.graph.g->node_count; k++) {
        const node *x = &c.graph.g->nodes[k];
        if (x->recomputed && strcmp(x->op->name, "batch_norm_training") == 0)
          fail_msg("%s: running statistics would be updated twice", n->name);
      }
      if (got != expected) fail_msg("%s: a budget changed the results", n->name);
      release_tiny(&c);
    }
    release_tiny(&plain);
    pipeline_free(p);
  }
}

static void a_budget_that_cannot_be_met_is_refused_at_its_line(void **unused) {
  (void)unused;
  pipeline *p = load_tiny("stages.pretrain.memory", "1MiB");
  assert_int_equal(p->stages[PRETRAIN].memory_bytes, 1 << 20);
  stage_graph graph;
  step_memory memory;
  device *d;
  expand_tiny(p, PRETRAIN, true, NULL, &graph);
  must(device_open("cpu", 1, &d, NULL));
  status error = stage_fit_memory(&p->stages[PRETRAIN], d, &graph, &memory);
  assert_string_equal(error_position(error).file, "--set stages.pretrain.memory=1MiB");
  const char *smallest = strstr(error_message(error), "that can be met is ");
  assert_non_null(smallest);
  char size[32];
  assert_int_equal(sscanf(smallest, "that can be met is %31[^;.]", size), 1);
  error_free(error);
  /* The budget that it names is met. */
  assert_true(parse_bytes(size, &p->stages[PRETRAIN].memory_bytes));
  must(stage_fit_memory(&p->stages[PRETRAIN], d, &graph, &memory));
  assert_true(memory.outside_bytes + memory.again.arena_bytes <=
              (size_t)p->stages[PRETRAIN].memory_bytes);
  stage_graph_free(&graph);
  device_close(d);
  pipeline_free(p);
}

static void a_budget_is_no_part_of_the_identity(void **unused) {
  (void)unused;
  pipeline *a = load_tiny(NULL, NULL), *b = load_tiny("stages.segment.memory", "1.5 GiB");
  assert_true(a->identity == b->identity);
  assert_int_equal(b->stages[SEGMENT].memory_bytes, 3ll << 29);
  pipeline_free(a);
  pipeline_free(b);
}

/* ---- consumed gradients ---------------------------------------------------------------------- */

/* A limit on the norm that is never reached keeps the gradients to the end of the step. */
static void consuming_gradients_changes_no_bit(void **unused) {
  (void)unused;
  static const char *const clip_value[] = {"0", "1.0e-3"};
  for (int i = 0; i < 2; i++) {
    const override consuming[] = {
        {"stages.segment.clip_norm", "0"},
        {"stages.segment.clip_value", clip_value[i]},
        {"stages.segment.no_decay", "[norm, bias]"},
        {"stages.segment.groups", "[{match: \"vit.*.weight\", lr_scale: 0.3, momentum: 0.5}]"},
        {"stages.segment.ema", "{decay: 0.9}"}};
    override keeping[5];
    memcpy(keeping, consuming, sizeof keeping);
    keeping[0].value = "1.0e9";
    pipeline *p = load_tiny_with(consuming, 5), *q = load_tiny_with(keeping, 5);
    compiled a, b;
    compile_tiny(&a, p, SEGMENT, 2);
    compile_tiny(&b, q, SEGMENT, 2);
    assert_null(a.program.gradients);
    assert_non_null(b.program.gradients);
    /* It pays: a buffer of all gradients less, for an arena that grows by less than that. */
    assert_true(a.memory.outside_bytes + a.program.plan.arena_bytes <
                b.memory.outside_bytes + b.program.plan.arena_bytes);
    step_tiny(&a, 3);
    step_tiny(&b, 3);
    assert_true(digest_tiny(&a) == digest_tiny(&b));
    release_tiny(&a);
    release_tiny(&b);
    pipeline_free(p);
    pipeline_free(q);
  }
}

/* Weights used by two applications of a model are updated after both have been differentiated. */
static void parameters_are_updated_after_their_last_reader(void **unused) {
  (void)unused;
  pipeline *p = load_tiny("stages.segment.clip_norm", "0");
  stage_graph graph;
  expand_tiny(p, SEGMENT, true, NULL, &graph);
  plan_use use = {graph.keep, graph.keep_count, 2, true, true};
  plan x;
  must(plan_memory(graph.g, &use, &x));
  must(plan_verify(graph.g, &x, &use));
  int updates = 0;
  for (int v = 0; v < graph.g->value_count; v++) {
    if (x.update_after[v] < 0) continue;
    updates++;
    for (int i = x.update_after[v] + 1; i < graph.g->node_count; i++)
      for (int k = 0; k < graph.g->nodes[i].in_count; k++)
        assert_int_not_equal(graph.g->nodes[i].in[k], v);
  }
  assert_true(updates > 50);
  /* The check notices an update that comes too early: for its gradient, and, with a gradient that is
   * there from the beginning, for a reader of the weight. */
  value_id weight = parameter_value(graph.g, "encoder1.layer.conv1.conv.weight");
  x.update_after[weight] = 0;
  must_fail(plan_verify(graph.g, &x, &use), "overwritten before its last reader");
  graph.g->values[weight].gradient = graph.image;
  must_fail(plan_verify(graph.g, &x, &use),
            "reads encoder1.layer.conv1.conv.weight after its update");
  plan_free(&x);
  stage_graph_free(&graph);
  pipeline_free(p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_node_runs_again_just_before_its_first_backward_reader),
      cmocka_unit_test(what_is_made_again_takes_its_inputs_from_what_is_made_again),
      cmocka_unit_test(cheap_results_go_first),
      cmocka_unit_test(an_impossible_budget_leaves_the_graph_and_names_one_that_is_possible),
      cmocka_unit_test(budgets_change_no_bit),
      cmocka_unit_test(a_budget_that_cannot_be_met_is_refused_at_its_line),
      cmocka_unit_test(a_budget_is_no_part_of_the_identity),
      cmocka_unit_test(consuming_gradients_changes_no_bit),
      cmocka_unit_test(parameters_are_updated_after_their_last_reader),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
