#include "graph/fit.h"

#include <stdio.h>
#include <string.h>

/* Products of strides, sides of patches and windows, counts of slabs. */
static const int64_t multiples[] = {1,  2,  3,  4,  5,  6,  7,  8,  10, 12,  14,  16, 20,
                                    24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160};
enum { MULTIPLES = sizeof multiples / sizeof *multiples };

typedef struct trial {
  pipeline *p;
  const stage_spec *stage; /* NULL: all that are enabled and crop as `data: sample` says */
  expand_options options;
} trial;

static bool fits_stage(trial *t, const stage_spec *s) {
  stage_graph graph;
  if (!t->stage) t->options.batch = s->batch;
  status error = stage_expand(t->p, s, &t->options, &graph);
  if (!error) stage_graph_free(&graph);
  error_free(error);
  return !error;
}

static bool fits(trial *t, const int64_t size[3]) {
  memcpy(t->options.size, size, sizeof t->options.size);
  if (t->stage) return fits_stage(t, t->stage);
  for (int i = 0; i < t->p->stage_count; i++) {
    const stage_spec *s = &t->p->stages[i];
    if (s->enabled && s->data == &t->p->data && !fits_stage(t, s)) return false;
  }
  return true;
}

static int64_t round_up(int64_t side, int64_t multiple) {
  return (side + multiple - 1) / multiple * multiple;
}

static bool fits_with(trial *t, const int64_t size[3], int axis, int64_t side) {
  int64_t changed[3] = {size[0], size[1], size[2]};
  changed[axis] = side;
  return side > 0 && fits(t, changed);
}

/* Longer by not too much for "near"? */
static bool is_near(int64_t longer, int64_t side) {
  enum { SHORT = 32 };
  return longer <= 2 * side || longer <= SHORT;
}

/* One side up to a multiple of something, or all sides up to multiples of one number. */
static bool find_some(trial *t, const int64_t size[3], int64_t out[3]) {
  for (int only = 0; only <= 3; only++)
    for (int i = 1; i < MULTIPLES; i++) {
      bool is_worth_it = true;
      for (int a = 0; a < 3; a++) {
        out[a] = only == 3 || only == a ? round_up(size[a], multiples[i]) : size[a];
        is_worth_it &= is_near(out[a], size[a]);
      }
      if (is_worth_it && fits(t, out)) return true;
    }
  return false;
}

/* Shortens a side that is longer than it has to be; *below is the longest one that is no longer than it
 * was, 0: none that is near. */
static void settle(trial *t, int axis, int64_t side, int64_t above[3], int64_t *below) {
  enum { FAR = 64 };
  int64_t up = side, down = side;
  while (up < above[axis] && !fits_with(t, above, axis, up)) up++;
  if (up > side) down--;
  while (up > side && down > 0 && side - down < FAR && !fits_with(t, above, axis, down)) down--;
  *below = side - down < FAR ? down : 0;
  above[axis] = up;
}

static char *format_size(char out[80], const int64_t size[3]) {
  snprintf(out, 80, "%lld × %lld × %lld", (long long)size[0], (long long)size[1],
           (long long)size[2]);
  return out;
}

status size_advice(pipeline *p, const stage_spec *stage, const expand_options *options,
                   const char *what, source_pos at) {
  trial t = {.p = p, .stage = stage, .options = *options};
  int64_t above[3], below[3];
  char mine[80], larger[80], smaller[80];
  t.options.training = false; /* a size is refused before anything is differentiated */
  if (fits(&t, options->size) || !find_some(&t, options->size, above)) return OK;
  for (int a = 0; a < 3; a++) settle(&t, a, options->size[a], above, &below[a]);
  bool has_below = below[0] > 0 && below[1] > 0 && below[2] > 0 && fits(&t, below);
  return error_new(ERROR_PIPELINE, at,
                   "a %s of %s voxels does not fit; the nearest size%s that %s %s%s%s", what,
                   format_size(mine, options->size), has_below ? "s" : "",
                   has_below ? "do are" : "does is", has_below ? format_size(smaller, below) : "",
                   has_below ? " and " : "", format_size(larger, above));
}
