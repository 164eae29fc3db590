/* The network of a stage, compiled for a batch of windows: what validation, evaluation and
 * predict run on whole volumes. */
#ifndef STRATA_INFER_NETWORK_H
#define STRATA_INFER_NETWORK_H

#include "execute/program.h"
#include "graph/expand.h"
#include "infer/infer.h"

typedef struct network {
  stage_graph graph;
  parameters own; /* used when none are shared */
  program program;
  inferer inferer;
  float *image, *scores; /* of a batch of windows, where the device's memory is not the host's */
  value_id output;
  uint8_t region_labels[REGIONS_MAX];
  const op_use *postprocess; /* borrowed from the pipeline */
  int postprocess_count;
  const char *const *member_paths; /* of an ensemble; borrowed */
} network;

/* `shared`: parameters of a training in progress; NULL: own ones, to be filled by network_load.
 * `classes` is the number of channels the output must have, where the data have no regions. */
status network_open(pipeline *p, const stage_spec *stage, const char *output, int64_t channels,
                    int64_t classes, device *d, parameters *shared, network *out);
void network_close(network *n);
/* Fills the parameters from a weight file: every one must be there with its shape; what else the
 * file holds is left alone. */
status parameters_load(parameters *p, const char *path);
/* Of a network with own parameters. Several files are an ensemble, whose outputs are averaged; they
 * are read again for every case, so that one network is in memory. `paths` is borrowed. */
status network_load(network *n, const char *const *paths, int count);
/* Prepared case → class numbers on the grid of the file at `image_path`, after postprocessing; and the
 * probabilities before it, where they are wanted (else NULL). The prepared image is freed; the caller
 * closes *probabilities, if there is no error. */
status network_segment(network *n, volume *prepared, const char *image_path, labels *out,
                       nifti_values *probabilities);
/* The same, on the prepared case's own grid. */
status network_segment_prepared(network *n, const volume *prepared, labels *out);

#endif
