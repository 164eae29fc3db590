/* What the ways to show a study have in common. */
#ifndef STRATA_ABLATE_REPORT_PARTS_H
#define STRATA_ABLATE_REPORT_PARTS_H

#include "ablate/report.h"
#include "base/table.h"

/* Of the arms; of the trials that failed (no rows: none did); of all trials. */
table report_main_table(const study_report *r);
table report_failure_table(const study *s);
table report_trial_table(const study_report *r);
/* What the numbers are, in sentences. */
void report_legend(const study_report *r, FILE *out);
/* One page with tables and charts, to look at. */
status report_page(study_report *r, const char *path);

#endif
