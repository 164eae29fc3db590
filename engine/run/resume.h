/* Going on with a run: is it the run of this pipeline, and where does each stage stand? */
#ifndef STRATA_RUN_RESUME_H
#define STRATA_RUN_RESUME_H

#include "run/run.h"
#include "run/state.h"

/* The states that a run's folder holds; .stage is -1 where there is none. */
typedef struct resume_states {
  run_state unfinished, final;
} resume_states;

/* A run goes on only with the pipeline, data and files it was started with, except that
 * - a stage may be longer now, `epochs` or `time_limit`: it goes on from where it ended;
 * - scripts may be others with r->changed_scripts, everything with r->allow_changes.
 * run.json, at `description`, notes what is not as it was. Fills r->former_identities. `states` is
 * the caller's, whatever comes back. */
status resume_check(run *r, const char *description, resume_states *states);
void resume_states_free(resume_states *s);

/* Is the stage finished? If not, *from (may be NULL) is the state that it goes on from; NULL: it
 * begins. */
bool resume_stage_is_done(const run *r, const resume_states *s, int stage, const run_state **from);
/* Is there more to do for a stage, as its keys say now, than was done when it ended? */
bool resume_is_longer(const run_state *ended, const stage_spec *s);

#endif
