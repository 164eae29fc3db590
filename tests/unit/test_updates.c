/* What surrounds the optimizer: groups of parameters, clipping by value, accumulation, averaged
 * weights; and how a stage's layers start. */
#include "step_fixture.h"

enum { PRETRAIN, SEGMENT };

#define LOAD(...)                                                                                  \
  load_tiny_with((const override[]){__VA_ARGS__},                                                  \
                 (int)(sizeof((const override[]){__VA_ARGS__}) / sizeof(override)))

static const float *values_of(const compiled *c, const parameter *p) {
  return c->parameters.data + p->offset;
}

static bool is_norm(const char *name) {
  return strstr(name, "norm") != NULL;
}

static bool is_bias(const char *name) {
  return text_ends_with(name, ".bias");
}

/* Parameter by parameter: the bits of `a` after some steps are those of `b`. */
static void expect_same(const compiled *a, const compiled *b, const parameter *p) {
  const parameter *other = parameters_find(&b->parameters, p->name);
  assert_non_null(other);
  if (memcmp(values_of(a, p), values_of(b, other),
             (size_t)shape_elements(&p->shape) * sizeof(float)) != 0)
    fail_msg("%s differs", p->name);
}

/* The first update's gradients do not depend on the optimizer, so after it each group must be where
 * an optimizer with that group's numbers for everything would have put it. */
static void each_group_moves_as_its_numbers_say(void **unused) {
  (void)unused;
  pipeline *grouped =
      LOAD({"stages.pretrain.groups", "[{match: [\"vit.blocks.1.*\", \"out.*\"], lr_scale: 0.1}]"},
           {"stages.pretrain.no_decay", "[norm, bias]"},
           {"stages.pretrain.optimizer.adamw.weight_decay", "3"});
  pipeline *plain = LOAD({"stages.pretrain.optimizer.adamw.weight_decay", "3"});
  pipeline *no_decay = LOAD({"stages.pretrain.optimizer.adamw.weight_decay", "0"});
  pipeline *slow = LOAD({"stages.pretrain.optimizer.adamw.weight_decay", "3"},
                        {"stages.pretrain.optimizer.adamw.lr", "1.0e-4"});
  compiled c, as[3];
  compile_tiny(&c, grouped, PRETRAIN, 3);
  compile_tiny(&as[0], plain, PRETRAIN, 1);
  compile_tiny(&as[1], no_decay, PRETRAIN, 1);
  compile_tiny(&as[2], slow, PRETRAIN, 1);
  step_tiny(&c, 1);
  for (int i = 0; i < 3; i++) step_tiny(&as[i], 1);
  int counts[3] = {0};
  for (int i = 0; i < c.parameters.count; i++) {
    const parameter *p = &c.parameters.list[i];
    if (!p->trained) continue;
    bool is_slow = text_starts_with(p->name, "vit.blocks.1.") || text_starts_with(p->name, "out.");
    int like = is_slow ? 2 : is_norm(p->name) || is_bias(p->name) ? 1 : 0;
    if (like == 2) {
      /* lr · 0.1 is 1e-4 up to the rounding of a double. */
      const parameter *other = parameters_find(&as[2].parameters, p->name);
      for (int64_t k = 0; k < shape_elements(&p->shape); k++)
        assert_true(fabsf(values_of(&c, p)[k] - values_of(&as[2], other)[k]) < 1e-8f);
    } else {
      expect_same(&c, &as[like], p);
    }
    counts[like]++;
  }
  assert_true(counts[0] > 10 && counts[1] > 10 && counts[2] > 5);
  release_tiny(&c);
  for (int i = 0; i < 3; i++) release_tiny(&as[i]);
  pipeline_free(grouped);
  pipeline_free(plain);
  pipeline_free(no_decay);
  pipeline_free(slow);
}

static void open_groups(pipeline *p, const char *expected) {
  stage_graph graph;
  expand_tiny(p, PRETRAIN, true, NULL, &graph);
  parameter_groups groups;
  must_fail(parameter_groups_open(&p->stages[PRETRAIN], graph.g, &groups), expected);
  stage_graph_free(&graph);
  pipeline_free(p);
}

static void patterns_and_groups_without_parameters_are_errors(void **unused) {
  (void)unused;
  open_groups(LOAD({"stages.pretrain.groups", "[{match: \"*.nrom1.weight\", lr_scale: 0}]"}),
              "no trained parameter matches \"*.nrom1.weight\"; did you mean \"norm1\"?");
  open_groups(LOAD({"stages.pretrain.groups", "[{match: zzzzzzzzzz}]"}),
              "no trained parameter matches \"zzzzzzzzzz\".");
  open_groups(LOAD({"stages.pretrain.groups", "[{of: bias}, {match: \"*.bias\"}]"}),
              "no trained parameter is left for this group");
}

static void every_parameter_is_in_exactly_one_group(void **unused) {
  (void)unused;
  pipeline *p = LOAD({"stages.segment.groups", "[{match: \"*norm*\", momentum: 0.5}]"},
                     {"stages.segment.no_decay", "bias"});
  compiled c;
  compile_tiny(&c, p, SEGMENT, 1);
  parameter_groups groups;
  must(parameter_groups_open(c.stage, c.graph.g, &groups));
  assert_int_equal(groups.count, 3);
  int tensors = 0;
  for (int i = 0; i < c.parameters.count; i++) tensors += c.parameters.list[i].trained;
  assert_int_equal(groups.tensors[0] + groups.tensors[1] + groups.tensors[2], tensors);
  for (int i = 0; i < c.parameters.count; i++) {
    const parameter *q = &c.parameters.list[i];
    int group = 0;
    while (group < 2 && q->offset >= c.parameters.group_first[group + 1]) group++;
    if (q->trained) assert_int_equal(group, is_norm(q->name) ? 0 : is_bias(q->name) ? 1 : 2);
  }
  text_buffer text = {0};
  parameter_groups_describe(&groups, &text);
  assert_non_null(strstr(text.data, "group 0 (*norm*, momentum 0.5): "));
  assert_non_null(strstr(text.data, "group 1 (no decay: biases): "));
  assert_non_null(strstr(text.data, "group 2 (the rest): "));
  text_free(&text);
  release_tiny(&c);
  pipeline_free(p);
}

static void gradients_are_clipped_by_value_before_the_norm(void **unused) {
  (void)unused;
  pipeline *plain = LOAD({"stages.segment.clip_norm", "1.0e9"}); /* keeps the gradients */
  pipeline *clipped =
      LOAD({"stages.segment.clip_norm", "0.05"}, {"stages.segment.clip_value", "1.0e-3"});
  compiled a, b;
  compile_tiny(&a, plain, SEGMENT, 1);
  compile_tiny(&b, clipped, SEGMENT, 2);
  step_tiny(&a, 1);
  step_tiny(&b, 1);
  double norm = 0;
  int64_t n = a.parameters.trained_elements, cut = 0;
  for (int64_t i = 0; i < n; i++) {
    double g = (double)a.program.gradients[i], limit = (double)1e-3f;
    cut += fabs(g) > limit;
    g = fmin(fmax(g, -limit), limit);
    norm += g * g;
  }
  assert_true(cut > 100 && cut < n / 2);
  norm = sqrt(norm);
  assert_true(fabs((double)*b.program.gradient_norm / norm - 1) < 1e-5);
  for (int64_t i = 0; i < n; i++) {
    double g = fmin(fmax((double)a.program.gradients[i], -1e-3), 1e-3);
    double want = g * fmin(1, 0.05 / norm);
    assert_true(fabs((double)b.program.gradients[i] - want) < 1e-8);
  }
  release_tiny(&a);
  release_tiny(&b);
  pipeline_free(plain);
  pipeline_free(clipped);
}

/* Two parts of two samples, then three of them, against one batch of as many. */
static void parts_of_an_update_equal_one_batch(void **unused) {
  (void)unused;
  pipeline *p = LOAD({"stages.pretrain.accumulate", "3"});
  for (int parts = 1; parts <= 3; parts++) {
    compiled whole, part;
    compile_tiny_batch(&whole, p, PRETRAIN, 1, 2 * parts);
    compile_tiny_batch(&part, p, PRETRAIN, 2, 2);
    for (int update = 0; update < 2; update++) {
      feed_tiny(&whole);
      const float *image = program_data(&whole.program, whole.graph.image);
      const rng_key *keys = whole.program.rng_keys;
      for (int k = 0; k < parts; k++) {
        enum { VALUES = 2 * 16 * 16 * 32 };
        must(program_write(&part.program, part.graph.image, image + k * VALUES));
        must(program_set_keys(&part.program, keys + 2 * k));
        must(program_run_part(&part.program, k, parts));
        assert_int_equal(part.program.updates, update + (k == parts - 1));
      }
      must(program_run(&whole.program));
      double worst = 0, largest = 0;
      for (int64_t i = 0; i < whole.parameters.trained_elements; i++) {
        double g = (double)whole.program.gradients[i];
        worst = fmax(worst, fabs((double)part.program.gradients[i] - g));
        largest = fmax(largest, fabs(g));
      }
      /* The second update's start from weights that differ in their last bits, which Adam makes
       * more of where a gradient is near 0. */
      if (!(worst < (update ? 1e-2 : 1e-5) * largest))
        fail_msg("%d parts, update %d: gradients differ by %g of %g", parts, update, worst,
                 largest);
    }
    release_tiny(&whole);
    release_tiny(&part);
  }
  pipeline_free(p);
}

static void the_average_follows_the_weights(void **unused) {
  (void)unused;
  for (int warmup = 0; warmup < 2; warmup++) {
    pipeline *p =
        LOAD({"stages.segment.ema", warmup ? "{decay: 0.4, warmup: true}" : "{decay: 0.4}"});
    compiled c;
    compile_tiny(&c, p, SEGMENT, 3);
    int64_t n = c.parameters.trained_elements;
    double *want = calloc((size_t)n, sizeof *want);
    float *raw = calloc((size_t)n, sizeof *raw);
    for (int64_t i = 0; i < n; i++) want[i] = (double)c.parameters.data[i];
    for (int t = 1; t <= 6; t++) {
      step_tiny(&c, 1);
      double decay = warmup ? fmin(0.4, (1.0 + t) / (10.0 + t)) : 0.4;
      for (int64_t i = 0; i < n; i++)
        want[i] = decay * want[i] + (1 - decay) * (double)c.parameters.data[i];
    }
    double moved = 0;
    for (int64_t i = 0; i < n; i++) {
      assert_true(fabs((double)c.program.average[i] - want[i]) < 1e-6 * fmax(1, fabs(want[i])));
      moved = fmax(moved, fabs(want[i] - (double)c.parameters.data[i]));
    }
    assert_true(moved > 1e-3); /* the average is not the weights */
    memcpy(raw, c.parameters.data, (size_t)n * sizeof *raw);
    must(program_exchange_average(&c.program));
    for (int64_t i = 0; i < n; i++)
      assert_true(fabs((double)c.parameters.data[i] - want[i]) < 1e-6 * fmax(1, fabs(want[i])));
    must(program_exchange_average(&c.program));
    assert_memory_equal(raw, c.parameters.data, (size_t)n * sizeof *raw);
    free(want);
    free(raw);
    release_tiny(&c);
    pipeline_free(p);
  }
}

static double spread(const float *x, int64_t n) {
  double mean = 0, squares = 0;
  for (int64_t i = 0; i < n; i++) mean += (double)x[i] / (double)n;
  for (int64_t i = 0; i < n; i++) squares += ((double)x[i] - mean) * ((double)x[i] - mean);
  return sqrt(squares / (double)n);
}

static void a_stage_chooses_how_its_layers_start(void **unused) {
  (void)unused;
  pipeline *p = LOAD({"stages.pretrain.initialize", "{kaiming_normal: {slope: 0, fan: out}}"});
  compiled c;
  compile_tiny(&c, p, PRETRAIN, 1);
  const parameter *patch =
      parameters_find(&c.parameters, "vit.patch_embedding.patch_embeddings.1.weight");
  int64_t n = shape_elements(&patch->shape);
  assert_true(fabs(spread(values_of(&c, patch), n) / sqrt(2.0 / 24) - 1) < 0.02);
  const parameter *bias =
      parameters_find(&c.parameters, "vit.patch_embedding.patch_embeddings.1.bias");
  for (int64_t i = 0; i < 24; i++) assert_true(values_of(&c, bias)[i] == 0);
  const parameter *norm = parameters_find(&c.parameters, "vit.norm.weight");
  for (int64_t i = 0; i < 24; i++) assert_true(values_of(&c, norm)[i] == 1);
  release_tiny(&c);
  pipeline_free(p);
}

static void orthogonal_weights_are_orthonormal(void **unused) {
  (void)unused;
  pipeline *p = LOAD({"stages.pretrain.initialize", "orthogonal"});
  compiled c;
  compile_tiny(&c, p, PRETRAIN, 1);
  static const char *const names[] = {"vit.blocks.0.attn.qkv.weight",    /* 72 × 24 */
                                      "vit.blocks.0.mlp.linear2.weight", /* 24 × 48 */
                                      "encoder2.blocks.0.1.conv1.conv.weight"};
  for (int k = 0; k < 3; k++) {
    const parameter *q = parameters_find(&c.parameters, names[k]);
    assert_non_null(q);
    const float *w = values_of(&c, q);
    int64_t rows = q->shape.dim[0], columns = shape_elements(&q->shape) / rows;
    bool by_row = rows <= columns;
    int64_t m = by_row ? rows : columns, length = by_row ? columns : rows;
    int64_t step = by_row ? 1 : columns, next = by_row ? columns : 1;
    for (int64_t i = 0; i < m; i++)
      for (int64_t j = 0; j <= i; j++) {
        double sum = 0;
        for (int64_t x = 0; x < length; x++)
          sum += (double)w[i * next + x * step] * (double)w[j * next + x * step];
        assert_true(fabs(sum - (i == j)) < 1e-6);
      }
  }
  release_tiny(&c);
  pipeline_free(p);
}

static void note_line(void *context, const char *text) {
  text_add(context, "%s\n", text);
}

typedef struct layers {
  int count;
  double worst;
} layers;

static status measure_layer(void *context, program *p, const node *n, bool *again) {
  layers *l = context;
  (void)again;
  if (strcmp(n->op->family, "conv") != 0 && strcmp(n->op->family, "linear") != 0) return OK;
  if (n->in_count < 2 || p->g->values[n->in[1]].kind != VALUE_PARAM) return OK;
  const tensor *type = &p->g->values[n->out[0]].type;
  double sd = spread(program_data(p, n->out[0]), shape_elements(&type->shape));
  l->worst = fmax(l->worst, fabs(sd * sd - 1));
  l->count++;
  return OK;
}

static void lsuv_gives_every_fresh_layer_unit_variance(void **unused) {
  (void)unused;
  pipeline *p = LOAD({"stages.pretrain.initialize", "{lsuv: {tolerance: 0.01}}"});
  uint64_t digests[2];
  for (int threads = 1; threads <= 2; threads++) {
    compiled c;
    compile_tiny(&c, p, PRETRAIN, threads);
    feed_tiny(&c);
    text_buffer lines = {0};
    reporter report = {.line = note_line, .context = &lines};
    layers l = {0};
    must(program_run_forward(&c.program, measure_layer, &l));
    assert_true(l.count > 40 && l.worst > 0.5);
    assert_true(initialize_needs_data(&c.stage->initialize));
    must(initialize_layers(&c.stage->initialize, &c.program, "pretrain", &report));
    l = (layers){0};
    must(program_run_forward(&c.program, measure_layer, &l));
    assert_true(l.count > 40 && l.worst <= 0.0101);
    assert_non_null(strstr(lines.data, "vit.blocks.0.attn.qkv.weight"));
    assert_non_null(strstr(lines.data, "brought to unit variance, 0 not"));
    text_free(&lines);
    digests[threads - 1] =
        bytes_hash(c.parameters.data, (size_t)c.parameters.elements * sizeof(float));
    release_tiny(&c);
  }
  assert_true(digests[0] == digests[1]);
  pipeline_free(p);
}

static void lsuv_leaves_weights_that_came_from_elsewhere(void **unused) {
  (void)unused;
  pipeline *p = LOAD({"stages.pretrain.initialize", "lsuv"});
  compiled c, before;
  compile_tiny(&c, p, PRETRAIN, 1);
  compile_tiny(&before, p, PRETRAIN, 1);
  feed_tiny(&c);
  for (int i = 0; i < c.parameters.count; i++)
    c.parameters.list[i].fresh = text_starts_with(c.parameters.list[i].name, "out.");
  must(initialize_layers(&c.stage->initialize, &c.program, "pretrain", &(reporter){0}));
  int changed = 0;
  for (int i = 0; i < c.parameters.count; i++) {
    const parameter *q = &c.parameters.list[i];
    if (q->fresh)
      changed += memcmp(values_of(&c, q), before.parameters.data + q->offset, 4) != 0;
    else
      expect_same(&c, &before, q);
  }
  assert_int_equal(changed, 1);
  release_tiny(&c);
  release_tiny(&before);
  pipeline_free(p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_group_moves_as_its_numbers_say),
      cmocka_unit_test(patterns_and_groups_without_parameters_are_errors),
      cmocka_unit_test(every_parameter_is_in_exactly_one_group),
      cmocka_unit_test(gradients_are_clipped_by_value_before_the_norm),
      cmocka_unit_test(parts_of_an_update_equal_one_batch),
      cmocka_unit_test(the_average_follows_the_weights),
      cmocka_unit_test(a_stage_chooses_how_its_layers_start),
      cmocka_unit_test(orthogonal_weights_are_orthonormal),
      cmocka_unit_test(lsuv_gives_every_fresh_layer_unit_variance),
      cmocka_unit_test(lsuv_leaves_weights_that_came_from_elsewhere),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
