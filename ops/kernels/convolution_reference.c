#include "ops/kernels/convolution.h"

/* Every term of the convolution's sum: calls visit once per (n, o, k, c, f) whose x lies inside the
 * image, with flat indices of x, y and weight. */
typedef void (*visit_fn)(void *context, int64_t x, int64_t y, int64_t w);

static void every_term(const conv_shape *s, visit_fn visit, void *context) {
  int64_t group_channels = s->channels / s->groups, group_features = s->features / s->groups;
  int64_t taps = s->kernel[0] * s->kernel[1] * s->kernel[2];
  int64_t voxels = s->out[0] * s->out[1] * s->out[2];
  for (int64_t n = 0; n < s->batch; n++)
    for (int64_t o = 0; o < voxels; o++)
      for (int64_t k = 0; k < taps; k++) {
        int64_t at[3] = {o / (s->out[1] * s->out[2]), o / s->out[2] % s->out[1], o % s->out[2]};
        int64_t tap[3] = {k / (s->kernel[1] * s->kernel[2]), k / s->kernel[2] % s->kernel[1],
                          k % s->kernel[2]};
        int64_t voxel = n;
        int inside = 1;
        for (int a = 0; a < 3; a++) {
          int64_t i = at[a] * s->stride[a] + tap[a] * s->dilation[a] - s->padding[a];
          inside &= i >= 0 && i < s->image[a];
          voxel = voxel * s->image[a] + i;
        }
        if (!inside) continue;
        for (int64_t f = 0; f < s->features; f++)
          for (int64_t c = 0; c < group_channels; c++) {
            int64_t channel = f / group_features * group_channels + c;
            visit(context, voxel * s->channels + channel, (n * voxels + o) * s->features + f,
                  (f * group_channels + c) * taps + k);
          }
      }
}

typedef struct terms {
  const float *a, *b;
  float *out;
} terms;

static void add_to_y(void *context, int64_t x, int64_t y, int64_t w) {
  terms *t = context;
  t->out[y] += t->a[x] * t->b[w];
}

static void add_to_x(void *context, int64_t x, int64_t y, int64_t w) {
  terms *t = context;
  t->out[x] += t->a[y] * t->b[w];
}

static void add_to_weight(void *context, int64_t x, int64_t y, int64_t w) {
  terms *t = context;
  t->out[w] += t->a[x] * t->b[y];
}

static void fill(float *out, int64_t rows, int64_t channels, const float *bias) {
  for (int64_t i = 0; i < rows * channels; i++) out[i] = bias ? bias[i % channels] : 0;
}

void conv_forward_reference(const conv_shape *s, const float *x, const float *weight,
                            const float *bias, float *y) {
  fill(y, s->batch * s->out[0] * s->out[1] * s->out[2], s->features, bias);
  every_term(s, add_to_y, &(terms){x, weight, y});
}

void conv_backward_data_reference(const conv_shape *s, const float *dy, const float *weight,
                                  const float *bias, float *dx) {
  fill(dx, s->batch * s->image[0] * s->image[1] * s->image[2], s->channels, bias);
  every_term(s, add_to_x, &(terms){dy, weight, dx});
}

void conv_backward_weight_reference(const conv_shape *s, const float *x, const float *dy,
                                    float *dweight, float *dbias) {
  int64_t taps = s->kernel[0] * s->kernel[1] * s->kernel[2];
  fill(dweight, s->features * (s->channels / s->groups), taps, NULL);
  every_term(s, add_to_weight, &(terms){x, dy, dweight});
  if (!dbias) return;
  fill(dbias, 1, s->features, NULL);
  int64_t count = s->batch * s->out[0] * s->out[1] * s->out[2] * s->features;
  for (int64_t i = 0; i < count; i++) dbias[i % s->features] += dy[i];
}
