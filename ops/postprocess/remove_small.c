/* remove_small: no connected component below a volume. */
#include "components.h"

typedef struct remove_small_attrs {
  chosen_classes chosen;
  double below;
  int64_t replace;
  bool total;
} remove_small_attrs;

static const attr remove_small_attr_list[] = {
    {"below", ATTR_FLOAT, offsetof(remove_small_attrs, below), NULL, 0, 1e6, NULL, 0,
     "ml; what is smaller is removed. 1000 voxels of 1 mm are 1 ml"},
    CHOSEN_CLASSES(remove_small_attrs, "the classes are one structure, measured as a whole"),
    {"total", ATTR_BOOL, offsetof(remove_small_attrs, total), "false", 0, 0, NULL, 0,
     "all components of a class count together: it stays as it is, or goes"},
    {"replace", ATTR_INT, offsetof(remove_small_attrs, replace), "0", 0, LABEL_CLASSES - 1, NULL, 0,
     "class that the removed voxels get: 0 is the background"},
    {0},
};

static status remove_small_labels(const void *attrs, labels *l) {
  const remove_small_attrs *a = attrs;
  uint8_t structure[LABEL_VALUES];
  int64_t totals[LABEL_VALUES] = {0};
  /* What is as large as the bound stays, though a file's affine is rounded to single precision. */
  double least_mm3 = 1000 * a->below * (1 - 1e-6), voxel_mm3 = affine_voxel_mm3(l->affine);
  components c;
  structures_of(&a->chosen, structure);
  TRY(components_open(l, structure, BY_CORNERS, &c));
  for (int64_t r = 0; r < c.count; r++)
    if (c.list[r].parent == r) totals[c.list[r].structure] += c.list[r].voxels;
  for (int64_t r = 0; r < c.count; r++) {
    component_run *first = &c.list[r];
    int64_t voxels = a->total ? totals[first->structure] : first->voxels;
    if (first->parent == r && (double)voxels * voxel_mm3 < least_mm3) first->voxels = 0;
  }
  components_replace(&c, l, (uint8_t)a->replace);
  components_close(&c);
  return OK;
}

const op op_remove_small = {
    .name = "remove_small",
    .family = "postprocess",
    .summary = "Removes connected components that are smaller than a volume.",
    .doc =
        "Voxels that share a face, an edge or a corner are connected. With `total` the volume of a\n"
        "whole class decides, as for enhancing tumour in BraTS, where a few voxels are mostly wrong and\n"
        "belong to the core: {below: 0.2, classes: [3], total: true, replace: 2} (Isensee et al.,\n"
        "\"nnU-Net for brain tumor segmentation\", BrainLes 2020).",
    .torch =
        "monai.transforms.RemoveSmallObjects(min_size=1000 * below, connectivity=3, by_measure=True,\n"
        "pixdim=spacing, independent_channels=not together)",
    .version = 1,
    .traits = OP_POSTPROCESS,
    .attrs = remove_small_attr_list,
    .attrs_bytes = sizeof(remove_small_attrs),
    .labels = remove_small_labels,
};
