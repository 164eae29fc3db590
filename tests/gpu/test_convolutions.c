/* Convolutions by our own kernels, in bf16 and TF32: results and gradients against the CPU's, and which
 * kernels computed them. Launches are counted by the emulator; on a card only the numbers are compared. */
#include "gpu/comparison.h"
#include "gpu/cuda_fixture.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static device *cpu;

typedef int64_t launch_count(const char *kernel);

/* Kernels of tensor cores, and the plain ones. */
static const char *const kernels[] = {"multiply_taps", "multiply_voxels", "gathered_product",
                                      "weight_pieces"};
enum { KERNELS = sizeof kernels / sizeof *kernels };

typedef struct counts {
  bool are_there;
  int64_t of[KERNELS];
} counts;

static counts count_launches(void) {
  counts c = {0};
  void *plugin = dlopen(getenv("STRATA_CUDA_PLUGIN"), RTLD_NOW | RTLD_NOLOAD);
  void *symbol = plugin ? dlsym(plugin, "emulator_launches") : NULL;
  launch_count *launches;
  memcpy(&launches, &symbol, sizeof launches);
  if (launches)
    for (int k = 0; k < KERNELS; k++) c.of[k] = launches(kernels[k]);
  c.are_there = launches != NULL;
  if (plugin) dlclose(plugin);
  return c;
}

/* A case, and how often each of `kernels` runs for its result and gradients. */
typedef struct expectation {
  const char *op, *attrs, *inputs;
  int launches[KERNELS];
} expectation;

static void expect_in(precision p, const expectation *e) {
  op_case one = {e->attrs, e->inputs, 0};
  setting s = {op_find(e->op), &one, 1, p};
  outcome out;
  counts before = count_launches();
  status error = compare_trial(&s, cpu, cuda, &out);
  if (error) error_print(stdout, error);
  assert_null(error);
  assert_true(out.is_there);
  counts after = count_launches();
  /* The CPU computes TF32 in f32. */
  double tolerance = p == PRECISION_BF16 ? 1e-4 : 2e-3;
  bool agrees = out.from_cpu <= tolerance && out.from_f32 <= 2e-2 && out.repeats;
  for (int k = 0; k < KERNELS && after.are_there; k++)
    agrees &= after.of[k] - before.of[k] == 2 * e->launches[k]; /* two runs */
  if (agrees) return;
  printf("in %s, %s: %.3g from the CPU, %.3g from f32, %s\n", precision_choices[p], out.shown,
         out.from_cpu, out.from_f32, out.repeats ? "repeats" : "two runs give different bits");
  for (int k = 0; k < KERNELS; k++)
    printf("  %-20s %lld launches in two runs, expected %d\n", kernels[k],
           (long long)(after.of[k] - before.of[k]), 2 * e->launches[k]);
  fail();
}

static void expect(const expectation *e) {
  expect_in(PRECISION_BF16, e);
  expect_in(PRECISION_TF32, e);
}

#define EXPECT_ALL(list)                                                                           \
  for (size_t i = 0; i < sizeof(list) / sizeof *(list); i++) expect(&(list)[i])

static void any_number_of_channels_goes_to_tensor_cores(void **state) {
  (void)state;
  static const expectation list[] = {
      {"conv3d", "{features: 1, kernel: 3}", "[1, 4, 3, 5, 1]", {2, 1, 0, 0}},
      {"conv3d", "{features: 3, kernel: 3}", "[1, 3, 4, 5, 5]", {2, 1, 0, 0}},
      {"conv3d", "{features: 5, kernel: 3}", "[2, 3, 2, 5, 17]", {2, 1, 0, 0}},
      {"conv3d", "{features: 33, kernel: 2, padding: 1}", "[1, 3, 3, 5, 33]", {2, 1, 0, 0}},
      {"conv3d", "{features: 17, kernel: 3}", "[1, 2, 3, 4, 3]", {2, 1, 0, 0}},
      {"conv3d", "{features: 16, kernel: 3}", "[1, 4, 4, 4, 16]", {2, 1, 0, 0}},
      {"conv3d", "{features: 72, kernel: [1, 3, 3]}", "[1, 2, 4, 5, 40]", {2, 1, 0, 0}},
      {"conv3d", "{features: 130, kernel: 2}", "[1, 3, 3, 3, 68]", {2, 1, 0, 0}},
  };
  EXPECT_ALL(list);
}

/* Factors as they are and copied, in tiles of 32, 64 and 128 columns: every way to fill a tile. */
static void factors_are_read_where_they_are_or_copied(void **state) {
  (void)state;
  static const expectation list[] = {
      /* Image and result where they are. */
      {"conv3d", "{features: 16, kernel: 1}", "[1, 3, 4, 3, 12]", {1, 1, 0, 0}},
      {"conv3d", "{features: 40, kernel: 1}", "[1, 3, 4, 3, 12]", {1, 1, 0, 0}},
      {"conv3d", "{features: 100, kernel: 1}", "[1, 3, 4, 3, 12]", {1, 1, 0, 0}},
      /* The result copied. */
      {"conv3d", "{features: 16, kernel: 2, stride: 2}", "[1, 4, 3, 5, 68]", {2, 1, 0, 0}},
      {"conv3d", "{features: 40, kernel: 2, stride: 2}", "[1, 4, 3, 5, 68]", {2, 1, 0, 0}},
      {"conv3d", "{features: 100, kernel: 2, stride: 2}", "[1, 4, 3, 5, 68]", {2, 1, 0, 0}},
      /* The image copied. */
      {"conv3d", "{features: 16, kernel: 3}", "[1, 3, 4, 3, 8]", {2, 1, 0, 0}},
      {"conv3d", "{features: 40, kernel: 3}", "[1, 3, 4, 3, 8]", {2, 1, 0, 0}},
      {"conv3d", "{features: 100, kernel: 3}", "[1, 3, 4, 3, 8]", {2, 1, 0, 0}},
      /* Few taps of gradients of the data, read where they are. */
      {"conv_transpose3d",
       "{features: 40, kernel: [1, 1, 3], stride: [1, 1, 2]}",
       "[1, 2, 3, 4, 12]",
       {2, 1, 0, 0}},
      {"conv_transpose3d",
       "{features: 100, kernel: [1, 1, 3], stride: [1, 1, 2]}",
       "[1, 2, 3, 4, 12]",
       {2, 1, 0, 0}},
  };
  EXPECT_ALL(list);
}

static void strides_and_dilations_go_to_tensor_cores(void **state) {
  (void)state;
  static const expectation list[] = {
      {"conv3d", "{features: 12, kernel: 3, stride: [2, 2, 1]}", "[1, 5, 7, 6, 8]", {2, 1, 0, 0}},
      {"conv3d", "{features: 20, kernel: 3, stride: 2}", "[2, 5, 4, 7, 12]", {2, 1, 0, 0}},
      {"conv3d",
       "{features: 9, kernel: [1, 2, 3], stride: [3, 1, 2], padding: [0, 1, 2]}",
       "[1, 7, 3, 5, 16]",
       {2, 1, 0, 0}},
      {"conv3d", "{features: 8, kernel: 3, dilation: 2}", "[1, 5, 6, 7, 24]", {2, 1, 0, 0}},
      {"conv3d",
       "{features: 8, kernel: 3, dilation: [1, 2, 3], stride: [2, 2, 2], padding: 2}",
       "[1, 7, 8, 9, 20]",
       {2, 1, 0, 0}},
      {"conv3d",
       "{features: 16, kernel: [5, 2, 3], dilation: [4, 3, 2], stride: [6, 2, 4], padding: 8}",
       "[1, 9, 8, 7, 8]",
       {2, 1, 0, 0}},
      {"conv3d", "{features: 16, kernel: 1, stride: 2}", "[1, 9, 9, 9, 16]", {2, 1, 0, 0}},
  };
  EXPECT_ALL(list);
}

static void results_of_one_voxel_go_to_tensor_cores(void **state) {
  (void)state;
  static const expectation list[] = {
      {"conv3d", "{features: 24, kernel: 3, padding: 0}", "[1, 3, 3, 3, 40]", {2, 1, 0, 0}},
      {"conv3d", "{features: 24, kernel: 1}", "[1, 1, 1, 1, 8]", {1, 1, 0, 0}},
      {"conv3d", "{features: 8, kernel: 3, stride: 4}", "[1, 2, 3, 4, 8]", {2, 1, 0, 0}},
  };
  EXPECT_ALL(list);
}

static void transposed_convolutions_go_to_tensor_cores(void **state) {
  (void)state;
  static const expectation list[] = {
      {"conv_transpose3d",
       "{features: 17, kernel: 3, stride: 2, padding: 1, output_padding: 1, bias: true}",
       "[1, 3, 2, 4, 12]",
       {2, 1, 0, 0}},
      {"conv_transpose3d",
       "{features: 8, kernel: [2, 3, 4], stride: [1, 2, 3]}",
       "[2, 3, 2, 3, 33]",
       {2, 1, 0, 0}},
      {"conv_transpose3d",
       "{features: 5, kernel: 2, stride: 3, bias: true}",
       "[1, 2, 3, 2, 8]",
       {2, 1, 0, 0}},
      {"conv_transpose3d",
       "{features: 8, kernel: 3, stride: 2, dilation: 2, bias: true}",
       "[1, 3, 2, 3, 8]",
       {2, 1, 0, 0}},
      /* Places apart are one matrix product; its gradients are not. */
      {"conv_transpose3d", "{features: 16, kernel: 2, stride: 2}", "[1, 2, 3, 2, 8]", {1, 1, 0, 0}},
  };
  EXPECT_ALL(list);
}

static void groups_of_eight_channels_go_to_tensor_cores_and_narrower_ones_do_not(void **state) {
  (void)state;
  static const expectation list[] = {
      {"conv3d", "{features: 32, kernel: 3, groups: 2}", "[1, 3, 4, 3, 16]", {2, 1, 0, 0}},
      {"conv3d",
       "{features: 34, kernel: 3, groups: 2, stride: 2}",
       "[1, 3, 4, 5, 18]",
       {2, 1, 0, 0}},
      {"conv_transpose3d",
       "{features: 24, kernel: 3, stride: 2, groups: 3, bias: true}",
       "[1, 2, 3, 2, 36]",
       {2, 1, 0, 0}},
      {"conv3d", "{features: 32, kernel: 3, groups: 2}", "[1, 3, 4, 3, 14]", {0, 0, 2, 1}},
      {"conv3d", "{features: 24, kernel: 3, groups: 6}", "[1, 3, 4, 3, 12]", {0, 0, 2, 1}},
  };
  EXPECT_ALL(list);
}

/* Few voxels and many channels: the depth is cut, and so are the voxels of the weight's gradient. */
static void deep_products_are_cut_into_pieces(void **state) {
  (void)state;
  static const expectation list[] = {
      {"conv3d", "{features: 40, kernel: 3, bias: true}", "[1, 2, 2, 2, 136]", {2, 1, 0, 0}},
      {"conv3d", "{features: 8, kernel: 1}", "[1, 9, 8, 11, 8]", {1, 1, 0, 0}},
      {"conv_transpose3d",
       "{features: 10, kernel: 3, stride: 1, bias: true}",
       "[1, 2, 2, 2, 96]",
       {2, 1, 0, 0}},
  };
  EXPECT_ALL(list);
}

/* What cuDNN has no engine for is left to our kernels: dilations in the emulator, and as in cuDNN
 * gradients of the data with a stride. */
static void what_the_library_refuses_goes_to_tensor_cores(void **state) {
  (void)state;
  static const expectation list[] = {
      {"conv3d", "{features: 16, kernel: 3}", "[1, 3, 4, 3, 8]", {0, 0, 0, 0}},
      {"conv3d", "{features: 16, kernel: 3, stride: [2, 2, 1]}", "[1, 5, 4, 3, 8]", {1, 0, 0, 0}},
      {"conv_transpose3d",
       "{features: 5, kernel: 3, stride: 2, bias: true}",
       "[1, 2, 3, 3, 8]",
       {1, 0, 0, 0}},
      {"conv3d", "{features: 16, kernel: 3, dilation: 2}", "[1, 3, 4, 5, 8]", {2, 1, 0, 0}},
  };
  device *with_library, *without = cuda;
  unsetenv("STRATA_CUDNN");
  assert_null(device_open("cuda", 1, &with_library, NULL));
  cuda = with_library;
  if (count_launches().are_there) /* on a card, cuDNN may not be installed */
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) expect_in(PRECISION_BF16, &list[i]);
  cuda = without;
  device_close(with_library);
}

static int open_devices(void **state) {
  setenv("STRATA_CUDNN", "off", 1);
  status error = device_open("cpu", 1, &cpu, NULL);
  if (error) error_print(stderr, error);
  return error || open_cuda(state);
}

static int close_devices(void **state) {
  device_close(cpu);
  return close_cuda(state);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(any_number_of_channels_goes_to_tensor_cores),
      cmocka_unit_test(factors_are_read_where_they_are_or_copied),
      cmocka_unit_test(strides_and_dilations_go_to_tensor_cores),
      cmocka_unit_test(results_of_one_voxel_go_to_tensor_cores),
      cmocka_unit_test(transposed_convolutions_go_to_tensor_cores),
      cmocka_unit_test(groups_of_eight_channels_go_to_tensor_cores_and_narrower_ones_do_not),
      cmocka_unit_test(what_the_library_refuses_goes_to_tensor_cores),
      cmocka_unit_test(deep_products_are_cut_into_pieces),
  };
  return cmocka_run_group_tests(tests, open_devices, close_devices);
}
