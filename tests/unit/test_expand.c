/* From the items of a stage to its graph: names, numbers that can change, what is kept. (Mistakes in
 * graph items are tests/pipelines/bad_graph.) */
#include "step_fixture.h"

static bool has_name(const char *const *names, int count, const char *name) {
  for (int i = 0; i < count; i++)
    if (strcmp(names[i], name) == 0) return true;
  return false;
}

static void losses_and_metrics_are_found_by_name(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL);
  stage_graph s;
  expand_tiny(p, 0, true, NULL, &s);
  assert_int_equal(s.term_count, 2);
  assert_true(has_name(s.term_names, s.term_count, "context"));
  assert_true(has_name(s.term_names, s.term_count, "structure"));
  assert_true(has_name(s.metric_names, s.metric_count, "structure.accuracy"));
  assert_int_equal(s.g->values[s.loss].type.shape.rank, 0);
  assert_int_equal(s.label, VALUE_NONE); /* self-supervised: no label is read */
  const graph_name *levels = stage_graph_find(&s, "net.levels");
  assert_non_null(levels);
  assert_int_equal(levels->count, 4);
  assert_null(stage_graph_find(&s, "net.level"));
  for (int i = 0; i < s.keep_count; i++) assert_true(s.g->values[s.keep[i]].producer >= 0);
  stage_graph_free(&s);
  expand_tiny(p, 1, true, NULL, &s);
  assert_int_not_equal(s.label, VALUE_NONE);
  assert_int_equal(s.term_count, 1);
  assert_string_equal(s.term_names[0], "loss");
  stage_graph_free(&s);
  pipeline_free(p);
}

static void one_result_alone_needs_only_the_network(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL);
  stage_graph s;
  expand_tiny(p, 1, false, "net.out", &s);
  assert_int_equal(s.loss, VALUE_NONE);
  assert_int_equal(s.label, VALUE_NONE);
  assert_int_equal(s.keep_count, 1);
  for (int i = 0; i < s.g->node_count; i++) {
    assert_false(s.g->nodes[i].backward);
    assert_string_not_equal(s.g->nodes[i].op->name, "dropout");
  }
  shape expected = SHAPE(TINY_BATCH, 16, 16, 32, TINY_CLASSES);
  assert_true(shape_equal(&s.g->values[s.keep[0]].type.shape, &expected));
  stage_graph_free(&s);
  expand_options options = {
      .batch = 1, .size = {16, 16, 32}, .channels = 1, .classes = TINY_CLASSES, .only = "net.outt"};
  must_fail(stage_expand(p, &p->stages[1], &options, &s), "did you mean");
  pipeline_free(p);
}

/* Both uses of the model read the same weights; what is drawn at random in one view is not drawn
 * again in the other. */
static void two_views_share_the_weights_of_the_network(void **state) {
  (void)state;
  pipeline *p;
  must(pipeline_load(TEST_DATA "/pipelines/two_views.yaml", NULL, 0, &p));
  stage_graph one, two;
  expand_tiny(p, 0, true, NULL, &one);
  expand_tiny(p, 1, true, NULL, &two);
  assert_int_equal(graph_param_elements(one.g), graph_param_elements(two.g));
  int seen = 0;
  for (int v = 0; v < two.g->value_count; v++) {
    const value *parameter = &two.g->values[v];
    if (parameter->kind != VALUE_PARAM || !value_is_read(two.g, v)) continue;
    for (int u = 0; u < v; u++) assert_string_not_equal(two.g->values[u].name, parameter->name);
    assert_int_not_equal(parameter->gradient, VALUE_NONE);
    seen++;
  }
  assert_true(seen > 0);
  int curves = 0, dropped[2][2] = {{0}};
  for (int i = 0; i < two.g->node_count; i++) {
    const node *n = &two.g->nodes[i];
    if (strcmp(n->op->name, "random_curve") == 0)
      curves += strcmp(n->name, "view1") == 0 || strcmp(n->name, "view2") == 0;
    if (strcmp(n->op->name, "dropout") != 0) continue;
    assert_in_range(n->use, 0, 1);
    assert_true((node_stream(n) == text_hash(n->name)) == (n->use == 0));
    dropped[n->use][n->backward]++;
  }
  assert_true(dropped[0][0] > 0 && dropped[0][1] > 0);
  assert_memory_equal(dropped[0], dropped[1], sizeof dropped[0]);
  assert_int_equal(curves, 2);
  stage_graph_free(&one);
  stage_graph_free(&two);
  pipeline_free(p);
}

static int numbers_equal(const graph *g, const char *node_name, const char *attribute, double value,
                         bool backward) {
  int count = 0;
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    const double *number = attr_number(n->op, n->attrs, attribute);
    count +=
        n->backward == backward && strcmp(n->name, node_name) == 0 && number && *number == value;
  }
  return count;
}

static void a_number_changes_forward_and_backward(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL);
  stage_graph s;
  expand_tiny(p, 0, true, NULL, &s);
  double value = 0;
  assert_true(stage_graph_get_number(&s, "loss.context.weight", &value));
  assert_true(value == 1);
  assert_true(stage_graph_set_number(&s, "loss.context.weight", 0.25));
  assert_true(stage_graph_get_number(&s, "loss.context.weight", &value));
  assert_true(value == 0.25);
  assert_int_equal(numbers_equal(s.g, "loss.context.weight", "factor", 0.25, false), 1);
  assert_int_equal(numbers_equal(s.g, "loss.context.weight", "factor", 0.25, true), 1);
  assert_true(stage_graph_get_number(&s, "loss.structure.weight", &value));
  assert_true(value == 1); /* the other term keeps its own */
  assert_true(stage_graph_get_number(&s, "masked.ratio", &value));
  assert_true(value == 0.4);
  assert_false(stage_graph_get_number(&s, "masked.size", &value)); /* decides shapes */
  assert_false(stage_graph_get_number(&s, "masked", &value));
  assert_false(stage_graph_set_number(&s, "loss.context.weights", 1));
  assert_false(stage_graph_set_number(&s, "", 1));
  stage_graph_free(&s);
  pipeline_free(p);
}

/* The weight acts: halving it halves the gradient of what only that term reaches. */
static void a_loss_weight_scales_its_gradient(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL);
  compiled c = {.p = p, .stage = &p->stages[0], .batch = TINY_BATCH};
  expand_tiny(p, 0, true, NULL, &c.graph);
  value_id head = c.graph.g->values[parameter_value(c.graph.g, "out.conv.conv.weight")].gradient;
  c.graph.keep = &head;
  c.graph.keep_count = 1;
  compile_expanded(&c, 1);
  feed_tiny(&c);
  *attr_number(c.stage->optimizer.op, c.stage->optimizer.attrs, "lr") = 0;
  float before[2], after[2];
  must(program_run(&c.program));
  must(program_read(&c.program, head, before));
  assert_true(stage_graph_set_number(&c.graph, "loss.context.weight", 0.5));
  must(program_run(&c.program));
  must(program_read(&c.program, head, after));
  for (int i = 0; i < 2; i++) {
    assert_true(before[i] != 0);
    assert_true(after[i] == 0.5f * before[i]);
  }
  release_tiny(&c);
  pipeline_free(p);
}

static void dropout_is_only_in_the_training_graph(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL);
  for (int training = 0; training < 2; training++) {
    stage_graph s;
    expand_tiny(p, 0, training, NULL, &s);
    int dropouts = 0;
    for (int i = 0; i < s.g->node_count; i++)
      dropouts += !s.g->nodes[i].backward && strcmp(s.g->nodes[i].op->name, "dropout") == 0;
    assert_int_equal(dropouts, training ? 1 + 4 * 3 : 0);
    stage_graph_free(&s);
  }
  pipeline_free(p);
}

static void an_output_is_left_out_when_its_condition_is_false(void **state) {
  (void)state;
  for (int second = 0; second < 2; second++) {
    char model[512];
    snprintf(model, sizeof model,
             "{use: " TEST_DATA "/pipelines/models/optional_output.yaml, with: {second: %s}}",
             second ? "true" : "false");
    pipeline *p = load_tiny("model", model);
    stage_graph s;
    expand_tiny(p, 1, true, NULL, &s);
    assert_non_null(stage_graph_find(&s, "net.out"));
    assert_int_equal(stage_graph_find(&s, "net.out2") != NULL, second);
    stage_graph_free(&s);
    pipeline_free(p);
  }
}

/* An operator and a block use the parameters of an earlier one; their nodes keep names of their own,
 * so that their dropouts draw different numbers. */
static void items_share_the_parameters_they_name(void **state) {
  (void)state;
  static const override set[] = {
      {"model", "{use: " TEST_DATA "/pipelines/models/shared.yaml}"},
      {"stages.pretrain.graph",
       "[{net: {model: image, outputs: 1}}, {loss: {mse: [net.out, net.out]}}]"}};
  pipeline *p = load_tiny_with(set, 2);
  stage_graph s;
  expand_tiny(p, 0, true, NULL, &s);
  int parameters = 0, dropouts = 0, readers = 0;
  for (int v = 0; v < s.g->value_count; v++) {
    if (s.g->values[v].kind != VALUE_PARAM) continue;
    parameters++;
    assert_true(text_starts_with(s.g->values[v].name, "fc.") ||
                text_starts_with(s.g->values[v].name, "first."));
  }
  assert_int_equal(parameters, 2 + 4 + 1 + 2 + 4);
  value_id weight = parameter_value(s.g, "first.mlp.linear1.weight");
  for (int i = 0; i < s.g->node_count; i++) {
    const node *n = &s.g->nodes[i];
    if (n->backward) continue;
    readers += n->in_count > 1 && n->in[1] == weight;
    dropouts += text_starts_with(n->name, "second.") && strcmp(n->op->name, "dropout") == 0;
  }
  assert_int_equal(readers, 2);
  assert_int_equal(dropouts, 3);
  stage_graph_free(&s);
  pipeline_free(p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(losses_and_metrics_are_found_by_name),
      cmocka_unit_test(two_views_share_the_weights_of_the_network),
      cmocka_unit_test(one_result_alone_needs_only_the_network),
      cmocka_unit_test(a_number_changes_forward_and_backward),
      cmocka_unit_test(a_loss_weight_scales_its_gradient),
      cmocka_unit_test(dropout_is_only_in_the_training_graph),
      cmocka_unit_test(an_output_is_left_out_when_its_condition_is_false),
      cmocka_unit_test(items_share_the_parameters_they_name),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
