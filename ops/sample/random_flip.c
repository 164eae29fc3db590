/* random_flip: mirror images. */
#include "data/host.h"
#include "graph/op.h"

typedef struct random_flip_attrs {
  unsigned axes;
  double probability;
} random_flip_attrs;

static const attr random_flip_attr_list[] = {
    {"axes", ATTR_AXES, offsetof(random_flip_attrs, axes), "[x, y, z]", 0, 0, NULL, 0,
     "axes that may be mirrored"},
    {"probability", ATTR_FLOAT, offsetof(random_flip_attrs, probability), "0.5", 0, 1, NULL,
     ATTR_SCHEDULABLE, "for each axis on its own"},
    {0},
};

static status random_flip_host(host_call *call) {
  const random_flip_attrs *attrs = call->attrs;
  grid_map map = grid_identity(call->c->image.size);
  bool same = true;
  for (int a = 0; a < 3; a++) {
    if (!(attrs->axes >> a & 1) || !host_happens(call, attrs->probability)) continue;
    map.flip[a] = true;
    map.start[a] = map.size[a] - 1;
    same = false;
  }
  return same ? OK : host_regrid(call, &map, 0);
}

const op op_random_flip = {
    .name = "random_flip",
    .family = "sample",
    .summary = "Mirrors image and label along each axis with a probability.",
    .doc = "Each of the axes is flipped independently.",
    .torch = "monai.transforms.Compose([RandFlip(probability, a) for a in axes])",
    .version = 1,
    .traits = OP_SAMPLE | OP_LAZY,
    .attrs = random_flip_attr_list,
    .attrs_bytes = sizeof(random_flip_attrs),
    .host = random_flip_host,
    .cases = (const op_case[]){{"{probability: 0.5}", NULL, 0},
                               {"{axes: [x, z], probability: 1}", NULL, 0},
                               {0}},
};
