/* scale_range: an intensity window mapped linearly to a range, for CT in HU. */
#include "data/host.h"
#include "graph/op.h"
#include "ops/arithmetic/vector_math.h"
#include "ops/prepare/channels.h"

typedef struct scale_range_attrs {
  double from[2], to[2];
  bool clip;
  int_list channels;
} scale_range_attrs;

static const attr scale_range_attr_list[] = {
    {"from", ATTR_RANGE, offsetof(scale_range_attrs, from), NULL, 0, 0, NULL, 0,
     "intensities [low, high] of the file (CT: HU) that become the ends of `to`"},
    {"to", ATTR_RANGE, offsetof(scale_range_attrs, to), "[0, 1]", 0, 0, NULL, 0,
     "resulting range [low, high]"},
    {"clip", ATTR_BOOL, offsetof(scale_range_attrs, clip), "true", 0, 0, NULL, 0,
     "values outside `from` become the nearest end"},
    CHOSEN_CHANNELS(scale_range_attrs),
    {0},
};

static status scale_range_host_infer(host_infer *shape) {
  const scale_range_attrs *attrs = shape->attrs;
  if (!(attrs->from[0] < attrs->from[1]))
    return shape_error("from: [%g, %g] is an empty range", attrs->from[0], attrs->from[1]);
  return check_chosen_channels(&attrs->channels, shape->channels);
}

FOR_EACH_ISA static void map_range(float *v, int64_t n, int64_t step, double from, double scale,
                                   double to, float low, float high) {
  for (int64_t i = 0; i < n; i += step) {
    float x = (float)(((double)v[i] - from) * scale + to);
    x = x < low ? low : x;
    v[i] = x > high ? high : x;
  }
}

static status scale_range_host(host_call *call) {
  const scale_range_attrs *attrs = call->attrs;
  TRY(host_own(call));
  volume *v = &call->c->image;
  double scale = (attrs->to[1] - attrs->to[0]) / (attrs->from[1] - attrs->from[0]);
  float low = attrs->clip ? (float)attrs->to[0] : -__FLT_MAX__;
  float high = attrs->clip ? (float)attrs->to[1] : __FLT_MAX__;
  int64_t values = v->size[0] * v->size[1] * v->size[2] * v->channels;
  if (attrs->channels.count == 0)
    map_range(v->data, values, 1, attrs->from[0], scale, attrs->to[0], low, high);
  for (int64_t c = 0; c < v->channels && attrs->channels.count > 0; c++)
    if (channel_is_chosen(&attrs->channels, c))
      map_range(v->data + c, values - c, v->channels, attrs->from[0], scale, attrs->to[0], low,
                high);
  return OK;
}

const op op_scale_range = {
    .name = "scale_range",
    .family = "prepare",
    .summary = "Maps an intensity window to a range, e.g. HU [-175, 250] to [0, 1].",
    .doc = "v ↦ to.low + (v − from.low) · (to.high − to.low) / (from.high − from.low), clipped to\n"
           "[to.low, to.high] unless clip is false.",
    .torch = "monai.transforms.ScaleIntensityRange(from[0], from[1], to[0], to[1], clip)",
    .version = 1,
    .traits = OP_PREPARE,
    .attrs = scale_range_attr_list,
    .attrs_bytes = sizeof(scale_range_attrs),
    .host = scale_range_host,
    .host_infer = scale_range_host_infer,
};
