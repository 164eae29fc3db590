/* Metrics between two folders of label maps. */
#ifndef STRATA_EVALUATE_FOLDERS_H
#define STRATA_EVALUATE_FOLDERS_H

#include "evaluate/metrics.h"
#include "run/report.h"

/* Scores every .nii or .nii.gz file of `prediction_dir` against the file of the same name (the
 * extension may differ) in `reference_dir`. A prediction without a reference, two files of one
 * name, a file that cannot be read and a pair on different grids are errors; the other
 * pairs are scored all the same, and the errors come back together. References without a prediction are not scored, and
 * counted in the table. The classes are the values that occur in any of the scored files, named by
 * their number; or, with `class_names` ([0] is the background), those 0 to class_count − 1, and a
 * file with a value beyond them is an error. With regions in the spec, these are scored instead. What
 * the spec says to do to segmentations is done to predictions first; the files stay as they are.
 *
 * Where the result goes is in `to`, each part of which may be NULL. `pool` may be NULL too. */
typedef struct evaluate_outputs {
  FILE *table;
  const char *json_path; /* evaluation.json */
  const char *csv_path;
  const reporter *report; /* how far it is, pair by pair */
} evaluate_outputs;

status evaluate_folders(const char *prediction_dir, const char *reference_dir,
                        const char *const *class_names, int class_count, const evaluate_spec *spec,
                        thread_pool *pool, const evaluate_outputs *to);

#endif
