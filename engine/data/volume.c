#include "data/volume.h"

#include "ops/arithmetic/vector_math.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static status grid_values(const int64_t size[3], int64_t channels, size_t *values) {
  int64_t n = channels;
  for (int a = 0; a < 3; a++) {
    if (size[a] < 1 || n < 1 || size[a] > VOXELS_MAX / n)
      return error_new(
          ERROR_MEMORY, NOWHERE, "a volume of %lld × %lld × %lld voxels and %lld channels is %s",
          (long long)size[0], (long long)size[1], (long long)size[2], (long long)channels,
          size[a] < 1 || n < 1 ? "empty" : "larger than 8 GiB, the limit");
    n *= size[a];
  }
  *values = (size_t)n;
  return OK;
}

void memory_want_huge_pages(void *memory, size_t bytes) {
  const uintptr_t huge = (uintptr_t)2 << 20;
  uintptr_t from = ((uintptr_t)memory + huge - 1) & ~(huge - 1);
  uintptr_t to = ((uintptr_t)memory + bytes) & ~(huge - 1);
  if (memory && from + huge < to) madvise((void *)from, to - from, MADV_HUGEPAGE);
}

/* `zeroed` false: the caller writes every value. */
static status grid_allocate(const int64_t size[3], int64_t channels, size_t value_bytes,
                            bool zeroed, void **out) {
  size_t values = 0;
  TRY(grid_values(size, channels, &values));
  *out = zeroed ? calloc(values, value_bytes) : malloc(values * value_bytes);
  if (!*out) return error_out_of_memory(values * value_bytes);
  memory_want_huge_pages(*out, values * value_bytes);
  return OK;
}

static status volume_make(volume *v, const int64_t size[3], int64_t channels, bool zeroed) {
  void *data = NULL;
  TRY(grid_allocate(size, channels, sizeof *v->data, zeroed, &data));
  v->data = data;
  memcpy(v->size, size, sizeof v->size);
  v->channels = channels;
  return OK;
}

static status labels_make(labels *l, const int64_t size[3], bool zeroed) {
  void *data = NULL;
  TRY(grid_allocate(size, 1, sizeof *l->data, zeroed, &data));
  l->data = data;
  memcpy(l->size, size, sizeof l->size);
  return OK;
}

status volume_reserve(volume *v, const int64_t size[3], int64_t channels) {
  return volume_make(v, size, channels, false);
}

status labels_reserve(labels *l, const int64_t size[3]) {
  return labels_make(l, size, false);
}

status volume_size_check(const int64_t size[3], int64_t channels) {
  size_t values;
  return grid_values(size, channels, &values);
}

status volume_allocate(volume *v, const int64_t size[3], int64_t channels) {
  return volume_make(v, size, channels, true);
}

status labels_allocate(labels *l, const int64_t size[3]) {
  return labels_make(l, size, true);
}

void volume_free(volume *v) {
  free(v->data);
  *v = (volume){0};
}

void labels_free(labels *l) {
  free(l->data);
  free(l->counts);
  *l = (labels){0};
}

void case_free(medical_case *c) {
  volume_free(&c->image);
  labels_free(&c->label);
}

FOR_EACH_ISA bool floats_are_finite(const float *v, int64_t n) {
  int32_t wrong = 0;
  for (int64_t i = 0; i < n; i++) wrong |= !(fabsf(v[i]) <= __FLT_MAX__);
  return !wrong;
}

/* A label map is made of long runs: those are measured, a stretch at a time where it is of one class. */
enum { STRETCH = 32 };

VECTOR_INLINE bool stretch_is(const uint8_t *class, uint8_t of) {
  uint8_t differs = 0;
  for (int k = 0; k < STRETCH; k++) differs |= class[k] ^ of;
  return !differs;
}

FOR_EACH_ISA static void count_line(const uint8_t *class, int64_t n, uint32_t *counts) {
  uint32_t run = 0; /* voxels of `last` that are not counted yet */
  uint8_t last = 0;
  for (int64_t i = 0; i < n;) {
    int64_t end = i + STRETCH < n ? i + STRETCH : n;
    if (end - i == STRETCH && stretch_is(class + i, last)) {
      run += STRETCH;
      i = end;
      continue;
    }
    for (; i < end; i++, run++) {
      if (class[i] == last) continue;
      counts[last] += run;
      run = 0;
      last = class[i];
    }
  }
  counts[last] += run;
}

status labels_count(labels *l) {
  const int64_t slab = l->size[1] * l->size[2];
  size_t entries = (size_t)l->size[0] * LABEL_VALUES;
  uint32_t *counts = calloc(entries, sizeof *counts);
  if (!counts) return error_out_of_memory(entries * sizeof *counts);
  for (int64_t x = 0; x < l->size[0]; x++)
    count_line(l->data + x * slab, slab, counts + x * LABEL_VALUES);
  free(l->counts);
  l->counts = counts;
  return OK;
}

FOR_EACH_ISA static void replace_values(uint8_t *v, int64_t n, uint8_t from, uint8_t to) {
  for (int64_t i = 0; i < n; i++) v[i] = v[i] == from ? to : v[i];
}

void labels_replace(labels *l, uint8_t from, uint8_t to) {
  replace_values(l->data, l->size[0] * l->size[1] * l->size[2], from, to);
}

status case_copy(const medical_case *in, medical_case *out) {
  *out = (medical_case){.name = in->name};
  status error = OK;
  if (in->image.data) {
    const volume *v = &in->image;
    error = volume_make(&out->image, v->size, v->channels, false);
    if (error) return error;
    size_t values = (size_t)(v->size[0] * v->size[1] * v->size[2] * v->channels);
    memcpy(out->image.data, v->data, values * sizeof(float));
    memcpy(out->image.affine, v->affine, sizeof v->affine);
  }
  if (in->label.data) {
    const labels *l = &in->label;
    error = labels_make(&out->label, l->size, false);
    if (error) {
      case_free(out);
      return error;
    }
    memcpy(out->label.data, l->data, (size_t)(l->size[0] * l->size[1] * l->size[2]));
    memcpy(out->label.affine, l->affine, sizeof l->affine);
  }
  return OK;
}

/* ---- affines ---- */

static bool is_beyond(float value, float from, float to) {
  return value < from || value > to;
}

bool volume_box_beyond(const volume *v, float from, float to, int64_t low[3], int64_t high[3]) {
  const int64_t line = v->size[2] * v->channels;
  for (int a = 0; a < 3; a++) {
    low[a] = v->size[a];
    high[a] = -1;
  }
  for (int64_t x = 0; x < v->size[0]; x++)
    for (int64_t y = 0; y < v->size[1]; y++) {
      const float *row = v->data + (x * v->size[1] + y) * line;
      int64_t first = 0, last = line - 1;
      while (first < line && !is_beyond(row[first], from, to)) first++;
      if (first == line) continue;
      while (!is_beyond(row[last], from, to)) last--;
      int64_t begin[3] = {x, y, first / v->channels}, end[3] = {x, y, last / v->channels};
      for (int a = 0; a < 3; a++) {
        low[a] = begin[a] < low[a] ? begin[a] : low[a];
        high[a] = end[a] > high[a] ? end[a] : high[a];
      }
    }
  return high[0] >= 0;
}

void affine_spacing(const double affine[4][4], double spacing_mm[3]) {
  for (int c = 0; c < 3; c++)
    spacing_mm[c] = sqrt(affine[0][c] * affine[0][c] + affine[1][c] * affine[1][c] +
                         affine[2][c] * affine[2][c]);
}

static double determinant(const double m[4][4]) {
  return m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) -
         m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
         m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]);
}

bool affine_is_valid(const double affine[4][4]) {
  static const double spacing_min_mm = 1e-6, spacing_max_mm = 1e6, origin_max_mm = 1e9;
  double spacing[3];
  affine_spacing(affine, spacing);
  for (int a = 0; a < 3; a++)
    if (!(spacing[a] >= spacing_min_mm && spacing[a] <= spacing_max_mm &&
          fabs(affine[a][3]) <= origin_max_mm))
      return false;
  double box = spacing[0] * spacing[1] * spacing[2];
  /* Axes this close to one plane are a broken header, not an oblique scan. */
  return affine[3][0] == 0 && affine[3][1] == 0 && affine[3][2] == 0 && affine[3][3] == 1 &&
         fabs(determinant(affine)) > 1e-4 * box;
}

void affine_inverse(const double affine[4][4], double out[4][4]) {
  const double(*m)[4] = affine;
  double inverse[4][4] = {{0}};
  double d = determinant(m);
  for (int r = 0; r < 3; r++)
    for (int c = 0; c < 3; c++) {
      int a = (c + 1) % 3, b = (c + 2) % 3, p = (r + 1) % 3, q = (r + 2) % 3;
      inverse[r][c] = (m[a][p] * m[b][q] - m[a][q] * m[b][p]) / d;
    }
  for (int r = 0; r < 3; r++)
    inverse[r][3] = -(inverse[r][0] * m[0][3] + inverse[r][1] * m[1][3] + inverse[r][2] * m[2][3]);
  inverse[3][3] = 1;
  memcpy(out, inverse, sizeof inverse);
}

double affine_voxel_mm3(const double m[4][4]) {
  return fabs(m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) -
              m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
              m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]));
}

void affine_difference(const double a[4][4], const double b[4][4], const int64_t size[3],
                       double voxels[3]) {
  double to_voxel[4][4];
  affine_inverse(a, to_voxel);
  voxels[0] = voxels[1] = voxels[2] = 0;
  for (int corner = 0; corner < 8; corner++) {
    double at[4] = {0, 0, 0, 1}, mm[3] = {0};
    for (int k = 0; k < 3; k++) at[k] = corner >> k & 1 ? (double)(size[k] - 1) : 0;
    for (int r = 0; r < 3; r++)
      for (int c = 0; c < 4; c++) mm[r] += (b[r][c] - a[r][c]) * at[c];
    for (int r = 0; r < 3; r++) {
      double apart = 0;
      for (int k = 0; k < 3; k++) apart += to_voxel[r][k] * mm[k];
      if (!(fabs(apart) <= voxels[r])) voxels[r] = fabs(apart);
    }
  }
}
