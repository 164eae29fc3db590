/* The part that a lock has in a run: what the run is made of is written down when it starts, its
 * weights when a stage is finished; where it was started from a lock, both are compared. */
#ifndef STRATA_RUN_REPRODUCE_H
#define STRATA_RUN_REPRODUCE_H

#include "run/run.h"

/* Hashes the data set and fills r->lock. Where the pipeline is a lock, fills r->locked and compares:
 * differences are an error that lists them, or, with r->allow_changes, r->changes, which the user
 * is told. */
status reproduce_begin(run *r);
/* What has changed since the run in r->folder was started. */
typedef struct resumed_changes {
  bool has_lock;        /* false: it has none to compare with */
  bool same_stages;     /* in the same order */
  key_differences keys; /* of the pipeline */
  status others;        /* data, files, operators, as one error; the caller's */
} resumed_changes;
/* `memory` receives the keys. */
status reproduce_check_resumed(run *r, arena *memory, resumed_changes *out);
/* Adds the weights of a finished stage to r->lock. */
status reproduce_stage(run *r, const stage_spec *s);
/* Writes r->lock to the run's folder. */
status reproduce_write(const run *r);
/* Says the hashes of the finished weights, and whether they are those of the lock. */
void reproduce_end(const run *r);
void reproduce_free(run *r);

#endif
