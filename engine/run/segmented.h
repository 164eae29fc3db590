/* Segmenting many volumes goes on where it was stopped: which of them are done stands in a file beside
 * the results. A line for each: its name, by what it was segmented, and the content of the file that
 * came of it. */
#ifndef STRATA_RUN_SEGMENTED_H
#define STRATA_RUN_SEGMENTED_H

#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

typedef struct segmented {
  char *path;
  char by[20];   /* hash of what decides on the voxels, beside the volume */
  json_t *cases; /* names, and the hashes of their files */
  FILE *out;
} segmented;

/* The record at `path`, made anew but for the lines of a stopped command that is resumed. `by`: program,
 * pipeline, weights, kernels: who has these gets the same voxels; lines of others are dropped. */
status segmented_open(const char *path, const char *by, bool resume, segmented *out);
/* Is the file at `path` what this case was segmented to? */
bool segmented_has(const segmented *s, const char *name, const char *path);
status segmented_add(segmented *s, const char *name, const char *path);
/* `forget`: removes the record, too. */
void segmented_close(segmented *s, bool forget);

#endif
