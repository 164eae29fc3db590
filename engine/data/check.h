/* A data set looked through from end to end: every file opened, and what the files say of it. */
#ifndef STRATA_DATA_CHECK_H
#define STRATA_DATA_CHECK_H

#include "base/parallel.h"
#include "data/dataset.h"
#include "run/report.h"

/* Values of one channel in the foreground (voxels whose class is known and not 0) of the training
 * cases, from at most 10,000 voxels a case, evenly spread over its foreground. */
typedef struct channel_values {
  int64_t count; /* 0: no case has a foreground */
  double mean, deviation, min, max;
  double percentile_0_5, median, percentile_99_5;
} channel_values;

typedef struct case_look {
  const case_entry *entry;
  bool is_good; /* false: the files could not be read or do not fit each other */
  int64_t size[3], channels;
  double spacing_mm[3], voxel_ml;
  char axes[4];             /* directions in which the indices grow, "RAS" */
  int ras_axis[3];          /* axis of the file that runs right or left, along A–P, up or down */
  double spacing_ras_mm[3]; /* of these */
  double min, max, mean;    /* of all voxels and channels */
  int64_t box_size[3]; /* of the box around the voxels above 0, of any channel; 0: there is none */
  int64_t *class_voxels; /* class_count of the data set; NULL: no label */
  double unknown;        /* share of the voxels whose class is unknown (ignore_label) */
  uint64_t image_hash;
  char **problems; /* messages */
  int problem_count;
} case_look;

typedef struct dataset_look {
  const dataset *data;
  case_look *cases; /* as data->cases */
  channel_values *channels;
  int channel_count; /* the data set's, or the most that a case has */
  problems found;    /* what is wrong: each names its file */
  char **notes;      /* what is worth knowing, such as a qform that disagrees with the sform */
  int note_count, note_capacity;
} dataset_look;

/* Opens every file of every case. What is wrong with one case is added to `found`, and the others
 * are still looked at. `report` is told of every case. `pool` and `report` may be NULL. */
status dataset_look_at(const dataset *data, thread_pool *pool, const reporter *report,
                       dataset_look *out);
void dataset_look_free(dataset_look *l);
void dataset_look_print(const dataset_look *l, FILE *out);
/* Everything above as JSON. Atomic. */
status dataset_look_write(const dataset_look *l, const char *path);

#endif
