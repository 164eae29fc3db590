/* pad: small cases brought to a least size. */
#include "data/host.h"
#include "graph/op.h"

typedef struct pad_attrs {
  int64_t size[3];
  double value;
} pad_attrs;

static const attr pad_attr_list[] = {
    {"size", ATTR_INT3, offsetof(pad_attrs, size), NULL, 1, 4096, NULL, 0,
     "least extent in voxels; larger axes stay as they are"},
    {"value", ATTR_FLOAT, offsetof(pad_attrs, value), "0", 0, 0, NULL, 0,
     "intensity of the added voxels; their label is background"},
    {0},
};

static status pad_host_infer(host_infer *shape) {
  const pad_attrs *attrs = shape->attrs;
  for (int a = 0; a < 3; a++)
    if (shape->size[a] >= 0 && shape->size[a] < attrs->size[a]) shape->size[a] = attrs->size[a];
  return OK;
}

static status pad_host(host_call *call) {
  const pad_attrs *attrs = call->attrs;
  grid_map map = grid_identity(call->c->image.size);
  bool same = true;
  for (int a = 0; a < 3; a++) {
    int64_t missing = attrs->size[a] - map.size[a];
    if (missing <= 0) continue;
    map.start[a] = -(missing / 2);
    map.size[a] = attrs->size[a];
    same = false;
  }
  return same ? OK : host_regrid(call, &map, (float)attrs->value);
}

const op op_pad = {
    .name = "pad",
    .family = "prepare",
    .summary = "Pads each axis on both sides to at least a given size.",
    .doc = "Half of the missing voxels before, the rest after (one more after when odd).",
    .torch = "monai.transforms.SpatialPad(size, method='symmetric', value=value)",
    .version = 1,
    .traits = OP_PREPARE | OP_LAZY,
    .attrs = pad_attr_list,
    .attrs_bytes = sizeof(pad_attrs),
    .host = pad_host,
    .host_infer = pad_host_infer,
};
