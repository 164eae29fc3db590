/* The mean of f(prediction − target) over all elements or the masked ones: what mse, l1 and smooth_l1
 * share. */
#ifndef STRATA_OPS_REGRESSION_H
#define STRATA_OPS_REGRESSION_H

#include "graph/graph.h"

typedef enum regression_form {
  REGRESSION_SQUARE,
  REGRESSION_ABSOLUTE,
  REGRESSION_SMOOTH /* square below beta, absolute above */
} regression_form;
typedef struct regression_kind {
  regression_form form;
  double beta;
} regression_kind;

status regression_infer(infer *rule);
/* Emits `backward_op`, which has the operator's attributes, for the prediction, and its negative for
 * the target where that is wanted. */
status regression_grad(grad *rule, const char *backward_op);
cost regression_cost(const void *attrs, const tensor *in, int in_count, const tensor *out);
size_t regression_workspace(const void *attrs, const tensor *in, int in_count, const tensor *out,
                            int threads);
status regression_forward(const call *c, regression_kind kind);
status regression_backward(const call *c, regression_kind kind);
status regression_backward_infer(infer *rule);

#define REGRESSION_INPUTS                                                                          \
  (const port[]) {                                                                                 \
    {"prediction", "N …", DTYPE_F32, 0, "what the network says"},                                  \
        {"target", "N …", DTYPE_F32, 0, "what it should say"},                                     \
        {"mask", "N X Y Z", DTYPE_F32, PORT_OPTIONAL,                                              \
         "1 where the loss counts, 0 elsewhere; may be a coarser grid of patches"},                \
    {                                                                                              \
      0                                                                                            \
    }                                                                                              \
  }
#define REGRESSION_BACKWARD_INPUTS                                                                 \
  (const port[]) {                                                                                 \
    {"prediction", "N …", DTYPE_F32, 0, "what the network says"},                                  \
        {"target", "N …", DTYPE_F32, 0, "what it should say"},                                     \
        {"mask", "N X Y Z", DTYPE_F32, PORT_OPTIONAL, "where the loss counts"},                    \
        {"dy", "scalar", DTYPE_F32, 0, "gradient of the loss"}, {                                  \
      0                                                                                            \
    }                                                                                              \
  }

#endif
