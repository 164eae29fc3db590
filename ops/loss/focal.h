/* The focal term of focal and dice_focal. */
#ifndef STRATA_OPS_FOCAL_H
#define STRATA_OPS_FOCAL_H

#include "ops/loss/segmentation.h"

typedef struct focal_attrs {
  double gamma, alpha;
  bool sigmoid, include_background;
  float_list class_weights;
} focal_attrs;

/* Lines of an attribute list; `field` is the focal_attrs in the operator's struct. */
#define FOCAL_ATTRS(type, field)                                                                      \
  {                                                                                                   \
      "gamma",                                                                                        \
      ATTR_FLOAT,                                                                                     \
      offsetof(type, field gamma),                                                                    \
      "2",                                                                                            \
      0,                                                                                              \
      20,                                                                                             \
      NULL,                                                                                           \
      0,                                                                                              \
      "how much voxels that are right already lose of their weight; 0: nothing"},                     \
      {"alpha",                                                                                       \
       ATTR_FLOAT,                                                                                    \
       offsetof(type, field alpha),                                                                   \
       "-1",                                                                                          \
       -1,                                                                                            \
       1,                                                                                             \
       NULL,                                                                                          \
       0,                                                                                             \
       "weight of the foreground, the background having 1 − alpha: with sigmoid of a class within " \
       "its own region, otherwise of classes 1 and up; −1: all 1"},                                   \
      {"sigmoid",                                                                                     \
       ATTR_BOOL,                                                                                     \
       offsetof(type, field sigmoid),                                                                 \
       "true",                                                                                        \
       0,                                                                                             \
       0,                                                                                             \
       NULL,                                                                                          \
       0,                                                                                             \
       "each class is told from all others by itself, as MONAI does unless told otherwise; false: "   \
       "softmax over the classes"},                                                                   \
      {"class_weights",                                                                               \
       ATTR_FLOATS,                                                                                   \
       offsetof(type, field class_weights),                                                           \
       "[]",                                                                                          \
       0,                                                                                             \
       1e6,                                                                                           \
       NULL,                                                                                          \
       0,                                                                                             \
       "one factor per class; empty: all 1"},                                                         \
  {                                                                                                   \
    "include_background", ATTR_BOOL, offsetof(type, field include_background), "true", 0, 0, NULL,    \
        0, "class 0 counts as one of the classes"                                                     \
  }

static inline void focal_terms(const focal_attrs *attrs, double weight, segmentation_terms *t) {
  t->cross_entropy = t->focal = true;
  t->cross_entropy_weight = weight;
  t->class_weights = &attrs->class_weights;
  t->gamma = attrs->gamma;
  t->alpha = attrs->alpha;
  t->sigmoid = attrs->sigmoid;
  t->focal_background = attrs->include_background;
}

#endif
