/* The entry points, and which method computes a shape. */
#include "ops/kernels/convolution_parts.h"

conv_shape conv_shape_linear(int64_t rows, int64_t channels, int64_t features) {
  return (conv_shape){.batch = 1,
                      .channels = channels,
                      .features = features,
                      .groups = 1,
                      .image = {1, 1, rows},
                      .out = {1, 1, rows},
                      .kernel = {1, 1, 1},
                      .stride = {1, 1, 1},
                      .dilation = {1, 1, 1}};
}

double conv_flops(const conv_shape *s) {
  return 2.0 * (double)s->batch * (double)volume(s->out) * (double)volume(s->kernel) *
         (double)(s->channels / s->groups) * (double)s->features;
}

/* In the order in which they are asked; the last takes every shape. */
static const conv_method *const methods[] = {&conv_depthwise, &conv_matrix, &conv_patches,
                                             &conv_winograd, &conv_taps};

static const conv_method *method_of(const conv_shape *s) {
  int i = 0;
  while (!methods[i]->fits(s)) i++;
  return methods[i];
}

static const conv_method *weight_method_of(const conv_shape *s) {
  int i = 0;
  while (!methods[i]->fits_weight(s)) i++;
  return methods[i];
}

size_t conv_packed_bytes(const conv_shape *s, bool transposed) {
  const conv_method *method = method_of(s);
  return method->packed_bytes ? method->packed_bytes(s, transposed) : 0;
}

void conv_pack(const conv_shape *s, bool transposed, const float *weight, void *to,
               thread_pool *pool) {
  method_of(s)->pack(s, transposed, weight, to, pool);
}

size_t conv_forward_workspace(const conv_shape *s) {
  return method_of(s)->workspace(s, false);
}

void conv_forward(const conv_shape *s, const float *x, const float *weight, const float *bias,
                  float *y, float *moments, void *workspace, thread_pool *pool) {
  method_of(s)->run(s, false, x, weight, bias, y, moments, workspace, pool);
}

bool conv_makes_moments(const conv_shape *s) {
  return method_of(s)->makes_moments;
}

bool conv_finishes_parts(const conv_shape *s) {
  return method_of(s)->finishes_parts;
}

size_t conv_backward_data_workspace(const conv_shape *s) {
  return method_of(s)->workspace(s, true);
}

void conv_backward_data(const conv_shape *s, const float *dy, const float *weight,
                        const float *bias, float *dx, void *workspace, thread_pool *pool) {
  method_of(s)->run(s, true, dy, weight, bias, dx, NULL, workspace, pool);
}

size_t conv_backward_weight_workspace(const conv_shape *s) {
  return weight_method_of(s)->weight_workspace(s);
}

void conv_backward_weight(const conv_shape *s, const float *x, const float *dy, float *dweight,
                          float *dbias, void *workspace, thread_pool *pool) {
  weight_method_of(s)->weight_run(s, x, dy, dweight, dbias, workspace, pool);
}
