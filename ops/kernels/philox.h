/* Philox blocks in vector lanes, for kernels that address random numbers by position (base/rng.h
 * has the generator and its naming). */
#ifndef STRATA_OPS_PHILOX_H
#define STRATA_OPS_PHILOX_H

#include <stdint.h>

/* One block holds four numbers; this many blocks are made at a time. */
enum { PHILOX_BLOCK = 4, PHILOX_BLOCKS = 64 };

/* The blocks of philox4x32 whose counters start at `counter` and follow in [0]: bits[r][i] is
 * number r of block i. */
void philox_blocks(const uint32_t counter[4], const uint32_t key[2],
                   uint32_t bits[PHILOX_BLOCK][PHILOX_BLOCKS]);

#endif
