#include "train/controls.h"

#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The group of "groups.1.lr_scale", and the number's own name; NULL: the target is no group's. */
static group_spec *group_of(const stage_spec *s, const char *target, const char **name) {
  for (int i = 0; i < s->group_count; i++) {
    char prefix[32];
    snprintf(prefix, sizeof prefix, "groups.%d.", i);
    *name = target + strlen(prefix);
    if (text_starts_with(target, prefix)) return &s->groups[i];
  }
  return NULL;
}

static double *optimizer_number(const stage_spec *s, const char *target) {
  const char *name;
  group_spec *g = group_of(s, target, &name);
  if (!g) return attr_number(s->optimizer.op, s->optimizer.attrs, target);
  if (strcmp(name, "lr_scale") == 0) return &g->lr_scale;
  for (int i = 0; i < g->number_count; i++)
    if (strcmp(g->numbers[i].name, name) == 0) return &g->numbers[i].value;
  return NULL;
}

/* Where a number's bounds are declared; NULL: nowhere. */
static const attr *bounds_of(const controls *c, const char *target) {
  static const attr lr_scale = {.name = "lr_scale", .min = 0, .max = LR_SCALE_MAX};
  const char *name;
  if (!group_of(c->stage, target, &name)) name = target;
  if (name != target && strcmp(name, "lr_scale") == 0) return &lr_scale;
  for (const attr *a = c->stage->optimizer.op->attrs; a && a->name; a++)
    if (a->kind == ATTR_FLOAT && strcmp(a->name, name) == 0) return a;
  return stage_graph_attr(c->graph, target);
}

bool controls_get(const controls *c, const char *target, double *out) {
  const double *number = optimizer_number(c->stage, target);
  if (number) return *out = *number, true;
  return stage_graph_get_number(c->graph, target, out);
}

/* A script's number keeps to the bounds that a number in the pipeline file keeps to. */
static status check_range(const controls *c, const char *target, double value) {
  const attr *a = bounds_of(c, target);
  bool unbounded = !a || (a->min == 0 && a->max == 0);
  if (unbounded || (value >= a->min && value <= a->max)) return OK;
  return error_new(ERROR_SCRIPT, NOWHERE, "stage \"%s\": %s must be from %.10g to %.10g, not %.10g",
                   c->stage->name, target, a->min, a->max, value);
}

static bool write_number(controls *c, const char *target, double value) {
  double *number = optimizer_number(c->stage, target);
  if (number) return *number = value, true;
  if (c->check_graph) stage_graph_set_number(c->check_graph, target, value);
  return stage_graph_set_number(c->graph, target, value);
}

status controls_set(controls *c, const char *target, double value) {
  TRY(check_range(c, target, value));
  for (int i = 0; i < c->stage->schedule_count; i++)
    if (strcmp(c->stage->schedules[i].target, target) == 0) {
      c->bases[i] = value;
      return OK;
    }
  if (!write_number(c, target, value))
    return error_new(
        ERROR_SCRIPT, NOWHERE,
        "stage \"%s\" has no number \"%s\" to set; there are the optimizer's attributes "
        "(lr), those of its groups (groups.0.lr_scale), loss weights (loss.<term>.weight) "
        "and schedulable attributes (<item>.<attribute>)",
        c->stage->name, target);
  return OK;
}

static const script_kind hook_kinds[HOOK_COUNT] = {[HOOK_VALIDATION] = SCRIPT_VALIDATION,
                                                   [HOOK_EPOCH_END] = SCRIPT_EPOCH_END,
                                                   [HOOK_STAGE_END] = SCRIPT_STAGE_END};

status controls_open(const stage_spec *stage, stage_graph *graph, controls *out) {
  *out = (controls){.graph = graph, .stage = stage};
  size_t n = (size_t)stage->schedule_count + 1;
  out->schedules = calloc(n, sizeof *out->schedules);
  out->bases = calloc(n, sizeof *out->bases);
  if (!out->schedules || !out->bases) {
    controls_close(out);
    return error_out_of_memory(n * sizeof *out->bases);
  }
  status error = OK;
  for (int i = 0; i < stage->schedule_count && !error; i++) {
    const schedule_spec *s = &stage->schedules[i];
    if (!controls_get(out, s->target, &out->bases[i]))
      error =
          error_new(ERROR_PIPELINE, s->at,
                    "nothing to schedule is called \"%s\"; there are the optimizer's attributes "
                    "(lr), those of its groups (groups.0.lr_scale), loss weights "
                    "(loss.<term>.weight) and schedulable attributes (<item>.<attribute>)",
                    s->target);
    if (!error) error = script_open(SCRIPT_SCHEDULE, &s->script, &out->schedules[i]);
  }
  for (int i = 0; i < HOOK_COUNT && !error; i++)
    if (stage->hooks[i].path) error = script_open(hook_kinds[i], &stage->hooks[i], &out->hooks[i]);
  if (error) controls_close(out);
  return error;
}

void controls_close(controls *c) {
  for (int i = 0; c->schedules && i < c->stage->schedule_count; i++) script_close(c->schedules[i]);
  for (int i = 0; i < HOOK_COUNT; i++) script_close(c->hooks[i]);
  free(c->schedules);
  free(c->bases);
  *c = (controls){0};
}

static status evaluate(const controls *c, int i, schedule_point at, double *value) {
  at.base = c->bases[i];
  TRY(script_schedule(c->schedules[i], &at, value));
  return script_blame(c->schedules[i], check_range(c, c->stage->schedules[i].target, *value));
}

status controls_step(controls *c, schedule_point at) {
  for (int i = 0; i < c->stage->schedule_count; i++) {
    double value;
    TRY(evaluate(c, i, at, &value));
    write_number(c, c->stage->schedules[i].target, value);
  }
  return OK;
}

status controls_try(const controls *c, schedule_point at) {
  problems found = {0};
  double value;
  for (int i = 0; i < c->stage->schedule_count; i++)
    problems_add(&found, evaluate(c, i, at, &value));
  return problems_take(&found);
}
