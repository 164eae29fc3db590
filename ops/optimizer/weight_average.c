/* weight_average: the exponential moving average of the weights (Polyak and Juditsky, 1992, give
 * the reason), as torch.optim.swa_utils.get_ema_multi_avg_fn; and weight_exchange, which puts the
 * averaged weights in the place of the trained ones and back, for validation. */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"

typedef struct weight_average_attrs {
  double decay;
} weight_average_attrs;

enum { IN_AVERAGE, IN_PARAMETERS };

static status weight_average_infer(infer *rule) {
  (void)rule;
  return OK;
}

static cost weight_average_cost(const void *attrs, const tensor *in, int in_count,
                                const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  double elements = (double)shape_elements(&in[IN_AVERAGE].shape);
  return (cost){.flops = 3 * elements, .bytes = 12 * elements};
}

FOR_EACH_ISA static void average_chunk(float *restrict average, const float *restrict parameter,
                                       float rate, int64_t count) {
  for (int64_t i = 0; i < count; i++) average[i] += rate * (parameter[i] - average[i]);
}

FOR_EACH_ISA static void exchange_chunk(float *restrict a, float *restrict b, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    float kept = a[i];
    a[i] = b[i];
    b[i] = kept;
  }
}

static void average_task(void *context, int64_t task) {
  const call *c = context;
  span part = chunk_of(shape_elements(&c->in[IN_AVERAGE].shape), task);
  average_chunk((float *)c->in[IN_AVERAGE].data + part.first,
                (const float *)c->in[IN_PARAMETERS].data + part.first,
                (float)(1 - ((const weight_average_attrs *)c->attrs)->decay), part.count);
}

static void exchange_task(void *context, int64_t task) {
  const call *c = context;
  span part = chunk_of(shape_elements(&c->in[IN_AVERAGE].shape), task);
  exchange_chunk((float *)c->in[IN_AVERAGE].data + part.first,
                 (float *)c->in[IN_PARAMETERS].data + part.first, part.count);
}

static status weight_average_cpu(const call *c) {
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[IN_AVERAGE].shape)), average_task,
               (void *)c);
  return OK;
}

static status weight_exchange_cpu(const call *c) {
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[IN_AVERAGE].shape)), exchange_task,
               (void *)c);
  return OK;
}

static const port buffers[] = {{"average", "P", DTYPE_F32, 0, "averaged weights"},
                               {"parameters", "P", DTYPE_F32, 0, "trained weights"},
                               {0}};

const op op_weight_average = {
    .name = "weight_average",
    .family = "optimizer",
    .summary = "Moves the averaged weights towards the trained ones.",
    .torch = "average.lerp_(parameters, 1 - decay)",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = buffers,
    .attrs = (const attr[]){{"decay", ATTR_FLOAT, offsetof(weight_average_attrs, decay), "0.999", 0,
                             1, NULL, ATTR_SCHEDULABLE, "share of the average that stays"},
                            {0}},
    .attrs_bytes = sizeof(weight_average_attrs),
    .infer = weight_average_infer,
    .cost = weight_average_cost,
    .cpu = weight_average_cpu,
};

const op op_weight_exchange = {
    .name = "weight_exchange",
    .family = "optimizer",
    .summary = "Exchanges averaged and trained weights.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = buffers,
    .infer = weight_average_infer,
    .cost = weight_average_cost,
    .cpu = weight_exchange_cpu,
};
