#include "device/cuda/libraries.cuh"

#include "device/cuda/cudnn_plans.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cublasLt.h>

/* Plans are kept: choosing an algorithm takes longer than a small product. */
enum { PLANS = 512, WORKSPACE_BYTES = 32 << 20 };

struct plan_key {
  int64_t m, n, k, batch, a_row, b_row, c_row, a_step, b_step, c_step;
  uint32_t a_aligned, b_aligned, c_aligned, bias_aligned;
  int flags;
};

struct plan {
  plan_key key;
  cublasLtMatmulDesc_t product;
  cublasLtMatrixLayout_t a, b, c;
  cublasLtMatmulAlgo_t algorithm;
};

struct libraries {
  cublasLtHandle_t blas;
  void *workspace;
  plan plans[PLANS];
  int count;
  cudnn_plans *cudnn; /* NULL: convolutions are left to our own kernels */
  char convolutions[64];
};

static status blas_failed(const plugin_host *host, const char *what, cublasStatus_t code) {
  return host->error(ERROR_INTERNAL, "%s: cuBLAS says: %s", what, cublasLtGetStatusString(code));
}

/* A machine without cuDNN loses speed, not results. */
static void open_cudnn(struct libraries *l, cudaStream_t stream) {
  const char *chosen = getenv("STRATA_CUDNN");
  const char *file = chosen && *chosen ? chosen : "libcudnn.so.9";
  char why[CUDNN_WHY_BYTES] = "STRATA_CUDNN=off";
  if (strcmp(file, "off") != 0) l->cudnn = cudnn_plans_open(file, nullptr, stream, why);
  int version = l->cudnn ? cudnn_plans_version(l->cudnn) : 0;
  if (l->cudnn)
    snprintf(l->convolutions, sizeof l->convolutions, "cuDNN %d.%d.%d", version / 10000,
             version / 100 % 100, version % 100);
  else
    snprintf(l->convolutions, sizeof l->convolutions, "no cuDNN: %.50s", why);
}

status libraries_open(const plugin_host *host, cudaStream_t stream, struct libraries **out) {
  struct libraries *l = (struct libraries *)calloc(1, sizeof *l);
  if (!l) return host->error(ERROR_MEMORY, "out of memory");
  *out = l;
  cublasStatus_t code = cublasLtCreate(&l->blas);
  if (code != CUBLAS_STATUS_SUCCESS) return blas_failed(host, "opening cuBLAS", code);
  if (cudaMalloc(&l->workspace, WORKSPACE_BYTES) != cudaSuccess)
    return host->error(ERROR_MEMORY, "the GPU has no memory for cuBLAS's workspace");
  open_cudnn(l, stream);
  return OK;
}

const char *libraries_convolutions(const struct libraries *l) {
  return l->convolutions;
}

static void plan_free(plan *p) {
  if (p->product) cublasLtMatmulDescDestroy(p->product);
  if (p->a) cublasLtMatrixLayoutDestroy(p->a);
  if (p->b) cublasLtMatrixLayoutDestroy(p->b);
  if (p->c) cublasLtMatrixLayoutDestroy(p->c);
  *p = plan();
}

void libraries_close(struct libraries *l) {
  if (!l) return;
  for (int i = 0; i < l->count; i++) plan_free(&l->plans[i]);
  cudnn_plans_close(l->cudnn);
  if (l->workspace) cudaFree(l->workspace);
  if (l->blas) cublasLtDestroy(l->blas);
  free(l);
}

/* cuBLASLt counts in columns; row-major C = A·B is column-major Cᵀ = Bᵀ·Aᵀ, so the operands change
 * places: its A is our B. */
#define BLAS_TRY(expression)                                                                       \
  do {                                                                                             \
    cublasStatus_t code_ = (expression);                                                           \
    if (code_ != CUBLAS_STATUS_SUCCESS) return code_;                                              \
  } while (0)

static cublasStatus_t make_layout(cublasLtMatrixLayout_t *out, cudaDataType type, int64_t rows,
                                  int64_t columns, int64_t row_step, int64_t batch, int64_t step) {
  BLAS_TRY(cublasLtMatrixLayoutCreate(out, type, (uint64_t)columns, (uint64_t)rows, row_step));
  int32_t count = (int32_t)batch;
  BLAS_TRY(cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                            sizeof count));
  return cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step,
                                          sizeof step);
}

/* To how many bytes an operand is aligned: cuBLASLt takes 256 for granted and chooses kernels that
 * need it. */
/* At most what the memory plan aligns to, so that the same algorithm is chosen for an operand that is
 * stored as bf16 and for one that is copied. */
static uint32_t alignment_of(const void *at, size_t element, int64_t step, int64_t batch) {
  uintptr_t bits = (uintptr_t)at | 64;
  if (batch > 1) bits |= (uintptr_t)step * element;
  return (uint32_t)(bits & -bits);
}

static cublasStatus_t set_alignment(cublasLtMatmulPreference_t wish,
                                    cublasLtMatmulPreferenceAttributes_t which, uint32_t bytes) {
  return cublasLtMatmulPreferenceSetAttribute(wish, which, &bytes, sizeof bytes);
}

static cublasStatus_t set_wishes(cublasLtMatmulPreference_t wish, const plan_key *key) {
  size_t workspace = WORKSPACE_BYTES;
  BLAS_TRY(cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                &workspace, sizeof workspace));
  /* The library's A is our B. */
  BLAS_TRY(set_alignment(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key->b_aligned));
  BLAS_TRY(set_alignment(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key->a_aligned));
  BLAS_TRY(set_alignment(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key->c_aligned));
  BLAS_TRY(set_alignment(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key->c_aligned));
  /* Sums that several blocks add to without a fixed order would differ from run to run. */
  uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE |
                     CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
  return cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                              &schemes, sizeof schemes);
}

static cublasStatus_t make_plan(struct libraries *l, const matrix_product *p, plan *out) {
  cudaDataType type = p->bf16 ? CUDA_R_16BF : CUDA_R_32F;
  cublasComputeType_t arithmetic = p->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  BLAS_TRY(cublasLtMatmulDescCreate(&out->product, arithmetic, CUDA_R_32F));
  cublasOperation_t turn = CUBLAS_OP_T;
  if (p->b_transposed)
    BLAS_TRY(cublasLtMatmulDescSetAttribute(out->product, CUBLASLT_MATMUL_DESC_TRANSA, &turn,
                                            sizeof turn));
  if (p->a_transposed)
    BLAS_TRY(cublasLtMatmulDescSetAttribute(out->product, CUBLASLT_MATMUL_DESC_TRANSB, &turn,
                                            sizeof turn));
  if (p->bias) { /* a number per row of the column-major C: per column of ours */
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    BLAS_TRY(cublasLtMatmulDescSetAttribute(out->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                            sizeof epilogue));
    /* The choice of an algorithm looks at how it is aligned; a bias may lie anywhere among the weights. */
    BLAS_TRY(cublasLtMatmulDescSetAttribute(out->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                            &p->bias, sizeof p->bias));
  }
  BLAS_TRY(make_layout(&out->a, type, p->a_transposed ? p->k : p->m, p->a_transposed ? p->m : p->k,
                       p->a_row, p->batch, p->a_step));
  BLAS_TRY(make_layout(&out->b, type, p->b_transposed ? p->n : p->k, p->b_transposed ? p->k : p->n,
                       p->b_row, p->batch, p->b_step));
  BLAS_TRY(make_layout(&out->c, CUDA_R_32F, p->m, p->n, p->c_row, p->batch, p->c_step));
  cublasLtMatmulPreference_t wish;
  BLAS_TRY(cublasLtMatmulPreferenceCreate(&wish));
  cublasStatus_t code = set_wishes(wish, &out->key);
  cublasLtMatmulHeuristicResult_t best;
  int found = 0;
  if (code == CUBLAS_STATUS_SUCCESS)
    code = cublasLtMatmulAlgoGetHeuristic(l->blas, out->product, out->b, out->a, out->c, out->c,
                                          wish, 1, &best, &found);
  cublasLtMatmulPreferenceDestroy(wish);
  if (code == CUBLAS_STATUS_SUCCESS && found == 0) code = CUBLAS_STATUS_NOT_SUPPORTED;
  if (code == CUBLAS_STATUS_SUCCESS) out->algorithm = best.algo;
  return code;
}

status library_multiply(const launch *l, const matrix_product *p, const void *a, const void *b) {
  plan_key key;
  memset(&key, 0, sizeof key); /* compared byte by byte, padding included */
  key.m = p->m, key.n = p->n, key.k = p->k, key.batch = p->batch;
  key.a_row = p->a_row, key.b_row = p->b_row, key.c_row = p->c_row;
  key.a_step = p->a_step, key.b_step = p->b_step, key.c_step = p->c_step;
  size_t element = p->bf16 ? sizeof(uint16_t) : sizeof(float);
  key.a_aligned = alignment_of(a, element, p->a_step, p->batch);
  key.b_aligned = alignment_of(b, element, p->b_step, p->batch);
  key.c_aligned = alignment_of(p->c, sizeof(float), p->c_step, p->batch);
  key.bias_aligned = p->bias ? alignment_of(p->bias, sizeof(float), 0, 1) : 0;
  key.flags = p->a_transposed | p->b_transposed << 1 | (p->bias != nullptr) << 2 |
              (int)p->bf16 << 3 | (int)p->tf32 << 4;
  struct libraries *lib = l->libraries;
  plan *found = nullptr;
  for (int i = 0; i < lib->count && !found; i++)
    if (memcmp(&lib->plans[i].key, &key, sizeof key) == 0) found = &lib->plans[i];
  if (!found) {
    if (lib->count == PLANS) plan_free(&lib->plans[--lib->count]);
    found = &lib->plans[lib->count];
    found->key = key;
    cublasStatus_t code = make_plan(lib, p, found);
    if (code != CUBLAS_STATUS_SUCCESS) {
      plan_free(found);
      return blas_failed(l->host, "planning a matrix product", code);
    }
    lib->count++;
  }
  cublasStatus_t code = CUBLAS_STATUS_SUCCESS;
  if (p->bias)
    code = cublasLtMatmulDescSetAttribute(found->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                          &p->bias, sizeof p->bias);
  if (code == CUBLAS_STATUS_SUCCESS)
    code = cublasLtMatmul(lib->blas, found->product, &p->alpha, b, found->b, a, found->a, &p->beta,
                          p->c, found->c, p->c, found->c, &found->algorithm, lib->workspace,
                          WORKSPACE_BYTES, l->stream);
  return code == CUBLAS_STATUS_SUCCESS ? OK : blas_failed(l->host, "a matrix product", code);
}

/* ---- convolutions ---------------------------------------------------------------------------------- */

bool library_plans_convolution(const launch *l, const convolution *c, size_t *workspace) {
  cudnn_plans *cudnn = l->libraries->cudnn;
  const cudnn_plan *found = cudnn ? cudnn_plan_find(cudnn, c) : nullptr;
  *workspace = found ? cudnn_plan_workspace(found) : 0;
  return found != nullptr;
}

status library_convolve(const launch *l, const convolution *c, const void *image,
                        const void *filter, const void *result, void *workspace) {
  cudnn_plans *cudnn = l->libraries->cudnn;
  char why[CUDNN_WHY_BYTES];
  if (cudnn_plan_run(cudnn, cudnn_plan_find(cudnn, c), image, filter, result, workspace, why))
    return OK;
  return l->host->error(ERROR_INTERNAL, "a convolution: cuDNN says: %s", why);
}
