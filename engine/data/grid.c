#include "data/grid.h"

#include "ops/arithmetic/vector_math.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

grid_map grid_identity(const int64_t size[3]) {
  return (grid_map){.axis = {0, 1, 2}, .size = {size[0], size[1], size[2]}};
}

grid_map grid_compose(const grid_map *first, const grid_map *second) {
  grid_map both = *second;
  for (int a = 0; a < 3; a++) {
    int middle = second->axis[a];
    int64_t start = second->start[a];
    both.axis[a] = first->axis[middle];
    both.flip[a] = first->flip[middle] != second->flip[a];
    both.start[a] = first->start[middle] + (first->flip[middle] ? -start : start);
  }
  return both;
}

bool grid_covers(const int64_t in_size[3], const grid_map *map) {
  for (int a = 0; a < 3; a++) {
    int64_t n = in_size[map->axis[a]], first = map->start[a];
    int64_t last = map->flip[a] ? first - (map->size[a] - 1) : first + map->size[a] - 1;
    if (first < 0 || first >= n || last < 0 || last >= n) return false;
  }
  return true;
}

bool grid_is_part(const grid_map *map, const int64_t size[3]) {
  for (int a = 0; a < 3; a++)
    if (map->axis[a] != a) return false;
  return grid_covers(size, map);
}

void grid_affine(const double in[4][4], const grid_map *map, double out[4][4]) {
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

/* ---- intensities ---- */

bool rescale_is_none(rescale change) {
  return change.scale == 1 && change.shift == 0 && signbit(change.shift);
}

FOR_EACH_ISA static void rescale_values(float *v, int64_t n, rescale change) {
  for (int64_t i = 0; i < n; i++) v[i] = v[i] * change.scale + change.shift;
}

void volume_rescale(volume *v, rescale change) {
  rescale_values(v->data, v->size[0] * v->size[1] * v->size[2] * v->channels, change);
}

/* ---- moving rows ---- */

typedef uint32_t voxel_word __attribute__((may_alias));

FOR_EACH_ISA static void reverse_copy_words(const voxel_word *restrict last, int64_t n,
                                            voxel_word *restrict to) {
  for (int64_t i = 0; i < n; i++) to[i] = last[-i];
}

FOR_EACH_ISA static void reverse_copy_bytes(const uint8_t *restrict last, int64_t n,
                                            uint8_t *restrict to) {
  for (int64_t i = 0; i < n; i++) to[i] = last[-i];
}

/* n voxels, `step` bytes apart, become neighbours. */
static void gather(const unsigned char *from, int64_t step, int64_t n, int64_t voxel_bytes,
                   unsigned char *to) {
  if (step == voxel_bytes)
    memcpy(to, from, (size_t)(n * voxel_bytes));
  else if (voxel_bytes == 4 && step == -4)
    reverse_copy_words((const voxel_word *)(const void *)from, n, (voxel_word *)(void *)to);
  else if (voxel_bytes == 1 && step == -1)
    reverse_copy_bytes(from, n, to);
  else if (voxel_bytes == 4)
    for (int64_t z = 0; z < n; z++) memcpy(to + z * 4, from + z * step, 4);
  else if (voxel_bytes == 1)
    for (int64_t z = 0; z < n; z++) to[z] = from[z * step];
  else
    for (int64_t z = 0; z < n; z++)
      memcpy(to + z * voxel_bytes, from + z * step, (size_t)voxel_bytes);
}

/* What is done to the voxels of a grid on their way to another. */
typedef struct moving {
  int64_t voxel_bytes;
  rescale change; /* of float voxels */
  bool rescales, past_caches;
} moving;

/* Crops are short rows far apart: what the processor fetches on its own is mostly the gaps. */
enum { ROWS_AHEAD = 4 };

VECTOR_INLINE void fetch_row(const unsigned char *row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(row + i);
}

/* Rows along y, of voxels `step` bytes apart. */
typedef struct rows {
  const unsigned char *from;
  unsigned char *to;
  int64_t from_step, to_step, count, n, step;
} rows;

#ifdef __SSE2__
typedef float floats4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint8_t bytes16 __attribute__((vector_size(16), aligned(1), may_alias));

/* The voxels of a row, one word or byte each, on their way through registers: `turned` counts down
 * from `from`. */
VECTOR_INLINE void stream_words(const float *from, bool turned, const rescale *change, int64_t n,
                                float *to) {
  for (int64_t i = 0; i < n; i += 4) {
    floats4 v = *(const floats4 *)(turned ? from - i - 3 : from + i);
    if (turned) v = __builtin_shufflevector(v, v, 3, 2, 1, 0);
    if (change) v = v * change->scale + change->shift;
    _mm_stream_ps(to + i, v);
  }
}

VECTOR_INLINE void stream_bytes(const uint8_t *from, bool turned, int64_t n, uint8_t *to) {
  for (int64_t i = 0; i < n; i += 16) {
    bytes16 v = *(const bytes16 *)(turned ? from - i - 15 : from + i);
    if (turned)
      v = __builtin_shufflevector(v, v, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    _mm_stream_si128((__m128i *)(void *)(to + i), (__m128i)v);
  }
}

static const unsigned char *first_byte(const rows *r, int64_t y) {
  return r->from + y * r->from_step + (r->step < 0 ? (r->n - 1) * r->step : 0);
}

VECTOR_INLINE void stream_rows(const rows *r, bool words, bool turned, const rescale *change,
                               int64_t bytes) {
  for (int64_t y = 0; y < r->count; y++) {
    const unsigned char *from = r->from + y * r->from_step;
    unsigned char *to = r->to + y * r->to_step;
    if (y + ROWS_AHEAD < r->count) fetch_row(first_byte(r, y + ROWS_AHEAD), bytes);
    if (words)
      stream_words((const float *)(const void *)from, turned, change, bytes / 4,
                   (float *)(void *)to);
    else
      stream_bytes(from, turned, bytes, to);
  }
}

/* Writes rows past the caches: they are not read into them first, and leave in them what others
 * need. False: these rows are for move_rows. */
FOR_EACH_ISA static bool move_rows_past_caches(const moving *m, const rows *r) {
  const int64_t bytes = r->n * m->voxel_bytes;
  const bool turned = r->step == -m->voxel_bytes;
  if (bytes % 16 || ((uintptr_t)r->to | (uintptr_t)r->to_step) % 16) return false;
  if (r->step != m->voxel_bytes && !(turned && (m->voxel_bytes == 4 || m->voxel_bytes == 1)))
    return false;
  if (m->rescales && turned)
    stream_rows(r, true, true, &m->change, bytes);
  else if (m->rescales)
    stream_rows(r, true, false, &m->change, bytes);
  else if (turned && m->voxel_bytes == 4)
    stream_rows(r, true, true, NULL, bytes);
  else if (turned)
    stream_rows(r, false, true, NULL, bytes);
  else
    stream_rows(r, false, false, NULL, bytes);
  return true;
}
#else
static bool move_rows_past_caches(const moving *m, const rows *r) {
  (void)m, (void)r;
  return false;
}
#endif

static void move_rows(const moving *m, const rows *r) {
  if (m->past_caches && move_rows_past_caches(m, r)) return;
  const int64_t bytes = r->n * m->voxel_bytes;
  for (int64_t y = 0; y < r->count; y++) {
    unsigned char *to = r->to + y * r->to_step;
    gather(r->from + y * r->from_step, r->step, r->n, m->voxel_bytes, to);
    if (m->rescales) rescale_values((float *)(void *)to, bytes / (int64_t)sizeof(float), m->change);
  }
}

/* Moves every voxel that has a place on the new grid. */
static void regrid(const void *in, const int64_t in_size[3], const grid_map *map, const moving *m,
                   void *out) {
  const int64_t voxel = m->voxel_bytes;
  const int64_t in_stride[3] = {in_size[1] * in_size[2] * voxel, in_size[2] * voxel, voxel};
  const int64_t out_stride[2] = {map->size[1] * map->size[2] * voxel, map->size[2] * voxel};
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
  const unsigned char *first = (const unsigned char *)in + origin + low[2] * step[2];
  rows r = {.from_step = step[1],
            .to_step = out_stride[1],
            .count = high[1] - low[1],
            .n = high[2] - low[2],
            .step = step[2]};
  for (int64_t x = low[0]; x < high[0]; x++) {
    r.from = first + x * step[0] + low[1] * step[1];
    r.to = (unsigned char *)out + (x * out_stride[0] + low[1] * out_stride[1] + low[2] * voxel);
    move_rows(m, &r);
  }
#ifdef __SSE2__
  if (m->past_caches) _mm_sfence(); /* before another thread is told that they are there */
#endif
}

void volume_regrid_into(const volume *in, const grid_map *map, const voxel_change *change,
                        float *out) {
  const int64_t values = map->size[0] * map->size[1] * map->size[2] * in->channels;
  moving m = {.voxel_bytes = in->channels * (int64_t)sizeof(float),
              .change = change->intensity,
              .rescales = !rescale_is_none(change->intensity),
              .past_caches = change->past_caches};
  if (!grid_covers(in->size, map)) {
    float fill = change->fill;
    if (m.rescales) rescale_values(&fill, 1, m.change);
    for (int64_t i = 0; i < values; i++) out[i] = fill;
  }
  regrid(in->data, in->size, map, &m, out);
}

void labels_regrid_into(const labels *in, const grid_map *map, bool past_caches, uint8_t *out) {
  moving m = {.voxel_bytes = 1, .past_caches = past_caches};
  if (!grid_covers(in->size, map))
    memset(out, 0, (size_t)(map->size[0] * map->size[1] * map->size[2]));
  regrid(in->data, in->size, map, &m, out);
}

status volume_regrid(const volume *in, const grid_map *map, const voxel_change *change,
                     volume *out) {
  volume made = {0};
  TRY(volume_reserve(&made, map->size, in->channels));
  volume_regrid_into(in, map, change, made.data);
  grid_affine(in->affine, map, made.affine);
  *out = made;
  return OK;
}

status labels_regrid(const labels *in, const grid_map *map, labels *out) {
  labels made = {0};
  TRY(labels_reserve(&made, map->size));
  labels_regrid_into(in, map, false, made.data);
  grid_affine(in->affine, map, made.affine);
  *out = made;
  return OK;
}

/* ---- parts and mirror images in place ---- */

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

/* The part's rows one after the other to the front: none lands behind where it was. */
static void *keep_box(void *data, const int64_t old_size[3], const grid_map *map,
                      int64_t voxel_bytes) {
  const int64_t row = map->size[2] * voxel_bytes;
  int64_t low[3];
  for (int a = 0; a < 3; a++)
    low[a] = map->flip[a] ? map->start[a] - (map->size[a] - 1) : map->start[a];
  unsigned char *to = data;
  for (int64_t x = 0; x < map->size[0]; x++)
    for (int64_t y = 0; y < map->size[1]; y++, to += row) {
      int64_t voxel = ((low[0] + x) * old_size[1] + low[1] + y) * old_size[2] + low[2];
      memmove(to, (unsigned char *)data + voxel * voxel_bytes, (size_t)row);
    }
  void *less = realloc(data, (size_t)(map->size[0] * map->size[1] * row));
  return less ? less : data;
}

static void *keep_part(void *data, const int64_t old_size[3], const grid_map *map,
                       int64_t voxel_bytes) {
  if (memcmp(old_size, map->size, sizeof map->size) != 0)
    data = keep_box(data, old_size, map, voxel_bytes);
  mirror(data, map->size, map->flip, voxel_bytes);
  return data;
}

void volume_keep_part(volume *v, const int64_t old_size[3], const grid_map *map) {
  v->data = keep_part(v->data, old_size, map, v->channels * (int64_t)sizeof(float));
}

void labels_keep_part(labels *l, const int64_t old_size[3], const grid_map *map) {
  free(l->counts);
  l->counts = NULL;
  l->data = keep_part(l->data, old_size, map, 1);
}

/* ---- orientation ---- */

/* World axis (0, 1, 2 = right, anterior, superior) of a letter; −1 when it is none. */
static int letter_axis(char letter, bool *negative) {
  static const char letters[] = "RLAPSI";
  const char *found = letter ? strchr(letters, letter) : NULL;
  if (!found) return -1;
  *negative = (found - letters) % 2 == 1;
  return (int)(found - letters) / 2;
}

/* Do the letters of `axes` name voxel axes, not directions? */
static bool names_voxel_axes(const char *axes) {
  return strspn(axes, "xyz") == 3;
}

bool grid_axes_valid(const char *axes) {
  unsigned seen = 0;
  bool negative;
  if (!axes || strlen(axes) != 3) return false;
  for (int a = 0; a < 3; a++) {
    int axis = names_voxel_axes(axes) ? axes[a] - 'x' : letter_axis(axes[a], &negative);
    if (axis < 0) return false;
    seen |= 1u << axis;
  }
  return seen == 7;
}

static grid_map permuted(const int64_t size[3], const char *axes) {
  grid_map map = {0};
  for (int a = 0; a < 3; a++) {
    map.axis[a] = axes[a] - 'x';
    map.size[a] = size[map.axis[a]];
  }
  return map;
}

grid_map grid_to_axes(const double affine[4][4], const int64_t size[3], const char *axes) {
  static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                   {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
  if (names_voxel_axes(axes)) return permuted(size, axes);
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

/* ---- resolution ---- */

/* Of two equally coarse ones *axis is neither. Is any axis coarse? */
static bool coarse_axis(const double spacing_mm[3], double above, int *axis) {
  int coarsest = 0, equals = 0;
  double finest = spacing_mm[0];
  for (int a = 1; a < 3; a++) {
    if (spacing_mm[a] > spacing_mm[coarsest]) coarsest = a;
    finest = spacing_mm[a] < finest ? spacing_mm[a] : finest;
  }
  for (int a = 0; a < 3; a++) equals += spacing_mm[a] > spacing_mm[coarsest] * (1 - 1e-5);
  bool is_coarse = spacing_mm[coarsest] > finest * above;
  *axis = is_coarse && equals == 1 ? coarsest : -1;
  return is_coarse;
}

int grid_coarse_axis(const double before_mm[3], const double after_mm[3], double above) {
  int axis;
  if (!coarse_axis(before_mm, above, &axis)) coarse_axis(after_mm, above, &axis);
  return axis;
}
