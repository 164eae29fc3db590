#include "train/controls.h"

#include "base/text.h"
#include "data/host.h"
#include "evaluate/metrics.h"
#include "train/tally.h"

#include <math.h>
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

/* ---- numbers of sample operators ------------------------------------------------------------- */

static const char sample_prefix[] = "sample.";

static int attr_numbers(const attr *a) {
  return a->kind == ATTR_FLOAT ? 1 : a->kind == ATTR_RANGE ? 2 : a->kind == ATTR_FLOAT3 ? 3 : 0;
}

static bool is_word(const char *text, size_t length, const char *word) {
  return strlen(word) == length && strncmp(text, word, length) == 0;
}

/* The number from 0 that `length` digits of text make; −1: they are none, or many. */
static int small_number(const char *text, size_t length) {
  if (length < 1 || length > 4 || strspn(text, "0123456789") < length) return -1;
  return atoi(text);
}

/* NULL: none is called so, or several are. */
static const op_use *sample_operator(const data_spec *d, const char *name, size_t length) {
  int at = small_number(name, length);
  if (at >= 0) return at < d->sample_count ? &d->sample[at] : NULL;
  const op_use *found = NULL;
  for (int i = 0; i < d->sample_count; i++) {
    if (!is_word(name, length, d->sample[i].op->name)) continue;
    if (found) return NULL;
    found = &d->sample[i];
  }
  return found;
}

typedef struct sample_number {
  const op_use *use;
  const attr *a;
  double *at; /* NULL: the target is no such number */
} sample_number;

static sample_number find_sample_number(const stage_spec *s, const char *target) {
  const sample_number none = {0};
  if (!text_starts_with(target, sample_prefix)) return none;
  const char *name = target + strlen(sample_prefix);
  size_t length = strcspn(name, ".");
  const op_use *use = sample_operator(s->data, name, length);
  if (!use || name[length] != '.') return none;
  name += length + 1;
  length = strcspn(name, ".");
  for (const attr *a = use->op->attrs; a && a->name; a++) {
    if (!(a->flags & ATTR_SCHEDULABLE) || !is_word(name, length, a->name)) continue;
    const char *place = name + length;
    int at = place[0] ? small_number(place + 1, strlen(place + 1)) : 0;
    bool fits = (attr_numbers(a) == 1) == !place[0] && at >= 0 && at < attr_numbers(a);
    if (fits) return (sample_number){use, a, (double *)((char *)use->attrs + a->offset) + at};
  }
  return none;
}

static int sample_names(const stage_spec *s, arena *memory, const char **names, int limit) {
  int count = 0;
  for (int i = 0; i < s->data->sample_count; i++) {
    const op *o = s->data->sample[i].op;
    const char *name = sample_operator(s->data, o->name, strlen(o->name))
                           ? o->name
                           : arena_printf(memory, "%d", i);
    for (const attr *a = o->attrs; a && a->name; a++)
      for (int k = 0; a->flags & ATTR_SCHEDULABLE && k < attr_numbers(a) && count < limit; k++)
        names[count++] = attr_numbers(a) == 1
                             ? arena_printf(memory, "%s%s.%s", sample_prefix, name, a->name)
                             : arena_printf(memory, "%s%s.%s.%d", sample_prefix, name, a->name, k);
  }
  return count;
}

/* What the operator refuses, and ranges that are upside down. */
static status check_sample_numbers(const stage_spec *s, const op_use *use) {
  for (const attr *a = use->op->attrs; a && a->name; a++) {
    const double *range = (const double *)((const char *)use->attrs + a->offset);
    if (a->kind == ATTR_RANGE && range[0] > range[1])
      return error_new(ERROR_SCRIPT, NOWHERE,
                       "stage \"%s\": %s of %s would go from %.10g to %.10g; the first number "
                       "must not be the larger one",
                       s->name, a->name, use->op->name, range[0], range[1]);
  }
  host_infer shape = {.attrs = use->attrs, .channels = 1};
  memcpy(shape.size, s->crop, sizeof shape.size);
  if (!use->op->host_infer) return OK;
  return error_prefix(use->op->host_infer(&shape), "operator %s", use->op->name);
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* Where a number's bounds are declared; NULL: nowhere. */
static const attr *bounds_of(const controls *c, const char *target) {
  static const attr lr_scale = {.name = "lr_scale", .min = 0, .max = LR_SCALE_MAX};
  const char *name;
  if (!group_of(c->stage, target, &name)) name = target;
  if (name != target && strcmp(name, "lr_scale") == 0) return &lr_scale;
  for (const attr *a = c->stage->optimizer.op->attrs; a && a->name; a++)
    if (a->kind == ATTR_FLOAT && strcmp(a->name, name) == 0) return a;
  sample_number n = find_sample_number(c->stage, target);
  return n.at ? n.a : stage_graph_attr(c->graph, target);
}

bool controls_get(const controls *c, const char *target, double *out) {
  const double *number = optimizer_number(c->stage, target);
  if (!number) number = find_sample_number(c->stage, target).at;
  if (number) return *out = *number, true;
  return stage_graph_get_number(c->graph, target, out);
}

enum { NAMED = 200, LISTED = 30 };

static int step_names(const controls *c, arena *memory, const char **names, int limit) {
  int count = 0;
  for (const attr *a = c->stage->optimizer.op->attrs; a && a->name && count < LISTED; a++)
    if (a->kind == ATTR_FLOAT && (a->flags & ATTR_SCHEDULABLE)) names[count++] = a->name;
  for (int i = 0; i < c->stage->group_count && count < LISTED; i++)
    names[count++] = arena_printf(memory, "groups.%d.lr_scale", i);
  return count + stage_graph_number_names(c->graph, memory, names + count, limit - count);
}

status controls_no_number(const controls *c, const char *what, const char *target) {
  arena memory = {0};
  const char *names[NAMED];
  bool of_samples = text_starts_with(target, sample_prefix);
  int count = of_samples ? 0 : step_names(c, &memory, names, NAMED);
  count += sample_names(c->stage, &memory, names + count, NAMED - count);
  text_buffer list = {0};
  const char *near = nearest_name(target, names, count);
  if (near) text_add(&list, "; did you mean \"%s\"?", near);
  for (int i = 0; i < count && i < LISTED && !near; i++)
    text_add(&list, "%s%s", i > 0 ? ", " : "; there are ", names[i]);
  if (count > LISTED && !near) text_add(&list, ", …");
  status error = error_new(ERROR_SCRIPT, NOWHERE, "stage \"%s\" has no number \"%s\" to %s%s",
                           c->stage->name, target, what, list.data ? list.data : "");
  text_free(&list);
  arena_free(&memory);
  return error;
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
  if (find_sample_number(c->stage, target).at)
    return error_new(
        ERROR_SCRIPT, NOWHERE,
        "stage \"%s\": samples are made ahead, so %s changes by a schedule alone, whose "
        "base a hook can set: add \"%s: {lua: …}\" under schedules:",
        c->stage->name, target, target);
  if (write_number(c, target, value)) return OK;
  return controls_no_number(c, "set", target);
}

/* ---- what is measured ------------------------------------------------------------------------ */

static void add_measure(controls *c, const char *prefix, const char *name) {
  if (c->measure_count == MEASURES_MAX) return;
  named_number *n = &c->measures[c->measure_count];
  n->value = NAN;
  if (snprintf(n->name, sizeof n->name, "%s%s", prefix, name) > 0) c->measure_count++;
}

/* Loss, terms and metrics, as a tally names them. */
static void add_tallied(controls *c, const char *prefix) {
  const stage_graph *g = c->graph;
  char name[sizeof c->measures->name];
  add_measure(c, prefix, "loss");
  for (int i = 0; i < g->term_count && !tally_is_plain(g); i++) {
    tally_term_name(g, i, name);
    add_measure(c, prefix, name);
  }
  for (int i = 0; i < g->metric_count; i++)
    for (int64_t k = 0, n = tally_metric_numbers(g, i); k < n; k++) {
      tally_metric_name(g->metric_names[i], k, n, name);
      add_measure(c, prefix, name);
    }
}

static status list_measures(controls *c) {
  const stage_spec *s = c->stage;
  c->measures = calloc(MEASURES_MAX, sizeof *c->measures);
  if (!c->measures) return error_out_of_memory(MEASURES_MAX * sizeof *c->measures);
  add_tallied(c, "");
  add_measure(c, "", "lr");
  if (!s->output) add_tallied(c, "validation.");
  const evaluate_spec validated = {.custom = s->validate_custom,
                                   .custom_count = s->validate_custom_count};
  unsigned metrics = METRIC_BIT(METRIC_DICE) | s->validate_metrics;
  for (int m = 0; m < METRIC_SLOTS && s->output; m++)
    if (metrics & METRIC_BIT(m)) add_measure(c, "validation.", evaluate_metric(&validated, m)->key);
  return OK;
}

script_numbers controls_numbers(const controls *c, const named_number *list, int count,
                                number_view *view) {
  int n = 0;
  for (int i = 0; i < c->measure_count; i++, n++) {
    view->names[n] = c->measures[i].name;
    view->values[n] = c->measures[i].value;
  }
  for (int i = 0; i < count; i++, n++) { /* later ones count */
    view->names[n] = list[i].name;
    view->values[n] = list[i].value;
  }
  return (script_numbers){view->names, view->values, n};
}

/* ---- opening ----------------------------------------------------------------------------------- */

static const script_kind hook_kinds[HOOK_COUNT] = {[HOOK_VALIDATION] = SCRIPT_VALIDATION,
                                                   [HOOK_EPOCH_END] = SCRIPT_EPOCH_END,
                                                   [HOOK_STAGE_END] = SCRIPT_STAGE_END};

status controls_open(const stage_spec *stage, stage_graph *graph, controls *out) {
  *out = (controls){.graph = graph, .stage = stage};
  size_t n = (size_t)stage->schedule_count + 1;
  out->schedules = calloc(n, sizeof *out->schedules);
  out->bases = calloc(n, sizeof *out->bases);
  out->written = calloc(n, sizeof *out->written);
  for (int i = 0; out->written && i < stage->schedule_count; i++) {
    sample_number number = find_sample_number(stage, stage->schedules[i].target);
    if (number.at) out->written[i] = *number.at;
  }
  if (!out->schedules || !out->bases || !out->written) {
    controls_close(out);
    return error_out_of_memory(n * sizeof *out->bases);
  }
  status error = list_measures(out);
  for (int i = 0; i < stage->schedule_count && !error; i++) {
    const schedule_spec *s = &stage->schedules[i];
    if (!controls_get(out, s->target, &out->bases[i]))
      error = error_locate(controls_no_number(out, "schedule", s->target), s->at);
    if (!error) error = script_open(SCRIPT_SCHEDULE, &s->script, &out->schedules[i]);
  }
  for (int i = 0; i < HOOK_COUNT && !error; i++)
    if (stage->hooks[i].path) error = script_open(hook_kinds[i], &stage->hooks[i], &out->hooks[i]);
  if (error) controls_close(out);
  return error;
}

void controls_close(controls *c) {
  for (int i = 0; c->written && i < c->stage->schedule_count; i++) {
    sample_number n = find_sample_number(c->stage, c->stage->schedules[i].target);
    if (n.at) *n.at = c->written[i];
  }
  for (int i = 0; c->schedules && i < c->stage->schedule_count; i++) script_close(c->schedules[i]);
  for (int i = 0; i < HOOK_COUNT; i++) script_close(c->hooks[i]);
  free(c->schedules);
  free(c->bases);
  free(c->written);
  free(c->measures);
  *c = (controls){0};
}

static status evaluate(const controls *c, int i, schedule_point at, double *value) {
  at.base = c->bases[i];
  TRY(script_schedule(c->schedules[i], &at, value));
  return script_blame(c->schedules[i], check_range(c, c->stage->schedules[i].target, *value));
}

status controls_epoch(controls *c, schedule_point at) {
  for (int i = 0; i < c->stage->schedule_count; i++) {
    sample_number n = find_sample_number(c->stage, c->stage->schedules[i].target);
    if (n.at) TRY(evaluate(c, i, at, n.at));
  }
  for (int i = 0; i < c->stage->schedule_count; i++) { /* several make a range */
    const schedule_spec *s = &c->stage->schedules[i];
    sample_number n = find_sample_number(c->stage, s->target);
    if (n.at) TRY(error_locate(check_sample_numbers(c->stage, n.use), s->at));
  }
  return OK;
}

bool controls_change_samples(const controls *c) {
  bool any = false;
  for (int i = 0; i < c->stage->schedule_count; i++)
    any |= find_sample_number(c->stage, c->stage->schedules[i].target).at != NULL;
  return any;
}

status controls_step(controls *c, schedule_point at) {
  for (int i = 0; i < c->stage->schedule_count; i++) {
    double value;
    if (find_sample_number(c->stage, c->stage->schedules[i].target).at) continue;
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
