/* The CUDA device for a group of tests, on the plug-in that STRATA_CUDA_PLUGIN names. */
#ifndef STRATA_TESTS_GPU_CUDA_FIXTURE_H
#define STRATA_TESTS_GPU_CUDA_FIXTURE_H

#include "device/device.h"

#include <stdio.h>

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

#endif
