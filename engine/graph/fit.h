/* Which sizes of a crop does a network take? Asked when it does not take the one that it was given. */
#ifndef STRATA_GRAPH_FIT_H
#define STRATA_GRAPH_FIT_H

#include "graph/expand.h"

/* For a size, options->size, with which a stage (NULL: one of those that are enabled and crop as `data:
 * sample` says, each with its own batch) does not expand: an error at `at`, its place, that names the
 * nearest sizes with which it (all of them) does, found by expanding with them. `what` has the size: "crop", "window". OK when no size near
 * it helps: the mistake is another one. */
status size_advice(pipeline *p, const stage_spec *stage, const expand_options *options,
                   const char *what, source_pos at);

#endif
