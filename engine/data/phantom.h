/* A synthetic CT-like multi-organ dataset, to try everything without a download. */
#ifndef STRATA_DATA_PHANTOM_H
#define STRATA_DATA_PHANTOM_H

#include "base/status.h"

#include <stdint.h>

enum { PHANTOM_ORGANS = 13, PHANTOM_CASES_MAX = 9999 };

typedef struct phantom_options {
  int64_t size[3]; /* nominal voxels right–left, back–front, feet–head; 0: 96 × 96 × 64. Cases vary
                  around it, because their spacing does and the field of view (240 mm) does not */
  int organs; /* labelled organs, the largest first; 0: all 13 */
} phantom_options;

/* Writes dataset.json, imagesTr/phantom_001.nii.gz … and labelsTr/… into `folder`, in the Decathlon
 * layout with the organs and class numbers of BTCV (Synapse). Organs beyond `options->organs` are
 * in the images but unlabelled; the labelled ones are then numbered without gaps. Bodies differ in
 * size, place, shape, contrast, spacing, stored orientation and, some, in an oblique field of view.
 * The files depend on the seed, the case number and the options alone. `options` may be NULL. A
 * folder that holds another dataset is refused. */
status phantom_write(const char *folder, int cases, uint64_t seed, const phantom_options *options);

#endif
