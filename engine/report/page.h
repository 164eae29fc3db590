/* report.html: one self-contained page about a run. */
#ifndef STRATA_REPORT_PAGE_H
#define STRATA_REPORT_PAGE_H

#include "base/status.h"

/* Writes the report of the run in `folder` to `path`, atomically; NULL: report.html in the folder.
 * `against` is the folder of a second run to compare with; NULL: none. What is missing (no evaluation
 * yet, a volume that is gone) is said on the page. An error when a folder holds no run. */
status report_page_write(const char *folder, const char *against, const char *path);

#endif
