/* Element by element over values of different shapes, by NumPy's rule: shapes are aligned at the
 * last axis, and an axis that one value lacks or has with extent 1 repeats it.
 *
 * Axes along which every operand moves on as one are merged, so that most uses come down to a
 * vector that every row reads (a scale for each channel), a number for every row, or no repetition
 * at all. */
#ifndef STRATA_OPS_KERNELS_BROADCAST_H
#define STRATA_OPS_KERNELS_BROADCAST_H

#include "graph/op.h"
#include "ops/arithmetic/chunks.h"

/* The common shape of `a` and `b`; false where neither extent of an axis is 1 and they differ. */
bool broadcast_shapes(const shape *a, const shape *b, shape *out);
/* The attribute of operators that work element by element on one shape and, when told to, on values
 * that repeat to a common one. Without it a feature map of one channel would silently be added to
 * every channel of another. */
typedef struct broadcast_attrs {
  bool broadcast;
} broadcast_attrs;
extern const attr broadcast_attr_list[];
#define BROADCAST_DOC                                                                              \
  "With broadcast, shapes are aligned at their last axes, and where a value lacks an axis or has " \
  "extent 1 it is repeated, as PyTorch and NumPy do without being told."
/* Shape rule of such operators. */
status infer_broadcast(infer *rule);
/* Whether `small` repeats to exactly `whole`. */
bool broadcasts_to(const shape *small, const shape *whole);

/* What is done to some rows of y: y[r, i] = y[r, i] ∘ x[r · row_step + i · step]; `step` is 0 or 1.
 */
typedef void (*broadcast_kernel)(float *y, const float *x, int64_t rows, int64_t width,
                                 int64_t row_step, int64_t step);
/* Applies the kernel to a part of y, which has the shape `whole`, against x, which repeats to it.
 * `y` is where the part begins, `x` the beginning of all of x. */
void broadcast_apply(broadcast_kernel kernel, const shape *whole, span part, float *y,
                     const shape *x_shape, const float *x);
/* Kernels: y = x and y = y · x. */
void broadcast_copy(float *y, const float *x, int64_t rows, int64_t width, int64_t row_step,
                    int64_t step);
void broadcast_multiply(float *y, const float *x, int64_t rows, int64_t width, int64_t row_step,
                        int64_t step);

/* The way back: out[k] = Σ x · factor over the elements of x to which k repeats. `x` has the shape
 * `whole`; `out` and `factor` (NULL: 1) repeat to it. The split into tasks and the order of adding
 * depend on the shapes alone. */
size_t broadcast_sum_workspace(const shape *whole, const shape *out);
void broadcast_sum(const shape *whole, const float *x, const shape *factor_shape,
                   const float *factor, const shape *out_shape, float *out, void *workspace,
                   thread_pool *pool);

#endif
