/* clip_percentile: outliers cut off at percentiles of the case's own intensities. */
#include "data/host.h"
#include "graph/op.h"
#include "ops/prepare/channels.h"

#include <math.h>
#include <stdlib.h>

typedef struct clip_percentile_attrs {
  double percent[2];
  int scope;
  int_list channels;
} clip_percentile_attrs;

enum { SCOPE_WHOLE, SCOPE_NONZERO };

static const attr clip_percentile_attr_list[] = {
    {"percent", ATTR_RANGE, offsetof(clip_percentile_attrs, percent), "[0.5, 99.5]", 0, 100, NULL,
     0, "percentiles [low, high] that bound the intensities"},
    {"scope", ATTR_CHOICE, offsetof(clip_percentile_attrs, scope), "whole", 0, 0,
     (const char *const[]){"whole", "nonzero", NULL}, 0,
     "voxels that are counted and clipped: all, or those that are not 0"},
    CHOSEN_CHANNELS(clip_percentile_attrs),
    {0},
};

static status clip_percentile_host_infer(host_infer *shape) {
  const clip_percentile_attrs *attrs = shape->attrs;
  return check_chosen_channels(&attrs->channels, shape->channels);
}

/* Puts the k-th smallest of v[0..n) at v[k], smaller ones before it, larger ones after (Hoare). */
static float select_kth(float *v, int64_t n, int64_t k) {
  int64_t low = 0, high = n - 1;
  while (low < high) {
    float pivot = v[low + (high - low) / 2];
    int64_t i = low, j = high;
    while (i <= j) {
      while (v[i] < pivot) i++;
      while (v[j] > pivot) j--;
      if (i <= j) {
        float swapped = v[i];
        v[i++] = v[j];
        v[j--] = swapped;
      }
    }
    if (k <= j)
      high = j;
    else if (k >= i)
      low = i;
    else
      break;
  }
  return v[k];
}

/* Linear interpolation between the two nearest ranks, NumPy's default definition. */
static double percentile(float *v, int64_t n, double percent) {
  double rank = percent / 100 * (double)(n - 1);
  int64_t k = (int64_t)floor(rank);
  double below = (double)select_kth(v, n, k);
  if (k + 1 >= n || rank == (double)k) return below;
  double above = (double)v[k + 1];
  for (int64_t i = k + 2; i < n; i++)
    if ((double)v[i] < above) above = (double)v[i];
  return below + (rank - (double)k) * (above - below);
}

static status clip_percentile_host(host_call *call) {
  const clip_percentile_attrs *attrs = call->attrs;
  TRY(host_own(call));
  volume *v = &call->c->image;
  int64_t voxels = v->size[0] * v->size[1] * v->size[2];
  float *values = malloc((size_t)voxels * sizeof *values);
  if (!values) return error_out_of_memory((size_t)voxels * sizeof *values);
  for (int64_t c = 0; c < v->channels; c++) {
    if (!channel_is_chosen(&attrs->channels, c)) continue;
    float *data = v->data + c;
    int64_t counted = 0;
    for (int64_t i = 0; i < voxels; i++) {
      float x = data[i * v->channels];
      if (attrs->scope == SCOPE_WHOLE || x != 0) values[counted++] = x;
    }
    if (counted == 0) continue;
    float low = (float)percentile(values, counted, attrs->percent[0]);
    float high = (float)percentile(values, counted, attrs->percent[1]);
    for (int64_t i = 0; i < voxels; i++) {
      float *x = &data[i * v->channels];
      if (attrs->scope == SCOPE_NONZERO && *x == 0) continue;
      *x = *x < low ? low : *x > high ? high : *x;
    }
  }
  free(values);
  return OK;
}

const op op_clip_percentile = {
    .name = "clip_percentile",
    .family = "prepare",
    .summary = "Clips every channel to percentiles of its own intensities.",
    .doc =
        "Percentiles interpolate linearly between ranks (NumPy's default). scope nonzero leaves\n"
        "voxels that are exactly 0 out of the statistics and unchanged.",
    .torch = "torch.clamp(x, *numpy.percentile(x, percent))",
    .version = 1,
    .traits = OP_PREPARE,
    .attrs = clip_percentile_attr_list,
    .attrs_bytes = sizeof(clip_percentile_attrs),
    .host = clip_percentile_host,
    .host_infer = clip_percentile_host_infer,
};
