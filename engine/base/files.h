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
/* A file without a name in the folder of `path`, write, fsync, link and rename, fsync of the folder:
 * after a crash or a full disk `path` holds the old content or the new, never a part, and nothing else
 * is left. (Where the file system knows no files without names, as NFS, it has a name beside `path` from
 * the beginning, and a program that is killed leaves that.) */
status file_write_atomic(const char *path, const void *data, size_t length);
/* In parts: begin gives a FILE to write to; commit makes it `path`, unless a write failed on the way;
 * abandon deletes it. */
typedef struct atomic_file {
  FILE *stream;
  char *path;
  char *part; /* its name beside `path`; NULL: it has none yet */
  char *now;  /* where it can be read until it is committed */
} atomic_file;
status atomic_begin(const char *path, atomic_file *out);
status atomic_commit(atomic_file *f);
/* Without waiting for the disk: after a crash of the machine `path` may hold a part. */
status atomic_commit_unsynced(atomic_file *f);
void atomic_abandon(atomic_file *f);
/* Removes the files with such a name beside another that programs left in a folder when they were killed,
 * if nothing has been written to them for so long. With 0 nobody else may be at work there. */
void atomic_remove_left(const char *folder, double unchanged_s);
/* fflush; an error also when a write to the stream failed before. */
status stream_flush(FILE *stream, const char *path);
/* mkdir -p. */
status folder_create(const char *path);
/* With everything in it, as far as that can be removed. */
void folder_remove(const char *path);
bool file_exists(const char *path);
/* Keeps other programs that ask the same way off what the file stands for, until *fd is closed or the
 * program ends. *fd −1: another program has it. The file is made where there is none, and stays.
 * *has_locks false: the file system has none, and nobody is kept off. */
status file_lock(const char *path, int *fd, bool *has_locks);
/* folder/name; absolute `name` stays. Heap, caller frees. */
char *path_join(const char *folder, const char *name);
/* Folder part of a path ("." when there is none). Heap, caller frees. */
char *path_folder(const char *path);

#endif
