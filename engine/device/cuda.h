/* The CUDA device: found, loaded and wrapped. */
#ifndef STRATA_DEVICE_CUDA_H
#define STRATA_DEVICE_CUDA_H

#include "device/device.h"

/* Loads libstrata_cuda.so from $STRATA_CUDA_PLUGIN, or from beside the program, ../lib/strata and
 * the loader's path, and opens the GPU `card`, counted from 0. What is missing (the plug-in, a driver, a card) is an
 * error that says so. `threads` are for work that stays on the host; 0 = all cores.
 * CUDA keeps the card in use for each thread: the device is for the thread that opens it. */
status cuda_device_open(int card, int threads, device **out);

#endif
