/* Sliding-window inference. Positions, importance and padding follow MONAI's
 * sliding_window_inference (1.6): windows in x, y, z order, logits × importance added up in f32 and
 * divided by the added importance, so that a network moved here from MONAI segments the same. */
#include "infer/infer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int window_positions(int64_t size, int64_t window, double overlap, int64_t *start, int limit) {
  if (size <= window) {
    if (limit > 0) start[0] = 0;
    return 1;
  }
  int64_t step = (int64_t)((double)window * (1.0 - overlap));
  if (step < 1) step = 1;
  int64_t last = size - window;
  int count = (int)((last + step - 1) / step) + 1;
  for (int i = 0; i < count && i < limit; i++) {
    int64_t at = i * step;
    start[i] = at < last ? at : last;
  }
  return count;
}

/* MONAI's Gaussian along one axis, in its precision: the squared distance and the quotient in f32.
 */
static float gaussian(int64_t extent, int64_t i) {
  double sigma = 0.125 * (double)extent;
  float x = (float)i - (float)(extent - 1) / 2.0f;
  return expf(x * x / (float)(-2.0 * (sigma * sigma)));
}

void window_importance(const int64_t window[3], blend kind, float *weight) {
  int64_t nx = window[0], ny = window[1], nz = window[2], voxels = nx * ny * nz;
  if (kind == BLEND_CONSTANT) {
    for (int64_t i = 0; i < voxels; i++) weight[i] = 1.0f;
    return;
  }
  /* The first row holds the z profile until it is multiplied itself, last. */
  for (int64_t z = 0; z < nz; z++) weight[z] = gaussian(nz, z);
  float smallest = INFINITY;
  for (int64_t xy = nx * ny - 1; xy >= 0; xy--) {
    float in_plane = gaussian(nx, xy / ny) * gaussian(ny, xy % ny);
    for (int64_t z = 0; z < nz; z++) {
      float value = in_plane * weight[z];
      weight[xy * nz + z] = value;
      if (value < smallest) smallest = value;
    }
  }
  float lowest = smallest > 1e-3f ? smallest : 1e-3f;
  for (int64_t i = 0; i < voxels; i++)
    if (weight[i] < lowest) weight[i] = lowest;
}

/* What one call works with. Coordinates of windows are in the padded volume; subtracting `pad`
 * gives those of the image. */
typedef struct blending {
  const inferer *inferer;
  const volume *image;
  int64_t pad[3]; /* zeros in front of each axis */
  float *window_image, *window_logits, *importance;
  float *sum;            /* (X, Y, Z, classes): the result, until it is divided */
  float *importance_sum; /* (X, Y, Z) */
} blending;

/* The part of a window's z extent that lies in the image: [from, to) in window voxels. */
static void overlap_z(const blending *b, int64_t start_z, int64_t *from, int64_t *to) {
  int64_t first = start_z - b->pad[2], nz = b->image->size[2];
  *from = first < 0 ? -first : 0;
  *to = first + b->inferer->window[2] > nz ? nz - first : b->inferer->window[2];
}

static void gather_window(const blending *b, const int64_t start[3]) {
  const int64_t *window = b->inferer->window, *size = b->image->size;
  int64_t channels = b->image->channels, from, to;
  overlap_z(b, start[2], &from, &to);
  for (int64_t x = 0; x < window[0]; x++) {
    for (int64_t y = 0; y < window[1]; y++) {
      float *row = b->window_image + (x * window[1] + y) * window[2] * channels;
      int64_t ix = start[0] + x - b->pad[0], iy = start[1] + y - b->pad[1];
      if (ix < 0 || ix >= size[0] || iy < 0 || iy >= size[1]) {
        memset(row, 0, (size_t)(window[2] * channels) * sizeof *row);
        continue;
      }
      const float *source =
          b->image->data + ((ix * size[1] + iy) * size[2] + start[2] - b->pad[2] + from) * channels;
      memset(row, 0, (size_t)(from * channels) * sizeof *row);
      memcpy(row + from * channels, source, (size_t)((to - from) * channels) * sizeof *row);
      memset(row + to * channels, 0, (size_t)((window[2] - to) * channels) * sizeof *row);
    }
  }
}

static void add_window(const blending *b, const int64_t start[3]) {
  const int64_t *window = b->inferer->window, *size = b->image->size;
  int64_t classes = b->inferer->classes, from, to;
  overlap_z(b, start[2], &from, &to);
  for (int64_t x = 0; x < window[0]; x++) {
    int64_t ix = start[0] + x - b->pad[0];
    if (ix < 0 || ix >= size[0]) continue;
    for (int64_t y = 0; y < window[1]; y++) {
      int64_t iy = start[1] + y - b->pad[1];
      if (iy < 0 || iy >= size[1]) continue;
      int64_t in_window = (x * window[1] + y) * window[2] + from;
      int64_t in_image = (ix * size[1] + iy) * size[2] + start[2] - b->pad[2] + from;
      const float *weight = b->importance + in_window;
      const float *logits = b->window_logits + in_window * classes;
      float *sum = b->sum + in_image * classes, *weight_sum = b->importance_sum + in_image;
      for (int64_t z = 0; z < to - from; z++) {
        float w = weight[z];
        weight_sum[z] += w;
        for (int64_t c = 0; c < classes; c++) sum[z * classes + c] += logits[z * classes + c] * w;
      }
    }
  }
}

/* Blended logits → softmax, voxel by voxel, in place. */
static status finish(const blending *b) {
  const int64_t *size = b->image->size;
  int64_t classes = b->inferer->classes, voxels = size[0] * size[1] * size[2];
  for (int64_t v = 0; v < voxels; v++) {
    float *p = b->sum + v * classes, weight = b->importance_sum[v], largest = -INFINITY;
    bool finite = true;
    for (int64_t c = 0; c < classes; c++) {
      p[c] /= weight;
      finite = finite && isfinite(p[c]);
      if (p[c] > largest) largest = p[c];
    }
    if (!finite)
      return error_new(
          ERROR_NUMERIC, NOWHERE,
          "the network's output is not finite at voxel (%lld, %lld, %lld). Its weights "
          "may have diverged: try a smaller learning rate or gradient clipping",
          (long long)(v / (size[1] * size[2])), (long long)(v / size[2] % size[1]),
          (long long)(v % size[2]));
    float total = 0;
    for (int64_t c = 0; c < classes; c++) {
      p[c] = expf(p[c] - largest);
      total += p[c];
    }
    for (int64_t c = 0; c < classes; c++) p[c] /= total;
  }
  return OK;
}

static status run_windows(blending *b) {
  const int64_t *window = b->inferer->window;
  int64_t padded[3];
  int count[3];
  for (int a = 0; a < 3; a++) {
    int64_t missing = window[a] > b->image->size[a] ? window[a] - b->image->size[a] : 0;
    b->pad[a] = missing / 2;
    padded[a] = b->image->size[a] + missing;
    count[a] = window_positions(padded[a], window[a], b->inferer->overlap, NULL, 0);
  }
  size_t positions = (size_t)count[0] + (size_t)count[1] + (size_t)count[2];
  int64_t *all = malloc(positions * sizeof *all);
  if (!all) return error_out_of_memory(positions * sizeof *all);
  int64_t *start[3] = {all, all + count[0], all + count[0] + count[1]};
  for (int a = 0; a < 3; a++)
    window_positions(padded[a], window[a], b->inferer->overlap, start[a], count[a]);

  status error = OK;
  int64_t windows = (int64_t)count[0] * count[1] * count[2];
  for (int64_t i = 0; i < windows && !error; i++) {
    int64_t at[3] = {start[0][i / ((int64_t)count[1] * count[2])],
                     start[1][i / count[2] % count[1]], start[2][i % count[2]]};
    gather_window(b, at);
    error = b->inferer->run(b->inferer->context, b->window_image, b->window_logits);
    if (!error) add_window(b, at);
  }
  free(all);
  return error ? error : finish(b);
}

status sliding_window(const inferer *i, const volume *image, volume *probabilities) {
  *probabilities = (volume){0};
  int64_t window_values = 1, widest = i->classes > image->channels ? i->classes : image->channels;
  for (int a = 0; a < 3; a++) {
    if (i->window[a] < 1 || image->size[a] < 1 ||
        __builtin_mul_overflow(window_values, i->window[a], &window_values))
      return error_new(ERROR_INTERNAL, NOWHERE, "sliding window with an extent of %lld voxels",
                       (long long)i->window[a]);
  }
  int64_t largest_buffer;
  if (i->classes < 1 || image->channels < 1 || !(i->overlap >= 0 && i->overlap < 1) ||
      widest > 4096 ||
      __builtin_mul_overflow(window_values, widest * (int64_t)sizeof(float), &largest_buffer))
    return error_new(ERROR_INTERNAL, NOWHERE, "sliding window with %lld classes and overlap %g",
                     (long long)i->classes, i->overlap);

  TRY(volume_allocate(probabilities, image->size, i->classes));
  memcpy(probabilities->affine, image->affine, sizeof image->affine);
  int64_t voxels = image->size[0] * image->size[1] * image->size[2];
  size_t float_bytes = sizeof(float);
  blending b = {
      .inferer = i,
      .image = image,
      .window_image = malloc((size_t)(window_values * image->channels) * float_bytes),
      .window_logits = malloc((size_t)(window_values * i->classes) * float_bytes),
      .importance = malloc((size_t)window_values * float_bytes),
      .sum = probabilities->data,
      .importance_sum = calloc((size_t)voxels, float_bytes),
  };
  status error = OK;
  if (!b.window_image || !b.window_logits || !b.importance || !b.importance_sum) {
    error = error_out_of_memory((size_t)largest_buffer);
  } else {
    window_importance(i->window, i->blend, b.importance);
    error = run_windows(&b);
  }
  free(b.window_image);
  free(b.window_logits);
  free(b.importance);
  free(b.importance_sum);
  if (error) volume_free(probabilities);
  return error;
}
