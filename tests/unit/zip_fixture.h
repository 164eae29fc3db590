/* A zip archive of stored entries, for tests that need one around bytes of their own. */
#ifndef STRATA_TESTS_ZIP_FIXTURE_H
#define STRATA_TESTS_ZIP_FIXTURE_H

#include "base/text.h"

#include <libdeflate.h>

#include <string.h>

/* Zero-initialise; `zip_end` leaves the archive in `out`, which the caller frees. */
typedef struct zip_writer {
  text_buffer out, directory;
  int count;
} zip_writer;

static inline void zip_number(text_buffer *t, uint64_t n, size_t bytes) {
  text_append(t, (const char *)&n, bytes); /* little-endian machines only, as all of Strata */
}

static inline void zip_add(zip_writer *z, const char *name, const void *data, size_t bytes) {
  uint32_t checksum = libdeflate_crc32(0, data, bytes);
  size_t at = z->out.length, length = strlen(name);
  for (int i = 0; i < 2; i++) { /* local header, directory record */
    text_buffer *t = i == 0 ? &z->out : &z->directory;
    zip_number(t, i == 0 ? 0x04034b50 : 0x02014b50, 4);
    zip_number(t, 20, i == 0 ? 2 : 4); /* versions */
    zip_number(t, 0, 8);               /* flags, stored, time, date */
    zip_number(t, checksum, 4);
    zip_number(t, bytes, 4);
    zip_number(t, bytes, 4);
    zip_number(t, length, 2);
    zip_number(t, 0, 2);
    if (i == 1) {
      zip_number(t, 0, 8); /* comment, disk, attributes */
      zip_number(t, 0, 2);
      zip_number(t, at, 4);
    }
    text_append(t, name, length);
  }
  text_append(&z->out, data, bytes);
  z->count++;
}

static inline void zip_end(zip_writer *z) {
  size_t at = z->out.length;
  if (z->directory.data) text_append(&z->out, z->directory.data, z->directory.length);
  zip_number(&z->out, 0x06054b50, 4);
  zip_number(&z->out, 0, 4);
  zip_number(&z->out, (uint64_t)z->count, 2);
  zip_number(&z->out, (uint64_t)z->count, 2);
  zip_number(&z->out, z->directory.length, 4);
  zip_number(&z->out, at, 4);
  zip_number(&z->out, 0, 2);
  text_free(&z->directory);
}

#endif
