/* 128-bit tiles for any processor the compiler knows: 8×1 and 4×2 vectors of 4 floats, 12×1 and 12×2 in the
 * 32 registers of NEON. */
#define ATTENTION_LANES 4
#define ATTENTION_SET attention_portable
#if defined(__aarch64__)
#define ATTENTION_ROWS_1 12
#define ATTENTION_ROWS_2 12
#else
#define ATTENTION_ROWS_1 8
#define ATTENTION_ROWS_2 4
#endif
#include "ops/kernels/attention_tile.h"
