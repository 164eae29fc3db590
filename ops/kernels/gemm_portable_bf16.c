/* Pairs of bf16 on 128-bit tiles, in the arithmetic of f32. */
#define GEMM_LANES 4
#define GEMM_SET gemm_portable_bf16
#define GEMM_NAME "portable BF16"
#define GEMM_ROWS_1 8
#define GEMM_ROWS_2 4
#define GEMM_ROWS_3 0
#define GEMM_ROWS_4 0
#define GEMM_BF16 1
#include "ops/kernels/gemm_tile.h"
