/* Operators on intensities that can leave some channels as they are: PET beside CT. */
#ifndef STRATA_PREPARE_CHANNELS_H
#define STRATA_PREPARE_CHANNELS_H

#include "graph/op.h"

#define CHOSEN_CHANNELS(attrs)                                                                     \
  {                                                                                                \
    "channels", ATTR_INTS, offsetof(attrs, channels), "[]", 0, LIST_MAX - 1, NULL, 0,              \
        "numbers of the channels it changes, from 0; none: all of them"                            \
  }

static inline bool channel_is_chosen(const int_list *chosen, int64_t channel) {
  bool found = chosen->count == 0;
  for (int i = 0; i < chosen->count; i++) found |= chosen->at[i] == channel;
  return found;
}

/* `channels`: of a case; below 1: not known yet. */
static inline status check_chosen_channels(const int_list *chosen, int64_t channels) {
  for (int i = 0; i < chosen->count && channels > 0; i++)
    if (chosen->at[i] >= channels)
      return shape_error("channels: there is no channel %lld; those of the images are 0 to %lld",
                         (long long)chosen->at[i], (long long)channels - 1);
  return OK;
}

#endif
