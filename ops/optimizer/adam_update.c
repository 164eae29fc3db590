#include "ops/optimizer/adam_update.h"

#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"

#include <math.h>

enum { IN_PARAMETERS, IN_GRADIENTS, IN_STEP, IN_MEAN, IN_SQUARE };

const port adam_inputs[] = {{"parameters", "P", DTYPE_F32, 0, "updated in place"},
                            {"gradients", "P", DTYPE_F32, 0, "their gradients"},
                            {"step", "1", DTYPE_I32, 0, "number of this update, from 1"},
                            {"state", "P", DTYPE_F32, PORT_VARIADIC, "means of g and g²"},
                            {0}};

status adam_infer(infer *rule) {
  (void)rule;
  return OK;
}

cost adam_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  double elements = (double)shape_elements(&in[IN_PARAMETERS].shape);
  return (cost){.flops = 16 * elements, .bytes = 28 * elements};
}

typedef struct factors {
  float penalty;         /* of a parameter, added to its gradient */
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

FOR_EACH_ISA static void adam_chunk(float *restrict parameter, const float *restrict gradient,
                                    float *restrict mean, float *restrict square, factors f,
                                    int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    float g = gradient[i] + f.penalty * parameter[i];
    float m = mean[i] + f.mean_rate * (g - mean[i]);
    float s = f.square_kept * square[i] + f.square_rate * (g * g);
    mean[i] = m;
    square[i] = s;
    float denominator = __builtin_sqrtf(s) / f.root_correction + f.eps;
    parameter[i] = f.kept * parameter[i] - f.step * (m / denominator);
  }
}

static void adam_task(void *context, int64_t task) {
  const job *j = context;
  const tensor *in = j->c->in;
  span part = chunk_of(shape_elements(&in[IN_PARAMETERS].shape), task);
  adam_chunk((float *)in[IN_PARAMETERS].data + part.first,
             (const float *)in[IN_GRADIENTS].data + part.first,
             (float *)in[IN_MEAN].data + part.first, (float *)in[IN_SQUARE].data + part.first, j->f,
             part.count);
}

status adam_update(const call *c, bool decoupled) {
  const adam_attrs *a = c->attrs;
  double step = (double)*(const int32_t *)c->in[IN_STEP].data;
  job j = {c,
           {.penalty = decoupled ? 0.0f : (float)a->weight_decay,
            .kept = decoupled ? (float)(1 - a->lr * a->weight_decay) : 1.0f,
            .mean_rate = (float)(1 - a->beta1),
            .square_kept = (float)a->beta2,
            .square_rate = (float)(1 - a->beta2),
            .root_correction = (float)sqrt(1 - pow(a->beta2, step)),
            .eps = (float)a->eps,
            .step = (float)(a->lr / (1 - pow(a->beta1, step)))}};
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[IN_PARAMETERS].shape)), adam_task, &j);
  return OK;
}
