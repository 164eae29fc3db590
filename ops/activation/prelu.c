/* prelu: x where positive, a learned slope · x elsewhere (He et al., ICCV 2015, arXiv 1502.01852). */
#include "ops/arithmetic/elementwise.h"
#include "ops/kernels/channel_rows.h"

#include "graph/graph.h"

typedef struct prelu_attrs {
  bool per_channel;
  double init;
} prelu_attrs;

static const attr prelu_attr_list[] = {
    {"per_channel", ATTR_BOOL, offsetof(prelu_attrs, per_channel), "false", 0, 0, NULL, 0,
     "a slope for each channel instead of one for all"},
    {"init", ATTR_FLOAT, offsetof(prelu_attrs, init), "0.25", -10, 10, NULL, 0,
     "slope that a fresh network starts with"},
    {0},
};

enum { IN_X, IN_WEIGHT };
enum { BACK_X, BACK_WEIGHT, BACK_DY };
enum { BACK_DX, BACK_DWEIGHT };

static status prelu_infer(infer *rule) {
  const tensor *x = &rule->in[IN_X];
  int64_t slopes = shape_elements(&rule->in[IN_WEIGHT].shape);
  if (x->shape.rank < 1) return shape_error("x must have channels as its last axis");
  if (slopes != 1 && slopes != last_extent(x))
    return shape_error("weight must have 1 element or one for each of the %lld channels, not %lld",
                       (long long)last_extent(x), (long long)slopes);
  return infer_same_shape(rule);
}

static status prelu_params(const void *attributes, const tensor *in, int in_count,
                           param_spec *out) {
  (void)in_count;
  const prelu_attrs *attrs = attributes;
  int64_t slopes = attrs->per_channel ? last_extent(&in[0]) : 1;
  out[0] = (param_spec){SHAPE(slopes), INIT_CONSTANT, attrs->init};
  return OK;
}

static status prelu_grad(grad *rule) {
  value_id in[3] = {rule->in[IN_X], rule->in[IN_WEIGHT], rule->dy[0]}, out[2];
  TRY(build_node(rule->b, "prelu_backward", NULL, in, 3, out));
  rule->dx[IN_X] = out[BACK_DX];
  rule->dx[IN_WEIGHT] = out[BACK_DWEIGHT];
  return OK;
}

static cost prelu_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 3);
}

/* The slopes of `tile` channels from `first` on, repeated over a row. */
VECTOR_INLINE void spread_slopes(float *row, const tensor *weight, int64_t first, int64_t tile,
                                 int64_t width) {
  const float *w = weight->data;
  if (shape_elements(&weight->shape) > 1)
    spread(row, w + first, tile, width);
  else
    for (int64_t j = 0; j < width; j++) row[j] = w[0];
}

/* x and y may be the same memory. */
FOR_EACH_ISA static void prelu_rows(float *y, const float *x, const float *slopes, rows r) {
  for (int64_t i = 0; i < r.count + (r.tail > 0); i++) {
    const float *xi = x + i * r.stride;
    float *yi = y + i * r.stride;
    int64_t width = i < r.count ? r.width : r.tail;
    ELEMENTWISE
    for (int64_t j = 0; j < width; j++) yi[j] = xi[j] > 0.0f ? xi[j] : slopes[j] * xi[j];
  }
}

static void prelu_task(void *context, int64_t task) {
  const call *c = context;
  channel_cut l = cut_channels(&c->in[IN_X], 1);
  channel_task t = cut_task(&l, task);
  float slopes[TILE_MAX];
  for (int64_t first = 0; first < l.channels; first += TILE_MAX) {
    int64_t tile = tile_at(&l, first), at = t.start + first;
    rows r = rows_of(&l, t.voxels, tile);
    spread_slopes(slopes, &c->in[IN_WEIGHT], first, tile, r.width);
    prelu_rows((float *)c->out[0].data + at, (const float *)c->in[IN_X].data + at, slopes, r);
  }
}

static status prelu_cpu(const call *c) {
  channel_cut l = cut_channels(&c->in[IN_X], 1);
  parallel_for(c->pool, cut_tasks(&l), prelu_task, (void *)c);
  return OK;
}

/* ---- gradient ------------------------------------------------------------------------------ */

static status prelu_backward_infer(infer *rule) {
  rule->out[BACK_DX].shape = rule->in[BACK_X].shape;
  rule->out[BACK_DWEIGHT].shape = rule->in[BACK_WEIGHT].shape;
  return OK;
}

/* Per task: Σ x·dy of each channel, where x is not positive. */
static size_t prelu_backward_workspace(const void *attrs, const tensor *in, int in_count,
                                       const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)out, (void)threads;
  channel_cut l = cut_channels(&in[BACK_X], 1);
  return (size_t)(cut_tasks(&l) * l.channels) * sizeof(float);
}

FOR_EACH_ISA static void prelu_backward_rows(float *restrict dx, float *restrict dslope,
                                             const float *restrict x, const float *restrict dy,
                                             const float *restrict slopes, rows r, int64_t tile) {
  float sums[TILE_MAX] = {0};
  for (int64_t i = 0; i < r.count + (r.tail > 0); i++) {
    const float *xi = x + i * r.stride, *dyi = dy + i * r.stride;
    float *dxi = dx + i * r.stride;
    int64_t width = i < r.count ? r.width : r.tail;
    for (int64_t j = 0; j < width; j++) {
      sums[j] += xi[j] > 0.0f ? 0.0f : xi[j] * dyi[j];
      dxi[j] = xi[j] > 0.0f ? dyi[j] : slopes[j] * dyi[j];
    }
  }
  gather(dslope, sums, tile, r.width);
}

static void prelu_backward_task(void *context, int64_t task) {
  const call *c = context;
  channel_cut l = cut_channels(&c->in[BACK_X], 1);
  channel_task t = cut_task(&l, task);
  float slopes[TILE_MAX];
  for (int64_t first = 0; first < l.channels; first += TILE_MAX) {
    int64_t tile = tile_at(&l, first), at = t.start + first;
    rows r = rows_of(&l, t.voxels, tile);
    spread_slopes(slopes, &c->in[BACK_WEIGHT], first, tile, r.width);
    prelu_backward_rows((float *)c->out[BACK_DX].data + at,
                        (float *)c->workspace + task * l.channels + first,
                        (const float *)c->in[BACK_X].data + at,
                        (const float *)c->in[BACK_DY].data + at, slopes, r, tile);
  }
}

static status prelu_backward_cpu(const call *c) {
  channel_cut l = cut_channels(&c->in[BACK_X], 1);
  parallel_for(c->pool, cut_tasks(&l), prelu_backward_task, (void *)c);
  const float *partials = c->workspace;
  float *dweight = c->out[BACK_DWEIGHT].data;
  int64_t slopes = shape_elements(&c->out[BACK_DWEIGHT].shape), together = l.channels / slopes;
  for (int64_t s = 0; s < slopes; s++) {
    double total = 0;
    for (int64_t k = 0; k < cut_tasks(&l); k++)
      for (int64_t i = 0; i < together; i++) total += (double)partials[k * l.channels + s + i];
    dweight[s] = (float)total;
  }
  return OK;
}

const op op_prelu = {
    .name = "prelu",
    .family = "activation",
    .summary = "Leaky rectified linear unit with learned slopes.",
    .doc = "out = x where x > 0, weight · x elsewhere, with one learned weight for all channels or "
           "one for each (He et al., ICCV 2015, arXiv 1502.01852).",
    .torch = "torch.nn.functional.prelu(x, weight)",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs =
        (const port[]){{"x", "… C", DTYPE_F32, 0, "values"},
                       {"weight", "1 or C", DTYPE_F32, PORT_PARAM, "slope of negative values"},
                       {0}},
    .outputs = (const port[]){{"out", "as x", DTYPE_F32, 0, "x or weight · x"}, {0}},
    .attrs = prelu_attr_list,
    .attrs_bytes = sizeof(prelu_attrs),
    .infer = prelu_infer,
    .params = prelu_params,
    .grad = prelu_grad,
    .cost = prelu_cost,
    .cpu = prelu_cpu,
    .cases = (const op_case[]){{"{}", "[1..2, 1..5, 1..5, 1..5, 1..9]", 0},
                               {"{per_channel: true}", "[2, 3, 4, 5, 1..20]", 0},
                               {"{per_channel: true}", "[5, 260]", 0},
                               {0}},
};

const op op_prelu_backward = {
    .name = "prelu_backward",
    .family = "activation",
    .summary = "Gradients of prelu.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"x", "… C", DTYPE_F32, 0, "input of prelu"},
                             {"weight", "1 or C", DTYPE_F32, 0, "slope of negative values"},
                             {"dy", "as x", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "as x", DTYPE_F32, 0, "gradient of x"},
                              {"dweight", "1 or C", DTYPE_F32, 0, "gradient of weight"},
                              {0}},
    .infer = prelu_backward_infer,
    .cost = prelu_cost,
    .workspace_bytes = prelu_backward_workspace,
    .cpu = prelu_backward_cpu,
};
