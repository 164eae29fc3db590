/* A small network trained with parameter groups, clipping, accumulated gradients and averaged
 * weights ends where torch.optim takes it (make_updates.py). */
#include "../unit/step_fixture.h"

#include "run/weights.h"

enum { UPDATES = 6 };

typedef struct settings {
  const char *name;
  int64_t parts;
  override set[10];
  int count;
} settings;

#define OPTIMIZER "stages.pretrain.optimizer"

static const settings all[] = {
    {"adamw",
     3,
     {{OPTIMIZER ".adamw.lr", "0.01"},
      {OPTIMIZER ".adamw.weight_decay", "0.3"},
      {"stages.pretrain.groups", "[{match: \"fc1.*\", lr_scale: 0.1}]"},
      {"stages.pretrain.no_decay", "[norm, bias]"},
      {"stages.pretrain.clip_norm", "0.5"},
      {"stages.pretrain.accumulate", "3"},
      {"stages.pretrain.ema", "{decay: 0.9, warmup: true}"}},
     7},
    {"adam",
     1,
     {{OPTIMIZER, "{adam: {lr: 0.01, weight_decay: 0.01}}"},
      {"stages.pretrain.groups", "[{of: bias, match: \"fc?.*\", weight_decay: 0.5}]"},
      {"stages.pretrain.clip_value", "0.05"}},
     3},
    {"sgd",
     2,
     {{OPTIMIZER, "{sgd: {lr: 0.05, momentum: 0.9, nesterov: true, weight_decay: 0.01}}"},
      {"stages.pretrain.groups", "[{of: norm, momentum: 0, lr_scale: 2}]"},
      {"stages.pretrain.clip_value", "0.5"},
      {"stages.pretrain.clip_norm", "1"},
      {"stages.pretrain.accumulate", "2"},
      {"stages.pretrain.ema", "{decay: 0.8}"}},
     6},
};

static const named_tensor *find(const weights *w, const char *prefix, const char *name) {
  char full[128];
  snprintf(full, sizeof full, "%s.%s", prefix, name);
  const named_tensor *t = weights_find(w, full);
  if (!t) fail_msg("no tensor %s", full);
  return t;
}

/* Of a part of an update. */
static const named_tensor *find_batch(const weights *w, const char *prefix, int update, int part) {
  char name[32];
  snprintf(name, sizeof name, "%d.%d", update, part);
  return find(w, prefix, name);
}

static void expect_near(const char *what, const float *have, const named_tensor *want) {
  const float *values = want->tensor.data;
  double largest = 1e-6;
  int64_t n = shape_elements(&want->tensor.shape);
  for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)values[i]));
  for (int64_t i = 0; i < n; i++)
    if (!(fabs((double)have[i] - (double)values[i]) <= 2e-5 * largest))
      fail_msg("%s, %s, element %lld: expected %.9g, came %.9g", what, want->name, (long long)i,
               (double)values[i], (double)have[i]);
}

static void train_like_torch(const settings *s) {
  char path[512];
  snprintf(path, sizeof path, TEST_DATA "/golden/updates/%s.safetensors", s->name);
  weights w;
  must(weights_read(path, &w));
  pipeline *p = load_tiny_with(s->set, s->count);
  const stage_spec *stage = &p->stages[0];

  graph *g = graph_new(true);
  builder b = {.g = g, .prefix = ""};
  const named_tensor *first_x = find_batch(&w, "x", 0, 0);
  const named_tensor *first_y = find_batch(&w, "y", 0, 0);
  value_id x = build_input(&b, "x", DTYPE_F32, first_x->tensor.shape);
  value_id y = build_input(&b, "y", DTYPE_F32, first_y->tensor.shape);
  value_id h = APPLY(&b, "fc1", "linear", "features", "9", x);
  h = APPLY(&b, "norm", "layer_norm", NULL, NULL, h);
  h = APPLY(&b, "gelu", "gelu", NULL, NULL, h);
  value_id loss =
      APPLY(&b, "loss", "mse", NULL, NULL, APPLY(&b, "fc2", "linear", "features", "3", h), y);
  must(graph_differentiate(g, loss));
  graph_prune(g, &loss, 1);

  device *d;
  parameters ps;
  program run;
  parameter_groups groups;
  must(device_open("cpu", 2, &d, NULL));
  must(parameter_groups_open(stage, g, &groups));
  must(parameters_create_in_groups(g, groups.of, groups.count, d, &ps));
  assert_int_equal(ps.count, 6);
  optimizer_use optimizer = stage_optimizer(stage, d, &groups);
  must(program_create(g, d, &ps, &loss, 1, 1, &optimizer, &run));
  for (int i = 0; i < ps.count; i++) {
    const named_tensor *t = find(&w, "initial", ps.list[i].name);
    memcpy(ps.data + ps.list[i].offset, t->tensor.data, tensor_bytes(&t->tensor));
  }
  must(program_start_average(&run));
  for (int update = 0; update < UPDATES; update++)
    for (int part = 0; part < s->parts; part++) {
      must(program_write(&run, x, find_batch(&w, "x", update, part)->tensor.data));
      must(program_write(&run, y, find_batch(&w, "y", update, part)->tensor.data));
      must(program_run_part(&run, part, s->parts));
    }
  for (int i = 0; i < ps.count; i++) {
    const char *name = ps.list[i].name;
    expect_near(s->name, ps.data + ps.list[i].offset, find(&w, "final", name));
    if (run.average)
      expect_near(s->name, run.average + ps.list[i].offset, find(&w, "average", name));
  }
  assert_int_equal(run.average != NULL, stage->ema_decay > 0);
  program_free(&run);
  parameters_free(&ps);
  device_close(d);
  graph_free(g);
  pipeline_free(p);
  weights_close(&w);
}

static void training_ends_where_torch_does(void **unused) {
  (void)unused;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) train_like_torch(&all[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(training_ends_where_torch_does)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
