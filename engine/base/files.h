/* Files: whole reads with a size limit, atomic writes, folders. Every error names the path. */
#ifndef STRATA_BASE_FILES_H
#define STRATA_BASE_FILES_H

#include "base/status.h"

#include <stdbool.h>

/* Opens a regular file to read it. What can have no end, as a named pipe or a device, and folders are
 * refused. Caller closes. */
status file_open(const char *path, int *fd, uint64_t *bytes);
/* Whole file, NUL-terminated (not counted in *length). Caller frees. Over `limit` bytes: an error.
 * "ARCHIVE: ENTRY" reads from an archive (base/map.h). */
status file_read(const char *path, size_t limit, char **data, size_t *length);
/* XXH3 of a whole file, 128 bits, as xxhsum -H128 has it, and its length. */
status file_hash(const char *path, uint64_t *length, uint64_t *low, uint64_t *high);
/* Temporary file beside `path`, write, fsync, rename, fsync of the folder: after a crash or a full
 * disk `path` holds the old content or the new, never a part. */
status file_write_atomic(const char *path, const void *data, size_t length);
/* In parts: begin gives a FILE to write to; commit makes it `path`; abandon deletes it. */
typedef struct atomic_file {
  FILE *stream;
  char *path, *temporary;
} atomic_file;
status atomic_begin(const char *path, atomic_file *out);
status atomic_commit(atomic_file *f);
void atomic_abandon(atomic_file *f);
/* mkdir -p. */
status folder_create(const char *path);
bool file_exists(const char *path);
/* Keeps other programs that ask the same way off what the file stands for, until *fd is closed or the
 * program ends. *fd −1: another program has it. The file is made where there is none, and stays. On
 * file systems without locks nobody is kept off. */
status file_lock(const char *path, int *fd);
/* folder/name; absolute `name` stays. Heap, caller frees. */
char *path_join(const char *folder, const char *name);
/* Folder part of a path ("." when there is none). Heap, caller frees. */
char *path_folder(const char *path);

#endif
