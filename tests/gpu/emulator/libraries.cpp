/* The libraries' part of the emulator, as plain loops. */
#include "device/cuda/libraries.cuh"

struct libraries {};

status libraries_open(const plugin_host *, cudaStream_t, struct libraries **out) {
  *out = new libraries();
  return OK;
}

void libraries_close(struct libraries *l) {
  delete l;
}

/* Element `at` of an operand. */
static double factor(const matrix_product *p, const void *operand, int64_t at) {
  if (!p->bf16) return ((const float *)operand)[at];
  uint32_t bits = (uint32_t)((const uint16_t *)operand)[at] << 16;
  return __int_as_float((int)bits);
}

static void multiply(const matrix_product *p, const void *a, const void *b) {
  emulator_unprotect();
  for (int64_t batch = 0; batch < p->batch; batch++)
    for (int64_t i = 0; i < p->m; i++)
      for (int64_t j = 0; j < p->n; j++) {
        double sum = 0;
        for (int64_t k = 0; k < p->k; k++) {
          int64_t in_a = p->a_transposed ? k * p->a_row + i : i * p->a_row + k;
          int64_t in_b = p->b_transposed ? j * p->b_row + k : k * p->b_row + j;
          sum += factor(p, a, batch * p->a_step + in_a) * factor(p, b, batch * p->b_step + in_b);
        }
        float *to = &p->c[batch * p->c_step + i * p->c_row + j];
        double kept = p->beta == 0 ? 0 : (double)p->beta * *to;
        *to = (float)(p->alpha * sum + kept + (p->bias ? p->bias[j] : 0));
      }
  emulator_protect();
}

status library_multiply(const launch *, const matrix_product *p, const void *a, const void *b) {
  matrix_product product = *p;
  emulator_enqueue([=] { multiply(&product, a, b); });
  return OK;
}
