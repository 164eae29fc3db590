/* Pairs of bf16 on 512-bit tiles, in the arithmetic of f32: for processors without vdpbf16ps. Halves
 * of both factors take twice the registers, so tiles are lower, and fewer. */
#if defined(__AVX512F__)
#define GEMM_LANES 16
#define GEMM_SET gemm_avx512_pairs
#define GEMM_NAME "avx512, bf16 emulated"
#define GEMM_ROWS_1 12
#define GEMM_ROWS_2 6
#define GEMM_ROWS_3 0
#define GEMM_ROWS_4 0
#define GEMM_BF16 1
#include "ops/kernels/gemm_tile.h"
#endif
