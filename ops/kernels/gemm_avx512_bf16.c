/* Pairs of bf16 on 512-bit tiles, two products and their sum an instruction: vdpbf16ps, of Cooper
 * Lake, Sapphire Rapids, Zen 4 and later. It takes subnormal numbers for zero. */
#if defined(__AVX512BF16__)
#define GEMM_LANES 16
#define GEMM_SET gemm_avx512_bf16
#define GEMM_NAME "AVX-512 BF16"
#define GEMM_ROWS_1 24
#define GEMM_ROWS_2 12
#define GEMM_ROWS_3 8
#define GEMM_ROWS_4 6
#define GEMM_BF16 2
#include "ops/kernels/gemm_tile.h"
#endif
