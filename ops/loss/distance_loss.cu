/* hausdorff_error, boundary_error and their gradients; ops/loss/distance_loss.c has the definition.
 *
 * The squared distance transform is separable: along each axis, each voxel takes the least of
 * d²(q) + (q − p)² over the line. Lines of a crop are short, so a thread simply looks along its own;
 * the sum of squares of whole numbers is exact in f32 for crops of up to 2048 voxels a side, so the
 * order of the axes and the way to the minimum do not matter. */
#include "device/cuda/index.cuh"
#include "device/cuda/sums.cuh"

namespace distance_loss_kernels {

enum { IN_P, IN_TARGET };
enum { OUT_LOSS, OUT_MAP };
enum { BACK_P, BACK_TARGET, BACK_MAP, BACK_DY };

/* One class of one sample: whether a voxel is inside the predicted or the true region. */
struct regions {
  const float *p;
  const int32_t *target;
  volume_shape volume;
  bool predicted;
  int64_t voxels;

  /* Index: (sample · classes + class) · voxels + voxel. */
  __device__ bool is_inside(int64_t i) const {
    int64_t classes = volume.dim[4], v = i % voxels, c = i / voxels % classes;
    int64_t at = i / voxels / classes * voxels + v;
    return predicted ? p[at * classes + c] > 0.5f : target[at] == c;
  }
};

/* How many voxels of each region are inside; a region that is empty or all has no boundary. */
struct inside_terms {
  regions r;
  __device__ float operator()(int64_t s, int64_t i) const {
    return r.is_inside(s * r.voxels + i) ? 1.0f : 0.0f;
  }
};

struct store_count {
  int64_t *counts;
  __device__ void operator()(int64_t s, double total) const {
    counts[s] = (int64_t)total;
  }
};

/* Zero on one side of the boundary, infinity on the other. */
struct start_f {
  float *squared;
  regions r;
  bool inside;
  __device__ void operator()(int64_t i) const {
    squared[i] = r.is_inside(i) == inside ? INFINITY : 0.0f;
  }
};

struct along_axis {
  float *to;
  const float *from;
  int64_t extent, stride;
  __device__ void operator()(int64_t i) const {
    int64_t q = i / stride % extent, base = i - q * stride;
    float least = from[i];
    for (int64_t p = 0; p < extent; p++) {
      float apart = (float)(q - p), d = from[base + p * stride] + apart * apart;
      least = d < least ? d : least;
    }
    to[i] = least;
  }
};

enum { ADD_POWER, SIGNED_OUTSIDE, SIGNED_INSIDE };

struct add_distance {
  float *map; /* N X Y Z C */
  const float *squared;
  const int64_t *counts;
  int64_t voxels, classes;
  bool background;
  int how;
  double alpha;
  __device__ void operator()(int64_t i) const {
    int64_t s = i / voxels, c = s % classes, inside = counts[s];
    bool counts_here = (c > 0 || background) && inside > 0 && inside < voxels;
    float *at = map + (s / classes * voxels + i % voxels) * classes + c;
    if (!counts_here || squared[i] == 0.0f) return;
    if (how == ADD_POWER)
      *at += (float)(alpha == 2 ? (double)squared[i] : pow((double)squared[i], alpha / 2));
    else
      *at = how == SIGNED_INSIDE ? 1.0f - sqrtf(squared[i]) : sqrtf(squared[i]);
  }
};

struct clear_f {
  float *y;
  __device__ void operator()(int64_t i) const {
    y[i] = 0;
  }
};

struct check_labels {
  const int32_t *target;
  int64_t classes;
  struct fault *faults;
  __device__ void operator()(int64_t i) const {
    if (target[i] < 0 || target[i] >= classes) note_label(faults, target[i], classes);
  }
};

struct loss_terms {
  const float *p, *map;
  const int32_t *target;
  int64_t classes;
  bool hausdorff;
  __device__ double operator()(int64_t, int64_t i) const {
    double q = (double)p[i], d = q - (target[i / classes] == i % classes ? 1.0 : 0.0);
    return (double)map[i] * (hausdorff ? d * d : q);
  }
};

struct store_mean {
  float *loss;
  double count;
  __device__ void operator()(int64_t, double total) const {
    *loss = (float)(total / count);
  }
};

/* Terms over which the mean is taken. */
static double term_count(const launch *l) {
  const plugin_shape *p = in_shape(l, 0);
  int64_t classes = last_extent(p);
  return (double)(elements(p) / classes) *
         (double)(classes - (flag(l, "include_background") ? 0 : 1));
}

/* Two volumes of distances for every class, the counts, and the sums' partials. */
struct scratch_parts {
  float *distances[2];
  int64_t *counts;
  void *partials;
  size_t bytes;
};

static scratch_parts parts_of(const launch *l) {
  const plugin_shape *p = in_shape(l, IN_P);
  int64_t maps = p->dim[0] * last_extent(p);
  size_t volume = ((size_t)elements(p) * sizeof(float) + 255) / 256 * 256;
  size_t counts = ((size_t)maps * sizeof(int64_t) + 255) / 256 * 256;
  size_t sums = sum_scratch(maps, elements(p) / maps), total = sum_scratch(1, elements(p));
  char *base = (char *)l->scratch;
  return {{(float *)base, (float *)(base + volume)},
          (int64_t *)(base + 2 * volume),
          base + 2 * volume + counts,
          2 * volume + counts + (sums > total ? sums : total)};
}

/* The squared distances of the voxels on one side to the nearest on the other; in distances[1]. */
static status transform(const launch *l, const scratch_parts &s, const regions &r, bool inside) {
  int64_t count = elements(in_shape(l, IN_P));
  const int64_t *dim = r.volume.dim;
  status error = for_each_index(l, count, start_f{s.distances[0], r, inside});
  int64_t stride[3] = {dim[2] * dim[3], dim[3], 1};
  for (int a = 2; a >= 0 && !error; a--) {
    int from = (2 - a) % 2;
    error = for_each_index(
        l, count, along_axis{s.distances[1 - from], s.distances[from], dim[1 + a], stride[a]});
  }
  return error;
}

static status add_region(const launch *l, bool predicted, bool hausdorff) {
  scratch_parts s = parts_of(l);
  const plugin_shape *p = in_shape(l, IN_P);
  int64_t classes = last_extent(p), maps = p->dim[0] * classes, voxels = elements(p) / maps;
  regions r = {in(l, IN_P), in<int32_t>(l, IN_TARGET), volume_of(p), predicted, voxels};
  launch sums = *l;
  sums.scratch = s.partials;
  status error = sum_each(&sums, maps, voxels, inside_terms{r}, store_count{s.counts});
  for (int side = 0; side < 2 && !error; side++) {
    error = transform(l, s, r, side == 1);
    if (error) break;
    error = for_each_index(l, elements(p),
                           add_distance{out(l, OUT_MAP), s.distances[1], s.counts, voxels, classes,
                                        flag(l, "include_background"),
                                        hausdorff   ? ADD_POWER
                                        : side == 1 ? SIGNED_INSIDE
                                                    : SIGNED_OUTSIDE,
                                        number(l, "alpha")});
  }
  return error;
}

static status distance_error(const launch *l, bool hausdorff) {
  const plugin_shape *p = in_shape(l, IN_P);
  int64_t classes = last_extent(p);
  status error = for_each_index(l, elements(p), clear_f{out(l, OUT_MAP)});
  if (!error)
    error = for_each_index(l, elements(in_shape(l, IN_TARGET)),
                           check_labels{in<int32_t>(l, IN_TARGET), classes, l->faults});
  if (!error && hausdorff) error = add_region(l, true, true);
  if (!error) error = add_region(l, false, hausdorff);
  if (error) return error;
  launch sums = *l;
  sums.scratch = parts_of(l).partials;
  return sum_each(
      &sums, 1, elements(p),
      loss_terms{in(l, IN_P), out(l, OUT_MAP), in<int32_t>(l, IN_TARGET), classes, hausdorff},
      store_mean{out(l, OUT_LOSS), term_count(l)});
}

CUDA_SCRATCH(hausdorff_error) {
  return parts_of(l).bytes;
}
CUDA_OP(hausdorff_error) {
  return distance_error(l, true);
}
CUDA_SCRATCH(boundary_error) {
  return parts_of(l).bytes;
}
CUDA_OP(boundary_error) {
  return distance_error(l, false);
}

struct error_gradient {
  float *dp;
  const float *p, *map, *dy;
  const int32_t *target;
  int64_t classes;
  double count;
  bool hausdorff;
  __device__ void operator()(int64_t i) const {
    float factor = (float)((double)*dy / count);
    float d = p[i] - (target[i / classes] == i % classes ? 1.0f : 0.0f);
    dp[i] = hausdorff ? 2.0f * factor * map[i] * d : factor * map[i];
  }
};

static status distance_backward(const launch *l, bool hausdorff) {
  return for_each_index(l, elements(in_shape(l, BACK_P)),
                        error_gradient{out(l, 0), in(l, BACK_P), in(l, BACK_MAP), in(l, BACK_DY),
                                       in<int32_t>(l, BACK_TARGET),
                                       last_extent(in_shape(l, BACK_P)), term_count(l), hausdorff});
}

CUDA_OP(hausdorff_error_backward) {
  return distance_backward(l, true);
}
CUDA_OP(boundary_error_backward) {
  return distance_backward(l, false);
}

} // namespace distance_loss_kernels
