/* relative_position_bias: a learned number for every head and every distance between two tokens of
 * a window, laid out as a bias of attention (Liu et al., arXiv 2103.14030). */
#include "ops/arithmetic/chunks.h"

#include "graph/graph.h"

typedef struct position_attrs {
  int64_t window[3];
  int64_t heads;
  int64_t size[3];
  int64_t stride_x, stride_y;
} position_attrs;

static const attr position_attr_list[] = {
    {"window", ATTR_INT3, offsetof(position_attrs, window), NULL, 1, 1024, NULL, 0,
     "extent of a window in voxels along x, y and z"},
    {"heads", ATTR_INT, offsetof(position_attrs, heads), NULL, 1, 1024, NULL, 0, "number of heads"},
    {"size", ATTR_INT3, offsetof(position_attrs, size), "0", 0, 100000, NULL, 0,
     "extent of the feature map; where it is smaller than the window, so are its windows; 0: as "
     "large as the window"},
    {"stride_x", ATTR_INT, offsetof(position_attrs, stride_x), "0", 0, 1e9, NULL, 0,
     "rows of the table from one distance along x to the next; 0: (2Y−1)·(2Z−1), so that every "
     "distance has a row of its own"},
    {"stride_y", ATTR_INT, offsetof(position_attrs, stride_y), "0", 0, 1e9, NULL, 0,
     "the same along y; 0: 2Z−1"},
    {0},
};

/* Tokens of the windows that there are. */
static int64_t token_count(const position_attrs *attrs) {
  int64_t tokens = 1;
  for (int a = 0; a < 3; a++) {
    bool smaller = attrs->size[a] > 0 && attrs->size[a] < attrs->window[a];
    tokens *= smaller ? attrs->size[a] : attrs->window[a];
  }
  return tokens;
}

static int64_t distance_count(const position_attrs *attrs) {
  return (2 * attrs->window[0] - 1) * (2 * attrs->window[1] - 1) * (2 * attrs->window[2] - 1);
}

/* The row of the distance whose components, from 0 on, are x, y and z. */
static int64_t distance_row(const position_attrs *attrs, int64_t x, int64_t y, int64_t z) {
  const int64_t *w = attrs->window;
  int64_t stride_x = attrs->stride_x ? attrs->stride_x : (2 * w[1] - 1) * (2 * w[2] - 1);
  int64_t stride_y = attrs->stride_y ? attrs->stride_y : 2 * w[2] - 1;
  return x * stride_x + y * stride_y + z;
}

static status position_infer(infer *rule) {
  const position_attrs *attrs = rule->attrs;
  const shape *table = &rule->in[0].shape;
  char have[96];
  if (table->rank != 2 || table->dim[0] != distance_count(attrs) || table->dim[1] != attrs->heads)
    return shape_error("the table must be distances × heads, %lld×%lld, but is %s",
                       (long long)distance_count(attrs), (long long)attrs->heads,
                       shape_format(have, table));
  const int64_t *w = attrs->window;
  int64_t last = distance_row(attrs, 2 * w[0] - 2, 2 * w[1] - 2, 2 * w[2] - 2);
  if (last >= distance_count(attrs))
    return shape_error("with these strides the largest distance has row %lld, but the table has "
                       "%lld rows",
                       (long long)last, (long long)distance_count(attrs));
  int64_t tokens = token_count(attrs);
  rule->out[0].shape = SHAPE(attrs->heads, tokens, tokens);
  return OK;
}

static status position_params(const void *attrs, const tensor *in, int in_count, param_spec *out) {
  (void)in, (void)in_count;
  out[0] = (param_spec){SHAPE(distance_count(attrs), ((const position_attrs *)attrs)->heads),
                        INIT_TRUNCATED_NORMAL, 0.02};
  return OK;
}

static status position_grad(grad *rule) {
  return build_node(rule->b, "relative_position_bias_backward", rule->attrs, rule->dy, 1, rule->dx);
}

static cost one_flop(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)in, (void)in_count, (void)out;
  int64_t tokens = token_count(attrs);
  return (cost){.flops = (double)((const position_attrs *)attrs)->heads * (double)tokens *
                         (double)tokens};
}

static size_t position_workspace(const void *attrs, const tensor *in, int in_count,
                                 const tensor *out, int threads) {
  (void)in, (void)in_count, (void)out, (void)threads;
  return (size_t)(distance_count(attrs) * ((const position_attrs *)attrs)->heads) * sizeof(float);
}

/* A head's column of the table is kept backwards, so that keys which follow one another along z
 * find their numbers in a row, too: token i at (x, y, z) and j at (x', y', z') have the distance
 * (x − x', y − y', z − z'), which falls as z' grows. */
static int64_t row_start(const position_attrs *attrs, const int64_t query[3], int64_t key_x,
                         int64_t key_y) {
  const int64_t *w = attrs->window;
  int64_t dx = query[0] - key_x + w[0] - 1, dy = query[1] - key_y + w[1] - 1;
  return distance_count(attrs) - 1 - distance_row(attrs, dx, dy, query[2] + w[2] - 1);
}

/* Calls for each row of keys along z: `column` of the table and `bias` of the pairs; adds to the
 * column when `gather`, otherwise copies from it. */
static void walk_pairs(const position_attrs *attrs, float *column, float *bias, bool gather) {
  const int64_t *w = attrs->window;
  int64_t tokens = token_count(attrs), lines = divide_up(tokens, w[2]);
  for (int64_t i = 0; i < tokens; i++) {
    int64_t query[3] = {i / (w[1] * w[2]), i / w[2] % w[1], i % w[2]};
    for (int64_t line = 0; line < lines; line++) {
      span keys = piece_of(tokens, w[2], line);
      float *entry = column + row_start(attrs, query, line / w[1], line % w[1]);
      float *pair = bias + i * tokens + keys.first;
      if (gather)
        for (int64_t k = 0; k < keys.count; k++) entry[k] += pair[k];
      else
        for (int64_t k = 0; k < keys.count; k++) pair[k] = entry[k];
    }
  }
}

/* One head. */
static void position_task(void *context, int64_t head) {
  const call *c = context;
  const position_attrs *attrs = c->attrs;
  int64_t distances = distance_count(attrs), tokens = token_count(attrs);
  float *column = (float *)c->workspace + head * distances;
  const float *table = (const float *)c->in[0].data + head;
  for (int64_t d = 0; d < distances; d++) column[distances - 1 - d] = table[d * attrs->heads];
  walk_pairs(attrs, column, (float *)c->out[0].data + head * tokens * tokens, false);
}

static status position_cpu(const call *c) {
  parallel_for(c->pool, ((const position_attrs *)c->attrs)->heads, position_task, (void *)c);
  return OK;
}

static status position_backward_infer(infer *rule) {
  const position_attrs *attrs = rule->attrs;
  rule->out[0].shape = SHAPE(distance_count(attrs), attrs->heads);
  return OK;
}

static void position_backward_task(void *context, int64_t head) {
  const call *c = context;
  const position_attrs *attrs = c->attrs;
  int64_t distances = distance_count(attrs), tokens = token_count(attrs);
  float *column = (float *)c->workspace + head * distances;
  float *table = (float *)c->out[0].data + head;
  for (int64_t d = 0; d < distances; d++) column[d] = 0;
  walk_pairs(attrs, column, (float *)c->in[0].data + head * tokens * tokens, true);
  for (int64_t d = 0; d < distances; d++) table[d * attrs->heads] = column[distances - 1 - d];
}

static status position_backward_cpu(const call *c) {
  parallel_for(c->pool, ((const position_attrs *)c->attrs)->heads, position_backward_task,
               (void *)c);
  return OK;
}

const op op_relative_position_bias = {
    .name = "relative_position_bias",
    .family = "attention",
    .summary = "A learned bias for every distance between two tokens of a window.",
    .doc =
        "out[h, i, j] is the table's entry of head h for the distance between the tokens i and "
        "j, which are numbered x, y, z with z fastest (Liu et al., arXiv 2103.14030). Where a "
        "feature map is smaller than the window, MONAI numbers its tokens like the first ones of "
        "the whole window; `size` says that it is. The row of a distance (x, y, z), counted from "
        "0, is x · stride_x + y · stride_y + z; nnFormer's 3Y−1 and 2Y−1 let some distances share "
        "a row. The table starts as a normal distribution with standard deviation 0.02, cut at "
        "±2. Takes no input.",
    .torch = "relative_position_bias_table[relative_position_index[:T, :T]].permute(2, 0, 1)",
    .version = 1,
    .inputs = (const port[]){{"relative_position_bias_table", "distances H", DTYPE_F32, PORT_PARAM,
                              "(2X−1)·(2Y−1)·(2Z−1) rows, one number for each head"},
                             {0}},
    .outputs = (const port[]){{"out", "H T T", DTYPE_F32, 0, "bias of attention"}, {0}},
    .attrs = position_attr_list,
    .attrs_bytes = sizeof(position_attrs),
    .infer = position_infer,
    .params = position_params,
    .grad = position_grad,
    .cost = one_flop,
    .workspace_bytes = position_workspace,
    .cpu = position_cpu,
    .cases = (const op_case[]){{"{window: 2, heads: 3}", "", 0},
                               {"{window: [1..3, 1..3, 1..4], heads: 1..4}", "", 0},
                               {"{window: [3, 2, 4], heads: 2, size: [1..5, 1..3, 1..5]}", "", 0},
                               {"{window: 3, heads: 2, stride_x: 8, stride_y: 5}", "", 0},
                               {0}},
};

const op op_relative_position_bias_backward = {
    .name = "relative_position_bias_backward",
    .family = "attention",
    .summary = "Gradient of relative_position_bias: pairs of one distance added up, in order.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"dy", "H T T", DTYPE_F32, 0, "gradient of the bias"}, {0}},
    .outputs =
        (const port[]){{"dtable", "distances H", DTYPE_F32, 0, "gradient of the table"}, {0}},
    .attrs = position_attr_list,
    .attrs_bytes = sizeof(position_attrs),
    .infer = position_backward_infer,
    .cost = one_flop,
    .workspace_bytes = position_workspace,
    .cpu = position_backward_cpu,
};
