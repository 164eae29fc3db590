/* 512-bit tiles: 12×1 and 12×2 vectors of 16 floats. */
#if defined(__AVX512F__)
#define ATTENTION_LANES 16
#define ATTENTION_SET attention_avx512
#define ATTENTION_ROWS_1 12
#define ATTENTION_ROWS_2 12
#include "ops/kernels/attention_tile.h"
#endif
