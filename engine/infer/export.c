/* From probabilities on the prepared grid to class numbers on the grid of a file.
 *
 * The two grids are tied by their affines. The usual case (reoriented, cropped) is a signed axis
 * permutation with whole-voxel offsets and copies class numbers; everything else interpolates the
 * probabilities, voxel by voxel. Planes of the prepared grid come a few at a time; each settles the
 * target's voxels that lie between it and the one before. */
#include "infer/infer.h"

#include "data/grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Grids this close (in prepared voxels, anywhere on the target) are the same grid: headers hold f32
 * and quaternions, so equal geometry comes back with errors near 1e-4. */
static const double SAME_GRID_VOXELS = 1e-3;

/* Target voxel → prepared voxel: inverse(prepared affine) × target affine, 3 × 4. */
static status grid_to_grid(const double prepared[4][4], const double target[4][4],
                           double map[3][4]) {
  if (!affine_is_valid(prepared) || !affine_is_valid(target))
    return error_new(ERROR_DATA, NOWHERE,
                     "cannot export labels: the affine of the %s volume is no grid in space: its "
                     "voxels, its origin or its axes are out of bounds",
                     affine_is_valid(prepared) ? "target" : "prepared");
  double inverse[4][4];
  affine_inverse(prepared, inverse);
  for (int r = 0; r < 3; r++)
    for (int c = 0; c < 4; c++) {
      map[r][c] = c == 3 ? inverse[r][3] : 0;
      for (int k = 0; k < 3; k++) map[r][c] += inverse[r][k] * target[k][c];
    }
  return OK;
}

/* True when the target's voxels are prepared voxels, up to order and direction. */
static bool is_regrid(const double map[3][4], const int64_t target_size[3], grid_map *out) {
  bool taken[3] = {false, false, false};
  *out = grid_identity(target_size);
  for (int r = 0; r < 3; r++) {
    int axis = 0;
    for (int c = 1; c < 3; c++)
      if (fabs(map[r][c]) > fabs(map[r][axis])) axis = c;
    if (taken[axis] || fabs(map[r][3]) > 1e9) return false;
    taken[axis] = true;
    double sign = map[r][axis] < 0 ? -1 : 1, offset = round(map[r][3]);
    /* The deviation is linear over the target grid, so its extremes are sums of the axes' own. */
    double low = map[r][3] - offset, high = low;
    for (int c = 0; c < 3; c++) {
      double d = (map[r][c] - (c == axis ? sign : 0)) * (double)(target_size[c] - 1);
      *(d < 0 ? &low : &high) += d;
    }
    if (!(low >= -SAME_GRID_VOXELS && high <= SAME_GRID_VOXELS)) return false;
    out->axis[axis] = r;
    out->flip[axis] = sign < 0;
    out->start[axis] = (int64_t)offset;
  }
  return true;
}

/* Where the file has the voxel that a label map has at `index`. */
static int64_t file_order(const int64_t size[3], int64_t index) {
  int64_t z = index % size[2], y = index / size[2] % size[1], x = index / size[2] / size[1];
  return (z * size[1] + y) * size[0] + x;
}

/* ---- copying ---- */

typedef struct copying {
  const label_export *e;
  const score_band *b;
  int64_t low[3], high[3]; /* prepared voxels */
  int64_t stride[3], base; /* place in the target of a prepared voxel, which may be outside */
} copying;

/* Along x: of the prepared voxels low … high − 1, those that are some of the target's. */
static void clip_to_target(copying *c) {
  const label_export *e = c->e;
  const grid_map *map = &e->copy;
  int64_t stride[3] = {map->size[1] * map->size[2], map->size[2], 1};
  for (int a = 0; a < 3; a++) {
    int axis = map->axis[a];
    int64_t first = map->flip[a] ? map->start[a] - (map->size[a] - 1) : map->start[a];
    if (c->low[axis] < first) c->low[axis] = first;
    if (c->high[axis] > first + map->size[a]) c->high[axis] = first + map->size[a];
    c->stride[axis] = map->flip[a] ? -stride[a] : stride[a];
    c->base -= map->start[a] * c->stride[axis];
  }
}

/* Of `n` voxels along z, the first of which lies at `from` in the band and at `to` in the label map. */
static void copy_probabilities(const copying *c, int64_t from, int64_t to, int64_t n) {
  const nifti_values *values = c->e->probabilities;
  const int64_t *size = values->size, voxels = size[0] * size[1] * size[2];
  const float *p = c->b->scores + from * values->channels;
  for (int64_t k = 0; k < n; k++, to += c->stride[2], p += values->channels) {
    float *at = values->data + file_order(size, to);
    for (int64_t channel = 0; channel < values->channels; channel++)
      at[channel * voxels] = p[channel];
  }
}

static void copy_plane(void *context, int64_t plane) {
  const copying *c = context;
  const score_band *b = c->b;
  int64_t x = c->low[0] + plane, step = c->stride[2];
  for (int64_t y = c->low[1]; y < c->high[1]; y++)
    for (int64_t z = c->low[2], n; z < c->high[2]; z += n) {
      n = band_run(b, z, c->high[2]);
      int64_t from = band_voxel(b, x, y, z);
      int64_t to = c->base + x * c->stride[0] + y * c->stride[1] + z * c->stride[2];
      for (int64_t k = 0; k < n; k++) c->e->out->data[to + k * step] = b->best[from + k];
      if (c->e->probabilities) copy_probabilities(c, from, to, n);
    }
}

static void copy_classes(const label_export *e, const score_band *b, int64_t from, int64_t to) {
  copying c = {.e = e, .b = b};
  memcpy(c.high, b->size, sizeof c.high);
  c.low[b->axis] = from;
  c.high[b->axis] = to;
  clip_to_target(&c);
  for (int a = 0; a < 3; a++)
    if (c.low[a] >= c.high[a]) return;
  parallel_for(e->pool, c.high[0] - c.low[0], copy_plane, &c);
}

/* ---- resampling ---- */

/* The eight prepared voxels around a point, as the band holds them, and their trilinear weights. */
typedef struct cell {
  int64_t voxel[8];
  double weight[8];
} cell;

typedef struct resampling {
  const label_export *e;
  const score_band *b;
  int64_t from, to; /* cells that begin at these planes across the band's axis */
  int order[3];     /* axes of the target: the outermost of the loop first */
  int64_t outer;
} resampling;

/* False outside the grid, and where the cell is not one of this turn's. Between the outermost voxel
 * centres and edges the edge value holds. */
static bool locate(const resampling *r, const double point[3], cell *out) {
  const score_band *b = r->b;
  int64_t low[3], high[3];
  double fraction[3];
  for (int a = 0; a < 3; a++) {
    double last = (double)(b->size[a] - 1), s = point[a];
    if (!(s >= -0.5 - SAME_GRID_VOXELS && s <= last + 0.5 + SAME_GRID_VOXELS)) return false;
    if (a == r->e->whole) s = floor(s + 0.5 + SAME_GRID_VOXELS); /* of two equally near the later */
    s = s < 0 ? 0 : s > last ? last : s;
    low[a] = (int64_t)s;
    high[a] = low[a] + 1 < b->size[a] ? low[a] + 1 : low[a];
    fraction[a] = s - (double)low[a];
  }
  if (low[b->axis] < r->from || low[b->axis] >= r->to) return false;
  low[b->axis] %= b->depth;
  high[b->axis] %= b->depth;
  int64_t ny = b->axis == 1 ? b->depth : b->size[1], nz = b->axis == 2 ? b->depth : b->size[2];
  for (int k = 0; k < 8; k++) {
    int64_t x = k & 4 ? high[0] : low[0], y = k & 2 ? high[1] : low[1],
            z = k & 1 ? high[2] : low[2];
    out->voxel[k] = (x * ny + y) * nz + z;
    out->weight[k] = (k & 4 ? fraction[0] : 1 - fraction[0]) *
                     (k & 2 ? fraction[1] : 1 - fraction[1]) *
                     (k & 1 ? fraction[2] : 1 - fraction[2]);
  }
  return true;
}

static double interpolated(const score_band *b, const cell *at, int64_t class) {
  double value = 0;
  for (int k = 0; k < 8; k++)
    value += at->weight[k] * (double)b->scores[at->voxel[k] * b->classes + class];
  return value;
}

static uint8_t interpolated_class(const score_band *b, const cell *at) {
  /* Where all eight corners agree, so does every weighted mean of them: most voxels end here. */
  bool agree = true;
  for (int k = 1; k < 8; k++) agree = agree && b->best[at->voxel[k]] == b->best[at->voxel[0]];
  if (agree) return b->best[at->voxel[0]];
  uint8_t top = 0;
  double half = b->kind == BAND_LOGITS ? 0 : 0.5, top_value = b->region_labels ? half : -INFINITY;
  for (int64_t c = 0; c < b->classes; c++) {
    double value = interpolated(b, at, c);
    if (value <= top_value) continue;
    if (!b->region_labels) top_value = value;
    top = b->region_labels ? b->region_labels[c] : (uint8_t)c;
  }
  return top;
}

/* Of logits, in place. */
static void to_probabilities(const score_band *b, double *values) {
  double top = -INFINITY, sum = 0;
  for (int64_t c = 0; c < b->classes; c++) top = values[c] > top ? values[c] : top;
  for (int64_t c = 0; c < b->classes; c++) {
    values[c] = b->region_labels ? 1 / (1 + exp(-values[c])) : exp(values[c] - top);
    sum += values[c];
  }
  for (int64_t c = 0; c < b->classes && !b->region_labels; c++) values[c] /= sum;
}

static void keep_probabilities(const score_band *b, const cell *at, int64_t voxel,
                               nifti_values *to) {
  double values[BAND_CLASSES_MAX];
  const int64_t *size = to->size;
  for (int64_t c = 0; c < b->classes; c++) values[c] = interpolated(b, at, c);
  if (b->kind == BAND_LOGITS) to_probabilities(b, values);
  for (int64_t c = 0; c < b->classes; c++)
    to->data[c * size[0] * size[1] * size[2] + file_order(size, voxel)] = (float)values[c];
}

/* Of a row whose voxel k lies at plane start + k · step: those that can be this turn's, and a few
 * around them. */
static void turn_of_row(const resampling *r, double start, double step, int64_t *from,
                        int64_t *to) {
  double n = (double)*to, low = (double)r->from - 2 - start, high = (double)r->to + 1 - start;
  if (fabs(step) * n < 1) { /* the row stays about where it starts */
    if (low > 1 || high < -1) *to = 0;
    return;
  }
  double first = (step > 0 ? low : high) / step, last = (step > 0 ? high : low) / step;
  if (first > 0) *from = first < n ? (int64_t)first : *to;
  if (last < n) *to = last > 0 ? (int64_t)last + 1 : 0;
}

static void resample_row(void *context, int64_t middle) {
  const resampling *r = context;
  const label_export *e = r->e;
  const int64_t *size = e->out->size;
  const double *across = e->map[r->b->axis];
  int64_t at[3], from = 0, to = size[r->order[2]];
  at[r->order[0]] = r->outer;
  at[r->order[1]] = middle;
  at[r->order[2]] = 0;
  double start = across[3];
  for (int a = 0; a < 3; a++) start += across[a] * (double)at[a];
  turn_of_row(r, start, across[r->order[2]], &from, &to);
  for (int64_t inner = from; inner < to; inner++) {
    double point[3];
    at[r->order[2]] = inner;
    for (int a = 0; a < 3; a++)
      point[a] = e->map[a][0] * (double)at[0] + e->map[a][1] * (double)at[1] +
                 e->map[a][2] * (double)at[2] + e->map[a][3];
    cell around;
    if (!locate(r, point, &around)) continue;
    int64_t voxel = (at[0] * size[1] + at[1]) * size[2] + at[2];
    e->out->data[voxel] = interpolated_class(r->b, &around);
    if (e->probabilities) keep_probabilities(r->b, &around, voxel, e->probabilities);
  }
}

/* Slab by slab along the target axis that follows the prepared x axis most closely, because that is
 * the one along which the scores are contiguous. */
static void resample(const label_export *e, score_band *b, int64_t from, int64_t to) {
  const int64_t *size = e->out->size;
  const double *x = e->map[0];
  resampling r = {.e = e, .b = b, .from = from > 0 ? from - 1 : 0};
  r.to = to < b->size[b->axis] ? to - 1 : to;
  int outer = 0;
  for (int c = 1; c < 3; c++)
    if (fabs(x[c]) > fabs(x[outer])) outer = c;
  r.order[0] = outer;
  r.order[1] = outer == 0 ? 1 : 0;
  r.order[2] = outer == 2 ? 1 : 2;
  /* How many of the prepared planes one plane of the target reaches. */
  double reach = 2, planes = (double)(b->axis == 0 ? b->depth : b->size[0]);
  for (int k = 1; k < 3; k++) reach += fabs(x[r.order[k]]) * (double)(size[r.order[k]] - 1);
  if (!(reach < planes)) reach = planes;
  for (r.outer = 0; r.outer < size[outer]; r.outer++) {
    band_touch(b, (int64_t)reach + 1, 0, b->size[1], 0, b->axis == 2 ? b->depth : b->size[2]);
    parallel_for(e->pool, size[r.order[1]], resample_row, &r);
  }
}

/* ---- the whole ---- */

status export_open(const volume *prepared, int64_t classes, const int64_t size[3],
                   const double affine[4][4], thread_pool *pool, labels *out, label_export *e) {
  *out = (labels){0};
  *e = (label_export){.out = out, .pool = pool, .whole = -1};
  if (classes < 1 || classes > BAND_CLASSES_MAX)
    return error_new(ERROR_DATA, NOWHERE, "cannot export %lld classes: at most %d fit a label map",
                     (long long)classes, BAND_CLASSES_MAX);
  TRY(grid_to_grid(prepared->affine, affine, e->map));
  TRY(labels_allocate(out, size));
  memcpy(out->affine, affine, sizeof out->affine);
  e->is_copy = is_regrid(e->map, size, &e->copy);
  return OK;
}

void export_like(label_export *e, const volume *prepared, const window_spec *windows) {
  static const double coarse = 3; /* times the finest, as in nnU-Net */
  double prepared_mm[3], target_mm[3], along_mm[3];
  affine_spacing(prepared->affine, prepared_mm);
  affine_spacing((const double(*)[4])e->out->affine, target_mm);
  for (int a = 0; a < 3; a++) { /* of the target axis that follows this one most closely */
    const double *row = e->map[a];
    int axis = 0;
    for (int c = 1; c < 3; c++)
      if (fabs(row[c]) * target_mm[axis] > fabs(row[axis]) * target_mm[c]) axis = c;
    along_mm[a] = target_mm[axis];
  }
  e->logits = windows->resample_logits && !e->is_copy;
  if (windows->separates_axis) e->whole = grid_coarse_axis(prepared_mm, along_mm, coarse);
}

static status take_planes(void *context, score_band *band, int64_t from, int64_t to) {
  const label_export *e = context;
  /* Whichever of the file's pages these planes reach. */
  if (e->probabilities) spill_touch(&e->probabilities->memory, 1, e->probabilities->memory.bytes);
  if (e->is_copy)
    copy_classes(e, band, from, to);
  else
    resample(e, band, from, to);
  return OK;
}

void export_keep_probabilities(label_export *e, bool are_regions, nifti_values *to) {
  e->probabilities = to;
  if (are_regions) return;
  for (int64_t i = 0; i < to->size[0] * to->size[1] * to->size[2]; i++) to->data[i] = 1;
}

score_reader export_reader(label_export *e) {
  return (score_reader){.probabilities = !e->is_copy || e->probabilities,
                        .logits = e->logits,
                        .planes = take_planes,
                        .context = e};
}
