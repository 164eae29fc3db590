/* Filters between PyTorch's layout and what our own kernels read and write. Included by conv.cu. */
#ifndef STRATA_OPS_CONV_FILTERS_CUH
#define STRATA_OPS_CONV_FILTERS_CUH

#include "device/cuda/bf16.cuh"
#include "ops/conv/library.cuh"

namespace conv_kernels {

/* packed[group][tap][depth][columns] from PyTorch's weight [F][C / groups][tap], in_width and out_width
 * filled up with zeros to depth and columns. `by_feature`: the result has the weight's first axis
 * (forward), otherwise its second (backward data). */
template <typename T> struct pack_f {
  T *packed;
  const float *weight;
  int64_t in_width, out_width, depth, columns, taps;
  bool by_feature, bf16;
  __device__ void operator()(int64_t i) const {
    int64_t o = i % columns, c = i / columns % depth;
    int64_t tap = i / (columns * depth) % taps, group = i / (columns * depth * taps);
    int64_t feature = by_feature ? group * out_width + o : group * in_width + c;
    int64_t channel = by_feature ? c : o, channels = by_feature ? in_width : out_width;
    bool is_there = c < in_width && o < out_width;
    float w = is_there ? weight[(feature * channels + channel) * taps + tap] : 0.0f;
    packed[i] = as_element<T>(rounded_if(bf16, w));
  }
};

/* PyTorch's weight from pieces [group][tap][depth][out_width], added in order. Neighbouring threads read
 * neighbours: there are more pieces than results. */
struct unpack_f {
  float *dweight;
  const float *partials;
  int64_t in_width, depth, out_width, taps, groups, pieces;
  __device__ void operator()(int64_t i) const {
    int64_t o = i % out_width, c = i / out_width % depth;
    int64_t tap = i / (out_width * depth) % taps, group = i / (out_width * depth * taps);
    if (c >= in_width) return;
    double total = 0;
    for (int64_t p = 0; p < pieces; p++)
      total += (double)partials[p * groups * taps * depth * out_width + i];
    dweight[((group * out_width + o) * in_width + c) * taps + tap] = (float)total;
  }
};

static inline status add_weight_pieces(const launch *l, float *dweight, const float *partials,
                                       int64_t in_width, int64_t depth, int64_t out_width,
                                       int64_t taps, int64_t groups, int64_t pieces) {
  return for_each_index(
      l, groups * taps * depth * out_width,
      unpack_f{dweight, partials, in_width, depth, out_width, taps, groups, pieces});
}

} // namespace conv_kernels

#endif
