/* linear: y = x · weightᵀ + bias over the last axis, torch.nn.Linear. Every other axis counts rows.
 * The kernels are the convolution's with one tap and all rows in a line. */
#include "ops/activation/gelu.h"
#include "ops/kernels/convolution.h"
#include "ops/kernels/weight_init.h"

#include "graph/precision.h"

typedef struct linear_attrs {
  int64_t features;
  bool bias;
  int precision;
  weight_init_attrs init;
  bool packed; /* the weight is (op_packing) */
} linear_attrs;

static const attr linear_attr_list[] = {
    {"features", ATTR_INT, offsetof(linear_attrs, features), NULL, 1, 1 << 20, NULL, 0,
     "channels of the result"},
    {"bias", ATTR_BOOL, offsetof(linear_attrs, bias), "true", 0, 0, NULL, 0,
     "add a learned number to each channel of the result"},
    PRECISION_ATTR(linear_attrs, precision),
    WEIGHT_INIT_ATTRS(linear_attrs, init),
    {0},
};

typedef struct linear_backward_data_attrs {
  int precision;
} linear_backward_data_attrs;

static const attr linear_backward_data_attr_list[] = {
    PRECISION_ATTR(linear_backward_data_attrs, precision),
    {0},
};

typedef struct linear_backward_weight_attrs {
  bool bias;
  int precision;
} linear_backward_weight_attrs;

static const attr linear_backward_weight_attr_list[] = {
    {"bias", ATTR_BOOL, offsetof(linear_backward_weight_attrs, bias), "true", 0, 0, NULL, 0,
     "compute the gradient of the bias"},
    PRECISION_ATTR(linear_backward_weight_attrs, precision),
    {0},
};

enum { IN_X, IN_WEIGHT, IN_BIAS };
enum { BACK_DY, BACK_WEIGHT };
enum { WEIGHT_X, WEIGHT_DY };
enum { OUT_DWEIGHT, OUT_DBIAS };

static int64_t last_axis(const tensor *t) {
  return t->shape.dim[t->shape.rank - 1];
}

static conv_shape rows_of(const tensor *x, int64_t channels, int64_t features, int precision) {
  conv_shape s = conv_shape_linear(shape_elements(&x->shape) / last_axis(x), channels, features);
  s.bf16 = precision == PRECISION_BF16;
  return s;
}

static status linear_infer(infer *rule) {
  const linear_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[IN_X].shape, *weight = &rule->in[IN_WEIGHT].shape;
  const shape *bias = &rule->in[IN_BIAS].shape;
  char have[96];
  if (x->rank < 2)
    return shape_error("x needs rows and channels (N … C), but is %s", shape_format(have, x));
  if (weight->rank != 2 || weight->dim[0] != attrs->features ||
      weight->dim[1] != x->dim[x->rank - 1])
    return shape_error("the weight must be features × channels, %lld×%lld, but is %s",
                       (long long)attrs->features, (long long)x->dim[x->rank - 1],
                       shape_format(have, weight));
  if (bias->rank >= 0 && (bias->rank != 1 || bias->dim[0] != attrs->features))
    return shape_error("the bias must have one element for each of the %lld features, but is %s",
                       (long long)attrs->features, shape_format(have, bias));
  rule->out[0].shape = *x;
  rule->out[0].shape.dim[x->rank - 1] = attrs->features;
  return OK;
}

static status linear_params(const void *attributes, const tensor *in, int in_count,
                            param_spec *out) {
  (void)in_count;
  const linear_attrs *attrs = attributes;
  if (in[IN_X].shape.rank < 1) return shape_error("x needs rows and channels (N … C)");
  int64_t channels = last_axis(&in[IN_X]);
  weight_init(&attrs->init, SHAPE(attrs->features, channels),
              attrs->bias ? SHAPE(attrs->features) : (shape){.rank = -1}, out);
  return OK;
}

static status linear_grad(grad *rule) {
  const linear_attrs *attrs = rule->attrs;
  value_id dy = rule->dy[0];
  if (rule->wanted[IN_X])
    TRY(build_node(rule->b, "linear_backward_data", &(linear_backward_data_attrs){attrs->precision},
                   (value_id[]){dy, rule->in[IN_WEIGHT]}, 2, &rule->dx[IN_X]));
  bool bias = rule->in[IN_BIAS] != VALUE_NONE && rule->wanted[IN_BIAS];
  if (!rule->wanted[IN_WEIGHT] && !bias) return OK;
  value_id out[2];
  TRY(build_node(rule->b, "linear_backward_weight",
                 &(linear_backward_weight_attrs){bias, attrs->precision},
                 (value_id[]){rule->in[IN_X], dy}, 2, out));
  if (rule->wanted[IN_WEIGHT]) rule->dx[IN_WEIGHT] = out[OUT_DWEIGHT];
  if (bias) rule->dx[IN_BIAS] = out[OUT_DBIAS];
  return OK;
}

static cost flops_of(conv_shape s) {
  return (cost){.flops = conv_flops(&s)};
}

static conv_shape forward_shape(const linear_attrs *attrs, const tensor *in, const tensor *out) {
  conv_shape s = rows_of(&in[IN_X], last_axis(&in[IN_X]), last_axis(&out[0]), attrs->precision);
  s.packed = attrs->packed;
  return s;
}

static cost linear_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)in_count;
  return flops_of(forward_shape(attrs, in, out));
}

static size_t linear_workspace(const void *attrs, const tensor *in, int in_count, const tensor *out,
                               int threads) {
  (void)in_count, (void)threads;
  conv_shape s = forward_shape(attrs, in, out);
  return conv_forward_workspace(&s);
}

static status linear_cpu(const call *c) {
  conv_shape s = forward_shape(c->attrs, c->in, c->out);
  conv_forward(&s, c->in[IN_X].data, c->in[IN_WEIGHT].data, c->in[IN_BIAS].data, c->out[0].data,
               NULL, c->workspace, c->pool);
  return OK;
}

static void gelu_rows(const void *context, int64_t row, int64_t rows, int64_t column,
                      int64_t columns) {
  const call *gelu = context;
  int64_t width = last_axis(&gelu->in[0]);
  if (columns == width) {
    gelu_part(gelu, (span){row * width, rows * width});
    return;
  }
  for (int64_t r = row; r < row + rows; r++) gelu_part(gelu, (span){r * width + column, columns});
}

static status linear_gelu_cpu(const call *c, const call *gelu) {
  conv_shape s = forward_shape(c->attrs, c->in, c->out);
  const conv_finish finish = {gelu_rows, gelu};
  if (!conv_finishes_parts(&s) || last_axis(&gelu->in[0]) != s.features) {
    TRY(linear_cpu(c));
    return op_gelu.cpu(gelu);
  }
  s.finish = &finish;
  conv_forward(&s, c->in[IN_X].data, c->in[IN_WEIGHT].data, c->in[IN_BIAS].data, c->out[0].data,
               NULL, c->workspace, c->pool);
  return OK;
}

static const op_chain linear_chain = {.next = &op_gelu, .cpu = linear_gelu_cpu};

static size_t linear_packed_bytes(const void *attrs, const tensor *in, int in_count,
                                  const tensor *out) {
  (void)in_count;
  conv_shape s = forward_shape(attrs, in, out);
  return conv_packed_bytes(&s, false);
}

static void linear_pack(const call *c, void *to) {
  conv_shape s = forward_shape(c->attrs, c->in, c->out);
  conv_pack(&s, false, c->in[IN_WEIGHT].data, to, c->pool);
}

static const op_packing linear_packing = {.input = IN_WEIGHT,
                                          .flag = offsetof(linear_attrs, packed),
                                          .bytes = linear_packed_bytes,
                                          .pack = linear_pack};

static status backward_data_infer(infer *rule) {
  const shape *dy = &rule->in[BACK_DY].shape, *weight = &rule->in[BACK_WEIGHT].shape;
  char a[96], b[96];
  if (dy->rank < 2 || weight->rank != 2 || weight->dim[0] != dy->dim[dy->rank - 1])
    return shape_error("dy %s does not fit the weight %s", shape_format(a, dy),
                       shape_format(b, weight));
  rule->out[0].shape = *dy;
  rule->out[0].shape.dim[dy->rank - 1] = weight->dim[1];
  return OK;
}

static conv_shape backward_data_shape(const linear_backward_data_attrs *attrs, const tensor *in,
                                      const tensor *out) {
  return rows_of(&in[BACK_DY], last_axis(&out[0]), last_axis(&in[BACK_DY]), attrs->precision);
}

static cost backward_data_cost(const void *attrs, const tensor *in, int in_count,
                               const tensor *out) {
  (void)in_count;
  return flops_of(backward_data_shape(attrs, in, out));
}

static size_t backward_data_workspace(const void *attrs, const tensor *in, int in_count,
                                      const tensor *out, int threads) {
  (void)in_count, (void)threads;
  conv_shape s = backward_data_shape(attrs, in, out);
  return conv_backward_data_workspace(&s);
}

static status backward_data_cpu(const call *c) {
  conv_shape s = backward_data_shape(c->attrs, c->in, c->out);
  conv_backward_data(&s, c->in[BACK_DY].data, c->in[BACK_WEIGHT].data, NULL, c->out[0].data,
                     c->workspace, c->pool);
  return OK;
}

static status backward_weight_infer(infer *rule) {
  const shape *x = &rule->in[WEIGHT_X].shape, *dy = &rule->in[WEIGHT_DY].shape;
  char a[96], b[96];
  bool fits = x->rank == dy->rank && x->rank >= 2;
  for (int i = 0; fits && i < x->rank - 1; i++) fits = x->dim[i] == dy->dim[i];
  if (!fits)
    return shape_error("x %s and dy %s do not have the same rows", shape_format(a, x),
                       shape_format(b, dy));
  int64_t features = dy->dim[dy->rank - 1];
  rule->out[OUT_DWEIGHT].shape = SHAPE(features, x->dim[x->rank - 1]);
  rule->out[OUT_DBIAS].shape = SHAPE(features);
  return OK;
}

static conv_shape backward_weight_shape(const linear_backward_weight_attrs *attrs,
                                        const tensor *in) {
  return rows_of(&in[WEIGHT_X], last_axis(&in[WEIGHT_X]), last_axis(&in[WEIGHT_DY]),
                 attrs->precision);
}

static cost backward_weight_cost(const void *attrs, const tensor *in, int in_count,
                                 const tensor *out) {
  (void)in_count, (void)out;
  return flops_of(backward_weight_shape(attrs, in));
}

static size_t backward_weight_workspace(const void *attrs, const tensor *in, int in_count,
                                        const tensor *out, int threads) {
  (void)in_count, (void)out, (void)threads;
  conv_shape s = backward_weight_shape(attrs, in);
  return conv_backward_weight_workspace(&s);
}

static status backward_weight_cpu(const call *c) {
  const linear_backward_weight_attrs *attrs = c->attrs;
  conv_shape s = backward_weight_shape(attrs, c->in);
  conv_backward_weight(&s, c->in[WEIGHT_X].data, c->in[WEIGHT_DY].data, c->out[OUT_DWEIGHT].data,
                       attrs->bias ? c->out[OUT_DBIAS].data : NULL, c->workspace, c->pool);
  return OK;
}

/* The bias's gradient adds dy up as it is. */
static bool backward_weight_reads_exactly(const void *attrs, const tensor *in, int in_count,
                                          int input) {
  (void)in, (void)in_count;
  return input == WEIGHT_DY && ((const linear_backward_weight_attrs *)attrs)->bias;
}

const op op_linear = {
    .name = "linear",
    .family = "linear",
    .summary = "A learned linear map of the channels, the same at every place.",
    .doc = "out[…, f] = bias[f] + Σ_c x[…, c] · weight[f, c]. Input and result agree in every "
           "axis but the last.",
    .torch = "torch.nn.functional.linear(x, weight, bias)",
    .version = 2,
    .inputs = (const port[]){{"x", "N … C", DTYPE_F32, PORT_ROUNDED, "rows of channels"},
                             {"weight", "features C", DTYPE_F32, PORT_PARAM, "the map"},
                             {"bias", "features", DTYPE_F32, PORT_PARAM | PORT_OPTIONAL,
                              "added to every row"},
                             {0}},
    .outputs = (const port[]){{"out", "N … features", DTYPE_F32, 0, "mapped rows"}, {0}},
    .attrs = linear_attr_list,
    .attrs_bytes = sizeof(linear_attrs),
    .infer = linear_infer,
    .params = linear_params,
    .grad = linear_grad,
    .cost = linear_cost,
    .workspace_bytes = linear_workspace,
    .cpu = linear_cpu,
    .packing = &linear_packing,
    .chain = &linear_chain,
    .cases = (const op_case[]){{"{features: 1|3|5|16|17|40}", "[1..3, 1..30, 1|3|5|16|33]", 0},
                               {"{features: 4, bias: false}", "[1..9, 2..20]", 0},
                               {"{features: 6, init: truncated_normal, init_std: 0.5}",
                                "[2, 3, 4, 2, 1..9]", 0},
                               {0}},
};

const op op_linear_backward_data = {
    .name = "linear_backward_data",
    .family = "linear",
    .summary = "Gradient of linear's input.",
    .version = 2,
    .traits = OP_INTERNAL,
    .inputs =
        (const port[]){{"dy", "N … features", DTYPE_F32, PORT_ROUNDED, "gradient of the result"},
                       {"weight", "features C", DTYPE_F32, 0, "the map"},
                       {0}},
    .outputs = (const port[]){{"dx", "N … C", DTYPE_F32, 0, "gradient of x"}, {0}},
    .attrs = linear_backward_data_attr_list,
    .attrs_bytes = sizeof(linear_backward_data_attrs),
    .infer = backward_data_infer,
    .cost = backward_data_cost,
    .workspace_bytes = backward_data_workspace,
    .cpu = backward_data_cpu,
};

const op op_linear_backward_weight = {
    .name = "linear_backward_weight",
    .family = "linear",
    .summary = "Gradients of linear's weight and bias.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs =
        (const port[]){{"x", "N … C", DTYPE_F32, PORT_ROUNDED, "input of linear"},
                       {"dy", "N … features", DTYPE_F32, PORT_ROUNDED, "gradient of the result"},
                       {0}},
    .outputs =
        (const port[]){{"dweight", "features C", DTYPE_F32, 0, "gradient of weight"},
                       {"dbias", "features", DTYPE_F32, 0, "gradient of bias, where asked for"},
                       {0}},
    .attrs = linear_backward_weight_attr_list,
    .attrs_bytes = sizeof(linear_backward_weight_attrs),
    .infer = backward_weight_infer,
    .cost = backward_weight_cost,
    .workspace_bytes = backward_weight_workspace,
    .reads_exactly = backward_weight_reads_exactly,
    .cpu = backward_weight_cpu,
};
