/* parameter: a learned tensor that stands by itself, under the name of its item. */
#include "graph/graph.h"

typedef struct parameter_attrs {
  int_list shape;
  int init;
  double value, std, bound;
} parameter_attrs;

static const char *const init_choices[] = {
    "zeros", "ones", "constant", "uniform", "normal", "truncated_normal", NULL};
static const init_kind init_kinds[] = {INIT_ZEROS,   INIT_ONES,   INIT_CONSTANT,
                                       INIT_UNIFORM, INIT_NORMAL, INIT_TRUNCATED_NORMAL};

static status parameter_params(const void *attributes, const tensor *in, int in_count,
                               param_spec *out) {
  (void)in, (void)in_count;
  const parameter_attrs *attrs = attributes;
  if (attrs->shape.count > MAX_DIMS)
    return shape_error("%d dimensions are too many; the limit is %d", attrs->shape.count, MAX_DIMS);
  init_kind kind = init_kinds[attrs->init];
  double number = kind == INIT_CONSTANT  ? attrs->value
                  : kind == INIT_UNIFORM ? attrs->bound
                                         : attrs->std;
  out[0] = (param_spec){shape_of(attrs->shape.count, attrs->shape.at), kind, number};
  return OK;
}

/* Nothing is computed: the item is the parameter itself. */
static status parameter_lower(lower *rule) {
  rule->out[0] = rule->in[0];
  return OK;
}

const op op_parameter = {
    .name = "parameter",
    .family = "arithmetic",
    .summary = "A learned tensor under the name of its item.",
    .doc = "What a PyTorch module owns beside its layers: item `gamma` in a block used as `norm` "
           "is the parameter `norm.gamma`. Add it or multiply with it (`broadcast: true`), or give "
           "it to an operator that takes values.",
    .torch = "torch.nn.Parameter(torch.empty(shape))",
    .version = 1,
    .inputs =
        (const port[]){{"value", "shape", DTYPE_F32, PORT_PARAM | PORT_OF_ITEM, "the tensor"}, {0}},
    .outputs = (const port[]){{"out", "shape", DTYPE_F32, 0, "the tensor"}, {0}},
    .attrs =
        (const attr[]){{"shape", ATTR_INTS, offsetof(parameter_attrs, shape), NULL, 1, 1e9, NULL, 0,
                        "every dimension"},
                       {"init", ATTR_CHOICE, offsetof(parameter_attrs, init), "zeros", 0, 0,
                        init_choices, 0, "distribution of the fresh tensor"},
                       {"init_value", ATTR_FLOAT, offsetof(parameter_attrs, value), "0", -1e6, 1e6,
                        NULL, 0, "of every element, with constant"},
                       {"init_std", ATTR_FLOAT, offsetof(parameter_attrs, std), "0.02", 1e-9, 1e3,
                        NULL, 0,
                        "standard deviation of normal and truncated_normal (which is cut at ±2, "
                        "not at ±2 deviations)"},
                       {"init_bound", ATTR_FLOAT, offsetof(parameter_attrs, bound), "1", 0, 1e6,
                        NULL, 0, "uniform is within ± this"},
                       {0}},
    .attrs_bytes = sizeof(parameter_attrs),
    .params = parameter_params,
    .lower = parameter_lower,
    .cases = (const op_case[]){{"{shape: [3, 2]}", "", 0}, {0}},
};
