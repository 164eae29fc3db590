/* random_crop: a box of fixed size from a random place. */
#include "data/host.h"
#include "graph/op.h"

typedef struct random_crop_attrs {
  int64_t size[3];
  double positive, negative, foreground;
  float_list class_ratios;
} random_crop_attrs;

static const attr random_crop_attr_list[] = {
    {"size", ATTR_INT3, offsetof(random_crop_attrs, size), NULL, 1, 4096, NULL, 0,
     "extent of the crop in voxels"},
    {"positive", ATTR_FLOAT, offsetof(random_crop_attrs, positive), "1", 0, 1e6, NULL,
     ATTR_SCHEDULABLE, "share of crops around a labelled voxel, relative to `negative`"},
    {"negative", ATTR_FLOAT, offsetof(random_crop_attrs, negative), "1", 0, 1e6, NULL,
     ATTR_SCHEDULABLE,
     "share of crops around a background voxel; both 0: anywhere, whatever the label"},
    {"foreground", ATTR_FLOAT, offsetof(random_crop_attrs, foreground), "0", 0, 1, NULL,
     ATTR_SCHEDULABLE,
     "in place of both, when above 0: probability of a crop around one of the case's classes"},
    {"class_ratios", ATTR_FLOATS, offsetof(random_crop_attrs, class_ratios), "[]", 0, 1e6, NULL, 0,
     "in place of both: share of crops around a voxel of each class, background first"},
    {0},
};

static status random_crop_host_infer(host_infer *shape) {
  const random_crop_attrs *attrs = shape->attrs;
  double sum = 0;
  for (int k = 0; k < attrs->class_ratios.count; k++) sum += attrs->class_ratios.at[k];
  if (attrs->class_ratios.count > 0 && attrs->foreground > 0)
    return shape_error("foreground and class_ratios both say where crops lie: give one of them");
  if (attrs->class_ratios.count > 0 && sum <= 0)
    return shape_error("class_ratios: one class at least needs a ratio above 0");
  for (int a = 0; a < 3; a++) shape->size[a] = attrs->size[a];
  return OK;
}

/* Classes low … high. */
typedef struct class_range {
  int low, high;
} class_range;

static const class_range BACKGROUND = {0, 0}, LABELLED = {1, LABEL_CLASSES - 1},
                         KNOWN = {0, LABEL_CLASSES - 1};

static int64_t count_matching(const uint8_t *voxels, int64_t n, class_range wanted) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; i++) count += voxels[i] >= wanted.low && voxels[i] <= wanted.high;
  return count;
}

/* Uniform in [0, n) for n up to VOXELS_MAX. */
static int64_t below(rng *random, int64_t n) {
  return (int64_t)rng_below(random, (uint32_t)n);
}

/* The same in the slab of voxels at x. */
static int64_t count_slab(const labels *l, int64_t x, class_range wanted) {
  const int64_t slab = l->size[1] * l->size[2];
  if (!l->counts) return count_matching(l->data + x * slab, slab, wanted);
  int64_t count = 0;
  for (int k = wanted.low; k <= wanted.high; k++) count += l->counts[x * LABEL_VALUES + k];
  return count;
}

/* A voxel of the wanted sort, all with the same probability; false when there is none. */
static bool draw_voxel(const labels *l, class_range wanted, rng *random, int64_t at[3]) {
  const int64_t line = l->size[2];
  int64_t count = 0;
  for (int64_t x = 0; x < l->size[0]; x++) count += count_slab(l, x, wanted);
  if (count == 0) return false;
  int64_t left = below(random, count), x = 0;
  for (int64_t here; left >= (here = count_slab(l, x, wanted)); x++) left -= here;
  for (int64_t y = 0; y < l->size[1]; y++) {
    const uint8_t *voxels = l->data + (x * l->size[1] + y) * line;
    int64_t here = count_matching(voxels, line, wanted);
    if (left >= here) {
      left -= here;
      continue;
    }
    for (int64_t z = 0; z < line; z++)
      if (voxels[z] >= wanted.low && voxels[z] <= wanted.high && left-- == 0) {
        at[0] = x;
        at[1] = y;
        at[2] = z;
        return true;
      }
  }
  return false;
}

static void values_of(const labels *l, bool has[LABEL_VALUES]) {
  const int64_t voxels = l->size[0] * l->size[1] * l->size[2];
  if (l->counts)
    for (int64_t i = 0; i < l->size[0] * LABEL_VALUES; i++)
      has[i % LABEL_VALUES] |= l->counts[i] > 0;
  else
    for (int64_t i = 0; i < voxels; i++) has[l->data[i]] = true;
}

/* A class that the case has, drawn by the weights; −1 when it has none of them. The last weight
 * holds for the classes after it. */
static int draw_class(const labels *l, const double *weight, int weights, rng *random) {
  bool has[LABEL_VALUES] = {false};
  values_of(l, has);
  double sum = 0;
  for (int k = 0; k < LABEL_CLASSES; k++)
    if (has[k]) sum += weight[k < weights ? k : weights - 1];
  double left = rng_range(random, 0, sum);
  int drawn = -1;
  for (int k = 0; k < LABEL_CLASSES; k++) {
    double here = weight[k < weights ? k : weights - 1];
    if (!has[k] || here == 0) continue;
    drawn = k; /* rounding may leave a little over after the last */
    if (left < here) break;
    left -= here;
  }
  return drawn;
}

static bool draw_of_class(const labels *l, const double *weight, int weights, rng *random,
                          int64_t at[3]) {
  int k = draw_class(l, weight, weights, random);
  return k >= 0 && draw_voxel(l, (class_range){k, k}, random, at);
}

/* A voxel whose class is known, where there are others: a crop without one would teach nothing. */
static bool draw_known(const labels *l, rng *random, int64_t at[3]) {
  bool has[LABEL_VALUES] = {false};
  values_of(l, has);
  return has[LABEL_UNKNOWN] && draw_voxel(l, KNOWN, random, at);
}

/* The voxel that the crop is to have in its middle; false: anywhere. */
static bool draw_centre(host_call *call, int64_t at[3]) {
  const random_crop_attrs *attrs = call->attrs;
  const labels *label = &call->c->label;
  rng *random = &call->random;
  if (!label->data) return false;
  if (attrs->class_ratios.count > 0)
    return draw_of_class(label, attrs->class_ratios.at, attrs->class_ratios.count, random, at);
  if (attrs->foreground > 0) {
    static const double alike[2] = {0, 1};
    return (host_happens(call, attrs->foreground) && draw_of_class(label, alike, 2, random, at)) ||
           draw_known(label, random, at);
  }
  double shares = attrs->positive + attrs->negative;
  if (!(shares > 0)) return false;
  bool labelled = rng_range(random, 0, shares) < attrs->positive;
  return draw_voxel(label, labelled ? LABELLED : BACKGROUND, random, at) ||
         draw_voxel(label, labelled ? BACKGROUND : LABELLED, random, at);
}

static status random_crop_host(host_call *call) {
  const random_crop_attrs *attrs = call->attrs;
  const volume *image = &call->c->image;
  int64_t centre[3];
  bool centred = draw_centre(call, centre);
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
        "A stage whose graph reads no label samples without labels.\n"
        "foreground: 0.33 is nnU-Net's oversample_foreground_percent: a third of the crops around\n"
        "a voxel of one of the classes of the case, each as likely, the others anywhere; in a case\n"
        "with voxels of unknown class (ignore_label) the others lie around any voxel whose class\n"
        "is known, as in nnU-Net. Unknown voxels are of no class and no background. nnU-Net\n"
        "rounds its share to whole crops of a batch: of a batch of 2 it is one, which is 0.5.\n"
        "class_ratios are MONAI's ratios of RandCropByLabelClasses: background, class 1, …, the\n"
        "last one for all after it; classes that the case lacks are left out.",
    .torch = "monai.transforms.RandCropByPosNegLabel(size, pos=positive, neg=negative), or\n"
             "RandCropByLabelClasses(size, ratios=class_ratios)",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_crop_attr_list,
    .attrs_bytes = sizeof(random_crop_attrs),
    .host = random_crop_host,
    .cases = (const op_case[]){{"{size: [7, 9, 6]}", NULL, 0},
                               {"{size: 24, positive: 1, negative: 0}", NULL, 0},
                               {"{size: 5, class_ratios: [0, 1, 1]}", NULL, 0},
                               {"{size: 6, foreground: 1}", NULL, 0},
                               {0}},
    .host_infer = random_crop_host_infer,
};
