/* attention, cross_attention and self_attention: softmax(scale · q kᵀ + bias + mask) v for every
 * head (Vaswani et al., arXiv 1706.03762). They differ in what lies side by side in one tensor:
 * nothing, keys and values, or all three, as one linear layer makes them, so nothing is copied.
 * One set of rules serves all: `operands` says how many tensors hold queries, keys and values. */
#include "ops/kernels/attention.h"

#include "ops/arithmetic/chunks.h"

#include "graph/precision.h"

#include <math.h>

typedef struct attention_attrs {
  int64_t heads;
  double scale;
  double dropout;
  int precision;
} attention_attrs;

static const attr attention_attr_list[] = {
    {"heads", ATTR_INT, offsetof(attention_attrs, heads), NULL, 1, 1024, NULL, 0,
     "number of heads; divides the channels"},
    {"scale", ATTR_FLOAT, offsetof(attention_attrs, scale), "0", 0, 1e6, NULL, 0,
     "factor of the products; 0: 1/√D"},
    {"dropout", ATTR_FLOAT, offsetof(attention_attrs, dropout), "0", 0, 0.99, NULL, ATTR_TRAINING,
     "share of the weights that is set to 0 while training; the others are divided by 1 − share"},
    PRECISION_ATTR(attention_attrs, precision),
    {0},
};

/* Inputs after the operands; the backward operators have three more after these. */
enum { TERM_BIAS, TERM_MASK, TERM_REGIONS, TERMS };
enum { BACK_OUT, BACK_LSE, BACK_DY, BACKS };

static int operands_of(int in_count) {
  return in_count - TERMS;
}

static int backward_operands_of(int in_count) {
  return in_count - TERMS - BACKS;
}

/* Tokens are N × T × C, or N × W × T × C where a sample is cut into windows. */
static int64_t tokens_of(const shape *s) {
  return s->dim[s->rank - 2];
}

static int64_t windows_of(const shape *s) {
  return s->rank == 4 ? s->dim[1] : 1;
}

/* How many of queries, keys and values lie side by side in the last operand. */
static int64_t packed_in_last(int operands) {
  return 4 - operands;
}

static attention_problem problem_of(const attention_attrs *attrs, const tensor *in, int operands) {
  const tensor *key = &in[operands > 1 ? 1 : 0], *last = &in[operands - 1];
  const shape *q = &in[0].shape;
  const tensor *terms = in + operands;
  attention_problem p = {.samples = q->dim[0],
                         .windows = windows_of(q),
                         .heads = attrs->heads,
                         .queries = tokens_of(q),
                         .keys = tokens_of(&key->shape),
                         .q_row = last_extent(&in[0]),
                         .k_row = last_extent(key),
                         .v_row = last_extent(last),
                         .q = in[0].data,
                         .bias = terms[TERM_BIAS].data,
                         .mask = terms[TERM_MASK].data,
                         .regions = terms[TERM_REGIONS].data,
                         .dropout = attrs->dropout,
                         .bf16 = attrs->precision == PRECISION_BF16};
  int64_t channels = p.v_row / packed_in_last(operands);
  p.dim = channels / p.heads;
  if (p.q) {
    p.k = operands == 1 ? p.q + channels : key->data;
    p.v = operands == 3 ? last->data : p.k + channels;
  }
  p.mask_windows = terms[TERM_MASK].shape.dim[0];
  p.region_windows = terms[TERM_REGIONS].shape.dim[0];
  p.scale = (float)(attrs->scale > 0 ? attrs->scale : 1.0 / sqrt((double)p.dim));
  return p;
}

/* Workspace is planned before there is memory: a bias is there when it has a shape. */
static attention_problem planned_problem(const attention_attrs *attrs, const tensor *in,
                                         int operands) {
  static const float there;
  attention_problem p = problem_of(attrs, in, operands);
  p.bias = in[operands + TERM_BIAS].shape.rank >= 0 ? &there : NULL;
  return p;
}

static attention_problem call_problem(const call *c, int operands) {
  attention_problem p = problem_of(c->attrs, c->in, operands);
  p.rng_keys = c->rng_keys;
  p.node_id = c->node_id;
  return p;
}

/* ---- rules ----------------------------------------------------------------------------------- */

static status check_operand(const char *name, const char *content, const shape *s) {
  char have[96];
  if (s->rank == 3 || s->rank == 4) return OK;
  return shape_error("%s must be %s (N × T × C, or N × W × T × C in windows), but is %s", name,
                     content, shape_format(have, s));
}

static status check_operands(const attention_attrs *attrs, const tensor *in, int operands,
                             int64_t *channels) {
  char a[96], b[96];
  if (operands == 1) {
    TRY(check_operand("qkv", "tokens with queries, keys and values side by side", &in[0].shape));
    if (last_extent(&in[0]) % 3)
      return shape_error("qkv must hold queries, keys and values side by side (3·C channels), but "
                         "is %s",
                         shape_format(a, &in[0].shape));
    *channels = last_extent(&in[0]) / 3;
  } else {
    TRY(check_operand("q", "tokens", &in[0].shape));
    *channels = last_extent(&in[0]);
    for (int i = 1; i < operands; i++) {
      const char *name = operands == 2 ? "kv" : i == 1 ? "k" : "v";
      TRY(check_operand(name, "tokens", &in[i].shape));
      const shape *q = &in[0].shape, *s = &in[i].shape;
      if (s->rank != q->rank || s->dim[0] != q->dim[0] || windows_of(s) != windows_of(q))
        return shape_error("q and %s must have the same samples and windows, but are %s and %s",
                           name, shape_format(a, q), shape_format(b, s));
      if (s->dim[s->rank - 1] != *channels * (operands == 2 ? 2 : 1))
        return shape_error(operands == 2
                               ? "kv must hold keys and values side by side, twice the channels of "
                                 "q, but q is %s and kv is %s"
                               : "queries, keys and values must have the same channels, but are %s "
                                 "and %s",
                           shape_format(a, q), shape_format(b, s));
      if (i == 2 && tokens_of(s) != tokens_of(&in[1].shape))
        return shape_error("every key needs a value, but k is %s and v is %s",
                           shape_format(a, &in[1].shape), shape_format(b, s));
    }
  }
  if (*channels % attrs->heads)
    return shape_error("%lld heads do not divide %lld channels", (long long)attrs->heads,
                       (long long)*channels);
  if (*channels / attrs->heads > ATTENTION_DIM_MAX)
    return shape_error("%lld channels on %lld heads make %lld channels a head; at most %d are "
                       "supported, so use more heads",
                       (long long)*channels, (long long)attrs->heads,
                       (long long)(*channels / attrs->heads), ATTENTION_DIM_MAX);
  return OK;
}

static bool is_table(const shape *s, int64_t first, int64_t second, int64_t third) {
  return s->rank == 3 && s->dim[0] == first && s->dim[1] == second && s->dim[2] == third;
}

static status check_terms(const attention_problem *p, const tensor *terms) {
  const shape *bias = &terms[TERM_BIAS].shape, *mask = &terms[TERM_MASK].shape;
  const shape *regions = &terms[TERM_REGIONS].shape;
  char have[96];
  if (bias->rank >= 0 && !is_table(bias, p->heads, p->queries, p->keys))
    return shape_error("bias must be heads × queries × keys, %lld×%lld×%lld, but is %s",
                       (long long)p->heads, (long long)p->queries, (long long)p->keys,
                       shape_format(have, bias));
  if (mask->rank >= 0 && !is_table(mask, 1, p->queries, p->keys) &&
      !is_table(mask, p->windows, p->queries, p->keys))
    return shape_error("mask must be windows × queries × keys, %lld×%lld×%lld, or the same for all "
                       "windows, 1×%lld×%lld, but is %s",
                       (long long)p->windows, (long long)p->queries, (long long)p->keys,
                       (long long)p->queries, (long long)p->keys, shape_format(have, mask));
  if (regions->rank < 0) return OK;
  if (p->queries != p->keys)
    return shape_error("regions number the tokens of one sequence, but there are %lld queries and "
                       "%lld keys",
                       (long long)p->queries, (long long)p->keys);
  if (regions->rank != 2 || regions->dim[1] != p->keys ||
      (regions->dim[0] != 1 && regions->dim[0] != p->windows))
    return shape_error("regions must be windows × tokens, %lld×%lld, but is %s",
                       (long long)p->windows, (long long)p->keys, shape_format(have, regions));
  return OK;
}

static status attention_infer(infer *rule) {
  int operands = operands_of(rule->in_count);
  const attention_attrs *attrs = rule->attrs;
  int64_t channels = 0;
  TRY(check_operands(attrs, rule->in, operands, &channels));
  attention_problem p = problem_of(attrs, rule->in, operands);
  TRY(check_terms(&p, rule->in + operands));
  rule->out[0].shape = rule->in[0].shape;
  rule->out[0].shape.dim[rule->in[0].shape.rank - 1] = channels;
  rule->out[1].shape = SHAPE(p.samples * p.windows, p.heads, p.queries);
  return OK;
}

static status attention_grad(grad *rule) {
  static const char *const names[] = {"self_attention_backward", "cross_attention_backward",
                                      "attention_backward"};
  int operands = operands_of(rule->in_count);
  if (rule->in[operands + TERM_MASK] != VALUE_NONE && rule->wanted[operands + TERM_MASK])
    return shape_error("the mask is not differentiated; give what is to be learned as bias");
  value_id in[3 + TERMS + BACKS], out[4];
  for (int i = 0; i < rule->in_count; i++) in[i] = rule->in[i];
  value_id *backs = in + rule->in_count;
  backs[BACK_OUT] = rule->out[0];
  backs[BACK_LSE] = rule->out[1];
  backs[BACK_DY] = rule->dy[0];
  TRY(build_node(rule->b, names[operands - 1], rule->attrs, in, rule->in_count + BACKS, out));
  for (int i = 0; i < operands; i++) rule->dx[i] = out[i];
  if (rule->in[operands + TERM_BIAS] != VALUE_NONE) rule->dx[operands + TERM_BIAS] = out[operands];
  return OK;
}

static cost cost_of(const attention_problem *p, double products) {
  double scores = (double)(p->samples * p->windows * p->heads) * (double)p->queries;
  return (cost){.flops = scores * (double)p->keys * (2 * products * (double)p->dim + 20.0)};
}

static cost attention_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)out;
  attention_problem p = problem_of(attrs, in, operands_of(in_count));
  return cost_of(&p, 2);
}

static size_t attention_workspace(const void *attrs, const tensor *in, int in_count,
                                  const tensor *out, int threads) {
  (void)out, (void)threads;
  attention_problem p = planned_problem(attrs, in, operands_of(in_count));
  return attention_forward_workspace(&p);
}

static status attention_cpu(const call *c) {
  attention_problem p = call_problem(c, operands_of(c->in_count));
  attention_forward(&p, c->out[0].data, c->out[1].data, c->workspace, c->pool);
  return OK;
}

static status attention_backward_infer(infer *rule) {
  int operands = backward_operands_of(rule->in_count);
  for (int i = 0; i < operands; i++) rule->out[i].shape = rule->in[i].shape;
  const shape *bias = &rule->in[operands + TERM_BIAS].shape;
  rule->out[operands].shape = bias->rank >= 0 ? *bias : SHAPE(1);
  return OK;
}

static cost attention_backward_cost(const void *attrs, const tensor *in, int in_count,
                                    const tensor *out) {
  (void)out;
  attention_problem p = problem_of(attrs, in, backward_operands_of(in_count));
  return cost_of(&p, 5);
}

static size_t attention_backward_memory(const void *attrs, const tensor *in, int in_count,
                                        const tensor *out, int threads) {
  (void)out, (void)threads;
  attention_problem p = planned_problem(attrs, in, backward_operands_of(in_count));
  return attention_backward_workspace(&p);
}

static status attention_backward_cpu(const call *c) {
  int operands = backward_operands_of(c->in_count);
  attention_problem p = call_problem(c, operands);
  const tensor *backs = c->in + operands + TERMS;
  int64_t channels = p.heads * p.dim;
  attention_gradients d = {.q = c->out[0].data, .bias = c->out[operands].data};
  d.k = operands == 1 ? d.q + channels : c->out[1].data;
  d.v = operands == 3 ? c->out[2].data : d.k + channels;
  attention_backward(&p, backs[BACK_OUT].data, backs[BACK_LSE].data, backs[BACK_DY].data, &d,
                     c->workspace, c->pool);
  return OK;
}

/* ---- what may be stored as bf16 ---------------------------------------------------------------- */

/* Queries are scaled before they are rounded. A power of two changes nothing of how they are. */
static bool reads_queries_exactly(const attention_attrs *attrs, const tensor *in, int operands,
                                  int input) {
  int exponent;
  return input == 0 && frexpf(problem_of(attrs, in, operands).scale, &exponent) != 0.5f;
}

static bool attention_reads_exactly(const void *attrs, const tensor *in, int in_count, int input) {
  return reads_queries_exactly(attrs, in, operands_of(in_count), input);
}

static bool attention_backward_reads_exactly(const void *attrs, const tensor *in, int in_count,
                                             int input) {
  return reads_queries_exactly(attrs, in, backward_operands_of(in_count), input);
}

/* ---- declarations ---------------------------------------------------------------------------- */

#define TERM_PORTS                                                                                 \
  {"bias", "H Tq Tk", DTYPE_F32, PORT_OPTIONAL, "added to the scores of each head"},               \
      {"mask", "W|1 Tq Tk", DTYPE_F32, PORT_OPTIONAL,                                              \
       "added to the scores of every head; a constant, not differentiated"},                       \
  {                                                                                                \
    "regions", "W|1 T", DTYPE_I32, PORT_OPTIONAL,                                                  \
        "numbers of the tokens' regions: −100 is added between tokens of different ones"         \
  }

#define BACK_PORTS                                                                                 \
  {"out", "N W T C", DTYPE_F32, 0, "result"},                                                      \
      {"lse", "N·W H T", DTYPE_F32, 0, "saved log Σ e^score"}, {                                   \
    "dy", "N W T C", DTYPE_F32, 0, "gradient of the result"                                        \
  }

#define DBIAS_PORT                                                                                 \
  { "dbias", "H Tq Tk", DTYPE_F32, 0, "gradient of bias" }

static const port attention_outputs[] = {
    {"out", "N W Tq C", DTYPE_F32, PORT_STORABLE, "attended values"},
    {"lse", "N·W H Tq", DTYPE_F32, PORT_SAVED, "log Σ e^score"},
    {0}};

#define ATTENTION_DOC                                                                              \
  "out = softmax(scale · q kᵀ + bias + mask) v for each head, D = C / heads (Vaswani et al., "  \
  "arXiv 1706.03762). Tokens are N × T × C, or N × W × T × C where every window attends to "  \
  "itself. Inputs that are left out in front of one that is given are written ~. Memory grows "    \
  "with T, not T²: scores are made in blocks and made again for the gradient (Dao et al., arXiv " \
  "2205.14135)."

#define ATTENTION_RULES                                                                            \
  .attrs = attention_attr_list, .attrs_bytes = sizeof(attention_attrs), .infer = attention_infer,  \
  .grad = attention_grad, .cost = attention_cost, .workspace_bytes = attention_workspace,          \
  .reads_exactly = attention_reads_exactly, .cpu = attention_cpu

#define ATTENTION_BACKWARD_RULES                                                                   \
  .attrs = attention_attr_list, .attrs_bytes = sizeof(attention_attrs),                            \
  .infer = attention_backward_infer, .cost = attention_backward_cost,                              \
  .workspace_bytes = attention_backward_memory, .cpu = attention_backward_cpu,                     \
  .reads_exactly = attention_backward_reads_exactly

const op op_attention = {
    .name = "attention",
    .family = "attention",
    .summary = "Scaled dot-product attention of queries to keys and values.",
    .doc = ATTENTION_DOC " There may be more or fewer queries than keys.",
    .torch = "(lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, bias + "
             "mask, dropout, scale=scale).transpose(-3, -2).flatten(-2))(*(x.unflatten(-1, (heads, "
             "-1)).transpose(-3, -2) for x in (q, k, v)))",
    .version = 1,
    .traits = OP_RANDOM,
    .inputs = (const port[]){{"q", "N W Tq C", DTYPE_F32, PORT_ROUNDED, "queries"},
                             {"k", "N W Tk C", DTYPE_F32, PORT_ROUNDED, "keys"},
                             {"v", "N W Tk C", DTYPE_F32, PORT_ROUNDED, "values"},
                             TERM_PORTS,
                             {0}},
    .outputs = attention_outputs,
    ATTENTION_RULES,
    .cases =
        (const op_case[]){
            {"{heads: 2}", "[n=1..2, 3..9, 12]; [n, t=2..70, 12]; [n, t, 12]", 0},
            {"{heads: 1, scale: 0.7}",
             "[n=1..2, w=1..3, q=1..40, 17]; [n, w, t=2..9, 17]; [n, w, t, 17]; "
             "[1, q, t]",
             0},
            {"{heads: 1}", "[1, q=66..70, 100]; [1, t=129..133, 100]; [1, t, 100]; [1, q, t]", 0},
            {"{heads: 3, scale: 0.25}", "[1, 2..9, 24]; [1, t=2..9, 24]; [1, t, 24]", 0},
            {"{heads: 2}", "[2, 600..700, 12]; [2, t=3..9, 12]; [2, t, 12]", 0},
            {0}},
};

const op op_cross_attention = {
    .name = "cross_attention",
    .family = "attention",
    .summary = "Scaled dot-product attention of queries to the tokens of another tensor.",
    .doc = ATTENTION_DOC " kv holds keys and values side by side along the channels, each with the "
                         "heads in order, as one linear layer makes them.",
    .torch = "(lambda q, kv: torch.nn.functional.scaled_dot_product_attention(q, *kv, bias + mask, "
             "dropout, scale=scale).transpose(-3, -2).flatten(-2))(q.unflatten(-1, (heads, "
             "-1)).transpose(-3, -2), kv.unflatten(-1, (2, heads, -1)).movedim(-3, "
             "0).transpose(-3, -2))",
    .version = 1,
    .traits = OP_RANDOM,
    .inputs = (const port[]){{"q", "N W Tq C", DTYPE_F32, PORT_ROUNDED, "queries"},
                             {"kv", "N W Tk 2·C", DTYPE_F32, PORT_ROUNDED, "keys and values"},
                             TERM_PORTS,
                             {0}},
    .outputs = attention_outputs,
    ATTENTION_RULES,
    .cases = (const op_case[]){{"{heads: 2}", "[n=1..2, 3..9, 12]; [n, 2..70, 24]", 0},
                               {"{heads: 2}", "[1, 2..9, 32]; [1, 2..9, 64]", 0},
                               {"{heads: 2, dropout: 0.3}",
                                "[n=1..2, w=1..3, t=33|40, 10]; [n, w, t, 20]; [2, t, t]; -; "
                                "[w, t] in 0..2",
                                0},
                               {0}},
};

const op op_self_attention = {
    .name = "self_attention",
    .family = "attention",
    .summary = "Scaled dot-product attention of every token to every token.",
    .doc =
        ATTENTION_DOC " qkv holds queries, keys and values side by side along the channels, each "
                      "with the heads in order, as one linear layer makes them.",
    .torch = "(lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, bias + "
             "mask, dropout, scale=scale).transpose(-3, -2).flatten(-2))(*qkv.unflatten(-1, (3, "
             "heads, -1)).movedim(-3, 0).transpose(-3, -2))",
    .version = 2,
    .traits = OP_RANDOM,
    .inputs =
        (const port[]){{"qkv", "N W T 3·C", DTYPE_F32, PORT_ROUNDED, "queries, keys and values"},
                       TERM_PORTS,
                       {0}},
    .outputs = attention_outputs,
    ATTENTION_RULES,
    .cases =
        (const op_case[]){
            {"{heads: 2}", "[1..2, 3..9, 12|24|36]", 0},
            {"{heads: 1}", "[1, 70, 51]", 0},
            {"{heads: 3}", "[2, 33, 144]", 0},
            {"{heads: 3}", "[n=1..2, w=1..40, t=2..9, 36]; [3, t, t]", 0},
            {"{heads: 1}", "[2, w=2|3, t=5|70, 24]; [1, t, t]; -; [w, t] in 0..2", 0},
            {"{heads: 2, dropout: 0.4}", "[n=1..2, 3, t=3..70, 24]; [2, t, t]", 0},
            {"{heads: 2, dropout: 0.2}", "[1, w=2, t=131, 192]; [2, t, t]; -; [w, t] in 0..2", 0},
            {0}},
};

const op op_attention_backward = {
    .name = "attention_backward",
    .family = "attention",
    .summary = "Gradient of attention.",
    .version = 2,
    .traits = OP_INTERNAL | OP_RANDOM,
    .inputs = (const port[]){{"q", "N W Tq C", DTYPE_F32, PORT_ROUNDED, "queries"},
                             {"k", "N W Tk C", DTYPE_F32, PORT_ROUNDED, "keys"},
                             {"v", "N W Tk C", DTYPE_F32, PORT_ROUNDED, "values"},
                             TERM_PORTS,
                             BACK_PORTS,
                             {0}},
    .outputs = (const port[]){{"dq", "N W Tq C", DTYPE_F32, PORT_STORABLE, "gradient of q"},
                              {"dk", "N W Tk C", DTYPE_F32, PORT_STORABLE, "gradient of k"},
                              {"dv", "N W Tk C", DTYPE_F32, PORT_STORABLE, "gradient of v"},
                              DBIAS_PORT,
                              {0}},
    ATTENTION_BACKWARD_RULES,
};

const op op_cross_attention_backward = {
    .name = "cross_attention_backward",
    .family = "attention",
    .summary = "Gradient of cross_attention.",
    .version = 2,
    .traits = OP_INTERNAL | OP_RANDOM,
    .inputs = (const port[]){{"q", "N W Tq C", DTYPE_F32, PORT_ROUNDED, "queries"},
                             {"kv", "N W Tk 2·C", DTYPE_F32, PORT_ROUNDED, "keys and values"},
                             TERM_PORTS,
                             BACK_PORTS,
                             {0}},
    .outputs = (const port[]){{"dq", "N W Tq C", DTYPE_F32, PORT_STORABLE, "gradient of q"},
                              {"dkv", "N W Tk 2·C", DTYPE_F32, PORT_STORABLE, "gradient of kv"},
                              DBIAS_PORT,
                              {0}},
    ATTENTION_BACKWARD_RULES,
};

const op op_self_attention_backward = {
    .name = "self_attention_backward",
    .family = "attention",
    .summary = "Gradient of self_attention.",
    .version = 2,
    .traits = OP_INTERNAL | OP_RANDOM,
    .inputs =
        (const port[]){{"qkv", "N W T 3·C", DTYPE_F32, PORT_ROUNDED, "queries, keys and values"},
                       TERM_PORTS,
                       BACK_PORTS,
                       {0}},
    .outputs = (const port[]){{"dqkv", "N W T 3·C", DTYPE_F32, PORT_STORABLE, "gradient of qkv"},
                              DBIAS_PORT,
                              {0}},
    ATTENTION_BACKWARD_RULES,
};
