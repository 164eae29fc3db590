/* Geometry of the pooling operators: windows of `kernel` voxels, `stride` apart, over a volume with
 * `padding` voxels on each side. */
#ifndef STRATA_OPS_POOL_H
#define STRATA_OPS_POOL_H

#include "graph/graph.h"
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"

typedef struct pool_attrs {
  int64_t kernel[3], stride[3], padding[3];
  bool ceil_mode;
  bool count_include_pad; /* average only */
} pool_attrs;

typedef struct pool_backward_attrs {
  pool_attrs pool;
  int64_t image[3]; /* extents of x */
} pool_backward_attrs;

#define POOL_ATTRS(TYPE, FIELD)                                                                    \
  {"kernel", ATTR_INT3, offsetof(TYPE, FIELD kernel),    NULL, 1, 1 << 16,                         \
   NULL,     0,         "extent of the window in voxels"},                                         \
      {"stride", ATTR_INT3, offsetof(TYPE, FIELD stride),                                          \
       "0",      0,         1 << 16,                                                               \
       NULL,     0,         "voxels from one window to the next; 0: as long as the window"},       \
      {"padding", ATTR_INT3, offsetof(TYPE, FIELD padding),                                        \
       "0",       0,         1 << 15,                                                              \
       NULL,      0,         "voxels added before and after the volume; at most half the window"}, \
  {                                                                                                \
    "ceil_mode", ATTR_BOOL, offsetof(TYPE, FIELD ceil_mode), "false", 0, 0, NULL, 0,               \
        "a last window that hangs over the far end counts too, if it begins inside"                \
  }

static inline int64_t pool_stride(const pool_attrs *attrs, int axis) {
  return attrs->stride[axis] > 0 ? attrs->stride[axis] : attrs->kernel[axis];
}

/* As torch.nn.functional.max_pool3d: rounding up, the last window has to begin inside the volume or
 * its padding in front. */
static inline status pool_shape(const pool_attrs *attrs, const shape *x, shape *y) {
  char have[96];
  if (x->rank != 5)
    return shape_error("x must be a volume (N × X × Y × Z × C), but is %s", shape_format(have, x));
  *y = *x;
  for (int a = 0; a < 3; a++) {
    int64_t extent = x->dim[1 + a], kernel = attrs->kernel[a], padding = attrs->padding[a];
    int64_t stride = pool_stride(attrs, a), spare = extent + 2 * padding - kernel;
    if (2 * padding > kernel)
      return shape_error("padding %lld along %c is more than half the window of %lld",
                         (long long)padding, "xyz"[a], (long long)kernel);
    if (spare < 0)
      return shape_error("a window of %lld voxels along %c is more than the volume's %lld with "
                         "padding %lld; use a smaller one",
                         (long long)kernel, "xyz"[a], (long long)extent, (long long)padding);
    int64_t count = (attrs->ceil_mode ? divide_up(spare, stride) : spare / stride) + 1;
    if ((count - 1) * stride >= extent + padding) count--;
    y->dim[1 + a] = count;
  }
  return OK;
}

/* The voxels of x that window o covers along an axis. */
static inline span window_of(const pool_attrs *attrs, int axis, int64_t extent, int64_t o) {
  int64_t first = o * pool_stride(attrs, axis) - attrs->padding[axis];
  int64_t last = first + attrs->kernel[axis];
  if (first < 0) first = 0;
  return (span){first, (last < extent ? last : extent) - first};
}

/* The windows that cover voxel i along an axis. */
static inline span windows_over(const pool_attrs *attrs, int axis, int64_t windows, int64_t i) {
  int64_t stride = pool_stride(attrs, axis), reach = i + attrs->padding[axis];
  int64_t first = reach < attrs->kernel[axis] ? 0 : (reach - attrs->kernel[axis]) / stride + 1;
  int64_t last = reach / stride + 1 < windows ? reach / stride + 1 : windows;
  return (span){first, last > first ? last - first : 0};
}

static inline cost pool_cost(const void *attributes, const tensor *in, int in_count,
                             const tensor *out) {
  (void)in, (void)in_count;
  const pool_attrs *attrs = attributes;
  return (cost){.flops = (double)shape_elements(&out[0].shape) *
                         (double)(attrs->kernel[0] * attrs->kernel[1] * attrs->kernel[2])};
}

static inline cost pool_backward_cost(const void *attrs, const tensor *in, int in_count,
                                      const tensor *out) {
  return pool_cost(&((const pool_backward_attrs *)attrs)->pool, out, in_count, in);
}

static inline shape pool_image(const pool_backward_attrs *attrs, const shape *dy) {
  return SHAPE(dy->dim[0], attrs->image[0], attrs->image[1], attrs->image[2], dy->dim[4]);
}

static inline status pool_backward_infer(infer *rule) {
  const pool_backward_attrs *attrs = rule->attrs;
  shape windows;
  rule->out[0].shape = pool_image(attrs, &rule->in[0].shape);
  TRY(pool_shape(&attrs->pool, &rule->out[0].shape, &windows));
  char have[96], want[96];
  if (!shape_equal(&windows, &rule->in[0].shape))
    return shape_error("dy must be %s, but is %s", shape_format(want, &windows),
                       shape_format(have, &rule->in[0].shape));
  return OK;
}

#endif
