/* dropout, spatial_dropout and stochastic_depth by statistics: how much is dropped, what is dropped
 * together, how the rest is scaled; and that the draw depends on the step but not on threads. */
#include "operators.h"

#include "base/rng.h"
#include "ops/kernels/gemm.h"
#include "ops/kernels/philox.h"

enum { N = 16, VOXELS = 60, CHANNELS = 150, LENGTH = VOXELS * CHANNELS, ELEMENTS = N * LENGTH };

/* One forward and backward pass over ones; returns the results, N × VOXELS × CHANNELS. The backward
 * pass on ones must be the same. */
static float *run(const char *op_name, const char *rate, const char *mode, int step, int threads) {
  arena memory = {0};
  bench t;
  bench_open(&t, threads);
  for (int n = 0; n < N; n++) t.keys[n] = rng_key_of(17, "test", step, "case", n);
  const op *o = op_find(op_name);
  void *attrs = arena_alloc(&memory, o->attrs_bytes);
  op_defaults(o, attrs);
  set_attr(o, attrs, "rate", rate, &memory);
  if (mode) set_attr(o, attrs, "mode", mode, &memory);
  static float ones[ELEMENTS];
  for (int i = 0; i < ELEMENTS; i++) ones[i] = 1;
  value_id x = bench_input(&t, "x", DTYPE_F32, SHAPE(N, VOXELS, CHANNELS), ones), y, dx[32];
  must(build_node(&t.b, op_name, attrs, &x, 1, &y));
  must(bench_run(&t));
  bench_grad(&t, x, dx);
  assert_memory_equal(t.data[y], t.data[dx[0]], sizeof ones);
  float *out = malloc(sizeof ones);
  memcpy(out, t.data[y], sizeof ones);
  bench_close(&t);
  arena_free(&memory);
  return out;
}

typedef struct kind {
  const char *op, *mode;
  int64_t together, stride; /* elements of a sample that share one draw, and their distance */
} kind;

static const kind kinds[] = {{"dropout", NULL, 1, 1},
                             {"spatial_dropout", NULL, VOXELS, CHANNELS},
                             {"stochastic_depth", "row", LENGTH, 1}};

/* Every draw of a pass, 1 where the thing was kept; checks that what belongs together agrees. */
static int draws_of(const kind *k, const float *y, double rate, bool *kept) {
  int count = 0;
  float factor = (float)(1 / (1 - rate));
  int64_t draws = LENGTH / k->together;
  for (int64_t n = 0; n < N; n++)
    for (int64_t d = 0; d < draws; d++) {
      const float *first = y + n * LENGTH + d;
      for (int64_t i = 0; i < k->together; i++) {
        float v = first[i * k->stride];
        assert_true(v == 0 || fabsf(v - factor) < 1e-6f);
        assert_true(v == first[0]);
      }
      kept[count++] = first[0] != 0;
    }
  return count;
}

static void the_share_the_scale_and_what_is_dropped_together(void **state) {
  (void)state;
  static const struct {
    const char *text;
    double rate;
  } rates[] = {{"0.1", 0.1}, {"0.5", 0.5}, {"0.8", 0.8}};
  static bool kept[ELEMENTS];
  for (int k = 0; k < 3; k++)
    for (int r = 0; r < 3; r++) {
      double rate = rates[r].rate, dropped = 0, total = 0;
      for (int step = 0; step < (k == 2 ? 200 : 3); step++) {
        float *y = run(kinds[k].op, rates[r].text, kinds[k].mode, step, 1);
        int count = draws_of(&kinds[k], y, rate, kept);
        for (int i = 0; i < count; i++) dropped += !kept[i];
        total += count;
        free(y);
      }
      assert_true(fabs(dropped - rate * total) < 4 * sqrt(rate * (1 - rate) * total));
    }
}

/* With every set of vectors the processor has; counters that wrap around among them. */
static void blocks_in_vector_lanes_are_those_of_the_generator(void **state) {
  (void)state;
  static const uint32_t counters[][4] = {
      {0, 0, 0, 0}, {7, 1, 2, 3}, {0xFFFFFFE0u, 0xFFFFFFFFu, 0x80000000u, 5}};
  const uint32_t key[2] = {0xA4093822u, 0x299F31D0u};
  const gemm_kernels *sets[GEMM_MAX_SETS];
  int set_count = gemm_available(sets);
  for (int t = 0; t < 3 * set_count; t++) {
    uint32_t bits[PHILOX_BLOCK][PHILOX_BLOCKS], one[PHILOX_BLOCK];
    int c = t % 3;
    gemm_choose(sets[t / 3]);
    philox_blocks(counters[c], key, bits);
    for (int i = 0; i < PHILOX_BLOCKS; i++) {
      uint32_t counter[4] = {counters[c][0] + (uint32_t)i, counters[c][1], counters[c][2],
                             counters[c][3]};
      philox4x32(counter, key, one);
      for (int n = 0; n < PHILOX_BLOCK; n++) assert_int_equal(bits[n][i], one[n]);
    }
  }
  gemm_choose(NULL);
}

/* Draws of different samples and of different steps agree no more often than by chance. */
static void draws_differ_between_samples_and_steps(void **state) {
  (void)state;
  static bool now[ELEMENTS], before[ELEMENTS];
  for (int k = 0; k < 3; k++) {
    double same_step = 0, same_sample = 0, steps = 0, samples = 0;
    int per_sample = (int)(LENGTH / kinds[k].together);
    for (int step = 0; step < (k == 2 ? 100 : 3); step++) {
      float *y = run(kinds[k].op, "0.5", kinds[k].mode, step, 1);
      int count = draws_of(&kinds[k], y, 0.5, now);
      for (int i = 0; i < count; i++) {
        if (step > 0) same_step += now[i] == before[i], steps++;
        if (i >= per_sample) same_sample += now[i] == now[i - per_sample], samples++;
      }
      memcpy(before, now, sizeof now);
      free(y);
    }
    assert_true(fabs(same_step - steps / 2) < 2 * sqrt(steps));
    assert_true(fabs(same_sample - samples / 2) < 2 * sqrt(samples));
  }
}

static void a_batch_is_dropped_together_in_batch_mode(void **state) {
  (void)state;
  int dropped = 0;
  for (int step = 0; step < 60; step++) {
    float *y = run("stochastic_depth", "0.5", "batch", step, 1);
    for (int i = 1; i < ELEMENTS; i++) assert_true(y[i] == y[0]);
    assert_true(y[0] == 0 || y[0] == 2);
    dropped += y[0] == 0;
    free(y);
  }
  assert_in_range(dropped, 15, 45);
}

static void threads_do_not_matter(void **state) {
  (void)state;
  for (int k = 0; k < 3; k++) {
    float *one = run(kinds[k].op, "0.3", kinds[k].mode, 5, 1);
    float *three = run(kinds[k].op, "0.3", kinds[k].mode, 5, 3);
    assert_memory_equal(one, three, ELEMENTS * sizeof *one);
    free(one);
    free(three);
  }
}

static void a_rate_of_zero_leaves_no_node(void **state) {
  (void)state;
  for (int k = 0; k < 3; k++)
    for (int training = 0; training < 2; training++) {
      arena memory = {0};
      bench t;
      bench_open(&t, 1);
      t.g->training = training;
      const op *o = op_find(kinds[k].op);
      void *attrs = arena_alloc(&memory, o->attrs_bytes);
      op_defaults(o, attrs);
      set_attr(o, attrs, "rate", training ? "0" : "0.5", &memory);
      value_id x = build_input(&t.b, "x", DTYPE_F32, SHAPE(2, 3, 4)), y;
      must(build_node(&t.b, o->name, attrs, &x, 1, &y));
      assert_int_equal(y, x);
      bench_close(&t);
      arena_free(&memory);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_share_the_scale_and_what_is_dropped_together),
      cmocka_unit_test(blocks_in_vector_lanes_are_those_of_the_generator),
      cmocka_unit_test(draws_differ_between_samples_and_steps),
      cmocka_unit_test(a_batch_is_dropped_together_in_batch_mode),
      cmocka_unit_test(threads_do_not_matter),
      cmocka_unit_test(a_rate_of_zero_leaves_no_node),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
