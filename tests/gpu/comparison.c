/* See comparison.h. */
#include "gpu/comparison.h"

#include "graph/precision.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One after the other: every result, gradient and state of a trial. */
typedef struct tensors {
  float *data[4 * TRIAL_TENSORS]; /* heap; NULL: nothing reads it */
  tensor type[4 * TRIAL_TENSORS];
  int count;
} tensors;

static status take(trial *t, value_id v, tensors *out) {
  int at = out->count++;
  out->data[at] = NULL;
  if (v == VALUE_NONE || !program_data(&t->program, v)) return OK;
  out->type[at] = t->g->values[v].type;
  out->data[at] = malloc(tensor_bytes(&out->type[at]) + 1);
  return program_read(&t->program, v, out->data[at]);
}

static status take_all(trial *t, tensors *out) {
  for (int i = 0; i < t->result_count; i++) TRY(take(t, t->results[i], out));
  for (int i = 0; i < t->param_count; i++) TRY(take(t, t->g->values[t->params[i]].gradient, out));
  for (int i = 0; i < t->state_count; i++) TRY(take(t, t->states[i], out));
  return OK;
}

static void tensors_free(tensors *t) {
  for (int i = 0; i < t->count; i++) free(t->data[i]);
  t->count = 0;
}

/* ‖a − b‖ / ‖b‖; infinite where whole numbers differ, or one is finite and the other is not. */
static double difference(const tensor *type, const float *a, const float *b) {
  int64_t n = shape_elements(&type->shape);
  if (type->dtype != DTYPE_F32) return memcmp(a, b, (size_t)n * 4) == 0 ? 0 : INFINITY;
  double squares = 0, reference = 0;
  for (int64_t i = 0; i < n; i++) {
    if (isfinite(a[i]) != isfinite(b[i])) return INFINITY;
    if (!isfinite(b[i])) continue;
    double d = (double)a[i] - (double)b[i];
    squares += d * d;
    reference += (double)b[i] * (double)b[i];
  }
  /* What is zero but for rounding has nothing to be relative to. */
  double floor = 1e-12 * (double)n;
  return sqrt(squares / (reference > floor ? reference : floor + 1e-300));
}

/* The largest of all tensors. */
static double distance(const tensors *a, const tensors *b) {
  double worst = 0;
  for (int i = 0; i < b->count; i++)
    if (b->data[i]) worst = fmax(worst, difference(&b->type[i], a->data[i], b->data[i]));
  return worst;
}

static bool same_bits(const tensors *a, const tensors *b) {
  bool same = true;
  for (int i = 0; i < b->count; i++)
    if (b->data[i]) same &= memcmp(a->data[i], b->data[i], tensor_bytes(&b->type[i])) == 0;
  return same;
}

/* Nothing in *out when the trial is empty, or without a product that can be rounded as asked for. */
static status run_on(const setting *s, device *d, tensors *out, char *shown) {
  trial t;
  status error = trial_build(s->op, s->trial_case, s->seed, &t);
  memcpy(shown, t.shown, sizeof t.shown);
  bool has_work = !error && !t.is_empty;
  if (has_work && s->precision != PRECISION_F32) {
    graph_set_precision(t.g, s->precision);
    has_work = graph_precision(t.g).nodes[s->precision] > 0;
  }
  if (has_work) {
    error = trial_open(&t, d);
    if (!error) error = program_run(&t.program);
    if (!error) error = take_all(&t, out);
    trial_close(&t);
  }
  trial_free(&t);
  return error;
}

status compare_trial(const setting *s, device *cpu, device *other, outcome *out) {
  tensors a = {0}, again = {0}, b = {0}, exact = {0};
  setting in_f32 = *s;
  in_f32.precision = PRECISION_F32;
  *out = (outcome){.repeats = true};
  status error = run_on(s, cpu, &b, out->shown);
  if (!error) error = run_on(s, other, &a, out->shown);
  if (!error) error = run_on(s, other, &again, out->shown);
  if (!error && s->precision == PRECISION_BF16 && b.count > 0)
    error = run_on(&in_f32, cpu, &exact, out->shown);
  if (!error) {
    out->is_there = b.count > 0;
    out->from_cpu = distance(&a, &b);
    out->repeats = same_bits(&again, &a);
    out->from_f32 = distance(&a, &exact);
  }
  tensors_free(&a);
  tensors_free(&again);
  tensors_free(&b);
  tensors_free(&exact);
  return error;
}
