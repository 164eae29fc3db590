/* A reader of zip archives, as far as PyTorch and common tools write them (stored and deflated
 * entries, zip64), and a writer of stored entries. The archive is hostile: the central directory is the only truth, and it is
 * checked whole before anything is unpacked. Every entry's header and data lie inside the file,
 * before the directory, and no two overlap; local headers agree on names; names are unique, relative and
 * without tricks; links are refused; a claimed size beyond what deflate can reach is refused before memory is taken;
 * checksums are verified. Nothing is ever written to disk. */
#ifndef STRATA_BASE_ZIP_H
#define STRATA_BASE_ZIP_H

#include "base/arena.h"
#include "base/map.h"

#include <stdbool.h>

enum { ZIP_MAX_ENTRIES = 200000, ZIP_MAX_NAME_BYTES = 1000 };

typedef struct zip_entry {
  const char *name;
  uint64_t header_at, data_at, packed_bytes, bytes;
  uint32_t checksum;
  bool is_deflated;
  /* Set by zip_data: the checked content, which lies in the mapping or in `unpacked`. */
  const void *content;
  void *unpacked;
} zip_entry;

typedef struct zip_archive {
  zip_entry *entries; /* sorted by name; folders are left out */
  int count;
  file_map file;
  const unsigned char *map; /* its data */
  size_t map_bytes;
  arena memory;
} zip_archive;

/* Relative, without "..", backslashes, colons and control characters? */
bool zip_is_plain_name(const char *name, size_t length);
/* Does the file begin as an archive does? `bytes`: at least its first four. */
bool zip_is_archive(const void *bytes, size_t length);
/* Messages do not name the path. To be closed in any case. */
status zip_open(const char *path, zip_archive *out);
/* NULL when there is none of that name. */
zip_entry *zip_find(const zip_archive *z, const char *name);
/* The entry's content, checked against its checksum: `bytes` bytes that live until zip_close. */
status zip_data(zip_archive *z, zip_entry *entry, const void **out);
void zip_close(zip_archive *z);

/* ---- writing: the same entries in the same order give the same bytes ----------------------- */

typedef struct zip_output {
  FILE *stream; /* the caller's, at its start */
  uint64_t at;
  arena memory;
  struct zip_record *records;
  int count, capacity;
} zip_output;

/* Every entry is stored as it is, at a multiple of 64 bytes, dated 1980-01-01: an entry can be mapped
 * from where it lies. Names are refused that zip_open refuses, and archives over 4 GiB. Write errors
 * of the stream are the caller's to find (stream_flush). */
status zip_add_stored(zip_output *z, const char *name, const void *data, size_t bytes);
void zip_finish(zip_output *z);
void zip_output_free(zip_output *z);

#endif
