/* linear and matmul: matrix products by cuBLASLt; ops/linear/linear.c, matmul.c have the
 * definitions. */
#include "device/cuda/channels.cuh"
#include "device/cuda/index.cuh"
#include "device/cuda/libraries.cuh"

namespace linear_kernels {

static int64_t rows_of(const plugin_shape *s) {
  return elements(s) / last_extent(s);
}

/* y (rows × F) = x (rows × C) · weightᵀ + bias, weight F × C */
CUDA_OP(linear) {
  int64_t rows = rows_of(in_shape(l, 0)), c = last_extent(in_shape(l, 0));
  int64_t f = last_extent(out_shape(l, 0));
  matrix_product p = {};
  p.m = rows, p.n = f, p.k = c, p.batch = 1;
  p.a = in(l, 0), p.b = in(l, 1), p.c = out(l, 0), p.bias = in(l, 2);
  p.a_row = c, p.b_row = c, p.c_row = f;
  p.b_transposed = true;
  p.alpha = 1;
  return multiply_matrices(l, &p);
}

CUDA_OP(linear_backward_data) {
  int64_t rows = rows_of(in_shape(l, 0)), f = last_extent(in_shape(l, 0));
  int64_t c = last_extent(out_shape(l, 0));
  matrix_product p = {};
  p.m = rows, p.n = c, p.k = f, p.batch = 1;
  p.a = in(l, 0), p.b = in(l, 1), p.c = out(l, 0);
  p.a_row = f, p.b_row = c, p.c_row = c;
  p.alpha = 1;
  return multiply_matrices(l, &p);
}

CUDA_SCRATCH(linear_backward_weight) {
  return column_sums_scratch(rows_of(in_shape(l, 1)), last_extent(in_shape(l, 1)));
}

CUDA_OP(linear_backward_weight) {
  int64_t rows = rows_of(in_shape(l, 0)), c = last_extent(in_shape(l, 0));
  int64_t f = last_extent(in_shape(l, 1));
  matrix_product p = {};
  p.m = f, p.n = c, p.k = rows, p.batch = 1;
  p.a = in(l, 1), p.b = in(l, 0), p.c = out(l, 0);
  p.a_row = f, p.b_row = c, p.c_row = c;
  p.a_transposed = true;
  p.alpha = 1;
  status error = multiply_matrices(l, &p);
  if (error || !flag(l, "bias")) return error;
  return sum_columns(l, in(l, 1), rows, f, out(l, 1));
}

/* ---- matmul ------------------------------------------------------------------------------------ */

/* How often the leading axes of `x` make one run with a fixed distance: for the usual products, of
 * equal leading axes or one matrix for all, there is a single batch. */
static int64_t leading(const plugin_shape *s) {
  return elements_before(s, s->rank - 2);
}

/* Which matrix of x takes part in product `item`; by NumPy's rule on the leading axes. */
static int64_t matrix_of(const plugin_shape *x, const plugin_shape *whole, int64_t item) {
  int64_t index = 0, step = 1;
  for (int i = whole->rank - 3, s = x->rank - 3; s >= 0; i--, s--) {
    if (x->dim[s] > 1) index += item % whole->dim[i] * step;
    item /= whole->dim[i];
    step *= x->dim[s];
  }
  return index;
}

CUDA_OP(matmul) {
  const plugin_shape *a = in_shape(l, 0), *b = in_shape(l, 1), *y = out_shape(l, 0);
  matrix_product p = {};
  p.m = y->dim[y->rank - 2], p.n = y->dim[y->rank - 1];
  p.a_transposed = flag(l, "transpose_a");
  p.b_transposed = flag(l, "transpose_b");
  p.k = a->dim[a->rank - (p.a_transposed ? 2 : 1)];
  p.a_row = last_extent(a), p.b_row = last_extent(b), p.c_row = p.n;
  p.alpha = 1;
  int64_t products = leading(y), of_a = leading(a), of_b = leading(b);
  bool regular = (of_a == products || of_a == 1) && (of_b == products || of_b == 1);
  int64_t a_size = p.m * p.k, b_size = p.k * p.n;
  p.batch = regular ? products : 1;
  p.a_step = of_a == 1 ? 0 : a_size;
  p.b_step = of_b == 1 ? 0 : b_size;
  p.c_step = p.m * p.n;
  for (int64_t item = 0; item < products; item += p.batch) {
    p.a = in(l, 0) + (regular ? 0 : matrix_of(a, y, item)) * a_size;
    p.b = in(l, 1) + (regular ? 0 : matrix_of(b, y, item)) * b_size;
    p.c = out(l, 0) + item * p.c_step;
    status error = multiply_matrices(l, &p);
    if (error) return error;
  }
  return OK;
}

} // namespace linear_kernels
