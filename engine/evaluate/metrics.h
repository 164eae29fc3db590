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
  class_score *classes; /* class_count entries; [0] = background: Dice only, never averaged */
} case_score;

/* 2·|A∩B| / (|A|+|B|) per class from one pass over both maps; HD95 of foreground classes where the
 * spec wants it, in the reference's spacing. Class numbers outside 0 … class_count − 1 and maps of
 * different sizes are errors that name the case. `name` is borrowed. */
status score_case(const labels *prediction, const labels *reference, int class_count,
                  const evaluate_spec *spec, const char *name, case_score *out);
void case_score_free(case_score *s);
/* 95th-percentile Hausdorff distance between the surfaces (6-connected border voxels inside the
 * mask) of two masks, where beyond the image is outside; linear-interpolated percentile. `pooled`:
 * one percentile over both directions (MedPy); otherwise the larger of the two directed percentiles
 * (MONAI). NaN when either is empty. */
status hausdorff95(const uint8_t *a, const uint8_t *b, const int64_t size[3],
                   const double spacing_mm[3], bool pooled, double *out);
/* Exact squared Euclidean distance (mm²) to the nearest voxel of `mask` (Felzenszwalb &
 * Huttenlocher 2012), anisotropic; infinite where the mask is empty. */
status distance_transform(const uint8_t *mask, const int64_t size[3], const double spacing_mm[3],
                          float *squared_mm);

typedef struct evaluation {
  const char *const *class_names;
  int class_count;
  case_score *cases;
  int case_count;
  const evaluate_spec *spec;
} evaluation;

/* evaluation.json: dice.mean (over the foreground classes of a case that count, then cases),
 * dice.per_class, hd95_mm.mean, hd95_mm.per_class, missed and hallucinated counts per class, the
 * policy and definition by name, a row per case. NaN is written as null; a metric the spec does not
 * want is left out. Atomic. */
status evaluation_write(const evaluation *e, const char *path);
/* Mean foreground Dice over cases (NaN when nothing counts). */
double evaluation_mean_dice(const evaluation *e);
/* Console table. */
void evaluation_print(const evaluation *e, FILE *out);

#endif
