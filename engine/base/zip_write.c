/* Writes zip archives of stored entries (base/zip.h). */
#include "base/refuse.h"
#include "base/text.h"
#include "base/zip.h"

#include <libdeflate.h>

#include <string.h>

enum {
  ALIGNMENT = 64,
  LOCAL_BYTES = 30,
  EXTRA_HEADER_BYTES = 4,
  FLAG_UTF8 = 1 << 11,
  MADE_BY = 3 << 8 | 20, /* Unix, version 2.0 */
  EXTRACT_VERSION = 20,
  DATE_1980 = 1 << 5 | 1,
  EXTRA_ALIGNMENT = 0xD935, /* as Android's zipalign calls its padding */
  ENTRIES_MAX = 65535
};
static const uint32_t mode_file = 0100644;

typedef struct zip_record {
  const char *name;
  uint32_t checksum;
  uint64_t at, bytes;
} zip_record;

static void number(text_buffer *t, uint64_t n, int bytes) {
  for (int i = 0; i < bytes; i++) {
    char byte = (char)(n >> 8 * i);
    text_append(t, &byte, 1);
  }
}

/* What local header and directory record have in common, from the version to the name's length. */
static void add_facts(text_buffer *t, const zip_record *r) {
  number(t, EXTRACT_VERSION, 2);
  number(t, FLAG_UTF8, 2);
  number(t, 0, 2); /* stored */
  number(t, 0, 2); /* midnight */
  number(t, DATE_1980, 2);
  number(t, r->checksum, 4);
  number(t, r->bytes, 4);
  number(t, r->bytes, 4);
  number(t, strlen(r->name), 2);
}

static void put(zip_output *z, const void *data, size_t bytes) {
  if (bytes > 0) fwrite(data, 1, bytes, z->stream);
  z->at += bytes;
}

status zip_add_stored(zip_output *z, const char *name, const void *data, size_t bytes) {
  size_t length = strlen(name);
  zip_record r = {.name = arena_strdup(&z->memory, name), .at = z->at, .bytes = bytes};
  if (!zip_is_plain_name(name, length))
    return error_new(ERROR_DATA, NOWHERE,
                     "\"%s\" cannot be the name of a file in an archive: it is absolute, leads "
                     "outside, or holds a backslash, a colon or control characters",
                     name);
  if (z->at + bytes > UINT32_MAX - (UINT64_C(64) << 20) || z->count == ENTRIES_MAX)
    return error_new(ERROR_DATA, NOWHERE, "with %s the archive would be larger than 4 GiB", name);
  r.checksum = libdeflate_crc32(0, data, bytes);
  uint64_t start = z->at + LOCAL_BYTES + length + EXTRA_HEADER_BYTES;
  size_t padding = (size_t)((ALIGNMENT - start % ALIGNMENT) % ALIGNMENT);
  static const char zeros[ALIGNMENT];
  text_buffer header = {0};
  number(&header, 0x04034b50, 4);
  add_facts(&header, &r);
  number(&header, EXTRA_HEADER_BYTES + padding, 2);
  text_append(&header, name, length);
  number(&header, EXTRA_ALIGNMENT, 2);
  number(&header, padding, 2);
  text_append(&header, zeros, padding);
  put(z, header.data, header.length);
  put(z, data, bytes);
  text_free(&header);
  ARENA_PUSH(&z->memory, z->records, z->count, z->capacity, r);
  return OK;
}

void zip_finish(zip_output *z) {
  text_buffer t = {0};
  for (int i = 0; i < z->count; i++) {
    const zip_record *r = &z->records[i];
    number(&t, 0x02014b50, 4);
    number(&t, MADE_BY, 2);
    add_facts(&t, r);
    number(&t, 0, 2 + 2 + 2 + 2); /* no extra field, comment, other disk; binary */
    number(&t, (uint64_t)mode_file << 16, 4);
    number(&t, r->at, 4);
    text_append(&t, r->name, strlen(r->name));
  }
  size_t directory = t.length;
  number(&t, 0x06054b50, 4);
  number(&t, 0, 4); /* one disk */
  number(&t, (uint64_t)z->count, 2);
  number(&t, (uint64_t)z->count, 2);
  number(&t, directory, 4);
  number(&t, z->at, 4);
  number(&t, 0, 2); /* no comment */
  put(z, t.data, t.length);
  text_free(&t);
}

void zip_output_free(zip_output *z) {
  arena_free(&z->memory);
  *z = (zip_output){0};
}
