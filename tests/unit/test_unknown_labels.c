/* Voxels whose class is unknown: what they do to the losses, to crops, statistics and metrics. */
#include "operators.h"

#include "data/unknown.h"

/* ---- losses ------------------------------------------------------------------------------------ */

enum { VOXELS = 5000, CLASSES = 3, LOGITS = VOXELS * CLASSES }; /* more than one task's voxels */

static const char *const losses[] = {"cross_entropy", "dice",    "dice_ce",         "focal",
                                     "dice_focal",    "tversky", "generalized_dice"};
enum { LOSSES = sizeof losses / sizeof *losses };

/* Loss and gradient of the logits, (samples, VOXELS, CLASSES). */
static float loss_of(const char *name, int samples, const float *logits, const int32_t *target,
                     float *gradient) {
  bench t;
  bench_open(&t, 2);
  value_id in[2] = {bench_input(&t, "logits", DTYPE_F32, SHAPE(samples, VOXELS, CLASSES), logits),
                    bench_input(&t, "target", DTYPE_I32, SHAPE(samples, VOXELS), target)};
  value_id out[8], dx[32];
  const float one = 1;
  must(build_node(&t.b, name, NULL, in, 2, out));
  must(bench_run(&t));
  float loss = *(const float *)t.data[out[0]];
  bench_grad(&t, bench_input(&t, "dy", DTYPE_F32, (shape){.rank = 0}, &one), dx);
  memcpy(gradient, t.data[dx[0]], (size_t)samples * LOGITS * sizeof *gradient);
  bench_close(&t);
  return loss;
}

typedef struct example {
  float logits[2 * LOGITS], gradient[2 * LOGITS], other[2 * LOGITS];
  int32_t target[2 * VOXELS];
} example;

/* Every third voxel is unknown. */
static example *example_new(void) {
  example *e = calloc(1, sizeof *e);
  rng r = rng_open(rng_key_of(3, "test", 0, "case", 0), 0);
  for (int i = 0; i < 2 * LOGITS; i++) e->logits[i] = 2 * rng_normal(&r);
  for (int v = 0; v < 2 * VOXELS; v++)
    e->target[v] = v % 3 == 1 ? TARGET_UNKNOWN : (int32_t)rng_below(&r, CLASSES);
  return e;
}

static void losses_do_not_see_unknown_voxels(void **state) {
  (void)state;
  example *e = example_new();
  for (int i = 0; i < LOSSES; i++) {
    float loss = loss_of(losses[i], 2, e->logits, e->target, e->gradient);
    assert_true(loss > 0 && isfinite(loss));
    for (int v = 0; v < 2 * VOXELS; v++)
      for (int c = 0; c < CLASSES; c++)
        if (e->target[v] == TARGET_UNKNOWN) {
          assert_true(e->gradient[v * CLASSES + c] == 0);
          e->logits[v * CLASSES + c] = (float)(c * 7 - v % 11);
        }
    assert_true(loss_of(losses[i], 2, e->logits, e->target, e->other) == loss);
    assert_memory_equal(e->gradient, e->other, sizeof e->other);
  }
  free(e);
}

static void a_sample_without_a_known_voxel_changes_nothing(void **state) {
  (void)state;
  example *e = example_new();
  for (int v = VOXELS; v < 2 * VOXELS; v++) e->target[v] = TARGET_UNKNOWN;
  for (int i = 0; i < LOSSES; i++) {
    float alone = loss_of(losses[i], 1, e->logits, e->target, e->gradient);
    assert_true(loss_of(losses[i], 2, e->logits, e->target, e->other) == alone);
    assert_memory_equal(e->gradient, e->other, LOGITS * sizeof *e->other);
    for (int k = LOGITS; k < 2 * LOGITS; k++) assert_true(e->other[k] == 0);
  }
  free(e);
}

static void where_nothing_is_known_loss_and_gradient_are_zero(void **state) {
  (void)state;
  example *e = example_new();
  for (int v = 0; v < 2 * VOXELS; v++) e->target[v] = TARGET_UNKNOWN;
  for (int i = 0; i < LOSSES; i++) {
    assert_true(loss_of(losses[i], 2, e->logits, e->target, e->gradient) == 0);
    for (int k = 0; k < 2 * LOGITS; k++) assert_true(e->gradient[k] == 0);
  }
  free(e);
}

static void distances_to_boundaries_known_in_part_are_refused(void **state) {
  (void)state;
  const char *names[] = {"boundary", "hausdorff_loss"};
  for (int i = 0; i < 2; i++) {
    bench t;
    bench_open(&t, 1);
    int32_t target[8] = {0, 1, 1, TARGET_UNKNOWN, 0, 0, 1, 0};
    value_id in[2] = {ramp(&t, SHAPE(1, 2, 2, 2, 2)),
                      bench_input(&t, "target", DTYPE_I32, SHAPE(1, 2, 2, 2), target)};
    value_id out[8];
    must(build_node(&t.b, names[i], NULL, in, 2, out));
    must_fail(bench_run(&t), "known in part");
    bench_close(&t);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(losses_do_not_see_unknown_voxels),
      cmocka_unit_test(a_sample_without_a_known_voxel_changes_nothing),
      cmocka_unit_test(where_nothing_is_known_loss_and_gradient_are_zero),
      cmocka_unit_test(distances_to_boundaries_known_in_part_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
