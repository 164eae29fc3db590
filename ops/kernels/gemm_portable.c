/* 128-bit tiles for any processor the compiler knows: 8×1 and 4×2 vectors of 4 floats. */
#define GEMM_LANES 4
#define GEMM_SET gemm_portable
#define GEMM_NAME "portable"
#define GEMM_ROWS_1 8
#define GEMM_ROWS_2 4
#define GEMM_ROWS_3 0
#define GEMM_ROWS_4 0
#define GEMM_SLIDE_SUM 2
#include "ops/kernels/gemm_tile.h"
