/* How linear layers and convolutions start, as the `init` attribute names it. */
#ifndef STRATA_OPS_KERNELS_WEIGHT_INIT_H
#define STRATA_OPS_KERNELS_WEIGHT_INIT_H

#include "graph/op.h"

#include <math.h>

enum { WEIGHT_INIT_TORCH, WEIGHT_INIT_TRUNCATED_NORMAL };

static const char *const weight_init_choices[] = {"torch", "truncated_normal", NULL};

#define WEIGHT_INIT_DOC                                                                            \
  "torch: weight and bias uniform in ±1/√(inputs of one output), PyTorch's default; "           \
  "truncated_normal: weight normal with standard deviation init_std, bias zero"
#define WEIGHT_INIT_STD_DOC "standard deviation of truncated_normal"

/* Fills out[0] (weight) and out[1] (bias). PyTorch's default, Kaiming uniform with a = √5, is the
 * uniform distribution in ±√(6 / ((1 + 5) · fan_in)). */
static inline void weight_init(int init, double std, int64_t fan_in, shape weight, shape bias,
                               param_spec *out) {
  double bound = 1 / sqrt((double)fan_in);
  bool torch = init == WEIGHT_INIT_TORCH;
  out[0] = torch ? (param_spec){weight, INIT_UNIFORM, bound}
                 : (param_spec){weight, INIT_TRUNCATED_NORMAL, std};
  out[1] = torch ? (param_spec){bias, INIT_UNIFORM, bound} : (param_spec){bias, INIT_ZEROS, 0};
}

#endif
