/* crop_foreground: the case cut to the box around its body. */
#include "data/host.h"
#include "graph/op.h"

#include <math.h>

typedef struct crop_foreground_attrs {
  double above;
  bool nonzero;
  int64_t margin[3];
} crop_foreground_attrs;

static const attr crop_foreground_attr_list[] = {
    {"above", ATTR_FLOAT, offsetof(crop_foreground_attrs, above), "0", 0, 0, NULL, 0,
     "a voxel is foreground when any channel is larger than this intensity"},
    {"nonzero", ATTR_BOOL, offsetof(crop_foreground_attrs, nonzero), "false", 0, 0, NULL, 0,
     "a voxel is foreground when any channel is not 0, whatever `above` says: nnU-Net's crop"},
    {"margin", ATTR_INT3, offsetof(crop_foreground_attrs, margin), "0", 0, 4096, NULL, 0,
     "voxels kept around the foreground, as far as the volume goes"},
    {0},
};

static status crop_foreground_host_infer(host_infer *shape) {
  shape->shrinks = true;
  for (int a = 0; a < 3 && !shape->of_case; a++) shape->size[a] = -1;
  return OK;
}

static status crop_foreground_host(host_call *call) {
  const crop_foreground_attrs *attrs = call->attrs;
  const volume *v = &call->c->image;
  int64_t low[3], high[3];
  float from = attrs->nonzero ? 0 : -INFINITY, to = attrs->nonzero ? 0 : (float)attrs->above;
  if (!volume_box_beyond(v, from, to, low, high))
    return error_new(ERROR_DATA, NOWHERE,
                     "no voxel is %s %g, so there is no foreground to crop to. Check the "
                     "volume, or the intensities the steps before leave.",
                     attrs->nonzero ? "other than" : "above", (double)to);
  grid_map map = grid_identity(v->size);
  bool same = true;
  for (int a = 0; a < 3; a++) {
    int64_t begin = low[a] - attrs->margin[a], end = high[a] + 1 + attrs->margin[a];
    map.start[a] = begin < 0 ? 0 : begin;
    map.size[a] = (end > v->size[a] ? v->size[a] : end) - map.start[a];
    same = same && map.size[a] == v->size[a];
  }
  return same ? OK : host_regrid(call, &map, 0);
}

const op op_crop_foreground = {
    .name = "crop_foreground",
    .family = "prepare",
    .summary = "Crops to the box around the voxels above an intensity, or other than 0.",
    .doc =
        "The smallest box that holds every voxel with any channel above the threshold (with\n"
        "nonzero: other than 0), plus a margin, never larger than the volume. A case without foreground is an error.",
    .torch = "monai.transforms.CropForeground(select_fn=lambda x: x > above, margin=margin,\n"
             "allow_smaller=True)",
    .version = 1,
    .traits = OP_PREPARE,
    .attrs = crop_foreground_attr_list,
    .attrs_bytes = sizeof(crop_foreground_attrs),
    .host = crop_foreground_host,
    .host_infer = crop_foreground_host_infer,
};
