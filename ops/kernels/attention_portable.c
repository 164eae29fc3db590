/* 128-bit tiles for any processor the compiler knows: 8×1 and 4×2 vectors of 4 floats. */
#define ATTENTION_LANES 4
#define ATTENTION_SET attention_portable
#define ATTENTION_ROWS_1 8
#define ATTENTION_ROWS_2 4
#include "ops/kernels/attention_tile.h"
