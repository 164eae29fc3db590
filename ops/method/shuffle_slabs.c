/* shuffle_slabs: cuts each volume into equal slabs of consecutive slices and puts them in a random
 * order (Kunhimon et al., arXiv 2306.09320, the transformation module). One permutation per sample.
 */
#include "ops/method/slabs.h"

#include "ops/arithmetic/chunks.h"

enum { OUT_IMAGE, OUT_ORDER };

static status shuffle_slabs_infer(infer *rule) {
  const slab_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[0].shape;
  int axis = slab_axis(attrs);
  char have[96];
  if (x->rank != 5)
    return shape_error("image must be a volume (N × X × Y × Z × C), but is %s",
                       shape_format(have, x));
  if (axis < 0) return shape_error("axis must be one of x, y and z");
  if (x->dim[axis + 1] % attrs->slabs)
    return shape_error(
        "%lld slabs do not divide %c = %lld into equal parts; change \"slabs\" or the "
        "crop",
        (long long)attrs->slabs, "xyz"[axis], (long long)x -> dim[axis + 1]);
  rule->out[OUT_IMAGE].shape = *x;
  rule->out[OUT_ORDER].shape = SHAPE(x->dim[0], attrs->slabs);
  return OK;
}

static cost shuffle_slabs_cost(const void *attrs, const tensor *in, int in_count,
                               const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

/* With the axes before the cut flattened to `outer` and those after it to `inner`, a sample is
 * outer × slabs × length, and a task moves one sample's `outer` row range. */
static void shuffle_task(void *context, int64_t task) {
  const call *c = context;
  const slab_attrs *attrs = c->attrs;
  const shape *x = &c->in[0].shape;
  int axis = slab_axis(attrs) + 1;
  int64_t outer = 1, inner = 1;
  for (int d = 1; d < axis; d++) outer *= x->dim[d];
  for (int d = axis + 1; d < 5; d++) inner *= x->dim[d];
  int64_t length = x->dim[axis] / attrs->slabs * inner, row = attrs->slabs * length;
  int64_t per_task = rows_per_task(row), tasks = divide_up(outer, per_task), n = task / tasks;
  span part = piece_of(outer, per_task, task % tasks);
  const int32_t *order = (const int32_t *)c->out[OUT_ORDER].data + n * attrs->slabs;
  int64_t at = (n * outer + part.first) * row;
  const float *from = (const float *)c->in[0].data + at;
  float *to = (float *)c->out[OUT_IMAGE].data + at;
  for (int64_t r = 0; r < part.count; r++, from += row, to += row)
    for (int64_t s = 0; s < attrs->slabs; s++)
      copy_row(to + s * length, from + order[s] * length, length);
}

static status shuffle_slabs_cpu(const call *c) {
  const slab_attrs *attrs = c->attrs;
  const shape *x = &c->in[0].shape;
  int64_t outer = 1;
  for (int d = 1; d < slab_axis(attrs) + 1; d++) outer *= x->dim[d];
  int64_t row = shape_elements(x) / x->dim[0] / outer;
  for (int64_t n = 0; n < x->dim[0]; n++) {
    rng stream = rng_open(c->rng_keys[n], c->node_id);
    rng_permutation(&stream, (int32_t *)c->out[OUT_ORDER].data + n * attrs->slabs,
                    (int32_t)attrs->slabs);
  }
  parallel_for(c->pool, x->dim[0] * divide_up(outer, rows_per_task(row)), shuffle_task, (void *)c);
  return OK;
}

const op op_shuffle_slabs = {
    .name = "shuffle_slabs",
    .family = "method",
    .summary = "Puts the slabs of each volume in a random order.",
    .doc = "Cuts each volume into equal slabs of consecutive slices along one axis and rearranges "
           "them by a random permutation of its own: slab b of `out` is slab order[n][b] of the "
           "image. Predicting `order` is the structural task of the learned initialization "
           "(Kunhimon et al., arXiv 2306.09320).",
    .version = 1,
    .traits = OP_RANDOM,
    .inputs = (const port[]){{"image", "N X Y Z C", DTYPE_F32, 0, "volumes"}, {0}},
    .outputs = (const port[]){{"out", "N X Y Z C", DTYPE_F32, 0, "shuffled volumes"},
                              {"order", "N B", DTYPE_I32, 0, "where each slab came from"},
                              {0}},
    .attrs = (const attr[]){SLAB_ATTRS, {0}},
    .attrs_bytes = sizeof(slab_attrs),
    .infer = shuffle_slabs_infer,
    .cost = shuffle_slabs_cost,
    .cpu = shuffle_slabs_cpu,
};
