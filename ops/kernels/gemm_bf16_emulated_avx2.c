/* Pairs of bf16 on 256-bit tiles, in the arithmetic of f32. */
#if defined(__AVX2__)
#define GEMM_LANES 8
#define GEMM_SET gemm_avx2_bf16
#define GEMM_NAME "avx2, bf16 emulated"
#define GEMM_ROWS_1 12
#define GEMM_ROWS_2 6
#define GEMM_ROWS_3 0
#define GEMM_ROWS_4 0
#define GEMM_BF16 1
#include "ops/kernels/gemm_tile.h"
#endif
