/* The evaluation of a run goes on where it was stopped: which test cases are segmented already stands in
 * the run's folder until all of them are scored. A line for each in state.evaluation.jsonl: its name,
 * by what it was segmented, and the content of the file that came of it. */
#ifndef STRATA_RUN_SEGMENTED_H
#define STRATA_RUN_SEGMENTED_H

#include "run/run.h"

#include <jansson.h>
#include <stdio.h>

typedef struct segmented {
  char *path;
  char
      by[20]; /* program, pipeline, data, weights and kernels: who has these gets the same voxels */
  json_t *cases; /* names, and the hashes of their files */
  FILE *out;
} segmented;

/* Reads what a resumed run has left. `weights`: the hash of those that segment. */
status segmented_open(const run *r, const char *weights, segmented *out);
/* Is the file at `path` what this case was segmented to? */
bool segmented_has(const segmented *s, const char *name, const char *path);
status segmented_add(segmented *s, const char *name, const char *path);
/* With the record, where the evaluation is over. */
void segmented_close(segmented *s, bool is_over);

#endif
