/* What races.cpp has to know of a kernel that the emulator runs. */
#ifndef STRATA_EMULATOR_RACES_H
#define STRATA_EMULATOR_RACES_H

#include <cstdint>

/* A count that grows whenever something orders accesses to memory, and what it was when the launch and
 * the block began, and when __syncthreads last let the block's threads go on. Accesses of a lower count
 * came before. */
struct emulated_times {
  uint64_t now, launch, block, barrier;
  uint64_t warp_barrier[32]; /* of each warp: its last __syncwarp of all lanes */
  bool is_running;           /* a kernel */
};
extern emulated_times times;

unsigned emulator_thread(); /* of the block */
bool emulator_is_device_memory(const void *at);
/* Threads' own variables: stacks that one thread after another uses. */
bool emulator_is_on_stack(const void *at);

#endif
