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

/* Most stretches of a label map are of one class. */
FOR_EACH_ISA static void count_line(const uint8_t *class, int64_t n, uint32_t *counts) {
  enum { STRETCH = 16 };
  int64_t i = 0;
  for (; i + STRETCH <= n; i += STRETCH) {
    uint8_t differs = 0;
    for (int k = 0; k < STRETCH; k++) differs |= class[i + k] ^ class[i];
    if (differs)
      for (int k = 0; k < STRETCH; k++) counts[class[i + k]]++;
    else
      counts[class[i]] += STRETCH;
  }
  for (; i < n; i++) counts[class[i]]++;
}

status labels_count(labels *l) {
  const int64_t slab = l->size[1] * l->size[2];
  size_t entries = (size_t)l->size[0] * LABEL_CLASSES;
  uint32_t *counts = calloc(entries, sizeof *counts);
  if (!counts) return error_out_of_memory(entries * sizeof *counts);
  for (int64_t x = 0; x < l->size[0]; x++)
    count_line(l->data + x * slab, slab, counts + x * LABEL_CLASSES);
  free(l->counts);
  l->counts = counts;
  return OK;
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
  for (int r = 0; r < 3; r++)
    for (int c = 0; c < 4; c++)
      if (!isfinite(affine[r][c])) return false;
  double spacing[3];
  affine_spacing(affine, spacing);
  double box = spacing[0] * spacing[1] * spacing[2];
  /* Axes this close to one plane are a broken header, not an oblique scan. */
  return affine[3][0] == 0 && affine[3][1] == 0 && affine[3][2] == 0 && affine[3][3] == 1 &&
         isfinite(box) && box > 1e-12 && fabs(determinant(affine)) > 1e-4 * box;
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

/* ---- grids ---- */

grid_map grid_identity(const int64_t size[3]) {
  return (grid_map){.axis = {0, 1, 2}, .size = {size[0], size[1], size[2]}};
}

static void regrid_affine(const double in[4][4], const grid_map *map, double out[4][4]) {
  double result[4][4] = {{0}};
  for (int r = 0; r < 3; r++) {
    result[r][3] = in[r][3];
    for (int a = 0; a < 3; a++) {
      double step = in[r][map->axis[a]];
      result[r][a] = map->flip[a] ? -step : step;
      result[r][3] += step * (double)map->start[a];
    }
  }
  result[3][3] = 1;
  memcpy(out, result, sizeof result);
}

/* Copies every output voxel that has an input voxel. */
static void regrid(const void *in, const int64_t in_size[3], const grid_map *map,
                   int64_t voxel_bytes, void *out) {
  const int64_t in_stride[3] = {in_size[1] * in_size[2] * voxel_bytes, in_size[2] * voxel_bytes,
                                voxel_bytes};
  const int64_t out_stride[2] = {map->size[1] * map->size[2] * voxel_bytes,
                                 map->size[2] * voxel_bytes};
  int64_t low[3], high[3], step[3], origin = 0;
  for (int a = 0; a < 3; a++) {
    int64_t n = in_size[map->axis[a]], first = map->start[a];
    step[a] = map->flip[a] ? -in_stride[map->axis[a]] : in_stride[map->axis[a]];
    low[a] = map->flip[a] ? first - (n - 1) : -first;
    high[a] = map->flip[a] ? first + 1 : n - first;
    if (low[a] < 0) low[a] = 0;
    if (high[a] > map->size[a]) high[a] = map->size[a];
    if (low[a] >= high[a]) return;
    origin += first * in_stride[map->axis[a]];
  }
  int64_t n = high[2] - low[2];
  for (int64_t x = low[0]; x < high[0]; x++)
    for (int64_t y = low[1]; y < high[1]; y++) {
      const unsigned char *from =
          (const unsigned char *)in + (origin + x * step[0] + y * step[1] + low[2] * step[2]);
      unsigned char *to =
          (unsigned char *)out + (x * out_stride[0] + y * out_stride[1] + low[2] * voxel_bytes);
      if (step[2] == voxel_bytes)
        memcpy(to, from, (size_t)(n * voxel_bytes));
      else if (voxel_bytes == 4)
        for (int64_t z = 0; z < n; z++) memcpy(to + z * 4, from + z * step[2], 4);
      else if (voxel_bytes == 1)
        for (int64_t z = 0; z < n; z++) to[z] = from[z * step[2]];
      else
        for (int64_t z = 0; z < n; z++)
          memcpy(to + z * voxel_bytes, from + z * step[2], (size_t)voxel_bytes);
    }
}

/* Has every output voxel an input voxel? */
static bool regrid_covers(const int64_t in_size[3], const grid_map *map) {
  for (int a = 0; a < 3; a++) {
    int64_t n = in_size[map->axis[a]], first = map->start[a];
    int64_t last = map->flip[a] ? first - (map->size[a] - 1) : first + map->size[a] - 1;
    if (first < 0 || first >= n || last < 0 || last >= n) return false;
  }
  return true;
}

void volume_regrid_into(const volume *in, const grid_map *map, float fill, volume *out) {
  int64_t values = map->size[0] * map->size[1] * map->size[2] * in->channels;
  if (!regrid_covers(in->size, map))
    for (int64_t i = 0; i < values; i++) out->data[i] = fill;
  memcpy(out->size, map->size, sizeof out->size);
  out->channels = in->channels;
  regrid(in->data, in->size, map, in->channels * (int64_t)sizeof(float), out->data);
  regrid_affine(in->affine, map, out->affine);
}

void labels_regrid_into(const labels *in, const grid_map *map, labels *out) {
  size_t voxels = (size_t)(map->size[0] * map->size[1] * map->size[2]);
  if (!regrid_covers(in->size, map)) memset(out->data, 0, voxels * sizeof *out->data);
  memcpy(out->size, map->size, sizeof out->size);
  regrid(in->data, in->size, map, 1, out->data);
  regrid_affine(in->affine, map, out->affine);
}

status volume_regrid(const volume *in, const grid_map *map, float fill, volume *out) {
  volume made = {0};
  TRY(volume_make(&made, map->size, in->channels, false));
  volume_regrid_into(in, map, fill, &made);
  *out = made;
  return OK;
}

status labels_regrid(const labels *in, const grid_map *map, labels *out) {
  labels made = {0};
  TRY(labels_make(&made, map->size, false));
  labels_regrid_into(in, map, &made);
  *out = made;
  return OK;
}

/* ---- mirror images in place ---- */

static void swap_rows(unsigned char *a, unsigned char *b, size_t bytes) {
  unsigned char part[4096];
  for (size_t at = 0; at < bytes; at += sizeof part) {
    size_t n = bytes - at < sizeof part ? bytes - at : sizeof part;
    memcpy(part, a + at, n);
    memcpy(a + at, b + at, n);
    memcpy(b + at, part, n);
  }
}

FOR_EACH_ISA static void reverse_bytes(unsigned char *bytes, int64_t n) {
  for (int64_t i = 0; i < n / 2; i++) {
    unsigned char first = bytes[i];
    bytes[i] = bytes[n - 1 - i];
    bytes[n - 1 - i] = first;
  }
}

FOR_EACH_ISA static void reverse_words(uint32_t *words, int64_t n) {
  for (int64_t i = 0; i < n / 2; i++) {
    uint32_t first = words[i];
    words[i] = words[n - 1 - i];
    words[n - 1 - i] = first;
  }
}

static void reverse_voxels(unsigned char *row, int64_t n, int64_t voxel_bytes) {
  if (voxel_bytes == 4)
    reverse_words((uint32_t *)(void *)row, n);
  else if (voxel_bytes == 1)
    reverse_bytes(row, n);
  else
    for (int64_t i = 0; i < n / 2; i++)
      swap_rows(row + i * voxel_bytes, row + (n - 1 - i) * voxel_bytes, (size_t)voxel_bytes);
}

static void mirror(void *data, const int64_t size[3], const bool flip[3], int64_t voxel_bytes) {
  const int64_t row = size[2] * voxel_bytes, rows = size[0] * size[1];
  unsigned char *at = data;
  /* Along x and y whole rows change places: row (x, y) with the one it is mirrored to. */
  for (int64_t r = 0; r < rows && (flip[0] || flip[1]); r++) {
    int64_t x = flip[0] ? size[0] - 1 - r / size[1] : r / size[1];
    int64_t y = flip[1] ? size[1] - 1 - r % size[1] : r % size[1];
    int64_t other = x * size[1] + y;
    if (other > r) swap_rows(at + r * row, at + other * row, (size_t)row);
  }
  for (int64_t r = 0; r < rows && flip[2]; r++) reverse_voxels(at + r * row, size[2], voxel_bytes);
}

bool grid_is_mirror(const grid_map *map, const int64_t size[3]) {
  for (int a = 0; a < 3; a++)
    if (map->axis[a] != a || map->size[a] != size[a] ||
        map->start[a] != (map->flip[a] ? size[a] - 1 : 0))
      return false;
  return true;
}

void volume_mirror(volume *v, const grid_map *map) {
  mirror(v->data, v->size, map->flip, v->channels * (int64_t)sizeof(float));
  regrid_affine(v->affine, map, v->affine);
}

void labels_mirror(labels *l, const grid_map *map) {
  free(l->counts);
  l->counts = NULL;
  mirror(l->data, l->size, map->flip, 1);
  regrid_affine(l->affine, map, l->affine);
}

/* World axis (0, 1, 2 = right, anterior, superior) of a letter; −1 when it is none. */
static int letter_axis(char letter, bool *negative) {
  static const char letters[] = "RLAPSI";
  const char *found = letter ? strchr(letters, letter) : NULL;
  if (!found) return -1;
  *negative = (found - letters) % 2 == 1;
  return (int)(found - letters) / 2;
}

bool grid_axes_valid(const char *axes) {
  unsigned seen = 0;
  bool negative;
  if (!axes || strlen(axes) != 3) return false;
  for (int a = 0; a < 3; a++) {
    int axis = letter_axis(axes[a], &negative);
    if (axis < 0) return false;
    seen |= 1u << axis;
  }
  return seen == 7;
}

grid_map grid_to_axes(const double affine[4][4], const int64_t size[3], const char *axes) {
  static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                   {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
  double spacing[3], best = -1;
  affine_spacing(affine, spacing);
  const int *to_world = orders[0]; /* voxel axis → the world axis it runs along */
  for (int o = 0; o < 6; o++) {
    double fit = 0;
    for (int c = 0; c < 3; c++) {
      double cosine = affine[orders[o][c]][c] / spacing[c];
      fit += cosine * cosine;
    }
    if (fit > best + 1e-9) {
      best = fit;
      to_world = orders[o];
    }
  }
  grid_map map = {0};
  for (int a = 0; a < 3; a++) {
    bool negative = false;
    int world = letter_axis(axes[a], &negative), from = 0;
    while (to_world[from] != world) from++;
    map.axis[a] = from;
    map.size[a] = size[from];
    map.flip[a] = (affine[world][from] < 0) != negative;
    map.start[a] = map.flip[a] ? size[from] - 1 : 0;
  }
  return map;
}
