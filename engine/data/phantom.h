/* Synthetic data sets, CT-like bodies of many organs and MRI-like brains with a tumour, to try everything
 * without a download. */
#ifndef STRATA_DATA_PHANTOM_H
#define STRATA_DATA_PHANTOM_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { PHANTOM_ORGANS = 13, PHANTOM_CASES_MAX = 9999 };

/* The layout, case numbers, spacings and class names of a data set. */
typedef enum phantom_layout {
  PHANTOM_DECATHLON, /* of its own: dataset.json, imagesTr/phantom_001.nii.gz, labelsTr */
  PHANTOM_SYNAPSE, /* BTCV: RawData/Training/img/img0001.nii.gz, label/label0001.nii.gz; 30 cases */
  PHANTOM_LUNG,    /* Task06_Lung of the Decathlon: lung_001 …, class 1 is a tumour; 63 cases */
  PHANTOM_BRATS    /* Task01_BrainTumour of the Decathlon: BRATS_001 …, MRI in four channels */
} phantom_layout;

typedef struct phantom_options {
  phantom_layout layout;
  int64_t size[3]; /* nominal voxels right–left, back–front, feet–head; 0: 96 × 96 × 64. Cases vary
                  around it, because their spacing does and the field of view (240 mm) does not.
                  Synapse, Lung and Brats: 0 is 96 × 96 × 28, 48 and 62 (real: 512 × 512 × 85–198 and
                  112–636, 240 × 240 × 155); only the slices vary, of brains nothing; the body is as
                  small as the field of view */
  int organs; /* labelled organs, the largest first; 0: all 13 */
} phantom_options;

/* "decathlon", "synapse", "lung" or "brats"; false for another name. */
bool phantom_layout_named(const char *name, phantom_layout *out);

/* Writes a data set into `folder`. PHANTOM_DECATHLON is in the Decathlon
 * layout with the organs and class numbers of BTCV (Synapse). Organs beyond `options->organs` are
 * in the images but unlabelled; the labelled ones are then numbered without gaps. Bodies differ in
 * size, place, shape, contrast, spacing, stored orientation and, some, in an oblique field of view.
 * PHANTOM_SYNAPSE and PHANTOM_LUNG have the spacings, the orientation and the HU of those data sets
 * and the numbers of their cases; PHANTOM_BRATS has 1 mm voxels, 0 outside the brain, a glioma
 * in three parts, of which the enhancing one is absent in a few cases, and for every case and channel a
 * scale of its own. `cases` 0: 30, or all that the layout lists. The files depend on the seed, the case's name and the options alone. `options` may be
 * NULL. A folder that holds another dataset is refused. */
status phantom_write(const char *folder, int cases, uint64_t seed, const phantom_options *options);

#endif
