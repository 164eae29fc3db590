/* The learned parameters of a run and the state of its operators (running statistics): one flat f32
 * buffer on the device, a named slice per tensor, in the order the training graph first uses them.
 * Programs compiled from different graphs (training, validation, inference) bind to the same slices
 * by name. */
#ifndef STRATA_EXECUTE_PARAMETERS_H
#define STRATA_EXECUTE_PARAMETERS_H

#include "device/device.h"
#include "graph/graph.h"

typedef struct parameter {
  const char *name;
  shape shape;
  int64_t offset; /* elements into the flat buffer; a multiple of 16 */
  param_spec init;
  bool trained; /* the loss reaches it and it is no state; optimizers touch nothing else */
  bool fresh;   /* holds its initial value, not one from a file */
} parameter;

typedef struct parameters {
  arena memory;
  parameter *list;
  int count;
  name_index index; /* of the list */
  /* Of the whole flat buffer, gaps included. They hold zeros, or what a packed weight needs more. */
  int64_t elements;
  int64_t trained_elements; /* trained parameters come first, so optimizers see one range */
  /* Trained parameters are sorted by group: group k is [group_first[k], group_first[k + 1]). */
  int group_count;
  int64_t *group_first;
  device *device;
  float *data;
  /* Weights that a program's kernels read packed (graph_pack) are so. Who fills parameters clears it,
   * having filled all of them. */
  bool packed;
} parameters;

/* Lays out every parameter that the graph reads, zero-filled. The graph must be differentiated
 * already if it will be trained. */
status parameters_create(const graph *g, device *d, parameters *out);
/* The same with the trained parameters sorted by group: `group_of` has a number from 0 to
 * group_count − 1 for every value of the graph. */
status parameters_create_in_groups(const graph *g, const int *group_of, int group_count, device *d,
                                   parameters *out);
void parameters_free(parameters *p);
const parameter *parameters_find(const parameters *p, const char *name);
/* Fills one parameter with its fresh value: by (seed, parameter name), so it does not depend on the
 * order or the presence of others. */
status parameter_initialize(parameters *p, const parameter *which, uint64_t seed);
status parameters_initialize(parameters *p, uint64_t seed);

#endif
