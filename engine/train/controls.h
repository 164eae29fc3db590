/* Numbers that change while a stage runs: schedules every step, hooks between epochs. A target is an
 * attribute of the optimizer ("lr", "weight_decay"), a number of one of its groups ("groups.0.lr_scale"), a
 * schedulable number of the graph ("loss.context.weight", "masked.ratio"), or one of the stage's sample
 * operators, by its name or its place from 0 ("sample.random_noise.sd", "sample.3.zoom.1"). Those hold for
 * an epoch, for samples are made ahead of their step. */
#ifndef STRATA_TRAIN_CONTROLS_H
#define STRATA_TRAIN_CONTROLS_H

#include "graph/expand.h"
#include "run/state.h"
#include "script/script.h"

typedef struct controls {
  stage_graph *graph;
  stage_graph *check_graph; /* of the validation: follows what changes in `graph`; may be NULL */
  const stage_spec *stage;
  script **schedules; /* one per stage->schedules */
  double *bases;
  double
      *written; /* by schedule: what the file says of a sample operator's number, which is so again
                      after controls_close */
  script *hooks[HOOK_COUNT]; /* NULL: none */
  named_number *measures;    /* names of what the stage's epochs can measure; the values are NaN */
  int measure_count;
} controls;

/* Named numbers as scripts are given them. */
enum { MEASURES_MAX = 2 * STATE_MAX_VALUES }; /* of training, and of the validation */
typedef struct number_view {
  const char *names[MEASURES_MAX + STATE_MAX_VALUES];
  double values[MEASURES_MAX + STATE_MAX_VALUES];
} number_view;
/* The numbers, and what else could have been measured. Valid as long as `c`, `list` and `view`. */
script_numbers controls_numbers(const controls *c, const named_number *list, int count,
                                number_view *view);

status controls_open(const stage_spec *stage, stage_graph *graph, controls *out);
void controls_close(controls *c);
bool controls_get(const controls *c, const char *target, double *out);
/* That there is no such number to "get" or "set": with the nearest one, or what there is. */
status controls_no_number(const controls *c, const char *what, const char *target);
/* Setting a number that has a schedule replaces the schedule's base value. Errors have no place. */
status controls_set(controls *c, const char *target, double value);
/* Evaluates every schedule for this step, but those of sample operators; at.base is filled in. */
status controls_step(controls *c, schedule_point at);
/* Those, at the first step of an epoch, while no sample is being made. */
status controls_epoch(controls *c, schedule_point at);
/* Are there any? */
bool controls_change_samples(const controls *c);
/* The same to see whether the schedules work: sets nothing. Every schedule's error is in the result. */
status controls_try(const controls *c, schedule_point at);

#endif
