/* concat: several tensors joined along one axis. Its gradient cuts them apart again. */
#include "ops/shape/axis.h"

typedef struct concat_attrs {
  int axis;
} concat_attrs;

static status concat_infer(infer *rule) {
  shape y = rule->in[0].shape;
  int axis;
  TRY(axis_of(((const concat_attrs *)rule->attrs)->axis, &y, &axis));
  for (int i = 1; i < rule->in_count; i++) {
    shape x = rule->in[i].shape;
    bool fits = x.rank == y.rank;
    for (int d = 0; fits && d < y.rank; d++) fits = d == axis || x.dim[d] == y.dim[d];
    if (!fits) {
      char first[96], other[96];
      bool other_size = x.rank == 5 && y.rank == 5 && axis == 4 && x.dim[0] == y.dim[0];
      return shape_error("all but the %s must agree, but input 1 is %s and input %d is %s%s",
                         axis == y.rank - 1 ? "channels" : "joined axis",
                         shape_format(first, &rule->in[0].shape), i + 1, shape_format(other, &x),
                         other_size ? "; a crop that the strides of a network do not divide comes "
                                      "back in another size"
                                    : "");
    }
    y.dim[axis] += x.dim[axis];
  }
  rule->out[0].shape = y;
  return OK;
}

static status concat_grad(grad *rule) {
  slice_attrs part = {.axis = ((const concat_attrs *)rule->attrs)->axis};
  for (int i = 0; i < rule->in_count; i++, part.start += part.size) {
    const shape *x = &value_type(rule->b, rule->in[i])->shape;
    int axis;
    TRY(axis_of(part.axis, x, &axis));
    part.size = x->dim[axis];
    if (rule->wanted[i]) TRY(build_node(rule->b, "slice", &part, &rule->dy[0], 1, &rule->dx[i]));
  }
  return OK;
}

static cost concat_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

typedef struct concat_work {
  const call *c;
  int axis;
  int64_t rows, width; /* of the result */
} concat_work;

static void concat_task(void *context, int64_t task) {
  const concat_work *w = context;
  tile part = tile_of(w->rows, w->width, task);
  int64_t begin = 0;
  for (int i = 0; i < w->c->in_count; i++) {
    const tensor *in = &w->c->in[i];
    int64_t size = in->shape.dim[w->axis] * axis_stride(&in->shape, w->axis);
    span mine = span_within(part.columns, begin, begin + size);
    float *y = (float *)w->c->out[0].data + part.rows.first * w->width + mine.first;
    const float *x = (const float *)in->data + part.rows.first * size + mine.first - begin;
    for (int64_t r = 0; r < part.rows.count && mine.count; r++)
      copy_row(y + r * w->width, x + r * size, mine.count);
    begin += size;
  }
}

static status concat_cpu(const call *c) {
  const shape *y = &c->out[0].shape;
  concat_work w = {.c = c};
  TRY(axis_of(((const concat_attrs *)c->attrs)->axis, y, &w.axis));
  w.rows = rows_before(y, w.axis);
  w.width = y->dim[w.axis] * axis_stride(y, w.axis);
  parallel_for(c->pool, tile_count(w.rows, w.width), concat_task, &w);
  return OK;
}

const op op_concat = {
    .name = "concat",
    .family = "shape",
    .summary = "Several feature maps joined along one axis, by default their channels.",
    .doc = "Joins the inputs along `axis`, in the order given; all other extents agree. `slice` "
           "takes them apart.",
    .torch = "torch.cat(x, dim=axis)",
    .version = 1,
    .inputs =
        (const port[]){
            {"x", "… C", DTYPE_F32, PORT_VARIADIC | PORT_CARRIED, "feature maps or tokens"}, {0}},
    .outputs = (const port[]){{"out", "… ΣC", DTYPE_F32, PORT_STORABLE, "side by side"}, {0}},
    .attrs = (const attr[]){{"axis", ATTR_CHOICE, offsetof(concat_attrs, axis), "channel", 0, 0,
                             axis_choices, 0, AXIS_DOC},
                            {0}},
    .attrs_bytes = sizeof(concat_attrs),
    .infer = concat_infer,
    .grad = concat_grad,
    .cost = concat_cost,
    .cpu = concat_cpu,
    .cases = (const op_case[]){{"{}", "[n=1..2, x=1..4, 3, 2, 1..20]; [n, x, 3, 2, 1..17]", 0},
                               {"{}", "[2, t=1..9, 3]; [2, t, 1]; [2, t, 4]", 0},
                               {"{}", "[2, 3, 5]", 0},
                               {"{}", "[2, 3, 8]; [2, 3, 12]", 0},
                               {"{axis: x|1}", "[2, 1..3, 3, 2, c=1..5]; [2, 1..3, 3, 2, c]", 0},
                               {"{axis: z}", "[1, 2, 3, 1..4, 3]; [1, 2, 3, 1..4, 3]", 0},
                               {"{axis: token}", "[2, 1..9, c=1..20]; [2, 1..9, c]", 0},
                               {"{axis: batch}", "[1..2, 3, 5]; [1..2, 3, 5]", 0},
                               {0}},
};
