/* avg_pool3d: mean of each window, torch.nn.AvgPool3d on channels-last volumes. */
#include "ops/pool/pool.h"

static status avg_pool_infer(infer *rule) {
  return pool_shape(rule->attrs, &rule->in[0].shape, &rule->out[0].shape);
}

static status avg_pool_grad(grad *rule) {
  pool_backward_attrs back = {.pool = *(const pool_attrs *)rule->attrs};
  for (int a = 0; a < 3; a++) back.image[a] = value_type(rule->b, rule->in[0])->shape.dim[1 + a];
  return build_node(rule->b, "avg_pool3d_backward", &back, rule->dy, 1, rule->dx);
}

/* What the window's sum is divided by, one factor an axis: the voxels it covers, with padding if
 * that counts; what ceil_mode lets hang over the far padding never does. */
static double share_of(const pool_attrs *attrs, int axis, int64_t extent, int64_t o) {
  int64_t first = o * pool_stride(attrs, axis) - attrs->padding[axis];
  int64_t last = first + attrs->kernel[axis], end = extent + attrs->padding[axis];
  int64_t padded = (last < end ? last : end) - first;
  return 1 / (double)(attrs->count_include_pad ? padded : window_of(attrs, axis, extent, o).count);
}

FOR_EACH_ISA static void add_row(float *restrict to, const float *restrict from, int64_t channels) {
  for (int64_t c = 0; c < channels; c++) to[c] += from[c];
}

FOR_EACH_ISA static void add_scaled(float *restrict to, const float *restrict from, float factor,
                                    int64_t channels) {
  for (int64_t c = 0; c < channels; c++) to[c] += factor * from[c];
}

/* A task is one row of windows along z. */
static void avg_pool_task(void *context, int64_t task) {
  const call *c = context;
  const pool_attrs *attrs = c->attrs;
  const int64_t *dim = c->in[0].shape.dim, *windows = c->out[0].shape.dim;
  int64_t channels = dim[4], n = task / (windows[1] * windows[2]);
  int64_t ox = task / windows[2] % windows[1], oy = task % windows[2];
  span wx = window_of(attrs, 0, dim[1], ox), wy = window_of(attrs, 1, dim[2], oy);
  double share = share_of(attrs, 0, dim[1], ox) * share_of(attrs, 1, dim[2], oy);
  const float *volume = (const float *)c->in[0].data + n * dim[1] * dim[2] * dim[3] * channels;
  for (int64_t o = 0; o < windows[3]; o++) {
    span wz = window_of(attrs, 2, dim[3], o);
    float *y = (float *)c->out[0].data + (task * windows[3] + o) * channels;
    for (int64_t i = 0; i < channels; i++) y[i] = 0;
    for (int64_t i = wx.first; i < wx.first + wx.count; i++)
      for (int64_t j = wy.first; j < wy.first + wy.count; j++)
        for (int64_t k = wz.first; k < wz.first + wz.count; k++)
          add_row(y, volume + ((i * dim[2] + j) * dim[3] + k) * channels, channels);
    float factor = (float)(share * share_of(attrs, 2, dim[3], o));
    for (int64_t i = 0; i < channels; i++) y[i] *= factor;
  }
}

static status avg_pool_cpu(const call *c) {
  const int64_t *windows = c->out[0].shape.dim;
  parallel_for(c->pool, windows[0] * windows[1] * windows[2], avg_pool_task, (void *)c);
  return OK;
}

/* A task is one row of x along z: each voxel takes its share of the windows over it. */
static void avg_pool_backward_task(void *context, int64_t task) {
  const call *c = context;
  const pool_attrs *attrs = &((const pool_backward_attrs *)c->attrs)->pool;
  const int64_t *dim = c->out[0].shape.dim, *windows = c->in[0].shape.dim;
  int64_t channels = dim[4], n = task / (dim[1] * dim[2]);
  span wx = windows_over(attrs, 0, windows[1], task / dim[2] % dim[1]);
  span wy = windows_over(attrs, 1, windows[2], task % dim[2]);
  for (int64_t k = 0; k < dim[3]; k++) {
    span wz = windows_over(attrs, 2, windows[3], k);
    float *dx = (float *)c->out[0].data + (task * dim[3] + k) * channels;
    for (int64_t i = 0; i < channels; i++) dx[i] = 0;
    for (int64_t x = wx.first; x < wx.first + wx.count; x++)
      for (int64_t y = wy.first; y < wy.first + wy.count; y++) {
        double share = share_of(attrs, 0, dim[1], x) * share_of(attrs, 1, dim[2], y);
        for (int64_t z = wz.first; z < wz.first + wz.count; z++) {
          int64_t o = (((n * windows[1] + x) * windows[2] + y) * windows[3] + z) * channels;
          add_scaled(dx, (const float *)c->in[0].data + o,
                     (float)(share * share_of(attrs, 2, dim[3], z)), channels);
        }
      }
  }
}

static status avg_pool_backward_cpu(const call *c) {
  const int64_t *dim = c->out[0].shape.dim;
  parallel_for(c->pool, dim[0] * dim[1] * dim[2], avg_pool_backward_task, (void *)c);
  return OK;
}

#define COUNT_INCLUDE_PAD(TYPE, FIELD)                                                             \
  {                                                                                                \
    "count_include_pad", ATTR_BOOL, offsetof(TYPE, FIELD count_include_pad), "true", 0, 0, NULL,   \
        0, "padding counts as zeros; false: only voxels of the volume count"                       \
  }

const op op_avg_pool3d = {
    .name = "avg_pool3d",
    .family = "pool",
    .summary = "Mean of each window.",
    .doc = "out[n, o, c] = mean of x[n, i, c] over the window o · stride − padding ≤ i < o · "
           "stride − padding + kernel. `reduce` over [1, 2, 3] is the global pooling.",
    .torch = "torch.nn.functional.avg_pool3d(x, kernel, stride, padding, ceil_mode, "
             "count_include_pad)",
    .version = 1,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, 0, "feature map"}, {0}},
    .outputs = (const port[]){{"out", "N X' Y' Z' C", DTYPE_F32, 0, "pooled feature map"}, {0}},
    .attrs = (const attr[]){POOL_ATTRS(pool_attrs, ), COUNT_INCLUDE_PAD(pool_attrs, ), {0}},
    .attrs_bytes = sizeof(pool_attrs),
    .infer = avg_pool_infer,
    .grad = avg_pool_grad,
    .cost = pool_cost,
    .cpu = avg_pool_cpu,
    .cases =
        (const op_case[]){
            {"{kernel: 2}", "[1..2, 2..5, 2..4, 2..5, 1..20]", 0},
            {"{kernel: 3, stride: 2, padding: 1, count_include_pad: true|false}",
             "[1..2, 1..4, 2..4, 3..5, 1..5]", 0},
            {"{kernel: [1, 2, 3], stride: [1, 2, 2], padding: [0, 1, 1], ceil_mode: true, "
             "count_include_pad: true|false}",
             "[1, 1..3, 3, 3..6, 3]", 0},
            {0}},
};

const op op_avg_pool3d_backward = {
    .name = "avg_pool3d_backward",
    .family = "pool",
    .summary = "Gradient of avg_pool3d.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"dy", "N X' Y' Z' C", DTYPE_F32, 0, "gradient of the result"}, {0}},
    .outputs = (const port[]){{"dx", "N X Y Z C", DTYPE_F32, 0, "gradient of x"}, {0}},
    .attrs = (const attr[]){POOL_ATTRS(pool_backward_attrs, pool.),
                            COUNT_INCLUDE_PAD(pool_backward_attrs, pool.),
                            {"image", ATTR_INT3, offsetof(pool_backward_attrs, image), NULL, 1,
                             1 << 20, NULL, 0, "extent of x in voxels"},
                            {0}},
    .attrs_bytes = sizeof(pool_backward_attrs),
    .infer = pool_backward_infer,
    .cost = pool_backward_cost,
    .cpu = avg_pool_backward_cpu,
};
