/* Matrix products of rounded factors: both are copied to scratch memory as bf16, which takes a pass
 * over each and no time beside a product of any size. */
#include "device/cuda/bf16.cuh"
#include "device/cuda/libraries.cuh"

/* From the first element of the first matrix to the last of the last one; rows keep their distance. */
static int64_t span_of(int64_t rows, int64_t columns, int64_t row, int64_t batch, int64_t step) {
  return (batch - 1) * step + (rows - 1) * row + columns;
}

static int64_t a_span(const matrix_product *p) {
  return p->a_transposed ? span_of(p->k, p->m, p->a_row, p->batch, p->a_step)
                         : span_of(p->m, p->k, p->a_row, p->batch, p->a_step);
}
static int64_t b_span(const matrix_product *p) {
  return p->b_transposed ? span_of(p->n, p->k, p->b_row, p->batch, p->b_step)
                         : span_of(p->k, p->n, p->b_row, p->batch, p->b_step);
}

size_t product_scratch(const matrix_product *p) {
  return p->bf16 ? bf16_bytes(a_span(p)) + bf16_bytes(b_span(p)) : 0;
}

status multiply_matrices(const launch *l, const matrix_product *p) {
  if (!p->bf16) return library_multiply(l, p, p->a, p->b);
  uint16_t *a = (uint16_t *)l->scratch, *b = a + bf16_bytes(a_span(p)) / sizeof *a;
  status error = to_bf16(l, a, p->a, a_span(p));
  if (!error) error = to_bf16(l, b, p->b, b_span(p));
  return error ? error : library_multiply(l, p, a, b);
}
