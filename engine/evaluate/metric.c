#include "evaluate/metric.h"

#include <string.h>

const metric_info metric_table[METRIC_COUNT] = {
    [METRIC_DICE] = {"dice", "dice", "Dice", 4, BETTER_HIGHER, "2·|P∩R| / (|P|+|R|)"},
    [METRIC_JACCARD] = {"jaccard", "jaccard", "Jaccard", 4, BETTER_HIGHER, "|P∩R| / |P∪R|"},
    [METRIC_PRECISION] = {"precision", "precision", "precision", 4, BETTER_HIGHER, "|P∩R| / |P|"},
    [METRIC_RECALL] = {"recall", "recall", "recall", 4, BETTER_HIGHER, "|P∩R| / |R| (sensitivity)"},
    [METRIC_HD] = {"hd", "hd_mm", "HD mm", 2, BETTER_LOWER, "largest surface distance, mm"},
    [METRIC_HD95] = {"hd95", "hd95_mm", "HD95 mm", 2, BETTER_LOWER,
                     "95th percentile of surface distances, mm"},
    [METRIC_ASSD] = {"assd", "assd_mm", "ASSD mm", 3, BETTER_LOWER,
                     "mean surface distance over both directions, mm"},
    [METRIC_NSD] = {"nsd", "nsd", "NSD", 4, BETTER_HIGHER,
                    "share of both surfaces within the tolerance of the other"},
    [METRIC_VOLUME_DIFFERENCE] = {"volume_difference", "volume_difference_ml", "volume ml", 2,
                                  BETTER_LOWER, "||P|−|R||, ml"},
    [METRIC_RELATIVE_VOLUME_DIFFERENCE] = {"relative_volume_difference",
                                           "relative_volume_difference", "volume rel.", 4,
                                           BETTER_NEAR_ZERO, "(|P|−|R|) / |R|, signed"},
};

const metric_info *metric_of_key(const char *key) {
  for (int m = 0; m < METRIC_COUNT; m++)
    if (strcmp(metric_table[m].key, key) == 0) return &metric_table[m];
  return NULL;
}

const char *metric_heading(const char *key) {
  const metric_info *info = metric_of_key(key);
  return info ? info->heading : key;
}

int metric_decimals(const char *key) {
  const metric_info *info = metric_of_key(key);
  return info ? info->decimals : 4;
}
