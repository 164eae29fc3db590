/* 128-bit tiles for any processor the compiler knows: 8×1 and 4×2 vectors of 4 floats; 24×1, 12×2 and 8×3
 * in the 32 registers of NEON, which every AArch64 has. */
#define GEMM_LANES 4
#define GEMM_SET gemm_portable
#if defined(__aarch64__)
#define GEMM_NAME "NEON"
#define GEMM_ROWS_1 24
#define GEMM_ROWS_2 12
#define GEMM_ROWS_3 8
#define GEMM_SLIDE_SUM 8
#else
#define GEMM_NAME "portable"
#define GEMM_ROWS_1 8
#define GEMM_ROWS_2 4
#define GEMM_ROWS_3 0
#define GEMM_SLIDE_SUM 2
#endif
#define GEMM_ROWS_4 0
#include "ops/kernels/gemm_tile.h"
