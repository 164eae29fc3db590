#include "ops/kernels/cubic_spline.h"

#include <math.h>
#include <stdlib.h>

/* End values are repeated this often on both sides before the filter; what the filter then assumes
 * behind them weighs POLE^12, less than 2e-7. SciPy pads as much. */
enum { PADDING = SPLINE_BEYOND + 2, COLUMNS = 32, HORIZON = 40 };

static const double POLE = -0.26794919243112270; /* √3 − 2 */

/* In place: values to the coefficients of the B-splines, m rows of COLUMNS. The recursive filter
 * 6 / (z + 4 + 1/z), forwards and backwards, begun as if the rows went on mirrored. */
static void filter(double (*row)[COLUMNS], int64_t m) {
  for (int k = 0; k < COLUMNS; k++) {
    double sum = 0, weight = 1;
    for (int64_t i = 0; i < m && i < HORIZON; i++, weight *= POLE) sum += weight * row[i][k];
    row[0][k] = 6 * sum;
  }
  for (int64_t i = 1; i < m; i++)
    for (int k = 0; k < COLUMNS; k++) row[i][k] = 6 * row[i][k] + POLE * row[i - 1][k];
  for (int k = 0; k < COLUMNS; k++)
    row[m - 1][k] = POLE / (POLE * POLE - 1) * (POLE * row[m - 2][k] + row[m - 1][k]);
  for (int64_t i = m - 2; i >= 0; i--)
    for (int k = 0; k < COLUMNS; k++) row[i][k] = POLE * (row[i + 1][k] - row[i][k]);
}

static void read_columns(const float *in, int64_t n, int64_t after, int columns,
                         double (*row)[COLUMNS]) {
  for (int64_t i = -PADDING; i < n + PADDING; i++) {
    const float *from = in + (i < 0 ? 0 : i >= n ? n - 1 : i) * after;
    for (int k = 0; k < columns; k++) row[i + PADDING][k] = (double)from[k];
  }
}

/* The weights of the four B-splines that reach a place `t` ∈ [0, 1) behind the second of them. */
static void weights_at(double t, double weight[4]) {
  double u = 1 - t;
  weight[0] = u * u * u / 6;
  weight[1] = (t * t * (t - 2) * 3 + 4) / 6;
  weight[2] = (u * u * (u - 2) * 3 + 4) / 6;
  weight[3] = t * t * t / 6;
}

static void write_columns(double (*row)[COLUMNS], int64_t n, const double *at, int64_t out_n,
                          int64_t after, int columns, float *out) {
  for (int64_t i = 0; i < out_n; i++) {
    double x = at[i], last = (double)(n - 1 + SPLINE_BEYOND), weight[4];
    x = x < -SPLINE_BEYOND ? -SPLINE_BEYOND : x > last ? last : x;
    int64_t low = (int64_t)floor(x);
    weights_at(x - (double)low, weight);
    double(*near)[COLUMNS] = row + low + PADDING - 1;
    for (int k = 0; k < columns; k++)
      out[i * after + k] = (float)(weight[0] * near[0][k] + weight[1] * near[1][k] +
                                   weight[2] * near[2][k] + weight[3] * near[3][k]);
  }
}

status cubic_spline_lines(const float *in, int64_t before, int64_t n, int64_t after,
                          const double *at, int64_t out_n, float *out) {
  int64_t m = n + 2 * PADDING;
  double(*row)[COLUMNS] = calloc((size_t)m, sizeof *row);
  if (!row) return error_out_of_memory((size_t)m * sizeof *row);
  for (int64_t b = 0; b < before; b++)
    for (int64_t k = 0; k < after; k += COLUMNS) {
      int columns = after - k < COLUMNS ? (int)(after - k) : COLUMNS;
      read_columns(in + b * n * after + k, n, after, columns, row);
      filter(row, m);
      write_columns(row, n, at, out_n, after, columns, out + b * out_n * after + k);
    }
  free(row);
  return OK;
}
