/* Segmentation metrics of a case, and their summary over cases. Distances are in millimetres. */
#ifndef STRATA_EVALUATE_METRICS_H
#define STRATA_EVALUATE_METRICS_H

#include "base/parallel.h"
#include "data/volume.h"
#include "language/pipeline.h"

typedef struct class_score {
  double value
      [METRIC_SLOTS]; /* of the table, then of scripts. NaN: not defined, or left out by the policy */
  int64_t reference_voxels, predicted_voxels, overlap_voxels;
  bool missed;       /* in the reference, not predicted */
  bool hallucinated; /* predicted, not in the reference */
} class_score;

typedef struct case_score {
  const char *name;
  class_score *classes; /* evaluate_rows entries; [0] = background: overlap only, never averaged */
  int64_t voxels;       /* of the map */
  int64_t ignored_voxels; /* of them, left out: in the counts of no class */
} case_score;

/* Every metric of every class, P being the prediction's voxels and R the reference's:
 *
 * - overlap and volume as metric_table defines them;
 * - distances in mm, in the reference's spacing, between the surfaces: voxels of the mask with a
 *   6-neighbour outside it, where beyond the image is outside (the definition of SciPy's erosion
 *   and of MONAI). d(P) are the distances from P's surface voxels to the nearest of R's, d(R) the
 *   other way. HD: the largest of both. HD95: `max`, the larger of the 95th percentiles of d(P)
 *   and d(R) (MONAI), or `pooled`, the percentile of d(P) and d(R) together (MedPy); percentiles
 *   interpolate linearly. ASSD: the mean over d(P) and d(R) together. NSD: the share of d(P) and
 *   d(R) that is at most the tolerance (MONAI's SurfaceDiceMetric without subvoxels; not
 *   DeepMind's, which weights marching-cubes surface elements by their area);
 * - where P and R are both empty, Dice, Jaccard, precision, recall and NSD are what the policy
 *   says, and nothing else is defined; where one is, distances, and the ratio whose denominator is
 *   0, are not defined, and NSD is 0.
 *
 * Voxels in which the reference has the spec's ignore_label are in neither P nor R: no overlap, volume
 * or surface is measured there, whatever the prediction says.
 *
 * Where the spec has regions, a row is the union of a region's classes in place of a class.
 *
 * Surface metrics are computed for foreground classes where the spec wants one. Class numbers
 * outside 0 … class_count − 1 and maps of different sizes are errors that name the case. `name` is
 * borrowed. `pool` may be NULL; results do not depend on it. */
status score_case(const labels *prediction, const labels *reference, int class_count,
                  const evaluate_spec *spec, const char *name, thread_pool *pool, case_score *out);
void case_score_free(case_score *s);
/* What is scored: the background, then the foreground classes or, where the spec has some, its regions
 * in their place. */
int evaluate_rows(const evaluate_spec *spec, int class_count);
/* Their names: `class_names`, or "background" and the names of the regions, in `memory`. */
const char *const *evaluate_row_names(const evaluate_spec *spec, const char *const *class_names,
                                      arena *memory);
/* Names and decimals of a metric that the spec has. */
const metric_info *evaluate_metric(const evaluate_spec *spec, int m);
/* Of the surfaces of a row. */
double evaluate_tolerance_mm(const evaluate_spec *spec, int row);

typedef struct evaluation {
  const char *const *class_names;
  const int *class_numbers; /* of the rows; NULL: row i is class i */
  int class_count;          /* rows: classes or regions, the background among them */
  case_score *cases;
  int case_count;
  const evaluate_spec *spec;
} evaluation;

/* evaluation.json. For each metric that the spec wants, under its key (`dice`, `hd95_mm`): mean (over
 * the foreground classes of a case that count, then cases), per_class and their deviations; the same
 * means for each group of classes; the ignore label, where there is one, with its voxels per case;
 * missed and hallucinated counts per class; the policy and
 * definitions by name; a row per case. NaN is written as null. Atomic. */
status evaluation_write(const evaluation *e, const char *path);
/* A row for each case and class: names, metrics, voxel counts. Empty where a metric is not defined.
 * Atomic. */
status evaluation_write_csv(const evaluation *e, const char *path);
/* Mean of a metric over the foreground classes, then over cases (NaN when nothing counts). */
double evaluation_mean(const evaluation *e, int m);
/* Mean of a metric over the cases in which the class of the row counts (NaN: none). */
double evaluation_class_mean(const evaluation *e, int row, int m);
/* Console table. */
void evaluation_print(const evaluation *e, FILE *out);

#endif
