/* How learned layers start, as the attributes `init…` of linear layers, convolutions and norms name
 * it. The fans are PyTorch's: fan_in counts the elements of the weight for one entry of its first
 * axis, fan_out for one of its second. For a convolution those are the inputs of one output and the
 * outputs of one input; for a transposed convolution PyTorch keeps the rule and so swaps their
 * meaning. */
#ifndef STRATA_OPS_KERNELS_WEIGHT_INIT_H
#define STRATA_OPS_KERNELS_WEIGHT_INIT_H

#include "graph/op.h"

#include <math.h>

typedef enum weight_init_kind {
  WEIGHT_INIT_TORCH,
  WEIGHT_INIT_XAVIER_UNIFORM,
  WEIGHT_INIT_XAVIER_NORMAL,
  WEIGHT_INIT_KAIMING_UNIFORM,
  WEIGHT_INIT_KAIMING_NORMAL,
  WEIGHT_INIT_NORMAL,
  WEIGHT_INIT_TRUNCATED_NORMAL,
  WEIGHT_INIT_CONSTANT,
  WEIGHT_INIT_ZEROS
} weight_init_kind;

typedef struct weight_init_attrs {
  int kind;
  double std, slope, value;
  int fan;
  int bias;
} weight_init_attrs;

static const char *const weight_init_choices[] = {
    "torch",  "xavier_uniform",   "xavier_normal", "kaiming_uniform", "kaiming_normal",
    "normal", "truncated_normal", "constant",      "zeros",           NULL};
enum { FAN_IN, FAN_OUT };
static const char *const weight_init_fans[] = {"in", "out", NULL};
enum { BIAS_INIT_AUTO, BIAS_INIT_TORCH, BIAS_INIT_ZEROS };
static const char *const bias_init_choices[] = {"auto", "torch", "zeros", NULL};

/* Lines of an attribute list; `field` is the weight_init_attrs in the operator's struct. */
#define WEIGHT_INIT_ATTRS(type, field)                                                                \
  {"init",                                                                                            \
   ATTR_CHOICE,                                                                                       \
   offsetof(type, field.kind),                                                                        \
   "torch",                                                                                           \
   0,                                                                                                 \
   0,                                                                                                 \
   weight_init_choices,                                                                               \
   0,                                                                                                 \
   "distribution of the fresh weight, as in torch.nn.init; torch: uniform in ±1/√fan_in, the "     \
   "default of PyTorch's layers"},                                                                    \
      {"init_std",                                                                                    \
       ATTR_FLOAT,                                                                                    \
       offsetof(type, field.std),                                                                     \
       "0.02",                                                                                        \
       1e-9,                                                                                          \
       1e3,                                                                                           \
       NULL,                                                                                          \
       0,                                                                                             \
       "standard deviation of normal and truncated_normal (which is cut at ±2, not at ±2 "          \
       "deviations)"},                                                                                \
      {"init_slope",                                                                                  \
       ATTR_FLOAT,                                                                                    \
       offsetof(type, field.slope),                                                                   \
       "0.01",                                                                                        \
       0,                                                                                             \
       1,                                                                                             \
       NULL,                                                                                          \
       0,                                                                                             \
       "of the leaky ReLU that kaiming_uniform and kaiming_normal keep the variance for: 0 is a "     \
       "ReLU, 1 no activation"},                                                                      \
      {"init_fan",                                                                                    \
       ATTR_CHOICE,                                                                                   \
       offsetof(type, field.fan),                                                                     \
       "in",                                                                                          \
       0,                                                                                             \
       0,                                                                                             \
       weight_init_fans,                                                                              \
       0,                                                                                             \
       "which variance kaiming_uniform and kaiming_normal keep: of the results (in) or of the "       \
       "gradients (out)"},                                                                            \
      {"init_value", ATTR_FLOAT, offsetof(type, field.value),     "0", -1e6, 1e6,                     \
       NULL,         0,          "of every weight, with constant"},                                   \
  {                                                                                                   \
    "bias_init", ATTR_CHOICE, offsetof(type, field.bias), "auto", 0, 0, bias_init_choices, 0,         \
        "the fresh bias: uniform in ±1/√fan_in (torch) or zeros; auto is torch with init: torch, " \
        "otherwise zeros"                                                                             \
  }

/* Fills out[0] (weight) and out[1] (bias; rank −1 where there is none). The weight has two axes or
 * more. PyTorch's default, Kaiming uniform with a = √5, is uniform in ±√(6 / ((1 + 5) · fan_in)). */
static inline void weight_init(const weight_init_attrs *init, shape weight, shape bias,
                               param_spec *out) {
  double elements = (double)shape_elements(&weight);
  double fan_in = elements / (double)weight.dim[0], fan_out = elements / (double)weight.dim[1];
  double torch = 1 / sqrt(fan_in), xavier = sqrt(2 / (fan_in + fan_out));
  double kaiming =
      sqrt(2 / (1 + init->slope * init->slope)) / sqrt(init->fan == FAN_IN ? fan_in : fan_out);
  param_spec specs[] = {
      [WEIGHT_INIT_TORCH] = {weight, INIT_UNIFORM, torch},
      [WEIGHT_INIT_XAVIER_UNIFORM] = {weight, INIT_UNIFORM, sqrt(3.0) * xavier},
      [WEIGHT_INIT_XAVIER_NORMAL] = {weight, INIT_NORMAL, xavier},
      [WEIGHT_INIT_KAIMING_UNIFORM] = {weight, INIT_UNIFORM, sqrt(3.0) * kaiming},
      [WEIGHT_INIT_KAIMING_NORMAL] = {weight, INIT_NORMAL, kaiming},
      [WEIGHT_INIT_NORMAL] = {weight, INIT_NORMAL, init->std},
      [WEIGHT_INIT_TRUNCATED_NORMAL] = {weight, INIT_TRUNCATED_NORMAL, init->std},
      [WEIGHT_INIT_CONSTANT] = {weight, INIT_CONSTANT, init->value},
      [WEIGHT_INIT_ZEROS] = {weight, INIT_ZEROS, 0},
  };
  bool torch_bias = init->bias == BIAS_INIT_TORCH ||
                    (init->bias == BIAS_INIT_AUTO && init->kind == WEIGHT_INIT_TORCH);
  out[0] = specs[init->kind];
  out[1] = torch_bias ? (param_spec){bias, INIT_UNIFORM, torch} : (param_spec){bias, INIT_ZEROS, 0};
}

/* The attribute line of a norm with a learned scale, and its fresh scale and shift. */
#define NORM_INIT_ATTR(type, field)                                                                \
  {                                                                                                \
    "init_weight", ATTR_FLOAT, offsetof(type, field), "1", -1e6, 1e6, NULL, 0,                     \
        "the scale that a fresh norm starts with; 0 in the last norm of a residual branch lets "   \
        "the block start as its shortcut"                                                          \
  }

static inline void norm_init(bool affine, double weight, int64_t channels, param_spec *out) {
  shape s = affine ? SHAPE(channels) : (shape){.rank = -1};
  out[0] = (param_spec){s, INIT_CONSTANT, weight};
  out[1] = (param_spec){s, INIT_ZEROS, 0};
}

#endif
