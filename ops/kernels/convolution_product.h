/* The forward pass and the data gradient as one product: its plan (convolution_taps.c), and what is packed
 * and copied for the tiles to read (convolution_pack.c). Internal to these two. */
#ifndef STRATA_OPS_KERNELS_CONVOLUTION_PRODUCT_H
#define STRATA_OPS_KERNELS_CONVOLUTION_PRODUCT_H

#include "ops/kernels/convolution_parts.h"

/* Both directions are one sum over taps. Outputs of the data gradient fall into phases by their
 * residue modulo the stride; within a phase every output has the same taps:
 *   out coordinate = out_first + out_step·m,   in coordinate of tap t = in_step·m + offset[t]. */
typedef struct conv_axis {
  int taps;
  int64_t positions, out_first, out_step, in_step;
  int index[CONV_MAX_KERNEL];      /* along the filter */
  int64_t offset[CONV_MAX_KERNEL]; /* ascending */
} conv_axis;

typedef struct conv_product {
  bool transposed; /* data gradient */
  int64_t batch, in[3], out[3];
  int64_t kernel[3], stride[3], padding[3], dilation[3];
  int64_t in_channels, out_channels, groups;
  int64_t depth, columns;                      /* summed and made channels of a group */
  int64_t group_step, depth_step, column_step; /* in weight */
  int64_t bias_period;
  bool rounds; /* the factors, to bf16 */
  /* The tiles read words of two channels. in_channels and depth count words, these two the tensor's
   * channels. */
  bool pairs;
  int64_t given_channels, given_depth;
  /* derived */
  const gemm_kernels *kernels;
  int vectors;            /* width of a full block of columns */
  int64_t column_vectors; /* columns of a group, in vectors, rounded up */
  int64_t blocks;         /* of columns, per group */
  int64_t phases[3];
  bool padded; /* the copy of the input has zeros before and after each z row */
  bool copied; /* the tiles read a copy of the input */
  int64_t pad_low, padded_z;
  bool fused;        /* taps along z and their channels are one run of k */
  bool slides;       /* three taps along z, one voxel apart: sliding tiles fit */
  int64_t chunks;    /* tasks per phase, group and block */
  bool packs_itself; /* a task packs the weights it multiplies with */
  bool packed;       /* the weights are given packed */
  /* data */
  const float *input, *weight, *bias;
  float *output;
  float *packed_weight, *packed_bias, *zeros, *copied_input;
  conv_moments moments;
} conv_product;

/* Taps and places along axis `a` of the outputs of a phase. */
conv_axis conv_axis_of(const conv_product *p, int a, int64_t phase);
/* The weights of a block of columns, packed in the order tiles read them: [tap][depth][columns of the
 * block]. `phase` is that of the outputs, x, y and z its axes. */
float *conv_packed_block(const conv_product *p, const int64_t phase[3], const conv_axis *x,
                         const conv_axis *y, const conv_axis *z, int64_t group, int64_t block);
/* Packs one vector of columns of a group of a phase: task (phase · groups + group) · column_vectors +
 * vector. */
void conv_pack_weights(void *product, int64_t task);
void conv_pack_bias(const conv_product *p);
/* What tiles read in place of the input, where they do not read it where it lies. */
void conv_copy_input(conv_product *p, thread_pool *pool);

#endif
