/* pad_volume: voxels added around a feature map, torch.nn.functional.pad on channels-last volumes.
 */
#include "ops/shape/box.h"

#include "ops/arithmetic/vector_math.h"

static const char *const pad_modes[] = {"constant", "reflect", "replicate", "circular", NULL};

static const attr pad_attr_list[] = {
    {"before", ATTR_INT3, offsetof(pad_volume_attrs, before), "0", 0, 1e6, NULL, 0,
     "voxels added before the first along each axis"},
    {"after", ATTR_INT3, offsetof(pad_volume_attrs, after), "0", 0, 1e6, NULL, 0,
     "voxels added after the last along each axis"},
    {"mode", ATTR_CHOICE, offsetof(pad_volume_attrs, mode), "constant", 0, 0, pad_modes, 0,
     "constant: `value`; reflect: mirrored at the outermost voxel, which is not repeated; "
     "replicate: the outermost voxel; circular: the volume repeats"},
    {"value", ATTR_FLOAT, offsetof(pad_volume_attrs, value), "0", 0, 0, NULL, 0,
     "what mode constant fills in"},
    {0},
};

/* Where position i of the result, counted from the first voxel of x, is read; −1: nowhere. */
static int64_t source_of(int mode, int64_t i, int64_t extent) {
  if (i >= 0 && i < extent) return i;
  switch (mode) {
  case PAD_REFLECT:
    return i < 0 ? -i : 2 * (extent - 1) - i;
  case PAD_REPLICATE:
    return i < 0 ? 0 : extent - 1;
  case PAD_CIRCULAR:
    return i < 0 ? i + extent : i - extent;
  default:
    return -1;
  }
}

static status pad_infer(infer *rule) {
  const pad_volume_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[0].shape;
  TRY(check_volume(x));
  shape y = *x;
  for (int a = 0; a < 3; a++) {
    int64_t extent = x->dim[1 + a];
    int64_t most = attrs->before[a] > attrs->after[a] ? attrs->before[a] : attrs->after[a];
    int64_t room = attrs->mode == PAD_REFLECT ? extent - 1 : extent;
    if ((attrs->mode == PAD_REFLECT || attrs->mode == PAD_CIRCULAR) && most > room)
      return shape_error("mode %s can add at most %lld voxels along %c, where x has %lld; add "
                         "fewer than %lld or use mode replicate",
                         pad_modes[attrs->mode], (long long)room, "xyz"[a], (long long)extent,
                         (long long)most);
    y.dim[1 + a] += attrs->before[a] + attrs->after[a];
  }
  rule->out[0].shape = y;
  return OK;
}

static status pad_grad(grad *rule) {
  const pad_volume_attrs *attrs = rule->attrs;
  const shape *x = &value_type(rule->b, rule->in[0])->shape;
  if (attrs->mode != PAD_CONSTANT)
    return build_node(rule->b, "pad_volume_backward", attrs, rule->dy, 1, rule->dx);
  crop_attrs back;
  for (int a = 0; a < 3; a++) {
    back.start[a] = attrs->before[a];
    back.size[a] = x->dim[1 + a];
  }
  return build_node(rule->b, "crop_volume", &back, rule->dy, 1, rule->dx);
}

static void fill_row(float *to, float value, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = value;
}

static void pad_task(void *context, int64_t task) {
  const call *c = context;
  const pad_volume_attrs *attrs = c->attrs;
  const int64_t *from = c->in[0].shape.dim, *to = c->out[0].shape.dim, *before = attrs->before;
  int64_t channels = to[4], width = to[3] * channels;
  span part = piece_of(to[0] * to[1] * to[2], rows_per_task(width), task);
  for (int64_t r = part.first; r < part.first + part.count; r++) {
    int64_t n = r / (to[1] * to[2]);
    int64_t x = source_of(attrs->mode, r / to[2] % to[1] - before[0], from[1]);
    int64_t y = source_of(attrs->mode, r % to[2] - before[1], from[2]);
    float *row = (float *)c->out[0].data + r * width;
    if (x < 0 || y < 0) {
      fill_row(row, (float)attrs->value, width);
      continue;
    }
    const float *source =
        (const float *)c->in[0].data + ((n * from[1] + x) * from[2] + y) * from[3] * channels;
    copy_row(row + before[2] * channels, source, from[3] * channels);
    for (int64_t z = 0; z < to[3]; z++) {
      if (z == before[2]) z += from[3];
      if (z == to[3]) break;
      int64_t at = source_of(attrs->mode, z - before[2], from[3]);
      if (at < 0)
        fill_row(row + z * channels, (float)attrs->value, channels);
      else
        copy_row(row + z * channels, source + at * channels, channels);
    }
  }
}

static status pad_cpu(const call *c) {
  const int64_t *to = c->out[0].shape.dim;
  int64_t rows = to[0] * to[1] * to[2];
  parallel_for(c->pool, divide_up(rows, rows_per_task(to[3] * to[4])), pad_task, (void *)c);
  return OK;
}

const op op_pad_volume = {
    .name = "pad_volume",
    .family = "shape",
    .summary = "Voxels added around a feature map.",
    .doc = "Adds `before` voxels before and `after` voxels after the volume along x, y and z. "
           "Reflection takes fewer voxels than the volume has, circular padding at most as many. "
           "(Cases are brought to a least size by the prepare operator pad.)",
    .torch = "torch.nn.functional.pad(x, (z0, z1, y0, y1, x0, x1), mode, value)  # on N C X Y Z",
    .version = 1,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, PORT_CARRIED, "feature map"}, {0}},
    .outputs =
        (const port[]){{"out", "N X' Y' Z' C", DTYPE_F32, PORT_STORABLE, "larger feature map"},
                       {0}},
    .attrs = pad_attr_list,
    .attrs_bytes = sizeof(pad_volume_attrs),
    .infer = pad_infer,
    .grad = pad_grad,
    .cost = box_cost,
    .cpu = pad_cpu,
    .cases = (const op_case[]){{"{before: [1, 0, 2], after: [0, 3, 1], value: 0.5}",
                                "[1..2, 1..3, 1..3, 1..5, 1..5]", 0},
                               {"{before: [2, 1, 0], after: [1, 2, 2], mode: reflect}",
                                "[1..2, 3..4, 3, 3..5, 1..5]", 0},
                               {"{before: [2, 1, 3], after: [1, 0, 2], mode: replicate}",
                                "[1..2, 1..3, 2, 1..5, 1..17]", 0},
                               {"{before: [2, 1, 0], after: [1, 2, 2], mode: circular}",
                                "[1..2, 2..4, 2, 2..5, 1..5]", 0},
                               {0}},
};

/* ---- gradient of the modes that read a voxel several times ------------------------------------ */

static status pad_backward_infer(infer *rule) {
  const pad_volume_attrs *attrs = rule->attrs;
  shape dx = rule->in[0].shape;
  TRY(check_volume(&dx));
  for (int a = 0; a < 3; a++) {
    dx.dim[1 + a] -= attrs->before[a] + attrs->after[a];
    if (dx.dim[1 + a] < 1) return shape_error("dy is smaller than its padding");
  }
  rule->out[0].shape = dx;
  return OK;
}

FOR_EACH_ISA static void add_row(float *to, const float *from, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) to[i] += from[i];
}

/* A task is a plane of x: everything of dy that was read from it, in the order of dy. */
static void pad_backward_task(void *context, int64_t task) {
  const call *c = context;
  const pad_volume_attrs *attrs = c->attrs;
  const int64_t *from = c->in[0].shape.dim, *to = c->out[0].shape.dim, *before = attrs->before;
  int64_t channels = to[4], n = task / to[1], plane = task % to[1];
  float *dx = (float *)c->out[0].data + task * to[2] * to[3] * channels;
  fill_row(dx, 0, to[2] * to[3] * channels);
  for (int64_t x = 0; x < from[1]; x++) {
    if (source_of(attrs->mode, x - before[0], to[1]) != plane) continue;
    for (int64_t y = 0; y < from[2]; y++) {
      float *row = dx + source_of(attrs->mode, y - before[1], to[2]) * to[3] * channels;
      const float *dy =
          (const float *)c->in[0].data + ((n * from[1] + x) * from[2] + y) * from[3] * channels;
      add_row(row, dy + before[2] * channels, to[3] * channels);
      for (int64_t z = 0; z < from[3]; z++) {
        if (z == before[2]) z += to[3];
        if (z == from[3]) break;
        add_row(row + source_of(attrs->mode, z - before[2], to[3]) * channels, dy + z * channels,
                channels);
      }
    }
  }
}

static status pad_backward_cpu(const call *c) {
  const int64_t *to = c->out[0].shape.dim;
  parallel_for(c->pool, to[0] * to[1], pad_backward_task, (void *)c);
  return OK;
}

const op op_pad_volume_backward = {
    .name = "pad_volume_backward",
    .family = "shape",
    .summary = "Gradient of pad_volume's modes reflect, replicate and circular.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"dy", "N X' Y' Z' C", DTYPE_F32, 0, "gradient of the result"}, {0}},
    .outputs = (const port[]){{"dx", "N X Y Z C", DTYPE_F32, 0, "gradient of x"}, {0}},
    .attrs = pad_attr_list,
    .attrs_bytes = sizeof(pad_volume_attrs),
    .infer = pad_backward_infer,
    .cost = box_cost,
    .cpu = pad_backward_cpu,
};
