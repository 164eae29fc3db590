/* conv_transpose3d: the transposed (fractionally strided) convolution, torch.nn.ConvTranspose3d:
 * the adjoint of conv3d with the same weight, so it runs on conv3d's data-gradient kernel and its
 * own gradient is a conv3d. With the stride as long as the filter (k2s2) it is a matrix product
 * whose columns are the voxels one input voxel makes. */
#include "ops/conv/conv_attrs.h"
#include "ops/kernels/convolution.h"

#include "graph/graph.h"

#include <string.h>

typedef struct conv_transpose3d_attrs {
  int64_t features;
  int64_t kernel[3], stride[3], padding[3], output_padding[3], dilation[3];
  int64_t groups;
  bool bias;
  int precision;
  weight_init_attrs init;
  bool packed; /* the weight is (op_packing) */
} conv_transpose3d_attrs;

static const attr conv_transpose3d_attr_list[] = {
    {"features", ATTR_INT, offsetof(conv_transpose3d_attrs, features), NULL, 1, 1 << 16, NULL, 0,
     "channels of the result"},
    {"kernel", ATTR_INT3, offsetof(conv_transpose3d_attrs, kernel), NULL, 1, CONV_MAX_KERNEL, NULL,
     0, "extent of the filter in voxels"},
    {"stride", ATTR_INT3, offsetof(conv_transpose3d_attrs, stride), "1", 1, 64, NULL, 0,
     "voxels of the result from one input voxel to the next"},
    {"padding", ATTR_INT3, offsetof(conv_transpose3d_attrs, padding), "0", 0, 1024, NULL, 0,
     "voxels cut off each end of the result"},
    {"output_padding", ATTR_INT3, offsetof(conv_transpose3d_attrs, output_padding), "0", 0, 63,
     NULL, 0, "voxels added to the far end of the result; less than the stride"},
    {"dilation", ATTR_INT3, offsetof(conv_transpose3d_attrs, dilation), "1", 1, 64, NULL, 0,
     "voxels from one tap of the filter to the next"},
    {"groups", ATTR_INT, offsetof(conv_transpose3d_attrs, groups), "1", 1, 1 << 16, NULL, 0,
     "parts the channels are split into; each part of the result sees one part of the input"},
    {"bias", ATTR_BOOL, offsetof(conv_transpose3d_attrs, bias), "false", 0, 0, NULL, 0,
     "add a learned number to each channel of the result"},
    PRECISION_ATTR(conv_transpose3d_attrs, precision),
    WEIGHT_INIT_ATTRS(conv_transpose3d_attrs, init),
    {0},
};

enum { IN_X, IN_WEIGHT, IN_BIAS };

/* The convolution this is the adjoint of: its image is the result, its `out` this input. */
static conv_shape adjoint_shape(const conv_transpose3d_attrs *attrs, const shape *x) {
  conv_shape s = {.batch = x->dim[0],
                  .channels = attrs->features,
                  .features = x->dim[4],
                  .groups = attrs->groups,
                  .bf16 = attrs->precision == PRECISION_BF16,
                  .packed = attrs->packed};
  for (int a = 0; a < 3; a++) {
    s.out[a] = x->dim[1 + a];
    s.kernel[a] = attrs->kernel[a];
    s.stride[a] = attrs->stride[a];
    s.padding[a] = attrs->padding[a];
    s.dilation[a] = attrs->dilation[a];
    s.image[a] = (s.out[a] - 1) * s.stride[a] - 2 * s.padding[a] +
                 s.dilation[a] * (s.kernel[a] - 1) + attrs->output_padding[a] + 1;
  }
  return s;
}

static status check_channels(const conv_transpose3d_attrs *attrs, const shape *x) {
  char have[96];
  if (x->rank != 5)
    return shape_error("x must be a volume (N × X × Y × Z × C), but is %s", shape_format(have, x));
  if (x->dim[4] % attrs->groups || attrs->features % attrs->groups)
    return shape_error("%lld groups do not divide the %lld channels and %lld features",
                       (long long)attrs->groups, (long long)x->dim[4], (long long)attrs->features);
  return OK;
}

static shape weight_shape(const conv_shape *s) {
  return SHAPE(s->features, s->channels / s->groups, s->kernel[0], s->kernel[1], s->kernel[2]);
}

static status conv_transpose3d_infer(infer *rule) {
  const conv_transpose3d_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[IN_X].shape, *weight = &rule->in[IN_WEIGHT].shape;
  const shape *bias = &rule->in[IN_BIAS].shape;
  TRY(check_channels(attrs, x));
  conv_shape s = adjoint_shape(attrs, x);
  char have[96], want[96];
  for (int a = 0; a < 3; a++) {
    if (attrs->output_padding[a] >= attrs->stride[a])
      return shape_error("output_padding %lld along %c must be less than the stride %lld",
                         (long long)attrs->output_padding[a], "xyz"[a],
                         (long long)attrs -> stride[a]);
    if (s.image[a] < 1)
      return shape_error("padding %lld leaves nothing of the result along %c; use less padding",
                         (long long)attrs->padding[a], "xyz"[a]);
  }
  shape expected = weight_shape(&s);
  if (!shape_equal(weight, &expected))
    return shape_error("the weight must be channels × features / groups × kernel, %s, but is %s",
                       shape_format(want, &expected), shape_format(have, weight));
  if (bias->rank >= 0 && (bias->rank != 1 || bias->dim[0] != attrs->features))
    return shape_error("the bias must have one element for each of the %lld features, but is %s",
                       (long long)attrs->features, shape_format(have, bias));
  rule->out[0].shape = SHAPE(s.batch, s.image[0], s.image[1], s.image[2], s.channels);
  return OK;
}

static status conv_transpose3d_params(const void *attributes, const tensor *in, int in_count,
                                      param_spec *out) {
  (void)in_count;
  const conv_transpose3d_attrs *attrs = attributes;
  TRY(check_channels(attrs, &in[IN_X].shape));
  conv_shape s = adjoint_shape(attrs, &in[IN_X].shape);
  weight_init(&attrs->init, weight_shape(&s),
              attrs->bias ? SHAPE(attrs->features) : (shape){.rank = -1}, out);
  return OK;
}

/* The adjoint of the adjoint: the data gradient is conv3d of dy with the same weight. */
static status build_conv3d(builder *b, const conv_backward_attrs *back, int64_t channels,
                           value_id dy, value_id weight, value_id *dx) {
  conv3d_attrs attrs;
  op_defaults(op_find("conv3d"), &attrs);
  attrs.features = channels;
  attrs.groups = back->groups;
  attrs.precision = back->precision;
  attrs.bias = false;
  memcpy(attrs.kernel, back->extent, sizeof attrs.kernel);
  memcpy(attrs.stride, back->stride, sizeof attrs.stride);
  memcpy(attrs.padding, back->padding, sizeof attrs.padding);
  memcpy(attrs.dilation, back->dilation, sizeof attrs.dilation);
  return build_node(b, "conv3d", &attrs, (value_id[]){dy, weight, VALUE_NONE}, 3, dx);
}

static status conv_transpose3d_grad(grad *rule) {
  const conv_transpose3d_attrs *attrs = rule->attrs;
  const tensor *x = value_type(rule->b, rule->in[IN_X]);
  value_id dy = rule->dy[0], in[] = {dy, rule->in[IN_X]};
  conv_backward_attrs back = {.groups = attrs->groups, .precision = attrs->precision};
  memcpy(back.extent, attrs->kernel, sizeof back.extent);
  memcpy(back.stride, attrs->stride, sizeof back.stride);
  memcpy(back.padding, attrs->padding, sizeof back.padding);
  memcpy(back.dilation, attrs->dilation, sizeof back.dilation);
  if (rule->wanted[IN_X])
    TRY(build_conv3d(rule->b, &back, x->shape.dim[4], dy, rule->in[IN_WEIGHT], &rule->dx[IN_X]));
  if (rule->wanted[IN_WEIGHT]) {
    value_id out[2];
    TRY(build_node(rule->b, "conv3d_backward_weight", &back, in, 2, out));
    rule->dx[IN_WEIGHT] = out[0];
  }
  if (rule->in[IN_BIAS] != VALUE_NONE && rule->wanted[IN_BIAS])
    TRY(build_node(rule->b, "conv_transpose3d_backward_bias", NULL, &dy, 1, &rule->dx[IN_BIAS]));
  return OK;
}

static cost conv_transpose3d_cost(const void *attrs, const tensor *in, int in_count,
                                  const tensor *out) {
  (void)in_count, (void)out;
  conv_shape s = adjoint_shape(attrs, &in[IN_X].shape);
  return (cost){.flops = conv_flops(&s)};
}

static size_t conv_transpose3d_workspace(const void *attrs, const tensor *in, int in_count,
                                         const tensor *out, int threads) {
  (void)in_count, (void)out, (void)threads;
  conv_shape s = adjoint_shape(attrs, &in[IN_X].shape);
  return conv_backward_data_workspace(&s);
}

static status conv_transpose3d_cpu(const call *c) {
  conv_shape s = adjoint_shape(c->attrs, &c->in[IN_X].shape);
  conv_backward_data(&s, c->in[IN_X].data, c->in[IN_WEIGHT].data, c->in[IN_BIAS].data,
                     c->out[0].data, c->workspace, c->pool);
  return OK;
}

static size_t conv_transpose3d_packed_bytes(const void *attrs, const tensor *in, int in_count,
                                            const tensor *out) {
  (void)in_count, (void)out;
  conv_shape s = adjoint_shape(attrs, &in[IN_X].shape);
  return conv_packed_bytes(&s, true);
}

static void conv_transpose3d_pack(const call *c, void *to) {
  conv_shape s = adjoint_shape(c->attrs, &c->in[IN_X].shape);
  conv_pack(&s, true, c->in[IN_WEIGHT].data, to, c->pool);
}

static const op_packing conv_transpose3d_packing = {.input = IN_WEIGHT,
                                                    .flag =
                                                        offsetof(conv_transpose3d_attrs, packed),
                                                    .bytes = conv_transpose3d_packed_bytes,
                                                    .pack = conv_transpose3d_pack};

/* ---- gradient of the bias -------------------------------------------------------------------- */

enum { BIAS_PARTS = 16 };

static status backward_bias_infer(infer *rule) {
  const shape *dy = &rule->in[0].shape;
  char have[96];
  if (dy->rank != 5)
    return shape_error("dy must be a volume (N × X × Y × Z × C), but is %s",
                       shape_format(have, dy));
  rule->out[0].shape = SHAPE(dy->dim[4]);
  return OK;
}

static size_t backward_bias_workspace(const void *attrs, const tensor *in, int in_count,
                                      const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)out, (void)threads;
  return (size_t)(BIAS_PARTS * in[0].shape.dim[4]) * sizeof(float);
}

static void backward_bias_task(void *context, int64_t task) {
  const call *c = context;
  int64_t channels = c->in[0].shape.dim[4], voxels = shape_elements(&c->in[0].shape) / channels;
  const float *dy = c->in[0].data;
  float *sum = (float *)c->workspace + task * channels;
  memset(sum, 0, (size_t)channels * sizeof(float));
  for (int64_t v = voxels * task / BIAS_PARTS; v < voxels * (task + 1) / BIAS_PARTS; v++)
    for (int64_t i = 0; i < channels; i++) sum[i] += dy[v * channels + i];
}

static status backward_bias_cpu(const call *c) {
  int64_t channels = c->in[0].shape.dim[4];
  parallel_for(c->pool, BIAS_PARTS, backward_bias_task, (void *)c);
  float *bias = c->out[0].data;
  const float *parts = c->workspace;
  for (int64_t i = 0; i < channels; i++) {
    bias[i] = 0;
    for (int part = 0; part < BIAS_PARTS; part++) bias[i] += parts[part * channels + i];
  }
  return OK;
}

const op op_conv_transpose3d = {
    .name = "conv_transpose3d",
    .family = "conv",
    .summary = "Transposed convolution: learned enlargement of a feature map.",
    .doc = "Every input voxel adds its filter, scaled, to the result: out[n, i · stride + k · "
           "dilation − padding, f] += x[n, i, c] · weight[c, f, k]. Along each axis the result has "
           "(extent − 1) · stride − 2 · padding + dilation · (kernel − 1) + output_padding + 1 "
           "voxels; kernel 2 with stride 2 doubles the extent.",
    .torch =
        "torch.nn.functional.conv_transpose3d(x, weight, bias, stride=stride, padding=padding, "
        "output_padding=output_padding, groups=groups, dilation=dilation)",
    .version = 3,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, PORT_ROUNDED, "feature map"},
                             {"weight", "C features/groups kx ky kz", DTYPE_F32, PORT_PARAM,
                              "one filter for each channel"},
                             {"bias", "features", DTYPE_F32, PORT_PARAM | PORT_OPTIONAL,
                              "added to every voxel"},
                             {0}},
    .outputs =
        (const port[]){{"out", "N X Y Z features", DTYPE_F32, 0, "enlarged feature map"}, {0}},
    .attrs = conv_transpose3d_attr_list,
    .attrs_bytes = sizeof(conv_transpose3d_attrs),
    .infer = conv_transpose3d_infer,
    .params = conv_transpose3d_params,
    .grad = conv_transpose3d_grad,
    .cost = conv_transpose3d_cost,
    .workspace_bytes = conv_transpose3d_workspace,
    .cpu = conv_transpose3d_cpu,
    .packing = &conv_transpose3d_packing,
    .cases =
        (const op_case[]){
            {"{features: 1|3|5|17, kernel: 2, stride: 2}", "[1..2, 1..4, 1..4, 1..6, 1|3|16]", 0},
            {"{features: 3, kernel: [1, 2, 3], stride: [1, 2, 3], bias: true}",
             "[2, 1..3, 2..3, 1..3, 4]", 0},
            {"{features: 3, kernel: 3, stride: 2, padding: 1, output_padding: 1, bias: true}",
             "[1..2, 2..4, 2..4, 2..5, 2..5]", 0},
            {"{features: 4, kernel: [2, 3, 4], stride: [1, 2, 3], groups: 2}",
             "[1, 2..3, 2..3, 2..4, 4]", 0},
            {"{features: c=2|3|17|36, groups: c, kernel: [3, 2, 2], stride: 2, bias: true}",
             "[1..2, 2..3, 1..3, 2..4, c]", 0},
            {"{features: 2, kernel: 2, stride: 3, bias: true}", "[1, 2..3, 2..3, 2..3, 3]", 0},
            {0}},
};

const op op_conv_transpose3d_backward_bias = {
    .name = "conv_transpose3d_backward_bias",
    .family = "conv",
    .summary = "Gradient of conv_transpose3d's bias.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"dy", "N X Y Z C", DTYPE_F32, 0, "gradient of the result"}, {0}},
    .outputs = (const port[]){{"dbias", "C", DTYPE_F32, 0, "gradient of bias"}, {0}},
    .infer = backward_bias_infer,
    .workspace_bytes = backward_bias_workspace,
    .cpu = backward_bias_cpu,
};
