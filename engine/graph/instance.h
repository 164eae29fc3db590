/* Inside the expander: a graph that is being filled in. */
#ifndef STRATA_GRAPH_INSTANCE_H
#define STRATA_GRAPH_INSTANCE_H

#include "graph/expand.h"
#include "language/scope.h"

/* What one run of the expander shares. */
typedef struct expander {
  pipeline *p;
  builder b;
  int model_uses;
  int64_t values;    /* of the items so far */
  arena *memory;     /* of the graph */
  problems problems; /* one a place: a block used five times has its mistake once */
  const expand_options *options;
} expander;

/* One graph being filled in: the stage, the model, or a block at one of its uses. */
typedef struct instance {
  expander *x;
  const struct instance *outer;
  const char *path;   /* file the graph stands in */
  const tree *blocks; /* its block table */
  const tree *params; /* its parameters and their defaults; of a stage NULL */
  const tree *use;    /* what stands where it is used, expressions and all; NULL: nothing does */
  const tree *with;   /* of the pipeline's model: the arguments that the pipeline gives */
  const char *prefix; /* full name of this use */
  const char *owner;  /* what its parameters are named after: the prefix, or that of another use */
  source_pos used_at; /* where the block is used */
  scope scope;        /* parameters, loop variables */
  graph_names names;
  bool is_stage;
} instance;

/* A mistake that shows inside a file of Strata's own (`item` is where: an item or a parameter's
 * default) is moved to what the user wrote: an argument that the value is made of, else the use of the
 * block or model. The message ends with the place inside. What is not inside such a file stays. */
status place_for_user(const instance *in, status error, const tree *item);

#endif
