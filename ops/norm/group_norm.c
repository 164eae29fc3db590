/* group_norm: the channels of each sample in groups, each group to mean 0 and variance 1 over its
 * channels and voxels (Wu and He, ECCV 2018, arXiv 1803.08494). */
#include "ops/norm/channel_norm.h"

typedef struct group_norm_attrs {
  channel_norm_attrs norm; /* first: shared rules read it */
  int64_t groups;
} group_norm_attrs;

enum { OUT_Y, OUT_MEAN, OUT_RSTD };

static int64_t group_channels(const void *attributes, const tensor *x) {
  return last_extent(x) / ((const group_norm_attrs *)attributes)->groups;
}

static status group_norm_infer(infer *rule) {
  const tensor *x = &rule->in[NORM_X];
  const group_norm_attrs *attrs = rule->attrs;
  TRY(channel_norm_infer(rule, 3));
  if (last_extent(x) % attrs->groups)
    return shape_error("%lld groups do not divide the %lld channels of x; choose a divisor",
                       (long long)attrs->groups, (long long)last_extent(x));
  int64_t samples = x->shape.dim[0];
  if (cut_channels(x, samples).voxels * group_channels(attrs, x) < 2) {
    char have[96];
    return shape_error("x is %s: one number per group has no variance; use fewer groups or a "
                       "larger image",
                       shape_format(have, &x->shape));
  }
  rule->out[OUT_MEAN].shape = rule->out[OUT_RSTD].shape = SHAPE(samples, last_extent(x));
  return OK;
}

static status group_norm_grad(grad *rule) {
  int64_t channels = group_channels(rule->attrs, value_type(rule->b, rule->in[NORM_X]));
  return channel_norm_grad(rule, rule->out[OUT_MEAN], rule->out[OUT_RSTD], channels, false);
}

static status group_norm_cpu(const call *c) {
  return channel_norm_sample_cpu(c, group_channels(c->attrs, &c->in[NORM_X]), NULL);
}

static status of_moments_infer(infer *rule) {
  TRY(group_norm_infer(rule));
  return channel_norm_check_moments(rule, NORM_SAMPLE_MOMENTS);
}

static status of_moments_cpu(const call *c) {
  return channel_norm_sample_cpu(c, group_channels(c->attrs, &c->in[NORM_X]),
                                 c->in[NORM_SAMPLE_MOMENTS].data);
}

#define GROUP_NORM_OUTPUTS                                                                         \
  CHANNEL_NORM_OUTPUT, {"mean", "N C", DTYPE_F32, PORT_SAVED, "mean of each channel's group"}, {   \
    "rstd", "N C", DTYPE_F32, PORT_SAVED, "1 / √(variance + eps)"                                \
  }
static const attr group_norm_attr_list[] = {
    {"groups", ATTR_INT, offsetof(group_norm_attrs, groups), NULL, 1, 1e6, NULL, 0,
     "how many; divides the channels"},
    CHANNEL_NORM_ATTRS("true"),
    {0},
};

const op op_group_norm_of_moments = {
    .name = "group_norm_of_moments",
    .family = "norm",
    .summary = "group_norm by the moments that a convolution has left.",
    .version = 1,
    .traits = OP_INTERNAL | OP_CPU_ONLY | OP_IN_PLACE,
    .inputs = (const port[]){CHANNEL_NORM_INPUTS, CHANNEL_NORM_MOMENTS, {0}},
    .outputs = (const port[]){GROUP_NORM_OUTPUTS, {0}},
    .attrs = group_norm_attr_list,
    .attrs_bytes = sizeof(group_norm_attrs),
    .infer = of_moments_infer,
    .params = channel_norm_params,
    .cost = channel_norm_of_moments_cost,
    .cpu = of_moments_cpu,
};

const op op_group_norm = {
    .name = "group_norm",
    .family = "norm",
    .summary = "Normalizes groups of channels of each sample; residual and activation included.",
    .doc = "out = leaky(x̂ · weight + bias + residual) with x̂ = (x − mean) / √(variance + eps), "
           "mean and (biased) variance over the voxels of all C / groups neighbouring channels of "
           "a group, sample by sample (Wu and He, ECCV 2018, arXiv 1803.08494). With as many "
           "groups as channels it is instance_norm. A leaky_relu behind it, with or without an "
           "add in between, becomes part of it.",
    .torch = "torch.nn.functional.leaky_relu(torch.nn.functional.group_norm(x, groups, weight, "
             "bias, eps) + residual, slope)",
    .version = 2,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){CHANNEL_NORM_INPUTS, {0}},
    .outputs = (const port[]){GROUP_NORM_OUTPUTS, {0}},
    .attrs = group_norm_attr_list,
    .attrs_bytes = sizeof(group_norm_attrs),
    .infer = group_norm_infer,
    .params = channel_norm_params,
    .grad = group_norm_grad,
    .cost = channel_norm_cost,
    .workspace_bytes = channel_norm_sample_workspace,
    .cpu = group_norm_cpu,
    .of_moments = &op_group_norm_of_moments,
    /* The slope stays near 1 here: across the corner differences measure neither side. */
    .cases = (const op_case[]){{"{groups: 1}", "[1..2, 2..5, 2..5, 2..5, 1..9]; -", 0},
                               {"{groups: 4}", "[2, 3, 4, 5, 16|20]; -", 0},
                               {"{groups: 3, affine: false}", "[2, 30, 9|3]; -", 0},
                               {"{groups: 2}", "[1, 3, 2, 2, 520]; -", 0},
                               {"{groups: 2, slope: 0.95}",
                                "[n=1..2, x=2..5, y=2..5, 4, 6]; [n, x, y, 4, 6]", 0.02},
                               {0}},
};
