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

static void multiply(const matrix_product *p) {
  emulator_unprotect();
  for (int64_t b = 0; b < p->batch; b++)
    for (int64_t i = 0; i < p->m; i++)
      for (int64_t j = 0; j < p->n; j++) {
        double sum = 0;
        const float *a = p->a + b * p->a_step, *from = p->b + b * p->b_step;
        for (int64_t k = 0; k < p->k; k++)
          sum += (double)a[p->a_transposed ? k * p->a_row + i : i * p->a_row + k] *
                 from[p->b_transposed ? j * p->b_row + k : k * p->b_row + j];
        float *to = &p->c[b * p->c_step + i * p->c_row + j];
        double kept = p->beta == 0 ? 0 : (double)p->beta * *to;
        *to = (float)(p->alpha * sum + kept + (p->bias ? p->bias[j] : 0));
      }
  emulator_protect();
}

status multiply_matrices(const launch *, const matrix_product *p) {
  matrix_product product = *p;
  emulator_enqueue([=] { multiply(&product); });
  return OK;
}
