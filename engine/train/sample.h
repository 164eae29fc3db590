/* What a self-supervised stage has learned to do, on one case: kept in the run folder for the report
 * and for whoever opens the volumes.
 *
 *   samples/<stage>/<value>.nii.gz   every named volume of the stage's graph that has the extents of a
 *                                    crop: the image, what the transformations made of it, what the
 *                                    network made of that
 *   samples/<stage>/sample.json      which case; for each volume its name, operator, attributes and
 *                                    part ("image", "input" of the network, "output", "target" of a
 *                                    loss, or ""); for short lists of whole numbers, such as the order
 *                                    of shuffled slabs, their name and values */
#ifndef STRATA_TRAIN_SAMPLE_H
#define STRATA_TRAIN_SAMPLE_H

#include "execute/parameters.h"
#include "run/run.h"

/* Runs the graph of a stage that reads no labels once, without training, on the first validation case
 * (else the first training case) with the crop and the random numbers of the validation, and writes
 * the above. Values lie on the grid of the prepared case, up to the place of the crop. A stage that
 * reads labels is left alone. */
status sample_write(const run *r, const stage_spec *stage, parameters *trained);

#endif
