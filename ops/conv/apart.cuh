/* Gradients of the data where the filter's places do not overlap, which is what most transposed
 * convolutions are (kernel 2, stride 2): one matrix product makes every voxel of the image, the
 * features of a place times the filter, and a copy puts them where they belong. Included by conv.cu. */
#ifndef STRATA_OPS_CONV_APART_CUH
#define STRATA_OPS_CONV_APART_CUH

#include "device/cuda/index.cuh"
#include "ops/conv/library.cuh"

namespace conv_kernels {

/* products (places × (taps · channels)) = result (places × features) · filter */
static inline matrix_product product_of_places(const launch *l, const library_call *k,
                                               const void *result) {
  matrix_product p = {};
  p.m = k->c.batch * voxels_of(k->c.out), p.n = k->taps * k->channels, p.k = k->features;
  p.batch = 1;
  p.a = {result, k->result_stored};
  p.b = {l->scratch, false};
  p.c = (float *)l->scratch + aligned_bytes(p.k * p.n, sizeof(float)) / sizeof(float);
  p.a_row = p.k, p.b_row = p.n, p.c_row = p.n;
  p.alpha = 1;
  p.bf16 = k->c.bf16 != 0, p.tf32 = k->c.tf32 != 0;
  return p;
}

/* Bytes of the filter and of the products, which lie before the product's own scratch memory. */
static inline size_t bytes_before(const matrix_product *p) {
  return aligned_bytes(p->k * p->n, sizeof(float)) + aligned_bytes(p->m * p->n, sizeof(float));
}

static inline size_t apart_scratch(const launch *l, const library_call *k) {
  matrix_product p = product_of_places(l, k, nullptr);
  return bytes_before(&p) + product_scratch(&p);
}

struct put_places_f {
  float *image;
  const float *products, *bias;
  volume_shape shape;
  int64_t kernel[3];
  __device__ void operator()(int64_t i) const {
    voxel v = shape.locate(i);
    int64_t place = v.n, tap = 0;
    for (int a = 0; a < 3; a++) {
      place = place * (shape.dim[1 + a] / kernel[a]) + v.at[a] / kernel[a];
      tap = tap * kernel[a] + v.at[a] % kernel[a];
    }
    int64_t taps = kernel[0] * kernel[1] * kernel[2], channels = shape.dim[4];
    float added = bias ? bias[v.c] : 0.0f;
    image[i] = products[(place * taps + tap) * channels + v.c] + added;
  }
};

static inline status run_apart(const launch *l, const library_call *k, float *image,
                               const plugin_shape *image_shape, const float *weight,
                               const void *result, const float *bias) {
  matrix_product p = product_of_places(l, k, result);
  status error = for_each_index(l, p.k * p.n,
                                pack_filter_f<float>{(float *)l->scratch, weight, k->features,
                                                     k->channels, k->channels, k->taps});
  launch product = *l;
  product.scratch = (char *)l->scratch + bytes_before(&p);
  if (!error) error = multiply_matrices(&product, &p);
  if (error) return error;
  put_places_f put = {image, p.c, bias, volume_of(image_shape), {}};
  for (int a = 0; a < 3; a++) put.kernel[a] = k->c.kernel[a];
  return for_each_index(l, elements(image_shape), put);
}

} // namespace conv_kernels

#endif
