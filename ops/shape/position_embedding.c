/* position_embedding: adds a learned vector to every token position (Dosovitskiy et al., arXiv
 * 2010.11929). */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"

#include "graph/graph.h"

static status position_embedding_infer(infer *rule) {
  const shape *x = &rule->in[0].shape, *table = &rule->in[1].shape;
  char have[96], want[96];
  if (x->rank != 3)
    return shape_error("x must be tokens (N × T × C), but is %s", shape_format(have, x));
  if (table->rank != 3 || table->dim[0] != 1 || table->dim[1] != x->dim[1] ||
      table->dim[2] != x->dim[2])
    return shape_error("position_embeddings is %s, but tokens of %s need one of 1×%lld×%lld",
                       shape_format(have, table), shape_format(want, x), (long long)x->dim[1],
                       (long long)x->dim[2]);
  rule->out[0].shape = *x;
  return OK;
}

static status position_embedding_params(const void *attrs, const tensor *in, int in_count,
                                        param_spec *out) {
  (void)attrs, (void)in_count;
  const shape *x = &in[0].shape;
  char have[96];
  if (x->rank != 3)
    return shape_error("x must be tokens (N × T × C), but is %s", shape_format(have, x));
  out[0] = (param_spec){SHAPE(1, x->dim[1], x->dim[2]), INIT_TRUNCATED_NORMAL, 0.02};
  return OK;
}

static status position_embedding_grad(grad *rule) {
  rule->dx[0] = rule->dy[0];
  return rule->wanted[1] ? build_node(rule->b, "sum_samples", NULL, rule->dy, 1, &rule->dx[1]) : OK;
}

static cost one_flop(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return (cost){.flops = (double)shape_elements(&in[0].shape)};
}

/* x and y may be the same memory. */
FOR_EACH_ISA static void add_chunk(float *y, const float *x, const float *table, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) y[i] = x[i] + table[i];
}

static void position_embedding_task(void *context, int64_t task) {
  const call *c = context;
  int64_t length = shape_elements(&c->in[1].shape), chunks = chunk_count(length);
  span part = chunk_of(length, task % chunks);
  int64_t at = task / chunks * length + part.first;
  add_chunk((float *)c->out[0].data + at, (const float *)c->in[0].data + at,
            (const float *)c->in[1].data + part.first, part.count);
}

static status position_embedding_cpu(const call *c) {
  int64_t samples = c->in[0].shape.dim[0];
  parallel_for(c->pool, samples * chunk_count(shape_elements(&c->in[1].shape)),
               position_embedding_task, (void *)c);
  return OK;
}

static status sum_samples_infer(infer *rule) {
  rule->out[0].shape = rule->in[0].shape;
  rule->out[0].shape.dim[0] = 1;
  return OK;
}

FOR_EACH_ISA static void sum_samples_chunk(float *restrict y, const float *restrict x,
                                           int64_t samples, int64_t stride, int64_t count) {
  for (int64_t i = 0; i < count; i++) y[i] = x[i];
  for (int64_t n = 1; n < samples; n++)
    for (int64_t i = 0; i < count; i++) y[i] += x[n * stride + i];
}

static void sum_samples_task(void *context, int64_t task) {
  const call *c = context;
  int64_t length = shape_elements(&c->out[0].shape);
  span part = chunk_of(length, task);
  sum_samples_chunk((float *)c->out[0].data + part.first, (const float *)c->in[0].data + part.first,
                    c->in[0].shape.dim[0], length, part.count);
}

static status sum_samples_cpu(const call *c) {
  parallel_for(c->pool, chunk_count(shape_elements(&c->out[0].shape)), sum_samples_task, (void *)c);
  return OK;
}

const op op_position_embedding = {
    .name = "position_embedding",
    .family = "shape",
    .summary = "Adds a learned vector to every token position.",
    .doc = "out[n, t] = x[n, t] + position_embeddings[0, t] (Dosovitskiy et al., arXiv "
           "2010.11929). The table starts as a normal distribution with standard deviation 0.02, "
           "cut at ±2.",
    .torch = "x + position_embeddings",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"x", "N T C", DTYPE_F32, 0, "tokens"},
                             {"position_embeddings", "1 T C", DTYPE_F32, PORT_PARAM,
                              "one vector for each position"},
                             {0}},
    .outputs = (const port[]){{"out", "N T C", DTYPE_F32, 0, "tokens that know their place"}, {0}},
    .infer = position_embedding_infer,
    .params = position_embedding_params,
    .grad = position_embedding_grad,
    .cost = one_flop,
    .cpu = position_embedding_cpu,
    .cases = (const op_case[]){{"{}", "[1..3, 1..20, 1..9]", 0}, {0}},
};

const op op_sum_samples = {
    .name = "sum_samples",
    .family = "shape",
    .summary = "Sum over the batch.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"x", "N …", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "1 …", DTYPE_F32, 0, "their sum over n"}, {0}},
    .infer = sum_samples_infer,
    .cost = one_flop,
    .cpu = sum_samples_cpu,
};
