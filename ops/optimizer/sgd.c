/* sgd: stochastic gradient descent with momentum, as torch.optim.SGD (Sutskever et al., 2013, for
 * Nesterov's form). */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"

typedef struct sgd_attrs {
  double lr, momentum, weight_decay;
  bool nesterov;
} sgd_attrs;

enum { IN_PARAMETERS, IN_GRADIENTS, IN_STEP, IN_VELOCITY };

static status sgd_infer(infer *rule) {
  (void)rule;
  return OK;
}

static cost sgd_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  double elements = (double)shape_elements(&in[IN_PARAMETERS].shape);
  return (cost){.flops = 6 * elements, .bytes = 20 * elements};
}

/* The velocity starts at 0, so the first update's is the gradient itself. */
FOR_EACH_ISA static void sgd_chunk(float *restrict parameter, const float *restrict gradient,
                                   float *restrict velocity, float lr, float momentum, float decay,
                                   bool nesterov, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    float g = gradient[i] + decay * parameter[i];
    float v = momentum * velocity[i] + g;
    velocity[i] = v;
    parameter[i] -= lr * (nesterov ? g + momentum * v : v);
  }
}

static void sgd_task(void *context, int64_t task) {
  const call *c = context;
  const sgd_attrs *a = c->attrs;
  span part = chunk_of(shape_elements(&c->in[IN_PARAMETERS].shape), task);
  sgd_chunk((float *)c->in[IN_PARAMETERS].data + part.first,
            (const float *)c->in[IN_GRADIENTS].data + part.first,
            (float *)c->in[IN_VELOCITY].data + part.first, (float)a->lr, (float)a->momentum,
            (float)a->weight_decay, a->nesterov, part.count);
}

static status sgd_cpu(const call *c) {
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[IN_PARAMETERS].shape)), sgd_task,
               (void *)c);
  return OK;
}

const op op_sgd = {
    .name = "sgd",
    .family = "optimizer",
    .summary = "Stochastic gradient descent with momentum.",
    .doc = "g ← g + weight_decay · parameter; v ← momentum · v + g; parameter ← parameter − lr · "
           "v, or with nesterov − lr · (g + momentum · v).",
    .torch =
        "torch.optim.SGD(parameters, lr, momentum, weight_decay=weight_decay, nesterov=nesterov)",
    .version = 1,
    .traits = OP_OPTIMIZER,
    .inputs = (const port[]){{"parameters", "P", DTYPE_F32, 0, "updated in place"},
                             {"gradients", "P", DTYPE_F32, 0, "their gradients"},
                             {"step", "1", DTYPE_I32, 0, "number of this update, from 1"},
                             {"state", "P", DTYPE_F32, PORT_VARIADIC, "velocity"},
                             {0}},
    .attrs =
        (const attr[]){{"lr", ATTR_FLOAT, offsetof(sgd_attrs, lr), NULL, 0, 1e3, NULL,
                        ATTR_SCHEDULABLE, "learning rate"},
                       {"momentum", ATTR_FLOAT, offsetof(sgd_attrs, momentum), "0", 0, 0.999999,
                        NULL, ATTR_SCHEDULABLE, "share of the velocity that is kept"},
                       {"nesterov", ATTR_BOOL, offsetof(sgd_attrs, nesterov), "false", 0, 0, NULL,
                        0, "look ahead along the velocity"},
                       {"weight_decay", ATTR_FLOAT, offsetof(sgd_attrs, weight_decay), "0", 0, 1e3,
                        NULL, ATTR_SCHEDULABLE, "factor of the parameter added to its gradient"},
                       {0}},
    .attrs_bytes = sizeof(sgd_attrs),
    .infer = sgd_infer,
    .cost = sgd_cost,
    .cpu = sgd_cpu,
    .state_buffers = 1,
};
