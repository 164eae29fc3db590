/* How long a graph takes on a device, without running it and without its memory. */
#ifndef STRATA_EXECUTE_ESTIMATE_H
#define STRATA_EXECUTE_ESTIMATE_H

#include "device/device.h"
#include "graph/precision.h"

/* FLOP a second. */
typedef struct product_speed {
  double convolution_flops, other_flops;         /* of 32 channels; in products of large matrices */
  double narrow_convolution_flops, narrow_flops; /* of 8 channels; of matrices of 24 columns */
  double attention_flops,
      attention_gradient_flops; /* with narrow heads, where exponentials count */
} product_speed;

/* What a device reaches in operators of a middling size. */
typedef struct device_speed {
  product_speed products[PRECISIONS]; /* by what the factors are rounded to */
  double bytes;                       /* a second, read and written, of elementwise operators */
  double start_s; /* seconds that a node takes though there is next to nothing to do */
} device_speed;

/* Runs convolutions, attention, matrix products and a sum for a moment each: some 0.3 s and 100 MiB. A
 * precision whose bit (1 << PRECISION_BF16, …) is not in `wanted` is not measured and taken to be as
 * fast as f32. */
status device_measure(device *d, unsigned wanted, device_speed *out);
/* That of a node's products. */
const product_speed *product_speed_of(const node *n, const device_speed *speed);
/* Seconds of all nodes and of an optimizer that reads and writes `update_bytes`: each node takes as
 * long as its arithmetic or its memory traffic, whichever is longer, and its start. Mostly a tenth to a third
 * too little. */
double graph_seconds(const graph *g, double update_bytes, const device_speed *speed);

#endif
