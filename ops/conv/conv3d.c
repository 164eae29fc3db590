/* conv3d: three-dimensional convolution (cross-correlation) with zero padding, torch.nn.Conv3d on
 * channels-last volumes. The kernels are in ops/kernels/convolution*.c. */
#include "ops/conv/conv_attrs.h"
#include "ops/kernels/convolution.h"

#include "graph/graph.h"

#include <string.h>

static const attr conv3d_attr_list[] = {
    {"features", ATTR_INT, offsetof(conv3d_attrs, features), NULL, 1, 1 << 16, NULL, 0,
     "channels of the result"},
    {"kernel", ATTR_INT3, offsetof(conv3d_attrs, kernel), NULL, 1, CONV_MAX_KERNEL, NULL, 0,
     "extent of the filter in voxels"},
    {"stride", ATTR_INT3, offsetof(conv3d_attrs, stride), "1", 1, 64, NULL, 0,
     "voxels from one place of the filter to the next"},
    {"padding", ATTR_INT3, offsetof(conv3d_attrs, padding), "-1", -1, 1024, NULL, 0,
     "zeros before and after the volume, in voxels; −1 is dilation · (kernel − 1) / 2, which keeps "
     "the extent at stride 1 with an odd kernel"},
    {"dilation", ATTR_INT3, offsetof(conv3d_attrs, dilation), "1", 1, 64, NULL, 0,
     "voxels from one tap of the filter to the next"},
    {"groups", ATTR_INT, offsetof(conv3d_attrs, groups), "1", 1, 1 << 16, NULL, 0,
     "parts the channels are split into; each part of the result sees one part of the input"},
    {"bias", ATTR_BOOL, offsetof(conv3d_attrs, bias), "true", 0, 0, NULL, 0,
     "add a learned number to each channel of the result"},
    PRECISION_ATTR(conv3d_attrs, precision),
    WEIGHT_INIT_ATTRS(conv3d_attrs, init),
    {0},
};

static const attr backward_data_attr_list[] = {
    {"image", ATTR_INT3, offsetof(conv_backward_attrs, extent), NULL, 1, 1 << 20, NULL, 0,
     "extent of conv3d's input in voxels"},
    CONV_BACKWARD_ATTRS,
    {0},
};

static const attr backward_weight_attr_list[] = {
    {"kernel", ATTR_INT3, offsetof(conv_backward_attrs, extent), NULL, 1, CONV_MAX_KERNEL, NULL, 0,
     "extent of the filter in voxels"},
    CONV_BACKWARD_ATTRS,
    {"bias", ATTR_BOOL, offsetof(conv_backward_attrs, bias), "true", 0, 0, NULL, 0,
     "compute the gradient of the bias"},
    {0},
};

enum { IN_X, IN_WEIGHT, IN_BIAS };
enum { OUT_Y, OUT_MOMENTS };
enum { BACK_DY, BACK_WEIGHT };
enum { WEIGHT_X, WEIGHT_DY };
enum { OUT_DWEIGHT, OUT_DBIAS };

static int64_t resolved_padding(const conv3d_attrs *attrs, int axis) {
  return attrs->padding[axis] >= 0 ? attrs->padding[axis]
                                   : attrs->dilation[axis] * (attrs->kernel[axis] - 1) / 2;
}

static conv_shape forward_shape(const conv3d_attrs *attrs, const tensor *x) {
  conv_shape s = {.batch = x->shape.dim[0],
                  .channels = x->shape.dim[4],
                  .features = attrs->features,
                  .groups = attrs->groups,
                  .bf16 = attrs->precision == PRECISION_BF16,
                  .packed = attrs->packed};
  for (int a = 0; a < 3; a++) {
    s.image[a] = x->shape.dim[1 + a];
    s.kernel[a] = attrs->kernel[a];
    s.stride[a] = attrs->stride[a];
    s.padding[a] = resolved_padding(attrs, a);
    s.dilation[a] = attrs->dilation[a];
    int64_t spare = s.image[a] + 2 * s.padding[a] - s.dilation[a] * (s.kernel[a] - 1) - 1;
    s.out[a] = spare < 0 ? 0 : spare / s.stride[a] + 1;
  }
  return s;
}

static status check_channels(const conv3d_attrs *attrs, const shape *x) {
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

static status conv3d_infer(infer *rule) {
  const conv3d_attrs *attrs = rule->attrs;
  const shape *weight = &rule->in[IN_WEIGHT].shape, *bias = &rule->in[IN_BIAS].shape;
  TRY(check_channels(attrs, &rule->in[IN_X].shape));
  conv_shape s = forward_shape(attrs, &rule->in[IN_X]);
  char have[96], want[96];
  for (int a = 0; a < 3; a++)
    if (s.out[a] < 1)
      return shape_error("the filter spans %lld voxels along %c, more than the image's %lld with "
                         "padding %lld; use a smaller kernel or more padding",
                         (long long)(s.dilation[a] * (s.kernel[a] - 1) + 1), "xyz"[a],
                         (long long)s.image[a], (long long)s.padding[a]);
  shape expected = weight_shape(&s);
  if (!shape_equal(weight, &expected))
    return shape_error("the weight must be features × channels / groups × kernel, %s, but is %s",
                       shape_format(want, &expected), shape_format(have, weight));
  if (bias->rank >= 0 && (bias->rank != 1 || bias->dim[0] != s.features))
    return shape_error("the bias must have one element for each of the %lld features, but is %s",
                       (long long)s.features, shape_format(have, bias));
  rule->out[0].shape = SHAPE(s.batch, s.out[0], s.out[1], s.out[2], s.features);
  return OK;
}

static status conv3d_params(const void *attributes, const tensor *in, int in_count,
                            param_spec *out) {
  (void)in_count;
  const conv3d_attrs *attrs = attributes;
  TRY(check_channels(attrs, &in[IN_X].shape));
  conv_shape s = forward_shape(attrs, &in[IN_X]);
  weight_init(&attrs->init, weight_shape(&s), attrs->bias ? SHAPE(s.features) : (shape){.rank = -1},
              out);
  return OK;
}

static status conv3d_grad(grad *rule) {
  const conv3d_attrs *attrs = rule->attrs;
  const tensor *x = value_type(rule->b, rule->in[IN_X]);
  value_id dy = rule->dy[0];
  conv_backward_attrs back = {.groups = attrs->groups, .precision = attrs->precision};
  for (int a = 0; a < 3; a++) {
    back.extent[a] = x->shape.dim[1 + a];
    back.stride[a] = attrs->stride[a];
    back.padding[a] = resolved_padding(attrs, a);
    back.dilation[a] = attrs->dilation[a];
  }
  if (rule->wanted[IN_X])
    TRY(build_node(rule->b, "conv3d_backward_data", &back, (value_id[]){dy, rule->in[IN_WEIGHT]}, 2,
                   &rule->dx[IN_X]));
  bool bias = rule->in[IN_BIAS] != VALUE_NONE && rule->wanted[IN_BIAS];
  if (!rule->wanted[IN_WEIGHT] && !bias) return OK;
  memcpy(back.extent, attrs->kernel, sizeof back.extent);
  back.bias = bias;
  value_id out[2];
  TRY(build_node(rule->b, "conv3d_backward_weight", &back, (value_id[]){rule->in[IN_X], dy}, 2,
                 out));
  if (rule->wanted[IN_WEIGHT]) rule->dx[IN_WEIGHT] = out[OUT_DWEIGHT];
  if (bias) rule->dx[IN_BIAS] = out[OUT_DBIAS];
  return OK;
}

static cost conv3d_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)in_count, (void)out;
  conv_shape s = forward_shape(attrs, &in[IN_X]);
  return (cost){.flops = conv_flops(&s)};
}

static size_t conv3d_workspace(const void *attrs, const tensor *in, int in_count, const tensor *out,
                               int threads) {
  (void)in_count, (void)out, (void)threads;
  conv_shape s = forward_shape(attrs, &in[IN_X]);
  return conv_forward_workspace(&s);
}

static size_t with_moments_workspace(const void *attrs, const tensor *in, int in_count,
                                     const tensor *out, int threads) {
  (void)in_count, (void)out, (void)threads;
  conv_shape s = forward_shape(attrs, &in[IN_X]);
  s.moments = true;
  return conv_forward_workspace(&s);
}

static bool conv3d_by_plane(const void *attributes) {
  const conv3d_attrs *attrs = attributes;
  return attrs->kernel[0] == 1 && attrs->stride[0] == 1 && resolved_padding(attrs, 0) == 0;
}

static void run_forward(const call *c, float *moments) {
  conv_shape s = forward_shape(c->attrs, &c->in[IN_X]);
  s.moments = moments != NULL;
  conv_forward(&s, c->in[IN_X].data, c->in[IN_WEIGHT].data, c->in[IN_BIAS].data, c->out[OUT_Y].data,
               moments, c->workspace, c->pool);
}

static status conv3d_cpu(const call *c) {
  run_forward(c, NULL);
  return OK;
}

static status with_moments_cpu(const call *c) {
  run_forward(c, c->out[OUT_MOMENTS].data);
  return OK;
}

static status with_moments_infer(infer *rule) {
  TRY(conv3d_infer(rule));
  const shape *y = &rule->out[OUT_Y].shape;
  rule->out[OUT_MOMENTS].shape = SHAPE(y->dim[0], 2, y->dim[4]);
  return OK;
}

static size_t conv3d_packed_bytes(const void *attrs, const tensor *in, int in_count,
                                  const tensor *out) {
  (void)in_count, (void)out;
  conv_shape s = forward_shape(attrs, &in[IN_X]);
  return conv_packed_bytes(&s, false);
}

static void conv3d_pack(const call *c, void *to) {
  conv_shape s = forward_shape(c->attrs, &c->in[IN_X]);
  conv_pack(&s, false, c->in[IN_WEIGHT].data, to, c->pool);
}

static const op_packing conv3d_packing = {.input = IN_WEIGHT,
                                          .flag = offsetof(conv3d_attrs, packed),
                                          .bytes = conv3d_packed_bytes,
                                          .pack = conv3d_pack};

static bool moments_fit(const void *attrs, const tensor *in) {
  conv_shape s = forward_shape(attrs, &in[IN_X]);
  return conv_makes_moments(&s);
}

/* ---- gradients ------------------------------------------------------------------------------ */

static conv_shape backward_data_shape(const conv_backward_attrs *attrs, const shape *dy,
                                      const shape *weight) {
  conv_shape s = conv_backward_shape(attrs);
  s.batch = dy->dim[0];
  s.channels = weight->dim[1] * attrs->groups;
  s.features = weight->dim[0];
  for (int a = 0; a < 3; a++) {
    s.image[a] = attrs->extent[a];
    s.out[a] = dy->dim[1 + a];
    s.kernel[a] = weight->dim[2 + a];
  }
  return s;
}

static status backward_data_infer(infer *rule) {
  const shape *dy = &rule->in[BACK_DY].shape, *weight = &rule->in[BACK_WEIGHT].shape;
  char a[96], b[96];
  if (dy->rank != 5 || weight->rank != 5 || dy->dim[4] != weight->dim[0])
    return shape_error("dy %s does not fit the weight %s", shape_format(a, dy),
                       shape_format(b, weight));
  conv_shape s = backward_data_shape(rule->attrs, dy, weight);
  rule->out[0].shape = SHAPE(s.batch, s.image[0], s.image[1], s.image[2], s.channels);
  return OK;
}

static cost backward_data_cost(const void *attrs, const tensor *in, int in_count,
                               const tensor *out) {
  (void)in_count, (void)out;
  conv_shape s = backward_data_shape(attrs, &in[BACK_DY].shape, &in[BACK_WEIGHT].shape);
  return (cost){.flops = conv_flops(&s)};
}

static size_t backward_data_workspace(const void *attrs, const tensor *in, int in_count,
                                      const tensor *out, int threads) {
  (void)in_count, (void)out, (void)threads;
  conv_shape s = backward_data_shape(attrs, &in[BACK_DY].shape, &in[BACK_WEIGHT].shape);
  return conv_backward_data_workspace(&s);
}

static status backward_data_cpu(const call *c) {
  conv_shape s = backward_data_shape(c->attrs, &c->in[BACK_DY].shape, &c->in[BACK_WEIGHT].shape);
  conv_backward_data(&s, c->in[BACK_DY].data, c->in[BACK_WEIGHT].data, NULL, c->out[0].data,
                     c->workspace, c->pool);
  return OK;
}

static conv_shape backward_weight_shape(const conv_backward_attrs *attrs, const shape *x,
                                        const shape *dy) {
  conv_shape s = conv_backward_shape(attrs);
  s.batch = x->dim[0];
  s.channels = x->dim[4];
  s.features = dy->dim[4];
  for (int a = 0; a < 3; a++) {
    s.image[a] = x->dim[1 + a];
    s.out[a] = dy->dim[1 + a];
    s.kernel[a] = attrs->extent[a];
  }
  return s;
}

static status backward_weight_infer(infer *rule) {
  const conv_backward_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[WEIGHT_X].shape, *dy = &rule->in[WEIGHT_DY].shape;
  char a[96], b[96];
  if (x->rank != 5 || dy->rank != 5 || x->dim[0] != dy->dim[0] || x->dim[4] % attrs->groups ||
      dy->dim[4] % attrs->groups)
    return shape_error("x %s does not fit dy %s", shape_format(a, x), shape_format(b, dy));
  conv_shape s = backward_weight_shape(attrs, x, dy);
  rule->out[OUT_DWEIGHT].shape = weight_shape(&s);
  rule->out[OUT_DBIAS].shape = SHAPE(s.features);
  return OK;
}

static cost backward_weight_cost(const void *attrs, const tensor *in, int in_count,
                                 const tensor *out) {
  (void)in_count, (void)out;
  conv_shape s = backward_weight_shape(attrs, &in[WEIGHT_X].shape, &in[WEIGHT_DY].shape);
  return (cost){.flops = conv_flops(&s)};
}

static size_t backward_weight_workspace(const void *attrs, const tensor *in, int in_count,
                                        const tensor *out, int threads) {
  (void)in_count, (void)out, (void)threads;
  conv_shape s = backward_weight_shape(attrs, &in[WEIGHT_X].shape, &in[WEIGHT_DY].shape);
  return conv_backward_weight_workspace(&s);
}

static status backward_weight_cpu(const call *c) {
  const conv_backward_attrs *attrs = c->attrs;
  conv_shape s = backward_weight_shape(attrs, &c->in[WEIGHT_X].shape, &c->in[WEIGHT_DY].shape);
  conv_backward_weight(&s, c->in[WEIGHT_X].data, c->in[WEIGHT_DY].data, c->out[OUT_DWEIGHT].data,
                       attrs->bias ? c->out[OUT_DBIAS].data : NULL, c->workspace, c->pool);
  return OK;
}

/* The bias's gradient adds dy up as it is. */
static bool backward_weight_reads_exactly(const void *attrs, const tensor *in, int in_count,
                                          int input) {
  (void)in, (void)in_count;
  return input == WEIGHT_DY && ((const conv_backward_attrs *)attrs)->bias;
}

#define CONV3D_INPUTS                                                                              \
  {"x", "N X Y Z C", DTYPE_F32, PORT_ROUNDED, "feature map"},                                      \
      {"weight", "features C/groups kx ky kz", DTYPE_F32, PORT_PARAM,                              \
       "one filter for each feature"},                                                             \
  {                                                                                                \
    "bias", "features", DTYPE_F32, PORT_PARAM | PORT_OPTIONAL, "added to every voxel"              \
  }
#define CONV3D_OUTPUT                                                                              \
  { "out", "N X Y Z features", DTYPE_F32, 0, "filtered feature map" }

const op op_conv3d_with_moments = {
    .name = "conv3d_with_moments",
    .family = "conv",
    .summary = "conv3d that leaves the moments of its result for a norm.",
    .version = 3,
    .traits = OP_INTERNAL | OP_CPU_ONLY,
    .inputs = (const port[]){CONV3D_INPUTS, {0}},
    .outputs = (const port[]){CONV3D_OUTPUT,
                              {"moments", "N 2 features", DTYPE_F32, 0,
                               "of each channel: mean and Σ(out − mean)²"},
                              {0}},
    .attrs = conv3d_attr_list,
    .attrs_bytes = sizeof(conv3d_attrs),
    .infer = with_moments_infer,
    .params = conv3d_params,
    .cost = conv3d_cost,
    .workspace_bytes = with_moments_workspace,
    .cpu = with_moments_cpu,
    .packing = &conv3d_packing,
};

static const op_moments conv3d_moments = {.with = &op_conv3d_with_moments, .fits = moments_fit};

const op op_conv3d = {
    .name = "conv3d",
    .family = "conv",
    .summary = "Three-dimensional convolution with zero padding.",
    .doc = "out[n, o, f] = bias[f] + Σ_{k, c} x[n, o · stride + k · dilation − padding, c] · "
           "weight[f, c, k], zeros lying outside the volume; along each axis the result has "
           "⌊(extent + 2 · padding − dilation · (kernel − 1) − 1) / stride⌋ + 1 voxels. As in "
           "PyTorch, the filter is not mirrored.",
    .torch = "torch.nn.functional.conv3d(x, weight, bias, stride=stride, padding=padding, "
             "dilation=dilation, groups=groups)",
    .version = 4,
    .inputs = (const port[]){CONV3D_INPUTS, {0}},
    .outputs = (const port[]){CONV3D_OUTPUT, {0}},
    .attrs = conv3d_attr_list,
    .attrs_bytes = sizeof(conv3d_attrs),
    .infer = conv3d_infer,
    .params = conv3d_params,
    .grad = conv3d_grad,
    .cost = conv3d_cost,
    .workspace_bytes = conv3d_workspace,
    .cpu = conv3d_cpu,
    .by_plane = conv3d_by_plane,
    .packing = &conv3d_packing,
    .moments = &conv3d_moments,
    .cases =
        (const op_case[]){
            {"{features: 1|3|5|17, kernel: 3}", "[1..2, 2..5, 2..5, 2..8, 1|3|5|16]", 0},
            {"{features: 2..5, kernel: 3, stride: 2, padding: 1}", "[1..2, 3..6, 3..6, 3..9, 1..5]",
             0},
            {"{features: 4, kernel: [1, 2, 3], stride: [2, 1, 3], padding: [0, 1, 2]}",
             "[1, 3..5, 3..5, 3..7, 3]", 0},
            {"{features: 4|6, kernel: 3, groups: 2, bias: false}", "[2, 3..4, 3..4, 3..6, 2|4]", 0},
            {"{features: c=2|3|17|36, groups: c, kernel: [3, 1, 2], stride: 1..2, padding: 1}",
             "[1..2, 2..4, 2..3, 2..6, c]", 0},
            {"{features: 3, kernel: 3, dilation: [1, 2, 2]}", "[1, 3..5, 5..6, 5..8, 2]", 0},
            {"{features: 1|3|16|19, kernel: 1}", "[1..2, 1..4, 1..4, 1..6, 1|3|17]", 0},
            {"{features: 5, kernel: [4, 2, 2], stride: [4, 2, 2], padding: 0}",
             "[1..2, 4|8, 4, 4|6, 1..2]", 0},
            {0}},
};

const op op_conv3d_backward_data = {
    .name = "conv3d_backward_data",
    .family = "conv",
    .summary = "Gradient of conv3d's input.",
    .version = 3,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"dy", "N X Y Z features", DTYPE_F32, PORT_ROUNDED,
                              "gradient of the result"},
                             {"weight", "features C/groups kx ky kz", DTYPE_F32, 0, "the filters"},
                             {0}},
    .outputs = (const port[]){{"dx", "N X Y Z C", DTYPE_F32, 0, "gradient of x"}, {0}},
    .attrs = backward_data_attr_list,
    .attrs_bytes = sizeof(conv_backward_attrs),
    .infer = backward_data_infer,
    .cost = backward_data_cost,
    .workspace_bytes = backward_data_workspace,
    .cpu = backward_data_cpu,
};

const op op_conv3d_backward_weight = {
    .name = "conv3d_backward_weight",
    .family = "conv",
    .summary = "Gradients of conv3d's weight and bias.",
    .version = 4,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, PORT_ROUNDED, "input of conv3d"},
                             {"dy", "N X Y Z features", DTYPE_F32, PORT_ROUNDED,
                              "gradient of the result"},
                             {0}},
    .outputs =
        (const port[]){
            {"dweight", "features C/groups kx ky kz", DTYPE_F32, 0, "gradient of weight"},
            {"dbias", "features", DTYPE_F32, 0, "gradient of bias, where asked for"},
            {0}},
    .attrs = backward_weight_attr_list,
    .attrs_bytes = sizeof(conv_backward_attrs),
    .infer = backward_weight_infer,
    .cost = backward_weight_cost,
    .workspace_bytes = backward_weight_workspace,
    .reads_exactly = backward_weight_reads_exactly,
    .cpu = backward_weight_cpu,
};
