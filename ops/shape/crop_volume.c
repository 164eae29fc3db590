/* crop_volume: a box of a volume; where a network's skip is larger than what it meets. */
#include "ops/shape/box.h"

static status crop_infer(infer *rule) {
  const crop_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[0].shape;
  TRY(check_volume(x));
  shape y = *x;
  for (int a = 0; a < 3; a++) {
    int64_t start = crop_start(attrs, x, a);
    if (attrs->size[a] > x->dim[1 + a] || start + attrs->size[a] > x->dim[1 + a])
      return shape_error("a box of %lld voxels along %c from voxel %lld does not lie in the "
                         "volume's %lld; make it smaller or start it earlier",
                         (long long)attrs->size[a], "xyz"[a], (long long)(start < 0 ? 0 : start),
                         (long long)x -> dim[1 + a]);
    y.dim[1 + a] = attrs->size[a];
  }
  rule->out[0].shape = y;
  return OK;
}

/* The adjoint of cutting a box out is to put it back among zeros. */
static status crop_grad(grad *rule) {
  const crop_attrs *attrs = rule->attrs;
  const shape *x = &value_type(rule->b, rule->in[0])->shape;
  pad_volume_attrs back = {.mode = PAD_CONSTANT};
  for (int a = 0; a < 3; a++) {
    back.before[a] = crop_start(attrs, x, a);
    back.after[a] = x->dim[1 + a] - attrs->size[a] - back.before[a];
  }
  return build_node(rule->b, "pad_volume", &back, rule->dy, 1, rule->dx);
}

static void crop_task(void *context, int64_t task) {
  const call *c = context;
  const int64_t *from = c->in[0].shape.dim, *to = c->out[0].shape.dim;
  int64_t width = to[3] * to[4], start[3];
  for (int a = 0; a < 3; a++) start[a] = crop_start(c->attrs, &c->in[0].shape, a);
  span part = piece_of(to[0] * to[1] * to[2], rows_per_task(width), task);
  for (int64_t r = part.first; r < part.first + part.count; r++) {
    int64_t n = r / (to[1] * to[2]), x = r / to[2] % to[1] + start[0], y = r % to[2] + start[1];
    const float *row = (const float *)c->in[0].data +
                       (((n * from[1] + x) * from[2] + y) * from[3] + start[2]) * from[4];
    copy_row((float *)c->out[0].data + r * width, row, width);
  }
}

static status crop_cpu(const call *c) {
  const int64_t *to = c->out[0].shape.dim;
  int64_t rows = to[0] * to[1] * to[2];
  parallel_for(c->pool, divide_up(rows, rows_per_task(to[3] * to[4])), crop_task, (void *)c);
  return OK;
}

const op op_crop_volume = {
    .name = "crop_volume",
    .family = "shape",
    .summary = "A box of a feature map.",
    .doc = "out[n, i, c] = x[n, start + i, c] for i in `size`. −1 as start centres the box, one "
           "voxel more being cut off after it when odd. (For cases as they are read there are the "
           "sample operators random_crop and centre_crop.)",
    .torch = "x[:, x0:x0 + sx, y0:y0 + sy, z0:z0 + sz]",
    .version = 1,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, PORT_CARRIED, "feature map"}, {0}},
    .outputs = (const port[]){{"out", "N sx sy sz C", DTYPE_F32, PORT_STORABLE, "the box"}, {0}},
    .attrs = (const attr[]){{"size", ATTR_INT3, offsetof(crop_attrs, size), NULL, 1, 1e6, NULL, 0,
                             "extent of the box in voxels"},
                            {"start", ATTR_INT3, offsetof(crop_attrs, start), "-1", -1, 1e6, NULL,
                             0, "first voxel of the box, counting from 0; −1: centred"},
                            {0}},
    .attrs_bytes = sizeof(crop_attrs),
    .infer = crop_infer,
    .grad = crop_grad,
    .cost = box_cost,
    .cpu = crop_cpu,
    .cases = (const op_case[]){{"{size: [2, 1, 3], start: [1, 0, 2]}",
                                "[1..2, 3..4, 1..3, 5..7, 1..5]", 0},
                               {"{size: 2}", "[1, 2..5, 2..5, 2..5, 1..17]", 0},
                               {0}},
};
