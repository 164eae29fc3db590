/* The libraries' part of the emulator, as plain loops. */
#include "device/cuda/libraries.cuh"

#include <cstdlib>
#include <vector>

struct libraries {
  bool convolves;
};

status libraries_open(const plugin_host *, cudaStream_t, struct libraries **out) {
  const char *chosen = getenv("STRATA_CUDNN");
  *out = new libraries{!chosen || strcmp(chosen, "off") != 0};
  return OK;
}

const char *libraries_convolutions(const struct libraries *l) {
  return l->convolves ? "convolutions by loops" : "no cuDNN: STRATA_CUDNN=off";
}

void libraries_close(struct libraries *l) {
  delete l;
}

/* To the nearest number with ten bits of fraction, ties to even; what is no number stays. */
static float tf32_round(float x) {
  uint32_t bits = (uint32_t)__float_as_int(x);
  if (!std::isfinite(x)) return x;
  bits += 0xfffu + (bits >> 13 & 1);
  return __int_as_float((int)(bits & ~0x1fffu));
}

/* Element `at` of an operand. */
static double factor(bool bf16, bool tf32, const void *operand, int64_t at) {
  if (!bf16) {
    float x = ((const float *)operand)[at];
    return tf32 ? tf32_round(x) : x;
  }
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
          sum += factor(p->bf16, p->tf32, a, batch * p->a_step + in_a) *
                 factor(p->bf16, p->tf32, b, batch * p->b_step + in_b);
        }
        float *to = &p->c[batch * p->c_step + i * p->c_row + j];
        double kept = p->beta == 0 ? 0 : (double)p->beta * *to;
        *to = (float)(p->alpha * sum + kept + (p->bias ? p->bias[j] : 0));
      }
  emulator_protect();
}

status library_multiply(const launch *l, const matrix_product *p, const void *a, const void *b) {
  matrix_product product = *p;
  emulator_enqueue(l->stream, [=] { multiply(&product, a, b); });
  return OK;
}

/* ---- convolutions ---------------------------------------------------------------------------------- */

/* The definition: every triple of image, filter and result that belongs together, each adding the
 * product of two to the third. */
static void convolve(const convolution *c, const void *image, const void *filter,
                     const void *result) {
  int64_t in_width = c->channels / c->groups, out_width = c->features / c->groups;
  const void *operands[3] = {result, image, filter};
  const int64_t elements[3] = {c->batch * c->out[0] * c->out[1] * c->out[2] * c->features,
                               c->batch * c->image[0] * c->image[1] * c->image[2] * c->channels,
                               c->features * c->kernel[0] * c->kernel[1] * c->kernel[2] * in_width};
  int written = (int)c->pass, one = written == 0 ? 1 : 0, other = written == 2 ? 1 : 2;
  std::vector<double> sums((size_t)elements[written]);
  emulator_unprotect();
  int64_t at[3], k[3], o[3], from[3];
  for (int64_t n = 0; n < c->batch; n++)
    for (o[0] = 0; o[0] < c->out[0]; o[0]++)
      for (o[1] = 0; o[1] < c->out[1]; o[1]++)
        for (o[2] = 0; o[2] < c->out[2]; o[2]++)
          for (k[0] = 0; k[0] < c->kernel[0]; k[0]++)
            for (k[1] = 0; k[1] < c->kernel[1]; k[1]++)
              for (k[2] = 0; k[2] < c->kernel[2]; k[2]++) {
                bool inside = true;
                for (int a = 0; a < 3; a++) {
                  from[a] = o[a] * c->stride[a] + k[a] * c->dilation[a] - c->padding[a];
                  inside &= from[a] >= 0 && from[a] < c->image[a];
                }
                if (!inside) continue;
                int64_t y = ((n * c->out[0] + o[0]) * c->out[1] + o[1]) * c->out[2] + o[2];
                int64_t x = ((n * c->image[0] + from[0]) * c->image[1] + from[1]) * c->image[2];
                int64_t tap = (k[0] * c->kernel[1] + k[1]) * c->kernel[2] + k[2];
                int64_t taps = c->kernel[0] * c->kernel[1] * c->kernel[2];
                for (int64_t f = 0; f < c->features; f++)
                  for (int64_t i = 0; i < in_width; i++) {
                    at[0] = y * c->features + f;
                    at[1] = (x + from[2]) * c->channels + f / out_width * in_width + i;
                    at[2] = (f * taps + tap) * in_width + i;
                    sums[(size_t)at[written]] +=
                        factor(c->bf16, c->tf32, operands[one], at[one]) *
                        factor(c->bf16, c->tf32, operands[other], at[other]);
                  }
              }
  float *to = (float *)operands[written];
  for (int64_t i = 0; i < elements[written]; i++) to[i] = (float)sums[(size_t)i];
  emulator_protect();
}

/* As cuDNN does, it leaves some to the kernels: those with a dilation, and in bf16 gradients of the data
 * with a stride. */
bool library_plans_convolution(const launch *l, const convolution *c, size_t *workspace) {
  *workspace = 0;
  bool dilated = c->dilation[0] * c->dilation[1] * c->dilation[2] > 1;
  bool strided = c->stride[0] * c->stride[1] * c->stride[2] > 1;
  bool refused = c->bf16 && c->pass == CONVOLUTION_BACKWARD_DATA && strided;
  return l->libraries->convolves && !dilated && !refused;
}

status library_convolve(const launch *l, const convolution *c, const void *image,
                        const void *filter, const void *result, void *) {
  convolution problem = *c;
  emulator_enqueue(l->stream, [=] { convolve(&problem, image, filter, result); });
  return OK;
}
