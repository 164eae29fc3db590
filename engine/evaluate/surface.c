/* Distances between surfaces by a bounding volume hierarchy over their voxels.
 *
 * A distance transform costs time for every voxel of the box around prediction and reference, and a
 * few stray voxels make that box the whole volume. Distances are needed only at surface voxels, so
 * each looks for its nearest neighbour in the other surface. Voxels are asked for in Morton order:
 * the leaf of the one before bounds the search, which then opens few boxes. */
#include "evaluate/surface.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/arithmetic/vector_math.h"

enum {
  WIDTH = 8, /* points of a leaf, boxes of a group */
  AXIS_BITS = 21,
  RADIX_BITS = 8,
  RADIX = 1 << RADIX_BITS,
  STACK = WIDTH * 20
};

/* Structures of arrays: loops over `k` become vector code. */
typedef struct surface_leaf {
  double at[3][WIDTH]; /* voxel indices; the last point fills up the last leaf */
} surface_leaf;

typedef struct surface_boxes {
  double low[3][WIDTH], high[3][WIDTH]; /* empty boxes fill up the last group */
} surface_boxes;

/* ---- collecting ---------------------------------------------------------------------------- */

/* abc → a00b00c */
static uint64_t spread(uint64_t v) {
  v &= 0x1fffff;
  v = (v | v << 32) & 0x1f00000000ffff;
  v = (v | v << 16) & 0x1f0000ff0000ff;
  v = (v | v << 8) & 0x100f00f00f00f00f;
  v = (v | v << 4) & 0x10c30c30c30c30c3;
  return (v | v << 2) & 0x1249249249249249;
}

static uint64_t gather(uint64_t v) {
  v &= 0x1249249249249249;
  v = (v | v >> 2) & 0x10c30c30c30c30c3;
  v = (v | v >> 4) & 0x100f00f00f00f00f;
  v = (v | v >> 8) & 0x1f0000ff0000ff;
  v = (v | v >> 16) & 0x1f00000000ffff;
  return (v | v >> 32) & 0x1fffff;
}

static status push(surface *s, uint64_t code) {
  if (s->count == s->capacity) {
    int64_t capacity = s->capacity ? 2 * s->capacity : 1024;
    uint64_t *codes = realloc(s->codes, (size_t)capacity * sizeof *codes);
    if (!codes) return error_out_of_memory((size_t)capacity * sizeof *codes);
    s->codes = codes;
    s->capacity = capacity;
  }
  s->codes[s->count++] = code;
  return OK;
}

/* One row along z. `beside` are the four rows around it; NULL: the row lies at the image's rim. */
static status find_in_row(const uint8_t *row, int64_t length, const uint8_t *const beside[4],
                          uint64_t code_xy, const bool *wanted, surface *out) {
  for (int64_t z = 0; z < length; z++) {
    uint8_t c = row[z];
    if (c == 0) {
      while (z + 4 < length && !(row[z + 1] | row[z + 2] | row[z + 3] | row[z + 4])) z += 4;
      continue;
    }
    if (!wanted[c]) continue;
    if (!beside || z == 0 || z == length - 1 || row[z - 1] != c || row[z + 1] != c ||
        beside[0][z] != c || beside[1][z] != c || beside[2][z] != c || beside[3][z] != c)
      TRY(push(&out[c], code_xy | spread((uint64_t)z)));
  }
  return OK;
}

status surfaces_find(const labels *map, int class_count, const bool *wanted, surface *out) {
  const int64_t *size = map->size, plane = size[1] * size[2];
  memset(out, 0, (size_t)class_count * sizeof *out);
  for (int a = 0; a < 3; a++)
    if (size[a] >> AXIS_BITS)
      return error_new(ERROR_DATA, NOWHERE, "%lld voxels along one axis are too many to score",
                       (long long)size[a]);
  for (int64_t x = 0; x < size[0]; x++)
    for (int64_t y = 0; y < size[1]; y++) {
      const uint8_t *row = map->data + x * plane + y * size[2];
      bool at_rim = x == 0 || y == 0 || x == size[0] - 1 || y == size[1] - 1;
      const uint8_t *beside[4] = {0};
      if (!at_rim) {
        beside[0] = row - plane;
        beside[1] = row + plane;
        beside[2] = row - size[2];
        beside[3] = row + size[2];
      }
      uint64_t code_xy = spread((uint64_t)x) << 2 | spread((uint64_t)y) << 1;
      TRY(find_in_row(row, size[2], at_rim ? NULL : beside, code_xy, wanted, out));
    }
  return OK;
}

/* ---- the hierarchy ------------------------------------------------------------------------- */

/* Least significant digit first; digits that no code has cost nothing. */
static status sort_codes(surface *s) {
  uint64_t *to = malloc((size_t)s->count * sizeof *to), any = 0;
  if (!to) return error_out_of_memory((size_t)s->count * sizeof *to);
  for (int64_t i = 0; i < s->count; i++) any |= s->codes[i];
  for (int shift = 0; shift < 64 && any >> shift; shift += RADIX_BITS) {
    int64_t start[RADIX] = {0}, sum = 0;
    for (int64_t i = 0; i < s->count; i++) start[s->codes[i] >> shift & (RADIX - 1)]++;
    for (int d = 0; d < RADIX; d++) {
      int64_t here = start[d];
      start[d] = sum;
      sum += here;
    }
    for (int64_t i = 0; i < s->count; i++)
      to[start[s->codes[i] >> shift & (RADIX - 1)]++] = s->codes[i];
    uint64_t *swap = s->codes;
    s->codes = to;
    to = swap;
  }
  free(to);
  return OK;
}

static void fill_leaves(surface *s, int64_t leaves) {
  for (int64_t i = 0; i < leaves * WIDTH; i++) {
    uint64_t code = s->codes[i < s->count ? i : s->count - 1];
    for (int a = 0; a < 3; a++)
      s->leaves[i / WIDTH].at[a][i % WIDTH] = (double)gather(code >> (2 - a));
  }
}

/* Box `child` of `level`, around everything below it. */
static void fill_box(const surface *s, int level, int64_t child, surface_boxes *group, int k) {
  for (int a = 0; a < 3; a++) {
    const double *low = level == 0 ? s->leaves[child].at[a] : s->levels[level - 1][child].low[a];
    const double *high = level == 0 ? low : s->levels[level - 1][child].high[a];
    group->low[a][k] = low[0];
    group->high[a][k] = high[0];
    for (int i = 1; i < WIDTH; i++) {
      group->low[a][k] = fmin(group->low[a][k], low[i]);
      group->high[a][k] = fmax(group->high[a][k], high[i]);
    }
  }
}

static status add_level(surface *s, int64_t children) {
  int level = s->level_count;
  int64_t groups = (children + WIDTH - 1) / WIDTH;
  surface_boxes *boxes = malloc((size_t)groups * sizeof *boxes);
  if (!boxes) return error_out_of_memory((size_t)groups * sizeof *boxes);
  for (int64_t g = 0; g < groups; g++)
    for (int k = 0; k < WIDTH; k++) {
      if (g * WIDTH + k < children) {
        fill_box(s, level, g * WIDTH + k, &boxes[g], k);
        continue;
      }
      for (int a = 0; a < 3; a++) {
        boxes[g].low[a][k] = INFINITY;
        boxes[g].high[a][k] = -INFINITY;
      }
    }
  s->levels[level] = boxes;
  s->groups[level] = groups;
  s->level_count++;
  return OK;
}

status surface_index(surface *s) {
  if (s->count == 0) return OK;
  TRY(sort_codes(s));
  int64_t leaves = (s->count + WIDTH - 1) / WIDTH;
  s->leaves = malloc((size_t)leaves * sizeof *s->leaves);
  if (!s->leaves) return error_out_of_memory((size_t)leaves * sizeof *s->leaves);
  fill_leaves(s, leaves);
  free(s->codes);
  s->codes = NULL;
  int64_t children = leaves;
  do {
    TRY(add_level(s, children));
    children = s->groups[s->level_count - 1];
  } while (children > 1);
  return OK;
}

void surface_free(surface *s) {
  free(s->codes);
  free(s->leaves);
  for (int i = 0; i < s->level_count; i++) free(s->levels[i]);
  *s = (surface){0};
}

/* ---- distances ----------------------------------------------------------------------------- */

/* The sum of squares as SciPy's distance_transform_edt forms it, so that distances are equal to the
 * last bit: whole voxels apart, times the spacing. */
VECTOR_INLINE double squared(const double apart[3], const double spacing_mm[3]) {
  double x = apart[0] * spacing_mm[0], y = apart[1] * spacing_mm[1], z = apart[2] * spacing_mm[2];
  return x * x + y * y + z * z;
}

VECTOR_INLINE double smallest(const double v[WIDTH]) {
  double a[WIDTH / 2];
  for (int k = 0; k < WIDTH / 2; k++) a[k] = v[k] < v[k + WIDTH / 2] ? v[k] : v[k + WIDTH / 2];
  double b = a[0] < a[1] ? a[0] : a[1], c = a[2] < a[3] ? a[2] : a[3];
  return b < c ? b : c;
}

VECTOR_INLINE void point_to_leaf(const double q[3], const surface_leaf *leaf,
                                 const double spacing_mm[3], double out[WIDTH]) {
  for (int k = 0; k < WIDTH; k++) {
    double apart[3] = {q[0] - leaf->at[0][k], q[1] - leaf->at[1][k], q[2] - leaf->at[2][k]};
    out[k] = squared(apart, spacing_mm);
  }
}

VECTOR_INLINE void point_to_boxes(const double q[3], const surface_boxes *boxes,
                                  const double spacing_mm[3], double out[WIDTH]) {
  for (int k = 0; k < WIDTH; k++) {
    double apart[3];
    for (int a = 0; a < 3; a++) {
      double below = boxes->low[a][k] - q[a], above = q[a] - boxes->high[a][k];
      double outside = below > above ? below : above;
      apart[a] = outside > 0 ? outside : 0;
    }
    out[k] = squared(apart, spacing_mm);
  }
}

typedef struct open_box { /* a group of `level`, or a leaf where level is −1 */
  int64_t group;
  int level;
  double squared_mm; /* nothing in it is nearer */
} open_box;

FOR_EACH_ISA void surface_distances(const surface *from, const surface *to,
                                    const double spacing_mm[3], double *distance_mm) {
  open_box stack[STACK];
  int64_t leaf = 0; /* that held the nearest neighbour of the voxel before */
  for (int64_t i = 0; i < from->count; i++) {
    const surface_leaf *own = &from->leaves[i / WIDTH];
    double q[3] = {own->at[0][i % WIDTH], own->at[1][i % WIDTH], own->at[2][i % WIDTH]};
    double best, near[WIDTH];
    point_to_leaf(q, &to->leaves[leaf], spacing_mm, near);
    best = smallest(near);
    int depth = 1;
    stack[0] = (open_box){0, to->level_count - 1, 0};
    while (depth > 0) {
      open_box open = stack[--depth];
      if (!(open.squared_mm < best)) continue;
      if (open.level < 0) {
        point_to_leaf(q, &to->leaves[open.group], spacing_mm, near);
        double here = smallest(near);
        if (here < best) {
          best = here;
          leaf = open.group;
        }
        continue;
      }
      point_to_boxes(q, &to->levels[open.level][open.group], spacing_mm, near);
      int first = depth;
      for (int k = 0; k < WIDTH; k++) {
        if (!(near[k] < best)) continue;
        open_box child = {open.group * WIDTH + k, open.level - 1, near[k]};
        /* The nearest one stays on top, so that it is opened next. */
        if (depth > first && stack[depth - 1].squared_mm < child.squared_mm) {
          stack[depth] = stack[depth - 1];
          stack[depth - 1] = child;
        } else {
          stack[depth] = child;
        }
        depth++;
      }
    }
    distance_mm[i] = sqrt(best);
  }
}
