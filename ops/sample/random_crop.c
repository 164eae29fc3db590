/* random_crop: a box of fixed size from a random place. */
#include "data/host.h"
#include "graph/op.h"

typedef struct random_crop_attrs {
  int64_t size[3];
  double positive, negative;
} random_crop_attrs;

static const attr random_crop_attr_list[] = {
    {"size", ATTR_INT3, offsetof(random_crop_attrs, size), NULL, 1, 4096, NULL, 0,
     "extent of the crop in voxels"},
    {"positive", ATTR_FLOAT, offsetof(random_crop_attrs, positive), "1", 0, 1e6, NULL, 0,
     "share of crops around a labelled voxel, relative to `negative`"},
    {"negative", ATTR_FLOAT, offsetof(random_crop_attrs, negative), "1", 0, 1e6, NULL, 0,
     "share of crops around a background voxel; both 0: anywhere, whatever the label"},
    {0},
};

static status random_crop_host_infer(host_infer *shape) {
  const random_crop_attrs *attrs = shape->attrs;
  for (int a = 0; a < 3; a++) shape->size[a] = attrs->size[a];
  return OK;
}

static int64_t count_matching(const int32_t *voxels, int64_t n, bool labelled) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; i++) count += (voxels[i] > 0) == labelled;
  return count;
}

/* Uniform in [0, n) for n up to VOXELS_MAX. */
static int64_t below(rng *random, int64_t n) {
  return (int64_t)rng_below(random, (uint32_t)n);
}

/* A voxel of the wanted sort, all with the same probability; false when there is none. */
static bool draw_voxel(const labels *l, bool labelled, rng *random, int64_t at[3]) {
  const int64_t line = l->size[2], lines = l->size[0] * l->size[1];
  int64_t count = count_matching(l->data, lines * line, labelled);
  if (count == 0) return false;
  int64_t left = below(random, count);
  for (int64_t row = 0; row < lines; row++) {
    const int32_t *voxels = l->data + row * line;
    int64_t here = count_matching(voxels, line, labelled);
    if (left >= here) {
      left -= here;
      continue;
    }
    for (int64_t z = 0; z < line; z++)
      if ((voxels[z] > 0) == labelled && left-- == 0) {
        at[0] = row / l->size[1];
        at[1] = row % l->size[1];
        at[2] = z;
        return true;
      }
  }
  return false;
}

static status random_crop_host(host_call *call) {
  const random_crop_attrs *attrs = call->attrs;
  const volume *image = &call->c->image;
  const labels *label = &call->c->label;
  double shares = attrs->positive + attrs->negative;
  int64_t centre[3];
  bool centred = false;
  if (label->data && shares > 0) {
    bool labelled = rng_range(&call->random, 0, shares) < attrs->positive;
    centred = draw_voxel(label, labelled, &call->random, centre) ||
              draw_voxel(label, !labelled, &call->random, centre);
  }
  grid_map map = grid_identity(attrs->size);
  for (int a = 0; a < 3; a++) {
    int64_t room = image->size[a] - attrs->size[a];
    if (room <= 0) {
      map.start[a] = -(-room / 2);
    } else if (centred) {
      int64_t start = centre[a] - attrs->size[a] / 2;
      map.start[a] = start < 0 ? 0 : start > room ? room : start;
    } else {
      map.start[a] = below(&call->random, room + 1);
    }
  }
  return host_regrid(call, &map, 0);
}

const op op_random_crop = {
    .name = "random_crop",
    .family = "sample",
    .summary = "A crop of fixed size from a random place, guided by the label when there is one.",
    .doc =
        "With probability positive / (positive + negative) around a random labelled voxel, else\n"
        "around a random background voxel; the crop is moved to lie within the volume. Where\n"
        "one sort is missing the other is taken. Without a label, or with both shares 0, every\n"
        "place is equally likely. Axes shorter than the crop are padded with 0 on both sides.\n"
        "A stage whose graph reads no label samples without labels.",
    .torch = "monai.transforms.RandCropByPosNegLabel(size, pos=positive, neg=negative)",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_crop_attr_list,
    .attrs_bytes = sizeof(random_crop_attrs),
    .host = random_crop_host,
    .host_infer = random_crop_host_infer,
};
