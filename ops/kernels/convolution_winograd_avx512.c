/* 512-bit vectors. */
#if defined(__AVX512F__)
#define WINOGRAD_LANES 16
#define WINOGRAD_SET winograd_avx512
#include "ops/kernels/convolution_winograd_tile.h"
#endif
