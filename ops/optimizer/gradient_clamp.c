/* gradient_clamp: every element of the gradient into [−limit, limit], as
 * torch.nn.utils.clip_grad_value_. */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"

typedef struct gradient_clamp_attrs {
  double max_value;
} gradient_clamp_attrs;

static status gradient_clamp_infer(infer *rule) {
  (void)rule;
  return OK;
}

static cost gradient_clamp_cost(const void *attrs, const tensor *in, int in_count,
                                const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  double elements = (double)shape_elements(&in[0].shape);
  return (cost){.flops = 2 * elements, .bytes = 8 * elements};
}

/* What is not a number stays so: the run reports it. */
FOR_EACH_ISA static void clamp_chunk(float *x, float limit, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    float v = x[i] > limit ? limit : x[i];
    x[i] = v < -limit ? -limit : v;
  }
}

static void clamp_task(void *context, int64_t task) {
  const call *c = context;
  span part = chunk_of(shape_elements(&c->in[0].shape), task);
  clamp_chunk((float *)c->in[0].data + part.first,
              (float)((const gradient_clamp_attrs *)c->attrs)->max_value, part.count);
}

static status gradient_clamp_cpu(const call *c) {
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[0].shape)), clamp_task, (void *)c);
  return OK;
}

const op op_gradient_clamp = {
    .name = "gradient_clamp",
    .family = "optimizer",
    .summary = "Limits every element of the gradients.",
    .torch = "torch.nn.utils.clip_grad_value_(parameters, max_value)",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"gradients", "P", DTYPE_F32, 0, "clamped in place"}, {0}},
    .attrs = (const attr[]){{"max_value", ATTR_FLOAT, offsetof(gradient_clamp_attrs, max_value),
                             NULL, 0, 1e9, NULL, ATTR_SCHEDULABLE, "the limit"},
                            {0}},
    .attrs_bytes = sizeof(gradient_clamp_attrs),
    .infer = gradient_clamp_infer,
    .cost = gradient_clamp_cost,
    .cpu = gradient_clamp_cpu,
};
