/* Sliding-window inference. Positions, importance and padding follow MONAI's
 * sliding_window_inference (1.6) or nnU-Net's (v2): windows in x, y, z order, scores × importance
 * added up in f32 and divided by the added importance, so that a network moved here segments the
 * same. Members of an ensemble are added up in the same place. */
#include "infer/infer.h"

#include <math.h>
#include <stdatomic.h>
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

int window_positions_evenly(int64_t size, int64_t window, double step, int64_t *start, int limit) {
  double last = size > window ? (double)(size - window) : 0;
  int count = (int)ceil(last / step) + 1;
  double distance = count > 1 ? last / (count - 1) : 0;
  for (int i = 0; i < count && i < limit; i++) start[i] = (int64_t)rint(distance * i);
  return count;
}

/* MONAI's Gaussian along one axis, in its precision: the squared distance and the quotient in f32.
 */
static float gaussian(int64_t extent, double sigma_scale, int64_t i) {
  double sigma = sigma_scale * (double)extent;
  float x = (float)i - (float)(extent - 1) / 2.0f;
  return expf(x * x / (float)(-2.0 * (sigma * sigma)));
}

/* nnU-Net's: SciPy's kernel around the voxel at half the extent, 0 beyond 4 sigma. */
static float cut_gaussian(int64_t extent, double sigma_scale, int64_t i) {
  double sigma = sigma_scale * (double)extent, x = (double)(i - extent / 2);
  if (fabs(x) > floor(4 * sigma + 0.5)) return 0;
  return (float)exp(-0.5 * x * x / (sigma * sigma));
}

void window_importance(const window_spec *windows, float *weight) {
  int64_t nx = windows->size[0], ny = windows->size[1], nz = windows->size[2];
  int64_t voxels = nx * ny * nz;
  if (windows->blend == BLEND_CONSTANT) {
    for (int64_t i = 0; i < voxels; i++) weight[i] = 1.0f;
    return;
  }
  bool is_cut = windows->blend == BLEND_GAUSSIAN_NNUNET;
  float (*profile)(int64_t, double, int64_t) = is_cut ? cut_gaussian : gaussian;
  double scale = windows->sigma_scale;
  /* The first row holds the z profile until it is multiplied itself, last. */
  for (int64_t z = 0; z < nz; z++) weight[z] = profile(nz, scale, z);
  float smallest = INFINITY;
  for (int64_t xy = nx * ny - 1; xy >= 0; xy--) {
    float in_plane = profile(nx, scale, xy / ny) * profile(ny, scale, xy % ny);
    for (int64_t z = 0; z < nz; z++) {
      float value = in_plane * weight[z];
      weight[xy * nz + z] = value;
      if (value < smallest && !(is_cut && value == 0)) smallest = value;
    }
  }
  float lowest = is_cut || smallest > 1e-3f ? smallest : 1e-3f;
  for (int64_t i = 0; i < voxels; i++)
    if (weight[i] < lowest) weight[i] = lowest;
}

/* What one call works with. Coordinates of windows are in the padded volume; subtracting `pad`
 * gives those of the image. Buffers of windows hold a batch. */
typedef struct blending {
  const inferer *inferer;
  const volume *image;
  int64_t pad[3]; /* zeros in front of each axis */
  float *window_image, *window_scores, *importance;
  float *mirrored_image, *mirrored_scores; /* NULL when nothing is mirrored */
  float *sum;                              /* (X, Y, Z, classes): the result, until it is divided */
  float *importance_sum;                   /* (X, Y, Z) */
  spill *memory;                           /* of both sums */
  atomic_bool diverged;
  int64_t x; /* the slab that is finished */
} blending;

/* The part of a window's extent along an axis that lies in the image: [from, to) in window voxels. */
static void overlap_of(const blending *b, int axis, int64_t start, int64_t *from, int64_t *to) {
  int64_t first = start - b->pad[axis], extent = b->image->size[axis];
  int64_t window = b->inferer->windows.size[axis];
  *from = first < 0 ? -first : 0;
  *to = first + window > extent ? extent - first : window;
}

static void gather_window(const blending *b, const int64_t start[3], float *to_window) {
  const int64_t *window = b->inferer->windows.size, *size = b->image->size;
  int64_t channels = b->image->channels, from, to;
  overlap_of(b, 2, start[2], &from, &to);
  for (int64_t x = 0; x < window[0]; x++) {
    for (int64_t y = 0; y < window[1]; y++) {
      float *row = to_window + (x * window[1] + y) * window[2] * channels;
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

static void add_window(const blending *b, const int64_t start[3], const float *scores) {
  const int64_t *window = b->inferer->windows.size, *size = b->image->size;
  int64_t classes = b->inferer->classes, from[3], to[3];
  for (int a = 0; a < 3; a++) overlap_of(b, a, start[a], &from[a], &to[a]);
  int64_t length = to[2] - from[2];
  size_t rows = (size_t)((to[0] - from[0]) * (to[1] - from[1]));
  spill_touch(b->memory, rows, (size_t)(length * classes) * sizeof(float));
  spill_touch(b->memory, rows, (size_t)length * sizeof(float));
  for (int64_t x = from[0]; x < to[0]; x++)
    for (int64_t y = from[1]; y < to[1]; y++) {
      int64_t ix = start[0] + x - b->pad[0], iy = start[1] + y - b->pad[1];
      int64_t in_window = (x * window[1] + y) * window[2] + from[2];
      int64_t in_image = (ix * size[1] + iy) * size[2] + start[2] - b->pad[2] + from[2];
      const float *weight = b->importance + in_window, *score = scores + in_window * classes;
      float *sum = b->sum + in_image * classes, *weight_sum = b->importance_sum + in_image;
      for (int64_t z = 0; z < length; z++) {
        float w = weight[z];
        weight_sum[z] += w;
        for (int64_t c = 0; c < classes; c++) sum[z * classes + c] += score[z * classes + c] * w;
      }
    }
}

/* Logits of a voxel → probabilities, in place; NaN in all of them when one is not finite. */
static bool softmax(float *p, int64_t classes) {
  float largest = -INFINITY, total = 0;
  bool finite = true;
  for (int64_t c = 0; c < classes; c++) {
    finite = finite && isfinite(p[c]);
    if (p[c] > largest) largest = p[c];
  }
  for (int64_t c = 0; c < classes; c++) {
    p[c] = finite ? expf(p[c] - largest) : NAN;
    total += p[c];
  }
  for (int64_t c = 0; c < classes; c++) p[c] /= total;
  return finite;
}

/* Voxel by voxel along a row of the result: sums → probabilities, in place. */
static void finish_row(void *context, int64_t y) {
  blending *b = context;
  const int64_t *size = b->image->size;
  int64_t classes = b->inferer->classes, first = (b->x * size[1] + y) * size[2];
  for (int64_t v = first; v < first + size[2]; v++) {
    float *p = b->sum + v * classes, weight = b->importance_sum[v];
    bool finite = true;
    for (int64_t c = 0; c < classes; c++) {
      p[c] /= weight;
      finite = finite && isfinite(p[c]);
    }
    if (!b->inferer->windows.average_probabilities) finite = softmax(p, classes);
    if (!finite) {
      p[0] = NAN; /* where the search for the first such voxel looks */
      atomic_store(&b->diverged, true);
    }
  }
}

static status finish(blending *b) {
  const int64_t *size = b->image->size;
  int64_t classes = b->inferer->classes, voxels = size[1] * size[2];
  for (b->x = 0; b->x < size[0]; b->x++) {
    spill_touch(b->memory, 1, (size_t)(voxels * classes) * sizeof(float));
    spill_touch(b->memory, 1, (size_t)voxels * sizeof(float));
    parallel_for(b->inferer->pool, size[1], finish_row, b);
    if (!atomic_load(&b->diverged)) continue;
    int64_t v = b->x * voxels;
    while (!isnan(b->sum[v * classes])) v++;
    return error_new(ERROR_NUMERIC, NOWHERE,
                     "the network's output is not finite at voxel (%lld, %lld, %lld). Its weights "
                     "may have diverged: try a smaller learning rate or gradient clipping",
                     (long long)b->x, (long long)(v / size[2] % size[1]), (long long)(v % size[2]));
  }
  return OK;
}

typedef struct mirroring { /* of a batch of windows of `values` numbers a voxel */
  const int64_t *size;
  int64_t values;
  int axes; /* bits: 1 x, 2 y, 4 z */
  const float *from;
  float *to;
  bool add;
} mirroring;

static void mirror_row(void *context, int64_t row) {
  const mirroring *m = context;
  const int64_t *n = m->size;
  int64_t window = row / (n[0] * n[1]), x = row / n[1] % n[0], y = row % n[1];
  if (m->axes & 1) x = n[0] - 1 - x;
  if (m->axes & 2) y = n[1] - 1 - y;
  const float *from = m->from + ((window * n[0] + x) * n[1] + y) * n[2] * m->values;
  float *to = m->to + row * n[2] * m->values;
  for (int64_t z = 0; z < n[2]; z++, to += m->values) {
    const float *voxel = from + (m->axes & 4 ? n[2] - 1 - z : z) * m->values;
    if (m->add)
      for (int64_t k = 0; k < m->values; k++) to[k] += voxel[k];
    else
      memcpy(to, voxel, (size_t)m->values * sizeof *to);
  }
}

static status run_network(const blending *b, const float *image, float *scores) {
  const inferer *i = b->inferer;
  const int64_t *n = i->windows.size;
  TRY(i->run(i->context, image, scores));
  if (i->windows.average_probabilities)
    for (int64_t v = 0; v < i->windows.batch * n[0] * n[1] * n[2]; v++)
      softmax(scores + v * i->classes, i->classes);
  return OK;
}

/* The network on a batch of windows; the mean over mirrored copies, each turned back. */
static status score_windows(const blending *b) {
  const window_spec *w = &b->inferer->windows;
  int all = (w->mirror[0] ? 1 : 0) | (w->mirror[1] ? 2 : 0) | (w->mirror[2] ? 4 : 0), copies = 1;
  int64_t rows = w->batch * w->size[0] * w->size[1], classes = b->inferer->classes;
  TRY(run_network(b, b->window_image, b->window_scores));
  for (int axes = 1; axes <= all; axes++) {
    if (axes & ~all) continue;
    mirroring there = {w->size,         b->image->channels, axes,
                       b->window_image, b->mirrored_image,  false};
    mirroring back = {w->size, classes, axes, b->mirrored_scores, b->window_scores, true};
    parallel_for(b->inferer->pool, rows, mirror_row, &there);
    TRY(run_network(b, b->mirrored_image, b->mirrored_scores));
    parallel_for(b->inferer->pool, rows, mirror_row, &back);
    copies++;
  }
  float share = 1.0f / (float)copies; /* a power of 2 */
  for (int64_t v = 0; copies > 1 && v < rows * w->size[2] * classes; v++)
    b->window_scores[v] *= share;
  return OK;
}

static int positions_along(const window_spec *w, int axis, int64_t size, int64_t *start,
                           int limit) {
  if (w->step[axis] > 0)
    return window_positions_evenly(size, w->size[axis], w->step[axis], start, limit);
  return window_positions(size, w->size[axis], w->overlap, start, limit);
}

/* Where windows start: of each axis, and how many. */
typedef struct placing {
  int64_t *start[3];
  int count[3];
} placing;

static void window_start(const placing *p, int64_t window, int64_t start[3]) {
  start[0] = p->start[0][window / ((int64_t)p->count[1] * p->count[2])];
  start[1] = p->start[1][window / p->count[2] % p->count[1]];
  start[2] = p->start[2][window % p->count[2]];
}

static status run_member(blending *b, const placing *p) {
  const window_spec *w = &b->inferer->windows;
  int64_t voxels = w->size[0] * w->size[1] * w->size[2];
  int64_t windows = (int64_t)p->count[0] * p->count[1] * p->count[2], at[3];
  int64_t image_values = voxels * b->image->channels, score_values = voxels * b->inferer->classes;
  for (int64_t first = 0; first < windows; first += w->batch) {
    int64_t here = windows - first < w->batch ? windows - first : w->batch;
    for (int64_t i = 0; i < here; i++) {
      window_start(p, first + i, at);
      gather_window(b, at, b->window_image + i * image_values);
    }
    memset(b->window_image + here * image_values, 0,
           (size_t)((w->batch - here) * image_values) * sizeof(float));
    TRY(score_windows(b));
    for (int64_t i = 0; i < here; i++) {
      window_start(p, first + i, at);
      add_window(b, at, b->window_scores + i * score_values);
    }
  }
  return OK;
}

static status run_windows(blending *b) {
  const inferer *f = b->inferer;
  int64_t padded[3];
  size_t positions = 0;
  placing p;
  for (int a = 0; a < 3; a++) {
    int64_t missing = f->windows.size[a] - b->image->size[a];
    if (missing < 0) missing = 0;
    b->pad[a] = missing / 2;
    padded[a] = b->image->size[a] + missing;
    p.count[a] = positions_along(&f->windows, a, padded[a], NULL, 0);
    positions += (size_t)p.count[a];
  }
  int64_t *all = malloc(positions * sizeof *all);
  if (!all) return error_out_of_memory(positions * sizeof *all);
  p.start[0] = all;
  p.start[1] = all + p.count[0];
  p.start[2] = p.start[1] + p.count[1];
  for (int a = 0; a < 3; a++) positions_along(&f->windows, a, padded[a], p.start[a], p.count[a]);
  status error = OK;
  for (int member = 0; member < (f->members ? f->members : 1) && !error; member++) {
    if (f->members) error = f->choose(f->context, member);
    if (!error) error = run_member(b, &p);
  }
  free(all);
  return error ? error : finish(b);
}

static status open_sums(blending *b, window_scores *out) {
  const volume *image = b->image;
  size_t voxels = (size_t)(image->size[0] * image->size[1] * image->size[2]);
  size_t classes = (size_t)b->inferer->classes, bytes;
  if (__builtin_mul_overflow(voxels, (classes + 1) * sizeof(float), &bytes) || bytes > SIZE_MAX / 2)
    return error_out_of_memory(SIZE_MAX / 2);
  int64_t budget = b->inferer->windows.memory_bytes;
  TRY(error_prefix(spill_open(bytes, budget > 0 ? (size_t)budget : SIZE_MAX, &out->memory),
                   "sums of the windows' outputs"));
  out->probabilities = (volume){.size = {image->size[0], image->size[1], image->size[2]},
                                .channels = b->inferer->classes,
                                .data = out->memory.data};
  memcpy(out->probabilities.affine, image->affine, sizeof image->affine);
  b->memory = &out->memory;
  b->sum = out->memory.data;
  b->importance_sum = b->sum + voxels * classes;
  return OK;
}

status sliding_window(const inferer *i, const volume *image, window_scores *out) {
  *out = (window_scores){0};
  const window_spec *w = &i->windows;
  int64_t window_values = 1, widest = i->classes > image->channels ? i->classes : image->channels;
  for (int a = 0; a < 3; a++) {
    if (w->size[a] < 1 || image->size[a] < 1 ||
        __builtin_mul_overflow(window_values, w->size[a], &window_values))
      return error_new(ERROR_INTERNAL, NOWHERE, "sliding window with an extent of %lld voxels",
                       (long long)w->size[a]);
  }
  int64_t largest_buffer;
  if (i->classes < 1 || image->channels < 1 || !(w->overlap >= 0 && w->overlap < 1) ||
      widest > 4096 || w->batch < 1 || w->batch > 4096 ||
      __builtin_mul_overflow(window_values, w->batch * widest * (int64_t)sizeof(float),
                             &largest_buffer))
    return error_new(ERROR_INTERNAL, NOWHERE, "sliding window with %lld classes and overlap %g",
                     (long long)i->classes, w->overlap);

  size_t batch_bytes = (size_t)(window_values * w->batch) * sizeof(float);
  size_t image_bytes = batch_bytes * (size_t)image->channels;
  size_t score_bytes = batch_bytes * (size_t)i->classes;
  bool mirrors = w->mirror[0] || w->mirror[1] || w->mirror[2];
  blending b = {.inferer = i,
                .image = image,
                .window_image = malloc(image_bytes),
                .window_scores = malloc(score_bytes),
                .mirrored_image = mirrors ? malloc(image_bytes) : NULL,
                .mirrored_scores = mirrors ? malloc(score_bytes) : NULL,
                .importance = malloc((size_t)window_values * sizeof(float))};
  status error = OK;
  if (!b.window_image || !b.window_scores || !b.importance ||
      (mirrors && (!b.mirrored_image || !b.mirrored_scores)))
    error = error_out_of_memory((size_t)largest_buffer);
  if (!error) error = open_sums(&b, out);
  if (!error) {
    window_importance(w, b.importance);
    error = run_windows(&b);
  }
  free(b.window_image);
  free(b.window_scores);
  free(b.mirrored_image);
  free(b.mirrored_scores);
  free(b.importance);
  if (error) window_scores_free(out);
  return error;
}

void window_scores_free(window_scores *s) {
  spill_close(&s->memory);
  *s = (window_scores){0};
}
