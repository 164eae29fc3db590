/* Attributes of conv3d and of its internal gradient operators conv3d_backward_data and
 * conv3d_backward_weight, which the transposed convolution's gradient also builds. */
#ifndef STRATA_OPS_CONV_ATTRS_H
#define STRATA_OPS_CONV_ATTRS_H

#include "graph/precision.h"
#include "ops/kernels/convolution.h"
#include "ops/kernels/weight_init.h"

#include <string.h>

typedef struct conv3d_attrs {
  int64_t features;
  int64_t kernel[3], stride[3], padding[3], dilation[3];
  int64_t groups;
  bool bias;
  int precision;
  weight_init_attrs init;
  bool packed; /* the weight is (op_packing) */
} conv3d_attrs;

typedef struct conv_backward_attrs {
  int64_t extent[3]; /* data: of the image; weight: of the filter */
  int64_t stride[3], padding[3], dilation[3];
  int64_t groups;
  int precision;
  bool bias; /* weight only */
} conv_backward_attrs;

#define CONV_BACKWARD_ATTRS                                                                        \
  {"stride", ATTR_INT3, offsetof(conv_backward_attrs, stride),                                     \
   "1",      1,         64,                                                                        \
   NULL,     0,         "voxels from one place of the filter to the next"},                        \
      {"padding", ATTR_INT3, offsetof(conv_backward_attrs, padding),       "0", 0, 1 << 20,        \
       NULL,      0,         "zeros before and after the image, in voxels"},                       \
      {"dilation", ATTR_INT3, offsetof(conv_backward_attrs, dilation),        "1", 1, 64,          \
       NULL,       0,         "voxels from one tap of the filter to the next"},                    \
      {"groups", ATTR_INT, offsetof(conv_backward_attrs, groups), "1", 1, 1 << 16,                 \
       NULL,     0,        "parts the channels are split into"},                                   \
      PRECISION_ATTR(conv_backward_attrs, precision)

static inline conv_shape conv_backward_shape(const conv_backward_attrs *attrs) {
  conv_shape s = {.groups = attrs->groups, .bf16 = attrs->precision == PRECISION_BF16};
  memcpy(s.stride, attrs->stride, sizeof s.stride);
  memcpy(s.padding, attrs->padding, sizeof s.padding);
  memcpy(s.dilation, attrs->dilation, sizeof s.dilation);
  return s;
}

#endif
