/* Convolutions by cuDNN 9 (its backend API), which is loaded when the program runs. Planning needs no
 * GPU, so that it can be tested where there is none.
 *
 * An engine of cuDNN's is taken when it gives the same bits on every run and rounds nothing but what
 * `bf16` or `tf32` asks for: no engine of a note beside "tensor cores" (in those) and "strict NaN" is. cuDNN's
 * heuristic orders those that are left; the first that needs little enough workspace is used. */
#ifndef STRATA_DEVICE_CUDA_CUDNN_PLANS_H
#define STRATA_DEVICE_CUDA_CUDNN_PLANS_H

#include "device/cuda/convolution.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { CUDNN_WHY_BYTES = 256 };

typedef struct cudnn_plans cudnn_plans;
typedef struct cudnn_plan cudnn_plan;

/* Loads the library `file`, for the GPU that is current and the CUDA stream `stream`; or, when `card`
 * describes one (JSON, as cuDNN writes a device's properties), to plan for that without a GPU. NULL
 * when that fails: `why` says it. */
cudnn_plans *cudnn_plans_open(const char *file, const char *card, void *stream,
                              char why[CUDNN_WHY_BYTES]);
void cudnn_plans_close(cudnn_plans *p);
/* 91900 is 9.19.0. */
int cudnn_plans_version(const cudnn_plans *p);

/* Made once, kept until the end: a recorded step has its kernels. NULL: cuDNN has no engine for it
 * that may be taken. */
const cudnn_plan *cudnn_plan_find(cudnn_plans *p, const convolution *c);
size_t cudnn_plan_workspace(const cudnn_plan *plan);
/* What the engine says of its numbers: bits of cudnnBackendNumericalNote_t. */
int64_t cudnn_plan_notes(const cudnn_plan *plan);
/* False: `why` says it. Operands in device memory, aligned to 16 bytes. */
bool cudnn_plan_run(cudnn_plans *p, const cudnn_plan *plan, const void *image, const void *filter,
                    const void *result, void *workspace, char why[CUDNN_WHY_BYTES]);

#ifdef __cplusplus
}
#endif

#endif
