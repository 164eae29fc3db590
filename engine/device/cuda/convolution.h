/* A convolution as a library is asked for it: the pass, the sizes, and what its operands look like in
 * memory. Plain numbers, for C++ with and without CUDA. */
#ifndef STRATA_DEVICE_CUDA_CONVOLUTION_H
#define STRATA_DEVICE_CUDA_CONVOLUTION_H

#include <stdint.h>

/* What is computed; the other two operands are read. */
typedef enum convolution_pass {
  CONVOLUTION_FORWARD,        /* the result */
  CONVOLUTION_BACKWARD_DATA,  /* the image, from the result's gradient: a transposed convolution */
  CONVOLUTION_BACKWARD_WEIGHT /* the filter, from image and the result's gradient */
} convolution_pass;

/* Sizes are those of the forward pass in every pass; axes are x, y, z. Operands are contiguous:
 *   image    batch × image × channels
 *   filter   features × kernel × channels / groups
 *   result   batch × out × features
 * What is read is f32, or bf16 when `bf16`; what is computed is f32, and so are the sums. When `tf32`,
 * factors may be rounded to that as they are multiplied. */
typedef struct convolution {
  int64_t
      pass; /* convolution_pass; whole numbers throughout, so that equal bytes are equal values */
  int64_t batch, channels, features, groups;
  int64_t image[3], out[3], kernel[3], stride[3], padding[3], dilation[3];
  int64_t bf16, tf32; /* at most one of them */
} convolution;

#endif
