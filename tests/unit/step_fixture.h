/* Shared by the tests of the compiler and the runtime: small graphs built by hand, and stages of
 * tests/pipelines/tiny.yaml compiled without a data set. */
#ifndef STRATA_TESTS_STEP_FIXTURE_H
#define STRATA_TESTS_STEP_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/files.h"
#include "base/text.h"
#include "execute/program.h"
#include "graph/expand.h"
#include "graph/passes.h"
#include "language/bind.h"
#include "train/groups.h"
#include "train/initialize.h"
#include "train/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TINY_BATCH = 2, TINY_CLASSES = 3, FIXTURE_VALUES = 32 };

static inline void must(status error) {
  if (!error) return;
  error_print(stderr, error);
  error_free(error);
  fail();
}

/* Fails unless the operation fails with a message that contains `words`. */
static inline void must_fail(status error, const char *words) {
  if (!error) fail_msg("expected an error that says \"%s\"", words);
  char *text = NULL;
  size_t length;
  FILE *out = open_memstream(&text, &length);
  error_print(out, error); /* a status may stand for several problems */
  fclose(out);
  if (!strstr(text, words)) fail_msg("expected an error that says \"%s\", got %s", words, text);
  free(text);
  error_free(error);
}

/* An attribute by YAML text, in a struct of defaults that the caller frees. */
static inline void *attrs_of(const char *op_name, const char *name, const char *text) {
  const op *o = op_find(op_name);
  assert_non_null(o);
  void *attrs = calloc(1, o->attrs_bytes + 1);
  op_defaults(o, attrs);
  arena memory = {0};
  bool found = false;
  for (const attr *a = o->attrs; name && a && a->name; a++)
    if (strcmp(a->name, name) == 0) {
      must(bind_attr_text(a, text, &memory, attrs));
      found = true;
    }
  assert_true(found || !name);
  arena_free(&memory);
  return attrs;
}

/* Adds an operator whose parameters are created, with at most one attribute that is no default. */
static inline value_id apply(builder *b, const char *name, const char *op_name,
                             const char *attribute, const char *text, const value_id *in,
                             int count) {
  value_id out[FIXTURE_VALUES];
  void *attrs = attrs_of(op_name, attribute, text);
  must(build_apply(b, name, op_find(op_name), attrs, in, count, out));
  free(attrs);
  return out[0];
}
#define APPLY(b, name, op_name, attribute, text, ...)                                              \
  apply(b, name, op_name, attribute, text, (value_id[]){__VA_ARGS__},                              \
        (int)(sizeof((value_id[]){__VA_ARGS__}) / sizeof(value_id)))

static inline value_id parameter_value(const graph *g, const char *name) {
  for (int v = 0; v < g->value_count; v++)
    if (g->values[v].kind == VALUE_PARAM && strcmp(g->values[v].name, name) == 0) return v;
  fail_msg("no parameter %s", name);
  return VALUE_NONE;
}

/* tiny.yaml without its data: an empty list of cases stands in. At most 15 overrides. */
static inline pipeline *load_tiny_with(const override *set, int count) {
  char folder[] = "strata-test-XXXXXX";
  assert_non_null(mkdtemp(folder));
  char json[64], root[4096];
  snprintf(json, sizeof json, "%s/dataset.json", folder);
  must(file_write_atomic(json, "{}", 2));
  assert_non_null(realpath(folder, root));
  override overrides[16] = {{"data.root", root}};
  assert_true(count < 16);
  for (int i = 0; i < count; i++) overrides[1 + i] = set[i];
  pipeline *p;
  status error = pipeline_load(TEST_DATA "/pipelines/tiny.yaml", overrides, 1 + count, &p);
  remove(json);
  rmdir(folder);
  must(error);
  return p;
}

/* `key` may be NULL. */
static inline pipeline *load_tiny(const char *key, const char *value) {
  return load_tiny_with(&(override){key, value}, key ? 1 : 0);
}

/* The same with everything around the optimizer switched on in the second stage. */
static inline pipeline *load_tiny_updates(void) {
  static const override set[] = {
      {"stages.segment.groups", "[{match: \"vit.*.weight\", lr_scale: 0.3, momentum: 0.5}]"},
      {"stages.segment.no_decay", "[norm, bias]"},
      {"stages.segment.optimizer.sgd.weight_decay", "0.01"},
      {"stages.segment.clip_value", "0.05"},
      {"stages.segment.accumulate", "2"},
      {"stages.segment.ema", "{decay: 0.9, warmup: true}"}};
  return load_tiny_with(set, sizeof set / sizeof *set);
}

/* A stage of tiny.yaml, ready to run. */
typedef struct compiled {
  pipeline *p;
  const stage_spec *stage;
  device *device;
  stage_graph graph;
  step_memory memory;
  parameters parameters;
  program program;
  int64_t batch;
  rng data;
} compiled;

static const int64_t TINY_SIZE[3] = {16, 16, 32};

static inline void expand_sized(pipeline *p, int stage, int64_t batch, const int64_t *size,
                                bool training, const char *only, stage_graph *out) {
  expand_options options = {.batch = batch,
                            .size = {size[0], size[1], size[2]},
                            .channels = 1,
                            .classes = TINY_CLASSES,
                            .training = training,
                            .only = only};
  must(stage_expand(p, &p->stages[stage], &options, out));
}

static inline void expand_tiny_batch(pipeline *p, int stage, int64_t batch, bool training,
                                     const char *only, stage_graph *out) {
  expand_sized(p, stage, batch, TINY_SIZE, training, only, out);
}

static inline void expand_tiny(pipeline *p, int stage, bool training, const char *only,
                               stage_graph *out) {
  expand_tiny_batch(p, stage, TINY_BATCH, training, only, out);
}

/* What is expanded, compiled as a run does it. */
static inline void compile_expanded(compiled *c, int threads) {
  must(device_open("cpu", threads, &c->device, NULL));
  must(stage_fit_memory(c->stage, c->device, &c->graph, &c->memory));
  initialize_choose(&c->stage->initialize, c->graph.g);
  parameter_groups groups;
  must(parameter_groups_open(c->stage, c->graph.g, &groups));
  must(parameters_create_in_groups(c->graph.g, groups.of, groups.count, c->device, &c->parameters));
  must(parameters_initialize(&c->parameters, c->p->seed));
  optimizer_use optimizer = stage_optimizer(c->stage, c->device, &groups);
  must(program_create(c->graph.g, c->device, &c->parameters, c->graph.keep, c->graph.keep_count,
                      c->batch, &optimizer, &c->program));
  must(program_start_average(&c->program));
  c->data = rng_open(rng_key_of(7, "data", 0, "test", 0), 0);
}

static inline void compile_sized(compiled *c, pipeline *p, int stage, int threads, int64_t batch,
                                 const int64_t *size) {
  *c = (compiled){.p = p, .stage = &p->stages[stage], .batch = batch};
  expand_sized(p, stage, batch, size, true, NULL, &c->graph);
  compile_expanded(c, threads);
}

static inline void compile_tiny_batch(compiled *c, pipeline *p, int stage, int threads,
                                      int64_t batch) {
  compile_sized(c, p, stage, threads, batch, TINY_SIZE);
}

static inline void compile_tiny(compiled *c, pipeline *p, int stage, int threads) {
  compile_tiny_batch(c, p, stage, threads, TINY_BATCH);
}

static inline void release_tiny(compiled *c) {
  program_free(&c->program);
  parameters_free(&c->parameters);
  stage_graph_free(&c->graph);
  device_close(c->device);
}

/* New inputs and keys for the next step, the same for every program that has made as many steps. */
static inline void feed_tiny(compiled *c) {
  float *image = program_data(&c->program, c->graph.image);
  int32_t *label = program_data(&c->program, c->graph.label);
  int64_t voxels = shape_elements(&c->graph.g->values[c->graph.image].type.shape);
  for (int64_t i = 0; i < voxels; i++) {
    double x = rng_normal(&c->data);
    image[i] = (float)x;
    if (label) label[i] = (x > 0.3) + (x > 1);
  }
  for (int n = 0; n < c->batch; n++)
    c->program.rng_keys[n] = rng_key_of(7, "step", c->program.updates, "case", n);
}

static inline void step_tiny(compiled *c, int steps) {
  for (int i = 0; i < steps; i++) {
    feed_tiny(c);
    must(program_run(&c->program));
  }
}

static inline uint64_t digest_tiny(const compiled *c) {
  uint64_t h = bytes_hash(c->parameters.data, (size_t)c->parameters.elements * sizeof(float));
  for (int i = 0; i < c->program.state_count; i++)
    h = hash_mix(h, bytes_hash(c->program.states[i],
                               (size_t)c->parameters.trained_elements * sizeof(float)));
  if (c->program.average)
    h = hash_mix(
        h, bytes_hash(c->program.average, (size_t)c->parameters.trained_elements * sizeof(float)));
  return hash_mix(h, bytes_hash(program_data(&c->program, c->graph.loss), sizeof(float)));
}

#endif
