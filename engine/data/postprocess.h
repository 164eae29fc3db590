/* What is done to a whole segmentation: `evaluate: postprocess:`. */
#ifndef STRATA_DATA_POSTPROCESS_H
#define STRATA_DATA_POSTPROCESS_H

#include "data/volume.h"
#include "language/pipeline.h"

/* Do the classes that the operators name exist? `classes` counts the background. */
status postprocess_check(const op_use *uses, int count, int64_t classes);
/* Changes a segmentation by the operators, one after the other. */
status postprocess(const op_use *uses, int count, labels *segmentation);

#endif
