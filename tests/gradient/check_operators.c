/* The automatic gradient check: every operator with a gradient, over its declared cases.
 *
 * For each trial, shapes and attributes are drawn at random within the case, f32 inputs become
 * parameters, and the derivative of Σ w·output along random directions and single coordinates, by
 * fourth-order central differences accumulated in double, is compared with the compiled gradient.
 * The same program then runs on one and on three threads, and every bit must agree.
 *
 * Rounding to bf16 makes a staircase of every sum, of which differences say nothing. So results and
 * gradients with `precision: bf16` are compared with those of f32.
 *
 *   check_operators [OPERATOR] [--seed N] [--trials N]
 */
#include "base/text.h"
#include "gradient/trial.h"
#include "graph/precision.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DIRECTIONS = 3, COORDINATES = 6 };
/* Of a product 1e-2 is much. A softmax of products, in attention and in losses, where one weight is
 * nearly all, has gradients that are small differences. */
static double bf16_tolerance(const op *o) {
  return o->lower || strcmp(o->family, "attention") == 0 ? 5e-2 : 1e-2;
}

/* `rounding`: what f32 results leave uncertain in the sum, element errors taken as independent. */
static status objective(trial *t, double *out, double *rounding) {
  TRY(program_run(&t->program));
  double sum = 0, squares = 0;
  for (int i = 0; i < t->output_count; i++) {
    const float *y = program_data(&t->program, t->outputs[i]);
    const float *w = program_data(&t->program, t->seeds[i]);
    int64_t n = shape_elements(&t->g->values[t->outputs[i]].type.shape);
    for (int64_t k = 0; w && k < n; k++) {
      double term = (double)y[k] * (double)w[k];
      sum += term;
      squares += term * term;
    }
  }
  *out = sum;
  *rounding = 3e-7 * sqrt(squares);
  return OK;
}

static status along(trial *t, float *x, const float *start, const float *u, int64_t n, double h,
                    double *out, double *rounding) {
  for (int64_t k = 0; k < n; k++) x[k] = start[k] + (float)(h * (double)u[k]);
  return objective(t, out, rounding);
}

/* Largest error over directions for one parameter, relative to the gradient's size: as it is, and
 * beyond what rounding explains. */
static status check_parameter(trial *t, value_id v, rng *r, double *worst, double *excess) {
  int64_t n = shape_elements(&t->g->values[v].type.shape);
  float *x = program_data(&t->program, v);
  float *start = malloc((size_t)n * sizeof *start), *u = malloc((size_t)n * sizeof *u);
  float *gradient = calloc((size_t)n, sizeof *gradient);
  double unused, rounding;
  status error = objective(t, &unused, &rounding);
  if (!error && t->g->values[v].gradient != VALUE_NONE)
    memcpy(gradient, program_data(&t->program, t->g->values[v].gradient), (size_t)n * sizeof *u);
  memcpy(start, x, (size_t)n * sizeof *start);
  double norm = 0;
  for (int64_t k = 0; k < n; k++) norm += (double)gradient[k] * (double)gradient[k];
  norm = sqrt(norm);
  int compared = 0;
  for (int d = 0; !error && d < DIRECTIONS + COORDINATES; d++) {
    memset(u, 0, (size_t)n * sizeof *u);
    if (d < DIRECTIONS)
      for (int64_t k = 0; k < n; k++) u[k] = (float)rng_range(r, -1, 1);
    else
      u[rng_below(r, (uint32_t)n)] = 1;
    double analytic = 0, length = 0;
    for (int64_t k = 0; k < n; k++) {
      analytic += (double)gradient[k] * (double)u[k];
      length += (double)u[k] * (double)u[k];
    }
    const double h = 0.01;
    double f[4];
    error = along(t, x, start, u, n, h, &f[0], &rounding);
    if (!error) error = along(t, x, start, u, n, -h, &f[1], &rounding);
    if (!error) error = along(t, x, start, u, n, 2 * h, &f[2], &rounding);
    if (!error) error = along(t, x, start, u, n, -2 * h, &f[3], &rounding);
    double numeric = (8 * (f[0] - f[1]) - (f[2] - f[3])) / (12 * h);
    double scale = fmax(fabs(numeric), norm * sqrt(length) / sqrt((double)n));
    /* A direction that crosses a corner (of |x|, of a ReLU) has no derivative to compare with: the
     * narrow and the wide difference disagree there. */
    double narrow = (f[0] - f[1]) / (2 * h), wide = (f[2] - f[3]) / (4 * h);
    if (fabs(narrow - wide) > 0.005 * scale) continue;
    compared++;
    /* Rounding of f32 results limits what a difference can resolve. */
    double noise = 2 * rounding / h;
    double difference = fabs(numeric - analytic);
    double relative = difference == 0 ? 0 : scale > 0 ? difference / scale : 1;
    if (difference > noise) *excess = fmax(*excess, (difference - noise) / scale);
    if (!isfinite(numeric) || !isfinite(analytic)) relative = *excess = INFINITY;
    if (relative > *worst) *worst = relative;
  }
  if (!error && compared == 0) *excess = INFINITY;
  memcpy(x, start, (size_t)n * sizeof *start);
  free(start);
  free(u);
  free(gradient);
  return error;
}

static uint64_t digest(trial *t) {
  uint64_t h = 0;
  for (int i = 0; i < t->output_count; i++)
    h = hash_mix(h, bytes_hash(program_data(&t->program, t->outputs[i]),
                               tensor_bytes(&t->g->values[t->outputs[i]].type)));
  for (int i = 0; i < t->param_count; i++) {
    value_id gradient = t->g->values[t->params[i]].gradient;
    if (gradient != VALUE_NONE)
      h = hash_mix(h, bytes_hash(program_data(&t->program, gradient),
                                 tensor_bytes(&t->g->values[gradient].type)));
  }
  for (int i = 0; i < t->state_count; i++)
    h = hash_mix(h, bytes_hash(program_data(&t->program, t->states[i]),
                               tensor_bytes(&t->g->values[t->states[i]].type)));
  return h;
}

static status run_trial(const op *o, const op_case *c, uint64_t seed, device *const devices[2],
                        double *worst, double *excess, bool *same, char *shown) {
  trial t;
  status error = trial_build(o, c, seed, &t);
  memcpy(shown, t.shown, sizeof t.shown);
  uint64_t digests[2] = {0};
  for (int d = 1; d >= 0 && !error && !t.is_empty; d--) {
    error = trial_open(&t, devices[d]);
    double unused, rounding;
    if (!error) error = objective(&t, &unused, &rounding);
    if (!error) digests[d] = digest(&t);
    rng r = t.values;
    if (!error && d == 0)
      for (int i = 0; i < t.param_count && !error; i++)
        error = check_parameter(&t, t.params[i], &r, worst, excess);
    trial_close(&t);
  }
  *same = digests[0] == digests[1];
  trial_free(&t);
  return error;
}

/* Where the results and gradients of a trial are; returns how many. */
static int results_of(const trial *t, value_id list[2 * TRIAL_TENSORS]) {
  int count = 0;
  for (int i = 0; i < t->output_count; i++) list[count++] = t->outputs[i];
  for (int i = 0; i < t->param_count; i++)
    if (t->g->values[t->params[i]].gradient != VALUE_NONE)
      list[count++] = t->g->values[t->params[i]].gradient;
  return count;
}

/* Length of the difference over the length of what is expected, the larger of all tensors. */
static double distance(const trial *expected, const trial *got) {
  value_id list[2 * TRIAL_TENSORS];
  double worst = 0;
  for (int i = results_of(expected, list) - 1; i >= 0; i--) {
    const float *a = program_data(&expected->program, list[i]);
    const float *b = program_data(&got->program, list[i]);
    double difference = 0, length = 0;
    for (int64_t k = 0; k < shape_elements(&expected->g->values[list[i]].type.shape); k++) {
      difference += ((double)b[k] - (double)a[k]) * ((double)b[k] - (double)a[k]);
      length += (double)a[k] * (double)a[k];
    }
    if (difference > 0) worst = fmax(worst, sqrt(difference / length));
    if (!isfinite(difference)) worst = INFINITY;
  }
  return worst;
}

/* A trial with its products in bf16, beside the same in f32; nothing when it has none. */
static status run_bf16(const op *o, const op_case *c, uint64_t seed, device *const devices[2],
                       double *worst, bool *same) {
  trial exact, rounded;
  status error = trial_build(o, c, seed, &exact), second = trial_build(o, c, seed, &rounded);
  uint64_t digests[2] = {0};
  *same = true;
  if (!error && !second && graph_precision(exact.g).nodes[PRECISION_F32] > 0) {
    graph_set_precision(rounded.g, PRECISION_BF16);
    error = trial_open(&exact, devices[0]);
    if (!error) error = program_run(&exact.program);
    for (int d = 1; d >= 0 && !error; d--) {
      error = trial_open(&rounded, devices[d]);
      if (!error) error = program_run(&rounded.program);
      if (!error) digests[d] = digest(&rounded);
      if (!error && d == 0) *worst = fmax(*worst, distance(&exact, &rounded));
      trial_close(&rounded);
    }
    *same = digests[0] == digests[1];
    trial_close(&exact);
  }
  trial_free(&exact);
  trial_free(&rounded);
  error_free(second);
  return error;
}

static bool check_bf16(const op *o, uint64_t seed, int trials, device *const devices[2],
                       double *worst) {
  bool failed = false;
  for (const op_case *c = o->cases; c->attrs; c++)
    for (int k = 0; k < trials; k++) {
      bool same;
      double one = 0;
      status error = run_bf16(o, c, seed + (uint64_t)k, devices, &one, &same);
      *worst = fmax(*worst, one);
      if (!error && same && one <= bf16_tolerance(o)) continue;
      printf("FAIL %-24s in bf16, case %s of %s: %s%.3g from f32, tolerance %.3g\n", o->name,
             c->attrs, c->inputs, same ? "" : "one and three threads give different bits; ", one,
             bf16_tolerance(o));
      error_print(stdout, error);
      error_free(error);
      failed = true;
    }
  return failed;
}

int main(int argc, char **argv) {
  trial_options options = {.seed = 1, .trials = 3};
  trial_options_read(argc, argv, &options);
  const uint64_t seed = options.seed;
  const int trials = options.trials;
  device *devices[2] = {trial_device("cpu", 1), trial_device("cpu", 3)};
  int failed = 0, passed = 0;
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    if (!trial_is_asked(&options, o) || !trial_is_differentiable(o)) continue;
    if (!o->cases || !o->cases->attrs) {
      printf("FAIL %-24s has a gradient but declares no cases\n", o->name);
      failed++;
      continue;
    }
    double op_worst = 0;
    int count = 0;
    bool op_failed = false;
    for (const op_case *c = o->cases; c->attrs; c++) {
      for (int k = 0; k < trials; k++, count++) {
        double worst = 0, excess = 0, tolerance = c->tolerance > 0 ? c->tolerance : 2e-3;
        bool same = false;
        char shown[TRIAL_TEXT_BYTES];
        status error = run_trial(o, c, seed + (uint64_t)k, devices, &worst, &excess, &same, shown);
        if (worst > op_worst) op_worst = worst;
        if (!error && excess <= tolerance && same) continue;
        op_failed = true;
        printf("FAIL %-24s %s\n     ", o->name, shown);
        if (error) {
          fflush(stdout);
          error_print(stdout, error);
          error_free(error);
        } else if (!same) {
          printf("one thread and three threads give different bits\n");
        } else {
          printf("relative error %.3g, %.3g beyond rounding; tolerance %.3g\n", worst, excess,
                 tolerance);
        }
        printf("     again: check_operators %s --seed %llu --trials 1\n", o->name,
               (unsigned long long)(seed + (uint64_t)k));
      }
    }
    double bf16_worst = 0;
    op_failed |= check_bf16(o, seed, trials, devices, &bf16_worst);
    failed += op_failed;
    passed += !op_failed;
    if (!op_failed)
      printf("ok   %-24s %3d trials, worst relative error %.2g\n", o->name, count, op_worst);
    if (bf16_worst > 0) printf("     in bf16 %.2g from f32\n", bf16_worst);
  }
  device_close(devices[0]);
  device_close(devices[1]);
  printf("%d operators passed, %d failed\n", passed, failed);
  return failed || passed == 0;
}
