/* What instance, group and batch norm share: each channel is brought to mean 0 and variance 1, then
 * scaled and shifted, a residual added, and a leaky ReLU applied:
 *
 *     out = leaky(x̂ · weight + bias + residual),  x̂ = (x − mean) · rstd,  rstd = 1 / √(variance + eps)
 *
 * They differ in what one mean and variance are taken over: the voxels of one channel of one sample
 * (instance), of several neighbouring channels of one sample (group), or of one channel of all
 * samples (batch). The compiler's fusion pass turns norm, add and activation into one operator,
 * which reads x twice and the residual once and writes the result once. */
#ifndef STRATA_OPS_CHANNEL_NORM_H
#define STRATA_OPS_CHANNEL_NORM_H

#include "ops/kernels/channel_rows.h"
#include "ops/kernels/weight_init.h"

#include "graph/graph.h"

/* First in the attribute struct of every such norm. */
typedef struct channel_norm_attrs {
  double eps;
  bool affine;
  double init_weight;
  double slope;
} channel_norm_attrs;

#define CHANNEL_NORM_ATTRS(affine_default)                                                         \
  {"eps",  ATTR_FLOAT, offsetof(channel_norm_attrs, eps),                                          \
   "1e-5", 0,          1,                                                                          \
   NULL,   0,          "added to the variance"},                                                   \
      {"affine", ATTR_BOOL, offsetof(channel_norm_attrs, affine),   affine_default, 0, 0,          \
       NULL,     0,         "learn a scale and a shift per channel"},                              \
      NORM_INIT_ATTR(channel_norm_attrs, init_weight), {                                           \
    "slope", ATTR_FLOAT, offsetof(channel_norm_attrs, slope), "1", 0, 1, NULL, 0,                  \
        "factor of negative results: 1 is no activation, 0 a ReLU, 0.01 the usual leaky ReLU"      \
  }

/* The first inputs, and the first output, of every such norm. */
enum { NORM_X, NORM_WEIGHT, NORM_BIAS, NORM_RESIDUAL, NORM_SAMPLE_MOMENTS };
#define CHANNEL_NORM_INPUTS                                                                        \
  {"x", "N X Y Z C", DTYPE_F32, 0, "feature map"},                                                 \
      {"weight", "C", DTYPE_F32, PORT_PARAM | PORT_OPTIONAL, "scale"},                             \
      {"bias", "C", DTYPE_F32, PORT_PARAM | PORT_OPTIONAL, "shift"}, {                             \
    "residual", "N X Y Z C", DTYPE_F32, PORT_OPTIONAL, "added before the activation"               \
  }
#define CHANNEL_NORM_OUTPUT                                                                        \
  { "out", "N X Y Z C", DTYPE_F32, PORT_STORABLE, "normalized feature map" }

/* Last input of the operators that take over where a convolution has left moments (op.of_moments): behind
 * the residual where samples have statistics of their own. */
#define CHANNEL_NORM_MOMENTS                                                                       \
  { "moments", "N 2 C", DTYPE_F32, 0, "of each channel of x: mean and Σ(x − mean)²" }

/* Checks x, weight, bias and residual; fills the shape of the result. */
status channel_norm_infer(infer *rule, int least_rank);
status channel_norm_check_moments(const infer *rule, int input);
/* weight and bias: C numbers where `affine` is on. */
status channel_norm_params(const void *attrs, const tensor *in, int in_count, param_spec *out);
cost channel_norm_cost(const void *attrs, const tensor *in, int in_count, const tensor *out);
/* x is read once. The arithmetic of its moments is counted here, though the convolution does it. */
cost channel_norm_of_moments_cost(const void *attrs, const tensor *in, int in_count,
                                  const tensor *out);
/* Gradients of the four inputs. `mean`: N × C numbers, or C that hold for all samples. `channels`:
 * how many neighbours share their statistics. `fixed`: the statistics do not depend on x. */
status channel_norm_grad(grad *rule, value_id mean, value_id rstd, int64_t channels, bool fixed);

/* One norm's forward pass. */
typedef struct channel_norm {
  const call *call;
  channel_cut cut;  /* its samples have statistics of their own */
  int64_t together; /* neighbouring channels with common statistics; divides C */
  double eps;
  float slope;
  const float *mean, *rstd; /* samples × C */
  float *partials;          /* channel_norm_partials(cut) floats, for the statistics */
  const float *moments;     /* of x, from the convolution that made it; NULL: none are given */
} channel_norm;

size_t channel_norm_partials(const channel_cut *cut);
/* Mean and 1/√(variance + eps) over the elements that are normalized together; `variance`, if not
 * NULL, receives the unbiased one. Each samples × C. */
void channel_norm_statistics(const channel_norm *n, float *mean, float *rstd, float *variance);
/* The result, from n->mean and n->rstd. */
void channel_norm_apply(const channel_norm *n);

/* Kernel and workspace of a norm whose samples have statistics of their own: outputs out, mean and
 * rstd, the latter N × C. `together` and `moments` as above. */
status channel_norm_sample_cpu(const call *c, int64_t together, const float *moments);
size_t channel_norm_sample_workspace(const void *attrs, const tensor *in, int in_count,
                                     const tensor *out, int threads);

#endif
