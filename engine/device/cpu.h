/* The CPU device. */
#ifndef STRATA_DEVICE_CPU_H
#define STRATA_DEVICE_CPU_H

#include "device/device.h"

/* `threads` 0 = all cores. */
status cpu_device_open(int threads, device **out);

#endif
