/* Convolutions against their definition, on every kernel set the processor runs, and the operators
 * against PyTorch. */
#include "ops/conv/conv_attrs.h"
#include "ops/kernels/bf16.h"
#include "ops/kernels/convolution.h"
#include "ops/kernels/gemm.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static rng stream_of(uint64_t trial) {
  return rng_open((rng_key){17, trial}, 3);
}

static int64_t between(rng *r, int64_t low, int64_t high) {
  return low + (int64_t)rng_below(r, (uint32_t)(high - low + 1));
}

/* An array of its own size, so that a sanitizer sees one float too many. */
static float *array(int64_t count) {
  float *a = malloc((size_t)count * sizeof *a);
  assert_non_null(a);
  return a;
}

static float *random_array(rng *r, int64_t count) {
  float *a = array(count);
  for (int64_t i = 0; i < count; i++) a[i] = rng_normal(r);
  return a;
}

/* Undefined contents are no excuse: the workspace starts as NaN. */
static void *workspace(size_t bytes) {
  void *w = NULL;
  assert_int_equal(posix_memalign(&w, 64, bytes ? bytes : 64), 0);
  memset(w, 0xff, bytes);
  return w;
}

static int64_t volume(const int64_t e[3]) {
  return e[0] * e[1] * e[2];
}

static void describe(char text[512], const conv_shape *s) {
  int used = snprintf(text, 512, "batch %d channels %d features %d groups %d", (int)s->batch,
                      (int)s->channels, (int)s->features, (int)s->groups);
  for (int a = 0; a < 3; a++)
    used += snprintf(text + used, 512 - (size_t)used,
                     " | image %d kernel %d/%d padding %d dilation %d", (int)s->image[a],
                     (int)s->kernel[a], (int)s->stride[a], (int)s->padding[a], (int)s->dilation[a]);
}

static const char *kernels_of(const conv_shape *s) {
  return s->bf16 && gemm_best_bf16() ? gemm_best_bf16()->name : gemm_best()->name;
}

/* In bf16 as close: what is expected comes of rounded factors. */
static void assert_close(const char *what, const conv_shape *s, const float *expected,
                         const float *got, int64_t count, double terms) {
  for (int64_t i = 0; i < count; i++) {
    if (fabs((double)expected[i] - got[i]) <= 1e-5 * sqrt(terms) * 4 + 1e-5 * fabs(expected[i]))
      continue;
    char text[512];
    describe(text, s);
    fail_msg("%s with %s kernels, element %d: expected %g, got %g (%s)", what, kernels_of(s),
             (int)i, expected[i], got[i], text);
  }
}

/* Results must agree bit for bit. `how`: what differs between the two. */
static void assert_identical(const char *what, const char *how, const conv_shape *s, const float *a,
                             const float *b, int64_t count) {
  if (memcmp(a, b, (size_t)count * sizeof *a) == 0) return;
  char text[512];
  describe(text, s);
  fail_msg("%s with %s kernels differs %s (%s)", what, kernels_of(s), how, text);
}

/* The forward pass, or the data gradient, with the weight packed once: in memory of its own size. */
static void check_packed(const conv_shape *given, bool transposed, const float *in, const float *w,
                         const float *bias, const float *expected, int64_t count,
                         thread_pool *pool) {
  conv_shape s = *given;
  size_t bytes = conv_packed_bytes(&s, transposed);
  if (bytes == 0) return;
  void *packed = workspace(bytes);
  conv_pack(&s, transposed, w, packed, pool);
  s.packed = true;
  float *out = array(count);
  void *scratch =
      workspace(transposed ? conv_backward_data_workspace(&s) : conv_forward_workspace(&s));
  if (transposed)
    conv_backward_data(&s, in, packed, bias, out, scratch, pool);
  else
    conv_forward(&s, in, packed, bias, out, NULL, scratch, pool);
  assert_identical(transposed ? "data gradient" : "forward", "with a packed weight", &s, expected,
                   out, count);
  free(packed), free(out), free(scratch);
}

/* Mean and Σ(y − mean)² of each channel of each sample, beside a result that stays the same to the bit. */
static void check_moments(const conv_shape *given, const float *x, const float *w,
                          const float *bias, const float *y, thread_pool *pool) {
  conv_shape s = *given;
  if (!conv_makes_moments(&s)) return;
  s.moments = true;
  int64_t voxels = volume(s.out), ys = s.batch * voxels * s.features;
  int64_t count = s.batch * 2 * s.features;
  float *result[2], *out = array(ys);
  for (int t = 0; t < 2; t++) {
    void *scratch = workspace(conv_forward_workspace(&s));
    result[t] = array(count);
    conv_forward(&s, x, w, bias, out, result[t], scratch, t ? pool : NULL);
    assert_identical("forward", "with moments", &s, y, out, ys);
    free(scratch);
  }
  assert_identical("moments", "between 1 and 3 threads", &s, result[0], result[1], count);
  for (int64_t i = 0; i < s.batch * s.features; i++) {
    int64_t n = i / s.features, f = i % s.features;
    const float *from = y + n * voxels * s.features + f;
    double mean = 0, squares = 0;
    for (int64_t v = 0; v < voxels; v++) mean += (double)from[v * s.features] / (double)voxels;
    for (int64_t v = 0; v < voxels; v++)
      squares += ((double)from[v * s.features] - mean) * ((double)from[v * s.features] - mean);
    double deviation = sqrt(squares / (double)voxels);
    double got[] = {(double)result[0][n * 2 * s.features + f],
                    (double)result[0][(n * 2 + 1) * s.features + f]};
    if (fabs(got[0] - mean) <= 1e-6 * (deviation + fabs(mean)) + 1e-7 &&
        fabs(got[1] - squares) <= 1e-5 * squares + 1e-6)
      continue;
    char text[512];
    describe(text, &s);
    fail_msg(
        "moments with %s kernels, sample %d, channel %d: expected %g and %g, got %g and %g (%s)",
        kernels_of(&s), (int)n, (int)f, mean, squares, got[0], got[1], text);
  }
  free(result[0]), free(result[1]), free(out);
}

static float *rounded(const float *from, int64_t count, bool bf16) {
  float *to = array(count);
  for (int64_t i = 0; i < count; i++) to[i] = bf16 ? bf16_round(from[i]) : from[i];
  return to;
}

static void check_element(const conv_shape *s, rng *r, thread_pool *pool) {
  int64_t xs = s->batch * volume(s->image) * s->channels;
  int64_t ys = s->batch * volume(s->out) * s->features;
  int64_t ws = s->features * (s->channels / s->groups) * volume(s->kernel);
  float *x = random_array(r, xs), *dy = random_array(r, ys), *w = random_array(r, ws);
  float *bias = random_array(r, s->features), *back_bias = random_array(r, s->channels);
  float *y0 = array(ys), *dx0 = array(xs), *dw0 = array(ws), *db0 = array(s->features);
  bool with_bias = rng_below(r, 2);
  double filter = (double)volume(s->kernel);
  /* Depthwise filters are f32 in any case; so is the gradient of the bias. */
  bool depthwise = s->groups > 1 && s->channels == s->groups && s->features == s->groups;
  bool rounds = s->bf16 && !depthwise;
  float *x_factor = rounded(x, xs, rounds), *dy_factor = rounded(dy, ys, rounds);
  float *w_factor = rounded(w, ws, rounds);
  conv_forward_reference(s, x_factor, w_factor, with_bias ? bias : NULL, y0);
  conv_backward_data_reference(s, dy_factor, w_factor, with_bias ? back_bias : NULL, dx0);
  conv_backward_weight_reference(s, x_factor, dy, dw0, db0);
  conv_backward_weight_reference(s, x_factor, dy_factor, dw0, NULL);
  free(x_factor), free(dy_factor), free(w_factor);

  const gemm_kernels *sets[2 * GEMM_MAX_SETS];
  int set_count = gemm_available(sets);
  if (s->bf16) set_count += gemm_available_bf16(sets + set_count);
  for (int i = 0; i < set_count; i++) {
    gemm_choose(sets[i]);
    float *result[2][4];
    for (int t = 0; t < 2; t++) {
      float *y = result[t][0] = array(ys), *dx = result[t][1] = array(xs);
      float *dw = result[t][2] = array(ws), *db = result[t][3] = array(s->features);
      thread_pool *threads = t ? pool : NULL;
      void *scratch = workspace(conv_forward_workspace(s));
      conv_forward(s, x, w, with_bias ? bias : NULL, y, NULL, scratch, threads);
      free(scratch);
      scratch = workspace(conv_backward_data_workspace(s));
      conv_backward_data(s, dy, w, with_bias ? back_bias : NULL, dx, scratch, threads);
      free(scratch);
      scratch = workspace(conv_backward_weight_workspace(s));
      conv_backward_weight(s, x, dy, dw, db, scratch, threads);
      free(scratch);
    }
    double group_channels = (double)(s->channels / s->groups);
    double group_features = (double)(s->features / s->groups);
    double voxels = (double)(s->batch * volume(s->out));
    assert_close("forward", s, y0, result[0][0], ys, filter * group_channels);
    assert_close("data gradient", s, dx0, result[0][1], xs, filter * group_features);
    assert_close("weight gradient", s, dw0, result[0][2], ws, voxels);
    assert_close("bias gradient", s, db0, result[0][3], s->features, voxels);
    const char *how = "between 1 and 3 threads";
    assert_identical("forward", how, s, result[0][0], result[1][0], ys);
    assert_identical("data gradient", how, s, result[0][1], result[1][1], xs);
    assert_identical("weight gradient", how, s, result[0][2], result[1][2], ws);
    assert_identical("bias gradient", how, s, result[0][3], result[1][3], s->features);
    check_moments(s, x, w, with_bias ? bias : NULL, result[0][0], pool);
    check_packed(s, false, x, w, with_bias ? bias : NULL, result[0][0], ys, pool);
    check_packed(s, true, dy, w, with_bias ? back_bias : NULL, result[0][1], xs, pool);
    for (int t = 0; t < 2; t++)
      for (int k = 0; k < 4; k++) free(result[t][k]);
  }
  gemm_choose(NULL);
  free(x), free(dy), free(w), free(bias), free(back_bias);
  free(y0), free(dx0), free(dw0), free(db0);
}

static void check_shape(const conv_shape *given, rng *r, thread_pool *pool) {
  conv_shape s = *given;
  for (int bf16 = 0; bf16 < 2; bf16++) {
    s.bf16 = bf16;
    check_element(&s, r, pool);
  }
}

static void set_out(conv_shape *s) {
  for (int a = 0; a < 3; a++)
    s->out[a] =
        (s->image[a] + 2 * s->padding[a] - s->dilation[a] * (s->kernel[a] - 1) - 1) / s->stride[a] +
        1;
}

static conv_shape cube(int64_t image, int64_t channels, int64_t features, int64_t kernel,
                       int64_t stride, int64_t padding) {
  conv_shape s = {.batch = 1, .channels = channels, .features = features, .groups = 1};
  for (int a = 0; a < 3; a++) {
    s.image[a] = image;
    s.kernel[a] = kernel;
    s.stride[a] = stride;
    s.padding[a] = padding;
    s.dilation[a] = 1;
  }
  set_out(&s);
  return s;
}

static conv_shape in_batch(int64_t samples, conv_shape s) {
  s.batch = samples;
  return s;
}

static void random_shapes_agree_with_the_definition(void **state) {
  thread_pool *pool = *state;
  static const int64_t counts[] = {1, 2, 3, 4, 5, 8, 15, 16, 17, 24, 32, 33};
  int trials = 120;
  for (int trial = 0; trial < trials; trial++) {
    rng r = stream_of((uint64_t)trial);
    conv_shape s = {.batch = between(&r, 1, 2),
                    .groups = between(&r, 0, 3) ? 1 : between(&r, 2, 3)};
    s.channels = s.groups * counts[rng_below(&r, s.groups > 1 ? 6 : 12)];
    s.features = s.groups * counts[rng_below(&r, s.groups > 1 ? 6 : 12)];
    int plain = between(&r, 0, 1);
    for (int a = 0; a < 3; a++) {
      s.kernel[a] = plain ? 3 : between(&r, 1, 4);
      s.stride[a] = plain ? 1 : between(&r, 1, 3);
      s.dilation[a] = between(&r, 0, 4) ? 1 : 2;
      s.padding[a] = plain ? 1 : between(&r, 0, 3);
      int64_t reach = s.dilation[a] * (s.kernel[a] - 1) + 1 - 2 * s.padding[a];
      s.image[a] = (reach > 1 ? reach : 1) + between(&r, 0, a == 2 ? 13 : 4);
    }
    set_out(&s);
    check_shape(&s, &r, pool);
  }
}

static void depthwise_shapes_agree_with_the_definition(void **state) {
  static const int64_t channels[] = {2, 5, 16, 31, 32, 48, 67};
  for (int trial = 0; trial < 40; trial++) {
    rng r = stream_of(3000 + (uint64_t)trial);
    int64_t width = channels[rng_below(&r, 7)];
    conv_shape s = {
        .batch = between(&r, 1, 2), .channels = width, .features = width, .groups = width};
    for (int a = 0; a < 3; a++) {
      /* The first filter has more than 64 rows, the most that are added in one visit. */
      s.kernel[a] = trial == 0 ? (a < 2 ? 9 : 1) : between(&r, 1, 4);
      s.stride[a] = between(&r, 1, 3);
      s.dilation[a] = between(&r, 0, 3) ? 1 : 2;
      s.padding[a] = trial == 0 ? s.kernel[a] / 2 : between(&r, 0, 3);
      int64_t reach = s.dilation[a] * (s.kernel[a] - 1) + 1 - 2 * s.padding[a];
      s.image[a] = (reach > 1 ? reach : 1) + between(&r, 0, a == 2 ? 9 : 4);
    }
    if (trial == 0) s.stride[0] = s.stride[1] = 1, s.image[0] = s.image[1] = 10;
    set_out(&s);
    check_shape(&s, &r, *state);
  }
}

/* A filter of 3×3 along x and y, `least_z` to three taps along z, and an image. */
static void draw_extents(conv_shape *s, rng *r, int64_t least_z, bool many) {
  for (int a = 0; a < 3; a++) {
    s->kernel[a] = a == 2 && !many ? between(r, least_z, 3) : 3;
    s->stride[a] = s->dilation[a] = 1;
    s->padding[a] = between(r, 0, s->kernel[a] - 1);
    s->image[a] = many ? 41 - a : between(r, 6, 9);
  }
}

/* Filters of 3×3 along x and y that step by one, of shapes that take Winograd's way: odd extents, any
 * padding, z cut into uneven strips, and more tiles than are transformed together. */
static void minimal_filtering_agrees_with_the_definition(void **state) {
  for (int trial = 0; trial < 42; trial++) {
    rng r = stream_of(5000 + (uint64_t)trial);
    bool long_z = trial == 40, many = trial == 41;
    conv_shape s = {.batch = many ? 1 : between(&r, 1, 2),
                    .channels = many ? 9 : between(&r, 8, long_z ? 60 : 40),
                    .features = many ? 11 : between(&r, 8, long_z ? 60 : 40),
                    .groups = 1};
    draw_extents(&s, &r, 1, many);
    if (long_z) s.image[2] = 67;
    set_out(&s);
    check_shape(&s, &r, *state);
  }
}

/* The same with eight channels or features, which fill half a vector of AVX-512, so that neighbours along z
 * share one. */
static void minimal_filtering_of_pairs_agrees_with_the_definition(void **state) {
  for (int trial = 0; trial < 26; trial++) {
    rng r = stream_of(6000 + (uint64_t)trial);
    bool long_z = trial == 24, many = trial == 25;
    conv_shape s = {.batch = many ? 1 : between(&r, 1, 2), .groups = 1};
    s.channels = long_z || many || trial % 3 == 0 ? 8 : between(&r, 8, 40);
    s.features = long_z || many || trial % 3 == 1 ? 8 : between(&r, 8, 40);
    draw_extents(&s, &r, 2, many);
    if (long_z) s.image[2] = 403;
    set_out(&s);
    check_shape(&s, &r, *state);
  }
}

static void shapes_with_paths_of_their_own_agree_with_the_definition(void **state) {
  conv_shape shapes[] = {
      {0},
      cube(9, 1, 16, 3, 1, 1),   /* few channels: padded copy, z fused */
      cube(9, 16, 3, 1, 1, 0),   /* pointwise head */
      cube(8, 1, 24, 4, 4, 0),   /* patch embedding */
      cube(8, 5, 7, 2, 2, 0),    /* its adjoint is the k2s2 transposed convolution */
      cube(9, 5, 7, 2, 2, 0),    /* an image the steps do not fill */
      cube(7, 3, 4, 1, 2, 0),    /* steps longer than the filter */
      cube(3, 26, 170, 3, 1, 1), /* rows shorter than a tile, weights in several visits */
      cube(4, 130, 33, 3, 1, 1),
      cube(3, 17, 27, 3, 1, 1),
      cube(5, 16, 16, 3, 1, 0),
      cube(2, 3, 3, 5, 1, 4), /* padding wider than the image */
      conv_shape_linear(27, 192, 100),
      conv_shape_linear(300, 20, 3),
      conv_shape_linear(5000, 16, 3),
      conv_shape_linear(1, 1000, 10),
      conv_shape_linear(64, 128, 128), /* products in blocks of k */
      conv_shape_linear(77, 301, 130),
      conv_shape_linear(270, 128, 203),
      conv_shape_linear(20, 1030, 33), /* the weight gradient alone: long and narrow */
      conv_shape_linear(19, 2400, 37), /* slabs of k, forward and data gradient */
      conv_shape_linear(41, 18, 3100),
      cube(5, 139, 257, 1, 1, 0),
      /* Many weights over few voxels. */
      cube(4, 70, 97, 3, 1, 1),
      cube(5, 40, 48, 3, 2, 1),
      cube(6, 64, 40, 4, 2, 1),
      in_batch(3, cube(2, 65, 50, 3, 1, 1)),
      {.batch = 1,
       .channels = 50,
       .features = 66,
       .groups = 1,
       .image = {6, 5, 4},
       .kernel = {3, 2, 5},
       .stride = {1, 3, 2},
       .padding = {1, 0, 2},
       .dilation = {2, 1, 1},
       .out = {4, 2, 2}},
      /* Several samples, whose borders lie within tasks, tiles and rows of parts. */
      in_batch(3, cube(9, 1, 16, 3, 1, 1)),
      in_batch(7, cube(3, 5, 7, 1, 1, 0)),
      in_batch(5, cube(6, 24, 20, 1, 1, 0)),
      in_batch(9, cube(2, 32, 300, 1, 1, 0)),
      in_batch(3, cube(3, 2050, 20, 1, 1, 0)),
      in_batch(3, cube(7, 12, 40, 3, 1, 1)),
  };
  /* Voxels made side by side along z only. */
  conv_shape flat = {.batch = 1,
                     .channels = 32,
                     .features = 9,
                     .groups = 1,
                     .image = {4, 3, 8},
                     .kernel = {2, 1, 2},
                     .stride = {1, 1, 2},
                     .dilation = {1, 1, 1}};
  set_out(&flat);
  shapes[0] = flat;
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
    rng r = stream_of(1000 + i);
    check_shape(&shapes[i], &r, *state);
  }
}

/* Mean 1000 and standard deviation 0.1: squares that are not taken about the mean would have lost every
 * digit. */
static void moments_survive_a_large_offset(void **state) {
  conv_shape shapes[] = {cube(20, 1, 20, 3, 1, 1), cube(20, 16, 16, 3, 1, 1),
                         cube(20, 32, 24, 1, 1, 0)};
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
    conv_shape *s = &shapes[i];
    rng r = stream_of(4000 + i);
    int64_t ws = s->features * s->channels * volume(s->kernel);
    float *x = random_array(&r, volume(s->image) * s->channels), *w = random_array(&r, ws);
    float *bias = array(s->features), *y = array(volume(s->out) * s->features);
    for (int64_t k = 0; k < ws; k++) w[k] *= 0.1f / sqrtf((float)(s->channels * volume(s->kernel)));
    for (int64_t k = 0; k < s->features; k++) bias[k] = 1000;
    void *scratch = workspace(conv_forward_workspace(s));
    conv_forward(s, x, w, bias, y, NULL, scratch, *state);
    check_moments(s, x, w, bias, y, *state);
    free(x), free(w), free(bias), free(y), free(scratch);
  }
}

/* ---- the operators, beside PyTorch ----------------------------------------------------------- */

/* Runs one operator on tensors given with their shapes, as the engine would. */
static void run_op(const char *name, const void *attrs, const tensor *in, int in_count, tensor *out,
                   int out_count, thread_pool *pool) {
  const op *o = op_find(name);
  assert_non_null(o);
  infer rule = {.attrs = attrs, .in = in, .in_count = in_count, .out = out};
  tensor asked[2];
  memcpy(asked, out, (size_t)out_count * sizeof *out);
  status error = o->infer(&rule);
  if (error) fail_msg("%s: %s", name, error_message(error));
  for (int i = 0; i < out_count; i++) assert_true(shape_equal(&asked[i].shape, &out[i].shape));
  void *scratch = workspace(o->workspace_bytes(attrs, in, in_count, out, 2));
  call c = {.attrs = attrs,
            .in = in,
            .out = out,
            .in_count = in_count,
            .out_count = out_count,
            .workspace = scratch,
            .pool = pool};
  assert_true(o->cpu(&c) == OK);
  free(scratch);
}

typedef struct golden {
  conv_shape s; /* of the convolution whose adjoint a transposed one is */
  bool transposed;
  int64_t output_padding[3], in[3], out[3]; /* extents of the operator's input and result */
  float *x, *weight, *bias, *y, *dy, *dx, *dweight, *dbias;
} golden;

static float *read_floats(FILE *file, int64_t count) {
  float *a = array(count);
  assert_int_equal(fread(a, sizeof *a, (size_t)count, file), count);
  return a;
}

static bool read_golden(FILE *cases, FILE *values, golden *g) {
  char kind[16];
  long number[22];
  if (fscanf(cases, "%15s", kind) != 1) return false;
  for (int i = 0; i < 22; i++) assert_int_equal(fscanf(cases, "%ld", &number[i]), 1);
  bool up = g->transposed = strcmp(kind, "transpose") == 0;
  g->s = (conv_shape){.batch = number[0],
                      .channels = number[up ? 2 : 1],
                      .features = number[up ? 1 : 2],
                      .groups = number[3]};
  for (int a = 0; a < 3; a++) {
    g->in[a] = number[4 + a];
    g->s.kernel[a] = number[7 + a];
    g->s.stride[a] = number[10 + a];
    g->s.padding[a] = number[13 + a];
    g->s.dilation[a] = number[16 + a];
    g->output_padding[a] = number[19 + a];
    int64_t reach = g->s.dilation[a] * (g->s.kernel[a] - 1) - 2 * g->s.padding[a];
    g->out[a] = up ? (g->in[a] - 1) * g->s.stride[a] + reach + g->output_padding[a] + 1
                   : (g->in[a] - reach - 1) / g->s.stride[a] + 1;
    g->s.image[a] = up ? g->out[a] : g->in[a];
    g->s.out[a] = up ? g->in[a] : g->out[a];
  }
  int64_t in = number[0] * volume(g->in) * number[1], out = number[0] * volume(g->out) * number[2];
  int64_t weights = number[1] * number[2] / number[3] * volume(g->s.kernel);
  g->x = read_floats(values, in);
  g->weight = read_floats(values, weights);
  g->bias = read_floats(values, number[2]);
  g->y = read_floats(values, out);
  g->dy = read_floats(values, out);
  g->dx = read_floats(values, in);
  g->dweight = read_floats(values, weights);
  g->dbias = read_floats(values, number[2]);
  return true;
}

static tensor volume_tensor(int64_t batch, const int64_t e[3], int64_t channels, float *data) {
  return (tensor){DTYPE_F32, SHAPE(batch, e[0], e[1], e[2], channels), data};
}

static void compare(const char *what, const golden *g, float *expected, const tensor *got) {
  assert_close(what, &g->s, expected, got->data, shape_elements(&got->shape), 100);
  free(expected);
  free(got->data);
}

/* Sets the attributes both operators have, by the names YAML gives them. */
static void set_attr(const op *o, void *attrs, const char *name, const int64_t *value) {
  for (const attr *a = o->attrs; a->name; a++)
    if (strcmp(a->name, name) == 0)
      memcpy((char *)attrs + a->offset, value, a->kind == ATTR_INT3 ? 24 : 8);
}

static void operators_agree_with_pytorch(void **state) {
  FILE *cases = fopen(TEST_DATA "/golden/conv/cases.txt", "r");
  FILE *values = fopen(TEST_DATA "/golden/conv/values.f32", "rb");
  assert_non_null(cases);
  assert_non_null(values);
  golden g;
  int count = 0;
  for (; read_golden(cases, values, &g); count++) {
    const conv_shape *s = &g.s;
    int64_t batch = s->batch, channels = g.transposed ? s->features : s->channels;
    int64_t features = g.transposed ? s->channels : s->features;
    const char *name = g.transposed ? "conv_transpose3d" : "conv3d";
    const op *o = op_find(name);
    int64_t attrs[64];
    assert_true(o->attrs_bytes <= sizeof attrs);
    op_defaults(o, attrs);
    set_attr(o, attrs, "features", &features);
    set_attr(o, attrs, "groups", &s->groups);
    set_attr(o, attrs, "kernel", s->kernel);
    set_attr(o, attrs, "stride", s->stride);
    set_attr(o, attrs, "padding", s->padding);
    set_attr(o, attrs, "dilation", s->dilation);
    set_attr(o, attrs, "output_padding", g.output_padding);
    shape weights =
        SHAPE(s->features, s->channels / s->groups, s->kernel[0], s->kernel[1], s->kernel[2]);
    int64_t weight_count = shape_elements(&weights);
    tensor x = volume_tensor(batch, g.in, channels, g.x),
           dy = volume_tensor(batch, g.out, features, g.dy);
    tensor weight = {DTYPE_F32, weights, g.weight}, bias = {DTYPE_F32, SHAPE(features), g.bias};
    tensor y = volume_tensor(batch, g.out, features, array(shape_elements(&dy.shape)));
    run_op(name, attrs, (tensor[]){x, weight, bias}, 3, &y, 1, *state);

    conv_backward_attrs back = {.groups = s->groups, .bias = !g.transposed};
    memcpy(back.extent, s->kernel, sizeof back.extent);
    memcpy(back.stride, s->stride, sizeof back.stride);
    memcpy(back.padding, s->padding, sizeof back.padding);
    memcpy(back.dilation, s->dilation, sizeof back.dilation);
    tensor grads[2] = {{DTYPE_F32, weights, array(weight_count)},
                       {DTYPE_F32, SHAPE(s->features), array(s->features)}};
    tensor dx = volume_tensor(batch, g.in, channels, array(shape_elements(&x.shape)));
    if (g.transposed) {
      run_op("conv3d_backward_weight", &back, (tensor[]){dy, x}, 2, grads, 2, *state);
      conv3d_attrs adjoint;
      op_defaults(op_find("conv3d"), &adjoint);
      adjoint.features = channels;
      adjoint.groups = s->groups;
      memcpy(adjoint.kernel, s->kernel, sizeof adjoint.kernel);
      memcpy(adjoint.stride, s->stride, sizeof adjoint.stride);
      memcpy(adjoint.padding, s->padding, sizeof adjoint.padding);
      memcpy(adjoint.dilation, s->dilation, sizeof adjoint.dilation);
      tensor none = {.shape = {.rank = -1}};
      run_op("conv3d", &adjoint, (tensor[]){dy, weight, none}, 3, &dx, 1, *state);
      free(grads[1].data);
      grads[1] = (tensor){DTYPE_F32, SHAPE(features), array(features)};
      run_op("conv_transpose3d_backward_bias", NULL, &dy, 1, &grads[1], 1, *state);
    } else {
      run_op("conv3d_backward_weight", &back, (tensor[]){x, dy}, 2, grads, 2, *state);
      memcpy(back.extent, s->image, sizeof back.extent);
      run_op("conv3d_backward_data", &back, (tensor[]){dy, weight}, 2, &dx, 1, *state);
    }
    compare("y", &g, g.y, &y);
    compare("dx", &g, g.dx, &dx);
    compare("dweight", &g, g.dweight, &grads[0]);
    compare("dbias", &g, g.dbias, &grads[1]);
    free(g.x), free(g.weight), free(g.bias), free(g.dy);
  }
  assert_int_equal(count, 9);
  fclose(cases);
  fclose(values);
}

/* Every other trial has products whose rows lie side by side: rows × products × columns. */
static void matrix_products_agree_with_the_definition(void **state) {
  const op *o = op_find("matmul");
  for (int trial = 0; trial < 48; trial++) {
    rng r = stream_of(2000 + (uint64_t)trial);
    bool interleaved = trial % 2, turn_a = trial % 3 == 1, turn_b = trial % 3 == 2;
    int64_t g = interleaved ? between(&r, 1, 5) : 1, most = trial % 8 < 4 ? 40 : 8;
    int64_t n = between(&r, 1, most), k = between(&r, 1, 40), m = between(&r, 1, most + 30);
    if (turn_a && most == 8) m = between(&r, 1, most);
    if (!turn_a && most == 8) k = between(&r, 1, most);
    int64_t batch = between(&r, 1, trial % 4 < 2 ? 40 : 3);
    tensor a = {DTYPE_F32, turn_a ? SHAPE(batch, k, g, m) : SHAPE(batch, m, g, k), NULL};
    tensor b = {DTYPE_F32,
                turn_a   ? SHAPE(batch, k, g, n)
                : turn_b ? SHAPE(batch, g, n, k)
                         : SHAPE(batch, g, k, n),
                NULL};
    tensor y = {DTYPE_F32, turn_a ? SHAPE(batch, g, m, n) : SHAPE(batch, m, g, n),
                array(batch * g * m * n)};
    if (!interleaved) {
      a.shape = turn_a ? SHAPE(batch, k, m) : SHAPE(batch, m, k);
      b.shape = turn_b ? SHAPE(batch, n, k) : SHAPE(batch, k, n);
      y.shape = SHAPE(batch, m, n);
    }
    float *left = a.data = random_array(&r, batch * g * m * k);
    float *right = b.data = random_array(&r, batch * g * k * n);
    int64_t attrs[8];
    assert_true(o->attrs_bytes <= sizeof attrs);
    op_defaults(o, attrs);
    for (const attr *at = o->attrs; at->name; at++)
      if (at->kind == ATTR_BOOL)
        *((bool *)attrs + at->offset) = strcmp(at->name, "transpose_a") == 0   ? turn_a
                                        : strcmp(at->name, "transpose_b") == 0 ? turn_b
                                                                               : interleaved;
    run_op("matmul", attrs, (tensor[]){a, b}, 2, &y, 1, *state);
    for (int64_t i = 0; i < batch * g * m * n; i++) {
      int64_t column = i % n, item = i / (g * m * n);
      int64_t product = turn_a ? i / (m * n) % g : i / n % g;
      int64_t row = turn_a ? i / n % m : i / (n * g) % m;
      double sum = 0;
      for (int64_t j = 0; j < k; j++) {
        int64_t in_a = turn_a ? ((item * k + j) * g + product) * m + row
                              : ((item * m + row) * g + product) * k + j;
        int64_t in_b = turn_a   ? ((item * k + j) * g + product) * n + column
                       : turn_b ? ((item * g + product) * n + column) * k + j
                                : ((item * g + product) * k + j) * n + column;
        sum += (double)left[in_a] * (double)right[in_b];
      }
      assert_true(fabs(sum - (double)((float *)y.data)[i]) < 1e-4);
    }
    free(left), free(right), free(y.data);
  }
}

static int start_pool(void **state) {
  thread_pool *pool = NULL;
  status error = pool_create(3, &pool);
  *state = pool;
  return error != OK;
}

static int stop_pool(void **state) {
  pool_destroy(*state);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(random_shapes_agree_with_the_definition),
      cmocka_unit_test(depthwise_shapes_agree_with_the_definition),
      cmocka_unit_test(minimal_filtering_agrees_with_the_definition),
      cmocka_unit_test(minimal_filtering_of_pairs_agrees_with_the_definition),
      cmocka_unit_test(shapes_with_paths_of_their_own_agree_with_the_definition),
      cmocka_unit_test(moments_survive_a_large_offset),
      cmocka_unit_test(operators_agree_with_pytorch),
      cmocka_unit_test(matrix_products_agree_with_the_definition),
  };
  return cmocka_run_group_tests(tests, start_pool, stop_pool);
}
