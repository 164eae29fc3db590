/* A whole file in memory without reading it first. */
#ifndef STRATA_BASE_MAP_H
#define STRATA_BASE_MAP_H

#include "base/status.h"

#include <stdbool.h>

typedef struct file_map {
  unsigned char *data; /* private: who writes to a page gets a copy of it */
  size_t bytes;
  struct zip_archive *archive; /* that holds it; NULL: the file itself is mapped */
} file_map;

/* A regular file that is not empty, or "ARCHIVE: ENTRY" where no file has that name: an entry of a
 * zip archive, checked against its checksum. The file must not be cut short while it is mapped. On
 * error *out is empty. */
status file_map_open(const char *path, file_map *out);
void file_map_close(file_map *m);
/* Is `path` "ARCHIVE: ENTRY", with an archive that is there? *split (may be NULL): where ": " is. */
bool path_is_packed(const char *path, size_t *split);

#endif
