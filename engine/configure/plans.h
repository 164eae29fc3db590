/* A trained model of nnU-Net 2, as its folder describes it: how images are prepared, what the network is
 * and where its weights lie. */
#ifndef STRATA_CONFIGURE_PLANS_H
#define STRATA_CONFIGURE_PLANS_H

#include "base/arena.h"
#include "configure/configure.h"
#include "data/label.h"

enum { PLANNED_CHANNELS_MAX = 64 };

/* Axes are those of the network, in whose order plans list them. Texts live in the arena. */
typedef struct plans {
  configuration c;  /* spacing, median case, crop, levels and batch; the rest is 0 */
  const char *name; /* of the configuration: "3d_fullres" */
  char axes[4];     /* what `orient` makes the network's axes of: "zyx", the file's, or "SAR" */
  int64_t features[CONFIGURED_LEVELS_MAX];
  int64_t convolutions[CONFIGURED_LEVELS_MAX]; /* of each level, in residual blocks these */
  int64_t
      decoder_convolutions[CONFIGURED_LEVELS_MAX]; /* one fewer: from the lowest resolution up */
  bool has_bias, is_batch_norm;
  bool is_batch_dice;
  int channels;
  scaling scaling[PLANNED_CHANNELS_MAX];
  channel_values values[PLANNED_CHANNELS_MAX]; /* of SCALE_CT; without counts */
  const char *interpolation;                   /* of the image: "cubic", "linear" or "nearest" */
  bool slices_image, slices_output; /* along a coarse axis they are resampled slice by slice */
  const char *mirrored;             /* axes: "x, y, z"; "": none */
  int written[REGIONS_MAX], written_count; /* by regions, in their order, the class; 0: not said */
  const char *dataset;                     /* it was trained on: "Dataset004_Hippocampus" */
  const char *outputs[LABEL_CLASSES];      /* the names of classes from 1 on, or of regions */
  int output_count;
  bool has_regions;
  const char *folder;            /* absolute */
  const char *fold, *checkpoint; /* the first there is: "0", "checkpoint_final.pth" */
  const char *splits; /* splits_final.json of its training; NULL: it is not on this machine */
} plans;

/* `folder`: …/nnUNetTrainer__nnUNetPlans__3d_fullres, with plans.json, dataset.json and folds. What
 * nnU-Net does and this program cannot is an error that names file and key, like what is damaged. */
status plans_read(const char *folder, arena *memory, plans *out);
/* Does the model segment the classes of the data set, or its regions, by their names? */
bool plans_segment(const plans *p, const dataset *d);

#endif
