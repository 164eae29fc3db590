/* matmul: products of the last two axes, one for each index of the others. The three sorts of
 * product are a linear layer's three passes: a·b is its data gradient, a·bᵀ its forward and aᵀ·b
 * its weight gradient, and each one's gradients are among the three. Products whose rows lie side by
 * side, as heads do in tokens, are those of a layer with groups. */
#include "ops/arithmetic/sum_to.h"
#include "ops/kernels/broadcast.h"
#include "ops/kernels/convolution.h"

#include "graph/precision.h"

#include <string.h>

typedef struct matmul_attrs {
  bool transpose_a, transpose_b, interleaved;
  int precision;
} matmul_attrs;

static const attr matmul_attr_list[] = {
    {"transpose_a", ATTR_BOOL, offsetof(matmul_attrs, transpose_a), "false", 0, 0, NULL, 0,
     "a is written K × M"},
    {"transpose_b", ATTR_BOOL, offsetof(matmul_attrs, transpose_b), "false", 0, 0, NULL, 0,
     "b is written N × K; not together with transpose_a"},
    {"interleaved", ATTR_BOOL, offsetof(matmul_attrs, interleaved), "false", 0, 0, NULL, 0,
     "what has long rows in a linear layer (a and out; with transpose_a a and b) is written rows × "
     "products × columns: the axis before the last says which product it is"},
    PRECISION_ATTR(matmul_attrs, precision),
    {0},
};

enum { IN_A, IN_B };
/* Few products are shared out inside, many are a task each (or as many tasks as this). */
enum { MANY = 8, MAX_TASKS = 32 };
/* Layers this narrow fill no tile: among zeros they are one wide layer. */
enum { NARROW = 8 };

typedef struct extents {
  int64_t batch, m, n, k;
  int64_t groups; /* products that lie interleaved, each `batch` times */
} extents;

/* The axes before the last two: which product it is. */
static shape leading_axes(const shape *s) {
  return shape_of(s->rank - 2, s->dim);
}

static extents extents_of(const matmul_attrs *attrs, const shape *a, const shape *b) {
  int row = a->rank - 2;
  if (attrs->interleaved) {
    extents e = {.groups = a->dim[row], .n = b->dim[b->rank - (attrs->transpose_b ? 2 : 1)]};
    e.m = a->dim[attrs->transpose_a ? row + 1 : row - 1];
    e.k = a->dim[attrs->transpose_a ? row - 1 : row + 1];
    e.batch = shape_elements(a) / (e.groups * e.m * e.k);
    return e;
  }
  extents e = {.groups = 1,
               .m = a->dim[attrs->transpose_a ? row + 1 : row],
               .k = a->dim[attrs->transpose_a ? row : row + 1],
               .n = b->dim[attrs->transpose_b ? b->rank - 2 : b->rank - 1]};
  shape of_a = leading_axes(a), of_b = leading_axes(b), both;
  broadcast_shapes(&of_a, &of_b, &both);
  e.batch = shape_elements(&both);
  return e;
}

/* Which matrix of `small` takes part in product `item` of `whole`; both are leading axes. */
static int64_t matrix_of(const shape *small, const shape *whole, int64_t item) {
  int64_t index = 0, step = 1;
  for (int i = whole->rank - 1, s = small->rank - 1; s >= 0; i--, s--) {
    if (small->dim[s] > 1) index += item % whole->dim[i] * step;
    item /= whole->dim[i];
    step *= small->dim[s];
  }
  return index;
}

static conv_shape layer_of(const matmul_attrs *attrs, extents e) {
  int64_t g = e.groups;
  conv_shape s = attrs->transpose_a   ? conv_shape_linear(e.k, g * e.n, g * e.m)
                 : attrs->transpose_b ? conv_shape_linear(e.m, g * e.k, g * e.n)
                                      : conv_shape_linear(e.m, g * e.n, g * e.k);
  bool narrow = s.channels <= g * NARROW && s.features <= g * NARROW;
  s.groups = narrow ? 1 : g;
  s.bf16 = attrs->precision == PRECISION_BF16;
  return s;
}

/* … R G C, what a linear layer of G groups reads or makes, and … G F C, its weights. */
static status interleaved_infer(infer *rule) {
  const matmul_attrs *attrs = rule->attrs;
  const shape *a = &rule->in[IN_A].shape, *b = &rule->in[IN_B].shape;
  char have[96], other[96];
  int rank = a->rank, rows = rank - 3, group = rank - 2, last = rank - 1;
  bool fits = rank >= 3 && b->rank == rank;
  for (int i = 0; fits && i < rows; i++) fits = a->dim[i] == b->dim[i];
  fits = fits && a->dim[group] == b->dim[attrs->transpose_a ? group : rows] &&
         (attrs->transpose_a ? a->dim[rows] == b->dim[rows]
                             : a->dim[last] == b->dim[attrs->transpose_b ? last : group]);
  if (!fits)
    return shape_error("interleaved a %s and b %s must agree in all axes before the last three, in "
                       "the number of products and in what is summed",
                       shape_format(have, a), shape_format(other, b));
  shape out = *a;
  if (attrs->transpose_a) {
    out.dim[rows] = a->dim[group];
    out.dim[group] = a->dim[last];
    out.dim[last] = b->dim[last];
  } else {
    out.dim[last] = b->dim[attrs->transpose_b ? group : last];
  }
  rule->out[0].shape = out;
  return OK;
}

static status matmul_infer(infer *rule) {
  const matmul_attrs *attrs = rule->attrs;
  const shape *a = &rule->in[IN_A].shape, *b = &rule->in[IN_B].shape;
  char have[96], other[96];
  if (attrs->transpose_a && attrs->transpose_b)
    return shape_error("transpose_a and transpose_b exclude each other; multiply b · a instead");
  if (attrs->interleaved) return interleaved_infer(rule);
  shape out, of_a, of_b;
  bool fits = a->rank >= 2 && b->rank >= 2;
  if (fits) {
    of_a = leading_axes(a);
    of_b = leading_axes(b);
    fits = broadcast_shapes(&of_a, &of_b, &out);
  }
  if (!fits)
    return shape_error("a %s and b %s must agree in all axes before the last two, or one of them "
                       "lack an axis or have extent 1 there",
                       shape_format(have, a), shape_format(other, b));
  extents e = extents_of(attrs, a, b);
  int64_t k = b->dim[attrs->transpose_b ? b->rank - 1 : b->rank - 2];
  if (e.k != k)
    return shape_error("a %s has %lld columns to multiply and b %s has %lld rows",
                       shape_format(have, a), (long long)e.k, shape_format(other, b), (long long)k);
  out.dim[out.rank++] = e.m;
  out.dim[out.rank++] = e.n;
  rule->out[0].shape = out;
  return OK;
}

/* A matrix that takes part in several products gets the sum of their gradients. */
static status product_for(grad *rule, int input, bool transpose_a, bool transpose_b, value_id left,
                          value_id right) {
  value_id each;
  const matmul_attrs *own = rule->attrs;
  matmul_attrs attrs = {transpose_a, transpose_b, own->interleaved, own->precision};
  TRY(build_node(rule->b, "matmul", &attrs, (value_id[]){left, right}, 2, &each));
  if (same_shape(rule->b, each, rule->in[input])) {
    rule->dx[input] = each;
    return OK;
  }
  return build_sum_to(rule->b, each, VALUE_NONE, rule->in[input], &rule->dx[input]);
}

static status matmul_grad(grad *rule) {
  const matmul_attrs *attrs = rule->attrs;
  value_id a = rule->in[IN_A], b = rule->in[IN_B], dy = rule->dy[0];
  if (rule->wanted[IN_A])
    TRY(attrs->transpose_a ? product_for(rule, IN_A, false, true, b, dy)
                           : product_for(rule, IN_A, false, !attrs->transpose_b, dy, b));
  if (rule->wanted[IN_B])
    TRY(attrs->transpose_b ? product_for(rule, IN_B, true, false, dy, a)
                           : product_for(rule, IN_B, !attrs->transpose_a, false, a, dy));
  return OK;
}

static cost matmul_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)in_count, (void)out;
  extents e = extents_of(attrs, &in[IN_A].shape, &in[IN_B].shape);
  return (cost){.flops =
                    2.0 * (double)(e.batch * e.groups) * (double)e.m * (double)e.n * (double)e.k};
}

static int64_t tasks_of(extents e) {
  return e.batch < MANY ? 1 : e.batch < MAX_TASKS ? e.batch : MAX_TASKS;
}

static size_t workspace_of_one(const matmul_attrs *attrs, extents e) {
  conv_shape s = layer_of(attrs, e);
  size_t bytes = attrs->transpose_a   ? conv_backward_weight_workspace(&s)
                 : attrs->transpose_b ? conv_forward_workspace(&s)
                                      : conv_backward_data_workspace(&s);
  bytes = (bytes + 63) / 64 * 64;
  if (s.groups < e.groups) bytes += (size_t)(s.features * s.channels) * sizeof(float);
  return (bytes + 63) / 64 * 64;
}

static size_t matmul_workspace(const void *attrs, const tensor *in, int in_count, const tensor *out,
                               int threads) {
  (void)in_count, (void)out, (void)threads;
  extents e = extents_of(attrs, &in[IN_A].shape, &in[IN_B].shape);
  return workspace_of_one(attrs, e) * (size_t)tasks_of(e);
}

/* The weights of `groups` narrow layers and those of the wide one, which has them on its diagonal. */
static void widen(const conv_shape *s, int64_t groups, const float *weight, float *wide) {
  int64_t rows = s->features / groups, width = s->channels / groups;
  memset(wide, 0, (size_t)(s->features * s->channels) * sizeof *wide);
  for (int64_t f = 0; f < s->features; f++)
    memcpy(wide + f * s->channels + f / rows * width, weight + f * width,
           (size_t)width * sizeof *wide);
}

static void take_diagonal(const conv_shape *s, int64_t groups, const float *wide, float *weight) {
  int64_t rows = s->features / groups, width = s->channels / groups;
  for (int64_t f = 0; f < s->features; f++)
    memcpy(weight + f * width, wide + f * s->channels + f / rows * width,
           (size_t)width * sizeof *wide);
}

static void multiply(const call *c, extents e, int64_t item, void *workspace, thread_pool *pool) {
  const matmul_attrs *attrs = c->attrs;
  int64_t item_a = item, item_b = item;
  if (!attrs->interleaved) {
    shape whole = leading_axes(&c->out[0].shape);
    shape of_a = leading_axes(&c->in[IN_A].shape), of_b = leading_axes(&c->in[IN_B].shape);
    item_a = matrix_of(&of_a, &whole, item);
    item_b = matrix_of(&of_b, &whole, item);
  }
  const float *a = (const float *)c->in[IN_A].data + item_a * e.groups * e.m * e.k;
  const float *b = (const float *)c->in[IN_B].data + item_b * e.groups * e.k * e.n;
  float *y = (float *)c->out[0].data + item * e.groups * e.m * e.n;
  conv_shape s = layer_of(attrs, e);
  float *wide = NULL;
  if (s.groups < e.groups) {
    wide = workspace;
    workspace = wide + (s.features * s.channels + 15) / 16 * 16;
    if (!attrs->transpose_a) widen(&s, e.groups, b, wide);
  }
  if (attrs->transpose_a)
    conv_backward_weight(&s, b, a, wide ? wide : y, NULL, workspace, pool);
  else if (attrs->transpose_b)
    conv_forward(&s, a, wide ? wide : b, NULL, y, NULL, workspace, pool);
  else
    conv_backward_data(&s, a, wide ? wide : b, NULL, y, workspace, pool);
  if (wide && attrs->transpose_a) take_diagonal(&s, e.groups, wide, y);
}

static void matmul_task(void *context, int64_t task) {
  const call *c = context;
  extents e = extents_of(c->attrs, &c->in[IN_A].shape, &c->in[IN_B].shape);
  int64_t tasks = tasks_of(e);
  char *workspace = (char *)c->workspace + (size_t)task * workspace_of_one(c->attrs, e);
  for (int64_t i = e.batch * task / tasks; i < e.batch * (task + 1) / tasks; i++)
    multiply(c, e, i, workspace, NULL);
}

static status matmul_cpu(const call *c) {
  extents e = extents_of(c->attrs, &c->in[IN_A].shape, &c->in[IN_B].shape);
  if (e.batch >= MANY)
    parallel_for(c->pool, tasks_of(e), matmul_task, (void *)c);
  else
    for (int64_t i = 0; i < e.batch; i++) multiply(c, e, i, c->workspace, c->pool);
  return OK;
}

const op op_matmul = {
    .name = "matmul",
    .family = "linear",
    .summary = "Matrix products over the last two axes.",
    .doc =
        "out[…, m, n] = Σ_k a[…, m, k] · b[…, k, n], for every index of the leading axes. Where "
        "one of a and b lacks a leading axis or has extent 1, its matrix takes part in all "
        "products along it. With `interleaved`, a is … M G K and out … M G N (with transpose_a, a "
        "is … K G M and b … K G N), for G products: as heads lie in tokens.",
    .torch = "torch.matmul(a.mT if transpose_a else a, b.mT if transpose_b else b)",
    .version = 2,
    .inputs = (const port[]){{"a", "… M K", DTYPE_F32, PORT_ROUNDED, "left factor"},
                             {"b", "… K N", DTYPE_F32, PORT_ROUNDED, "right factor"},
                             {0}},
    .outputs = (const port[]){{"out", "… M N", DTYPE_F32, 0, "product"}, {0}},
    .attrs = matmul_attr_list,
    .attrs_bytes = sizeof(matmul_attrs),
    .infer = matmul_infer,
    .grad = matmul_grad,
    .cost = matmul_cost,
    .workspace_bytes = matmul_workspace,
    .cpu = matmul_cpu,
    .cases =
        (const op_case[]){
            {"{}", "[b=1..3, m=1..20, k=1..33]; [b, k, n=1..17]", 0},
            {"{transpose_b: true}", "[b=1|2|9, h=1..2, m=1..20, k=1..33]; [b, h, n=1..17, k]", 0},
            {"{transpose_a: true}", "[k=1..33, m=1..20]; [k, n=1..17]", 0},
            {"{}", "[n=8..40, 5, 16]; [n, 16, 32]", 0},
            {"{}", "[m=1..20, k=1..33]; [b=1..3, k, n=1..17]", 0},
            {"{transpose_a: true}", "[2, b=1..9, k=1..9, 4]; [b, k, 5]", 0},
            {"{transpose_b: true}", "[2, 3, 1, m=1..9, 4]; [3, 2, 5, 4]", 0},
            {"{interleaved: true}", "[b=1..2, m=1..20, g=1..3, k=1..9]; [b, g, k, n=1..9]", 0},
            {"{interleaved: true, transpose_b: true}",
             "[b=1|9, m=1..20, g=1..3, k=1..9]; [b, g, n=1..9, k]", 0},
            {"{interleaved: true, transpose_a: true}", "[k=1..40, g=1..3, m=1..9]; [k, g, n=1..9]",
             0},
            {0}},
};
