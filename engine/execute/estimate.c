#include "execute/estimate.h"

#include "base/clock.h"
#include "execute/program.h"
#include "ops/conv/conv_attrs.h"

#include <stdlib.h>
#include <string.h>

/* Gives the inputs values, so that reading them takes as long as reading memory does. */
static status fill_inputs(program *p, const graph *g) {
  for (int v = 0; v < g->value_count; v++) {
    if (g->values[v].kind != VALUE_INPUT) continue;
    int64_t n = shape_elements(&g->values[v].type.shape);
    float *ones = malloc((size_t)n * sizeof *ones);
    if (!ones) return error_out_of_memory((size_t)n * sizeof *ones);
    for (int64_t i = 0; i < n; i++) ones[i] = 1;
    status error = program_write(p, v, ones);
    free(ones);
    TRY(error);
  }
  return OK;
}

/* Seconds of the fastest of a few runs of the graph's only node, after one that touches memory for the first
 * time, which can take longer than all the others. */
static status time_graph(graph *g, value_id result, device *d, double *seconds) {
  static const double ENOUGH_S = 0.05;
  enum { RUNS = 5 };
  parameters none;
  program p = {0};
  TRY(parameters_create(g, d, &none));
  status error = program_create(g, d, &none, &result, 1, 0, NULL, &p);
  if (!error) error = fill_inputs(&p, g);
  if (!error) error = program_run(&p);
  double spent = 0;
  for (int i = 0; i < RUNS && spent < ENOUGH_S && !error; i++) {
    double begin = clock_now_s();
    error = program_run(&p);
    double now = clock_now_s() - begin;
    if (i == 0 || now < *seconds) *seconds = now;
    spent += now;
  }
  program_free(&p);
  parameters_free(&none);
  return error;
}

/* Cost and time of one operator on inputs of these shapes; a rank of −1 leaves an input out. */
static status time_operator(const char *name, const void *attributes, const shape *inputs,
                            int count, device *d, cost *work, double *seconds) {
  graph *g = graph_new(false);
  builder b = {.g = g, .prefix = "measured"};
  value_id in[4], out[4];
  static const char *const names[] = {"a", "b", "c", "d"};
  for (int i = 0; i < count; i++)
    in[i] = inputs[i].rank < 0 ? VALUE_NONE : build_input(&b, names[i], DTYPE_F32, inputs[i]);
  status error = build_node(&b, name, attributes, in, count, out);
  if (!error) error = time_graph(g, out[0], d, seconds);
  if (!error) *work = node_cost(g, &g->nodes[0]);
  graph_free(g);
  return error;
}

static status measure_products(device *d, precision factors, product_speed *out) {
  conv3d_attrs convolution;
  double seconds = 0;
  cost work;
  op_defaults(op_find("conv3d"), &convolution);
  convolution.features = 32;
  for (int a = 0; a < 3; a++) convolution.kernel[a] = 3;
  convolution.bias = false;
  convolution.precision = factors;
  const shape filtered[] = {
      SHAPE(1, 20, 20, 20, 32), SHAPE(32, 32, 3, 3, 3), {.rank = -1}}; /* no bias */
  TRY(time_operator("conv3d", &convolution, filtered, 3, d, &work, &seconds));
  out->convolution_flops = work.flops / seconds;
  const op *matmul = op_find("matmul");
  arena memory = {0};
  void *attrs = arena_alloc(&memory, matmul->attrs_bytes);
  op_defaults(matmul, attrs);
  *attr_choice(matmul, attrs, "precision") = factors;
  const shape matrices[] = {SHAPE(512, 512), SHAPE(512, 512)};
  status error = time_operator("matmul", attrs, matrices, 2, d, &work, &seconds);
  out->other_flops = work.flops / seconds;
  arena_free(&memory);
  return error;
}

status device_measure(device *d, unsigned wanted, device_speed *out) {
  enum { TERMS = 6 << 20 }; /* more than caches hold */
  double seconds = 0;
  cost work;
  TRY(measure_products(d, PRECISION_F32, &out->products[PRECISION_F32]));
  for (int p = 0; p < PRECISIONS; p++) {
    out->products[p] = out->products[PRECISION_F32];
    if (p > PRECISION_F32 && wanted >> p & 1)
      TRY(measure_products(d, (precision)p, &out->products[p]));
  }
  const shape terms[] = {SHAPE(TERMS), SHAPE(TERMS)};
  TRY(time_operator("add", NULL, terms, 2, d, &work, &seconds));
  out->bytes = work.bytes / seconds;
  return OK;
}

const product_speed *product_speed_of(const node *n, const device_speed *speed) {
  return &speed->products[node_precision(n)];
}

double graph_seconds(const graph *g, double update_bytes, const device_speed *speed) {
  double seconds = update_bytes / speed->bytes;
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    cost c = node_cost(g, n);
    bool filters = strcmp(n->op->family, "conv") == 0;
    const product_speed *products = product_speed_of(n, speed);
    double arithmetic = c.flops / (filters ? products->convolution_flops : products->other_flops);
    double traffic = c.bytes / speed->bytes;
    seconds += arithmetic > traffic ? arithmetic : traffic;
  }
  return seconds;
}
