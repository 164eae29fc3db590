/* Three-dimensional convolution on channels-last volumes, as products of register tiles (gemm.h)
 * over filter taps: voxels are lowered to a matrix of patches only where that is no larger than the
 * weights (convolution_patches.c). The three entry points serve every operator
 * that is a linear map of neighbourhoods: conv3d and its two gradients, the transposed convolution
 * (its forward is this backward_data, its data gradient this forward), and linear layers and 1×1×1
 * convolutions (one tap, all voxels in one row).
 *
 * y[n, o, f] = bias[f] + Σ_{k, c} x[n, o·stride + k·dilation − padding, c] · weight[f, c, k]
 *
 * with x (batch, image…, channels), y (batch, out…, features), weight
 * (features, channels / groups, kernel…) as PyTorch has it. Zeros lie outside the image. */
#ifndef STRATA_OPS_KERNELS_CONVOLUTION_H
#define STRATA_OPS_KERNELS_CONVOLUTION_H

#include "base/parallel.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CONV_MAX_KERNEL = 64 };

/* What is done with a part of the result of a linear layer by the task that has just written it: rows
 * [row, row + rows) of columns [column, column + columns), voxels and features. */
typedef struct conv_finish {
  void (*part)(const void *context, int64_t row, int64_t rows, int64_t column, int64_t columns);
  const void *context;
} conv_finish;

typedef struct conv_shape {
  int64_t batch, channels, features, groups;
  int64_t image[3], out[3]; /* spatial extents of x and y */
  int64_t kernel[3], stride[3], padding[3], dilation[3];
  /* The factors of the products are rounded to bf16 (bf16.h). Sums, results and everything in memory
   * stay f32, and so do depthwise filters, where a number is read for every product. */
  bool bf16;
  /* The weight is given in the form that conv_pack has made of it: of the forward pass for
   * conv_forward, of the data gradient for conv_backward_data. */
  bool packed;
  /* conv_forward makes the moments of its result. */
  bool moments;
  const conv_finish *finish; /* for conv_forward; NULL: nothing is done */
} conv_shape;

/* A linear layer over `rows` vectors, as a convolution. */
conv_shape conv_shape_linear(int64_t rows, int64_t channels, int64_t features);
/* Multiplications and additions of the forward pass, padding included. */
double conv_flops(const conv_shape *s);

/* Weights that stay the same from run to run can be packed once, in the order in which the kernels
 * of this processor read them. How many bytes that takes, for the forward pass or (`transposed`) the
 * data gradient; 0: the kernel of this shape has nothing to gain. */
size_t conv_packed_bytes(const conv_shape *s, bool transposed);
/* Where that is not 0; `to` is 64-byte aligned. Results with it are equal to the bit. */
void conv_pack(const conv_shape *s, bool transposed, const float *weight, void *to,
               thread_pool *pool);

/* y from x. `bias` may be NULL. `moments`, where s->moments asks for them: batch × 2 × features, the mean
 * of each channel over the voxels of a sample and Σ(y − mean)². */
size_t conv_forward_workspace(const conv_shape *s);
void conv_forward(const conv_shape *s, const float *x, const float *weight, const float *bias,
                  float *y, float *moments, void *workspace, thread_pool *pool);
/* Can they be asked for? */
bool conv_makes_moments(const conv_shape *s);
/* Can its parts be finished? */
bool conv_finishes_parts(const conv_shape *s);
/* dx from dy. `bias`, one number per channel of dx, may be NULL: the transposed convolution's. */
size_t conv_backward_data_workspace(const conv_shape *s);
void conv_backward_data(const conv_shape *s, const float *dy, const float *weight,
                        const float *bias, float *dx, void *workspace, thread_pool *pool);
/* dweight from x and dy; dbias, when not NULL, is the sum of dy over batch and voxels, f32 always. */
size_t conv_backward_weight_workspace(const conv_shape *s);
void conv_backward_weight(const conv_shape *s, const float *x, const float *dy, float *dweight,
                          float *dbias, void *workspace, thread_pool *pool);

/* The definition, term by term: what the tests compare with. In f32 always. */
void conv_forward_reference(const conv_shape *s, const float *x, const float *weight,
                            const float *bias, float *y);
void conv_backward_data_reference(const conv_shape *s, const float *dy, const float *weight,
                                  const float *bias, float *dx);
void conv_backward_weight_reference(const conv_shape *s, const float *x, const float *dy,
                                    float *dweight, float *dbias);

#endif
