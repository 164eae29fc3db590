/* Convolutions by a library (device/cuda/libraries.cuh): what it reads is brought into its layout in
 * scratch memory, and what it computes back into ours. Included by conv.cu. */
#ifndef STRATA_OPS_CONV_LIBRARY_CUH
#define STRATA_OPS_CONV_LIBRARY_CUH

#include "device/cuda/libraries.cuh"

namespace conv_kernels {

/* A call as the library is asked for it. In bf16 channels that are only read are filled up with
 * zeros to what its tensor-core engines want. */
struct library_call {
  bool is_there; /* the library has a way to compute it */
  bool is_apart; /* there is a better way: apart.cuh */
  convolution c;
  int64_t channels, features, taps; /* as they are in our memory */
  bool image_stored, result_stored; /* as bf16 */
  size_t filter_bytes, image_bytes, result_bytes, workspace;
};

constexpr int64_t WIDTH = 8;

static inline int64_t filled_up(int64_t channels) {
  return (channels + WIDTH - 1) / WIDTH * WIDTH;
}

static inline size_t aligned_bytes(int64_t count, size_t element) {
  return ((size_t)count * element + 255) / 256 * 256;
}

static inline int64_t voxels_of(const int64_t extent[3]) {
  return extent[0] * extent[1] * extent[2];
}

static inline int64_t filter_elements(const convolution *c) {
  return c->features * voxels_of(c->kernel) * (c->channels / c->groups);
}

static inline bool places_are_apart(const convolution *c) {
  bool apart = c->pass == CONVOLUTION_BACKWARD_DATA && c->groups == 1;
  for (int a = 0; a < 3; a++)
    apart &= c->kernel[a] == c->stride[a] && (c->dilation[a] == 1 || c->kernel[a] == 1) &&
             c->padding[a] == 0 && c->image[a] == c->out[a] * c->stride[a];
  return apart;
}

/* `image` and `result` of the forward pass that this is, or is the adjoint of. */
static inline convolution convolution_of(const launch *l, convolution_pass pass,
                                         const plugin_shape *weight, const plugin_tensor *image,
                                         const plugin_tensor *result) {
  convolution c = {};
  c.pass = pass;
  c.batch = image->shape.dim[0];
  c.channels = image->shape.dim[4];
  c.features = result->shape.dim[4];
  c.groups = integer(l, "groups");
  c.bf16 = is_bf16(l);
  c.tf32 = is_tf32(l);
  for (int a = 0; a < 3; a++) {
    c.image[a] = image->shape.dim[1 + a];
    c.out[a] = result->shape.dim[1 + a];
    c.kernel[a] = weight->dim[2 + a];
    c.stride[a] = integer_at(l, "stride", a);
    c.dilation[a] = integer_at(l, "dilation", a);
    int64_t padding = integer_at(l, "padding", a);
    c.padding[a] = padding >= 0 ? padding : c.dilation[a] * (c.kernel[a] - 1) / 2;
  }
  return c;
}

/* How the library is asked for it. Operands as they lie in memory. */
static inline library_call library_call_of(const launch *l, const convolution &problem,
                                           const plugin_tensor *image,
                                           const plugin_tensor *result) {
  library_call k = {};
  convolution *c = &k.c;
  *c = problem;
  int64_t pass = c->pass;
  k.channels = c->channels;
  k.features = c->features;
  k.taps = voxels_of(c->kernel);
  if (c->bf16 && c->groups == 1) {
    if (pass != CONVOLUTION_BACKWARD_DATA) c->channels = filled_up(k.channels);
    if (pass != CONVOLUTION_FORWARD) c->features = filled_up(k.features);
  }
  k.image_stored = image->dtype == PLUGIN_BF16;
  k.result_stored = result->dtype == PLUGIN_BF16;
  size_t read = c->bf16 ? sizeof(uint16_t) : sizeof(float);
  k.filter_bytes =
      aligned_bytes(filter_elements(c), pass == CONVOLUTION_BACKWARD_WEIGHT ? sizeof(float) : read);
  if (c->bf16 && pass != CONVOLUTION_BACKWARD_DATA &&
      !(k.image_stored && c->channels == k.channels))
    k.image_bytes = aligned_bytes(c->batch * voxels_of(c->image) * c->channels, read);
  if (c->bf16 && pass != CONVOLUTION_FORWARD && !(k.result_stored && c->features == k.features))
    k.result_bytes = aligned_bytes(c->batch * voxels_of(c->out) * c->features, read);
  bool is_aligned = ((uintptr_t)image->data | (uintptr_t)result->data) % 16 == 0;
  k.is_apart = places_are_apart(c);
  k.is_there = !k.is_apart && is_aligned && library_plans_convolution(l, c, &k.workspace);
  return k;
}

static inline size_t library_scratch(const library_call *k) {
  return k->filter_bytes + k->image_bytes + k->result_bytes + k->workspace;
}

template <typename T> static __device__ inline T as_element(float x);
template <> __device__ inline float as_element<float>(float x) {
  return x;
}
template <> __device__ inline uint16_t as_element<uint16_t>(float x) {
  return (uint16_t)bf16_bits(x);
}

/* PyTorch's weight [F][C / groups][tap] as [F filled up][tap][C / groups filled up]. */
template <typename T> struct pack_filter_f {
  T *to;
  const float *weight;
  int64_t features, own_width, width, taps;
  __device__ void operator()(int64_t i) const {
    int64_t c = i % width, tap = i / width % taps, f = i / (width * taps);
    bool is_there = c < own_width && f < features;
    to[i] = as_element<T>(is_there ? weight[(f * own_width + c) * taps + tap] : 0.0f);
  }
};

/* And back. */
struct unpack_filter_f {
  float *dweight;
  const float *from;
  int64_t own_width, width, taps;
  __device__ void operator()(int64_t i) const {
    int64_t tap = i % taps, c = i / taps % own_width, f = i / (taps * own_width);
    dweight[i] = from[(f * taps + tap) * width + c];
  }
};

/* Voxels of `own` channels, filled up to `width`. */
struct fill_up_f {
  target to;
  source x;
  int64_t own, width;
  __device__ void operator()(int64_t i) const {
    int64_t c = i % width;
    to[i] = c < own ? x[i / width * own + c] : 0.0f;
  }
};

static inline status copy_rounded(const launch *l, void *to, const source &x, int64_t voxels,
                                  int64_t own, int64_t width) {
  if (own == width) return to_bf16(l, (uint16_t *)to, (const float *)x.at, voxels * own);
  return for_each_index(l, voxels * width, fill_up_f{{to, true}, x, own, width});
}

struct add_bias_f {
  float *y;
  const float *bias;
  int64_t channels;
  __device__ void operator()(int64_t i) const {
    y[i] += bias[i % channels];
  }
};

static inline status pack_filter(const launch *l, const library_call *k, void *to,
                                 const float *weight) {
  const convolution *c = &k->c;
  int64_t own = k->channels / c->groups, width = c->channels / c->groups;
  if (!c->bf16)
    return for_each_index(
        l, filter_elements(c),
        pack_filter_f<float>{(float *)to, weight, k->features, own, width, k->taps});
  return for_each_index(
      l, filter_elements(c),
      pack_filter_f<uint16_t>{(uint16_t *)to, weight, k->features, own, width, k->taps});
}

/* `image`, `weight` and `result` are ours; the one that the pass computes is written in f32, with `bias`
 * (may be NULL) added along its channels. */
static inline status run_library(const launch *l, const library_call *k, const void *image,
                                 float *weight, const void *result, const float *bias) {
  const convolution *c = &k->c;
  char *filter = (char *)l->scratch, *rounded_image = filter + k->filter_bytes;
  char *rounded_result = rounded_image + k->image_bytes;
  char *workspace = rounded_result + k->result_bytes;
  bool computes_weight = c->pass == CONVOLUTION_BACKWARD_WEIGHT;
  int64_t in_image = c->batch * voxels_of(c->image), in_result = c->batch * voxels_of(c->out);
  status error = OK;
  if (!computes_weight) error = pack_filter(l, k, filter, weight);
  if (!error && k->image_bytes)
    error = copy_rounded(l, rounded_image, source{image, k->image_stored}, in_image, k->channels,
                         c->channels);
  if (!error && k->result_bytes)
    error = copy_rounded(l, rounded_result, source{result, k->result_stored}, in_result,
                         k->features, c->features);
  if (!error)
    error = library_convolve(l, c, k->image_bytes ? (const void *)rounded_image : image, filter,
                             k->result_bytes ? (const void *)rounded_result : result, workspace);
  if (!error && computes_weight)
    error = for_each_index(l, k->features * k->taps * (k->channels / c->groups),
                           unpack_filter_f{weight, (const float *)filter, k->channels / c->groups,
                                           c->channels / c->groups, k->taps});
  if (error || !bias) return error;
  bool forward = c->pass == CONVOLUTION_FORWARD;
  int64_t channels = forward ? k->features : k->channels;
  return for_each_index(l, (forward ? in_result : in_image) * channels,
                        add_bias_f{(float *)(forward ? result : image), bias, channels});
}

} // namespace conv_kernels

#endif
