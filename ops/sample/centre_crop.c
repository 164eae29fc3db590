/* centre_crop: a box of fixed size from the middle. */
#include "data/host.h"
#include "graph/op.h"

typedef struct centre_crop_attrs {
  int64_t size[3];
} centre_crop_attrs;

static const attr centre_crop_attr_list[] = {
    {"size", ATTR_INT3, offsetof(centre_crop_attrs, size), NULL, 1, 4096, NULL, 0,
     "extent of the crop in voxels"},
    {0},
};

static status centre_crop_host_infer(host_infer *shape) {
  const centre_crop_attrs *attrs = shape->attrs;
  for (int a = 0; a < 3; a++) shape->size[a] = attrs->size[a];
  return OK;
}

static status centre_crop_host(host_call *call) {
  const centre_crop_attrs *attrs = call->attrs;
  grid_map map = grid_identity(attrs->size);
  for (int a = 0; a < 3; a++) {
    int64_t have = call->c->image.size[a], want = attrs->size[a];
    map.start[a] = have >= want ? have / 2 - want / 2 : -((want - have) / 2);
  }
  return host_regrid(call, &map, 0);
}

const op op_centre_crop = {
    .name = "centre_crop",
    .family = "sample",
    .summary = "A crop of fixed size from the middle of the volume.",
    .doc = "Starts at extent / 2 − size / 2 (both rounded down). Axes shorter than the crop are\n"
           "padded with 0 on both sides.",
    .torch = "monai.transforms.ResizeWithPadOrCrop(size)",
    .version = 1,
    .traits = OP_SAMPLE | OP_LAZY,
    .attrs = centre_crop_attr_list,
    .attrs_bytes = sizeof(centre_crop_attrs),
    .host = centre_crop_host,
    .cases =
        (const op_case[]){{"{size: [7, 9, 6]}", NULL, 0}, {"{size: [20, 5, 30]}", NULL, 0}, {0}},
    .host_infer = centre_crop_host_infer,
};
