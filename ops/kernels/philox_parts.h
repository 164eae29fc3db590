/* Philox4x32-10 (Salmon et al., SC 2011): its constants, and its vector versions. Internal to philox*.c. */
#ifndef STRATA_OPS_PHILOX_PARTS_H
#define STRATA_OPS_PHILOX_PARTS_H

#include "ops/kernels/philox.h"

enum { PHILOX_ROUNDS = 10 };
static const uint32_t philox_multiplier[2] = {0xD2511F53u, 0xCD9E8D57u};
static const uint32_t philox_key_step[2] = {0x9E3779B9u, 0xBB67AE85u};

void philox_blocks_avx2(const uint32_t counter[4], const uint32_t key[2],
                        uint32_t bits[PHILOX_BLOCK][PHILOX_BLOCKS]);
void philox_blocks_avx512(const uint32_t counter[4], const uint32_t key[2],
                          uint32_t bits[PHILOX_BLOCK][PHILOX_BLOCKS]);

#endif
