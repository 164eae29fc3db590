/* Where windows lie and what their voxels count: MONAI's sliding_window_inference (1.6) and nnU-Net's
 * (v2). */
#include "infer/infer.h"

#include <math.h>
#include <stdlib.h>

int64_t window_positions(int64_t size, int64_t window, double overlap, int64_t *start,
                         int64_t limit) {
  if (size <= window) {
    if (limit > 0) start[0] = 0;
    return 1;
  }
  int64_t step = (int64_t)((double)window * (1.0 - overlap));
  if (step < 1) step = 1;
  int64_t last = size - window;
  int64_t count = (last + step - 1) / step + 1;
  for (int64_t i = 0; i < count && i < limit; i++) {
    int64_t at = i * step;
    start[i] = at < last ? at : last;
  }
  return count;
}

int64_t window_positions_evenly(int64_t size, int64_t window, double step, int64_t *start,
                                int64_t limit) {
  double last = size > window ? (double)(size - window) : 0;
  int64_t count = (int64_t)ceil(last / (step < 1 ? 1 : step)) + 1;
  double distance = count > 1 ? last / (double)(count - 1) : 0;
  for (int64_t i = 0; i < count && i < limit; i++) start[i] = (int64_t)rint(distance * (double)i);
  return count;
}

/* MONAI's Gaussian along one axis, in its precision: the squared distance and the quotient in f32.
 */
static float gaussian(int64_t extent, double sigma_scale, int64_t i) {
  double sigma = sigma_scale * (double)extent;
  float x = (float)i - (float)(extent - 1) / 2.0f;
  return expf(x * x / (float)(-2.0 * (sigma * sigma)));
}

/* nnU-Net's: SciPy's kernel around the voxel at half the extent, 0 beyond 4 sigma. */
static float cut_gaussian(int64_t extent, double sigma_scale, int64_t i) {
  double sigma = sigma_scale * (double)extent, x = (double)(i - extent / 2);
  if (fabs(x) > floor(4 * sigma + 0.5)) return 0;
  return (float)exp(-0.5 * x * x / (sigma * sigma));
}

status importance_open(const window_spec *windows, int64_t classes, importance *out) {
  *out = (importance){.lowest = 0};
  const int64_t *size = windows->size;
  size_t values = (size_t)(size[0] + size[1] + size[2] + size[2] * classes);
  float *all = out->along[0] = malloc(values * sizeof *all);
  if (!all) return error_out_of_memory(values * sizeof *all);
  out->along[1] = all + size[0];
  out->along[2] = out->along[1] + size[1];
  out->by_class = out->along[2] + size[2];
  bool is_cut = windows->blend == BLEND_GAUSSIAN_NNUNET;
  float smallest[3] = {INFINITY, INFINITY, INFINITY};
  for (int a = 0; a < 3; a++)
    for (int64_t i = 0; i < size[a]; i++) {
      float value = windows->blend == BLEND_CONSTANT ? 1.0f
                    : is_cut ? cut_gaussian(size[a], windows->sigma_scale, i)
                             : gaussian(size[a], windows->sigma_scale, i);
      out->along[a][i] = value;
      if (value < smallest[a] && value > 0) smallest[a] = value;
    }
  out->lowest = smallest[0] * smallest[1] * smallest[2];
  if (windows->blend == BLEND_GAUSSIAN && out->lowest < 1e-3f) out->lowest = 1e-3f;
  for (int64_t z = 0; z < size[2]; z++)
    for (int64_t c = 0; c < classes; c++) out->by_class[z * classes + c] = out->along[2][z];
  return OK;
}

void importance_close(importance *i) {
  free(i->along[0]);
  *i = (importance){.lowest = 0};
}
