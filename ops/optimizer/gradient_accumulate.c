/* gradient_accumulate: the mean of the gradients of several batches, for one update as if they had
 * been one batch. A part is added to the sum as it comes; the last one turns the sum into the mean
 * where the optimizer expects the gradients, so that nothing has to be cleared in between. */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"

typedef struct gradient_accumulate_attrs {
  int64_t part, parts;
} gradient_accumulate_attrs;

enum { IN_GRADIENTS, IN_SUM };

static status gradient_accumulate_infer(infer *rule) {
  (void)rule;
  return OK;
}

static cost gradient_accumulate_cost(const void *attrs, const tensor *in, int in_count,
                                     const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  double elements = (double)shape_elements(&in[IN_GRADIENTS].shape);
  return (cost){.flops = elements, .bytes = 12 * elements};
}

FOR_EACH_ISA static void add_chunk(float *restrict sum, const float *restrict gradient,
                                   int64_t count) {
  for (int64_t i = 0; i < count; i++) sum[i] += gradient[i];
}

FOR_EACH_ISA static void mean_chunk(float *restrict gradient, const float *restrict sum,
                                    float share, int64_t count) {
  for (int64_t i = 0; i < count; i++) gradient[i] = (sum[i] + gradient[i]) * share;
}

static void accumulate_task(void *context, int64_t task) {
  const call *c = context;
  const gradient_accumulate_attrs *a = c->attrs;
  span part = chunk_of(shape_elements(&c->in[IN_GRADIENTS].shape), task);
  float *gradient = (float *)c->in[IN_GRADIENTS].data + part.first;
  float *sum = (float *)c->in[IN_SUM].data + part.first;
  if (a->part == 0)
    memcpy(sum, gradient, (size_t)part.count * sizeof *sum);
  else if (a->part < a->parts - 1)
    add_chunk(sum, gradient, part.count);
  else
    mean_chunk(gradient, sum, 1.0f / (float)a->parts, part.count);
}

static status gradient_accumulate_cpu(const call *c) {
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[IN_GRADIENTS].shape)), accumulate_task,
               (void *)c);
  return OK;
}

const op op_gradient_accumulate = {
    .name = "gradient_accumulate",
    .family = "optimizer",
    .summary = "Mean of the gradients of several batches.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"gradients", "P", DTYPE_F32, 0,
                              "of this part; the mean after the last one"},
                             {"sum", "P", DTYPE_F32, 0, "of the parts before"},
                             {0}},
    .attrs = (const attr[]){{"part", ATTR_INT, offsetof(gradient_accumulate_attrs, part), "0", 0,
                             1 << 20, NULL, ATTR_SCHEDULABLE, "which part this is, from 0"},
                            {"parts", ATTR_INT, offsetof(gradient_accumulate_attrs, parts), "2", 2,
                             1 << 20, NULL, ATTR_SCHEDULABLE, "of this update"},
                            {0}},
    .attrs_bytes = sizeof(gradient_accumulate_attrs),
    .infer = gradient_accumulate_infer,
    .cost = gradient_accumulate_cost,
    .cpu = gradient_accumulate_cpu,
};
