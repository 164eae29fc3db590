/* Division by multiplication, as kernels divide indices (device/cuda/divisor.h), against division. */
#include "base/rng.h"
#include "device/cuda/divisor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void check(int64_t n, int64_t by) {
  divisor d = divide_by(by);
  int64_t rest, quotient = divide(n, &d, &rest);
  if (quotient != n / by || rest != n % by)
    fail_msg("%lld / %lld gives %lld, rest %lld", (long long)n, (long long)by, (long long)quotient,
             (long long)rest);
}

/* Multiples of the divisor and their neighbours, where a wrong rounding shows. */
static void check_near_multiples(int64_t by, int64_t most, uint64_t drawn) {
  int64_t multiple = (int64_t)(drawn % (uint64_t)(most / by + 1)) * by;
  for (int64_t n = multiple - 1; n <= multiple + 1; n++)
    if (n >= 0 && n <= most) check(n, by);
}

static void small_numbers(void **state) {
  (void)state;
  for (int64_t by = 1; by < 200; by++)
    for (int64_t n = 0; n < 500; n++) check(n, by);
}

static uint64_t draw(rng *r) {
  uint64_t high = rng_u32(r);
  return high << 32 | rng_u32(r);
}

static void numbers_of_every_size(void **state) {
  (void)state;
  rng r = rng_open((rng_key){.run = 7}, 0);
  for (int bits = 0; bits < 62; bits++)
    for (int trial = 0; trial < 200; trial++) {
      int64_t by = ((int64_t)1 << bits) + (int64_t)(draw(&r) % ((uint64_t)1 << bits));
      check_near_multiples(by, INT32_MAX, draw(&r));
      check_near_multiples(by, INT64_MAX - 1, draw(&r));
    }
}

static void edges(void **state) {
  (void)state;
  static const int64_t numbers[] = {1,         2,         3,         INT32_MAX - 1,
                                    INT32_MAX, 1LL << 31, 1LL << 32, (1LL << 32) + 1,
                                    1LL << 62, INT64_MAX};
  enum { COUNT = sizeof numbers / sizeof *numbers };
  for (int i = 0; i < COUNT; i++) {
    check(0, numbers[i]);
    for (int k = 0; k < COUNT; k++) check(numbers[k], numbers[i]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(small_numbers),
                                     cmocka_unit_test(numbers_of_every_size),
                                     cmocka_unit_test(edges)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
