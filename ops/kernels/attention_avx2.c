/* 256-bit tiles: 12×1 and 6×2 vectors of 8 floats. */
#if defined(__AVX2__)
#define ATTENTION_LANES 8
#define ATTENTION_SET attention_avx2
#define ATTENTION_ROWS_1 12
#define ATTENTION_ROWS_2 6
#include "ops/kernels/attention_tile.h"
#endif
