/* keep_largest: the largest connected components of each class, and nothing else of it. */
#include <stdlib.h>

#include "components.h"

typedef struct keep_largest_attrs {
  chosen_classes chosen;
  int64_t components, replace;
} keep_largest_attrs;

static const attr keep_largest_attr_list[] = {
    CHOSEN_CLASSES(keep_largest_attrs,
                   "the classes are one structure, so that what is kept may be made of several"),
    {"components", ATTR_INT, offsetof(keep_largest_attrs, components), "1", 1, 1000000, NULL, 0,
     "how many are kept"},
    {"replace", ATTR_INT, offsetof(keep_largest_attrs, replace), "0", 0, LABEL_CLASSES - 1, NULL, 0,
     "class that the others' voxels get: 0 is the background"},
    {0},
};

typedef struct ranked { /* a component */
  int64_t first, voxels;
  uint8_t structure;
} ranked;

/* Structure by structure, from large to small; of equally large ones the one with the first voxel. */
static int compare(const void *a, const void *b) {
  const ranked *one = a, *other = b;
  if (one->structure != other->structure) return one->structure < other->structure ? -1 : 1;
  if (one->voxels != other->voxels) return one->voxels > other->voxels ? -1 : 1;
  return one->first < other->first ? -1 : one->first > other->first;
}

static status drop_others(components *c, int64_t kept) {
  int64_t count = 0, rank = 0;
  for (int64_t r = 0; r < c->count; r++) count += c->list[r].parent == r;
  ranked *list = malloc((size_t)(count + 1) * sizeof *list);
  if (!list) return error_out_of_memory((size_t)(count + 1) * sizeof *list);
  count = 0;
  for (int64_t r = 0; r < c->count; r++)
    if (c->list[r].parent == r)
      list[count++] = (ranked){r, c->list[r].voxels, c->list[r].structure};
  qsort(list, (size_t)count, sizeof *list, compare);
  for (int64_t i = 0; i < count; i++) {
    rank = i > 0 && list[i].structure == list[i - 1].structure ? rank + 1 : 0;
    if (rank >= kept) c->list[list[i].first].voxels = 0;
  }
  free(list);
  return OK;
}

static status keep_largest_labels(const void *attrs, labels *l) {
  const keep_largest_attrs *a = attrs;
  uint8_t structure[LABEL_VALUES];
  components c;
  structures_of(&a->chosen, structure);
  TRY(components_open(l, structure, BY_CORNERS, &c));
  status error = drop_others(&c, a->components);
  if (!error) components_replace(&c, l, (uint8_t)a->replace);
  components_close(&c);
  return error;
}

const op op_keep_largest = {
    .name = "keep_largest",
    .family = "postprocess",
    .summary = "Of each class only the largest connected component stays.",
    .doc =
        "Voxels that share a face, an edge or a corner are connected. Of equally large components the\n"
        "one with the first voxel in x, y, z order stays. The other components become `replace`. As in\n"
        "nnU-Net's postprocessing, whose first step, all classes as one, is `together: true`.",
    .torch = "monai.transforms.KeepLargestConnectedComponent(applied_labels=classes,\n"
             "independent=not together, num_components=components)",
    .version = 1,
    .traits = OP_POSTPROCESS,
    .attrs = keep_largest_attr_list,
    .attrs_bytes = sizeof(keep_largest_attrs),
    .labels = keep_largest_labels,
};
