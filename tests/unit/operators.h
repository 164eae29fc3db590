/* Running one operator and its gradient in a test: the nodes its rules build, executed one by one
 * on exactly sized memory, so that the address sanitizer sees every stray byte. */
#ifndef STRATA_TESTS_OPERATORS_H
#define STRATA_TESTS_OPERATORS_H

#include "base/text.h"
#include "graph/graph.h"
#include "language/bind.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VALUES_MAX = 256 };

static inline void must(status error) {
  if (!error) return;
  error_print(stderr, error);
  error_free(error);
  fail();
}

/* Fails unless the operation fails with a message that contains `words`. */
static inline void must_fail(status error, const char *words) {
  if (!error) fail_msg("expected an error that says \"%s\"", words);
  if (!strstr(error_message(error), words))
    fail_msg("expected an error that says \"%s\", but it says \"%s\"", words, error_message(error));
  error_free(error);
}

static inline void set_attr(const op *o, void *attrs, const char *name, const char *text,
                            arena *memory) {
  for (const attr *a = o->attrs; a && a->name; a++)
    if (strcmp(a->name, name) == 0) {
      must(bind_attr_text(a, text, memory, attrs));
      return;
    }
  fail_msg("%s has no attribute %s", o->name, name);
}

/* Attributes with the defaults, but for the pairs {name, value as YAML}. */
static inline void *attrs_of(const char *name, const char *const (*pairs)[2], int count,
                             arena *memory) {
  const op *o = op_find(name);
  assert_non_null(o);
  void *attrs = arena_alloc(memory, o->attrs_bytes + 1);
  op_defaults(o, attrs);
  for (int i = 0; i < count; i++) set_attr(o, attrs, pairs[i][0], pairs[i][1], memory);
  return attrs;
}
#define ATTRS(name, memory, ...)                                                                   \
  attrs_of(name, (const char *const[][2]){__VA_ARGS__},                                            \
           (int)(sizeof((const char *const[][2]){__VA_ARGS__}) / sizeof(const char *[2])), memory)

/* A graph under construction with memory for its values. */
typedef struct bench {
  graph *g;
  builder b;
  thread_pool *pool;
  void *data[VALUES_MAX];
  bool own[VALUES_MAX];
  int done; /* nodes run so far */
  rng_key keys[16];
} bench;

static inline void bench_open(bench *t, int threads) {
  *t = (bench){.g = graph_new(true)};
  t->b = (builder){.g = t->g, .prefix = "node"};
  must(pool_create(threads, &t->pool));
  for (int n = 0; n < 16; n++) t->keys[n] = rng_key_of(17, "test", 0, "case", n);
}

static inline void bench_close(bench *t) {
  for (int v = 0; v < t->g->value_count; v++)
    if (t->own[v]) free(t->data[v]);
  pool_destroy(t->pool);
  graph_free(t->g);
}

static inline void *bench_make(bench *t, value_id v) {
  assert_true(v < VALUES_MAX);
  t->data[v] = malloc(tensor_bytes(value_type(&t->b, v)));
  t->own[v] = true;
  memset(t->data[v], 0xff, tensor_bytes(value_type(&t->b, v))); /* NaN: reading it shows */
  return t->data[v];
}

static inline value_id bench_input(bench *t, const char *name, dtype type, shape s,
                                   const void *data) {
  value_id v = build_input(&t->b, name, type, s);
  memcpy(bench_make(t, v), data, tensor_bytes(value_type(&t->b, v)));
  return v;
}

/* An input that counts 1, 2, 3 … */
static inline value_id ramp(bench *t, shape s) {
  int64_t n = shape_elements(&s);
  float *data = malloc((size_t)n * sizeof *data);
  for (int64_t i = 0; i < n; i++) data[i] = (float)(i + 1);
  value_id v = bench_input(t, "image", DTYPE_F32, s, data);
  free(data);
  return v;
}

static inline tensor bench_tensor(bench *t, value_id v) {
  if (v == VALUE_NONE) return (tensor){.shape = {.rank = -1}};
  tensor x = *value_type(&t->b, v);
  x.data = t->data[v];
  return x;
}

static inline status bench_run_node(bench *t, const node *n) {
  tensor in[32], out[16];
  for (int i = 0; i < n->in_count; i++) in[i] = bench_tensor(t, n->in[i]);
  if (n->op->traits & OP_VIEW) {
    t->data[n->out[0]] = t->data[n->in[0]];
    return OK;
  }
  for (int i = 0; i < n->out_count; i++) {
    bench_make(t, n->out[i]);
    out[i] = bench_tensor(t, n->out[i]);
  }
  size_t bytes = n->op->workspace_bytes
                     ? n->op->workspace_bytes(n->attrs, in, n->in_count, out, pool_threads(t->pool))
                     : 0;
  void *workspace = NULL;
  if (bytes && posix_memalign(&workspace, 64, bytes)) fail();
  if (bytes) memset(workspace, 0xff, bytes);
  call c = {.attrs = n->attrs,
            .in = in,
            .out = out,
            .in_count = n->in_count,
            .out_count = n->out_count,
            .workspace = workspace,
            .pool = t->pool,
            .rng_keys = t->keys,
            .node_id = text_hash(n->name)};
  status error = n->op->cpu(&c);
  free(workspace);
  return error;
}

/* Runs the nodes added since the last time. */
static inline status bench_run(bench *t) {
  while (t->done < t->g->node_count) TRY(bench_run_node(t, &t->g->nodes[t->done++]));
  return OK;
}

/* The gradients of the wanted inputs of the node that was built last, given dy of its output 0. */
static inline void bench_grad_of(bench *t, value_id dy, const bool *wanted, value_id dx[32]) {
  node n = t->g->nodes[t->g->node_count - 1];
  value_id dys[16];
  for (int i = 0; i < 16; i++) dys[i] = i == 0 ? dy : VALUE_NONE;
  for (int i = 0; i < n.in_count; i++) dx[i] = VALUE_NONE;
  grad rule = {&t->b, n.attrs, n.in, n.out, n.in_count, n.out_count, dys, wanted, dx};
  must(n.op->grad(&rule));
  must(bench_run(t));
}

/* The same of every f32 input. */
static inline void bench_grad(bench *t, value_id dy, value_id dx[32]) {
  const node *n = &t->g->nodes[t->g->node_count - 1];
  bool wanted[32];
  for (int i = 0; i < n->in_count; i++)
    wanted[i] = n->in[i] != VALUE_NONE && value_type(&t->b, n->in[i])->dtype == DTYPE_F32;
  bench_grad_of(t, dy, wanted, dx);
}

#endif
