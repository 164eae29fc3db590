/* A trial of an operator on two devices: results, gradients and running statistics. */
#ifndef STRATA_TESTS_GPU_COMPARISON_H
#define STRATA_TESTS_GPU_COMPARISON_H

#include "gradient/trial.h"

#include "graph/precision.h"

typedef struct setting {
  const op *op;
  const op_case *trial_case;
  uint64_t seed;
  precision precision;
} setting;

/* What a trial has shown. Differences are ‖a − b‖ / ‖b‖ of the worst tensor, infinite where whole numbers
 * differ. */
typedef struct outcome {
  double from_cpu, from_f32; /* the second in bf16 only */
  bool is_there, repeats;    /* it has products to be rounded; two runs have the same bits */
  char shown[TRIAL_TEXT_BYTES];
} outcome;

/* Runs it once on the CPU, and twice on the other device. */
status compare_trial(const setting *s, device *cpu, device *other, outcome *out);

#endif
