/* normalize: every case to a common intensity scale by its own statistics, for MRI. */
#include "data/host.h"
#include "graph/op.h"
#include "ops/postprocess/components.h"
#include "ops/prepare/channels.h"

#include <float.h>
#include <math.h>

typedef struct normalize_attrs {
  int mode, scope;
  int_list channels;
} normalize_attrs;

enum { MODE_ZSCORE, MODE_MINMAX };
enum { SCOPE_WHOLE, SCOPE_NONZERO, SCOPE_BODY };

static const attr normalize_attr_list[] = {
    {"mode", ATTR_CHOICE, offsetof(normalize_attrs, mode), "zscore", 0, 0,
     (const char *const[]){"zscore", "minmax", NULL}, 0,
     "zscore: to mean 0 and standard deviation 1; minmax: to [0, 1]"},
    {"scope", ATTR_CHOICE, offsetof(normalize_attrs, scope), "whole", 0, 0,
     (const char *const[]){"whole", "nonzero", "body", NULL}, 0,
     "voxels that are counted and changed: all; those that are not 0; or those that are not 0 in any "
     "channel, and what they enclose (nnU-Net)"},
    CHOSEN_CHANNELS(normalize_attrs),
    {0},
};

static status normalize_host_infer(host_infer *shape) {
  const normalize_attrs *attrs = shape->attrs;
  return check_chosen_channels(&attrs->channels, shape->channels);
}

/* 1 where a channel is not 0, and in the holes of that. */
static status find_body(const volume *v, labels *out) {
  const chosen_classes all = {0};
  TRY(labels_allocate(out, v->size));
  for (int64_t i = 0; i < v->size[0] * v->size[1] * v->size[2]; i++) {
    bool is_body = false;
    for (int64_t c = 0; c < v->channels; c++) is_body |= v->data[i * v->channels + c] != 0;
    out->data[i] = is_body;
  }
  return fill_holes(&all, out);
}

/* `body`: of SCOPE_BODY. */
static void normalize_channel(const normalize_attrs *attrs, const uint8_t *body, float *data,
                              int64_t voxels, int64_t stride) {
  bool nonzero = attrs->scope == SCOPE_NONZERO;
  double sum = 0, low = DBL_MAX, high = -DBL_MAX;
  int64_t counted = 0;
  for (int64_t i = 0; i < voxels; i++) {
    double v = (double)data[i * stride];
    if (body ? !body[i] : nonzero && v == 0) continue;
    counted++;
    sum += v;
    low = v < low ? v : low;
    high = v > high ? v : high;
  }
  if (counted == 0) return; /* an empty channel stays empty */
  double offset = low, scale = high > low ? high - low : 1;
  if (attrs->mode == MODE_ZSCORE) {
    double squares = 0;
    offset = sum / (double)counted;
    for (int64_t i = 0; i < voxels; i++) {
      double v = (double)data[i * stride];
      if (body ? !body[i] : nonzero && v == 0) continue;
      squares += (v - offset) * (v - offset);
    }
    double sd = sqrt(squares / (double)counted);
    scale = sd > 0 ? sd : 1;
  }
  for (int64_t i = 0; i < voxels; i++) {
    double v = (double)data[i * stride];
    if (body ? !body[i] : nonzero && v == 0) continue;
    data[i * stride] = (float)((v - offset) / scale);
  }
}

static status normalize_host(host_call *call) {
  const normalize_attrs *attrs = call->attrs;
  TRY(host_own(call));
  volume *v = &call->c->image;
  int64_t voxels = v->size[0] * v->size[1] * v->size[2];
  labels body = {0};
  status error = attrs->scope == SCOPE_BODY ? find_body(v, &body) : OK;
  for (int64_t c = 0; c < v->channels && !error; c++)
    if (channel_is_chosen(&attrs->channels, c))
      normalize_channel(attrs, body.data, v->data + c, voxels, v->channels);
  labels_free(&body);
  return error;
}

const op op_normalize = {
    .name = "normalize",
    .family = "prepare",
    .summary = "Scales every channel by its own mean and deviation, or minimum and maximum.",
    .doc =
        "zscore: (v − mean) / sd with the population standard deviation; minmax:\n"
        "(v − min) / (max − min). Each channel on its own; a constant channel is only shifted.\n"
        "scope nonzero leaves voxels that are exactly 0 (outside the body after skull\n"
        "stripping) out of the statistics and unchanged. scope body does so with voxels that are 0\n"
        "in every channel and lie around the others: a hole, such as a dark voxel in the brain,\n"
        "belongs to the body.",
    .torch = "monai.transforms.NormalizeIntensity(nonzero=scope == 'nonzero', channel_wise=True)",
    .version = 1,
    .traits = OP_PREPARE,
    .attrs = normalize_attr_list,
    .attrs_bytes = sizeof(normalize_attrs),
    .host = normalize_host,
    .host_infer = normalize_host_infer,
};
