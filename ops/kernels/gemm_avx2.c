/* 256-bit tiles: 12×1 and 6×2 vectors of 8 floats. */
#if defined(__AVX2__)
#define GEMM_LANES 8
#define GEMM_SET gemm_avx2
#define GEMM_NAME "AVX2"
#define GEMM_ROWS_1 12
#define GEMM_ROWS_2 6
#define GEMM_ROWS_3 0
#define GEMM_ROWS_4 0
#define GEMM_SLIDE_SUM 4
#include "ops/kernels/gemm_tile.h"
#endif
