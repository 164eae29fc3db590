/* linear_tokens: a linear map across tokens, the same for every channel. It mixes the tokens of a
 * perceptron mixer (Tolstikhin et al., arXiv 2105.01601) and shortens the keys and values of
 * attention to a fixed number (Wang et al., "Linformer", arXiv 2006.04768). */
#include "ops/kernels/broadcast.h"
#include "ops/kernels/weight_init.h"
#include "ops/shape/view.h"

typedef struct linear_tokens_attrs {
  int64_t tokens;
  bool bias;
  weight_init_attrs init;
} linear_tokens_attrs;

static status linear_tokens_params(const void *attributes, const tensor *in, int in_count,
                                   param_spec *out) {
  (void)in_count;
  const linear_tokens_attrs *attrs = attributes;
  char have[96];
  if (in[0].shape.rank != 3)
    return shape_error("x must be tokens (N × T × C), but is %s", shape_format(have, &in[0].shape));
  int64_t given = in[0].shape.dim[1];
  weight_init(&attrs->init, SHAPE(attrs->tokens, given),
              attrs->bias ? SHAPE(attrs->tokens) : (shape){.rank = -1}, out);
  return OK;
}

static status linear_tokens_lower(lower *rule) {
  const linear_tokens_attrs *attrs = rule->attrs;
  value_id mixed, column;
  TRY(build_node(rule->b, "matmul", NULL, (value_id[]){rule->in[1], rule->in[0]}, 2, &mixed));
  rule->out[0] = mixed;
  if (rule->in[2] == VALUE_NONE) return OK;
  TRY(build_view(rule->b, rule->in[2], SHAPE(attrs->tokens, 1), &column));
  return build_node(rule->b, "add", &(broadcast_attrs){true}, (value_id[]){mixed, column}, 2,
                    &rule->out[0]);
}

const op op_linear_tokens = {
    .name = "linear_tokens",
    .family = "linear",
    .summary = "A learned linear map across tokens, the same for every channel.",
    .doc = "out[n, p, c] = bias[p] + Σ_t weight[p, t] · x[n, t, c]: a linear layer over the token "
           "axis (Tolstikhin et al., arXiv 2105.01601; Wang et al., arXiv 2006.04768). The number "
           "of tokens that come in is fixed by the weight.",
    .torch = "torch.nn.functional.linear(x.mT, weight, bias).mT",
    .version = 1,
    .inputs = (const port[]){{"x", "N T C", DTYPE_F32, 0, "tokens"},
                             {"weight", "tokens T", DTYPE_F32, PORT_PARAM, "the map"},
                             {"bias", "tokens", DTYPE_F32, PORT_PARAM | PORT_OPTIONAL,
                              "added to every channel of a token"},
                             {0}},
    .outputs = (const port[]){{"out", "N tokens C", DTYPE_F32, 0, "mapped tokens"}, {0}},
    .attrs = (const attr[]){{"tokens", ATTR_INT, offsetof(linear_tokens_attrs, tokens), NULL, 1,
                             1 << 20, NULL, 0, "tokens of the result"},
                            {"bias", ATTR_BOOL, offsetof(linear_tokens_attrs, bias), "true", 0, 0,
                             NULL, 0, "add a learned number to each token of the result"},
                            WEIGHT_INIT_ATTRS(linear_tokens_attrs, init),
                            {0}},
    .attrs_bytes = sizeof(linear_tokens_attrs),
    .params = linear_tokens_params,
    .lower = linear_tokens_lower,
    .cases = (const op_case[]){{"{tokens: 1|5|16}", "[1..3, 1..40, 1..20]", 0},
                               {"{tokens: 7, bias: false}", "[1..3, 1..40, 1..20]", 0},
                               {"{tokens: 3, init: truncated_normal}", "[2, 9, 4]", 0},
                               {0}},
};
