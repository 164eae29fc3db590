/* pad: cases brought to a least size, or to a multiple of what a network divides by. */
#include "data/host.h"
#include "graph/op.h"

typedef struct pad_attrs {
  int64_t size[3], multiple[3];
  double value;
} pad_attrs;

static const attr pad_attr_list[] = {
    {"size", ATTR_INT3, offsetof(pad_attrs, size), "1", 1, 4096, NULL, 0,
     "least extent in voxels; larger axes stay as they are"},
    {"multiple", ATTR_INT3, offsetof(pad_attrs, multiple), "1", 1, 4096, NULL, 0,
     "of which each extent becomes one, after `size`"},
    {"value", ATTR_FLOAT, offsetof(pad_attrs, value), "0", 0, 0, NULL, 0,
     "intensity of the added voxels; their label is background"},
    {0},
};

static int64_t padded(const pad_attrs *attrs, int axis, int64_t extent) {
  int64_t least = extent < attrs->size[axis] ? attrs->size[axis] : extent;
  int64_t multiple = attrs->multiple[axis];
  return (least + multiple - 1) / multiple * multiple;
}

static status pad_host_infer(host_infer *shape) {
  const pad_attrs *attrs = shape->attrs;
  bool pads = false;
  for (int a = 0; a < 3; a++) {
    pads |= attrs->size[a] > 1 || attrs->multiple[a] > 1;
    if (shape->size[a] >= 0) shape->size[a] = padded(attrs, a, shape->size[a]);
  }
  return pads ? OK : shape_error("say to what: a least \"size\", or a \"multiple\"");
}

static status pad_host(host_call *call) {
  const pad_attrs *attrs = call->attrs;
  grid_map map = grid_identity(call->c->image.size);
  bool same = true;
  for (int a = 0; a < 3; a++) {
    int64_t missing = padded(attrs, a, map.size[a]) - map.size[a];
    if (missing == 0) continue;
    map.start[a] = -(missing / 2);
    map.size[a] += missing;
    same = false;
  }
  return same ? OK : host_regrid(call, &map, (float)attrs->value);
}

const op op_pad = {
    .name = "pad",
    .family = "prepare",
    .summary = "Pads each axis on both sides to at least a given size, or to a multiple.",
    .doc = "Half of the missing voxels before, the rest after (one more after when odd).",
    .torch = "monai.transforms.SpatialPad(size, method='symmetric', value=value),\n"
             "then DivisiblePad(multiple)",
    .version = 1,
    .traits = OP_PREPARE | OP_LAZY,
    .attrs = pad_attr_list,
    .attrs_bytes = sizeof(pad_attrs),
    .host = pad_host,
    .host_infer = pad_host_infer,
};
