/* Matrix products of rounded factors: what is stored as f32 is copied to scratch memory as bf16. */
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

static size_t copy_bytes(const matrix_product *p, const source &factor, int64_t span) {
  return p->bf16 && !factor.bf16 ? bf16_bytes(span) : 0;
}

size_t product_scratch(const matrix_product *p) {
  return copy_bytes(p, p->a, a_span(p)) + copy_bytes(p, p->b, b_span(p));
}

/* The factor as the product takes it: where it lies, or copied to *scratch, which moves on. */
static status rounded_factor(const launch *l, const source &factor, int64_t span, char **scratch,
                             const void **out) {
  *out = factor.at;
  if (factor.bf16) return OK;
  *out = *scratch;
  *scratch += bf16_bytes(span);
  return to_bf16(l, (uint16_t *)*out, (const float *)factor.at, span);
}

status multiply_matrices(const launch *l, const matrix_product *p) {
  if (!p->bf16) return library_multiply(l, p, p->a.at, p->b.at);
  char *scratch = (char *)l->scratch;
  const void *a, *b;
  status error = rounded_factor(l, p->a, a_span(p), &scratch, &a);
  if (!error) error = rounded_factor(l, p->b, b_span(p), &scratch, &b);
  return error ? error : library_multiply(l, p, a, b);
}
