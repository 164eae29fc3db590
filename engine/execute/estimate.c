#include "execute/estimate.h"

#include "base/clock.h"
#include "base/text.h"
#include "execute/program.h"
#include "ops/conv/conv_attrs.h"

#include <math.h>
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
  value_id in[7], out[4];
  static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g"};
  for (int i = 0; i < count; i++)
    in[i] = inputs[i].rank < 0 ? VALUE_NONE : build_input(&b, names[i], DTYPE_F32, inputs[i]);
  status error = build_node(&b, name, attributes, in, count, out);
  if (!error) error = time_graph(g, out[0], d, seconds);
  if (!error) *work = node_cost(g, &g->nodes[0]);
  graph_free(g);
  return error;
}

/* Channels of the two convolutions that are measured, and of the heads of attention; and how many
 * operations the narrow and the wide ones have for each byte: what lies between them goes by that. */
enum { NARROW = 8, WIDE = 32, HEADS = 2, HEAD_CHANNELS = 16 };
typedef struct intensities {
  double narrow, wide;
} intensities;
static const intensities OF_CONVOLUTIONS = {50, 200}, OF_PRODUCTS = {10, 80};

/* Of 3×3×3 filters. */
static status measure_convolution(device *d, precision factors, int64_t channels, int64_t side,
                                  double *flops) {
  conv3d_attrs convolution;
  double seconds = 0;
  cost work;
  op_defaults(op_find("conv3d"), &convolution);
  convolution.features = channels;
  for (int a = 0; a < 3; a++) convolution.kernel[a] = 3;
  convolution.bias = false;
  convolution.precision = factors;
  const shape filtered[] = {SHAPE(1, side, side, side, channels),
                            SHAPE(channels, channels, 3, 3, 3),
                            {.rank = -1}}; /* no bias */
  TRY(time_operator("conv3d", &convolution, filtered, 3, d, &work, &seconds));
  *flops = work.flops / seconds;
  return OK;
}

/* An operator with attributes of its own but for the precision of its products; of attention HEADS. */
static status measure_op(const char *name, device *d, precision factors, const shape *inputs,
                         int count, double *flops) {
  const op *o = op_find(name);
  arena memory = {0};
  void *attrs = arena_alloc(&memory, o->attrs_bytes);
  double seconds = 0;
  cost work;
  op_defaults(o, attrs);
  *attr_choice(o, attrs, "precision") = factors;
  if (strcmp(o->family, "attention") == 0) *attr_integer(o, attrs, "heads") = HEADS;
  status error = time_operator(name, attrs, inputs, count, d, &work, &seconds);
  *flops = work.flops / seconds;
  arena_free(&memory);
  return error;
}

static status measure_products(device *d, precision factors, product_speed *out) {
  TRY(measure_convolution(d, factors, NARROW, 32, &out->narrow_convolution_flops));
  TRY(measure_convolution(d, factors, WIDE, 20, &out->convolution_flops));
  const shape matrices[] = {SHAPE(512, 512), SHAPE(512, 512)};
  TRY(measure_op("matmul", d, factors, matrices, 2, &out->other_flops));
  const shape few[] = {SHAPE(8192, 24), SHAPE(24, 96)};
  TRY(measure_op("matmul", d, factors, few, 2, &out->narrow_flops));
  enum { WINDOWS = 4, TOKENS = 343, C = HEADS * HEAD_CHANNELS }; /* as in Swin UNETR */
  const shape left_out = {.rank = -1}, result = SHAPE(1, WINDOWS, TOKENS, C);
  const shape attended[] = {SHAPE(1, WINDOWS, TOKENS, 3 * C), left_out, left_out, left_out, result,
                            SHAPE(WINDOWS, HEADS, TOKENS),    result};
  TRY(measure_op("self_attention", d, factors, attended, 4, &out->attention_flops));
  return measure_op("self_attention_backward", d, factors, attended, 7,
                    &out->attention_gradient_flops);
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
  const shape matrices[] = {SHAPE(64, 64), SHAPE(64, 64)};
  double flops;
  TRY(measure_op("matmul", d, PRECISION_F32, matrices, 2, &flops));
  out->start_s = 2.0 * 64 * 64 * 64 / flops;
  return OK;
}

const product_speed *product_speed_of(const node *n, const device_speed *speed) {
  return &speed->products[node_precision(n)];
}

static double between(double narrow_flops, double wide_flops, const intensities *at, cost c) {
  double place = log(c.flops / c.bytes / at->narrow) / log(at->wide / at->narrow);
  if (!(place > 0)) return narrow_flops;
  return narrow_flops * pow(wide_flops / narrow_flops, place < 1 ? place : 1);
}

/* Each score takes an exponential beside its products, of which a head of few channels has few. */
static double attention_flops(const graph *g, const node *n, const product_speed *p) {
  bool backward = text_ends_with(n->op->name, "_backward");
  double measured = backward ? p->attention_gradient_flops : p->attention_flops;
  value_id like_result = backward ? n->in[n->in_count - 1] : n->out[0];
  const shape *result = &g->values[like_result].type.shape;
  double channels =
      (double)result->dim[result->rank - 1] / (double)*attr_integer(n->op, n->attrs, "heads");
  double exponential = HEAD_CHANNELS * (1 / measured - 1 / p->other_flops);
  return 1 / (1 / p->other_flops + fmax(exponential, 0) / channels);
}

/* FLOP a second of a node of that cost. */
static double flops_of(const graph *g, const node *n, cost c, const product_speed *p) {
  if (strcmp(n->op->family, "conv") == 0)
    return between(p->narrow_convolution_flops, p->convolution_flops, &OF_CONVOLUTIONS, c);
  if (strstr(n->op->name, "attention")) return attention_flops(g, n, p);
  return between(p->narrow_flops, p->other_flops, &OF_PRODUCTS, c);
}

double graph_seconds(const graph *g, double update_bytes, const device_speed *speed) {
  double seconds = update_bytes / speed->bytes;
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    cost c = node_cost(g, n);
    double arithmetic = c.flops / flops_of(g, n, c, product_speed_of(n, speed));
    double traffic = c.bytes / speed->bytes;
    seconds += fmax(arithmetic, traffic) + speed->start_s;
  }
  return seconds;
}
