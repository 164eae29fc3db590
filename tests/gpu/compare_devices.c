/* A device against the CPU: results, gradients and running statistics of every step operator, over
 * its declared cases (tests/gradient/trial.h). An operator without a kernel there fails.
 *
 *   compare_devices [--device NAME] [OPERATOR…] [--seed N] [--trials N]
 *
 * Two tensors agree when ‖a − b‖ ≤ 1e-4 ‖b‖; whole numbers agree exactly. Everything runs twice on
 * the device, and both must agree to the bit. Operators with products run in bf16, too: there the
 * device agrees as closely with the CPU's bf16 (but for attention), and within 2e-2 with f32; and in
 * tf32, which on the CPU is f32: within 2e-3. */
#include "gpu/comparison.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double tolerance = 1e-4, tolerance_of_tf32 = 2e-3, tolerance_from_f32 = 2e-2;

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
        status error = compare_trial(&s, cpu, other, &out);
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
  trial_options options = {.seed = 1, .trials = 2, .device = "cuda"};
  trial_options_read(argc, argv, &options);
  device *cpu = trial_device("cpu", 1), *other = trial_device(options.device, 1);
  printf("%s against %s\n", other->description, cpu->description);
  int failed = 0, passed = 0, missing = 0;
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    bool is_step = o->cpu && !(o->traits & (OP_VIEW | OP_CPU_ONLY));
    if (!trial_is_asked(&options, o)) continue;
    if (is_step && !other->supports(other, o)) {
      printf("MISS %-24s has no kernel for %s\n", o->name, other->name);
      missing++;
    } else if (!(o->traits & OP_NOT_IN_GRAPHS) && o->cases && o->cases->attrs) {
      bool agrees = compare_operator(o, options.seed, options.trials, cpu, other);
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
