/* lsuv: layer-sequential unit variance (Mishkin and Matas, arXiv 1511.06422). The layers start
 * orthonormal; train/initialize.c then goes through them on a batch of training data. */
#include "ops/kernels/weight_init.h"

typedef struct lsuv_attrs {
  double tolerance;
  int64_t iterations;
} lsuv_attrs;

static status lsuv_params(const void *attrs, const tensor *in, int in_count, param_spec *out) {
  (void)attrs, (void)in_count;
  out[0] = (param_spec){in[0].shape, INIT_ORTHOGONAL, 1};
  out[1] = (param_spec){in[1].shape, INIT_ZEROS, 0};
  return OK;
}

const op op_lsuv = {
    .name = "lsuv",
    .family = "initializer",
    .summary = "Layer-sequential unit variance, on a batch of training data.",
    .doc = "Weights start orthonormal and biases 0. Then, in the order in which the network runs "
           "them, each layer's weight is divided by the standard deviation of its result on the "
           "stage's first batch, until its variance is 1 within the tolerance (Mishkin and Matas, "
           "arXiv 1511.06422). Layers whose weights come from a file or another stage stay as they "
           "are.",
    .version = 1,
    .traits = OP_INITIALIZER,
    .inputs = (const port[]){{"weight", "…", DTYPE_F32, 0, "of a linear layer or a convolution"},
                             {"bias", "features", DTYPE_F32, PORT_OPTIONAL, "of the same layer"},
                             {0}},
    .attrs = (const attr[]){{"tolerance", ATTR_FLOAT, offsetof(lsuv_attrs, tolerance), "0.1", 1e-6,
                             1, NULL, 0, "how far from 1 a variance may be"},
                            {"iterations", ATTR_INT, offsetof(lsuv_attrs, iterations), "10", 1, 100,
                             NULL, 0, "attempts for a layer at most"},
                            {0}},
    .attrs_bytes = sizeof(lsuv_attrs),
    .params = lsuv_params,
};
