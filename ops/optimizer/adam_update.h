/* The update that adam and adamw share, and their attributes. They differ in where weight decay
 * enters: adam adds it to the gradient, so that it passes through the moments (an L2 penalty);
 * adamw takes it off the parameter. */
#ifndef STRATA_OPS_ADAM_UPDATE_H
#define STRATA_OPS_ADAM_UPDATE_H

#include "graph/op.h"

typedef struct adam_attrs {
  double lr, weight_decay, beta1, beta2, eps;
} adam_attrs;

status adam_infer(infer *rule);
cost adam_cost(const void *attrs, const tensor *in, int in_count, const tensor *out);
status adam_update(const call *c, bool decoupled);

extern const port adam_inputs[];

/* Lines of the attribute list, `decay` and `decay_doc` being what they differ in. */
#define ADAM_ATTRS(decay, decay_doc)                                                               \
  {"lr", ATTR_FLOAT, offsetof(adam_attrs, lr), NULL,           0,                                  \
   1e3,  NULL,       ATTR_SCHEDULABLE,         "learning rate"},                                   \
      {"weight_decay",   ATTR_FLOAT, offsetof(adam_attrs, weight_decay), decay, 0, 1e3, NULL,      \
       ATTR_SCHEDULABLE, decay_doc},                                                               \
      {"beta1", ATTR_FLOAT, offsetof(adam_attrs, beta1),  "0.9", 0, 0.999999,                      \
       NULL,    0,          "memory of the mean gradient"},                                        \
      {"beta2", ATTR_FLOAT, offsetof(adam_attrs, beta2),          "0.999", 0, 0.999999,            \
       NULL,    0,          "memory of the mean squared gradient"},                                \
  {                                                                                                \
    "eps", ATTR_FLOAT, offsetof(adam_attrs, eps), "1e-8", 0, 1, NULL, 0,                           \
        "added to the root of the mean squared gradient"                                           \
  }

#endif
