/* `case_weights` of a stage: a Lua script says how often a training case is drawn. */
#ifndef STRATA_TRAIN_CASE_WEIGHTS_H
#define STRATA_TRAIN_CASE_WEIGHTS_H

#include "run/run.h"

/* A weight for each case of the data set (heap; those that are not trained on have 0), for the
 * loader. NULL without a script. Prepares every training case, which fills the cache. They depend on
 * the cases alone, so that a resumed run has the same. */
status case_weights_compute(const run *r, const stage_spec *s, bool label_free, double **out);

#endif
