/* orient: voxel axes permuted and flipped so that they run in stated anatomical directions, or only
 * permuted. Nothing is interpolated; an oblique scan stays oblique, and gets the order of axes nearest
 * to the one asked. */
#include "data/host.h"
#include "graph/op.h"

#include <string.h>

typedef struct orient_attrs {
  const char *axes;
} orient_attrs;

static const attr orient_attr_list[] = {
    {"axes", ATTR_STRING, offsetof(orient_attrs, axes), "RAS", 0, 0, NULL, 0,
     "where x, y and z point to: one of R/L, one of A/P, one of S/I, in any order; or which axes of "
     "the file they are: x, y and z in any order"},
    {0},
};

static status orient_host_infer(host_infer *shape) {
  const orient_attrs *attrs = shape->attrs;
  if (!grid_axes_valid(attrs->axes))
    return shape_error("axes: \"%s\" is neither one capital letter each of R/L, A/P and S/I, as in "
                       "RAS, nor x, y and z in any order, the axes of the file",
                       attrs->axes ? attrs->axes : "");
  if (shape->of_case) {
    double from[4][4];
    memcpy(from, shape->affine, sizeof from);
    grid_map map = grid_to_axes((const double(*)[4])from, shape->size, attrs->axes);
    grid_affine((const double(*)[4])from, &map, shape->affine);
    memcpy(shape->size, map.size, sizeof map.size);
    return OK;
  }
  bool cube = shape->size[0] == shape->size[1] && shape->size[1] == shape->size[2];
  /* Which file axis becomes which is in the file's affine. */
  for (int a = 0; a < 3 && !cube; a++) shape->size[a] = -1;
  return OK;
}

static status orient_host(host_call *call) {
  const orient_attrs *attrs = call->attrs;
  const volume *image = &call->c->image;
  grid_map map = grid_to_axes(image->affine, image->size, attrs->axes);
  bool same = true;
  for (int a = 0; a < 3; a++) same = same && map.axis[a] == a && !map.flip[a];
  return same ? OK : host_regrid(call, &map, 0);
}

const op op_orient = {
    .name = "orient",
    .family = "prepare",
    .summary = "Turns the voxel axes into stated anatomical directions, without interpolation.",
    .doc =
        "Permutes and flips the axes so that the voxel indices grow in the directions of `axes`\n"
        "(RAS: right, anterior, superior). The affine follows. For oblique scans the permutation\n"
        "with the largest sum of squared direction cosines is taken. With small letters, such as zyx,\n"
        "the axes of the file change places and nothing is flipped, wherever they point to: zyx is\n"
        "the order in which nnU-Net's networks see a volume.",
    .torch = "monai.transforms.Orientation(axcodes=axes)",
    .version = 1,
    .traits = OP_PREPARE | OP_LAZY,
    .attrs = orient_attr_list,
    .attrs_bytes = sizeof(orient_attrs),
    .host = orient_host,
    .host_infer = orient_host_infer,
};
