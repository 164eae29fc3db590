/* How long a graph takes on a device, without running it and without its memory. */
#ifndef STRATA_EXECUTE_ESTIMATE_H
#define STRATA_EXECUTE_ESTIMATE_H

#include "device/device.h"
#include "graph/graph.h"

/* What a device reaches in operators of a middling size. */
typedef struct device_speed {
  double convolution_flops, other_flops; /* a second: in family conv, and in matrix products */
  double bytes;                          /* a second, read and written, of elementwise operators */
} device_speed;

/* Runs a convolution, a matrix product and a sum for a moment each: some 0.1 s and 100 MiB. */
status device_measure(device *d, device_speed *out);
/* Seconds of all nodes and of an optimizer that reads and writes `update_bytes`: each node takes as
 * long as its arithmetic or its memory traffic, whichever is longer. Good to within about a third. */
double graph_seconds(const graph *g, double update_bytes, const device_speed *speed);

#endif
