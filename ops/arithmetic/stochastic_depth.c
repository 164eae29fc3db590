/* stochastic_depth: dropout of a whole residual branch (Huang et al., ECCV 2016, arXiv 1603.09382);
 * also called drop path. */
#include "ops/arithmetic/drop.h"
#include "ops/arithmetic/vector_math.h"

#include <string.h>

typedef struct stochastic_depth_attrs {
  drop_attrs drop; /* first: shared rules read it */
  int mode;
} stochastic_depth_attrs;

enum { MODE_ROW, MODE_BATCH };

static status stochastic_depth_grad(grad *rule) {
  return build_node(rule->b, "stochastic_depth", rule->attrs, rule->dy, 1, rule->dx);
}

static cost stochastic_depth_cost(const void *attrs, const tensor *in, int in_count,
                                  const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 1);
}

/* x and y may be the same memory. */
FOR_EACH_ISA static void scale_chunk(float *y, const float *x, float factor, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) y[i] = factor * x[i];
}

static void stochastic_depth_task(void *context, int64_t task) {
  const call *c = context;
  const stochastic_depth_attrs *attrs = c->attrs;
  int64_t length = shape_elements(&c->in[0].shape) / c->in[0].shape.dim[0];
  int64_t chunks = chunk_count(length), sample = task / chunks;
  span part = chunk_of(length, task % chunks);
  const float *x = (const float *)c->in[0].data + sample * length + part.first;
  float *y = (float *)c->out[0].data + sample * length + part.first;
  rng stream = rng_open(c->rng_keys[attrs->mode == MODE_BATCH ? 0 : sample], c->node_id);
  if (rng_u32(&stream) < drop_limit(attrs))
    memset(y, 0, (size_t)part.count * sizeof *y);
  else
    scale_chunk(y, x, drop_factor(attrs), part.count);
}

static status stochastic_depth_cpu(const call *c) {
  int64_t samples = c->in[0].shape.dim[0];
  int64_t chunks = chunk_count(shape_elements(&c->in[0].shape) / samples);
  parallel_for(c->pool, samples * chunks, stochastic_depth_task, (void *)c);
  return OK;
}

const op op_stochastic_depth = {
    .name = "stochastic_depth",
    .family = "arithmetic",
    .summary = "Drops a whole residual branch at random while training (drop path).",
    .doc = "out = x / (1 − rate) with probability 1 − rate, else 0; one draw for each sample (mode "
           "row, the DropPath of timm and MONAI) or one for the whole batch (Huang et al., ECCV "
           "2016, arXiv 1603.09382). Put it on the branch, before the add. Outside training out = "
           "x.",
    .version = 1,
    .traits = OP_IN_PLACE | OP_RANDOM | OP_TRAIN_ONLY,
    .inputs = (const port[]){{"x", "N …", DTYPE_F32, 0, "result of the branch"}, {0}},
    .outputs = (const port[]){{"out", "as x", DTYPE_F32, PORT_STORABLE, "the same or 0"}, {0}},
    .attrs = (const attr[]){DROP_RATE_ATTR("how often the branch is dropped"),
                            {"mode", ATTR_CHOICE, offsetof(stochastic_depth_attrs, mode), "row", 0,
                             0, (const char *const[]){"row", "batch", NULL}, 0,
                             "row: sample by sample; batch: all samples together"},
                            {0}},
    .attrs_bytes = sizeof(stochastic_depth_attrs),
    .infer = drop_infer,
    .grad = stochastic_depth_grad,
    .cost = stochastic_depth_cost,
    .cpu = stochastic_depth_cpu,
    .cases = (const op_case[]){{"{rate: 0.5}", "[1..3, 1..20, 1..9]", 0},
                               {"{rate: 0.5, mode: batch}", "[3, 20000]", 0},
                               {"{rate: 0}", "[2, 5]", 0},
                               {0}},
};
