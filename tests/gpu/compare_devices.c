/* A device against the CPU: results, gradients and running statistics of every step operator, over
 * its declared cases (tests/gradient/trial.h). An operator without a kernel there fails.
 *
 *   compare_devices [--device NAME] [OPERATOR…] [--seed N] [--trials N]
 *
 * Two tensors agree when ‖a − b‖ ≤ 1e-4 ‖b‖; whole numbers agree exactly. Everything runs twice on
 * the device, and both must agree to the bit. Operators with products run in bf16, too: there the
 * device agrees as closely with the CPU's bf16 (but for attention), and within 2e-2 with f32; and in
 * tf32, which on the CPU is f32: within 2e-3. */
#include "gradient/trial.h"

#include "graph/precision.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double tolerance = 1e-4, tolerance_of_tf32 = 2e-3, tolerance_from_f32 = 2e-2;

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

typedef struct setting {
  const op *op;
  const op_case *trial_case;
  uint64_t seed;
  precision precision;
} setting;

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

/* What a trial has shown. */
typedef struct outcome {
  double from_cpu, from_f32; /* the second in bf16 only */
  bool is_there, repeats;
  char shown[TRIAL_TEXT_BYTES];
} outcome;

static status run_trial(const setting *s, device *cpu, device *other, outcome *out) {
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

/* Whether the weights of a softmax are among what is rounded: how they are rounded depends on the
 * largest score so far, and devices go through the keys in pieces of their own. */
static bool rounds_weights(const op *o) {
  return strstr(o->name, "attention") != NULL;
}

static double most_from_cpu(const setting *s) {
  if (s->precision == PRECISION_TF32) return tolerance_of_tf32;
  return s->precision == PRECISION_BF16 && rounds_weights(s->op) ? 4e-3 : tolerance;
}

/* Tells what is wrong; false when something is. */
static bool report(const setting *s, status error, const outcome *out, const device *other) {
  bool agrees = out->from_cpu <= most_from_cpu(s) && out->from_f32 <= tolerance_from_f32;
  if (!error && agrees && out->repeats) return true;
  printf("FAIL %-24s in %s, %s\n     ", s->op->name, precision_choices[s->precision], out->shown);
  fflush(stdout);
  if (error) {
    error_print(stdout, error);
    error_free(error);
  } else if (!out->repeats) {
    printf("two runs on %s give different bits\n", other->name);
  } else {
    printf("relative difference %.3g, tolerance %.2g; from f32 %.3g\n", out->from_cpu,
           most_from_cpu(s), out->from_f32);
  }
  printf("     again: compare_devices %s --seed %llu --trials 1\n", s->op->name,
         (unsigned long long)s->seed);
  return false;
}

/* True when all trials of all cases agree. */
static bool compare_operator(const op *o, uint64_t seed, int trials, device *cpu, device *other) {
  double worst[PRECISIONS] = {0}, from_f32 = 0;
  int count[PRECISIONS] = {0};
  for (const op_case *c = o->cases; c->attrs; c++)
    for (int p = PRECISION_F32; p < PRECISIONS; p++)
      for (int k = 0; k < (p == PRECISION_F32 ? trials : (trials + 1) / 2); k++) {
        setting s = {o, c, seed + (uint64_t)k, (precision)p};
        outcome out;
        status error = run_trial(&s, cpu, other, &out);
        if (!report(&s, error, &out, other)) return false;
        worst[p] = fmax(worst[p], out.from_cpu);
        from_f32 = fmax(from_f32, out.from_f32);
        count[p] += out.is_there;
      }
  printf("ok   %-24s %3d trials, worst relative difference %.2g", o->name, count[PRECISION_F32],
         worst[PRECISION_F32]);
  if (count[PRECISION_BF16] > 0)
    printf("; in bf16 %.2g, %.2g from f32", worst[PRECISION_BF16], from_f32);
  if (count[PRECISION_TF32] > 0) printf("; in tf32 %.2g", worst[PRECISION_TF32]);
  printf("\n");
  return true;
}

int main(int argc, char **argv) {
  const char *only[16], *name = "cuda";
  int only_count = 0;
  uint64_t seed = 1;
  int trials = 2;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
      seed = strtoull(argv[++i], NULL, 10);
    else if (strcmp(argv[i], "--trials") == 0 && i + 1 < argc)
      trials = atoi(argv[++i]);
    else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc)
      name = argv[++i];
    else if (only_count < (int)(sizeof only / sizeof *only))
      only[only_count++] = argv[i];
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
    bool is_asked = only_count == 0;
    for (int k = 0; k < only_count; k++) is_asked |= strcmp(only[k], o->name) == 0;
    if (!is_asked) continue;
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
