/* The layout is that of PKWARE's APPNOTE 6.3: entries (local header, data), central directory, end
 * record; sizes over 32 bits in zip64 fields. */
#include "base/zip.h"

#include "base/refuse.h"

#include <libdeflate.h>

#include <stdlib.h>
#include <string.h>

enum {
  LOCAL_BYTES = 30,
  CENTRAL_BYTES = 46,
  END_BYTES = 22,
  END64_BYTES = 56,
  LOCATOR_BYTES = 20,
  COMMENT_MAX_BYTES = 65535,
  DEFLATE_MAX_RATIO = 1032, /* 258 bytes from two bits */
  MAX_GROWTH = 16,          /* of all deflated entries; weights hardly shrink */
  GROWTH_FREE_BYTES = 256 << 10,
  FLAG_ENCRYPTED = 1,
  STORED = 0,
  DEFLATED = 8,
  EXTRA_ZIP64 = 1,
  MADE_ON_UNIX = 3
};

static const uint32_t local_signature = 0x04034b50, central_signature = 0x02014b50,
                      end_signature = 0x06054b50, end64_signature = 0x06064b50,
                      locator_signature = 0x07064b50, in_zip64 = 0xFFFFFFFF;

static uint16_t u16(const unsigned char *p) {
  return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t u32(const unsigned char *p) {
  return u16(p) | (uint32_t)u16(p + 2) << 16;
}

static uint64_t u64(const unsigned char *p) {
  return u32(p) | (uint64_t)u32(p + 4) << 32;
}

static status map_archive(const char *path, zip_archive *z) {
  TRY(file_map_open(path, &z->file));
  z->map = z->file.data;
  z->map_bytes = z->file.bytes;
  if (z->map_bytes < END_BYTES) return refuse("it has only %zu bytes", z->map_bytes);
  return OK;
}

typedef struct directory {
  uint64_t at, bytes, count;
} directory;

/* The end record closes the file: its comment reaches exactly to the last byte. */
static status find_end(const zip_archive *z, uint64_t *out) {
  size_t last = z->map_bytes - END_BYTES;
  size_t first = last > COMMENT_MAX_BYTES ? last - COMMENT_MAX_BYTES : 0;
  for (size_t at = last + 1; at-- > first;)
    if (u32(z->map + at) == end_signature &&
        at + END_BYTES + u16(z->map + at + 20) == z->map_bytes) {
      *out = at;
      return OK;
    }
  return refuse("it is a zip archive without an end; was it cut short?");
}

static status find_directory(const zip_archive *z, directory *out) {
  uint64_t end = 0;
  TRY(find_end(z, &end));
  const unsigned char *p = z->map + end;
  bool one_disk = u16(p + 4) == 0 && u16(p + 6) == 0;
  *out = (directory){u32(p + 16), u32(p + 12), u16(p + 10)};
  if (end >= LOCATOR_BYTES && u32(p - LOCATOR_BYTES) == locator_signature) {
    uint64_t end64 = u64(p - LOCATOR_BYTES + 8);
    if (end64 > end - LOCATOR_BYTES || end - LOCATOR_BYTES - end64 < END64_BYTES ||
        u32(z->map + end64) != end64_signature)
      return refuse("its zip64 end record is damaged");
    p = z->map + end64;
    one_disk &= u32(p + 16) == 0 && u32(p + 20) == 0;
    *out = (directory){u64(p + 48), u64(p + 40), u64(p + 32)};
    end = end64;
  }
  if (!one_disk) return refuse("it is a part of an archive of several files");
  if (out->at > end || out->bytes != end - out->at)
    return refuse("its zip directory is not where its end record says");
  if (out->count > ZIP_MAX_ENTRIES)
    return refuse("it has %llu entries; at most %d are read", (unsigned long long)out->count,
                  ZIP_MAX_ENTRIES);
  if (out->count > out->bytes / CENTRAL_BYTES)
    return refuse("its zip directory is too small for %llu entries",
                  (unsigned long long)out->count);
  return OK;
}

/* Relative, without "..", backslashes and control characters. Nothing is unpacked to disk, so a
 * trick would do no harm; but no writer of weights makes such names. */
bool zip_is_plain_name(const char *name, size_t length) {
  if (length == 0 || length > ZIP_MAX_NAME_BYTES || name[0] == '/') return false;
  for (size_t i = 0; i < length; i++) {
    if ((unsigned char)name[i] < 32 || name[i] == 127 || name[i] == '\\' || name[i] == ':')
      return false;
    if ((i == 0 || name[i - 1] == '/') && length - i >= 2 && name[i] == '.' && name[i + 1] == '.' &&
        (length - i == 2 || name[i + 2] == '/'))
      return false;
  }
  return true;
}

/* Sizes and place that did not fit 32 bits, in this order, those that are missing above. */
static status read_zip64(const unsigned char *extra, size_t length, zip_entry *entry) {
  uint64_t *const wanted[] = {&entry->bytes, &entry->packed_bytes, &entry->header_at};
  for (size_t at = 0; at + 4 <= length;) {
    size_t bytes = u16(extra + at + 2), used = 0;
    if (bytes > length - at - 4) break;
    for (int i = 0; u16(extra + at) == EXTRA_ZIP64 && i < 3; i++) {
      if (*wanted[i] != in_zip64) continue;
      if (bytes - used < 8) return refuse("the zip64 sizes of entry %s are cut short", entry->name);
      *wanted[i] = u64(extra + at + 4 + used);
      used += 8;
    }
    if (u16(extra + at) == EXTRA_ZIP64) return OK;
    at += 4 + bytes;
  }
  return OK;
}

/* The local header repeats the name; its sizes may be left out, so the directory's count. */
static status locate_data(const zip_archive *z, const directory *d, zip_entry *entry) {
  size_t name_bytes = strlen(entry->name);
  if (entry->header_at > d->at || d->at - entry->header_at < LOCAL_BYTES + name_bytes)
    return refuse("entry %s begins outside the archive", entry->name);
  const unsigned char *p = z->map + entry->header_at;
  if (u32(p) != local_signature || u16(p + 26) != name_bytes ||
      memcmp(p + LOCAL_BYTES, entry->name, name_bytes) != 0)
    return refuse("the header of entry %s does not agree with the zip directory", entry->name);
  entry->data_at = entry->header_at + LOCAL_BYTES + name_bytes + u16(p + 28);
  if (entry->data_at > d->at || entry->packed_bytes > d->at - entry->data_at)
    return refuse("entry %s reaches outside the archive", entry->name);
  return OK;
}

/* By its Unix mode: neither a file nor a folder. Some writers leave the kind of file out. */
static bool is_special(uint32_t mode) {
  uint32_t kind = mode & 0170000;
  return kind != 0 && kind != 0100000 && kind != 0040000;
}

/* One record of the directory, at *at; moves on to the next. */
static status read_record(zip_archive *z, const directory *d, uint64_t *at, zip_entry *out) {
  uint64_t left = d->at + d->bytes - *at;
  const unsigned char *p = z->map + *at;
  if (left < CENTRAL_BYTES || u32(p) != central_signature)
    return refuse("its zip directory is damaged");
  size_t name = u16(p + 28), extra = u16(p + 30), comment = u16(p + 32);
  if (left - CENTRAL_BYTES < name + extra + comment) return refuse("its zip directory is damaged");
  *at += CENTRAL_BYTES + name + extra + comment;
  if (!zip_is_plain_name((const char *)p + CENTRAL_BYTES, name))
    return refuse("an entry of the archive has an unusable name (absolute, with .., backslashes or "
                  "control characters, or longer than %d bytes)",
                  ZIP_MAX_NAME_BYTES);
  *out = (zip_entry){.name = arena_strndup(&z->memory, (const char *)p + CENTRAL_BYTES, name),
                     .packed_bytes = u32(p + 20),
                     .bytes = u32(p + 24),
                     .header_at = u32(p + 42),
                     .checksum = u32(p + 16),
                     .is_deflated = u16(p + 10) == DEFLATED};
  if (p[5] == MADE_ON_UNIX && is_special(u32(p + 38) >> 16))
    return refuse("entry %s is a link or a device, not a file", out->name);
  if (u16(p + 8) & FLAG_ENCRYPTED) return refuse("entry %s is encrypted", out->name);
  if (u16(p + 10) != STORED && u16(p + 10) != DEFLATED)
    return refuse("entry %s is packed by method %d; only stored and deflated entries are read",
                  out->name, u16(p + 10));
  TRY(read_zip64(p + CENTRAL_BYTES + name, extra, out));
  if (!out->is_deflated && out->packed_bytes != out->bytes)
    return refuse("entry %s is stored as it is, but its two sizes differ", out->name);
  TRY(locate_data(z, d, out));
  if (out->bytes / DEFLATE_MAX_RATIO > out->packed_bytes)
    return refuse("entry %s claims %llu bytes, more than its %llu can hold", out->name,
                  (unsigned long long)out->bytes, (unsigned long long)out->packed_bytes);
  return OK;
}

static int compare_places(const void *a, const void *b) {
  const zip_entry *x = a, *y = b;
  return x->header_at < y->header_at ? -1 : x->header_at > y->header_at;
}

static int compare_names(const void *a, const void *b) {
  return strcmp(((const zip_entry *)a)->name, ((const zip_entry *)b)->name);
}

static status check_entries(zip_archive *z) {
  size_t count = (size_t)z->count;
  if (!count) return OK;
  uint64_t unpacked = 0;
  for (int i = 0; i < z->count; i++) unpacked += z->entries[i].is_deflated * z->entries[i].bytes;
  if (unpacked / MAX_GROWTH > z->map_bytes + GROWTH_FREE_BYTES)
    return refuse("it would unpack to %llu bytes, more than %d times its size",
                  (unsigned long long)unpacked, MAX_GROWTH);
  qsort(z->entries, count, sizeof *z->entries, compare_places);
  for (int i = 1; i < z->count; i++) {
    const zip_entry *before = &z->entries[i - 1];
    if (z->entries[i].header_at < before->data_at + before->packed_bytes)
      return refuse("entries %s and %s overlap", before->name, z->entries[i].name);
  }
  qsort(z->entries, count, sizeof *z->entries, compare_names);
  for (int i = 1; i < z->count; i++)
    if (strcmp(z->entries[i - 1].name, z->entries[i].name) == 0)
      return refuse("two entries are named %s", z->entries[i].name);
  return OK;
}

bool zip_is_archive(const void *bytes, size_t length) {
  return length >= 4 && u32(bytes) == local_signature;
}

status zip_open(const char *path, zip_archive *z) {
  *z = (zip_archive){0};
  TRY(map_archive(path, z));
  directory d;
  TRY(find_directory(z, &d));
  z->entries = arena_alloc(&z->memory, ((size_t)d.count + 1) * sizeof *z->entries);
  uint64_t at = d.at;
  for (uint64_t i = 0; i < d.count; i++) {
    zip_entry *entry = &z->entries[z->count];
    TRY(read_record(z, &d, &at, entry));
    if (entry->name[strlen(entry->name) - 1] != '/') z->count++;
  }
  if (at != d.at + d.bytes) return refuse("its zip directory holds more than its entries");
  return check_entries(z);
}

zip_entry *zip_find(const zip_archive *z, const char *name) {
  zip_entry key = {.name = name};
  return z->count ? bsearch(&key, z->entries, (size_t)z->count, sizeof key, compare_names) : NULL;
}

static status inflate(const unsigned char *packed, const zip_entry *entry, void *out) {
  struct libdeflate_decompressor *inflater = libdeflate_alloc_decompressor();
  if (!inflater) return error_out_of_memory(1 << 16);
  size_t written = 0;
  enum libdeflate_result result = libdeflate_deflate_decompress(
      inflater, packed, (size_t)entry->packed_bytes, out, (size_t)entry->bytes, &written);
  libdeflate_free_decompressor(inflater);
  if (result == LIBDEFLATE_SUCCESS && written == entry->bytes) return OK;
  return refuse("entry %s does not unpack to the %llu bytes it claims", entry->name,
                (unsigned long long)entry->bytes);
}

status zip_data(zip_archive *z, zip_entry *entry, const void **out) {
  *out = entry->content;
  if (entry->content) return OK;
  const unsigned char *data = z->map + entry->data_at;
  void *unpacked = NULL;
  status error = OK;
  if (entry->is_deflated) {
    unpacked = malloc((size_t)entry->bytes + 1);
    if (!unpacked) return error_out_of_memory((size_t)entry->bytes);
    error = inflate(data, entry, unpacked);
    data = unpacked;
  }
  if (!error && libdeflate_crc32(0, data, (size_t)entry->bytes) != entry->checksum)
    error = refuse("the checksum of entry %s is wrong: the file is damaged", entry->name);
  if (error) {
    free(unpacked);
    return error;
  }
  entry->unpacked = unpacked;
  *out = entry->content = data;
  return OK;
}

void zip_close(zip_archive *z) {
  for (int i = 0; i < z->count; i++) free(z->entries[i].unpacked);
  file_map_close(&z->file);
  arena_free(&z->memory);
  *z = (zip_archive){0};
}
