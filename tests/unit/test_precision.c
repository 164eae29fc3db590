/* The precision pass: which products are rounded, where they stay f32, and which devices refuse. */
#include "step_fixture.h"

#include "graph/precision.h"

static const override bf16[] = {{"stages.segment.precision", "bf16"}};
static const override tf32[] = {{"stages.segment.precision", "tf32"}};

static precision_share share_of(pipeline *p, int stage, bool training, const char *only) {
  stage_graph s;
  expand_tiny(p, stage, training, only, &s);
  precision_share share = graph_precision(s.g);
  stage_graph_free(&s);
  return share;
}

static void every_product_of_a_stage_follows_its_key(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL);
  assert_int_equal(p->stages[1].precision, PRECISION_F32);
  assert_int_equal(pipeline_precisions(p), 1u << PRECISION_F32);
  assert_int_equal(share_of(p, 1, true, NULL).nodes[PRECISION_BF16], 0);
  pipeline_free(p);

  p = load_tiny_with(bf16, 1);
  assert_int_equal(pipeline_precisions(p), 1u << PRECISION_F32 | 1u << PRECISION_BF16);
  assert_int_equal(share_of(p, 0, true, NULL).nodes[PRECISION_BF16], 0); /* another stage */
  stage_graph s;
  expand_tiny(p, 1, true, NULL, &s);
  int forward = 0, backward = 0;
  for (int i = 0; i < s.g->node_count; i++) {
    const node *n = &s.g->nodes[i];
    bool multiplies = strcmp(n->op->family, "linear") == 0 || strstr(n->op->name, "attention") ||
                      (strcmp(n->op->family, "conv") == 0 && !strstr(n->op->name, "backward_bias"));
    if ((node_precision(n) == PRECISION_BF16) != multiplies)
      fail_msg("%s (%s) is %s", n->name, n->op->name, multiplies ? "f32" : "bf16");
    forward += multiplies && !n->backward;
    backward += multiplies && n->backward;
  }
  assert_true(forward > 20 && backward > forward);
  precision_share share = graph_precision(s.g);
  assert_int_equal(share.nodes[PRECISION_BF16], forward + backward);
  assert_int_equal(share.all_nodes, forward + backward);
  double rounded = share.flops[PRECISION_BF16];
  assert_true(rounded > 0.9 * share.all_flops && rounded < share.all_flops);
  stage_graph_free(&s);
  pipeline_free(p);
}

/* Validation and prediction run this graph. */
static void inference_has_the_precision_of_its_stage(void **state) {
  (void)state;
  pipeline *p = load_tiny_with(bf16, 1);
  precision_share share = share_of(p, 1, false, "net.out");
  assert_true(share.nodes[PRECISION_BF16] > 20);
  assert_int_equal(share.nodes[PRECISION_F32], 0);
  pipeline_free(p);
}

static void an_item_may_have_a_precision_of_its_own(void **state) {
  (void)state;
  graph *g = graph_new(true);
  builder b = {.g = g, .prefix = ""};
  value_id x = build_input(&b, "x", DTYPE_F32, SHAPE(1, 4, 4, 4, 6));
  value_id open = APPLY(&b, "open", "linear", "features", "6", x);
  void *attrs = attrs_of("linear", "precision", "f32");
  *attr_integer(op_find("linear"), attrs, "features") = 6;
  value_id closed, depthwise, out;
  must(build_apply(&b, "closed", op_find("linear"), attrs, &open, 1, &closed));
  free(attrs);
  attrs = attrs_of("conv3d", "kernel", "3");
  *attr_integer(op_find("conv3d"), attrs, "features") = 6;
  *attr_integer(op_find("conv3d"), attrs, "groups") = 6;
  must(build_apply(&b, "depthwise", op_find("conv3d"), attrs, &closed, 1, &depthwise));
  *attr_integer(op_find("conv3d"), attrs, "groups") = 3;
  must(build_apply(&b, "grouped", op_find("conv3d"), attrs, &depthwise, 1, &out));
  free(attrs);
  value_id loss = APPLY(&b, "loss", "mse", NULL, NULL, out, x);
  must(graph_differentiate(g, loss));
  graph_set_precision(g, PRECISION_BF16);
  must(graph_verify(g));
  int seen = 0;
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    bool is_bf16 = strcmp(n->name, "open") == 0 || strcmp(n->name, "grouped") == 0;
    assert_int_equal(node_precision(n) == PRECISION_BF16, is_bf16); /* its gradients too */
    seen += is_bf16;
  }
  /* The first layer's data gradient is nobody's. */
  assert_int_equal(seen, 2 + 3);
  graph_free(g);
}

/* One pipeline file for machines with a GPU and without: the CPU says that it computes in f32. */
static void tf32_is_f32_on_a_cpu_and_is_said_to_be(void **state) {
  (void)state;
  pipeline *p = load_tiny_with(tf32, 1);
  precision_share share = share_of(p, 1, true, NULL);
  assert_true(share.nodes[PRECISION_TF32] > 40);
  assert_int_equal(share.nodes[PRECISION_TF32], share.all_nodes);
  assert_int_equal(pipeline_precisions(p), 1u << PRECISION_F32 | 1u << PRECISION_TF32);
  pipeline_free(p);

  device *cpu;
  must(device_open("cpu", 1, &cpu, NULL));
  assert_non_null(
      strstr(device_precision_note(cpu, PRECISION_TF32), "on the CPU these products are f32"));
  assert_null(device_precision_note(cpu, PRECISION_F32));
  device_close(cpu);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_product_of_a_stage_follows_its_key),
      cmocka_unit_test(inference_has_the_precision_of_its_stage),
      cmocka_unit_test(tf32_is_f32_on_a_cpu_and_is_said_to_be),
      cmocka_unit_test(an_item_may_have_a_precision_of_its_own),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
