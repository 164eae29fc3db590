/* Tail probabilities of the normal, t and F distributions. */
#include "statistics/statistics.h"

#include <math.h>

static const double sqrt_two = 1.4142135623730951, sqrt_two_pi = 2.5066282746310002,
                    log_sqrt_two_pi = 0.9189385332046727;

double normal_above(double z) {
  return 0.5 * erfc(z / sqrt_two);
}

/* A first guess within 5e-4 (Abramowitz and Stegun 26.2.23), then Halley's method. */
double normal_quantile(double p) {
  if (!(p >= 0 && p <= 1)) return (double)NAN;
  if (p == 0) return -(double)INFINITY;
  if (p > 0.5) return -normal_quantile(1 - p); /* 1 − p is exact there */
  double s = sqrt(-2 * log(p));
  double z = (2.515517 + s * (0.802853 + s * 0.010328)) /
                 (1 + s * (1.432788 + s * (0.189269 + s * 0.001308))) -
             s;
  for (int i = 0; i < 4; i++) {
    double density = exp(-0.5 * z * z) / sqrt_two_pi;
    if (!(density > 0)) break;
    double step = (normal_above(-z) - p) / density;
    z -= step / (1 + 0.5 * z * step);
  }
  return z;
}

/* ln Γ(x) − ((x − 1/2) ln x − x + ln √2π) for x ≥ 10: Stirling's series. */
static double stirling_rest(double x) {
  double r = 1 / (x * x);
  return (1.0 / 12 -
          r * (1.0 / 360 -
               r * (1.0 / 1260 - r * (1.0 / 1680 - r * (1.0 / 1188 - r * 691.0 / 360360))))) /
         x;
}

/* ln B(a, b). Differences of large lgamma lose digits, so the large parts are cancelled by hand. */
static double log_beta(double a, double b) {
  double small = a < b ? a : b, large = a < b ? b : a, sum = a + b;
  if (large < 10) return lgamma(small) + lgamma(large) - lgamma(sum);
  double rest = stirling_rest(large) - stirling_rest(sum) - (large - 0.5) * log1p(small / large);
  if (small < 10) return lgamma(small) + rest - small * log(sum) + small;
  return rest + stirling_rest(small) + log_sqrt_two_pi - (small - 0.5) * log1p(large / small) -
         0.5 * log(sum);
}

/* The continued fraction of I_x(a, b) (DLMF 8.17.22) by Lentz's method; for x below the mean. Needs
 * some √max(a, b) terms. */
static double beta_fraction(double a, double b, double x) {
  const double tiny = 1e-300;
  double c = 1, d = 1 - (a + b) * x / (a + 1);
  d = 1 / (fabs(d) < tiny ? tiny : d);
  double value = d;
  for (int i = 1; i < 1 << 20; i++) {
    double m = i, even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 + even * d;
    c = 1 + even / c;
    d = 1 / (fabs(d) < tiny ? tiny : d);
    if (fabs(c) < tiny) c = tiny;
    value *= d * c;
    d = 1 + odd * d;
    c = 1 + odd / c;
    d = 1 / (fabs(d) < tiny ? tiny : d);
    if (fabs(c) < tiny) c = tiny;
    value *= d * c;
    if (fabs(d * c - 1) < 4e-16) break;
  }
  return value;
}

double beta_regularized(double a, double b, double x, double y) {
  if (!(a > 0 && b > 0 && x >= 0 && y >= 0)) return (double)NAN;
  if (x == 0) return 0;
  if (y == 0) return 1;
  double log_x = x < 0.5 ? log(x) : log1p(-y), log_y = y < 0.5 ? log(y) : log1p(-x);
  double factor = exp(a * log_x + b * log_y - log_beta(a, b));
  if (x < (a + 1) / (a + b + 2)) return factor / a * beta_fraction(a, b, x);
  return 1 - factor / b * beta_fraction(b, a, y);
}

double student_outside(double t, double freedom) {
  if (isnan(t) || !(freedom > 0)) return (double)NAN;
  t = fabs(t);
  if (isinf(t)) return 0;
  /* x = ν / (ν + t²), without squaring what is large */
  double ratio = t > 1 ? freedom / t / t : t * t / freedom;
  double one = 1 / (1 + ratio), other = ratio / (1 + ratio);
  return beta_regularized(0.5 * freedom, 0.5, t > 1 ? other : one, t > 1 ? one : other);
}

double f_above(double f, double freedom_1, double freedom_2) {
  if (isnan(f) || !(freedom_1 > 0 && freedom_2 > 0)) return (double)NAN;
  if (f <= 0) return 1;
  if (isinf(f)) return 0;
  double ratio = freedom_1 * f / freedom_2;
  return beta_regularized(0.5 * freedom_2, 0.5 * freedom_1, 1 / (1 + ratio), ratio / (1 + ratio));
}
