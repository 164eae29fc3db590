/* The transforms of Winograd's filtering (convolution_winograd.c), compiled for every instruction set from
 * convolution_winograd_tile.h. Rows are n floats long, voxels with all their channels; transformed ones
 * begin `point` floats apart. No row that is written overlaps one that is read. */
#ifndef STRATA_OPS_KERNELS_CONVOLUTION_WINOGRAD_PARTS_H
#define STRATA_OPS_KERNELS_CONVOLUTION_WINOGRAD_PARTS_H

#include <stdbool.h>
#include <stdint.h>

enum { WINOGRAD_SIDE = 4, WINOGRAD_POINTS = WINOGRAD_SIDE * WINOGRAD_SIDE };

typedef struct winograd_transforms {
  int lanes; /* floats in a vector; a row has as many at least */
  /* Four by four rows of the input, in bf16 rounded: Bᵀ d B. */
  void (*input)(const float *const d[WINOGRAD_POINTS], int64_t n, bool rounds, float *to,
                int64_t point);
  /* Two by two rows of the output: Aᵀ m A. */
  void (*output)(const float *m, int64_t point, int64_t n, float *const y[4]);
  /* Two by two rows of the output's gradient, in bf16 rounded: A dy Aᵀ. */
  void (*gradient)(const float *const dy[4], int64_t n, bool rounds, float *to, int64_t point);
} winograd_transforms;

extern const winograd_transforms winograd_portable;
#if defined(__x86_64__)
extern const winograd_transforms winograd_avx2, winograd_avx512;
#endif

#endif
