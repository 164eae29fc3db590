/* Distributions that a stage's `initialize` gives to the fresh weights of all its linear layers and
 * convolutions, whatever the model says, so that initializations are compared by one key. They are
 * the ones of the layers' own attribute `init` (ops/kernels/weight_init.h). */
#include "ops/kernels/weight_init.h"

enum { IN_WEIGHT, IN_BIAS };

static status fill_specs(weight_init_attrs init, const tensor *in, param_spec *out) {
  init.bias = BIAS_INIT_AUTO;
  weight_init(&init, in[IN_WEIGHT].shape, in[IN_BIAS].shape, out);
  return OK;
}

typedef struct kaiming_attrs {
  double slope;
  int fan;
} kaiming_attrs;

typedef struct normal_attrs {
  double std;
} normal_attrs;

typedef struct orthogonal_attrs {
  double gain;
} orthogonal_attrs;

#define KAIMING_ATTRS                                                                              \
  (const attr[]) {                                                                                 \
    {"slope",                                                                                      \
     ATTR_FLOAT,                                                                                   \
     offsetof(kaiming_attrs, slope),                                                               \
     "0.01",                                                                                       \
     0,                                                                                            \
     1,                                                                                            \
     NULL,                                                                                         \
     0,                                                                                            \
     "of the leaky ReLU that the variance is kept for: 0 is a ReLU, 1 no activation"},             \
        {"fan",                                                                                    \
         ATTR_CHOICE,                                                                              \
         offsetof(kaiming_attrs, fan),                                                             \
         "in",                                                                                     \
         0,                                                                                        \
         0,                                                                                        \
         weight_init_fans,                                                                         \
         0,                                                                                        \
         "which variance is kept: of the results (in) or of the gradients (out)"},                 \
    {                                                                                              \
      0                                                                                            \
    }                                                                                              \
  }
#define NORMAL_ATTRS                                                                               \
  (const attr[]) {                                                                                 \
    {"std", ATTR_FLOAT, offsetof(normal_attrs, std), "0.02", 1e-9, 1e3,                            \
     NULL,  0,          "standard deviation"},                                                     \
    {                                                                                              \
      0                                                                                            \
    }                                                                                              \
  }
#define LAYER_PORTS                                                                                \
  (const port[]) {                                                                                 \
    {"weight", "…", DTYPE_F32, 0, "of a linear layer or a convolution"},                           \
        {"bias", "features", DTYPE_F32, PORT_OPTIONAL, "of the same layer"}, {                     \
      0                                                                                            \
    }                                                                                              \
  }

static status torch_params(const void *attrs, const tensor *in, int in_count, param_spec *out) {
  (void)attrs, (void)in_count;
  return fill_specs((weight_init_attrs){.kind = WEIGHT_INIT_TORCH}, in, out);
}

static status xavier_uniform_params(const void *attrs, const tensor *in, int in_count,
                                    param_spec *out) {
  (void)attrs, (void)in_count;
  return fill_specs((weight_init_attrs){.kind = WEIGHT_INIT_XAVIER_UNIFORM}, in, out);
}

static status xavier_normal_params(const void *attrs, const tensor *in, int in_count,
                                   param_spec *out) {
  (void)attrs, (void)in_count;
  return fill_specs((weight_init_attrs){.kind = WEIGHT_INIT_XAVIER_NORMAL}, in, out);
}

static status kaiming(weight_init_kind kind, const kaiming_attrs *attrs, const tensor *in,
                      param_spec *out) {
  return fill_specs((weight_init_attrs){.kind = kind, .slope = attrs->slope, .fan = attrs->fan}, in,
                    out);
}

static status kaiming_uniform_params(const void *attrs, const tensor *in, int in_count,
                                     param_spec *out) {
  (void)in_count;
  return kaiming(WEIGHT_INIT_KAIMING_UNIFORM, attrs, in, out);
}

static status kaiming_normal_params(const void *attrs, const tensor *in, int in_count,
                                    param_spec *out) {
  (void)in_count;
  return kaiming(WEIGHT_INIT_KAIMING_NORMAL, attrs, in, out);
}

static status normal_params(const void *attrs, const tensor *in, int in_count, param_spec *out) {
  (void)in_count;
  return fill_specs(
      (weight_init_attrs){.kind = WEIGHT_INIT_NORMAL, .std = ((const normal_attrs *)attrs)->std},
      in, out);
}

static status truncated_normal_params(const void *attrs, const tensor *in, int in_count,
                                      param_spec *out) {
  (void)in_count;
  return fill_specs((weight_init_attrs){.kind = WEIGHT_INIT_TRUNCATED_NORMAL,
                                        .std = ((const normal_attrs *)attrs)->std},
                    in, out);
}

static status orthogonal_params(const void *attrs, const tensor *in, int in_count,
                                param_spec *out) {
  (void)in_count;
  double gain = ((const orthogonal_attrs *)attrs)->gain;
  out[0] = (param_spec){in[IN_WEIGHT].shape, INIT_ORTHOGONAL, gain};
  out[1] = (param_spec){in[IN_BIAS].shape, INIT_ZEROS, 0};
  return OK;
}

const op op_torch = {
    .name = "torch",
    .family = "initializer",
    .summary = "PyTorch's default of linear layers and convolutions.",
    .doc = "Weight and bias uniform in ±1/√fan_in.",
    .torch = "layer.reset_parameters()",
    .version = 1,
    .traits = OP_INITIALIZER,
    .inputs = LAYER_PORTS,
    .params = torch_params,
};

const op op_xavier_uniform = {
    .name = "xavier_uniform",
    .family = "initializer",
    .summary = "Uniform, with the variance 2 / (fan_in + fan_out).",
    .doc = "Glorot and Bengio, AISTATS 2010. The bias is 0.",
    .torch = "torch.nn.init.xavier_uniform_(weight)",
    .version = 1,
    .traits = OP_INITIALIZER,
    .inputs = LAYER_PORTS,
    .params = xavier_uniform_params,
};

const op op_xavier_normal = {
    .name = "xavier_normal",
    .family = "initializer",
    .summary = "Normal, with the variance 2 / (fan_in + fan_out).",
    .doc = "Glorot and Bengio, AISTATS 2010. The bias is 0.",
    .torch = "torch.nn.init.xavier_normal_(weight)",
    .version = 1,
    .traits = OP_INITIALIZER,
    .inputs = LAYER_PORTS,
    .params = xavier_normal_params,
};

const op op_kaiming_uniform = {
    .name = "kaiming_uniform",
    .family = "initializer",
    .summary = "Uniform, keeping the variance through (leaky) rectifiers.",
    .doc = "Variance 2 / ((1 + slope²) · fan): He et al., arXiv 1502.01852. The bias is 0.",
    .torch = "torch.nn.init.kaiming_uniform_(weight, a=slope, mode=\"fan_\" + fan)",
    .version = 1,
    .traits = OP_INITIALIZER,
    .inputs = LAYER_PORTS,
    .attrs = KAIMING_ATTRS,
    .attrs_bytes = sizeof(kaiming_attrs),
    .params = kaiming_uniform_params,
};

const op op_kaiming_normal = {
    .name = "kaiming_normal",
    .family = "initializer",
    .summary = "Normal, keeping the variance through (leaky) rectifiers.",
    .doc = "Variance 2 / ((1 + slope²) · fan): He et al., arXiv 1502.01852. The bias is 0.",
    .torch = "torch.nn.init.kaiming_normal_(weight, a=slope, mode=\"fan_\" + fan)",
    .version = 1,
    .traits = OP_INITIALIZER,
    .inputs = LAYER_PORTS,
    .attrs = KAIMING_ATTRS,
    .attrs_bytes = sizeof(kaiming_attrs),
    .params = kaiming_normal_params,
};

const op op_normal = {
    .name = "normal",
    .family = "initializer",
    .summary = "Normal with a fixed standard deviation.",
    .doc = "Every weight from a normal distribution with mean 0. The bias is 0.",
    .torch = "torch.nn.init.normal_(weight, std=std)",
    .version = 1,
    .traits = OP_INITIALIZER,
    .inputs = LAYER_PORTS,
    .attrs = NORMAL_ATTRS,
    .attrs_bytes = sizeof(normal_attrs),
    .params = normal_params,
};

const op op_truncated_normal = {
    .name = "truncated_normal",
    .family = "initializer",
    .summary = "Normal with a fixed standard deviation, cut at ±2.",
    .doc = "The cut is at the values ±2 and not at two standard deviations, as in PyTorch. The "
           "bias is 0.",
    .torch = "torch.nn.init.trunc_normal_(weight, std=std)",
    .version = 1,
    .traits = OP_INITIALIZER,
    .inputs = LAYER_PORTS,
    .attrs = NORMAL_ATTRS,
    .attrs_bytes = sizeof(normal_attrs),
    .params = truncated_normal_params,
};

const op op_orthogonal = {
    .name = "orthogonal",
    .family = "initializer",
    .summary = "Rows (or columns, where there are fewer) orthonormal.",
    .doc = "Random with the uniform distribution over such matrices: Saxe et al., arXiv 1312.6120. "
           "The bias is 0.",
    .torch = "torch.nn.init.orthogonal_(weight, gain)",
    .version = 1,
    .traits = OP_INITIALIZER,
    .inputs = LAYER_PORTS,
    .attrs = (const attr[]){{"gain", ATTR_FLOAT, offsetof(orthogonal_attrs, gain), "1", 1e-6, 1e6,
                             NULL, 0, "factor of all weights"},
                            {0}},
    .attrs_bytes = sizeof(orthogonal_attrs),
    .params = orthogonal_params,
};
