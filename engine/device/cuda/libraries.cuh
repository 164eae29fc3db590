/* Matrix products and convolutions: cuBLASLt and cuDNN on a GPU (libraries.cu), loops in the emulator. */
#ifndef STRATA_DEVICE_CUDA_LIBRARIES_CUH
#define STRATA_DEVICE_CUDA_LIBRARIES_CUH

#include "device/cuda/convolution.h"
#include "device/cuda/stored.cuh"

/* Opaque: the handles of the libraries and what they have planned. */
struct libraries;

status libraries_open(const plugin_host *host, cudaStream_t stream, struct libraries **out);
void libraries_close(struct libraries *l);
/* Who computes convolutions, "cuDNN 9.19.0"; where it is not cuDNN, after a colon, why. */
const char *libraries_convolutions(const struct libraries *l);

/* C = alpha · op(A) · op(B) + beta · C (+ bias along the columns), row-major, for `batch` matrices
 * at fixed distances (in elements; 0 repeats one matrix). A is m×k, or k×m when `a_transposed`; B
 * is k×n, or n×k when `b_transposed`; C is m×n. Rows lie a_row, b_row, c_row elements apart. */
struct matrix_product {
  int64_t m, n, k, batch;
  source a, b; /* with bf16 either may be stored so */
  float *c;
  const float *bias; /* n numbers, the same for every row and matrix; NULL: none */
  int64_t a_row, b_row, c_row;
  int64_t a_step, b_step, c_step; /* from matrix to matrix */
  bool a_transposed, b_transposed;
  float alpha, beta;
  bool bf16; /* a and b are rounded to bf16 */
  bool tf32; /* the library may round them to tf32; not with bf16 */
};

/* The launch's scratch holds product_scratch bytes. */
size_t product_scratch(const matrix_product *p);
status multiply_matrices(const launch *l, const matrix_product *p);

/* What the library does of it, on operands in the place of p->a and p->b: f32, or bf16 when p->bf16.
 * Distances count elements of theirs. */
status library_multiply(const launch *l, const matrix_product *p, const void *a, const void *b);

/* Whether the library computes it, and with how many bytes of workspace; otherwise the kernels of
 * ops/conv do. What STRATA_CUDNN says: a file instead of libcudnn.so.9, or `off`. Not while a step is
 * recorded, for the first time. */
bool library_plans_convolution(const launch *l, const convolution *c, size_t *workspace);
/* Operands as device/cuda/convolution.h has them; one of them is written. */
status library_convolve(const launch *l, const convolution *c, const void *image,
                        const void *filter, const void *result, void *workspace);

#endif
