/* Hashes of files that have been read before, kept beside the prepared cases: a run's start then reads
 * the data set's inodes, not its bytes. An entry is named after the stamp of a case's files
 * (case_stamp), so it is found only while they are the ones that were read. */
#include "base/files.h"
#include "base/text.h"
#include "data/cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct known_entry {
  char magic[8];
  uint64_t stamp[2];
  int64_t count;
} known_entry;

static const char known_magic[8] = {'s', 't', 'r', 'h', 'a', 's', 'h', '1'};

static char *known_path(const char *cache, const uint64_t stamp[2]) {
  char name[48];
  snprintf(name, sizeof name, "%016llx%016llx.hash", (unsigned long long)stamp[1],
           (unsigned long long)stamp[0]);
  return path_join(cache, name);
}

/* The entry, three numbers for each file, and a hash of all that. */
static size_t entry_bytes(int count) {
  return sizeof(known_entry) + (3 * (size_t)count + 1) * sizeof(uint64_t);
}

bool content_known(const char *cache, const uint64_t stamp[2], content_hash *out, int count) {
  char *path = known_path(cache, stamp), *bytes = NULL;
  size_t length = 0, wanted = entry_bytes(count);
  known_entry expected = {.stamp = {stamp[0], stamp[1]}, .count = count};
  memcpy(expected.magic, known_magic, sizeof known_magic);
  status error = file_exists(path) ? file_read(path, wanted, &bytes, &length) : OK;
  uint64_t hash;
  bool known =
      !error && bytes && length == wanted && memcmp(bytes, &expected, sizeof expected) == 0;
  if (known) {
    memcpy(&hash, bytes + wanted - sizeof hash, sizeof hash);
    known = hash == bytes_hash(bytes, wanted - sizeof hash);
  }
  const char *kept = known ? bytes + sizeof expected : NULL;
  for (int i = 0; known && i < count; i++) {
    memcpy(&out[i].length, kept + (size_t)(3 * i) * sizeof hash, sizeof hash);
    memcpy(&out[i].low, kept + (size_t)(3 * i + 1) * sizeof hash, sizeof hash);
    memcpy(&out[i].high, kept + (size_t)(3 * i + 2) * sizeof hash, sizeof hash);
    out[i].is_there = true;
  }
  error_free(error);
  free(bytes);
  free(path);
  return known;
}

void content_keep(const char *cache, const uint64_t stamp[2], const content_hash *list, int count) {
  char *path = known_path(cache, stamp), *bytes = calloc(1, entry_bytes(count));
  known_entry entry = {.stamp = {stamp[0], stamp[1]}, .count = count};
  memcpy(entry.magic, known_magic, sizeof known_magic);
  if (bytes) {
    size_t hashed = entry_bytes(count) - sizeof(uint64_t);
    memcpy(bytes, &entry, sizeof entry);
    for (int i = 0; i < count; i++) {
      uint64_t three[] = {list[i].length, list[i].low, list[i].high};
      memcpy(bytes + sizeof entry + (size_t)i * sizeof three, three, sizeof three);
    }
    uint64_t hash = bytes_hash(bytes, hashed);
    memcpy(bytes + hashed, &hash, sizeof hash);
    /* Where it cannot be written, the files are read again; whoever keeps the cases warns. */
    status error = folder_create(cache);
    if (!error) error = file_write_atomic(path, bytes, entry_bytes(count));
    error_free(error);
  }
  free(bytes);
  free(path);
}
