/* The one axis that concat and slice work along, and how they split their work: a tensor is rows of
 * `width` elements, where a row is everything from that axis on. */
#ifndef STRATA_OPS_AXIS_H
#define STRATA_OPS_AXIS_H

#include "graph/graph.h"
#include "ops/arithmetic/chunks.h"

enum { AXIS_CHANNEL, AXIS_X, AXIS_Y, AXIS_Z, AXIS_TOKEN, AXIS_BATCH, AXIS_FIRST };

static const char *const axis_choices[] = {"channel", "x", "y", "z", "token", "batch", "1",
                                           "2",       "3", "4", "5", "6",     "7",     NULL};

#define AXIS_DOC                                                                                    \
  "channel: the last; x, y, z: of a volume; token: of N × T × C; batch: samples; or its number, " \
  "the first after the batch being 1"

static inline status axis_of(int choice, const shape *x, int *axis) {
  char have[96];
  *axis = 0;
  if (x->rank < 1) return shape_error("x is a single number and has no axes");
  bool volume = choice >= AXIS_X && choice <= AXIS_Z, token = choice == AXIS_TOKEN;
  if ((volume && x->rank != 5) || (token && x->rank != 3))
    return shape_error(
        "x is %s: only %s has an axis \"%s\"; give the axis by its number", shape_format(have, x),
        volume ? "a volume (N × X × Y × Z × C)" : "a sequence (N × T × C)", axis_choices[choice]);
  *axis = choice == AXIS_CHANNEL ? x->rank - 1
          : choice == AXIS_BATCH ? 0
          : volume               ? choice - AXIS_X + 1
          : token                ? 1
                                 : choice - AXIS_FIRST + 1;
  if (*axis >= x->rank)
    return shape_error("x is %s: its axes after the batch are 1 to %d", shape_format(have, x),
                       x->rank - 1);
  return OK;
}

/* Elements from one position along the axis to the next. The shape rule has accepted the axis. */
static inline int64_t axis_stride(const shape *x, int axis) {
  int64_t stride = 1;
  for (int d = axis + 1; d < x->rank; d++) stride *= x->dim[d];
  return stride;
}

static inline int64_t rows_before(const shape *x, int axis) {
  int64_t rows = 1;
  for (int d = 0; d < axis; d++) rows *= x->dim[d];
  return rows;
}

/* A task's share of `rows` rows: some whole rows, or a piece of one long row. */
typedef struct tile {
  span rows, columns;
} tile;

static inline int64_t tile_count(int64_t rows, int64_t width) {
  return divide_up(rows, rows_per_task(width)) * divide_up(width, CHUNK_ELEMENTS);
}

static inline tile tile_of(int64_t rows, int64_t width, int64_t task) {
  int64_t pieces = divide_up(width, CHUNK_ELEMENTS);
  return (tile){piece_of(rows, rows_per_task(width), task / pieces),
                piece_of(width, CHUNK_ELEMENTS, task % pieces)};
}

/* The part of `a` that lies in [begin, end); count 0 when there is none. */
static inline span span_within(span a, int64_t begin, int64_t end) {
  int64_t first = a.first > begin ? a.first : begin;
  int64_t last = a.first + a.count < end ? a.first + a.count : end;
  return (span){first, last > first ? last - first : 0};
}

typedef struct slice_attrs {
  int axis;
  int64_t start, size;
} slice_attrs;

#endif
