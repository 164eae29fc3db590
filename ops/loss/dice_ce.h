/* Attributes of dice_ce, which deep_supervision has too. */
#ifndef STRATA_OPS_DICE_CE_H
#define STRATA_OPS_DICE_CE_H

#include "ops/loss/segmentation.h"

typedef struct dice_ce_attrs {
  bool squared, include_background, batch;
  double smooth_numerator, smooth_denominator;
  double dice_weight, ce_weight;
} dice_ce_attrs;

/* Lines of an attribute list; `field` is the dice_ce_attrs in the operator's struct and a dot. */
#define DICE_CE_ATTRS(type, field)                                                                 \
  {"squared", ATTR_BOOL, offsetof(type, field squared),                                            \
   "true",    0,         0,                                                                        \
   NULL,      0,         "the Dice denominator adds squares, Σp² + Σt², rather than Σp + Σt"},     \
      {"include_background",                                                                       \
       ATTR_BOOL,                                                                                  \
       offsetof(type, field include_background),                                                   \
       "true",                                                                                     \
       0,                                                                                          \
       0,                                                                                          \
       NULL,                                                                                       \
       0,                                                                                          \
       "class 0 counts as one of the classes in the Dice term"},                                   \
      {"batch", ATTR_BOOL, offsetof(type, field batch),                                            \
       "false", 0,         0,                                                                      \
       NULL,    0,         "Dice sums run over the whole batch rather than over each sample"},     \
      {"smooth_numerator",                                                                         \
       ATTR_FLOAT,                                                                                 \
       offsetof(type, field smooth_numerator),                                                     \
       "0",                                                                                        \
       0,                                                                                          \
       1e6,                                                                                        \
       NULL,                                                                                       \
       0,                                                                                          \
       "added to the Dice numerator"},                                                             \
      {"smooth_denominator",                                                                       \
       ATTR_FLOAT,                                                                                 \
       offsetof(type, field smooth_denominator),                                                   \
       "1e-6",                                                                                     \
       1e-12,                                                                                      \
       1e6,                                                                                        \
       NULL,                                                                                       \
       0,                                                                                          \
       "added to the Dice denominator"},                                                           \
      {"dice_weight", ATTR_FLOAT,       offsetof(type, field dice_weight), "1", 0, 1e6,            \
       NULL,          ATTR_SCHEDULABLE, "factor of the Dice term"},                                \
  {                                                                                                \
    "ce_weight", ATTR_FLOAT, offsetof(type, field ce_weight), "1", 0, 1e6, NULL, ATTR_SCHEDULABLE, \
        "factor of the cross-entropy term"                                                         \
  }

#endif
