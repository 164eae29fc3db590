/* 128-bit vectors for any processor the compiler knows. */
#define WINOGRAD_LANES 4
#define WINOGRAD_SET winograd_portable
#include "ops/kernels/convolution_winograd_tile.h"
