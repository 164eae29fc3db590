/* How long a graph takes on a device, without running it and without its memory. */
#ifndef STRATA_EXECUTE_ESTIMATE_H
#define STRATA_EXECUTE_ESTIMATE_H

#include "device/device.h"
#include "graph/precision.h"

typedef struct product_speed {
  double convolution_flops, other_flops; /* a second: in family conv, and in matrix products */
} product_speed;

/* What a device reaches in operators of a middling size. */
typedef struct device_speed {
  product_speed products[PRECISIONS]; /* by what the factors are rounded to */
  double bytes;                       /* a second, read and written, of elementwise operators */
} device_speed;

/* Runs a convolution, a matrix product and a sum for a moment each: some 0.1 s and 100 MiB. A
 * precision whose bit (1 << PRECISION_BF16, …) is not in `wanted` is not measured and taken to be as
 * fast as f32. */
status device_measure(device *d, unsigned wanted, device_speed *out);
/* That of a node's products. */
const product_speed *product_speed_of(const node *n, const device_speed *speed);
/* Seconds of all nodes and of an optimizer that reads and writes `update_bytes`: each node takes as
 * long as its arithmetic or its memory traffic, whichever is longer. Good to within about a third. */
double graph_seconds(const graph *g, double update_bytes, const device_speed *speed);

#endif
