/* dropout: sets a random share of the elements to 0 and scales the rest to keep the expectation
 * (Srivastava et al., JMLR 2014). */
#include "ops/arithmetic/drop.h"
#include "ops/arithmetic/vector_math.h"
#include "ops/kernels/philox.h"

#include <string.h>

static status dropout_grad(grad *rule) {
  return build_node(rule->b, "dropout", rule->attrs, rule->dy, 1, rule->dx);
}

static cost dropout_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 12);
}

/* An element is dropped when its 32 random bits are below `limit`. x and y may be the same memory.
 */
FOR_EACH_ISA static void drop_blocks(float *y, const float *x,
                                     uint32_t bits[PHILOX_BLOCK][PHILOX_BLOCKS], uint32_t limit,
                                     float factor, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    y[i] = bits[i % PHILOX_BLOCK][i / PHILOX_BLOCK] < limit ? 0.0f : factor * x[i];
}

static void dropout_task(void *context, int64_t task) {
  const call *c = context;
  int64_t length = shape_elements(&c->in[0].shape) / c->in[0].shape.dim[0];
  int64_t chunks = chunk_count(length), sample = task / chunks;
  span part = chunk_of(length, task % chunks);
  const float *x = (const float *)c->in[0].data + sample * length + part.first;
  float *y = (float *)c->out[0].data + sample * length + part.first;
  uint32_t limit = drop_limit(c->attrs);
  float factor = drop_factor(c->attrs);
  rng stream = rng_open(c->rng_keys[sample], c->node_id);
  uint32_t counter[4] = {(uint32_t)(part.first / PHILOX_BLOCK), stream.counter[1],
                         stream.counter[2], stream.counter[3]};
  uint32_t bits[PHILOX_BLOCK][PHILOX_BLOCKS];
  for (int64_t i = 0; i < part.count;
       i += PHILOX_BLOCK * PHILOX_BLOCKS, counter[0] += PHILOX_BLOCKS) {
    int64_t count = part.count - i < PHILOX_BLOCK * PHILOX_BLOCKS ? part.count - i
                                                                  : PHILOX_BLOCK * PHILOX_BLOCKS;
    philox_blocks(counter, stream.key, bits);
    drop_blocks(y + i, x + i, bits, limit, factor, count);
  }
}

static status dropout_cpu(const call *c) {
  int64_t samples = c->in[0].shape.dim[0];
  int64_t chunks = chunk_count(shape_elements(&c->in[0].shape) / samples);
  if (drop_limit(c->attrs) > 0) {
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
    .doc = "out = x / (1 − rate) with probability 1 − rate, else 0 (Srivastava et al., JMLR "
           "2014). Outside training out = x.",
    .version = 1,
    .traits = OP_IN_PLACE | OP_RANDOM | OP_TRAIN_ONLY,
    .inputs = (const port[]){{"x", "N …", DTYPE_F32, 0, "values"}, {0}},
    .outputs =
        (const port[]){{"out", "as x", DTYPE_F32, PORT_STORABLE, "values, some of them 0"}, {0}},
    .attrs = (const attr[]){DROP_RATE_ATTR("share of elements to drop"), {0}},
    .attrs_bytes = sizeof(drop_attrs),
    .infer = drop_infer,
    .grad = dropout_grad,
    .cost = dropout_cost,
    .cpu = dropout_cpu,
    .cases = (const op_case[]){{"{rate: 0.3}", "[1..3, 1..20, 1..9]", 0},
                               {"{rate: 0}", "[2, 5]", 0},
                               {0}},
};
