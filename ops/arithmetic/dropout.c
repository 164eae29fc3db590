/* dropout: sets a random share of the elements to 0 and scales the rest to keep the expectation
 * (Srivastava et al., JMLR 2014).
 *
 * Nothing is stored for the gradient: backward is the same operator on dy, and draws the same
 * numbers because a stream is named by sample and node, and both nodes bear the item's name. */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/elementwise.h"

#include "graph/graph.h"

#include <string.h>

typedef struct dropout_attrs {
  double rate;
} dropout_attrs;

static status dropout_infer(infer *rule) {
  if (rule->in[0].shape.rank < 1) return shape_error("x must have samples as its first axis");
  return infer_same_shape(rule);
}

static status dropout_grad(grad *rule) {
  return build_node(rule->b, "dropout", rule->attrs, rule->dy, 1, rule->dx);
}

static cost dropout_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 12);
}

/* One Philox block decides four elements. */
enum { BLOCK = 4 };

static void dropout_task(void *context, int64_t task) {
  const call *c = context;
  double rate = ((const dropout_attrs *)c->attrs)->rate;
  int64_t length = shape_elements(&c->in[0].shape) / c->in[0].shape.dim[0];
  int64_t chunks = chunk_count(length), sample = task / chunks;
  span part = chunk_of(length, task % chunks);
  const float *x = (const float *)c->in[0].data + sample * length + part.first;
  float *y = (float *)c->out[0].data + sample * length + part.first;
  /* An element is dropped when its 32 random bits are below rate · 2^32. */
  double limit = rate * 0x1p32;
  float factor = (float)(1.0 / (1.0 - rate));
  rng stream = rng_open(c->rng_keys[sample], c->node_id);
  uint32_t counter[4] = {(uint32_t)(part.first / BLOCK), stream.counter[1], stream.counter[2],
                         stream.counter[3]};
  for (int64_t i = 0; i < part.count; i += BLOCK, counter[0]++) {
    uint32_t bits[BLOCK];
    philox4x32(counter, stream.key, bits);
    for (int64_t k = 0; k < BLOCK && i + k < part.count; k++)
      y[i + k] = (double)bits[k] < limit ? 0.0f : factor * x[i + k];
  }
}

static status dropout_cpu(const call *c) {
  int64_t samples = c->in[0].shape.dim[0];
  int64_t chunks = chunk_count(shape_elements(&c->in[0].shape) / samples);
  if (((const dropout_attrs *)c->attrs)->rate > 0) {
    parallel_for(c->pool, samples * chunks, dropout_task, (void *)c);
  } else if (c->out[0].data != c->in[0].data) {
    memcpy(c->out[0].data, c->in[0].data, tensor_bytes(&c->in[0]));
  }
  return OK;
}

const op op_dropout = {
    .name = "dropout",
    .family = "arithmetic",
    .summary = "Sets a random share of the elements to 0 while training.",
    .doc = "out = x / (1 − rate) with probability 1 − rate, else 0 (Srivastava et al., JMLR 2014). "
           "Outside "
           "training out = x.",
    .version = 1,
    .traits = OP_IN_PLACE | OP_RANDOM | OP_TRAIN_ONLY,
    .inputs = (const port[]){{"x", "N …", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "as x", DTYPE_F32, 0, "values, some of them 0"}, {0}},
    .attrs = (const attr[]){{"rate", ATTR_FLOAT, offsetof(dropout_attrs, rate), "0.1", 0, 0.99,
                             NULL, ATTR_SCHEDULABLE, "share of elements to drop"},
                            {0}},
    .attrs_bytes = sizeof(dropout_attrs),
    .infer = dropout_infer,
    .grad = dropout_grad,
    .cost = dropout_cost,
    .cpu = dropout_cpu,
    .cases = (const op_case[]){{"{rate: 0.3}", "[1..3, 1..20, 1..9]", 0},
                               {"{rate: 0}", "[2, 5]", 0},
                               {0}},
};
