/* Sample operators whose draws may differ from channel to channel (batchgenerators' p_per_channel and
 * synchronize_channels). */
#ifndef STRATA_OPS_SAMPLE_CHANNELS_H
#define STRATA_OPS_SAMPLE_CHANNELS_H

#include "data/host.h"
#include "graph/op.h"
#include "ops/sample/voxel_rule.h"

typedef struct channel_attrs {
  double probability;
  bool synchronized;
} channel_attrs;

/* Of an operator's list; `field` is the channel_attrs in its struct. */
#define CHANNEL_PROBABILITY_ATTR(type, field)                                                      \
  {                                                                                                \
    "channel_probability", ATTR_FLOAT, offsetof(type, field.probability), "1", 0, 1, NULL,         \
        ATTR_SCHEDULABLE, "that a channel is changed, where the crop is"                           \
  }
#define SYNCHRONIZE_CHANNELS_ATTR(type, field, fallback)                                           \
  {                                                                                                \
    "synchronize_channels", ATTR_BOOL, offsetof(type, field.synchronized), fallback, 0, 0, NULL,   \
        0, "one draw for all channels; false: one for each"                                        \
  }

/* A change's struct begins with the channel that changes. */
static inline int64_t first_channel(int64_t channel) {
  return channel == ALL_CHANNELS ? 0 : channel;
}
static inline int64_t end_of_channels(int64_t channel, int64_t channels) {
  return channel == ALL_CHANNELS ? channels : channel + 1;
}

/* The least and the largest value of a channel. */
void channel_extremes(const volume *v, int64_t channel, float *low, float *high);

/* Draws what follows the channel in a change's struct. */
typedef void (*channel_draw)(host_call *call, void *change);
/* host_change for every channel that changes, or once for all of them where they change alike. */
status change_channels(host_call *call, const channel_attrs *attrs, channel_draw draw, void *change,
                       size_t bytes);
/* Is this channel left as it is? */
bool channel_is_spared(host_call *call, const channel_attrs *attrs);

#define BALANCED_ATTR(type, what)                                                                  \
  {                                                                                                \
    "balanced", ATTR_BOOL, offsetof(type, balanced), "false", 0, 0, NULL, 0,                       \
        "half of the " what " lie below 1, however long the range is on either side"               \
  }
/* From [low, high); `balanced`: from the two parts of it beside 1 equally often. */
double draw_factor(host_call *call, const double range[2], bool balanced);

#endif
