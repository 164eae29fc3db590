/* A run folder, read for the report: whatever is there, of a finished run or one in progress. */
#ifndef STRATA_REPORT_RECORD_H
#define STRATA_REPORT_RECORD_H

#include "base/json.h"
#include "data/dataset.h"

#include <jansson.h>

/* One number of a stage's log over its epochs. */
typedef struct series {
  const char *stage, *name;
  double *epoch, *value;
  int count, epoch_capacity, value_capacity;
} series;

typedef struct run_record {
  arena memory;
  const char *folder, *name;
  json_t *description; /* run.json */
  json_t *evaluation;  /* evaluation.json; NULL: none yet */
  char *resolved;      /* the text of pipeline.lock.yaml; NULL: not readable */
  pipeline *p;         /* NULL: pipeline.lock.yaml cannot be read any more, and a note says why */
  dataset *data;       /* cases whose files are still there; NULL: none */
  series *series;
  int series_count, series_capacity;
  const char **notes; /* what is missing and why, for people */
  int note_count, note_capacity;
} run_record;

/* An error only when `folder` holds no run. */
status record_open(const char *folder, run_record *out);
void record_close(run_record *r);
/* Takes the error and makes it a note. */
void record_note_error(run_record *r, status error);
const series *record_series(const run_record *r, const char *stage, const char *name);
/* The case called so, NULL when there is none. */
const case_entry *record_case(const run_record *r, const char *name);
/* A member of a JSON object as text; "" when it has none. */
const char *json_member(const json_t *object, const char *key);

#endif
