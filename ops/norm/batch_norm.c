/* batch_norm: each channel to mean 0 and variance 1 over the voxels of all samples (Ioffe and
 * Szegedy, ICML 2015, arXiv 1502.03167).
 *
 * What it does depends on the graph it is built in, so it is built from one of two operators:
 * batch_norm_training takes the statistics of the batch and lets the running ones follow them;
 * batch_norm_inference, in validation and inference, uses the running ones as they are. */
#include "ops/norm/channel_norm.h"

#include <math.h>

typedef struct batch_norm_attrs {
  channel_norm_attrs norm; /* first: shared rules read it */
  double momentum;
} batch_norm_attrs;

static const attr batch_norm_attr_list[] = {
    CHANNEL_NORM_ATTRS("true"),
    {"momentum", ATTR_FLOAT, offsetof(batch_norm_attrs, momentum), "0.1", 0, 1, NULL, 0,
     "weight of a batch in the running statistics"},
    {0},
};

enum { IN_MEAN = NORM_RESIDUAL + 1, IN_VARIANCE, IN_MOMENTS };
enum { TRAIN_Y, TRAIN_MEAN, TRAIN_RSTD };
enum { INFER_Y, INFER_RSTD };

#define BATCH_NORM_INPUTS                                                                          \
  CHANNEL_NORM_INPUTS,                                                                             \
      {"running_mean", "C", DTYPE_F32, PORT_PARAM | PORT_STATE, "mean that inference uses"}, {     \
    "running_var", "C", DTYPE_F32, PORT_PARAM | PORT_STATE, "variance that inference uses"         \
  }

static status batch_norm_params(const void *attrs, const tensor *in, int in_count,
                                param_spec *out) {
  TRY(channel_norm_params(attrs, in, in_count, out));
  out[2] = (param_spec){.shape = SHAPE(last_extent(&in[0])), .init = INIT_ZEROS};
  out[3] = (param_spec){.shape = SHAPE(last_extent(&in[0])), .init = INIT_ONES};
  return OK;
}

static status batch_norm_lower(lower *rule) {
  value_id out[3];
  const char *name = rule->b->g->training ? "batch_norm_training" : "batch_norm_inference";
  TRY(build_node(rule->b, name, rule->attrs, rule->in, rule->in_count, out));
  rule->out[0] = out[0];
  return OK;
}

static status check_running(const infer *rule) {
  for (int i = IN_MEAN; i <= IN_VARIANCE; i++)
    if (shape_elements(&rule->in[i].shape) != last_extent(&rule->in[NORM_X]))
      return shape_error("running statistics must have one element for each of the %lld channels",
                         (long long)last_extent(&rule->in[NORM_X]));
  return OK;
}

/* ---- training -------------------------------------------------------------------------------- */

static status training_infer(infer *rule) {
  const tensor *x = &rule->in[NORM_X];
  TRY(channel_norm_infer(rule, 2));
  TRY(check_running(rule));
  if (cut_channels(x, 1).voxels < 2) {
    char have[96];
    return shape_error("x is %s: one number per channel has no variance; use a larger batch or "
                       "image",
                       shape_format(have, &x->shape));
  }
  rule->out[TRAIN_MEAN].shape = rule->out[TRAIN_RSTD].shape = SHAPE(last_extent(x));
  return OK;
}

static status training_grad(grad *rule) {
  return channel_norm_grad(rule, rule->out[TRAIN_MEAN], rule->out[TRAIN_RSTD], 1, false);
}

/* The variance of each channel, then the partial sums. */
static size_t training_workspace(const void *attrs, const tensor *in, int in_count,
                                 const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)out, (void)threads;
  channel_cut cut = cut_channels(&in[NORM_X], 1);
  return (channel_norm_partials(&cut) + (size_t)cut.channels) * sizeof(float);
}

static void follow(const tensor *running, const float *batch, double momentum) {
  float *r = running->data;
  for (int64_t c = 0; c < shape_elements(&running->shape); c++)
    r[c] = (float)((1 - momentum) * (double)r[c] + momentum * (double)batch[c]);
}

static status of_moments_infer(infer *rule) {
  TRY(training_infer(rule));
  return channel_norm_check_moments(rule, IN_MOMENTS);
}

/* The variance of each channel. */
static size_t of_moments_workspace(const void *attrs, const tensor *in, int in_count,
                                   const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)out, (void)threads;
  return (size_t)last_extent(&in[NORM_X]) * sizeof(float);
}

static void run_training(const call *c, const float *moments) {
  const batch_norm_attrs *attrs = c->attrs;
  float *mean = c->out[TRAIN_MEAN].data, *rstd = c->out[TRAIN_RSTD].data, *variance = c->workspace;
  channel_norm n = {.call = c,
                    .cut = cut_channels(&c->in[NORM_X], 1),
                    .together = 1,
                    .eps = attrs->norm.eps,
                    .slope = (float)attrs->norm.slope,
                    .mean = mean,
                    .rstd = rstd,
                    .moments = moments};
  n.partials = moments ? NULL : variance + n.cut.channels;
  channel_norm_statistics(&n, mean, rstd, variance);
  channel_norm_apply(&n);
  follow(&c->in[IN_MEAN], mean, attrs->momentum);
  follow(&c->in[IN_VARIANCE], variance, attrs->momentum);
}

static status training_cpu(const call *c) {
  run_training(c, NULL);
  return OK;
}

static status of_moments_cpu(const call *c) {
  run_training(c, c->in[IN_MOMENTS].data);
  return OK;
}

/* ---- inference ------------------------------------------------------------------------------- */

static status inference_infer(infer *rule) {
  TRY(channel_norm_infer(rule, 2));
  TRY(check_running(rule));
  rule->out[INFER_RSTD].shape = SHAPE(last_extent(&rule->in[NORM_X]));
  return OK;
}

static status inference_grad(grad *rule) {
  return channel_norm_grad(rule, rule->in[IN_MEAN], rule->out[INFER_RSTD], 1, true);
}

static status inference_cpu(const call *c) {
  const batch_norm_attrs *attrs = c->attrs;
  const float *variance = c->in[IN_VARIANCE].data;
  float *rstd = c->out[INFER_RSTD].data;
  channel_norm n = {.call = c,
                    .cut = cut_channels(&c->in[NORM_X], 1),
                    .together = 1,
                    .slope = (float)attrs->norm.slope,
                    .mean = c->in[IN_MEAN].data,
                    .rstd = rstd};
  for (int64_t k = 0; k < n.cut.channels; k++)
    rstd[k] = (float)(1.0 / sqrt((double)variance[k] + attrs->norm.eps));
  channel_norm_apply(&n);
  return OK;
}

const op op_batch_norm = {
    .name = "batch_norm",
    .family = "norm",
    .summary = "Normalizes each channel over all samples; running statistics, residual and "
               "activation included.",
    .doc = "out = leaky(x̂ · weight + bias + residual) with x̂ = (x − mean) / √(variance + eps) "
           "(Ioffe and Szegedy, ICML 2015, arXiv 1502.03167). While training, mean and (biased) "
           "variance are those of the batch, over samples and voxels, and every step moves\n"
           "    running_mean ← (1 − momentum) · running_mean + momentum · mean\n"
           "and running_var likewise, with the unbiased variance. Validation and inference use the "
           "running ones. They are saved, transferred and resumed as parameters are. PyTorch's "
           "counter `num_batches_tracked`, which has no effect at a fixed momentum, is not kept; "
           "PyTorch's `load_state_dict` accepts a plain dictionary without it. A leaky_relu behind "
           "it, with or without an add in between, becomes part of it.",
    .torch = "torch.nn.functional.leaky_relu(torch.nn.functional.batch_norm(x, running_mean, "
             "running_var, weight, bias, training, momentum, eps) + residual, slope)",
    .version = 2,
    .inputs = (const port[]){BATCH_NORM_INPUTS, {0}},
    .outputs = (const port[]){CHANNEL_NORM_OUTPUT, {0}},
    .attrs = batch_norm_attr_list,
    .attrs_bytes = sizeof(batch_norm_attrs),
    .params = batch_norm_params,
    .lower = batch_norm_lower,
    /* The slope stays near 1 here: across the corner differences measure neither side. */
    .cases = (const op_case[]){{"{affine: false}", "[1..3, 2..5, 2..5, 2..5, 1..9]; -", 0},
                               {"{momentum: 0.7}", "[2, 3, 4, 5, 16|20]; -", 0},
                               {"{}", "[7, 1..3]; -", 0},
                               {"{}", "[3, 1, 2, 2, 260]; -", 0},
                               {"{slope: 0.95}", "[3, 9, 4, 3, 1|3]; -", 0.02},
                               {"{slope: 0.95}", "[n=1..2, x=2..5, y=2..5, 4, 6]; [n, x, y, 4, 6]",
                                0.02},
                               {0}},
};

#define TRAINING_OUTPUTS                                                                           \
  CHANNEL_NORM_OUTPUT, {"mean", "C", DTYPE_F32, PORT_SAVED, "mean of each channel"}, {             \
    "rstd", "C", DTYPE_F32, PORT_SAVED, "1 / √(variance + eps)"                                  \
  }

const op op_batch_norm_of_moments = {
    .name = "batch_norm_of_moments",
    .family = "norm",
    .summary = "batch_norm_training by the moments that a convolution has left.",
    .version = 1,
    .traits = OP_INTERNAL | OP_CPU_ONLY | OP_IN_PLACE,
    .inputs = (const port[]){BATCH_NORM_INPUTS, CHANNEL_NORM_MOMENTS, {0}},
    .outputs = (const port[]){TRAINING_OUTPUTS, {0}},
    .attrs = batch_norm_attr_list,
    .attrs_bytes = sizeof(batch_norm_attrs),
    .infer = of_moments_infer,
    .params = batch_norm_params,
    .cost = channel_norm_of_moments_cost,
    .workspace_bytes = of_moments_workspace,
    .cpu = of_moments_cpu,
};

const op op_batch_norm_training = {
    .name = "batch_norm_training",
    .family = "norm",
    .summary = "batch_norm by the statistics of the batch, which the running ones follow.",
    .version = 2,
    .traits = OP_INTERNAL | OP_IN_PLACE,
    .inputs = (const port[]){BATCH_NORM_INPUTS, {0}},
    .outputs = (const port[]){TRAINING_OUTPUTS, {0}},
    .attrs = batch_norm_attr_list,
    .attrs_bytes = sizeof(batch_norm_attrs),
    .infer = training_infer,
    .params = batch_norm_params,
    .grad = training_grad,
    .cost = channel_norm_cost,
    .workspace_bytes = training_workspace,
    .cpu = training_cpu,
    .of_moments = &op_batch_norm_of_moments,
};

const op op_batch_norm_inference = {
    .name = "batch_norm_inference",
    .family = "norm",
    .summary = "batch_norm by the running statistics.",
    .version = 1,
    .traits = OP_INTERNAL | OP_IN_PLACE,
    .inputs = (const port[]){BATCH_NORM_INPUTS, {0}},
    .outputs = (const port[]){CHANNEL_NORM_OUTPUT,
                              {"rstd", "C", DTYPE_F32, PORT_SAVED, "1 / √(variance + eps)"},
                              {0}},
    .attrs = batch_norm_attr_list,
    .attrs_bytes = sizeof(batch_norm_attrs),
    .infer = inference_infer,
    .params = batch_norm_params,
    .grad = inference_grad,
    .cost = channel_norm_cost,
    .cpu = inference_cpu,
};
