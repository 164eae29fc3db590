/* What the voxels of label maps and of targets hold, in C and in CUDA. */
#ifndef STRATA_DATA_LABEL_H
#define STRATA_DATA_LABEL_H

enum {
  LABEL_VALUES = 256,  /* of a byte of a label map */
  LABEL_CLASSES = 255, /* classes are 0 (background) … 254 */
  LABEL_UNKNOWN = 255, /* nobody knows the voxel's class (`data: ignore_label`) */
  TARGET_UNKNOWN = -1  /* the same in what the step graph reads; no loss counts it */
};

#endif
