/* random_turn: turns each volume by a random multiple of 90° and says by which (Gidaris et al.,
 * ICLR 2018; for volumes Taleb et al., NeurIPS 2020). */
#include "graph/graph.h"

#include "ops/arithmetic/chunks.h"
#include "ops/method/turns.h"

typedef struct random_turn_attrs {
  int64_t turns;
} random_turn_attrs;

enum { OUT_IMAGE, OUT_TURN };

static status random_turn_infer(infer *rule) {
  int64_t count = ((const random_turn_attrs *)rule->attrs)->turns;
  const shape *x = &rule->in[0].shape;
  char have[96];
  if (x->rank != 5)
    return shape_error("image must be a volume (N × X × Y × Z × C), but is %s",
                       shape_format(have, x));
  if (count != 4 && count != 10 && count != 24)
    return shape_error("turns must be 4 (about z), 10 (about one of the axes) or 24 (all of a "
                       "cube), not %lld",
                       (long long)count);
  if (x->dim[1] != x->dim[2])
    return shape_error("a volume that is turned about z needs as many voxels along x as along y, "
                       "but is %s; choose a crop with equal sides",
                       shape_format(have, x));
  if (count > 4 && x->dim[3] != x->dim[1])
    return shape_error("%lld turns need a cube, but the volume is %s; choose a crop with equal "
                       "sides, or turns: 4",
                       (long long)count, shape_format(have, x));
  rule->out[OUT_IMAGE].shape = *x;
  rule->out[OUT_TURN].shape = SHAPE(x->dim[0], 1);
  return OK;
}

static cost random_turn_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

/* Fills one (n, x) plane of the result. */
static void turn_task(void *context, int64_t task) {
  const call *c = context;
  const int64_t *dim = c->in[0].shape.dim;
  int64_t n = task / dim[1], channels = dim[4];
  const turn *t = &cube_turns[((const int32_t *)c->out[OUT_TURN].data)[n]];
  const int64_t strides[3] = {dim[2] * dim[3] * channels, dim[3] * channels, channels};
  const float *from = (const float *)c->in[0].data + n * dim[1] * strides[0];
  float *to = (float *)c->out[OUT_IMAGE].data + task * strides[0];
  int64_t step[3]; /* in the image, for one voxel along each axis of the result */
  for (int a = 0; a < 3; a++) {
    step[a] = t->flip[a] ? -strides[t->axis[a]] : strides[t->axis[a]];
    if (t->flip[a]) from += (dim[a + 1] - 1) * strides[t->axis[a]];
  }
  from += task % dim[1] * step[0];
  for (int64_t y = 0; y < dim[2]; y++, to += strides[1]) {
    const float *row = from + y * step[1];
    if (step[2] == channels)
      copy_row(to, row, strides[1]);
    else if (channels == 1)
      for (int64_t z = 0; z < dim[3]; z++) to[z] = row[z * step[2]];
    else
      for (int64_t z = 0; z < dim[3]; z++) copy_row(to + z * channels, row + z * step[2], channels);
  }
}

static status random_turn_cpu(const call *c) {
  const random_turn_attrs *attrs = c->attrs;
  const int64_t *dim = c->in[0].shape.dim;
  for (int64_t n = 0; n < dim[0]; n++) {
    rng stream = rng_open(c->rng_keys[n], c->node_id);
    ((int32_t *)c->out[OUT_TURN].data)[n] = (int32_t)rng_below(&stream, (uint32_t)attrs->turns);
  }
  parallel_for(c->pool, dim[0] * dim[1], turn_task, (void *)c);
  return OK;
}

const op op_random_turn = {
    .name = "random_turn",
    .family = "method",
    .summary = "Turns each volume by a random multiple of 90°.",
    .doc = "Each sample is turned by one of `turns` rotations of its own, all equally likely: 4 "
           "about z; 10 by 0°, 90°, 180° or 270° about one of the axes (Taleb et al., NeurIPS "
           "2020); or the 24 that bring a cube onto itself. Telling the turn from the volume with "
           "classify_loss is rotation prediction (Gidaris et al., ICLR 2018); without it, the "
           "operator makes views. Sides that change places must be equal.",
    .torch = "turn about z: torch.rot90(x, turn, (1, 2))",
    .version = 1,
    .traits = OP_RANDOM,
    .inputs = (const port[]){{"image", "N X Y Z C", DTYPE_F32, 0, "volumes"}, {0}},
    .outputs = (const port[]){{"out", "N X Y Z C", DTYPE_F32, 0, "turned volumes"},
                              {"turn", "N 1", DTYPE_I32, 0, "number of each sample's turn"},
                              {0}},
    .attrs = (const attr[]){{"turns", ATTR_INT, offsetof(random_turn_attrs, turns), "4", 4, 24,
                             NULL, 0, "rotations to choose from: 4, 10 or 24"},
                            {0}},
    .attrs_bytes = sizeof(random_turn_attrs),
    .infer = random_turn_infer,
    .cost = random_turn_cost,
    .cpu = random_turn_cpu,
    .cases = (const op_case[]){{"{turns: 4}", "[1..4, a=2..4, a, 1..5, 1..3]", 0},
                               {"{turns: 10|24}", "[3..9, a=2..4, a, a, 1..3]", 0},
                               {0}},
};
