/* Numbers that change while a stage runs: schedules every step, hooks between epochs. A target is an attribute of the optimizer ("lr", "weight_decay"), a number of
 * one of its groups ("groups.0.lr_scale") or a schedulable number of the graph ("loss.context.weight",
 * "masked.ratio"). */
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
/* Evaluates every schedule for this step; at.base is filled in. */
status controls_step(controls *c, schedule_point at);
/* The same to see whether the schedules work: sets nothing. Every schedule's error is in the result. */
status controls_try(const controls *c, schedule_point at);

#endif
