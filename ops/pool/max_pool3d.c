/* max_pool3d: the largest value of each window, torch.nn.MaxPool3d on channels-last volumes. */
#include "ops/pool/pool.h"

#include <math.h>

enum { OUT_Y, OUT_INDICES };

static status max_pool_infer(infer *rule) {
  TRY(pool_shape(rule->attrs, &rule->in[0].shape, &rule->out[OUT_Y].shape));
  const int64_t *dim = rule->in[0].shape.dim;
  if (dim[1] * dim[2] * dim[3] > INT32_MAX)
    return shape_error("a volume of more than 2³¹ − 1 voxels cannot be pooled");
  rule->out[OUT_INDICES].shape = rule->out[OUT_Y].shape;
  return OK;
}

static status max_pool_grad(grad *rule) {
  pool_backward_attrs back = {.pool = *(const pool_attrs *)rule->attrs};
  for (int a = 0; a < 3; a++) back.image[a] = value_type(rule->b, rule->in[0])->shape.dim[1 + a];
  value_id in[2] = {rule->dy[OUT_Y], rule->out[OUT_INDICES]};
  return build_node(rule->b, "max_pool3d_backward", &back, in, 2, rule->dx);
}

/* The first of several equal values counts, and NaN is larger than any number. */
FOR_EACH_ISA static void take_larger(float *restrict y, int32_t *restrict at,
                                     const float *restrict x, int32_t voxel, int64_t channels) {
  for (int64_t c = 0; c < channels; c++) {
    bool larger = x[c] > y[c] || x[c] != x[c];
    y[c] = larger ? x[c] : y[c];
    at[c] = larger ? voxel : at[c];
  }
}

/* A task is one row of windows along z. */
static void max_pool_task(void *context, int64_t task) {
  const call *c = context;
  const pool_attrs *attrs = c->attrs;
  const int64_t *dim = c->in[0].shape.dim, *windows = c->out[0].shape.dim;
  int64_t channels = dim[4], n = task / (windows[1] * windows[2]);
  span wx = window_of(attrs, 0, dim[1], task / windows[2] % windows[1]);
  span wy = window_of(attrs, 1, dim[2], task % windows[2]);
  const float *volume = (const float *)c->in[0].data + n * dim[1] * dim[2] * dim[3] * channels;
  for (int64_t o = 0; o < windows[3]; o++) {
    span wz = window_of(attrs, 2, dim[3], o);
    float *y = (float *)c->out[OUT_Y].data + (task * windows[3] + o) * channels;
    int32_t *at = (int32_t *)c->out[OUT_INDICES].data + (task * windows[3] + o) * channels;
    for (int64_t i = 0; i < channels; i++) {
      y[i] = -INFINITY;
      at[i] = (int32_t)((wx.first * dim[2] + wy.first) * dim[3] + wz.first);
    }
    for (int64_t i = wx.first; i < wx.first + wx.count; i++)
      for (int64_t j = wy.first; j < wy.first + wy.count; j++)
        for (int64_t k = wz.first; k < wz.first + wz.count; k++) {
          int64_t voxel = (i * dim[2] + j) * dim[3] + k;
          take_larger(y, at, volume + voxel * channels, (int32_t)voxel, channels);
        }
  }
}

static status max_pool_cpu(const call *c) {
  const int64_t *windows = c->out[0].shape.dim;
  parallel_for(c->pool, windows[0] * windows[1] * windows[2], max_pool_task, (void *)c);
  return OK;
}

/* ---- gradient -------------------------------------------------------------------------------- */

FOR_EACH_ISA static void add_where(float *restrict dx, const float *restrict dy,
                                   const int32_t *restrict at, int32_t voxel, int64_t channels) {
  for (int64_t c = 0; c < channels; c++) dx[c] += at[c] == voxel ? dy[c] : 0;
}

/* A task is one row of x along z: each voxel asks the windows over it, in their order. */
static void max_pool_backward_task(void *context, int64_t task) {
  const call *c = context;
  const pool_attrs *attrs = &((const pool_backward_attrs *)c->attrs)->pool;
  const int64_t *dim = c->out[0].shape.dim, *windows = c->in[0].shape.dim;
  int64_t channels = dim[4], n = task / (dim[1] * dim[2]);
  span wx = windows_over(attrs, 0, windows[1], task / dim[2] % dim[1]);
  span wy = windows_over(attrs, 1, windows[2], task % dim[2]);
  for (int64_t k = 0; k < dim[3]; k++) {
    span wz = windows_over(attrs, 2, windows[3], k);
    float *dx = (float *)c->out[0].data + (task * dim[3] + k) * channels;
    int32_t voxel = (int32_t)(task % (dim[1] * dim[2]) * dim[3] + k);
    for (int64_t i = 0; i < channels; i++) dx[i] = 0;
    for (int64_t x = wx.first; x < wx.first + wx.count; x++)
      for (int64_t y = wy.first; y < wy.first + wy.count; y++)
        for (int64_t z = wz.first; z < wz.first + wz.count; z++) {
          int64_t o = (((n * windows[1] + x) * windows[2] + y) * windows[3] + z) * channels;
          add_where(dx, (const float *)c->in[0].data + o, (const int32_t *)c->in[1].data + o, voxel,
                    channels);
        }
  }
}

static status max_pool_backward_cpu(const call *c) {
  const int64_t *dim = c->out[0].shape.dim;
  parallel_for(c->pool, dim[0] * dim[1] * dim[2], max_pool_backward_task, (void *)c);
  return OK;
}

const op op_max_pool3d = {
    .name = "max_pool3d",
    .family = "pool",
    .summary = "The largest value of each window.",
    .doc = "out[n, o, c] = max of x[n, i, c] over the window o · stride − padding ≤ i < o · stride "
           "− padding + kernel; padding never wins. Where several voxels are the largest, the "
           "first takes the gradient. `reduce` over [1, 2, 3] is the global pooling.",
    .torch = "torch.nn.functional.max_pool3d(x, kernel, stride, padding, ceil_mode=ceil_mode)",
    .version = 1,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, 0, "feature map"}, {0}},
    .outputs = (const port[]){{"out", "N X' Y' Z' C", DTYPE_F32, 0, "pooled feature map"},
                              {"indices", "N X' Y' Z' C", DTYPE_I32, PORT_SAVED,
                               "voxel of the volume that was the largest"},
                              {0}},
    .attrs = (const attr[]){POOL_ATTRS(pool_attrs, ), {0}},
    .attrs_bytes = sizeof(pool_attrs),
    .infer = max_pool_infer,
    .grad = max_pool_grad,
    .cost = pool_cost,
    .cpu = max_pool_cpu,
    .cases =
        (const op_case[]){
            {"{kernel: 2}", "[1..2, 2..5, 2..4, 2..5, 1..20]", 0},
            {"{kernel: 3, stride: 2, padding: 1}", "[1..2, 1..4, 2..4, 3..5, 1..5]", 0},
            {"{kernel: [1, 2, 3], stride: [1, 2, 1], ceil_mode: true}", "[1, 1..3, 3, 3..5, 3]", 0},
            {0}},
};

const op op_max_pool3d_backward = {
    .name = "max_pool3d_backward",
    .family = "pool",
    .summary = "Gradient of max_pool3d.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"dy", "N X' Y' Z' C", DTYPE_F32, 0, "gradient of the result"},
                             {"indices", "N X' Y' Z' C", DTYPE_I32, 0, "what max_pool3d saved"},
                             {0}},
    .outputs = (const port[]){{"dx", "N X Y Z C", DTYPE_F32, 0, "gradient of x"}, {0}},
    .attrs = (const attr[]){POOL_ATTRS(pool_backward_attrs, pool.),
                            {"image", ATTR_INT3, offsetof(pool_backward_attrs, image), NULL, 1,
                             1 << 20, NULL, 0, "extent of x in voxels"},
                            {0}},
    .attrs_bytes = sizeof(pool_backward_attrs),
    .infer = pool_backward_infer,
    .cost = pool_backward_cost,
    .cpu = max_pool_backward_cpu,
};
