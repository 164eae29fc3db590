/* adamw: Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), in the order
 * of operations of torch.optim.AdamW. */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"

#include <math.h>

typedef struct adamw_attrs {
  double lr, weight_decay, beta1, beta2, eps;
} adamw_attrs;

enum { IN_PARAMETERS, IN_GRADIENTS, IN_STEP, IN_MEAN, IN_SQUARE };

static status adamw_infer(infer *rule) {
  (void)rule;
  return OK;
}

static cost adamw_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  double elements = (double)shape_elements(&in[IN_PARAMETERS].shape);
  return (cost){.flops = 14 * elements, .bytes = 28 * elements};
}

typedef struct factors {
  float kept;            /* of a parameter, after decay */
  float mean_rate;       /* 1 − β₁ */
  float square_kept;     /* β₂ */
  float square_rate;     /* 1 − β₂ */
  float root_correction; /* √(1 − β₂ᵗ) */
  float eps;
  float step; /* lr / (1 − β₁ᵗ) */
} factors;

typedef struct job {
  const call *c;
  factors f;
} job;

FOR_EACH_ISA static void adamw_chunk(float *restrict parameter, const float *restrict gradient,
                                     float *restrict mean, float *restrict square, factors f,
                                     int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    float g = gradient[i];
    float m = mean[i] + f.mean_rate * (g - mean[i]);
    float s = f.square_kept * square[i] + f.square_rate * (g * g);
    mean[i] = m;
    square[i] = s;
    float denominator = __builtin_sqrtf(s) / f.root_correction + f.eps;
    parameter[i] = f.kept * parameter[i] - f.step * (m / denominator);
  }
}

static void adamw_task(void *context, int64_t task) {
  const job *j = context;
  const tensor *in = j->c->in;
  span part = chunk_of(shape_elements(&in[IN_PARAMETERS].shape), task);
  adamw_chunk((float *)in[IN_PARAMETERS].data + part.first,
              (const float *)in[IN_GRADIENTS].data + part.first,
              (float *)in[IN_MEAN].data + part.first, (float *)in[IN_SQUARE].data + part.first,
              j->f, part.count);
}

static status adamw_cpu(const call *c) {
  const adamw_attrs *a = c->attrs;
  double step = (double)*(const int32_t *)c->in[IN_STEP].data;
  job j = {c,
           {.kept = (float)(1 - a->lr * a->weight_decay),
            .mean_rate = (float)(1 - a->beta1),
            .square_kept = (float)a->beta2,
            .square_rate = (float)(1 - a->beta2),
            .root_correction = (float)sqrt(1 - pow(a->beta2, step)),
            .eps = (float)a->eps,
            .step = (float)(a->lr / (1 - pow(a->beta1, step)))}};
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[IN_PARAMETERS].shape)), adamw_task, &j);
  return OK;
}

const op op_adamw = {
    .name = "adamw",
    .family = "optimizer",
    .summary = "Adam with decoupled weight decay.",
    .doc = "m ← β₁m + (1 − β₁)g; v ← β₂v + (1 − β₂)g²; parameter ← (1 − lr · weight_decay) · "
           "parameter − lr · m̂ / (√v̂ + eps), with m̂ and v̂ corrected for their start at 0 "
           "(Loshchilov and Hutter, arXiv 1711.05101).",
    .torch = "torch.optim.AdamW(parameters, lr, (beta1, beta2), eps, weight_decay)",
    .version = 1,
    .traits = OP_OPTIMIZER,
    .inputs = (const port[]){{"parameters", "P", DTYPE_F32, 0, "updated in place"},
                             {"gradients", "P", DTYPE_F32, 0, "their gradients"},
                             {"step", "1", DTYPE_I32, 0, "number of this update, from 1"},
                             {"state", "P", DTYPE_F32, PORT_VARIADIC, "means of g and g²"},
                             {0}},
    .attrs =
        (const attr[]){{"lr", ATTR_FLOAT, offsetof(adamw_attrs, lr), NULL, 0, 1e3, NULL,
                        ATTR_SCHEDULABLE, "learning rate"},
                       {"weight_decay", ATTR_FLOAT, offsetof(adamw_attrs, weight_decay), "0.01", 0,
                        1e3, NULL, ATTR_SCHEDULABLE, "share of a parameter lost per unit of lr"},
                       {"beta1", ATTR_FLOAT, offsetof(adamw_attrs, beta1), "0.9", 0, 0.999999, NULL,
                        0, "memory of the mean gradient"},
                       {"beta2", ATTR_FLOAT, offsetof(adamw_attrs, beta2), "0.999", 0, 0.999999,
                        NULL, 0, "memory of the mean squared gradient"},
                       {"eps", ATTR_FLOAT, offsetof(adamw_attrs, eps), "1e-8", 0, 1, NULL, 0,
                        "added to the root of the mean squared gradient"},
                       {0}},
    .attrs_bytes = sizeof(adamw_attrs),
    .infer = adamw_infer,
    .cost = adamw_cost,
    .cpu = adamw_cpu,
    .state_buffers = 2,
};
