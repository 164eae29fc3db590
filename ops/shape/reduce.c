/* reduce: mean, sum or largest value over chosen axes; global pooling is the mean or the largest
 * over x, y and z. */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"

#include "graph/graph.h"

#include <math.h>

enum { REDUCE_MEAN, REDUCE_SUM, REDUCE_MAX };

static const char *const reduce_modes[] = {"mean", "sum", "max", NULL};

typedef struct reduce_attrs {
  int mode;
  int_list axes;
  bool keep;
} reduce_attrs;

typedef struct reduce_backward_attrs {
  int mode;
  int_list axes, shape; /* shape of x */
} reduce_backward_attrs;

/* The axes as bits; none named means all. */
static status reduced_axes(const int_list *axes, const shape *x, unsigned *out) {
  char have[96];
  *out = axes->count ? 0 : (1u << x->rank) - 1;
  for (int i = 0; i < axes->count; i++) {
    int64_t axis = axes->at[i] < 0 ? axes->at[i] + x->rank : axes->at[i];
    if (axis < 0 || axis >= x->rank)
      return shape_error("x is %s and has no axis %lld; its axes after the batch are 1 to %d",
                         shape_format(have, x), (long long)axes->at[i], x->rank - 1);
    if (*out >> axis & 1) return shape_error("axis %lld is named twice", (long long)axis);
    *out |= 1u << axis;
  }
  return OK;
}

static shape result_shape(const shape *x, unsigned axes, bool keep) {
  shape y = {0};
  for (int d = 0; d < x->rank; d++) {
    bool reduced = axes >> d & 1;
    if (!reduced || keep) y.dim[y.rank++] = reduced ? 1 : x->dim[d];
  }
  return y;
}

static status reduce_infer(infer *rule) {
  const reduce_attrs *attrs = rule->attrs;
  unsigned axes;
  TRY(reduced_axes(&attrs->axes, &rule->in[0].shape, &axes));
  rule->out[0].shape = result_shape(&rule->in[0].shape, axes, attrs->keep);
  return OK;
}

static status reduce_grad(grad *rule) {
  const reduce_attrs *attrs = rule->attrs;
  const shape *x = &value_type(rule->b, rule->in[0])->shape;
  reduce_backward_attrs back = {.mode = attrs->mode, .axes = attrs->axes, .shape.count = x->rank};
  for (int d = 0; d < x->rank; d++) back.shape.at[d] = x->dim[d];
  value_id in[3] = {rule->dy[0], VALUE_NONE, VALUE_NONE};
  if (attrs->mode == REDUCE_MAX) {
    in[1] = rule->in[0];
    in[2] = rule->out[0];
  }
  return build_node(rule->b, "reduce_backward", &back, in, 3, rule->dx);
}

static cost reduce_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return (cost){.flops = (double)shape_elements(&in[0].shape)};
}

/* ---- the walk over x -------------------------------------------------------------------------
 *
 * x is seen as groups, one for each result or run of results. A group is `turns` pieces of memory:
 * where the last axis stays, each is `width` numbers that belong to as many results; where it is
 * reduced, each is a run of `run` numbers that belong to one. Long pieces and long groups are split
 * into parts, by the shape alone; the partial results are added in index order. */
enum { WIDEST = 4096 };

typedef struct reduction {
  int kept, reduced;
  int64_t kept_dim[MAX_DIMS], kept_stride[MAX_DIMS];
  int64_t reduced_dim[MAX_DIMS], reduced_stride[MAX_DIMS];
  int64_t groups, width, run; /* width or run is 1 */
  int64_t length;             /* turns · run */
  int64_t slices;             /* of width, each at most WIDEST */
  int64_t part, parts;        /* positions of a part */
} reduction;

static reduction plan_reduction(const shape *x, unsigned axes) {
  reduction p = {.groups = 1, .width = 1, .run = 1, .length = 1};
  int64_t stride = 1;
  bool first = true;
  for (int d = x->rank - 1; d >= 0; d--) {
    bool reduced = axes >> d & 1;
    int64_t extent = x->dim[d];
    if (reduced) p.length *= extent;
    /* The fastest axis, and those that continue it in the same sense, are one run. */
    if (first || (reduced ? p.run == stride : p.width == stride)) {
      if (reduced)
        p.run *= extent;
      else
        p.width *= extent;
      first = false;
    } else if (reduced) {
      p.reduced_dim[p.reduced] = extent;
      p.reduced_stride[p.reduced++] = stride;
    } else {
      p.kept_dim[p.kept] = extent;
      p.kept_stride[p.kept++] = stride;
      p.groups *= extent;
    }
    stride *= extent;
  }
  p.slices = divide_up(p.width, WIDEST);
  int64_t widest = p.width < WIDEST ? p.width : WIDEST;
  p.part = rows_per_task(widest);
  p.parts = divide_up(p.length, p.part);
  return p;
}

static int64_t offset_of(int count, const int64_t *dim, const int64_t *stride, int64_t index) {
  int64_t at = 0;
  for (int d = 0; d < count; d++) {
    at += index % dim[d] * stride[d];
    index /= dim[d];
  }
  return at;
}

/* A slice of a group's results. */
typedef struct unit {
  int64_t in, out; /* where it begins in x and among the results */
  int64_t width;
} unit;

static unit unit_of(const reduction *p, int64_t index) {
  int64_t group = index / p->slices;
  span columns = piece_of(p->width, WIDEST, index % p->slices);
  return (unit){offset_of(p->kept, p->kept_dim, p->kept_stride, group) + columns.first,
                group * p->width + columns.first, columns.count};
}

/* Pieces of the positions [first, first + count) of a unit: calls visit with the place in x and the
 * length of a run. */
typedef struct walker {
  const reduction *p;
  unit u;
  int64_t next, end;
} walker;

static bool next_piece(walker *w, int64_t *at, int64_t *run) {
  if (w->next >= w->end) return false;
  const reduction *p = w->p;
  int64_t turn = w->next / p->run, within = w->next % p->run;
  *run = p->run - within < w->end - w->next ? p->run - within : w->end - w->next;
  *at = w->u.in + offset_of(p->reduced, p->reduced_dim, p->reduced_stride, turn) + within;
  w->next += *run;
  return true;
}

/* How many units share a task: short groups come in bunches. */
static int64_t units_per_task(const reduction *p) {
  return p->parts > 1 || p->slices > 1 ? 1 : rows_per_task(p->length * p->width);
}

/* ---- forward --------------------------------------------------------------------------------- */

enum { TAKE_SUM, TAKE_MAX, TAKE_TIES };

FOR_EACH_ISA static void sum_rows(float *restrict to, const float *restrict x, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] += x[i];
}

FOR_EACH_ISA static void max_rows(float *restrict to, const float *restrict x, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = x[i] > to[i] || x[i] != x[i] ? x[i] : to[i];
}

FOR_EACH_ISA static void count_rows(float *restrict to, const float *restrict x,
                                    const float *restrict y, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] += x[i] == y[i] ? 1.0f : 0.0f;
}

FOR_EACH_ISA static void sum_run(float lanes[LANES], const float *restrict x, int64_t count) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int l = 0; l < LANES; l++) lanes[l] += x[i + l];
  for (int l = 0; i < count; i++, l++) lanes[l] += x[i];
}

FOR_EACH_ISA static void max_run(float lanes[LANES], const float *restrict x, int64_t count) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int l = 0; l < LANES; l++)
      lanes[l] = x[i + l] > lanes[l] || x[i + l] != x[i + l] ? x[i + l] : lanes[l];
  for (int l = 0; i < count; i++, l++) lanes[l] = x[i] > lanes[l] || x[i] != x[i] ? x[i] : lanes[l];
}

FOR_EACH_ISA static void count_run(float lanes[LANES], const float *restrict x, float y,
                                   int64_t count) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int l = 0; l < LANES; l++) lanes[l] += x[i + l] == y ? 1.0f : 0.0f;
  for (int l = 0; i < count; i++, l++) lanes[l] += x[i] == y ? 1.0f : 0.0f;
}

typedef struct forward_work {
  reduction p;
  int take;
  const float *x, *y; /* y, for TAKE_TIES: what to compare with */
  float *partial;     /* [part][result] */
  float *out;
  float factor;
  int64_t units, results;
} forward_work;

static float larger_or_nan(float a, float b) {
  return b > a || b != b ? b : a;
}

static void reduce_part(const forward_work *w, unit u, span part, float *to) {
  const reduction *p = &w->p;
  float start = w->take == TAKE_MAX ? -INFINITY : 0;
  walker walk = {p, u, part.first, part.first + part.count};
  int64_t at, run;
  if (p->run == 1) {
    for (int64_t i = 0; i < u.width; i++) to[i] = start;
    while (next_piece(&walk, &at, &run))
      if (w->take == TAKE_SUM)
        sum_rows(to, w->x + at, u.width);
      else if (w->take == TAKE_MAX)
        max_rows(to, w->x + at, u.width);
      else
        count_rows(to, w->x + at, w->y + u.out, u.width);
    return;
  }
  float lanes[LANES];
  for (int l = 0; l < LANES; l++) lanes[l] = start;
  while (next_piece(&walk, &at, &run))
    if (w->take == TAKE_SUM)
      sum_run(lanes, w->x + at, run);
    else if (w->take == TAKE_MAX)
      max_run(lanes, w->x + at, run);
    else
      count_run(lanes, w->x + at, w->y[u.out], run);
  if (w->take != TAKE_MAX) {
    *to = (float)lanes_total(lanes);
    return;
  }
  *to = lanes[0];
  for (int l = 1; l < LANES; l++) *to = larger_or_nan(*to, lanes[l]);
}

static void partial_task(void *context, int64_t task) {
  const forward_work *w = context;
  const reduction *p = &w->p;
  int64_t part = task % p->parts;
  span units = piece_of(w->units, units_per_task(p), task / p->parts);
  float *to = p->parts > 1 ? w->partial + part * w->results : w->out;
  for (int64_t i = units.first; i < units.first + units.count; i++) {
    unit u = unit_of(p, i);
    reduce_part(w, u, piece_of(p->length, p->part, part), to + u.out);
    if (p->parts == 1)
      for (int64_t k = 0; k < u.width; k++) to[u.out + k] *= w->factor;
  }
}

static void total_task(void *context, int64_t task) {
  const forward_work *w = context;
  span part = piece_of(w->results, rows_per_task(w->p.parts), task);
  for (int64_t i = part.first; i < part.first + part.count; i++) {
    double sum = 0;
    float most = -INFINITY;
    for (int64_t k = 0; k < w->p.parts; k++) {
      float value = w->partial[k * w->results + i];
      sum += (double)value;
      most = larger_or_nan(most, value);
    }
    w->out[i] = w->take == TAKE_MAX ? most : (float)(sum * (double)w->factor);
  }
}

static void run_reduction(forward_work *w, thread_pool *pool) {
  w->units = w->p.groups * w->p.slices;
  w->results = w->p.groups * w->p.width;
  parallel_for(pool, divide_up(w->units, units_per_task(&w->p)) * w->p.parts, partial_task, w);
  if (w->p.parts > 1)
    parallel_for(pool, divide_up(w->results, rows_per_task(w->p.parts)), total_task, w);
}

static size_t partial_bytes(const shape *x, unsigned axes) {
  reduction p = plan_reduction(x, axes);
  return p.parts > 1 ? (size_t)(p.parts * p.groups * p.width) * sizeof(float) : 0;
}

static size_t reduce_workspace(const void *attrs, const tensor *in, int in_count, const tensor *out,
                               int threads) {
  (void)in_count, (void)out, (void)threads;
  unsigned axes;
  status error = reduced_axes(&((const reduce_attrs *)attrs)->axes, &in[0].shape, &axes);
  error_free(error); /* the shape rule has accepted the axes */
  return partial_bytes(&in[0].shape, axes);
}

static status reduce_cpu(const call *c) {
  const reduce_attrs *attrs = c->attrs;
  unsigned axes;
  TRY(reduced_axes(&attrs->axes, &c->in[0].shape, &axes));
  forward_work w = {.p = plan_reduction(&c->in[0].shape, axes),
                    .take = attrs->mode == REDUCE_MAX ? TAKE_MAX : TAKE_SUM,
                    .x = c->in[0].data,
                    .partial = c->workspace,
                    .out = c->out[0].data,
                    .factor = 1};
  if (attrs->mode == REDUCE_MEAN) w.factor = (float)(1 / (double)w.p.length);
  run_reduction(&w, c->pool);
  return OK;
}

const op op_reduce = {
    .name = "reduce",
    .family = "shape",
    .summary = "Mean, sum or largest value over chosen axes.",
    .doc = "out = mean, sum or maximum of x over `axes`, counted as by permute: the batch is 0, x, "
           "y and z of a volume are 1, 2 and 3, and −1 is the last, the channels. No axes means "
           "all of them. Where several elements are the largest, they share its gradient. Over "
           "[1, 2, 3] it is global average or maximum pooling.",
    .torch = "x.mean(axes, keepdim=keep), x.sum(…), x.amax(…)",
    .version = 2,
    .inputs = (const port[]){{"x", "N …", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "N …", DTYPE_F32, 0, "the rest"}, {0}},
    .attrs =
        (const attr[]){
            {"mode", ATTR_CHOICE, offsetof(reduce_attrs, mode), "mean", 0, 0, reduce_modes, 0,
             "what becomes of the elements"},
            {"axes", ATTR_INTS, offsetof(reduce_attrs, axes), "[]", -MAX_DIMS, MAX_DIMS - 1, NULL,
             0, "axes that go; none: all"},
            {"keep", ATTR_BOOL, offsetof(reduce_attrs, keep), "true", 0, 0, NULL, 0,
             "reduced axes stay with extent 1, as multiply and add want them to broadcast"},
            {0}},
    .attrs_bytes = sizeof(reduce_attrs),
    .infer = reduce_infer,
    .grad = reduce_grad,
    .cost = reduce_cost,
    .workspace_bytes = reduce_workspace,
    .cpu = reduce_cpu,
    .cases =
        (const op_case[]){
            {"{mode: mean|sum|max, axes: [1, 2, 3]}", "[1..2, 1..4, 1..4, 1..6, 1..20]", 0},
            {"{mode: mean|sum|max, axes: [-1], keep: true|false}", "[1..2, 3, 2, 1..4, 1..70]", 0},
            {"{mode: mean|sum|max, axes: [1, 3]}", "[1..2, 3, 2, 4, 1..5]", 0},
            {"{mode: mean|sum|max, axes: [2, -1], keep: false}", "[2, 3, 4, 1..40]", 0},
            {"{mode: mean|sum|max, keep: false}", "[1..3, 2..5, 1..9]", 0},
            {"{mode: sum, axes: [1]}", "[1, 2..3, 4100]", 0},
            {"{mode: mean, axes: [1]}", "[1, 700, 60]", 0},
            {"{}", "[2, 17001]", 0},
            {0}},
};

/* ---- backward -------------------------------------------------------------------------------- */

static status reduce_backward_infer(infer *rule) {
  const reduce_backward_attrs *attrs = rule->attrs;
  rule->out[0].shape = shape_of(attrs->shape.count, attrs->shape.at);
  unsigned axes;
  return reduced_axes(&attrs->axes, &rule->out[0].shape, &axes);
}

typedef struct backward_work {
  reduction p;
  const float *dy, *x, *y, *ties;
  float *dx;
  float factor;
  int64_t units;
} backward_work;

FOR_EACH_ISA static void spread_row(float *restrict dx, const float *restrict dy, float factor,
                                    int64_t count) {
  for (int64_t i = 0; i < count; i++) dx[i] = factor * dy[i];
}

FOR_EACH_ISA static void spread_ties(float *restrict dx, const float *restrict x,
                                     const float *restrict y, const float *restrict dy,
                                     const float *restrict ties, int64_t count) {
  for (int64_t i = 0; i < count; i++) dx[i] = x[i] == y[i] ? dy[i] / ties[i] : 0;
}

FOR_EACH_ISA static void fill_run(float *dx, float value, int64_t count) {
  for (int64_t i = 0; i < count; i++) dx[i] = value;
}

FOR_EACH_ISA static void fill_ties(float *restrict dx, const float *restrict x, float y,
                                   float value, int64_t count) {
  for (int64_t i = 0; i < count; i++) dx[i] = x[i] == y ? value : 0;
}

static void spread_task(void *context, int64_t task) {
  const backward_work *w = context;
  const reduction *p = &w->p;
  span units = piece_of(w->units, units_per_task(p), task / p->parts);
  span part = piece_of(p->length, p->part, task % p->parts);
  for (int64_t i = units.first; i < units.first + units.count; i++) {
    unit u = unit_of(p, i);
    walker walk = {p, u, part.first, part.first + part.count};
    const float *dy = w->dy + u.out;
    int64_t at, run;
    while (next_piece(&walk, &at, &run))
      if (p->run == 1 && w->ties)
        spread_ties(w->dx + at, w->x + at, w->y + u.out, dy, w->ties + u.out, u.width);
      else if (p->run == 1)
        spread_row(w->dx + at, dy, w->factor, u.width);
      else if (w->ties)
        fill_ties(w->dx + at, w->x + at, w->y[u.out], *dy / w->ties[u.out], run);
      else
        fill_run(w->dx + at, w->factor * *dy, run);
  }
}

static size_t reduce_backward_workspace(const void *attributes, const tensor *in, int in_count,
                                        const tensor *out, int threads) {
  (void)in_count, (void)threads;
  const reduce_backward_attrs *attrs = attributes;
  unsigned axes;
  if (attrs->mode != REDUCE_MAX) return 0;
  status error = reduced_axes(&attrs->axes, &out[0].shape, &axes);
  error_free(error); /* the shape rule has accepted the axes */
  return partial_bytes(&out[0].shape, axes) + tensor_bytes(&in[0]);
}

static status reduce_backward_cpu(const call *c) {
  const reduce_backward_attrs *attrs = c->attrs;
  unsigned axes;
  TRY(reduced_axes(&attrs->axes, &c->out[0].shape, &axes));
  backward_work w = {.p = plan_reduction(&c->out[0].shape, axes),
                     .dy = c->in[0].data,
                     .dx = c->out[0].data,
                     .factor = 1};
  if (attrs->mode == REDUCE_MEAN) w.factor = (float)(1 / (double)w.p.length);
  if (attrs->mode == REDUCE_MAX) {
    float *ties = c->workspace;
    forward_work count = {.p = w.p,
                          .take = TAKE_TIES,
                          .x = c->in[1].data,
                          .y = c->in[2].data,
                          .out = ties,
                          .partial = ties + shape_elements(&c->in[0].shape),
                          .factor = 1};
    run_reduction(&count, c->pool);
    w.x = c->in[1].data;
    w.y = c->in[2].data;
    w.ties = ties;
  }
  w.units = w.p.groups * w.p.slices;
  parallel_for(c->pool, divide_up(w.units, units_per_task(&w.p)) * w.p.parts, spread_task, &w);
  return OK;
}

const op op_reduce_backward = {
    .name = "reduce_backward",
    .family = "shape",
    .summary = "Gradient of reduce.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"dy", "N …", DTYPE_F32, 0, "gradient of the result"},
                             {"x", "N …", DTYPE_F32, PORT_OPTIONAL, "input, for max"},
                             {"y", "N …", DTYPE_F32, PORT_OPTIONAL, "result, for max"},
                             {0}},
    .outputs = (const port[]){{"dx", "N …", DTYPE_F32, 0, "gradient of x"}, {0}},
    .attrs = (const attr[]){{"mode", ATTR_CHOICE, offsetof(reduce_backward_attrs, mode), "mean", 0,
                             0, reduce_modes, 0, "as in reduce"},
                            {"axes", ATTR_INTS, offsetof(reduce_backward_attrs, axes), "[]",
                             -MAX_DIMS, MAX_DIMS - 1, NULL, 0, "as in reduce"},
                            {"shape", ATTR_INTS, offsetof(reduce_backward_attrs, shape), "[]", 1,
                             1e12, NULL, 0, "shape of x"},
                            {0}},
    .attrs_bytes = sizeof(reduce_backward_attrs),
    .infer = reduce_backward_infer,
    .cost = reduce_cost,
    .workspace_bytes = reduce_backward_workspace,
    .cpu = reduce_backward_cpu,
};
