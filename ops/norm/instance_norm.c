/* instance_norm: each channel of each sample to mean 0 and variance 1 over its voxels (Ulyanov et
 * al., arXiv 1607.08022). */
#include "ops/norm/channel_norm.h"

enum { OUT_Y, OUT_MEAN, OUT_RSTD };

static status instance_norm_infer(infer *rule) {
  const tensor *x = &rule->in[NORM_X];
  TRY(channel_norm_infer(rule, 3));
  char have[96];
  int64_t samples = x->shape.dim[0];
  if (cut_channels(x, samples).voxels < 2)
    return shape_error("x is %s: one voxel per channel has no variance; use a larger image or "
                       "fewer down-samplings",
                       shape_format(have, &x->shape));
  rule->out[OUT_MEAN].shape = rule->out[OUT_RSTD].shape = SHAPE(samples, last_extent(x));
  return OK;
}

static status instance_norm_grad(grad *rule) {
  return channel_norm_grad(rule, rule->out[OUT_MEAN], rule->out[OUT_RSTD], 1, false);
}

static status instance_norm_cpu(const call *c) {
  return channel_norm_sample_cpu(c, 1, NULL);
}

static status of_moments_infer(infer *rule) {
  TRY(instance_norm_infer(rule));
  return channel_norm_check_moments(rule, NORM_SAMPLE_MOMENTS);
}

static status of_moments_cpu(const call *c) {
  return channel_norm_sample_cpu(c, 1, c->in[NORM_SAMPLE_MOMENTS].data);
}

#define INSTANCE_NORM_OUTPUTS                                                                      \
  CHANNEL_NORM_OUTPUT, {"mean", "N C", DTYPE_F32, PORT_SAVED, "mean of each channel"}, {           \
    "rstd", "N C", DTYPE_F32, PORT_SAVED, "1 / √(variance + eps)"                                \
  }
static const attr instance_norm_attr_list[] = {CHANNEL_NORM_ATTRS("false"), {0}};

const op op_instance_norm_of_moments = {
    .name = "instance_norm_of_moments",
    .family = "norm",
    .summary = "instance_norm by the moments that a convolution has left.",
    .version = 1,
    .traits = OP_INTERNAL | OP_CPU_ONLY | OP_IN_PLACE,
    .inputs = (const port[]){CHANNEL_NORM_INPUTS, CHANNEL_NORM_MOMENTS, {0}},
    .outputs = (const port[]){INSTANCE_NORM_OUTPUTS, {0}},
    .attrs = instance_norm_attr_list,
    .attrs_bytes = sizeof(channel_norm_attrs),
    .infer = of_moments_infer,
    .params = channel_norm_params,
    .cost = channel_norm_of_moments_cost,
    .cpu = of_moments_cpu,
};

const op op_instance_norm = {
    .name = "instance_norm",
    .family = "norm",
    .summary = "Normalizes each channel of each sample over its voxels; residual and activation "
               "included.",
    .doc = "out = leaky(x̂ · weight + bias + residual) with x̂ = (x − mean) / √(variance + eps), "
           "mean and (biased) variance over the voxels of one channel of one sample (Ulyanov et "
           "al., arXiv 1607.08022), and leaky(v) = v where v > 0, slope · v elsewhere. There are "
           "no running statistics. Written as three operators (instance_norm, add, leaky_relu) a "
           "residual block's end compiles to this one.",
    .torch = "torch.nn.functional.leaky_relu(torch.nn.functional.instance_norm(x, weight=weight, "
             "bias=bias, eps=eps) + residual, slope)",
    .version = 3,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){CHANNEL_NORM_INPUTS, {0}},
    .outputs = (const port[]){INSTANCE_NORM_OUTPUTS, {0}},
    .attrs = instance_norm_attr_list,
    .attrs_bytes = sizeof(channel_norm_attrs),
    .infer = instance_norm_infer,
    .params = channel_norm_params,
    .grad = instance_norm_grad,
    .cost = channel_norm_cost,
    .workspace_bytes = channel_norm_sample_workspace,
    .cpu = instance_norm_cpu,
    .of_moments = &op_instance_norm_of_moments,
    /* The slope stays near 1 here: across the corner differences measure neither side. */
    .cases = (const op_case[]){{"{}", "[1..2, 2..5, 2..5, 2..5, 1..9]; -", 0},
                               {"{affine: true}", "[2, 3, 4, 5, 16|20]; -", 0},
                               {"{}", "[1, 3, 2, 2, 260]; -", 0},
                               {"{affine: true, slope: 0.95}", "[2, 3, 4, 3, 1|3]; -", 0.02},
                               {"{affine: true, slope: 0.95}",
                                "[n=1..2, x=2..5, y=2..5, 4, 6]; [n, x, y, 4, 6]", 0.02},
                               {0}},
};
