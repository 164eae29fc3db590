/* Sliding-window inference. Positions, importance and padding follow MONAI's
 * sliding_window_inference (1.6) or nnU-Net's (v2): scores × importance added up in f32 and divided by
 * the added importance, so that a network moved here segments the same.
 *
 * Windows come slab by slab across the band's axis. In a slab every member of an ensemble, and of it
 * every mirrored copy, runs over all the slab's windows; then the planes that the next slab does not
 * reach are finished. So sums are added up in one order, whatever the batch and the memory. */
#include "infer/infer.h"

#include <stdlib.h>
#include <string.h>

enum { COPIES_MAX = 8 };

/* What one call works with. */
typedef struct blending {
  const inferer *inferer;
  const volume *image;
  const score_reader *reader;
  importance importance;
  score_band band;
  int64_t *start[3]; /* of windows along each axis, on the grid: below 0 where it is padded */
  int64_t count[3];
  int axes[3];          /* the band's, then the others */
  int copy[COPIES_MAX]; /* mirrored axes of each copy, as bits: 1 x, 2 y, 4 z */
  int copies;
  int in_place; /* member whose weights are in the network; −1: none */
  int64_t slab; /* whose windows are being added */
} blending;

/* One window of one mirrored copy of one member. */
typedef struct item {
  int64_t slab;
  int member;
  int mirror;                          /* bits, as in blending.copy */
  int64_t start[3], fresh[3], last[3]; /* as in band_window */
} item;

static int64_t items_in_slab(const blending *b) {
  int members = b->inferer->members ? b->inferer->members : 1;
  return (int64_t)members * b->copies * b->count[b->axes[1]] * b->count[b->axes[2]];
}

static item item_at(const blending *b, int64_t i) {
  int64_t in_slab = items_in_slab(b), rows = b->count[b->axes[1]], columns = b->count[b->axes[2]];
  item it = {.slab = i / in_slab};
  int64_t rest = i % in_slab, windows = rows * columns;
  int64_t at[3] = {it.slab, rest % windows / columns, rest % columns};
  int64_t round = rest / windows; /* over members and copies */
  it.mirror = b->copy[round % b->copies];
  it.member = (int)(round / b->copies);
  /* Every other slab begins with the member that the one before ended with. */
  if (b->inferer->members && it.slab % 2) it.member = b->inferer->members - 1 - it.member;
  for (int k = 0; k < 3; k++) {
    int axis = b->axes[k];
    const int64_t *start = b->start[axis];
    it.start[axis] = start[at[k]];
    /* What windows before this one reached: further along this axis they have not been. */
    it.fresh[axis] = at[k] > 0 ? start[at[k] - 1] + b->inferer->windows.size[axis] : start[0];
    if (round > 0) it.fresh[axis] = INT64_MAX;
    /* Behind this windows after it come, and after all of them the next round. */
    bool is_end = at[k] == b->count[axis] - 1;
    it.last[axis] = is_end ? b->image->size[axis] : start[at[k] + 1];
    if (round < in_slab / windows - 1) it.last[axis] = 0;
  }
  return it;
}

/* ---- a window of the image ---- */

typedef struct gathering {
  const blending *b;
  const item *item;
  float *to;
} gathering;

static void gather_plane(void *context, int64_t x) {
  const gathering *g = context;
  const volume *image = g->b->image;
  const int64_t *window = g->b->inferer->windows.size, *size = image->size;
  int64_t channels = image->channels, first = g->item->start[2];
  int64_t from = first < 0 ? -first : 0;
  int64_t to = first + window[2] > size[2] ? size[2] - first : window[2];
  int64_t ix = g->item->start[0] + (g->item->mirror & 1 ? window[0] - 1 - x : x);
  float *row = g->to + x * window[1] * window[2] * channels;
  for (int64_t y = 0; y < window[1]; y++, row += window[2] * channels) {
    int64_t iy = g->item->start[1] + (g->item->mirror & 2 ? window[1] - 1 - y : y);
    if (ix < 0 || ix >= size[0] || iy < 0 || iy >= size[1]) {
      memset(row, 0, (size_t)(window[2] * channels) * sizeof *row);
      continue;
    }
    const float *source = image->data + ((ix * size[1] + iy) * size[2] + first + from) * channels;
    int64_t before = g->item->mirror & 4 ? window[2] - to : from, n = to - from;
    memset(row, 0, (size_t)(before * channels) * sizeof *row);
    memset(row + (before + n) * channels, 0,
           (size_t)((window[2] - before - n) * channels) * sizeof *row);
    if (!(g->item->mirror & 4))
      memcpy(row + before * channels, source, (size_t)(n * channels) * sizeof *row);
    else
      for (int64_t z = 0; z < n; z++)
        memcpy(row + (before + z) * channels, source + (n - 1 - z) * channels,
               (size_t)channels * sizeof *row);
  }
}

/* ---- the windows one after the other ---- */

static int64_t window_voxels(const blending *b) {
  const int64_t *n = b->inferer->windows.size;
  return n[0] * n[1] * n[2];
}

/* `count` items, all of one member, into the network: at most a batch. */
static status place_batch(blending *b, const item *items, int64_t count) {
  const inferer *f = b->inferer;
  int64_t values = window_voxels(b) * b->image->channels;
  if (f->members && items[0].member != b->in_place) {
    TRY(f->choose(f->context, items[0].member));
    b->in_place = items[0].member;
  }
  for (int64_t i = 0; i < count; i++) {
    gathering g = {b, &items[i], f->image + i * values};
    parallel_for(f->pool, f->windows.size[0], gather_plane, &g);
  }
  memset(f->image + count * values, 0,
         (size_t)((f->windows.batch - count) * values) * sizeof *f->image);
  return OK;
}

/* The planes that the slabs after `slab` do not reach. */
static status finish_slab(blending *b, int64_t slab) {
  int axis = b->axes[0];
  int64_t last = b->count[axis] - 1;
  int64_t from = b->start[axis][slab], to = slab < last ? b->start[axis][slab + 1] : INT64_MAX;
  if (from < 0) from = 0;
  if (to > b->image->size[axis]) to = b->image->size[axis];
  TRY(band_check(&b->band, from, to));
  return b->reader->planes(b->reader->context, &b->band, from, to);
}

/* A batch whose scores come out of the network. */
typedef struct batch_taker {
  blending *b;
  const item *items;
  int64_t count;
} batch_taker;

static status take_scores(void *context, int64_t n, int64_t from, int64_t to, const float *scores) {
  const batch_taker *t = context;
  blending *b = t->b;
  if (n >= t->count) return OK;
  const item *it = &t->items[n];
  if (it->slab > b->slab) TRY(finish_slab(b, b->slab++));
  const window_spec *w = &b->inferer->windows;
  band_window part = {.size = w->size,
                      .from = from,
                      .to = to,
                      .probabilities = w->average_probabilities,
                      .scores = scores,
                      .importance = &b->importance};
  for (int a = 0; a < 3; a++) {
    part.start[a] = it->start[a];
    part.fresh[a] = it->fresh[a];
    part.last[a] = it->last[a];
    part.mirror[a] = it->mirror >> a & 1;
  }
  band_add(&b->band, b->inferer->pool, &part);
  return OK;
}

static status run_items(blending *b, item *batch) {
  const inferer *f = b->inferer;
  int64_t in_slab = items_in_slab(b), total = in_slab * b->count[b->axes[0]];
  for (int64_t first = 0, count; first < total; first += count) {
    for (count = 0; count < f->windows.batch && first + count < total; count++) {
      batch[count] = item_at(b, first + count);
      if (batch[count].member != batch[0].member) break;
    }
    batch_taker taker = {b, batch, count};
    TRY(place_batch(b, batch, count));
    TRY(f->run(f->context, take_scores, &taker));
    if (f->after) TRY(f->after(f->after_context, first + count, total));
  }
  return finish_slab(b, b->slab);
}

/* ---- setting up ---- */

static int64_t positions_along(const window_spec *w, int axis, int64_t size, int64_t *start,
                               int64_t limit) {
  if (w->step[axis] > 0)
    return window_positions_evenly(size, w->size[axis], w->step[axis], start, limit);
  return window_positions(size, w->size[axis], w->overlap, start, limit);
}

/* Along every axis; start[0] is to be freed. */
static status place_windows(blending *b) {
  const window_spec *w = &b->inferer->windows;
  int64_t pad[3], padded[3];
  size_t positions = 0;
  for (int a = 0; a < 3; a++) {
    int64_t missing = w->size[a] - b->image->size[a];
    if (missing < 0) missing = 0;
    pad[a] = missing / 2;
    padded[a] = b->image->size[a] + missing;
    b->count[a] = positions_along(w, a, padded[a], NULL, 0);
    positions += (size_t)b->count[a];
  }
  b->start[0] = malloc(positions * sizeof *b->start[0]);
  if (!b->start[0]) return error_out_of_memory(positions * sizeof *b->start[0]);
  b->start[1] = b->start[0] + b->count[0];
  b->start[2] = b->start[1] + b->count[1];
  for (int a = 0; a < 3; a++) {
    positions_along(w, a, padded[a], b->start[a], b->count[a]);
    for (int64_t i = 0; i < b->count[a]; i++) b->start[a][i] -= pad[a];
  }
  return OK;
}

static void choose_order(blending *b) {
  const window_spec *w = &b->inferer->windows;
  b->axes[0] = band_axis(b->image->size, w->size);
  b->axes[1] = b->axes[0] == 0 ? 1 : 0;
  b->axes[2] = b->axes[0] == 2 ? 1 : 2;
  int all = (w->mirror[0] ? 1 : 0) | (w->mirror[1] ? 2 : 0) | (w->mirror[2] ? 4 : 0);
  for (int axes = 0; axes <= all; axes++)
    if (!(axes & ~all)) b->copy[b->copies++] = axes;
}

static status check_windows(const inferer *i, const volume *image) {
  const window_spec *w = &i->windows;
  int64_t values = 1, widest = i->classes > image->channels ? i->classes : image->channels;
  for (int a = 0; a < 3; a++) {
    if (w->size[a] < 1 || image->size[a] < 1 || __builtin_mul_overflow(values, w->size[a], &values))
      return error_new(ERROR_INTERNAL, NOWHERE, "sliding window with an extent of %lld voxels",
                       (long long)w->size[a]);
  }
  int64_t bytes;
  if (i->classes < 1 || image->channels < 1 || !(w->overlap >= 0 && w->overlap < 1) ||
      i->classes > BAND_CLASSES_MAX || widest > 4096 || w->batch < 1 || w->batch > 4096 ||
      __builtin_mul_overflow(values, w->batch * widest * (int64_t)sizeof(float), &bytes))
    return error_new(ERROR_INTERNAL, NOWHERE, "sliding window with %lld classes and overlap %g",
                     (long long)i->classes, w->overlap);
  return OK;
}

status sliding_window(const inferer *i, const volume *image, const score_reader *reader) {
  TRY(check_windows(i, image));
  const window_spec *w = &i->windows;
  blending b = {.inferer = i, .image = image, .reader = reader, .in_place = -1};
  /* Sums have their largest where means have it, and logits their sign. */
  bool sums_suffice = !reader->probabilities && !(i->region_labels && w->average_probabilities);
  band_scores kind = sums_suffice               ? BAND_SUMS
                     : w->average_probabilities ? BAND_MEANS
                     : reader->logits           ? BAND_LOGITS
                                                : BAND_PROBABILITIES;
  choose_order(&b);
  item *batch = malloc((size_t)w->batch * sizeof *batch);
  status error = batch ? OK : error_out_of_memory((size_t)w->batch * sizeof *batch);
  if (!error) error = importance_open(w, i->classes, &b.importance);
  if (!error) error = place_windows(&b);
  /* Of finished planes one is kept, for whoever interpolates between it and the next. */
  if (!error)
    error = band_open(image->size, i->classes, kind, b.axes[0], w->size[b.axes[0]] + 1,
                      window_budget(w), &b.band);
  b.band.region_labels = i->region_labels;
  if (!error) error = run_items(&b, batch);
  band_close(&b.band);
  free(b.start[0]);
  importance_close(&b.importance);
  free(batch);
  return error;
}
