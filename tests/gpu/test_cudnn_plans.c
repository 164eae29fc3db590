/* What cuDNN plans for our convolutions, for an H100 that need not be there. */
#include "device/cuda/cudnn_plans.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* As cuDNN writes the properties of a card. */
static const char h100[] =
    "{\"deviceName\": \"NVIDIA H100\", \"cudaDeviceId\": 0, \"deviceVer\": 900, \"driverVer\": 13000,"
    " \"isTccDriver\": 0, \"l2CacheSize\": 52428800, \"maxCtasPerSM\": 32,"
    " \"maxRegistersPerSM\": 65536, \"maxSharedMemoryPerBlock\": 49152,"
    " \"maxSharedMemoryPerBlockOptin\": 232448, \"maxThreadsPerBlock\": 1024,"
    " \"maxThreadsPerSM\": 2048, \"memClockRateKHz\": 2619000, \"multiProcessorCount\": 132,"
    " \"pciDeviceId\": 0, \"regsPerBlock\": 65536, \"reservedSharedMemoryPerBlock\": 1024,"
    " \"oversizedSharedMemoryPerBlock\": 0, \"smClockRateKHz\": 1980000, \"supportCoopLaunch\": 1,"
    " \"totalGlobalMem\": 85000000000, \"warpSize\": 32, \"maxBlockSize\": [1024, 1024, 64],"
    " \"maxGridSize\": [2147483647, 65535, 65535]}";

static const char *library = "libcudnn.so.9";

/* A filter of `kernel` voxels a side on a cube. */
static convolution cube(convolution_pass pass, int64_t channels, int64_t features, int64_t side,
                        int64_t kernel, int64_t stride, int64_t dilation) {
  convolution c = {
      .pass = pass, .batch = 2, .channels = channels, .features = features, .groups = 1};
  int64_t padding = stride > 1 ? 0 : dilation * (kernel - 1) / 2;
  for (int a = 0; a < 3; a++) {
    c.image[a] = side;
    c.kernel[a] = kernel;
    c.stride[a] = stride;
    c.padding[a] = padding;
    c.dilation[a] = dilation;
    c.out[a] = (side + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
  }
  return c;
}

static cudnn_plans *open_plans(void) {
  char why[CUDNN_WHY_BYTES];
  cudnn_plans *p = cudnn_plans_open(library, h100, NULL, why);
  if (!p) fail_msg("%s", why);
  return p;
}

static void every_convolution_in_f32_has_an_exact_engine(void **state) {
  (void)state;
  enum { STRICT_NAN = 9, MOST_BYTES = 512 << 20 };
  cudnn_plans *p = open_plans();
  const convolution shapes[] = {cube(CONVOLUTION_FORWARD, 16, 16, 32, 3, 1, 1),
                                cube(CONVOLUTION_FORWARD, 1, 16, 32, 3, 1, 1),
                                cube(CONVOLUTION_FORWARD, 16, 14, 32, 1, 1, 1),
                                cube(CONVOLUTION_FORWARD, 32, 64, 24, 2, 2, 1),
                                cube(CONVOLUTION_FORWARD, 8, 8, 17, 3, 1, 2),
                                cube(CONVOLUTION_FORWARD, 8, 12, 16, 3, 2, 1) /* one voxel over */};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    for (int pass = CONVOLUTION_FORWARD; pass <= CONVOLUTION_BACKWARD_WEIGHT; pass++) {
      convolution c = shapes[i];
      c.pass = pass;
      const cudnn_plan *plan = cudnn_plan_find(p, &c);
      if (!plan) fail_msg("no engine for shape %zu, pass %d", i, pass);
      /* No TF32, no half sums, no Winograd, nothing that differs from run to run. */
      assert_int_equal(cudnn_plan_notes(plan) & ~((int64_t)1 << STRICT_NAN), 0);
      assert_true(cudnn_plan_workspace(plan) <= MOST_BYTES);
      assert_ptr_equal(cudnn_plan_find(p, &c), plan);
    }
  cudnn_plans_close(p);
}

/* TF32's engines say "tensor cores" and nothing else: "down-converts its inputs" would be f16. */
static void tf32_allows_tensor_cores_and_no_other_rounding(void **state) {
  (void)state;
  enum { STRICT_NAN = 9, TENSOR_CORE = 0 };
  cudnn_plans *p = open_plans();
  const convolution shapes[] = {cube(CONVOLUTION_FORWARD, 16, 16, 32, 3, 1, 1),
                                cube(CONVOLUTION_FORWARD, 1, 16, 32, 3, 1, 1),
                                cube(CONVOLUTION_FORWARD, 64, 14, 32, 1, 1, 1),
                                cube(CONVOLUTION_FORWARD, 128, 128, 24, 3, 1, 1),
                                cube(CONVOLUTION_FORWARD, 32, 64, 24, 2, 2, 1)};
  for (int pass = CONVOLUTION_FORWARD; pass <= CONVOLUTION_BACKWARD_WEIGHT; pass++) {
    int on_tensor_cores = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
      convolution c = shapes[i];
      c.pass = pass;
      c.tf32 = 1;
      const cudnn_plan *plan = cudnn_plan_find(p, &c);
      if (!plan) fail_msg("no engine for shape %zu, pass %d", i, pass);
      int64_t notes = cudnn_plan_notes(plan);
      assert_int_equal(notes & ~((int64_t)1 << STRICT_NAN | (int64_t)1 << TENSOR_CORE), 0);
      on_tensor_cores += notes >> TENSOR_CORE & 1;
    }
    assert_true(on_tensor_cores >= 3);
  }
  cudnn_plans_close(p);
}

static void groups_are_planned(void **state) {
  (void)state;
  cudnn_plans *p = open_plans();
  for (int pass = CONVOLUTION_FORWARD; pass <= CONVOLUTION_BACKWARD_WEIGHT; pass++) {
    convolution c = cube(pass, 8, 12, 16, 3, 1, 1);
    c.groups = 4;
    assert_non_null(cudnn_plan_find(p, &c));
  }
  cudnn_plans_close(p);
}

static void sizes_that_do_not_fit_together_have_no_plan(void **state) {
  (void)state;
  cudnn_plans *p = open_plans();
  convolution c = cube(CONVOLUTION_FORWARD, 16, 16, 16, 3, 1, 1);
  c.out[2]++;
  assert_null(cudnn_plan_find(p, &c));
  assert_null(cudnn_plan_find(p, &c)); /* which is remembered */
  c.out[2]--;
  assert_non_null(cudnn_plan_find(p, &c));
  cudnn_plans_close(p);
}

static void a_library_that_is_not_cudnn_is_named(void **state) {
  (void)state;
  char why[CUDNN_WHY_BYTES];
  assert_null(cudnn_plans_open("/nowhere/libcudnn.so.9", h100, NULL, why));
  assert_non_null(strstr(why, "/nowhere/libcudnn.so.9"));
  assert_null(cudnn_plans_open("libc.so.6", h100, NULL, why));
  assert_non_null(strstr(why, "libc.so.6 has no cudnn"));
  assert_null(cudnn_plans_open(library, "{}", NULL, why));
  assert_non_null(strstr(why, library));
}

int main(void) {
  char why[CUDNN_WHY_BYTES];
  const char *chosen = getenv("STRATA_CUDNN");
  if (chosen && *chosen) library = chosen;
  void *there = dlopen(library, RTLD_LAZY);
  cudnn_plans *p = cudnn_plans_open(library, h100, NULL, why);
  if (!there || (!p && strstr(why, "headers"))) {
    printf("skipped: %s\n", why);
    return 77;
  }
  if (p) printf("cuDNN %d\n", cudnn_plans_version(p));
  cudnn_plans_close(p);
  dlclose(there);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_convolution_in_f32_has_an_exact_engine),
      cmocka_unit_test(tf32_allows_tensor_cores_and_no_other_rounding),
      cmocka_unit_test(groups_are_planned),
      cmocka_unit_test(sizes_that_do_not_fit_together_have_no_plan),
      cmocka_unit_test(a_library_that_is_not_cudnn_is_named),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
