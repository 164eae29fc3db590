/* standardize: fixed clipping and z-scoring, by statistics of the whole training set. */
#include "data/host.h"
#include "graph/op.h"
#include "ops/prepare/channels.h"

typedef struct standardize_attrs {
  double clip[2], mean, sd;
  int_list channels;
} standardize_attrs;

static const attr standardize_attr_list[] = {
    {"clip", ATTR_RANGE, offsetof(standardize_attrs, clip), NULL, 0, 0, NULL, 0,
     "intensities [low, high] to clip to first, e.g. the training foreground's 0.5 and 99.5 "
     "percentiles"},
    {"mean", ATTR_FLOAT, offsetof(standardize_attrs, mean), NULL, 0, 0, NULL, 0,
     "intensity that becomes 0"},
    {"sd", ATTR_FLOAT, offsetof(standardize_attrs, sd), NULL, 1e-6, 1e9, NULL, 0,
     "difference of intensity that becomes 1"},
    CHOSEN_CHANNELS(standardize_attrs),
    {0},
};

static status standardize_host_infer(host_infer *shape) {
  const standardize_attrs *attrs = shape->attrs;
  return check_chosen_channels(&attrs->channels, shape->channels);
}

static status standardize_host(host_call *call) {
  const standardize_attrs *attrs = call->attrs;
  TRY(host_own(call));
  volume *v = &call->c->image;
  int64_t values = v->size[0] * v->size[1] * v->size[2] * v->channels;
  for (int64_t c = 0; c < v->channels; c++) {
    if (!channel_is_chosen(&attrs->channels, c)) continue;
    for (int64_t i = c; i < values; i += v->channels) {
      double x = (double)v->data[i];
      x = x < attrs->clip[0] ? attrs->clip[0] : x > attrs->clip[1] ? attrs->clip[1] : x;
      v->data[i] = (float)((x - attrs->mean) / attrs->sd);
    }
  }
  return OK;
}

const op op_standardize = {
    .name = "standardize",
    .family = "prepare",
    .summary = "Clips and z-scores by given numbers, the same for every case.",
    .doc =
        "v ↦ (clip(v) − mean) / sd: CT intensities are absolute, so every case is scaled by the\n"
        "statistics of the training set's foreground instead of its own.",
    .torch = "(torch.clamp(x, *clip) - mean) / sd",
    .version = 1,
    .traits = OP_PREPARE,
    .attrs = standardize_attr_list,
    .attrs_bytes = sizeof(standardize_attrs),
    .host = standardize_host,
    .host_infer = standardize_host_infer,
};
