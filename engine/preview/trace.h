/* What every operator before the network does to one case: the edges of the prepare graph, of the sample
 * graph and of a stage's graph as far as no parameter is involved (the transformation module of step 1).
 *
 * The draws are those of training: crop k of a case in an epoch has the same random numbers here as in
 * the loader and in the stage's program, and schedules have set the numbers of the epoch's first step. */
#ifndef STRATA_PREVIEW_TRACE_H
#define STRATA_PREVIEW_TRACE_H

#include "data/dataset.h"
#include "device/device.h"

typedef enum preview_graph {
  PREVIEW_PREPARE, /* once, crop 0 */
  PREVIEW_SAMPLE,
  PREVIEW_STEP,
  PREVIEW_GRAPHS
} preview_graph;

typedef struct preview_edge {
  preview_graph graph;
  const char *name;       /* "the file", an operator, an item of the stage's graph or its output */
  const char *operator;   /* of an item; "" otherwise */
  const char *attributes; /* "size: [96, 96, 96]"; may be "" */
  int crop;
  bool is_unchanged;     /* the operator left every voxel as it was */
  const medical_case *c; /* on the grid of the case or crop; NULL: no volume, see `note` */
  const char *note;      /* the numbers of a result that is no volume: "2 0 1" */
} preview_edge;

/* An edge is valid during the call. */
typedef status (*preview_visit)(void *context, const preview_edge *edge);

typedef struct preview_options {
  pipeline *p;
  const dataset *data;
  device *device;
  const case_entry *entry;
  const stage_spec *stage;
  int64_t epoch; /* from 0 */
  int crops;     /* draws of the case in the epoch, ≥ 1 */
  preview_visit visit;
  void *context;
} preview_options;

/* In order: the prepare graph, then the sample graph operator by operator, every crop of one before the
 * next, then the items of the stage. */
status preview_trace(const preview_options *o);

#endif
