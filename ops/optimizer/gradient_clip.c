/* gradient_clip: scales all gradients down together when their joint L2 norm is above a limit
 * (Pascanu et al., arXiv 1211.5063), as torch.nn.utils.clip_grad_norm_. */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"

#include <math.h>

typedef struct gradient_clip_attrs {
  double max_norm;
} gradient_clip_attrs;

static status gradient_clip_infer(infer *rule) {
  rule->out[0].shape = (shape){.rank = 0};
  return OK;
}

static cost gradient_clip_cost(const void *attrs, const tensor *in, int in_count,
                               const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  double elements = (double)shape_elements(&in[0].shape);
  return (cost){.flops = 3 * elements, .bytes = 12 * elements};
}

static size_t gradient_clip_workspace(const void *attrs, const tensor *in, int in_count,
                                      const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)out, (void)threads;
  return (size_t)chunk_count(shape_elements(&in[0].shape)) * sizeof(double);
}

FOR_EACH_ISA static double sum_squares(const float *x, int64_t count) {
  float sums[LANES] = {0};
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int l = 0; l < LANES; l++) sums[l] += x[i + l] * x[i + l];
  for (int l = 0; i < count; i++, l++) sums[l] += x[i] * x[i];
  return lanes_total(sums);
}

FOR_EACH_ISA static void scale_chunk(float *x, float factor, int64_t count) {
  for (int64_t i = 0; i < count; i++) x[i] *= factor;
}

typedef struct job {
  const call *c;
  float factor;
} job;

static void sum_task(void *context, int64_t task) {
  const call *c = ((const job *)context)->c;
  span part = chunk_of(shape_elements(&c->in[0].shape), task);
  ((double *)c->workspace)[task] =
      sum_squares((const float *)c->in[0].data + part.first, part.count);
}

static void scale_task(void *context, int64_t task) {
  const job *j = context;
  span part = chunk_of(shape_elements(&j->c->in[0].shape), task);
  scale_chunk((float *)j->c->in[0].data + part.first, j->factor, part.count);
}

static status gradient_clip_cpu(const call *c) {
  double max_norm = ((const gradient_clip_attrs *)c->attrs)->max_norm, total = 0;
  int64_t tasks = chunk_count(shape_elements(&c->in[0].shape));
  job j = {.c = c};
  parallel_for(c->pool, tasks, sum_task, &j);
  for (int64_t i = 0; i < tasks; i++) total += ((const double *)c->workspace)[i];
  double norm = sqrt(total);
  *(float *)c->out[0].data = (float)norm;
  j.factor = (float)(max_norm / (norm + 1e-6));
  /* A norm that is not a number scales nothing: the run reports it before the update matters. */
  if (j.factor < 1.0f) parallel_for(c->pool, tasks, scale_task, &j);
  return OK;
}

const op op_gradient_clip = {
    .name = "gradient_clip",
    .family = "optimizer",
    .summary = "Limits the joint L2 norm of all gradients.",
    .torch = "torch.nn.utils.clip_grad_norm_(parameters, max_norm)",
    .version = 2,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"gradients", "P", DTYPE_F32, 0, "scaled in place"}, {0}},
    .outputs = (const port[]){{"norm", "scalar", DTYPE_F32, 0, "their norm before scaling"}, {0}},
    .attrs = (const attr[]){{"max_norm", ATTR_FLOAT, offsetof(gradient_clip_attrs, max_norm), NULL,
                             0, 1e9, NULL, ATTR_SCHEDULABLE, "the limit"},
                            {0}},
    .attrs_bytes = sizeof(gradient_clip_attrs),
    .infer = gradient_clip_infer,
    .cost = gradient_clip_cost,
    .workspace_bytes = gradient_clip_workspace,
    .cpu = gradient_clip_cpu,
};
