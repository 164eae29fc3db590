/* interpolate: a feature map on a finer or coarser grid, torch.nn.functional.interpolate on
 * channels-last volumes. */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"

#include "graph/graph.h"

#include <math.h>

enum { NEAREST, TRILINEAR };

static const char *const interpolate_modes[] = {"nearest", "trilinear", NULL};

typedef struct interpolate_attrs {
  double scale[3];
  int64_t size[3];
  int mode;
  bool align_corners;
} interpolate_attrs;

typedef struct interpolate_backward_attrs {
  interpolate_attrs forward;
  int64_t image[3]; /* extents of x */
} interpolate_backward_attrs;

#define INTERPOLATE_ATTRS(TYPE, FIELD)                                                             \
  {"scale", ATTR_FLOAT3, offsetof(TYPE, FIELD scale),                                              \
   "0",     0,           1024,                                                                     \
   NULL,    0,           "factor of each extent; the result is rounded down. Give this or size"},  \
      {"size", ATTR_INT3, offsetof(TYPE, FIELD size),       "0", 0, 1 << 16,                       \
       NULL,   0,         "extents of the result in voxels"},                                      \
      {"mode",                                                                                     \
       ATTR_CHOICE,                                                                                \
       offsetof(TYPE, FIELD mode),                                                                 \
       "nearest",                                                                                  \
       0,                                                                                          \
       0,                                                                                          \
       interpolate_modes,                                                                          \
       0,                                                                                          \
       "how values between voxels are made"},                                                      \
  {                                                                                                \
    "align_corners", ATTR_BOOL, offsetof(TYPE, FIELD align_corners), "false", 0, 0, NULL, 0,       \
        "trilinear: the centres of the outermost voxels coincide, instead of their outer faces"    \
  }

static status interpolate_shape(const interpolate_attrs *attrs, const shape *x, shape *y) {
  char have[96];
  if (x->rank != 5)
    return shape_error("x must be a volume (N × X × Y × Z × C), but is %s", shape_format(have, x));
  bool by_size = attrs->size[0] > 0, by_scale = attrs->scale[0] > 0;
  for (int a = 0; a < 3; a++)
    if (by_size == by_scale || (attrs->size[a] > 0) != by_size || (attrs->scale[a] > 0) != by_scale)
      return shape_error("give either scale or size, for all three axes");
  *y = *x;
  for (int a = 0; a < 3; a++) {
    y->dim[1 + a] =
        by_size ? attrs->size[a] : (int64_t)floor((double)x->dim[1 + a] * attrs->scale[a]);
    if (y->dim[1 + a] < 1)
      return shape_error("scale %g leaves nothing of the %lld voxels along %c", attrs->scale[a],
                         (long long)x->dim[1 + a], "xyz"[a]);
  }
  return OK;
}

static status interpolate_infer(infer *rule) {
  return interpolate_shape(rule->attrs, &rule->in[0].shape, &rule->out[0].shape);
}

static status interpolate_grad(grad *rule) {
  interpolate_backward_attrs back = {.forward = *(const interpolate_attrs *)rule->attrs};
  for (int a = 0; a < 3; a++) back.image[a] = value_type(rule->b, rule->in[0])->shape.dim[1 + a];
  return build_node(rule->b, "interpolate_backward", &back, rule->dy, 1, rule->dx);
}

/* ---- where a voxel of the result reads ---------------------------------------------------------
 */

/* Along one axis: (1 − weight) of voxel low and weight of voxel high. */
typedef struct tap {
  int32_t low, high;
  float weight;
} tap;

/* As PyTorch: the positions of `nearest` in single precision. */
static tap tap_of(const interpolate_attrs *attrs, int axis, int64_t in, int64_t out, int64_t o) {
  double step = attrs->scale[axis] > 0 ? 1 / attrs->scale[axis] : (double)in / (double)out;
  if (attrs->mode == NEAREST) {
    float single = attrs->scale[axis] > 0 ? (float)step : (float)in / (float)out;
    int64_t at = (int64_t)floorf((float)o * single);
    if (at > in - 1) at = in - 1;
    return (tap){(int32_t)at, (int32_t)at, 0};
  }
  double at;
  if (attrs->align_corners)
    at = out > 1 ? (double)o * ((double)(in - 1) / (double)(out - 1)) : 0;
  else
    at = ((double)o + 0.5) * step - 0.5;
  if (at < 0) at = 0;
  int64_t low = (int64_t)at;
  if (low > in - 1) low = in - 1;
  int64_t high = low < in - 1 ? low + 1 : low;
  double weight = at - (double)low;
  return (tap){(int32_t)low, (int32_t)high, (float)(weight > 1 ? 1 : weight)};
}

/* The taps of the three axes, and for each voxel of x the first and the last that reads it. */
typedef struct grids {
  const interpolate_attrs *attrs;
  const int64_t *in, *out; /* extents */
  tap *taps[3];
  int32_t *first[3], *end[3]; /* end: one beyond the last */
} grids;

static size_t grids_bytes(const int64_t *in, const int64_t *out) {
  return (size_t)(out[0] + out[1] + out[2]) * sizeof(tap) +
         (size_t)(in[0] + in[1] + in[2]) * 2 * sizeof(int32_t);
}

static grids grids_fill(const interpolate_attrs *attrs, const int64_t *in, const int64_t *out,
                        void *workspace) {
  grids g = {.attrs = attrs, .in = in, .out = out};
  tap *taps = workspace;
  int32_t *bounds = (int32_t *)(taps + out[0] + out[1] + out[2]);
  for (int a = 0; a < 3; a++) {
    g.taps[a] = taps;
    g.first[a] = bounds;
    g.end[a] = bounds + in[a];
    taps += out[a];
    bounds += 2 * in[a];
    for (int64_t i = 0; i < in[a]; i++) g.first[a][i] = g.end[a][i] = 0;
    for (int32_t o = 0; o < out[a]; o++) {
      tap t = g.taps[a][o] = tap_of(attrs, a, in[a], out[a], o);
      for (int k = 0; k < 2; k++) {
        int32_t i = k ? t.high : t.low;
        if (g.end[a][i] == 0) g.first[a][i] = o;
        g.end[a][i] = o + 1;
      }
    }
  }
  return g;
}

/* The share of voxel i in what tap t reads. */
static float share_of(tap t, int64_t i) {
  return (t.low == i ? 1 - t.weight : 0) + (t.high == i ? t.weight : 0);
}

/* ---- forward --------------------------------------------------------------------------------- */

typedef struct work {
  grids g;
  const float *from;
  float *to;
  int64_t channels;
} work;

static void nearest_task(void *context, int64_t task) {
  const work *w = context;
  const int64_t *in = w->g.in, *out = w->g.out;
  int64_t n = task / (out[0] * out[1]), c = w->channels;
  int64_t x = w->g.taps[0][task / out[1] % out[0]].low, y = w->g.taps[1][task % out[1]].low;
  const float *row = w->from + ((n * in[0] + x) * in[1] + y) * in[2] * c;
  float *to = w->to + task * out[2] * c;
  for (int64_t z = 0; z < out[2]; z++) copy_row(to + z * c, row + w->g.taps[2][z].low * c, c);
}

enum { BUFFER = 8192 }; /* floats of a blended row, on the stack */

FOR_EACH_ISA static void blend_four(float *restrict to, const float *restrict a,
                                    const float *restrict b, const float *restrict c,
                                    const float *restrict d, const float weight[4], int64_t count) {
  for (int64_t i = 0; i < count; i++)
    to[i] = (weight[0] * a[i] + weight[1] * b[i]) + (weight[2] * c[i] + weight[3] * d[i]);
}

FOR_EACH_ISA static void blend_two(float *restrict to, const float *restrict a,
                                   const float *restrict b, float weight, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = (1 - weight) * a[i] + weight * b[i];
}

/* A task is one row of the result along z: the four rows of x around it become one, for some
 * channels and a stretch of z at a time, and that is read along z. */
static void trilinear_task(void *context, int64_t task) {
  const work *w = context;
  const int64_t *in = w->g.in, *out = w->g.out;
  int64_t n = task / (out[0] * out[1]), channels = w->channels;
  tap x = w->g.taps[0][task / out[1] % out[0]], y = w->g.taps[1][task % out[1]];
  const tap *z = w->g.taps[2];
  const float weight[4] = {(1 - x.weight) * (1 - y.weight), (1 - x.weight) * y.weight,
                           x.weight * (1 - y.weight), x.weight * y.weight};
  const float *rows[4];
  for (int k = 0; k < 4; k++)
    rows[k] =
        w->from + ((n * in[0] + (k & 2 ? x.high : x.low)) * in[1] + (k & 1 ? y.high : y.low)) *
                      in[2] * channels;
  float buffer[BUFFER];
  int64_t most = channels < BUFFER / 2 ? channels : BUFFER / 2;
  for (int64_t c = 0; c < channels; c += most) {
    int64_t count = channels - c < most ? channels - c : most;
    for (int64_t begin = 0, end; begin < out[2]; begin = end) {
      int64_t low = z[begin].low, high = z[begin].high;
      for (end = begin + 1; end < out[2] && (z[end].high - low + 1) * count <= BUFFER; end++)
        high = z[end].high;
      if (count == channels) {
        int64_t at = low * channels;
        blend_four(buffer, rows[0] + at, rows[1] + at, rows[2] + at, rows[3] + at, weight,
                   (high - low + 1) * channels);
      } else {
        for (int64_t i = low; i <= high; i++) {
          int64_t at = i * channels + c;
          blend_four(buffer + (i - low) * count, rows[0] + at, rows[1] + at, rows[2] + at,
                     rows[3] + at, weight, count);
        }
      }
      for (int64_t o = begin; o < end; o++)
        blend_two(w->to + (task * out[2] + o) * channels + c, buffer + (z[o].low - low) * count,
                  buffer + (z[o].high - low) * count, z[o].weight, count);
    }
  }
}

static size_t interpolate_workspace(const void *attrs, const tensor *in, int in_count,
                                    const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)threads;
  return grids_bytes(&in[0].shape.dim[1], &out[0].shape.dim[1]);
}

static status interpolate_cpu(const call *c) {
  const int64_t *in = &c->in[0].shape.dim[1], *out = &c->out[0].shape.dim[1];
  const interpolate_attrs *attrs = c->attrs;
  work w = {grids_fill(attrs, in, out, c->workspace), c->in[0].data, c->out[0].data, in[3]};
  parallel_for(c->pool, c->in[0].shape.dim[0] * out[0] * out[1],
               attrs->mode == NEAREST ? nearest_task : trilinear_task, &w);
  return OK;
}

static cost interpolate_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)in_count;
  bool linear = ((const interpolate_attrs *)attrs)->mode == TRILINEAR;
  double elements = (double)shape_elements(&out[0].shape);
  /* Seven operations make a blended row, along which x has in / out as many voxels; three read it.
   */
  double blended = (double)in[0].shape.dim[3] / (double)out[0].shape.dim[3];
  return (cost){.flops = linear ? elements * (3 + 7 * blended) : 0};
}

const op op_interpolate = {
    .name = "interpolate",
    .family = "shape",
    .summary = "A feature map on a finer or coarser grid.",
    .doc = "Values at the voxels of another grid over the same volume. nearest: voxel o reads "
           "⌊o · in / out⌋. trilinear: position (o + ½) · in / out − ½, kept inside, or, with "
           "align_corners, o · (in − 1) / (out − 1), is interpolated between its eight neighbours. "
           "With `scale` the ratio in / out is 1 / scale. The gradient is exact.",
    .torch = "torch.nn.functional.interpolate(x, size, scale, mode, align_corners)",
    .version = 1,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, 0, "feature map"}, {0}},
    .outputs = (const port[]){{"out", "N X' Y' Z' C", DTYPE_F32, 0, "on the new grid"}, {0}},
    .attrs = (const attr[]){INTERPOLATE_ATTRS(interpolate_attrs, ), {0}},
    .attrs_bytes = sizeof(interpolate_attrs),
    .infer = interpolate_infer,
    .grad = interpolate_grad,
    .cost = interpolate_cost,
    .workspace_bytes = interpolate_workspace,
    .cpu = interpolate_cpu,
    .cases =
        (const op_case[]){
            {"{scale: 2, mode: nearest|trilinear}", "[1..2, 1..3, 1..3, 1..4, 1..20]", 0},
            {"{size: [3, 5, 2], mode: nearest|trilinear}", "[1..2, 1..6, 1..6, 1..6, 1..5]", 0},
            {"{size: [4, 1, 7], mode: trilinear, align_corners: true}",
             "[1, 1..5, 1..5, 1..5, 1..3]", 0},
            {"{scale: [0.5, 1.5, 0.7], mode: nearest|trilinear}", "[1, 3..5, 1..4, 2..7, 3]", 0},
            {"{size: [1, 2, 5], mode: trilinear}", "[1, 1, 1, 3, 5000]", 0},
            {0}},
};

/* ---- backward -------------------------------------------------------------------------------- */

FOR_EACH_ISA static void add_scaled(float *restrict to, const float *restrict from, float factor,
                                    int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] += factor * from[i];
}

/* A task is one row of x along z. What was read from it, in the order of the results: rows of dy
 * are added up for a stretch of z at a time, and the sum is spread along z. */
static void backward_task(void *context, int64_t task) {
  const work *w = context;
  const grids *g = &w->g;
  const int64_t *in = g->in, *out = g->out;
  int64_t n = task / (in[0] * in[1]), x = task / in[1] % in[0], y = task % in[1];
  int64_t channels = w->channels;
  float *dx = w->to + task * in[2] * channels;
  for (int64_t i = 0; i < in[2] * channels; i++) dx[i] = 0;
  float buffer[BUFFER];
  int64_t most = channels < BUFFER ? channels : BUFFER, stretch = BUFFER / most;
  for (int64_t c = 0; c < channels; c += most) {
    int64_t count = channels - c < most ? channels - c : most;
    for (int64_t begin = 0; begin < out[2]; begin += stretch) {
      int64_t end = out[2] < begin + stretch ? out[2] : begin + stretch;
      for (int64_t i = 0; i < (end - begin) * count; i++) buffer[i] = 0;
      for (int64_t ox = g->first[0][x]; ox < g->end[0][x]; ox++)
        for (int64_t oy = g->first[1][y]; oy < g->end[1][y]; oy++) {
          float weight = share_of(g->taps[0][ox], x) * share_of(g->taps[1][oy], y);
          if (weight == 0) continue;
          const float *dy = w->from + ((n * out[0] + ox) * out[1] + oy) * out[2] * channels + c;
          if (count == channels)
            add_scaled(buffer, dy + begin * channels, weight, (end - begin) * channels);
          else
            for (int64_t o = begin; o < end; o++)
              add_scaled(buffer + (o - begin) * count, dy + o * channels, weight, count);
        }
      for (int64_t o = begin; o < end; o++) {
        tap t = g->taps[2][o];
        add_scaled(dx + t.low * channels + c, buffer + (o - begin) * count, 1 - t.weight, count);
        if (t.weight != 0)
          add_scaled(dx + t.high * channels + c, buffer + (o - begin) * count, t.weight, count);
      }
    }
  }
}

static status backward_infer(infer *rule) {
  const interpolate_backward_attrs *attrs = rule->attrs;
  const shape *dy = &rule->in[0].shape;
  shape made, dx = SHAPE(dy->dim[0], attrs->image[0], attrs->image[1], attrs->image[2], dy->dim[4]);
  TRY(interpolate_shape(&attrs->forward, &dx, &made));
  char have[96], want[96];
  if (!shape_equal(&made, dy))
    return shape_error("dy must be %s, but is %s", shape_format(want, &made),
                       shape_format(have, dy));
  rule->out[0].shape = dx;
  return OK;
}

static size_t backward_workspace(const void *attrs, const tensor *in, int in_count,
                                 const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)threads;
  return grids_bytes(&out[0].shape.dim[1], &in[0].shape.dim[1]);
}

static status backward_cpu(const call *c) {
  const int64_t *in = &c->out[0].shape.dim[1], *out = &c->in[0].shape.dim[1];
  const interpolate_backward_attrs *attrs = c->attrs;
  work w = {grids_fill(&attrs->forward, in, out, c->workspace), c->in[0].data, c->out[0].data,
            in[3]};
  parallel_for(c->pool, c->in[0].shape.dim[0] * in[0] * in[1], backward_task, &w);
  return OK;
}

static cost backward_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return (cost){.flops = 10 * (double)shape_elements(&in[0].shape)};
}

const op op_interpolate_backward = {
    .name = "interpolate_backward",
    .family = "shape",
    .summary = "Gradient of interpolate.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"dy", "N X' Y' Z' C", DTYPE_F32, 0, "gradient of the result"}, {0}},
    .outputs = (const port[]){{"dx", "N X Y Z C", DTYPE_F32, 0, "gradient of x"}, {0}},
    .attrs = (const attr[]){INTERPOLATE_ATTRS(interpolate_backward_attrs, forward.),
                            {"image", ATTR_INT3, offsetof(interpolate_backward_attrs, image), NULL,
                             1, 1 << 20, NULL, 0, "extent of x in voxels"},
                            {0}},
    .attrs_bytes = sizeof(interpolate_backward_attrs),
    .infer = backward_infer,
    .cost = backward_cost,
    .workspace_bytes = backward_workspace,
    .cpu = backward_cpu,
};
