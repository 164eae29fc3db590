/* A device against the CPU: results, gradients and running statistics of every step operator, over
 * its declared cases (tests/gradient/trial.h). An operator without a kernel there fails.
 *
 *   compare_devices [--device NAME] [OPERATOR] [--seed N] [--trials N]
 *
 * Two tensors agree when ‖a − b‖ ≤ 1e-4 ‖b‖; whole numbers agree exactly. Everything runs twice on
 * the device, and both must agree to the bit. */
#include "gradient/trial.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double tolerance = 1e-4;

/* One after the other: every result, gradient and state of a trial. */
typedef struct tensors {
  float *data[4 * TRIAL_TENSORS]; /* heap; NULL: nothing reads it */
  value_id value[4 * TRIAL_TENSORS];
  int count;
} tensors;

static status take(trial *t, value_id v, tensors *out) {
  int at = out->count++;
  out->value[at] = v;
  out->data[at] = NULL;
  if (v == VALUE_NONE || !program_data(&t->program, v)) return OK;
  out->data[at] = malloc(tensor_bytes(&t->g->values[v].type) + 1);
  return program_read(&t->program, v, out->data[at]);
}

static status take_all(trial *t, tensors *out) {
  out->count = 0;
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
  if (type->dtype == DTYPE_I32) return memcmp(a, b, (size_t)n * 4) == 0 ? 0 : INFINITY;
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

static status run_on(trial *t, device *d, tensors *out) {
  status error = trial_open(t, d);
  if (!error) error = program_run(&t->program);
  if (!error) error = take_all(t, out);
  trial_close(t);
  return error;
}

static status run_trial(const op *o, const op_case *c, uint64_t seed, device *cpu, device *other,
                        double *worst, bool *repeats, char *shown) {
  trial t;
  status error = trial_build(o, c, seed, &t);
  memcpy(shown, t.shown, sizeof t.shown);
  tensors a = {0}, again = {0}, b = {0};
  if (!error && !t.is_empty) error = run_on(&t, cpu, &b);
  if (!error && !t.is_empty) error = run_on(&t, other, &a);
  if (!error && !t.is_empty) error = run_on(&t, other, &again);
  for (int i = 0; !error && i < b.count; i++) {
    if (!b.data[i]) continue;
    const tensor *type = &t.g->values[b.value[i]].type;
    *worst = fmax(*worst, difference(type, a.data[i], b.data[i]));
    *repeats &= memcmp(a.data[i], again.data[i], tensor_bytes(type)) == 0;
  }
  tensors_free(&a);
  tensors_free(&again);
  tensors_free(&b);
  trial_free(&t);
  return error;
}

/* True when all trials of all cases agree. */
static bool compare_operator(const op *o, uint64_t seed, int trials, device *cpu, device *other) {
  double op_worst = 0;
  int count = 0;
  for (const op_case *c = o->cases; c->attrs; c++)
    for (int k = 0; k < trials; k++, count++) {
      double worst = 0;
      bool repeats = true;
      char shown[TRIAL_TEXT_BYTES];
      status error = run_trial(o, c, seed + (uint64_t)k, cpu, other, &worst, &repeats, shown);
      op_worst = fmax(op_worst, worst);
      if (!error && worst <= tolerance && repeats) continue;
      printf("FAIL %-24s %s\n     ", o->name, shown);
      fflush(stdout);
      if (error) {
        error_print(stdout, error);
        error_free(error);
      } else if (!repeats) {
        printf("two runs on %s give different bits\n", other->name);
      } else {
        printf("relative difference %.3g\n", worst);
      }
      printf("     again: compare_devices %s --seed %llu --trials 1\n", o->name,
             (unsigned long long)(seed + (uint64_t)k));
      return false;
    }
  printf("ok   %-24s %3d trials, worst relative difference %.2g\n", o->name, count, op_worst);
  return true;
}

int main(int argc, char **argv) {
  const char *only = NULL, *name = "cuda";
  uint64_t seed = 1;
  int trials = 2;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
      seed = strtoull(argv[++i], NULL, 10);
    else if (strcmp(argv[i], "--trials") == 0 && i + 1 < argc)
      trials = atoi(argv[++i]);
    else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc)
      name = argv[++i];
    else
      only = argv[i];
  }
  device *cpu, *other;
  status error = device_open("cpu", 1, &cpu, NULL);
  if (!error) error = device_open(name, 1, &other, NULL);
  if (error) {
    error_print(stderr, error);
    return 1;
  }
  printf("%s against %s\n", other->description, cpu->description);
  int failed = 0, passed = 0, missing = 0;
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    bool is_step = o->cpu && !(o->traits & OP_VIEW);
    if (only && strcmp(only, o->name) != 0) continue;
    if (is_step && !other->supports(other, o)) {
      printf("MISS %-24s has no kernel for %s\n", o->name, other->name);
      missing++;
    } else if (!(o->traits & OP_NOT_IN_GRAPHS) && o->cases && o->cases->attrs) {
      bool agrees = compare_operator(o, seed, trials, cpu, other);
      passed += agrees;
      failed += !agrees;
    } else if (is_step && !(o->traits & (OP_INTERNAL | OP_OPTIMIZER))) {
      printf("     %-24s declares no cases\n", o->name);
    }
  }
  device_close(cpu);
  device_close(other);
  printf("%d operators agree, %d differ, %d without a kernel\n", passed, failed, missing);
  return failed || missing || passed == 0;
}
