/* What stands where a volume is hidden from the network. */
#ifndef STRATA_OPS_FILL_H
#define STRATA_OPS_FILL_H

#include "graph/graph.h"

enum { FILL_ZERO, FILL_MEAN, FILL_NOISE };

typedef struct fill_attrs {
  int kind;
  double noise[2];
} fill_attrs;

extern const char *const fill_choices[];

/* The attributes of a `fill_attrs fill` in an operator's struct. */
#define FILL_ATTRS(type)                                                                           \
  {"fill",                                                                                         \
   ATTR_CHOICE,                                                                                    \
   offsetof(type, fill.kind),                                                                      \
   "zero",                                                                                         \
   0,                                                                                              \
   0,                                                                                              \
   fill_choices,                                                                                   \
   0,                                                                                              \
   "what stands there: 0, the mean of the sample's channel, or uniform noise"},                    \
  {                                                                                                \
    "noise", ATTR_RANGE, offsetof(type, fill.noise), "[0, 1]", 0, 0, NULL, 0,                      \
        "lowest and highest intensity of the noise"                                                \
  }

/* Scratch that fill_hidden needs for a volume (N X Y Z C). */
size_t fill_workspace(const fill_attrs *fill, const shape *image);
/* out = image, filled where `mask` (N × a grid whose extents divide the image's) is not 0. `out`
 * may be the image. The noise is drawn from streams of the call's node, one for each plane (n, x). */
void fill_hidden(const call *c, const fill_attrs *fill, const tensor *image, const tensor *mask,
                 const tensor *out, void *workspace);

#endif
