/* shuffle_cells: cuts each volume into a grid of equal boxes and puts them in a random order: the
 * 3-D jigsaw puzzle (Noroozi & Favaro, ECCV 2016; in 3-D: Taleb et al., NeurIPS 2020). One
 * permutation per sample. */
#include "ops/method/cells.h"

#include "ops/arithmetic/chunks.h"

enum { OUT_IMAGE, OUT_ORDER };

static status shuffle_cells_infer(infer *rule) {
  const cell_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[0].shape;
  int64_t count = cell_count(attrs->cells);
  char have[96];
  if (x->rank != 5)
    return shape_error("image must be a volume (N × X × Y × Z × C), but is %s",
                       shape_format(have, x));
  if (count < 2 || count > 256)
    return shape_error("there must be from 2 to 256 cells to shuffle, but %lld × %lld × %lld are "
                       "%lld",
                       (long long)attrs->cells[0], (long long)attrs->cells[1],
                       (long long)attrs->cells[2], (long long)count);
  for (int a = 0; a < 3; a++)
    if (x->dim[a + 1] % attrs->cells[a])
      return shape_error("%lld parts do not divide %c = %lld equally; change their number or the "
                         "crop",
                         (long long)attrs->cells[a], "xyz"[a], (long long)x -> dim[a + 1]);
  rule->out[OUT_IMAGE].shape = *x;
  rule->out[OUT_ORDER].shape = SHAPE(x->dim[0], count);
  return OK;
}

static cost shuffle_cells_cost(const void *attrs, const tensor *in, int in_count,
                               const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

/* Fills one (n, x) plane of the result, row piece by row piece. */
static void shuffle_task(void *context, int64_t task) {
  const call *c = context;
  const int64_t *cells = ((const cell_attrs *)c->attrs)->cells, *dim = c->in[0].shape.dim;
  int64_t extent[3], n = task / dim[1], x = task % dim[1];
  for (int a = 0; a < 3; a++) extent[a] = dim[a + 1] / cells[a];
  int64_t run = extent[2] * dim[4], row = dim[3] * dim[4], plane = dim[2] * row;
  const int32_t *order = (const int32_t *)c->out[OUT_ORDER].data + n * cell_count(cells);
  const float *image = (const float *)c->in[0].data + n * dim[1] * plane;
  float *to = (float *)c->out[OUT_IMAGE].data + task * plane;
  for (int64_t y = 0; y < dim[2]; y++)
    for (int64_t z = 0; z < cells[2]; z++, to += run) {
      int64_t from = order[(x / extent[0] * cells[1] + y / extent[1]) * cells[2] + z];
      int64_t from_x = from / (cells[1] * cells[2]) * extent[0] + x % extent[0];
      int64_t from_y = from / cells[2] % cells[1] * extent[1] + y % extent[1];
      copy_row(to, image + from_x * plane + from_y * row + from % cells[2] * run, run);
    }
}

static status shuffle_cells_cpu(const call *c) {
  const int64_t *cells = ((const cell_attrs *)c->attrs)->cells, *dim = c->in[0].shape.dim;
  int64_t count = cell_count(cells);
  for (int64_t n = 0; n < dim[0]; n++) {
    rng stream = rng_open(c->rng_keys[n], c->node_id);
    rng_permutation(&stream, (int32_t *)c->out[OUT_ORDER].data + n * count, (int32_t)count);
  }
  parallel_for(c->pool, dim[0] * dim[1], shuffle_task, (void *)c);
  return OK;
}

const op op_shuffle_cells = {
    .name = "shuffle_cells",
    .family = "method",
    .summary = "Puts the cells of each volume in a random order: a jigsaw puzzle.",
    .doc = "Cuts each volume into a grid of equal boxes and rearranges them by a random "
           "permutation of its own: box k of `out` is box order[n][k] of the image, where z "
           "counts fastest. Predicting `order` with cell_order_loss solves the puzzle (Noroozi & "
           "Favaro, ECCV 2016; Taleb et al., NeurIPS 2020, for volumes).",
    .version = 1,
    .traits = OP_RANDOM,
    .inputs = (const port[]){{"image", "N X Y Z C", DTYPE_F32, 0, "volumes"}, {0}},
    .outputs = (const port[]){{"out", "N X Y Z C", DTYPE_F32, 0, "shuffled volumes"},
                              {"order", "N K", DTYPE_I32, 0, "where each cell came from"},
                              {0}},
    .attrs = (const attr[]){CELL_ATTRS(NULL), {0}},
    .attrs_bytes = sizeof(cell_attrs),
    .infer = shuffle_cells_infer,
    .cost = shuffle_cells_cost,
    .cpu = shuffle_cells_cpu,
    .cases = (const op_case[]){{"{cells: [1, 2, 3]}", "[1..3, 1..3, 2|4, 3|6, 1..3]", 0}, {0}},
};
