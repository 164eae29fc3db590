/* linear and matmul: matrix products by cuBLASLt; ops/linear/linear.c, matmul.c have the
 * definitions. */
#include "device/cuda/channels.cuh"
#include "device/cuda/index.cuh"
#include "device/cuda/libraries.cuh"

namespace linear_kernels {

static int64_t rows_of(const plugin_shape *s) {
  return elements(s) / last_extent(s);
}

/* One product of matrices without gaps, m×k by k×n as they are multiplied; the factors are the caller's. */
static matrix_product dense(const launch *l, int64_t m, int64_t n, int64_t k) {
  matrix_product p = {};
  p.m = m, p.n = n, p.k = k, p.batch = 1;
  p.c = out(l, 0), p.c_row = n;
  p.alpha = 1;
  p.bf16 = is_bf16(l), p.tf32 = is_tf32(l);
  return p;
}

/* y (rows × F) = x (rows × C) · weightᵀ + bias, weight F × C */
static matrix_product forward_of(const launch *l) {
  int64_t c = last_extent(in_shape(l, 0)), f = last_extent(out_shape(l, 0));
  matrix_product p = dense(l, rows_of(in_shape(l, 0)), f, c);
  p.a = source_of(l, 0), p.b = source_of(l, 1), p.bias = in(l, 2);
  p.a_row = c, p.b_row = c;
  p.b_transposed = true;
  return p;
}

CUDA_SCRATCH(linear) {
  matrix_product p = forward_of(l);
  return product_scratch(&p);
}
CUDA_OP(linear) {
  matrix_product p = forward_of(l);
  return multiply_matrices(l, &p);
}

static matrix_product backward_data_of(const launch *l) {
  int64_t f = last_extent(in_shape(l, 0)), c = last_extent(out_shape(l, 0));
  matrix_product p = dense(l, rows_of(in_shape(l, 0)), c, f);
  p.a = source_of(l, 0), p.b = source_of(l, 1);
  p.a_row = f, p.b_row = c;
  return p;
}

CUDA_SCRATCH(linear_backward_data) {
  matrix_product p = backward_data_of(l);
  return product_scratch(&p);
}
CUDA_OP(linear_backward_data) {
  matrix_product p = backward_data_of(l);
  return multiply_matrices(l, &p);
}

static matrix_product backward_weight_of(const launch *l) {
  int64_t c = last_extent(in_shape(l, 0)), f = last_extent(in_shape(l, 1));
  matrix_product p = dense(l, f, c, rows_of(in_shape(l, 0)));
  p.a = source_of(l, 1), p.b = source_of(l, 0);
  p.a_row = f, p.b_row = c;
  p.a_transposed = true;
  return p;
}

/* The product and the bias's sums take turns. */
CUDA_SCRATCH(linear_backward_weight) {
  matrix_product p = backward_weight_of(l);
  size_t product = product_scratch(&p), sums = column_sums_scratch(p.k, p.m);
  return product > sums ? product : sums;
}
CUDA_OP(linear_backward_weight) {
  matrix_product p = backward_weight_of(l);
  status error = multiply_matrices(l, &p);
  if (error || !flag(l, "bias")) return error;
  return sum_columns(l, in(l, 1), p.k, p.m, out(l, 1));
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

/* The products of one call of the library: all of them, or one where their distances differ. */
static matrix_product batch_of(const launch *l) {
  const plugin_shape *a = in_shape(l, 0), *b = in_shape(l, 1), *y = out_shape(l, 0);
  bool a_transposed = flag(l, "transpose_a");
  matrix_product p =
      dense(l, y->dim[y->rank - 2], y->dim[y->rank - 1], a->dim[a->rank - (a_transposed ? 2 : 1)]);
  p.a_transposed = a_transposed;
  p.b_transposed = flag(l, "transpose_b");
  p.a_row = last_extent(a), p.b_row = last_extent(b);
  int64_t products = leading(y), of_a = leading(a), of_b = leading(b);
  bool regular = (of_a == products || of_a == 1) && (of_b == products || of_b == 1);
  p.batch = regular ? products : 1;
  p.a_step = of_a == 1 ? 0 : p.m * p.k;
  p.b_step = of_b == 1 ? 0 : p.k * p.n;
  p.c_step = p.m * p.n;
  p.a = source_of(l, 0), p.b = source_of(l, 1);
  return p;
}

/* Of interleaved products (matmul.c), those that lie in the same rows: one call for each index of the axes
 * before these. */
static matrix_product interleaved_of(const launch *l) {
  const plugin_shape *a = in_shape(l, 0), *y = out_shape(l, 0);
  int row = a->rank - 3;
  bool a_transposed = flag(l, "transpose_a");
  int64_t products = a->dim[row + 1], rows = a->dim[row], columns = last_extent(a);
  matrix_product p =
      dense(l, a_transposed ? columns : rows, last_extent(y), a_transposed ? rows : columns);
  p.batch = products;
  p.a_transposed = a_transposed;
  p.b_transposed = flag(l, "transpose_b");
  p.a_row = products * columns, p.a_step = columns;
  p.b_row = last_extent(in_shape(l, 1)), p.b_step = p.k * p.n;
  p.c_row = p.n, p.c_step = p.m * p.n;
  if (a_transposed)
    p.b_row = products * p.n, p.b_step = p.n;
  else
    p.c_row = products * p.n, p.c_step = p.n;
  p.a = source_of(l, 0), p.b = source_of(l, 1);
  return p;
}

static status multiply_interleaved(const launch *l) {
  matrix_product p = interleaved_of(l);
  int64_t times = elements(out_shape(l, 0)) / (p.batch * p.m * p.n);
  for (int64_t item = 0; item < times; item++) {
    p.a = source_of(l, 0).from(item * p.batch * p.m * p.k);
    p.b = source_of(l, 1).from(item * p.batch * p.k * p.n);
    p.c = out(l, 0) + item * p.batch * p.m * p.n;
    status error = multiply_matrices(l, &p);
    if (error) return error;
  }
  return OK;
}

CUDA_SCRATCH(matmul) {
  matrix_product p = flag(l, "interleaved") ? interleaved_of(l) : batch_of(l);
  return product_scratch(&p);
}
CUDA_OP(matmul) {
  if (flag(l, "interleaved")) return multiply_interleaved(l);
  const plugin_shape *y = out_shape(l, 0);
  matrix_product p = batch_of(l);
  if (p.batch == leading(y)) return multiply_matrices(l, &p);
  for (int64_t item = 0; item < leading(y); item++) {
    p.a = source_of(l, 0).from(matrix_of(in_shape(l, 0), y, item) * p.m * p.k);
    p.b = source_of(l, 1).from(matrix_of(in_shape(l, 1), y, item) * p.k * p.n);
    p.c = out(l, 0) + item * p.c_step;
    status error = multiply_matrices(l, &p);
    if (error) return error;
  }
  return OK;
}

} // namespace linear_kernels
