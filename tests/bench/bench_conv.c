/* Speed of the convolution kernels on the shapes of a UNETR step:
 *
 *   bench_conv [seconds per measurement] [name filter]
 *
 * prints, for every shape and pass, the best time and the rate in GFLOP/s, first in f32 and then
 * with factors in bf16. bench_conv.py prints the same table for PyTorch. */
#include "ops/kernels/convolution.h"
#include "ops/kernels/gemm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct bench_case {
  const char *kind; /* conv, flat (one tap along z), up (transposed k2s2), linear */
  int64_t extent, channels, features, kernel;
} bench_case;

static const bench_case cases[] = {
    {"conv", 48, 1, 16, 3},        {"conv", 48, 16, 16, 3},       {"conv", 48, 32, 16, 3},
    {"conv", 48, 1, 16, 1},        {"conv", 48, 32, 16, 1},       {"conv", 48, 16, 3, 1},
    {"conv", 24, 32, 32, 3},       {"conv", 24, 64, 32, 3},       {"conv", 24, 64, 32, 1},
    {"conv", 24, 64, 64, 3},       {"conv", 24, 128, 64, 3},      {"conv", 24, 128, 128, 3},
    {"conv", 12, 64, 64, 3},       {"conv", 12, 128, 64, 3},      {"conv", 6, 128, 128, 3},
    {"conv", 6, 256, 128, 3},      {"conv", 96, 16, 16, 3},       {"conv", 96, 32, 16, 3},
    {"up", 3, 192, 128, 2},        {"up", 6, 128, 64, 2},         {"up", 12, 64, 32, 2},
    {"up", 24, 32, 16, 2},         {"linear", 27, 192, 576, 1},   {"linear", 27, 192, 192, 1},
    {"linear", 27, 192, 768, 1},   {"linear", 27, 768, 192, 1},   {"linear", 27, 4096, 192, 1},
    {"linear", 216, 768, 3072, 1}, {"linear", 216, 3072, 768, 1}, {"linear", 216, 768, 2304, 1},
    {"linear", 216, 768, 768, 1},  {"linear", 216, 4096, 768, 1}, {"linear", 27648, 48, 144, 1},
    {"linear", 13824, 384, 96, 1}, {"linear", 1728, 192, 768, 1}, {"linear", 4096, 64, 256, 1},
    {"linear", 884736, 32, 16, 1}, {"conv", 96, 48, 48, 3},       {"linear", 64, 64, 32768, 1},
    {"conv", 5, 320, 320, 3},      {"conv", 6, 320, 320, 3},      {"conv", 8, 320, 320, 3},
    {"conv", 6, 768, 384, 3},      {"conv", 4, 256, 256, 3},      {"conv", 3, 768, 768, 3},
    {"conv", 48, 8, 8, 3},         {"flat", 48, 8, 8, 3},         {"flat", 48, 32, 32, 3},
    {"flat", 24, 64, 64, 3},       {"flat", 12, 128, 128, 3},
};

static conv_shape shape_of_case(const bench_case *c) {
  if (strcmp(c->kind, "linear") == 0) return conv_shape_linear(c->extent, c->channels, c->features);
  bool up = strcmp(c->kind, "up") == 0;
  conv_shape s = {.batch = 1,
                  .channels = up ? c->features : c->channels,
                  .features = up ? c->channels : c->features,
                  .groups = 1};
  for (int a = 0; a < 3; a++) {
    s.kernel[a] = a == 2 && strcmp(c->kind, "flat") == 0 ? 1 : c->kernel;
    s.stride[a] = up ? c->kernel : 1;
    s.padding[a] = up ? 0 : s.kernel[a] / 2;
    s.dilation[a] = 1;
    s.out[a] = c->extent;
    s.image[a] = up ? c->extent * c->kernel : c->extent;
  }
  return s;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct arrays {
  float *x, *y, *weight, *dweight;
  void *workspace;
} arrays;

static void run_pass(int pass, const conv_shape *s, const arrays *a, thread_pool *pool) {
  if (pass == 0) conv_forward(s, a->x, a->weight, NULL, a->y, NULL, a->workspace, pool);
  if (pass == 1) conv_backward_data(s, a->y, a->weight, NULL, a->x, a->workspace, pool);
  if (pass == 2) conv_backward_weight(s, a->x, a->y, a->dweight, NULL, a->workspace, pool);
}

static float *filled(int64_t count) {
  float *a = aligned_alloc(64, ((size_t)count * sizeof(float) + 63) / 64 * 64);
  if (!a) exit(1);
  for (int64_t i = 0; i < count; i++) a[i] = (float)(i % 13) / 13 - 0.5f;
  return a;
}

int main(int argc, char **argv) {
  double seconds = argc > 1 ? atof(argv[1]) : 0.1;
  thread_pool *pool = NULL;
  if (pool_create(0, &pool)) return 1;
  printf("%s kernels and %s, %d threads; GFLOP/s (ms)\n", gemm_best()->name,
         gemm_best_bf16() ? gemm_best_bf16()->name : "factors rounded to bf16", pool_threads(pool));
  printf("%-26s %18s %18s %18s\n", "shape", "forward", "data gradient", "weight gradient");
  for (size_t i = 0; i < 2 * (sizeof cases / sizeof cases[0]); i++) {
    const bench_case *c = &cases[i / 2];
    char name[64];
    snprintf(name, sizeof name, "%s %d %d>%d k%d%s", c->kind, (int)c->extent, (int)c->channels,
             (int)c->features, (int)c->kernel, i % 2 ? " bf16" : "");
    if (argc > 2 && !strstr(name, argv[2])) continue;
    conv_shape s = shape_of_case(c);
    s.bf16 = i % 2;
    int64_t xs = s.batch * s.image[0] * s.image[1] * s.image[2] * s.channels;
    int64_t ys = s.batch * s.out[0] * s.out[1] * s.out[2] * s.features;
    int64_t ws = s.features * s.channels * s.kernel[0] * s.kernel[1] * s.kernel[2];
    size_t bytes[3] = {conv_forward_workspace(&s), conv_backward_data_workspace(&s),
                       conv_backward_weight_workspace(&s)};
    size_t most = bytes[0] > bytes[1] ? bytes[0] : bytes[1];
    if (bytes[2] > most) most = bytes[2];
    arrays a = {filled(xs), filled(ys), filled(ws), filled(ws), filled((int64_t)(most / 4 + 16))};
    printf("%-26s", name);
    for (int k = 0; k < 3; k++) {
      /* A transposed convolution's forward pass is the data gradient. */
      int pass = strcmp(c->kind, "up") == 0 && k < 2 ? 1 - k : k;
      double best = 1e30, end = now() + seconds;
      for (int repeat = 0; repeat < 3 || now() < end; repeat++) {
        double start = now();
        run_pass(pass, &s, &a, pool);
        double took = now() - start;
        if (took < best) best = took;
      }
      printf("  %6.1f (%8.3f)", conv_flops(&s) / best * 1e-9, best * 1e3);
      fflush(stdout);
    }
    printf("\n");
    free(a.x), free(a.y), free(a.weight), free(a.dweight), free(a.workspace);
  }
  pool_destroy(pool);
  return 0;
}
