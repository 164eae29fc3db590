/* metrics.csv: what metrics.jsonl says, for spreadsheets. */
#ifndef STRATA_RUN_METRICS_CSV_H
#define STRATA_RUN_METRICS_CSV_H

#include "base/status.h"

/* Writes a row for each line of the JSON lines and a column for each key of any of them: stage,
 * epoch and updates first, seconds last, the others in the order in which they appear. A cell is
 * empty where the line does not have the key, or null. Numbers have the same digits. A half-written
 * last line is left out, as resuming does; other broken lines are errors that say which. Atomic. */
status metrics_csv_write(const char *jsonl_path, const char *csv_path);

#endif
