#include "base/map.h"

#include "base/files.h"
#include "base/memory.h"
#include "base/refuse.h"
#include "base/zip.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bool path_is_packed(const char *path, size_t *split) {
  if (file_exists(path)) return false;
  for (const char *p = strstr(path, ": "); p; p = strstr(p + 1, ": ")) {
    char *archive = memory_strndup(path, (size_t)(p - path));
    struct stat info;
    bool is_file = stat(archive, &info) == 0 && S_ISREG(info.st_mode);
    free(archive);
    if (!is_file) continue;
    if (split) *split = (size_t)(p - path);
    return true;
  }
  return false;
}

static status map_whole(const char *path, file_map *out) {
  int fd;
  uint64_t bytes;
  TRY(file_open(path, &fd, &bytes));
  status error = bytes == 0 ? refuse("it has only 0 bytes") : OK;
  if (!error) {
    void *map =
        mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    if (map == MAP_FAILED)
      error = error_from_errno("map", path);
    else
      *out = (file_map){.data = map, .bytes = (size_t)bytes};
  }
  close(fd);
  return error;
}

static status map_entry(const char *path, size_t split, file_map *out) {
  char *archive = memory_strndup(path, split);
  zip_archive *z = calloc(1, sizeof *z);
  status error = z ? zip_open(archive, z) : error_out_of_memory(sizeof *z);
  zip_entry *entry = error ? NULL : zip_find(z, path + split + 2);
  const void *data = NULL;
  if (!error && !entry)
    error = refuse("the archive holds no %s; `strata pack RUN --weights` puts weights in",
                   path + split + 2);
  if (!error) error = zip_data(z, entry, &data);
  if (!error && entry->bytes == 0) error = refuse("it has only 0 bytes");
  if (!error) *out = (file_map){.data = (void *)data, .bytes = (size_t)entry->bytes, .archive = z};
  free(archive);
  if (!error) return OK;
  if (z) zip_close(z);
  free(z);
  return error;
}

status file_map_open(const char *path, file_map *out) {
  size_t split;
  *out = (file_map){0};
  return path_is_packed(path, &split) ? map_entry(path, split, out) : map_whole(path, out);
}

void file_map_close(file_map *m) {
  if (m->archive) {
    zip_close(m->archive);
    free(m->archive);
  } else if (m->data) {
    munmap(m->data, m->bytes);
  }
  *m = (file_map){0};
}
