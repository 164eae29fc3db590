/* roll: a cyclic shift of a volume, as between the windows of Swin transformers (Liu et al., ICCV
 * 2021). */
#include "ops/arithmetic/chunks.h"

#include "graph/graph.h"

typedef struct roll_attrs {
  int64_t shift[3];
} roll_attrs;

static status roll_infer(infer *rule) {
  const shape *x = &rule->in[0].shape;
  char have[96];
  if (x->rank != 5)
    return shape_error("x must be a volume (N × X × Y × Z × C), but is %s", shape_format(have, x));
  rule->out[0].shape = *x;
  return OK;
}

static status roll_grad(grad *rule) {
  const roll_attrs *attrs = rule->attrs;
  roll_attrs back = {{-attrs->shift[0], -attrs->shift[1], -attrs->shift[2]}};
  return build_node(rule->b, "roll", &back, rule->dy, 1, rule->dx);
}

static cost roll_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

/* The position in x of position 0 of the result. */
static int64_t origin(const call *c, int axis) {
  int64_t extent = c->in[0].shape.dim[1 + axis];
  int64_t shift = ((const roll_attrs *)c->attrs)->shift[axis] % extent;
  return (shift > 0 ? extent - shift : -shift);
}

/* A task is some rows along z; each is two runs of x. */
static void roll_task(void *context, int64_t task) {
  const call *c = context;
  const int64_t *dim = c->in[0].shape.dim;
  int64_t width = dim[3] * dim[4], from[3];
  for (int a = 0; a < 3; a++) from[a] = origin(c, a);
  int64_t head = (dim[3] - from[2]) * dim[4];
  span part = piece_of(dim[0] * dim[1] * dim[2], rows_per_task(width), task);
  for (int64_t r = part.first; r < part.first + part.count; r++) {
    int64_t n = r / (dim[1] * dim[2]);
    int64_t x = (r / dim[2] % dim[1] + from[0]) % dim[1], y = (r % dim[2] + from[1]) % dim[2];
    const float *row = (const float *)c->in[0].data + ((n * dim[1] + x) * dim[2] + y) * width;
    float *to = (float *)c->out[0].data + r * width;
    copy_row(to, row + width - head, head);
    copy_row(to + head, row, width - head);
  }
}

static status roll_cpu(const call *c) {
  const int64_t *dim = c->in[0].shape.dim;
  int64_t rows = dim[0] * dim[1] * dim[2];
  parallel_for(c->pool, divide_up(rows, rows_per_task(dim[3] * dim[4])), roll_task, (void *)c);
  return OK;
}

const op op_roll = {
    .name = "roll",
    .family = "shape",
    .summary = "Cyclic shift along x, y and z.",
    .doc = "out[n, i, c] = x[n, (i − shift) mod extent, c]: what leaves the volume on one side "
           "comes in on the other.",
    .torch = "torch.roll(x, shift, dims=(1, 2, 3))",
    .version = 1,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, PORT_CARRIED, "feature map"}, {0}},
    .outputs =
        (const port[]){{"out", "N X Y Z C", DTYPE_F32, PORT_STORABLE, "the same, shifted"}, {0}},
    .attrs = (const attr[]){{"shift", ATTR_INT3, offsetof(roll_attrs, shift), NULL, -1e6, 1e6, NULL,
                             0, "voxels towards larger x, y, z; negative: towards smaller"},
                            {0}},
    .attrs_bytes = sizeof(roll_attrs),
    .infer = roll_infer,
    .grad = roll_grad,
    .cost = roll_cost,
    .cpu = roll_cpu,
    .cases =
        (const op_case[]){{"{shift: [-2..3, -1..1, -7..7]}", "[1..2, 1..4, 1..4, 1..6, 1..5]", 0},
                          {"{shift: 1}", "[1, 3, 2, 4, 17]", 0},
                          {"{shift: [1, -1, 2]}", "[2, 3, 2, 4, 8]", 0},
                          {0}},
};
