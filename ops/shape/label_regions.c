/* label_regions: the regions that each voxel lies in. What a stage's value `regions` is made by
 * (`data: regions`). */
#include "data/label.h"
#include "ops/arithmetic/elementwise.h"

typedef struct label_regions_attrs {
  int_list sets; /* by class, as DTYPE_REGIONS */
} label_regions_attrs;

/* A class beyond the list lies in no region: cases with such labels were refused when they were read. */
static void label_regions_task(void *context, int64_t task) {
  const call *c = context;
  const int_list *sets = &((const label_regions_attrs *)c->attrs)->sets;
  span part = chunk_of(shape_elements(&c->in[0].shape), task);
  const int32_t *label = (const int32_t *)c->in[0].data + part.first;
  int32_t *out = (int32_t *)c->out[0].data + part.first;
  for (int64_t i = 0; i < part.count; i++)
    out[i] = label[i] < 0             ? TARGET_UNKNOWN
             : label[i] < sets->count ? (int32_t)sets->at[label[i]]
                                      : 0;
}

static status label_regions_cpu(const call *c) {
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[0].shape)), label_regions_task,
               (void *)c);
  return OK;
}

const op op_label_regions = {
    .name = "label_regions",
    .family = "shape",
    .summary = "The regions that each voxel lies in, from its class.",
    .doc = "Regions are unions of classes and may overlap. A voxel of class c lies in the regions "
           "whose bits sets[c] has; where the class is unknown, so are the regions.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"label", "N …", DTYPE_I32, 0, "class numbers"}, {0}},
    .outputs = (const port[]){{"out", "N …", DTYPE_REGIONS, 0, "sets of regions"}, {0}},
    .attrs = (const attr[]){{"sets", ATTR_INTS, offsetof(label_regions_attrs, sets), NULL, 0,
                             2147483647, NULL, 0, "by class, the sum of 2^region"},
                            {0}},
    .attrs_bytes = sizeof(label_regions_attrs),
    .infer = infer_same_shape,
    .cpu = label_regions_cpu,
    .cases =
        (const op_case[]){{"{sets: [0, 1, 3, 7]}", "[1..2, 2..9, 1..3, 3..6] in -1..4", 0}, {0}},
};
