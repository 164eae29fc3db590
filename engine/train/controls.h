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
} controls;

status controls_open(const stage_spec *stage, stage_graph *graph, controls *out);
void controls_close(controls *c);
bool controls_get(const controls *c, const char *target, double *out);
/* Setting a number that has a schedule replaces the schedule's base value. Errors have no place. */
status controls_set(controls *c, const char *target, double value);
/* Evaluates every schedule for this step; at.base is filled in. */
status controls_step(controls *c, schedule_point at);
/* The same to see whether the schedules work: sets nothing. Every schedule's error is in the result. */
status controls_try(const controls *c, schedule_point at);

#endif
