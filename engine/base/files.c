#include "base/files.h"

#include "base/map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

status file_open(const char *path, int *fd, uint64_t *bytes) {
  /* Non-blocking, so that a named pipe cannot hold the program up. */
  *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (*fd < 0) return error_from_errno("open", path);
  struct stat info;
  status error = OK;
  if (fstat(*fd, &info) != 0)
    error = error_from_errno("read", path);
  else if (!S_ISREG(info.st_mode))
    error = error_new(ERROR_IO, NOWHERE, "cannot read %s: it is %s", path,
                      S_ISDIR(info.st_mode) ? "a folder" : "not a regular file");
  if (error)
    close(*fd);
  else
    *bytes = (uint64_t)info.st_size;
  return error;
}

static status too_large(const char *path, size_t limit) {
  return error_new(ERROR_IO, NOWHERE, "%s is larger than the %zu KiB allowed here", path,
                   limit / 1024);
}

static status read_packed(const char *path, size_t limit, char **data, size_t *length) {
  file_map map;
  TRY(error_prefix(file_map_open(path, &map), "%s", path));
  status error = map.bytes > limit ? too_large(path, limit) : OK;
  if (!error && !(*data = malloc(map.bytes + 1))) error = error_out_of_memory(map.bytes);
  if (!error) {
    memcpy(*data, map.data, map.bytes);
    (*data)[map.bytes] = 0;
    *length = map.bytes;
  }
  file_map_close(&map);
  return error;
}

status file_read(const char *path, size_t limit, char **data, size_t *length) {
  *data = NULL;
  *length = 0;
  if (path_is_packed(path, NULL)) return read_packed(path, limit, data, length);
  int fd;
  uint64_t bytes;
  TRY(file_open(path, &fd, &bytes));
  FILE *in = fdopen(fd, "rb");
  if (!in) {
    close(fd);
    return error_from_errno("open", path);
  }
  size_t capacity = 16384, used = 0;
  char *buffer = malloc(capacity + 1);
  while (buffer) {
    size_t got = fread(buffer + used, 1, capacity - used, in);
    used += got;
    if (used > limit) {
      free(buffer);
      fclose(in);
      return too_large(path, limit);
    }
    if (got == 0) break;
    if (used == capacity) {
      capacity *= 2;
      char *grown = realloc(buffer, capacity + 1);
      if (!grown) {
        free(buffer);
        buffer = NULL;
      } else {
        buffer = grown;
      }
    }
  }
  bool failed = ferror(in);
  fclose(in);
  if (!buffer) return error_out_of_memory(capacity);
  if (failed) {
    free(buffer);
    return error_from_errno("read", path);
  }
  buffer[used] = 0;
  *data = buffer;
  *length = used;
  return OK;
}

status file_hash(const char *path, uint64_t *length, uint64_t *low, uint64_t *high) {
  enum { PIECE_BYTES = 1 << 20 };
  if (path_is_packed(path, NULL)) {
    file_map map;
    TRY(error_prefix(file_map_open(path, &map), "%s", path));
    XXH128_hash_t hash = XXH3_128bits(map.data, map.bytes);
    *length = map.bytes;
    *low = hash.low64;
    *high = hash.high64;
    file_map_close(&map);
    return OK;
  }
  int fd;
  uint64_t bytes;
  TRY(file_open(path, &fd, &bytes));
  XXH3_state_t *state = XXH3_createState();
  char *piece = malloc(PIECE_BYTES);
  status error = state && piece ? OK : error_out_of_memory(PIECE_BYTES);
  if (!error) XXH3_128bits_reset(state);
  *length = 0;
  for (ssize_t got = 1; !error && got > 0;) {
    got = read(fd, piece, PIECE_BYTES);
    if (got < 0) error = error_from_errno("read", path);
    if (got <= 0) break;
    XXH3_128bits_update(state, piece, (size_t)got);
    *length += (uint64_t)got;
  }
  if (!error) {
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    *low = hash.low64;
    *high = hash.high64;
  }
  XXH3_freeState(state);
  free(piece);
  close(fd);
  return error;
}

status atomic_begin(const char *path, atomic_file *out) {
  *out = (atomic_file){0};
  size_t bytes = strlen(path) + 48;
  out->path = strdup(path);
  out->temporary = malloc(bytes);
  if (!out->path || !out->temporary) {
    atomic_abandon(out);
    return error_out_of_memory(bytes);
  }
  snprintf(out->temporary, bytes, "%s.part-%ld", path, (long)getpid());
  out->stream = fopen(out->temporary, "wb");
  if (!out->stream) {
    status error = error_from_errno("create", path);
    atomic_abandon(out);
    return error;
  }
  return OK;
}

void atomic_abandon(atomic_file *f) {
  if (f->stream) {
    fclose(f->stream);
    unlink(f->temporary);
  }
  free(f->path);
  free(f->temporary);
  *f = (atomic_file){0};
}

static void sync_folder(const char *path) {
  char *folder = path_folder(path);
  int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
  if (fd >= 0) {
    fsync(fd);
    close(fd);
  }
  free(folder);
}

status atomic_commit(atomic_file *f) {
  status error = OK;
  if (fflush(f->stream) != 0 || ferror(f->stream) || fsync(fileno(f->stream)) != 0)
    error = error_from_errno("write", f->path);
  if (fclose(f->stream) != 0 && !error) error = error_from_errno("write", f->path);
  f->stream = NULL;
  if (!error && rename(f->temporary, f->path) != 0) error = error_from_errno("write", f->path);
  if (error)
    unlink(f->temporary);
  else
    sync_folder(f->path);
  atomic_abandon(f);
  return error;
}

status file_write_atomic(const char *path, const void *data, size_t length) {
  atomic_file f;
  TRY(atomic_begin(path, &f));
  if (fwrite(data, 1, length, f.stream) != length) {
    status error = error_from_errno("write", path);
    atomic_abandon(&f);
    return error;
  }
  return atomic_commit(&f);
}

status folder_create(const char *path) {
  char *copy = strdup(path);
  if (!copy) return error_out_of_memory(strlen(path));
  for (char *p = copy + 1;; p++) {
    if (*p != '/' && *p != 0) continue;
    char end = *p;
    *p = 0;
    if (mkdir(copy, 0777) != 0 && errno != EEXIST) {
      status error = error_from_errno("create folder", copy);
      free(copy);
      return error;
    }
    *p = end;
    if (end == 0) break;
  }
  struct stat info;
  bool is_folder = stat(copy, &info) == 0 && S_ISDIR(info.st_mode);
  free(copy);
  if (!is_folder)
    return error_new(ERROR_IO, NOWHERE, "cannot create folder %s: a file is in the way", path);
  return OK;
}

bool file_exists(const char *path) {
  return access(path, F_OK) == 0;
}

status file_lock(const char *path, int *fd) {
  *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (*fd < 0) return error_from_errno("open", path);
  if (flock(*fd, LOCK_EX | LOCK_NB) == 0) return OK;
  if (errno == ENOSYS || errno == EOPNOTSUPP || errno == ENOLCK) return OK; /* as Lustre may be */
  status error = errno == EWOULDBLOCK ? OK : error_from_errno("lock", path);
  close(*fd);
  *fd = -1;
  return error;
}

char *path_join(const char *folder, const char *name) {
  if (name[0] == '/' || !folder || !folder[0] || strcmp(folder, ".") == 0) return strdup(name);
  size_t n = strlen(folder), bytes = n + strlen(name) + 2;
  char *joined = malloc(bytes);
  if (joined) snprintf(joined, bytes, "%s%s%s", folder, folder[n - 1] == '/' ? "" : "/", name);
  return joined;
}

char *path_folder(const char *path) {
  const char *slash = strrchr(path, '/');
  if (!slash) return strdup(".");
  if (slash == path) return strdup("/");
  return strndup(path, (size_t)(slash - path));
}
