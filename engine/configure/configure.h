/* A first pipeline for a data set: spacing, crop and network follow from what its files say and from the
 * memory that a training step may take, by the rules of nnU-Net's planning (Isensee et al., Nature Methods
 * 2021, supplementary note 2), with the memory that the compiled step does take in place of an estimate. */
#ifndef STRATA_CONFIGURE_CONFIGURE_H
#define STRATA_CONFIGURE_CONFIGURE_H

#include "base/text.h"
#include "data/check.h"
#include "device/device.h"

enum { CONFIGURED_LEVELS_MAX = 8 };

typedef enum configured_network {
  NETWORK_DYNUNET,
  NETWORK_RESENC_UNET,
  NETWORK_PLAIN_UNET /* of trained models */
} configured_network;

/* What is done to a channel's intensities, as in nnU-Net. */
typedef enum scaling {
  SCALE_CT,   /* Hounsfield units */
  SCALE_UNIT, /* to [0, 1] */
  SCALE_RGB,  /* 0 to 255, to [0, 1] */
  SCALE_NONE,
  SCALE_OWN,  /* by its own mean and deviation */
  SCALE_BODY, /* … of what is not 0 */
  SCALINGS
} scaling;

/* Axes are x, y, z of RAS: to the right, to anterior, up; of a trained model its network's. */
typedef struct configuration {
  configured_network network;
  double spacing_mm[3];
  bool is_coarse; /* one axis has slices so thick that its spacing is no median */
  int coarse_axis;
  int64_t median_size[3]; /* of the cases at that spacing */
  int64_t crop[3];        /* voxels of a training crop */
  int levels;             /* of the network, from full resolution down */
  int64_t strides[CONFIGURED_LEVELS_MAX][3], kernels[CONFIGURED_LEVELS_MAX][3];
  int slab_axis, slabs;    /* of the self-supervised stage */
  int tapped;              /* its order heads read levels 1 … tapped */
  int64_t patch[3];        /* that it hides, in voxels */
  bool has_empty_surround; /* cases are cropped to what is not 0, and sizes are those of that box */
  int labelled;            /* cases */
  int64_t planned_batch;   /* crops a step that nnU-Net's planning would take */
  /* Of the result: */
  size_t step_bytes;
  int64_t parameters;
} configuration;

typedef struct configure_options {
  const data_spec *data; /* where it is: layout and path */
  const char *path;      /* of the file that will be written, beside which models are looked for */
  bool (*stop)(void);    /* asked between candidates; may be NULL */
  configured_network network;
  int64_t memory_bytes; /* that a training step may take, with weights and moments */
  int64_t batch;        /* crops a training step */
  const struct plans *
      trained; /* a model of nnU-Net to go on with (plans.h): nothing is decided, network and memory
                                  do not count. NULL: the rules decide */
} configure_options;

/* Decides, and writes the pipeline file's text to `yaml`. Candidates are compiled for `d`. */
status configure(const configure_options *o, const dataset_look *look, device *d,
                 configuration *out, text_buffer *yaml);
/* The same for a trained model, `o->trained`. */
status configure_trained(const configure_options *o, const dataset_look *look, device *d,
                         configuration *out, text_buffer *yaml);

/* ---- the rules, by themselves ---- */

/* `spacings` and `sizes`: count × 3. The median spacing, but along an axis with thick slices (three
 * times the others', and a third of their voxels) the tenth percentile, not below the others. */
void configure_spacing(const double *spacings, const double *sizes, int count, configuration *c);
/* Strides and kernels for a crop, which is enlarged to what they divide: an axis is halved while it has
 * eight voxels or more and its voxels are less than twice as long as the shortest; a kernel is 1 along axes
 * whose voxels are twice as long and more. */
void configure_levels(configuration *c);
/* Equally long sides in mm, 256³ voxels in all, but no more than the median case. */
void configure_first_crop(configuration *c);
/* A smaller crop with its levels: the axis that has most of the median case loses as little as the levels
 * allow. False: none can. */
bool configure_shrink(configuration *c);
/* A crop that is longer along an axis by as little as the levels allow. False, and nothing changes, where
 * it has all of the median case, or would have other levels. */
bool configure_enlarge(configuration *c, int axis);
/* As many crops as hold a twentieth of the cases' voxels and the memory has room for, at least two. */
void configure_batch(const configure_options *o, int cases, configuration *c);
/* Slabs and hidden patches. */
void configure_pretext(configuration *c);

#endif
