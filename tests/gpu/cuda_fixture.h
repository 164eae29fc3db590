/* The CUDA device for a group of tests, on the plug-in that STRATA_CUDA_PLUGIN names. */
#ifndef STRATA_TESTS_GPU_CUDA_FIXTURE_H
#define STRATA_TESTS_GPU_CUDA_FIXTURE_H

#include "device/device.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static device *cuda;

static int open_cuda(void **state) {
  (void)state;
  status error = device_open("cuda", 1, &cuda, NULL);
  if (error) error_print(stderr, error);
  return error != NULL;
}

static int close_cuda(void **state) {
  (void)state;
  device_close(cuda);
  return 0;
}

/* "emulator_waits" of the host so far, or its "emulator_single_launches", in no graph; 0 always where that
 * is not counted, on a card. */
static inline int64_t emulator_count(const char *what) {
  void *plugin = dlopen(getenv("STRATA_CUDA_PLUGIN"), RTLD_NOW | RTLD_NOLOAD);
  const int64_t *counted = plugin ? dlsym(plugin, what) : NULL;
  int64_t count = counted ? *counted : 0;
  if (plugin) dlclose(plugin);
  return count;
}

#endif
