/* Voxels whose class nobody knows (`data: ignore_label`): what stands for them, in C and in CUDA. */
#ifndef STRATA_DATA_UNKNOWN_H
#define STRATA_DATA_UNKNOWN_H

enum {
  LABEL_UNKNOWN = 255, /* in a label map; no class has this number */
  TARGET_UNKNOWN = -1  /* in what the step graph reads; no loss counts it */
};

#endif
