/* cutout: hides random boxes of each volume, or everything but them (Pathak et al., CVPR 2016;
 * for volumes Models Genesis, Zhou et al., MICCAI 2019, arXiv 1908.06912: inner and outer cutout).
 */
#include "ops/method/cutout.h"
#include "ops/method/fill.h"

#include <math.h>
#include <string.h>

typedef struct cutout_attrs {
  double inner, outer;
  int64_t boxes;
  double another;
  double inner_size[2], outer_size[2];
  int64_t margin[3];
  fill_attrs fill;
} cutout_attrs;

enum { OUT_IMAGE, OUT_MASK };

/* Bounds of a box's extent in voxels. A third of 48 is 16, although 0.33333333 · 48 falls short. */
static void extents(const double size[2], int64_t side, int64_t *least, int64_t *most) {
  *least = (int64_t)floor(size[0] * (double)side + 1e-3);
  *most = (int64_t)floor(size[1] * (double)side + 1e-3);
  if (*least < 1) *least = 1;
  if (*most < *least) *most = *least;
}

static status check_boxes(const char *name, const double size[2], const int64_t margin[3],
                          const shape *x) {
  for (int a = 0; a < 3; a++) {
    int64_t least, most;
    extents(size, x->dim[a + 1], &least, &most);
    if (most + 2 * margin[a] > x->dim[a + 1])
      return shape_error("a box of %lld voxels with a margin of %lld on both sides does not fit "
                         "into %c = %lld; change \"%s\" or \"margin\"",
                         (long long)most, (long long)margin[a], "xyz"[a],
                         (long long)x -> dim[a + 1], name);
  }
  return OK;
}

static status cutout_infer(infer *rule) {
  const cutout_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[0].shape;
  char have[96];
  if (x->rank != 5)
    return shape_error("image must be a volume (N × X × Y × Z × C), but is %s",
                       shape_format(have, x));
  if (attrs->inner + attrs->outer > 1 + 1e-9)
    return shape_error("\"inner\" and \"outer\" are shares of the samples, but add up to %.6g",
                       attrs->inner + attrs->outer);
  if (attrs->inner > 0) TRY(check_boxes("inner_size", attrs->inner_size, attrs->margin, x));
  if (attrs->outer > 0) TRY(check_boxes("outer_size", attrs->outer_size, attrs->margin, x));
  rule->out[OUT_IMAGE].shape = *x;
  rule->out[OUT_MASK].shape = SHAPE(x->dim[0], x->dim[1], x->dim[2], x->dim[3]);
  return OK;
}

static cost cutout_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

static size_t cutout_workspace(const void *attributes, const tensor *in, int in_count,
                               const tensor *out, int threads) {
  (void)in_count, (void)out, (void)threads;
  const cutout_attrs *attrs = attributes;
  return fill_workspace(&attrs->fill, &in[0].shape);
}

static void fill_box(float *mask, const int64_t *dim, const int64_t at[3], const int64_t size[3],
                     float value) {
  for (int64_t x = at[0]; x < at[0] + size[0]; x++)
    for (int64_t y = at[1]; y < at[1] + size[1]; y++)
      for (int64_t z = at[2]; z < at[2] + size[2]; z++) mask[(x * dim[1] + y) * dim[2] + z] = value;
}

/* Draws the mask of one sample. */
static void draw_task(void *context, int64_t n) {
  const call *c = context;
  const cutout_attrs *attrs = c->attrs;
  const int64_t *dim = c->out[OUT_MASK].shape.dim + 1;
  int64_t voxels = dim[0] * dim[1] * dim[2];
  float *mask = (float *)c->out[OUT_MASK].data + n * voxels;
  rng stream = rng_open(c->rng_keys[n], c->node_id);
  double luck = (double)rng_uniform(&stream);
  bool inner = luck < attrs->inner, outer = !inner && luck < attrs->inner + attrs->outer;
  for (int64_t i = 0; i < voxels; i++) mask[i] = outer ? 1 : 0;
  for (int64_t k = 0; (inner || outer) && k < attrs->boxes; k++) {
    /* Outside of no box at all nothing would remain, so the first one is sure there. */
    if (!(outer && k == 0) && (double)rng_uniform(&stream) >= attrs->another) break;
    int64_t at[3], size[3];
    for (int a = 0; a < 3; a++) {
      int64_t least, most;
      extents(inner ? attrs->inner_size : attrs->outer_size, dim[a], &least, &most);
      size[a] = least + rng_below(&stream, (uint32_t)(most - least + 1));
    }
    for (int a = 0; a < 3; a++)
      at[a] = attrs->margin[a] +
              rng_below(&stream, (uint32_t)(dim[a] - size[a] - 2 * attrs->margin[a] + 1));
    fill_box(mask, dim, at, size, inner ? 1 : 0);
  }
}

static status cutout_cpu(const call *c) {
  const cutout_attrs *attrs = c->attrs;
  parallel_for(c->pool, c->in[0].shape.dim[0], draw_task, (void *)c);
  fill_hidden(c, &attrs->fill, &c->in[0], &c->out[OUT_MASK], &c->out[OUT_IMAGE], c->workspace);
  return OK;
}

const op op_cutout = {
    .name = "cutout",
    .family = "method",
    .summary = "Hides random boxes of each volume, or everything around them.",
    .doc =
        "A share `inner` of the samples has random boxes replaced (inpainting; Pathak et al., CVPR "
        "2016), a share `outer` everything outside of random boxes (outpainting), the rest stays. "
        "Boxes follow each other, each with probability `another`, until there are `boxes` of "
        "them; the first one of an outer cutout is certain. They may overlap. Their extents are "
        "uniform between the two fractions of the volume's, rounded down, and so are their "
        "places. `mask` is 1 where the volume is hidden. The defaults are those of Models Genesis "
        "(Zhou et al., arXiv 1908.06912), which uses inner: 0.18, outer: 0.72, fill: noise.",
    .version = 1,
    .traits = OP_IN_PLACE | OP_RANDOM,
    .inputs = (const port[]){{"image", "N X Y Z C", DTYPE_F32, 0, "volumes"}, {0}},
    .outputs = (const port[]){{"out", "N X Y Z C", DTYPE_F32, 0, "volumes with holes"},
                              {"mask", "N X Y Z", DTYPE_F32, 0, "1 where the volume is hidden"},
                              {0}},
    .attrs =
        (const attr[]){{"inner", ATTR_FLOAT, offsetof(cutout_attrs, inner), "1", 0, 1, NULL, 0,
                        "share of the samples whose boxes are hidden"},
                       {"outer", ATTR_FLOAT, offsetof(cutout_attrs, outer), "0", 0, 1, NULL, 0,
                        "share of the samples of which only the boxes are visible"},
                       {"boxes", ATTR_INT, offsetof(cutout_attrs, boxes), "5", 1, CUTOUT_MOST_BOXES,
                        NULL, 0, "number of boxes at most"},
                       {"another", ATTR_FLOAT, offsetof(cutout_attrs, another), "0.95", 0, 1, NULL,
                        ATTR_SCHEDULABLE, "probability that one more box is drawn"},
                       {"inner_size", ATTR_RANGE, offsetof(cutout_attrs, inner_size),
                        "[0.16666667, 0.33333333]", 0, 1, NULL, 0,
                        "extent of a hidden box along each axis, as a fraction of the volume's"},
                       {"outer_size", ATTR_RANGE, offsetof(cutout_attrs, outer_size),
                        "[0.42857143, 0.57142857]", 0, 1, NULL, 0,
                        "extent of a visible box along each axis, as a fraction of the volume's"},
                       {"margin", ATTR_INT3, offsetof(cutout_attrs, margin), "3", 0, 1024, NULL, 0,
                        "voxels between a box and the border along x, y and z"},
                       FILL_ATTRS(cutout_attrs),
                       {0}},
    .attrs_bytes = sizeof(cutout_attrs),
    .infer = cutout_infer,
    .cost = cutout_cost,
    .workspace_bytes = cutout_workspace,
    .cpu = cutout_cpu,
    .cases =
        (const op_case[]){{"{inner: 0.5, outer: 0.5, margin: 1, boxes: 3, fill: zero|mean|noise}",
                           "[1..3, 9..12, 9..12, 9..12, 1..2]", 0},
                          {"{inner: 1, margin: 0}", "[2, 8, 6, 7, 1]", 0},
                          {0}},
};
