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

/* File i of a case: images, then the label. */
const char *case_file_path(const case_entry *entry, int i);
int case_file_count(const case_entry *entry);
/* prepare.c: what the cache key has besides the files: the prepare graph and the ignore label. */
uint64_t prepared_identity(const data_spec *spec, int ignore_label);
/* prepare.c: what tells whether files are the ones that were read, and the cache key they gave. */
bool case_stamp(const case_entry *entry, uint64_t stamp[2]);
void case_remember(const case_entry *entry, const uint64_t stamp[2], uint64_t prepare,
                   cache_key key);

/* known_content.c: the hashes of a case's files, as they were when they had this stamp; false: not known.
 * `cache` is the folder of prepared cases. Entries are checked; what cannot be kept is not. */
bool content_known(const char *cache, const uint64_t stamp[2], content_hash *out, int count);
void content_keep(const char *cache, const uint64_t stamp[2], const content_hash *list, int count);

/* "img0001" of "a/b/img0001.nii.gz" */
const char *volume_base_name(arena *memory, const char *path);

#endif
