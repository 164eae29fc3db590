/* random_rot90: quarter turns in a plane. */
#include "data/host.h"
#include "graph/op.h"

typedef struct random_rot90_attrs {
  unsigned plane;
  double probability;
  int64_t max_turns;
} random_rot90_attrs;

static const attr random_rot90_attr_list[] = {
    {"plane", ATTR_AXES, offsetof(random_rot90_attrs, plane), "[x, y]", 0, 0, NULL, 0,
     "the two axes that span the plane of rotation"},
    {"probability", ATTR_FLOAT, offsetof(random_rot90_attrs, probability), "0.5", 0, 1, NULL,
     ATTR_SCHEDULABLE, "that the crop is turned at all"},
    {"max_turns", ATTR_INT, offsetof(random_rot90_attrs, max_turns), "3", 1, 3, NULL, 0,
     "1 to this many quarter turns, equally likely"},
    {0},
};

static status random_rot90_host_infer(host_infer *shape) {
  const random_rot90_attrs *attrs = shape->attrs;
  if (__builtin_popcount(attrs->plane & 7) != 2)
    return shape_error("plane: two axes span a plane, as in [x, y]");
  return OK;
}

static status random_rot90_host(host_call *call) {
  const random_rot90_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  int turns = 1 + (int)rng_below(&call->random, (uint32_t)attrs->max_turns);
  int a = attrs->plane & 1 ? 0 : 1, b = attrs->plane & 4 ? 2 : 1;
  const int64_t *size = call->c->image.size;
  grid_map map = grid_identity(size);
  /* A quarter turn would change the extents of an oblong crop, so it gets half turns only. */
  if (size[a] != size[b]) turns = 2;
  if (turns != 2) {
    map.axis[a] = b;
    map.axis[b] = a;
  }
  /* As numpy.rot90 from the first axis towards the second: out[i, j] = in[j, n − 1 − i]. */
  map.flip[a] = turns == 1 || turns == 2;
  map.flip[b] = turns == 2 || turns == 3;
  if (map.flip[a]) map.start[a] = size[a] - 1;
  if (map.flip[b]) map.start[b] = size[b] - 1;
  return host_regrid(call, &map, 0);
}

const op op_random_rot90 = {
    .name = "random_rot90",
    .family = "sample",
    .summary = "Turns image and label by random quarter turns in a plane.",
    .doc = "With the given probability 1 to max_turns quarter turns from the first axis of the\n"
           "plane towards the second. Where the two extents differ, half turns only, so that the\n"
           "crop keeps its shape.",
    .torch = "monai.transforms.RandRotate90(probability, max_turns, spatial_axes=plane)",
    .version = 1,
    .traits = OP_SAMPLE | OP_LAZY,
    .attrs = random_rot90_attr_list,
    .attrs_bytes = sizeof(random_rot90_attrs),
    .host = random_rot90_host,
    .cases = (const op_case[]){{"{probability: 1}", NULL, 0},
                               {"{plane: [y, z], probability: 1}", NULL, 0},
                               {0}},
    .host_infer = random_rot90_host_infer,
};
