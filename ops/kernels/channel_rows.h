/* Walking over channels-last data with numbers that belong to channels.
 *
 * Voxels are rows of C channels, and C may be 1. So that vectors are always full, kernels work on
 * rows of `period` floats, a whole number of voxels, with the per-channel numbers repeated to that
 * length; position j of a row belongs to channel j mod C. Where C is large, a row is one voxel's
 * tile of TILE_MAX channels. */
#ifndef STRATA_OPS_CHANNEL_ROWS_H
#define STRATA_OPS_CHANNEL_ROWS_H

#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"

enum {
  ROWS_ELEMENTS = 8192, /* of a task; 32 KiB: read from memory once, a second time from the cache */
  PERIOD_MIN = 128,
  ROWS_AHEAD = 4, /* of the row at work: for which memory is asked */
  TILE_MAX = 256  /* channels, and so elements of a row, handled at a time */
};

/* How a tensor is cut into tasks: each has some voxels of one sample, with all their channels. */
typedef struct channel_cut {
  int64_t samples, voxels, channels;
  int64_t repeat;       /* voxels of a row of `period` floats */
  int64_t chunk_voxels; /* voxels of a task, a multiple of `repeat` */
  int64_t chunks;       /* tasks of a sample */
} channel_cut;

/* `samples`: the first axis, or 1 to take all samples together. */
static inline channel_cut cut_channels(const tensor *x, int64_t samples) {
  channel_cut l = {.samples = samples, .channels = last_extent(x)};
  l.voxels = shape_elements(&x->shape) / l.samples / l.channels;
  l.repeat = l.channels < PERIOD_MIN ? divide_up(PERIOD_MIN, l.channels) : 1;
  l.chunk_voxels = divide_up(divide_up(ROWS_ELEMENTS, l.channels), l.repeat) * l.repeat;
  l.chunks = divide_up(l.voxels, l.chunk_voxels);
  return l;
}

static inline int64_t cut_tasks(const channel_cut *l) {
  return l->samples * l->chunks;
}

/* What task `task` works on. */
typedef struct channel_task {
  int64_t sample, voxels;
  int64_t start; /* element of the tensor */
} channel_task;

static inline channel_task cut_task(const channel_cut *l, int64_t task) {
  span part = piece_of(l->voxels, l->chunk_voxels, task % l->chunks);
  int64_t sample = task / l->chunks;
  return (channel_task){sample, part.count, (sample * l->voxels + part.first) * l->channels};
}

/* A block of memory seen as rows: the channels `first` … `first + tile − 1` of some voxels. Where
 * one tile holds every channel, rows are contiguous and the last may be shorter; else a row is one
 * voxel's tile. */
typedef struct rows {
  int64_t count, stride; /* full rows and the distance between them */
  int64_t width;         /* floats of a row */
  int64_t tail;          /* floats of a last, shorter row */
} rows;

static inline rows rows_of(const channel_cut *l, int64_t voxels, int64_t tile) {
  if (tile < l->channels) return (rows){voxels, l->channels, tile, 0};
  int64_t width = l->repeat * l->channels;
  return (rows){voxels / l->repeat, width, width, voxels % l->repeat * l->channels};
}

static inline int64_t tile_at(const channel_cut *l, int64_t first) {
  int64_t left = l->channels - first;
  return left < TILE_MAX ? left : TILE_MAX;
}

/* Repeats `tile` per-channel numbers over a row. */
VECTOR_INLINE void spread(float *restrict row, const float *restrict channel, int64_t tile,
                          int64_t width) {
  for (int64_t j = 0; j < width; j += tile)
    for (int64_t c = 0; c < tile; c++) row[j + c] = channel[c];
}

/* The other way: adds up the places of a row that belong to each channel. */
VECTOR_INLINE void gather(float *restrict channel, const float *restrict row, int64_t tile,
                          int64_t width) {
  for (int64_t c = 0; c < tile; c++) {
    double total = 0;
    for (int64_t j = c; j < width; j += tile) total += (double)row[j];
    channel[c] = (float)total;
  }
}

#endif
