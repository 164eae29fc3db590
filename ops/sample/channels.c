#include "ops/sample/channels.h"

void channel_extremes(const volume *v, int64_t channel, float *low, float *high) {
  const int64_t values = v->size[0] * v->size[1] * v->size[2] * v->channels;
  float least = v->data[channel], most = least;
  for (int64_t i = channel; i < values; i += v->channels) {
    least = v->data[i] < least ? v->data[i] : least;
    most = v->data[i] > most ? v->data[i] : most;
  }
  *low = least;
  *high = most;
}

bool channel_is_spared(host_call *call, const channel_attrs *attrs) {
  return attrs->probability < 1 && !host_happens(call, attrs->probability);
}

status change_channels(host_call *call, const channel_attrs *attrs, channel_draw draw, void *change,
                       size_t bytes) {
  int64_t *channel = change;
  if (attrs->synchronized && attrs->probability == 1) {
    *channel = ALL_CHANNELS;
    draw(call, change);
    return host_change(call, CHANGES_INTENSITIES, change, bytes);
  }
  bool drawn = false;
  for (int64_t c = 0; c < call->c->image.channels; c++) {
    if (channel_is_spared(call, attrs)) continue;
    if (!drawn || !attrs->synchronized) draw(call, change);
    drawn = true;
    *channel = c;
    TRY(host_change(call, CHANGES_INTENSITIES, change, bytes));
  }
  return OK;
}

double draw_factor(host_call *call, const double range[2], bool balanced) {
  double low = range[0], high = range[1];
  if (balanced && low < 1 && high > 1) {
    if (host_happens(call, 0.5))
      high = 1;
    else
      low = 1;
  }
  return rng_range(&call->random, low, high);
}
