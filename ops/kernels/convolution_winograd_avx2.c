/* 256-bit vectors. */
#if defined(__AVX2__)
#define WINOGRAD_LANES 8
#define WINOGRAD_SET winograd_avx2
#include "ops/kernels/convolution_winograd_tile.h"
#endif
