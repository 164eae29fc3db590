/* 512-bit tiles: 24×1, 12×2, 8×3, 6×4 vectors of 16 floats. */
#if defined(__AVX512F__)
#define GEMM_LANES 16
#define GEMM_SET gemm_avx512
#define GEMM_NAME "AVX-512"
#define GEMM_ROWS_1 24
#define GEMM_ROWS_2 12
#define GEMM_ROWS_3 8
#define GEMM_ROWS_4 6
#define GEMM_SLIDE_SUM 8
#include "ops/kernels/gemm_tile.h"
#endif
