/* Segmentation metrics of a case, and their summary over cases. Distances are in millimetres. */
#ifndef STRATA_EVALUATE_METRICS_H
#define STRATA_EVALUATE_METRICS_H

#include "data/volume.h"
#include "language/pipeline.h"

typedef struct class_score {
  double dice;    /* NaN when skipped by the policy */
  double hd95_mm; /* NaN when the prediction or the reference is empty */
  int64_t reference_voxels, predicted_voxels, overlap_voxels;
  bool missed;       /* in the reference, not predicted */
  bool hallucinated; /* predicted, not in the reference */
} class_score;

typedef struct case_score {
  const char *name;
  class_score *classes; /* class_count entries; [0] = background, scored but not averaged */
} case_score;

/* 2·|A∩B| / (|A|+|B|) per class from one pass over both maps. */
status score_case(const labels *prediction, const labels *reference, int class_count,
                  const evaluate_spec *spec, const char *name, case_score *out);
void case_score_free(case_score *s);
/* 95th-percentile Hausdorff distance between the surfaces (6-connected border voxels inside the mask)
 * of two masks; linear-interpolated percentile. `pooled`: one percentile over both directions
 * (MedPy); otherwise the larger of the two directed percentiles (MONAI). NaN when either is empty. */
status hausdorff95(const uint8_t *a, const uint8_t *b, const int64_t size[3],
                   const double spacing_mm[3], bool pooled, double *out);
/* Exact squared Euclidean distance (mm²) to the nearest voxel of `mask` (Felzenszwalb &
 * Huttenlocher 2012), anisotropic. */
status distance_transform(const uint8_t *mask, const int64_t size[3], const double spacing_mm[3],
                          float *squared_mm);

typedef struct evaluation {
  const char *const *class_names;
  int class_count;
  case_score *cases;
  int case_count;
  const evaluate_spec *spec;
} evaluation;

/* evaluation.json: dice.mean (over foreground classes, then cases), dice.per_class, hd95_mm.mean,
 * hd95_mm.per_class, missed and hallucinated counts, the policy and definition by name, a row per
 * case. Atomic. */
status evaluation_write(const evaluation *e, const char *path);
/* Mean foreground Dice over cases (NaN when nothing counts). */
double evaluation_mean_dice(const evaluation *e);
/* Console table. */
void evaluation_print(const evaluation *e, FILE *out);

#endif
