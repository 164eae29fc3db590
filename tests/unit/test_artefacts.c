/* Sample operators that imitate what scanners do to images, and those that hide or bend: by their definitions. */
#include "data_fixture.h"

static volume volume_of(int64_t x, int64_t y, int64_t z, int64_t channels) {
  volume v = {0};
  expect_ok(volume_allocate(&v, (int64_t[]){x, y, z}, channels));
  for (int a = 0; a < 4; a++) v.affine[a][a] = 1;
  return v;
}

static int64_t values_of(const volume *v) {
  return v->size[0] * v->size[1] * v->size[2] * v->channels;
}

static volume noisy_volume(int64_t x, int64_t y, int64_t z, int64_t channels) {
  volume v = volume_of(x, y, z, channels);
  rng r = rng_open(rng_key_of(3, "test", 0, "case", 0), 1);
  for (int64_t i = 0; i < values_of(&v); i++) v.data[i] = 5 + 2 * rng_normal(&r);
  return v;
}

/* A ramp shows the curve: straight between places, ends where they were, never falling. */
static void a_histogram_shift_is_a_rising_curve_of_straight_pieces(void **state) {
  (void)state;
  enum { PIECES = 4, STEPS = 10, LAST = PIECES * STEPS };
  arena memory = {0};
  volume v = volume_of(1, 1, LAST + 1, 2);
  for (int i = 0; i <= LAST; i++) {
    v.data[2 * i] = (float)(LAST - i) * 3 - 50; /* from above, so that order is looked at, too */
    v.data[2 * i + 1] = 7;
  }
  op_use use = USE(&memory, "random_histogram_shift", "control_points", "5", "probability", "1");
  int bent = 0;
  for (int crop = 0; crop < 50; crop++) {
    medical_case out = apply_with(use, &v, crop);
    const float *got = out.image.data;
    assert_true(got[0] == v.data[0] && fabsf(got[2 * LAST] - v.data[2 * LAST]) < 1e-4f);
    for (int i = 0; i <= LAST; i++) assert_true(got[2 * i + 1] == 7); /* a constant channel */
    for (int i = 1; i < LAST; i++) {
      float before = got[2 * i - 2] - got[2 * i], after = got[2 * i] - got[2 * i + 2];
      assert_true(after >= -1e-4f);
      if (i % STEPS != 0)
        assert_true(fabsf(before - after) < 1e-3f);
      else
        bent += fabsf(before - after) > 0.1f;
    }
    case_free(&out);
  }
  assert_true(bent > 100);
  /* A voxel that is no number stays one and takes no other along. */
  v.data[20] = NAN;
  medical_case out = apply(use, &v);
  assert_true(isnan(out.image.data[20]));
  for (int i = 0; i <= LAST; i++) assert_true(i == 10 || isfinite(out.image.data[2 * i]));
  case_free(&out);
  volume_free(&v);
  arena_free(&memory);
}

/* Without signal its values follow Rayleigh, with much signal they follow Gauss, of the same σ. */
static void rician_noise_is_rayleigh_in_the_dark_and_gaussian_in_the_light(void **state) {
  (void)state;
  arena memory = {0};
  volume v = volume_of(20, 20, 100, 1);
  const int64_t n = values_of(&v), half = n / 2;
  for (int64_t i = 0; i < n; i++) v.data[i] = i < half ? -3 : 97;
  op_use use = USE(&memory, "random_rician_noise", "sd", "2", "probability", "1");
  for (int crop = 0; crop < 5; crop++) {
    medical_case out = apply_with(use, &v, crop);
    double dark = 0, dark_squares = 0, light = 0, light_squares = 0;
    for (int64_t i = 0; i < n; i++) {
      double change = (double)out.image.data[i] - (double)v.data[i];
      if (i < half) {
        assert_true(change >= 0);
        dark += change / (double)half;
        dark_squares += change * change / (double)half;
      } else {
        light += change / (double)half;
        light_squares += change * change / (double)half;
      }
    }
    double sd = sqrt(dark_squares / 2);
    assert_true(sd > 0 && sd < 2);
    assert_true(fabs(dark / sd - sqrt(acos(0))) < 0.02); /* √(π/2) */
    assert_true(fabs(sqrt(light_squares) / sd - 1) < 0.03);
    assert_true(fabs(light) < 0.03 * sd + sd * sd / 100);
    case_free(&out);
  }
  volume_free(&v);
  arena_free(&memory);
}

static void sharpening_adds_what_smoothing_takes_away(void **state) {
  (void)state;
  arena memory = {0};
  volume v = noisy_volume(7, 9, 8, 2);
  const int64_t n = values_of(&v);
  medical_case smooth =
      apply(USE(&memory, "random_blur", "sd", "[0.8, 0.8]", "probability", "1"), &v);
  medical_case out = apply(USE(&memory, "random_sharpen", "sd", "[0.8, 0.8]", "strength",
                               "[1.5, 1.5]", "probability", "1"),
                           &v);
  int clipped = 0;
  for (int64_t c = 0; c < 2; c++) {
    float low = v.data[c], high = v.data[c];
    for (int64_t i = c; i < n; i += 2) {
      low = fminf(low, v.data[i]);
      high = fmaxf(high, v.data[i]);
    }
    for (int64_t i = c; i < n; i += 2) {
      float want = v.data[i] + 1.5f * (v.data[i] - smooth.image.data[i]);
      clipped += want < low || want > high;
      want = fminf(fmaxf(want, low), high);
      assert_true(fabsf(out.image.data[i] - want) < 1e-5f);
    }
  }
  assert_true(clipped > 10);
  case_free(&smooth);
  case_free(&out);
  volume_free(&v);
  arena_free(&memory);
}

/* Half of 16 frequencies along one axis: waves up to the seventh stay, the others vanish. */
static void ringing_keeps_the_low_frequencies_alone(void **state) {
  (void)state;
  static const char *const axes[3] = {"x", "y", "z"};
  enum { N = 16, M = 8 };
  arena memory = {0};
  for (int a = 0; a < 3; a++) {
    op_use use =
        USE(&memory, "random_ringing", "keep", "[0.5, 0.5]", "axes", axes[a], "probability", "1");
    for (int frequency = 0; frequency < N; frequency++) {
      int64_t size[3] = {3, 3, 3};
      size[a] = N;
      volume v = volume_of(size[0], size[1], size[2], 2);
      const int64_t stride = a == 0 ? 18 : a == 1 ? 6 : 2, n = values_of(&v);
      for (int64_t i = 0; i < n; i++) {
        double at = (double)(i / stride % N) + 0.5;
        double other = (double)(i / (stride * N) + i % stride); /* differs from line to line */
        v.data[i] = (float)((1 + other) * cos(acos(-1) * at * frequency / N));
      }
      medical_case out = apply(use, &v);
      for (int64_t i = 0; i < n; i++)
        assert_true(fabsf(out.image.data[i] - (frequency < M ? v.data[i] : 0)) < 2e-5f);
      case_free(&out);
      volume_free(&v);
    }
  }
  /* All frequencies: nothing changes. */
  volume v = noisy_volume(5, 7, 6, 1);
  medical_case out =
      apply(USE(&memory, "random_ringing", "keep", "[1, 1]", "probability", "1"), &v);
  for (int64_t i = 0; i < values_of(&v); i++)
    assert_true(fabsf(out.image.data[i] - v.data[i]) < 1e-5f);
  case_free(&out);
  volume_free(&v);
  arena_free(&memory);
}

/* d(x + 1) + d(x − 1) = 2 cos(2π k / n) d(x), with one k for the whole crop. */
static void a_spike_is_one_plane_wave(void **state) {
  (void)state;
  arena memory = {0};
  volume v = noisy_volume(8, 9, 10, 2);
  float low[2] = {v.data[0], v.data[1]}, high[2] = {v.data[0], v.data[1]};
  for (int64_t i = 0; i < values_of(&v); i++) {
    low[i % 2] = fminf(low[i % 2], v.data[i]);
    high[i % 2] = fmaxf(high[i % 2], v.data[i]);
  }
  op_use use = USE(&memory, "random_spike", "amplitude", "[0.5, 0.5]", "probability", "1");
  for (int crop = 0; crop < 20; crop++) {
    medical_case out = apply_with(use, &v, crop);
    double d[8][9][10], most = 0;
    for (int64_t i = 0; i < 720; i++) {
      double of[2];
      for (int c = 0; c < 2; c++)
        of[c] = ((double)out.image.data[2 * i + c] - (double)v.data[2 * i + c]) /
                ((double)high[c] - (double)low[c]);
      assert_true(fabs(of[0] - of[1]) < 1e-5); /* the same wave in both channels */
      d[i / 90][i / 10 % 9][i % 10] = of[0];
      most = fmax(most, fabs(of[0]));
    }
    assert_true(most <= 0.5 + 1e-5);
    for (int a = 0; a < 3; a++) {
      static const int size[3] = {8, 9, 10};
      double fits = 9;
      for (int k = 0; k <= size[a] / 2; k++) {
        double worst = 0, factor = 2 * cos(2 * acos(-1) * k / size[a]);
        for (int i = 0; i < 720; i++) {
          int at[3] = {i / 90, i / 10 % 9, i % 10};
          if (at[a] == 0 || at[a] == size[a] - 1) continue;
          int p[3] = {at[0], at[1], at[2]}, q[3] = {at[0], at[1], at[2]};
          p[a]--;
          q[a]++;
          worst = fmax(worst, fabs(d[p[0]][p[1]][p[2]] + d[q[0]][q[1]][q[2]] -
                                   factor * d[at[0]][at[1]][at[2]]));
        }
        fits = fmin(fits, worst);
      }
      assert_true(fits < 2e-5);
    }
    case_free(&out);
  }
  volume_free(&v);
  arena_free(&memory);
}

static void a_cutout_is_a_box_of_the_image_alone(void **state) {
  (void)state;
  arena memory = {0};
  volume v = noisy_volume(10, 20, 30, 2);
  for (int fill = 0; fill < 2; fill++) {
    op_use use = USE(&memory, "random_cutout", "extent", "[0.2, 0.5]", "fill",
                     fill ? "mean" : "zero", "probability", "1");
    double want[2] = {0, 0};
    for (int64_t i = 0; fill && i < values_of(&v); i++) want[i % 2] += (double)v.data[i] / 6000;
    for (int crop = 0; crop < 30; crop++) {
      labels label = {0};
      expect_ok(labels_allocate(&label, v.size));
      memset(label.data, 3, 6000);
      memcpy(label.affine, v.affine, sizeof v.affine);
      medical_case in = {.name = "case", .image = v, .label = label}, out;
      data_spec spec = {.sample = &use, .sample_count = 1};
      expect_ok(case_sample(&spec, &in, rng_key_of(1, "stage", 0, "case", crop), &out));
      int64_t first[3] = {99, 99, 99}, last[3] = {-1, -1, -1}, hidden = 0;
      for (int64_t i = 0; i < 6000; i++) {
        const int64_t at[3] = {i / 600, i / 30 % 20, i % 30};
        bool is_hidden = out.image.data[2 * i] != v.data[2 * i];
        assert_true((out.image.data[2 * i + 1] != v.data[2 * i + 1]) == is_hidden);
        hidden += is_hidden;
        for (int a = 0; is_hidden && a < 3; a++) {
          first[a] = at[a] < first[a] ? at[a] : first[a];
          last[a] = at[a] > last[a] ? at[a] : last[a];
        }
        for (int c = 0; is_hidden && c < 2; c++)
          assert_true(fabs((double)out.image.data[2 * i + c] - want[c]) < 1e-4);
      }
      int64_t box = 1;
      for (int a = 0; a < 3; a++) {
        int64_t size = last[a] - first[a] + 1;
        assert_true(size * 10 >= v.size[a] * 2 - 5 && size * 10 <= v.size[a] * 5 + 5);
        box *= size;
      }
      assert_int_equal(hidden, box);
      assert_memory_equal(out.label.data, label.data, 6000);
      case_free(&out);
      labels_free(&label);
    }
  }
  volume_free(&v);
  arena_free(&memory);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_histogram_shift_is_a_rising_curve_of_straight_pieces),
      cmocka_unit_test(rician_noise_is_rayleigh_in_the_dark_and_gaussian_in_the_light),
      cmocka_unit_test(sharpening_adds_what_smoothing_takes_away),
      cmocka_unit_test(ringing_keeps_the_low_frequencies_alone),
      cmocka_unit_test(a_spike_is_one_plane_wave),
      cmocka_unit_test(a_cutout_is_a_box_of_the_image_alone),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
