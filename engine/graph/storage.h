/* storage: values that stand in a device's memory as bf16, where that changes no bit of a result.
 *
 * Where products are in bf16, what they multiply is rounded as it is read. A value that is read by such
 * products only can as well be rounded as it is written: half the memory and half the traffic, and the
 * product needs no copy. So can one of which the others read only the sign (gradients of ReLUs), and one
 * that is only moved to values of which the same is true. Ports say what of it they read
 * (PORT_ROUNDED, PORT_SIGN, PORT_CARRIED, op.reads_exactly) and what can be written so (PORT_STORABLE).
 *
 * What is read from outside stays f32, as do inputs, parameters and their gradients. The CPU stores
 * everything as f32: it rounds as it packs, which it does anyway.
 *
 * The exception is at the end of the range: a positive number below 2^-134 counts as positive in f32 and is
 * 0 in bf16, and a query that its scale takes below 2^-126 is rounded twice. */
#ifndef STRATA_GRAPH_STORAGE_H
#define STRATA_GRAPH_STORAGE_H

#include "graph/graph.h"

typedef struct storage_share {
  int values;   /* stored as bf16, or that could be; views are not counted */
  size_t bytes; /* that they take less than as f32 */
} storage_share;

/* The pass, for a device that stores bf16 (device.stores_bf16): gives the values their type. Runs after
 * precision and before memory is planned; a second time does nothing. */
status graph_choose_storage(graph *g, const value_id *keep, int keep_count);
/* What the pass has chosen; where it has not run, what it would. */
status graph_storage(const graph *g, const value_id *keep, int keep_count, storage_share *out);

#endif
