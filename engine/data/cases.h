/* Inside the data folder: the parts dataset_open is made of. */
#ifndef STRATA_DATA_CASES_H
#define STRATA_DATA_CASES_H

#include "data/dataset.h"

enum { CASES_MAX = 1 << 20, FILE_NAME_MAX = 4000 };

/* layout.c: name, classes, channels and cases, sorted by name, each with its files, from what is on
 * disk. For SPLIT_LISTED the roles are set too. A case with a missing file is reported in `found`
 * and left out; what makes the whole data set unreadable is returned. */
status layout_read(const data_spec *spec, dataset *d, problems *found);
/* split.c: patients, roles and withheld labels. Everything wrong is reported in `found`. */
void split_assign(const data_spec *spec, uint64_t seed, dataset *d, problems *found);

/* "img0001" of "a/b/img0001.nii.gz" */
const char *volume_base_name(arena *memory, const char *path);

#endif
