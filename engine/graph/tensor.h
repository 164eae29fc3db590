/* Shapes, element types and tensors. A tensor is dense and row-major: the last dimension varies
 * fastest. Volumes on the CPU are channels-last with z the fastest spatial axis: (N, X, Y, Z, C).
 * Token sequences are (N, T, C). Learned parameters keep the shape PyTorch gives them
 * (a 3-D convolution's weight is (O, I, kx, ky, kz)), so weight files need no conversion. */
#ifndef STRATA_GRAPH_TENSOR_H
#define STRATA_GRAPH_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_DIMS = 8 };

typedef enum dtype {
  DTYPE_F32,
  DTYPE_I32,
  DTYPE_BF16, /* f32 rounded to 16 bits; only what storage.h chooses, on a device that asks for it */
  DTYPE_REGIONS /* 32 bits: the regions of a voxel as a set, region r being bit r; negative: unknown */
} dtype;

enum { REGIONS_MAX = 31 };

typedef struct shape {
  int rank;
  int64_t dim[MAX_DIMS];
} shape;

typedef struct tensor {
  dtype dtype;
  shape shape;
  void *data; /* not owned; NULL for an optional input that is absent */
} tensor;

static inline size_t dtype_bytes(dtype type) {
  return type == DTYPE_BF16 ? 2 : 4;
}

static inline int64_t shape_elements(const shape *s) {
  int64_t n = 1;
  for (int i = 0; i < s->rank; i++) n *= s->dim[i];
  return n;
}

static inline size_t tensor_bytes(const tensor *t) {
  return (size_t)shape_elements(&t->shape) * dtype_bytes(t->dtype);
}

bool shape_equal(const shape *a, const shape *b);
shape shape_of(int rank, const int64_t *dims);
#define SHAPE(...)                                                                                 \
  shape_of((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})
/* "2×48×48×48×16", into `out` of at least 96 bytes; returns `out`. */
char *shape_format(char out[96], const shape *s);
const char *dtype_name(dtype type);
/* Euclidean norm of an f32 tensor, summed in double; NaN for other types. */
double tensor_norm(const tensor *t);

#endif
