#include "infer/band.h"

#include "data/volume.h"
#include "ops/arithmetic/vector_math.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows are worked on in parts that stay in the first-level cache. */
enum { PART_VALUES = 4096 };

int band_axis(const int64_t size[3], const int64_t window[3]) {
  int best = 0;
  double fewest = INFINITY;
  for (int a = 0; a < 3; a++) {
    double share = (double)window[a] / (double)size[a];
    if (share < fewest && share < 1) {
      fewest = share;
      best = a;
    }
  }
  return best;
}

status band_open(const int64_t size[3], int64_t classes, band_scores kind, int axis, int64_t depth,
                 size_t budget, score_band *out) {
  *out = (score_band){.size = {size[0], size[1], size[2]},
                      .classes = classes,
                      .kind = kind,
                      .axis = axis,
                      .depth = depth < size[axis] ? depth : size[axis]};
  size_t voxels = (size_t)out->depth, values = (size_t)classes + (kind != BAND_SUMS), bytes;
  for (int a = 0; a < 3; a++)
    if (a != axis) voxels *= (size_t)size[a]; /* no more than a volume has */
  if (__builtin_mul_overflow(voxels, values * sizeof(float), &bytes) || bytes > SIZE_MAX / 2)
    return error_out_of_memory(SIZE_MAX / 2);
  out->best = malloc(voxels);
  if (!out->best) return error_out_of_memory(voxels);
  status error =
      error_prefix(spill_open(bytes, budget, &out->memory), "sums of the windows' outputs");
  if (error) {
    band_close(out);
    return error;
  }
  if (!out->memory.in_file) memory_want_huge_pages(out->memory.data, bytes);
  out->scores = out->memory.data;
  if (kind != BAND_SUMS) out->weights = out->scores + voxels * (size_t)classes;
  return OK;
}

void band_close(score_band *b) {
  spill_close(&b->memory);
  free(b->best);
  *b = (score_band){0};
}

/* Either each row by itself or everything between a plane's first row and its last, whichever brings
 * fewer pages. */
static void touch_values(score_band *b, int64_t planes, int64_t y0, int64_t y1, int64_t z0,
                         int64_t z1, int64_t values) {
  int64_t nz = b->axis == 2 ? b->depth : b->size[2];
  int64_t rows = b->axis == 1 ? b->depth : y1 - y0; /* held planes may lie in two places */
  size_t row = (size_t)((z1 - z0) * values) * sizeof(float);
  size_t plane = (size_t)(rows * nz * values) * sizeof(float);
  if (plane < (size_t)rows * (row + SPILL_AROUND_A_FAULT))
    spill_touch(&b->memory, (size_t)planes, plane);
  else
    spill_touch(&b->memory, (size_t)(planes * (y1 - y0)), row);
}

void band_touch(score_band *b, int64_t planes, int64_t y0, int64_t y1, int64_t z0, int64_t z1) {
  touch_values(b, planes, y0, y1, z0, z1, b->classes);
  if (b->weights) touch_values(b, planes, y0, y1, z0, z1, 1);
}

/* ---- arithmetic on voxels that lie one behind the other ---- */

/* The number of every voxel, once for each of its classes. */
FOR_EACH_ISA static void spread(const float *of_voxel, int64_t voxels, int64_t classes,
                                float *restrict out) {
  for (int64_t v = 0; v < voxels; v++)
    for (int64_t c = 0; c < classes; c++) out[v * classes + c] = of_voxel[v];
}

/* The importance of voxels whose place in the plane counts `in_plane`, and whose place along z counts
 * along_z[i]. */
VECTOR_INLINE float weight_at(const float *along_z, int64_t i, float in_plane, float lowest) {
  float weight = in_plane * along_z[i];
  return weight < lowest ? lowest : weight;
}

FOR_EACH_ISA static void add_weighted(float *restrict sum, const float *restrict score,
                                      const float *restrict along_z, float in_plane, float lowest,
                                      int64_t n) {
  for (int64_t i = 0; i < n; i++) sum[i] += score[i] * weight_at(along_z, i, in_plane, lowest);
}

FOR_EACH_ISA static void put_weighted(float *restrict sum, const float *restrict score,
                                      const float *restrict along_z, float in_plane, float lowest,
                                      int64_t n) {
  for (int64_t i = 0; i < n; i++) sum[i] = score[i] * weight_at(along_z, i, in_plane, lowest);
}

FOR_EACH_ISA static void add_weights(float *restrict sum, const float *restrict along_z,
                                     float in_plane, float lowest, int64_t n) {
  for (int64_t i = 0; i < n; i++) sum[i] += weight_at(along_z, i, in_plane, lowest);
}

FOR_EACH_ISA static void put_weights(float *restrict sum, const float *restrict along_z,
                                     float in_plane, float lowest, int64_t n) {
  for (int64_t i = 0; i < n; i++) sum[i] = weight_at(along_z, i, in_plane, lowest);
}

FOR_EACH_ISA static void divide(float *restrict sum, const float *restrict weight, int64_t n) {
  for (int64_t i = 0; i < n; i++) sum[i] /= weight[i];
}

FOR_EACH_ISA static void reverse_voxels(const float *restrict in, int64_t voxels, int64_t classes,
                                        float *restrict out) {
  for (int64_t v = 0; v < voxels; v++)
    for (int64_t c = 0; c < classes; c++) out[v * classes + c] = in[(voxels - 1 - v) * classes + c];
}

FOR_EACH_ISA static void softmax(float *p, int64_t voxels, int64_t classes) {
  for (int64_t v = 0; v < voxels; v++) {
    float *row = p + v * classes, largest = row[0];
    for (int64_t c = 1; c < classes; c++) largest = row[c] > largest ? row[c] : largest;
    for (int64_t c = 0; c < classes; c++) row[c] -= largest;
  }
  for (int64_t i = 0; i < voxels * classes; i++) p[i] = vector_exp(p[i]);
  for (int64_t v = 0; v < voxels; v++) {
    float *row = p + v * classes, total = 0;
    for (int64_t c = 0; c < classes; c++) total += row[c];
    for (int64_t c = 0; c < classes; c++) row[c] /= total;
  }
}

FOR_EACH_ISA static void sigmoid(float *p, int64_t n) {
  for (int64_t i = 0; i < n; i++) p[i] = 1.0f / (1.0f + vector_exp(-p[i]));
}

/* Logits → probabilities, in place. */
static void to_probabilities(const score_band *b, float *p, int64_t voxels) {
  if (b->region_labels)
    sigmoid(p, voxels * b->classes);
  else
    softmax(p, voxels, b->classes);
}

FOR_EACH_ISA static void find_best(const float *p, int64_t voxels, int64_t classes, uint8_t *best) {
  for (int64_t v = 0; v < voxels; v++, p += classes) {
    float top = p[0];
    int32_t class = 0;
    for (int32_t c = 1; c < classes; c++) {
      bool larger = p[c] > top;
      class = larger ? c : class;
      top = larger ? p[c] : top;
    }
    best[v] = (uint8_t) class;
  }
}

static void find_regions(const score_band *b, const float *p, int64_t voxels, float threshold,
                         uint8_t *best) {
  for (int64_t v = 0; v < voxels; v++) {
    best[v] = 0;
    for (int64_t c = 0; c < b->classes; c++)
      if (p[v * b->classes + c] > threshold) best[v] = b->region_labels[c];
  }
}

/* The first score of a voxel with one that is not finite becomes NaN, for whoever looks for it. */
static void mark_not_finite(float *p, int64_t voxels, int64_t classes) {
  for (int64_t v = 0; v < voxels; v++, p += classes)
    if (!floats_are_finite(p, classes)) p[0] = NAN;
}

/* ---- adding ---- */

typedef struct adding {
  score_band *b;
  const band_window *w;
  int64_t from[3], to[3]; /* the part of the window that lies on the grid, in its voxels */
} adding;

/* Voxels of a row of the window, which are held in one piece. */
typedef struct row_part {
  int64_t x, y, z, n; /* n of them from (x, y, z) on */
  bool fresh;         /* they have no score yet */
  bool last;          /* they will not get another */
} row_part;

/* The part's scores, turned as the grid is and made what is added up; in `room` if they are changed. */
static const float *scores_of(const adding *a, const row_part *r, float *room) {
  const band_window *w = a->w;
  int64_t classes = a->b->classes, nx = w->size[0], ny = w->size[1], nz = w->size[2], n = r->n;
  int64_t sx = w->mirror[0] ? nx - 1 - r->x : r->x, sy = w->mirror[1] ? ny - 1 - r->y : r->y;
  int64_t sz = w->mirror[2] ? nz - r->z - n : r->z; /* of the part's first voxel in memory */
  const float *score = w->scores + (((sx - w->from) * ny + sy) * nz + sz) * classes;
  if (!w->mirror[2] && !w->probabilities) return score;
  if (w->mirror[2])
    reverse_voxels(score, n, classes, room);
  else
    memcpy(room, score, (size_t)(n * classes) * sizeof *room);
  if (!w->probabilities) return room;
  if (floats_are_finite(room, n * classes))
    to_probabilities(a->b, room, n);
  else
    mark_not_finite(room, n, classes);
  return room;
}

/* `n` voxels that have all their scores. */
static void finish_part(score_band *b, int64_t voxel, int64_t n) {
  int64_t classes = b->classes;
  float *p = b->scores + voxel * classes, weight[PART_VALUES];
  if (!floats_are_finite(p, n * classes)) {
    mark_not_finite(p, n, classes);
    atomic_store(&b->diverged, true);
    return;
  }
  /* Of the sums, whatever becomes of them: rounded, two may be equal that were not. */
  bool of_means = b->region_labels && b->kind == BAND_MEANS;
  if (!b->region_labels)
    find_best(p, n, classes, b->best + voxel);
  else if (!of_means)
    find_regions(b, p, n, 0.0f, b->best + voxel); /* of logits */
  if (b->weights) {
    spread(b->weights + voxel, n, classes, weight);
    divide(p, weight, n * classes);
  }
  if (of_means) find_regions(b, p, n, 0.5f, b->best + voxel); /* of probabilities */
  if (b->kind == BAND_PROBABILITIES) to_probabilities(b, p, n);
}

static void add_part(const adding *a, const row_part *r) {
  const band_window *w = a->w;
  score_band *b = a->b;
  float room[PART_VALUES];
  const float *score = scores_of(a, r, room);
  const importance *i = w->importance;
  const float *along_z = i->along[2] + r->z, *by_class = i->by_class + r->z * b->classes;
  float in_plane = i->along[0][r->x] * i->along[1][r->y];
  int64_t voxel = band_voxel(b, w->start[0] + r->x, w->start[1] + r->y, w->start[2] + r->z);
  (r->fresh ? put_weighted : add_weighted)(b->scores + voxel * b->classes, score, by_class,
                                           in_plane, i->lowest, r->n * b->classes);
  if (b->weights)
    (r->fresh ? put_weights : add_weights)(b->weights + voxel, along_z, in_plane, i->lowest, r->n);
  if (r->last) finish_part(b, voxel, r->n); /* as long as they are in the cache */
}

static void add_plane(void *context, int64_t plane) {
  const adding *a = context;
  const band_window *w = a->w;
  row_part r = {.x = a->from[0] + plane};
  int64_t x = w->start[0] + r.x, most = PART_VALUES / a->b->classes;
  for (r.y = a->from[1]; r.y < a->to[1]; r.y++) {
    int64_t y = w->start[1] + r.y;
    bool may_be_fresh = x >= w->fresh[0] && y >= w->fresh[1];
    bool may_be_last = x < w->last[0] && y < w->last[1];
    for (r.z = a->from[2]; r.z < a->to[2]; r.z += r.n) {
      int64_t z = w->start[2] + r.z, end = w->start[2] + a->to[2];
      r.fresh = may_be_fresh && z >= w->fresh[2];
      r.last = may_be_last && z < w->last[2];
      if (may_be_fresh && !r.fresh && end > w->fresh[2]) end = w->fresh[2];
      if (r.last && end > w->last[2]) end = w->last[2];
      r.n = band_run(a->b, z, end);
      if (r.n > most) r.n = most;
      add_part(a, &r);
    }
  }
}

void band_add(score_band *b, thread_pool *pool, const band_window *w) {
  int64_t nx = w->size[0];
  adding a = {.b = b,
              .w = w,
              .from = {w->mirror[0] ? nx - w->to : w->from},
              .to = {w->mirror[0] ? nx - w->from : w->to, w->size[1], w->size[2]}};
  for (int axis = 0; axis < 3; axis++) {
    int64_t first = w->start[axis], extent = b->size[axis];
    if (a.from[axis] < -first) a.from[axis] = -first;
    if (a.to[axis] > extent - first) a.to[axis] = extent - first;
  }
  int64_t planes = a.to[0] - a.from[0];
  if (planes <= 0) return;
  band_touch(b, planes, w->start[1] + a.from[1], w->start[1] + a.to[1], w->start[2] + a.from[2],
             w->start[2] + a.to[2]);
  parallel_for(pool, planes, add_plane, &a);
}

status band_check(score_band *b, int64_t from, int64_t to) {
  if (!atomic_load(&b->diverged)) return OK;
  int64_t low[3] = {0}, high[3] = {b->size[0], b->size[1], b->size[2]};
  low[b->axis] = from;
  high[b->axis] = to;
  for (int64_t x = low[0]; x < high[0]; x++) {
    band_touch(b, 1, low[1], high[1], low[2], high[2]);
    for (int64_t y = low[1]; y < high[1]; y++)
      for (int64_t z = low[2]; z < high[2]; z++)
        if (isnan(b->scores[band_voxel(b, x, y, z) * b->classes]))
          return error_new(
              ERROR_NUMERIC, NOWHERE,
              "the network's output is not finite at voxel (%lld, %lld, %lld). Its weights "
              "may have diverged: try a smaller learning rate or gradient clipping",
              (long long)x, (long long)y, (long long)z);
  }
  return error_new(ERROR_INTERNAL, NOWHERE, "a score was refused without reason");
}
