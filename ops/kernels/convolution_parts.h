/* What the convolution's passes share. Internal to convolution*.c. */
#ifndef STRATA_OPS_KERNELS_CONVOLUTION_PARTS_H
#define STRATA_OPS_KERNELS_CONVOLUTION_PARTS_H

#include "ops/kernels/bf16.h"
#include "ops/kernels/convolution.h"
#include "ops/kernels/gemm.h"

#include <stdbool.h>
#include <string.h>

static inline int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static inline int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

static inline int64_t rounded_up(int64_t a, int64_t multiple) {
  return (a + multiple - 1) / multiple * multiple;
}

static inline int64_t floor_div(int64_t a, int64_t b) {
  return a / b - (a % b < 0);
}

static inline int64_t volume(const int64_t extent[3]) {
  return extent[0] * extent[1] * extent[2];
}

/* In bf16 the tiles read pairs, or rounded factors, whichever the processor multiplies faster (gemm.h).
 */
static inline bool conv_pairs(const conv_shape *s) {
  return s->bf16 && gemm_best_bf16();
}
static inline bool conv_rounds(const conv_shape *s) {
  return s->bf16 && !gemm_best_bf16();
}

/* Copies factors, which in bf16 may have to be rounded. */
static inline void copy_factors(float *to, const float *from, int64_t count, bool rounds) {
  if (rounds)
    bf16_round_copy(to, from, count);
  else
    memcpy(to, from, (size_t)count * sizeof(float));
}

/* Workspace is handed out in pieces of whole cache lines. A first pass with base NULL adds up
 * sizes. */
typedef struct pieces {
  char *base;
  size_t used;
} pieces;

static inline float *piece(pieces *w, int64_t floats) {
  float *at = w->base ? (float *)(w->base + w->used) : NULL;
  w->used += (size_t)rounded_up(floats, 16) * sizeof(float);
  return at;
}

/* Of each channel the sum over voxels, the gradient of the bias: the sums of a depthwise filter of which every
 * voxel is 1. */
static inline float *conv_ones(pieces *w, int64_t channels) {
  float *ones = piece(w, channels);
  for (int64_t c = 0; c < channels && ones; c++) ones[c] = 1;
  return ones;
}
static inline void conv_sum_voxels(float *sum, const float *ones, const float *dy, int64_t voxels,
                                   int64_t channels) {
  gemm_best()->depthwise_sum(sum, ones, 0, dy, voxels, channels);
}

/* Runs of memory that are needed soon, fetched a cache line per k by tiles that have yet to run: those of
 * a large volume are far away, and too short for the processor's own prefetch. */
enum { LINE_FLOATS = 16 };
typedef struct lookahead {
  const float *at;
  int64_t lines; /* cache lines of the present run */
  const float *run[CONV_MAX_KERNEL + 1];
  int64_t run_lines[CONV_MAX_KERNEL + 1];
  int count, taken;
} lookahead;

/* Its lists are long, and seldom full: only what is read is set. */
static inline void lookahead_begin(lookahead *next) {
  next->lines = next->count = next->taken = 0;
}

static inline void lookahead_add(lookahead *next, const float *run, int64_t floats) {
  next->run[next->count] = run;
  next->run_lines[next->count++] = (floats + LINE_FLOATS - 1) / LINE_FLOATS;
}

/* Has a segment fetch as many lines as its k; where fewer are left of a run, some more than once. */
static inline void lookahead_take(lookahead *next, int64_t k, gemm_segment *s) {
  s->ahead = s->middle;
  s->ahead_k = 0;
  if (next->lines <= 0) {
    if (next->taken == next->count) return;
    next->at = next->run[next->taken];
    next->lines = next->run_lines[next->taken++];
  }
  int64_t lines = smaller(k, next->lines);
  s->ahead = next->at;
  s->ahead_k = (lines * LINE_FLOATS * (ptrdiff_t)sizeof(float) + k - 1) / k;
  next->at += lines * LINE_FLOATS;
  next->lines -= lines;
}

/* One tap and nothing between: every voxel of the batch is a row of one long matrix. */
static inline conv_shape merge_pointwise(conv_shape s) {
  for (int a = 0; a < 3; a++)
    if (s.kernel[a] != 1 || s.stride[a] != 1 || s.padding[a] != 0) return s;
  int64_t voxels = s.batch * volume(s.image);
  s.batch = 1;
  for (int a = 0; a < 3; a++) s.image[a] = s.out[a] = a == 2 ? voxels : 1;
  return s;
}

/* Columns of a product, cut into panels as wide as a tile; the last may be narrower. */
typedef struct column_panels {
  const gemm_kernels *kernels;
  int64_t columns;
  int vectors; /* of a full panel */
  int64_t width, count;
} column_panels;

/* For a product that is `rows` high. */
static inline column_panels column_panels_of(int64_t rows, int64_t columns) {
  column_panels p = {.kernels = gemm_best(), .columns = columns};
  p.vectors = gemm_vectors(p.kernels, rows, columns);
  p.width = p.vectors * p.kernels->lanes;
  p.count = (columns + p.width - 1) / p.width;
  return p;
}

/* Columns of a panel, and the vectors that hold them. */
static inline int64_t panel_columns(const column_panels *p, int64_t panel) {
  return smaller(p->width, p->columns - panel * p->width);
}
static inline int panel_vectors(const column_panels *p, int64_t panel) {
  return (int)((panel_columns(p, panel) + p->kernels->lanes - 1) / p->kernels->lanes);
}

enum {
  CONV_MAX_SEGMENTS = 512, /* of one tile */
  COPY_ELEMENTS = 32768    /* about as many a task copies */
};

/* Tasks over `rows` rows of `width` numbers, and the rows of one of them. */
static inline int64_t copy_tasks(int64_t rows, int64_t width) {
  return rows / (COPY_ELEMENTS / width + 1) + 1;
}
static inline int64_t copy_rows_begin(int64_t rows, int64_t width, int64_t task) {
  return smaller(rows, task * (COPY_ELEMENTS / width + 1));
}

/* A copy of z rows (convolution_copy.c): with zeros before and after each, every group's channels padded
 * with zeros, rounded, or as words of two neighbouring channels. */
typedef struct conv_copy {
  const float *from;
  float *to;
  int64_t rows, z;   /* a row's voxels */
  int64_t low, to_z; /* zeros before a row; voxels of a row of the copy, zeros and all */
  int64_t groups, group, to_group; /* channels of a group; in the copy, channels or words */
  bool rounds, pairs;
} conv_copy;
void conv_copy_rows(const conv_copy *c, thread_pool *pool);

/* Mean and Σ(y − mean)² of each channel of each sample of the output, added up by the tasks that write it
 * (convolution_moments.c). */
typedef struct conv_moments {
  bool wanted;
  int64_t voxels, channels; /* of a sample of the output */
  int64_t repeat;           /* voxels of a row of sums */
  int64_t slots;
  double *sums;
  const float *output;
} conv_moments;

/* For tasks 0 … tasks − 1, of which later ones write later voxels. `whole_voxels`: with all their
 * channels; otherwise several may share a number, having channels of their own. */
conv_moments conv_moments_of(const conv_shape *s, int64_t tasks, bool whole_voxels);
void conv_moments_pieces(conv_moments *m, pieces *w);
void conv_moments_begin(conv_moments *m, const float *output);
/* Task `task` has written channels [column, column + columns) of voxels that lie one behind the other,
 * counted from the first sample's first. Those who share a number write the same voxels. */
void conv_moments_add(const conv_moments *m, int64_t task, int64_t voxel, int64_t voxels,
                      int64_t column, int64_t columns);
/* When all tasks are done. */
void conv_moments_end(const conv_moments *m, float *moments);

/* Adds the sums of all slabs, which lie `slab_floats` apart, in order (convolution_weight.c). */
void conv_add_slabs(const float *from, int64_t slabs, int64_t slab_floats, float *sum,
                    int64_t count);

/* A way to compute the three passes. `transposed`: the data gradient. Workspaces in bytes; convolution.h has the
 * rest. */
typedef struct conv_method {
  bool (*fits)(const conv_shape *s); /* the forward pass and the data gradient */
  size_t (*workspace)(const conv_shape *s, bool transposed);
  void (*run)(const conv_shape *s, bool transposed, const float *input, const float *weight,
              const float *bias, float *output, float *moments, void *workspace, thread_pool *pool);
  /* NULL: weights are read as they lie. */
  size_t (*packed_bytes)(const conv_shape *s, bool transposed);
  void (*pack)(const conv_shape *s, bool transposed, const float *weight, float *to,
               thread_pool *pool);
  bool makes_moments, finishes_parts;
  bool (*fits_weight)(const conv_shape *s);
  size_t (*weight_workspace)(const conv_shape *s);
  void (*weight_run)(const conv_shape *s, const float *x, const float *dy, float *dweight,
                     float *dbias, void *workspace, thread_pool *pool);
} conv_method;

extern const conv_method conv_depthwise; /* a filter for each channel */
extern const conv_method conv_matrix;    /* a plain matrix product, large enough for blocks */
extern const conv_method conv_patches;   /* many weights over few voxels */
extern const conv_method conv_winograd;  /* filters of 3×3 along x and y, with fewer products */
extern const conv_method conv_taps;      /* everything: a product for every tap */

/* Of conv_taps (convolution_weight.c). */
size_t conv_taps_weight_workspace(const conv_shape *s);
void conv_taps_weight_run(const conv_shape *s, const float *x, const float *dy, float *dweight,
                          float *dbias, void *workspace, thread_pool *pool);

#endif
