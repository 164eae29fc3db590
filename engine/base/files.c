#include "base/files.h"

#include "base/map.h"
#include "base/memory.h"
#include "base/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
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

/* Open for writing, in the folder of `path` and without a name: it is gone when the program ends before
 * it gets one. −1 where the file system cannot do that, as NFS. */
static int open_unnamed(const char *path) {
  char *folder = path_folder(path);
  bool can_be_named = access("/proc/self/fd", X_OK) == 0;
  int fd = can_be_named ? open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666) : -1;
  free(folder);
  return fd;
}

/* A name beside `path`. */
static char *part_name(const char *path) {
  static atomic_ulong serial;
  text_buffer name = {0};
  text_add(&name, "%s.part-%ld-%lu", path, (long)getpid(), atomic_fetch_add(&serial, 1));
  return name.data;
}

/* Of a program that was killed and had our number, a file may be there. */
static int open_part(const char *path, char **part) {
  int fd;
  do {
    free(*part);
    *part = part_name(path);
    fd = open(*part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (fd < 0 && errno == EEXIST);
  return fd;
}

static bool link_part(const char *now, const char *path, char **part) {
  bool is_linked;
  do {
    free(*part);
    *part = part_name(path);
    is_linked = linkat(AT_FDCWD, now, AT_FDCWD, *part, AT_SYMLINK_FOLLOW) == 0;
  } while (!is_linked && errno == EEXIST);
  return is_linked;
}

status atomic_begin(const char *path, atomic_file *out) {
  *out = (atomic_file){.path = memory_strdup(path)};
  int fd = open_unnamed(path);
  bool is_named = fd < 0;
  if (is_named) fd = open_part(path, &out->part);
  if (fd >= 0) out->stream = fdopen(fd, "wb");
  status error = out->stream ? OK : error_from_errno("create", path);
  if (error && fd >= 0) close(fd);
  if (error && fd >= 0 && is_named) unlink(out->part);
  text_buffer now = {0};
  if (is_named)
    text_add(&now, "%s", out->part);
  else
    text_add(&now, "/proc/self/fd/%d", fd);
  out->now = now.data;
  if (error) atomic_abandon(out);
  return error;
}

void atomic_abandon(atomic_file *f) {
  if (f->stream) {
    fclose(f->stream);
    if (f->part) unlink(f->part);
  }
  free(f->path);
  free(f->part);
  free(f->now);
  *f = (atomic_file){0};
}

/* "NAME.part-PROCESS-NUMBER", as part_name has it. */
static bool is_part_name(const char *name) {
  const char *end = NULL;
  for (const char *at = name; (at = strstr(at, ".part-")); at++) end = at + strlen(".part-");
  if (!end) return false;
  size_t process = strspn(end, "0123456789"), number;
  if (process == 0 || end[process] != '-') return false;
  number = strspn(end + process + 1, "0123456789");
  return number > 0 && end[process + 1 + number] == 0;
}

void atomic_remove_left(const char *folder, double unchanged_s) {
  DIR *listing = opendir(folder);
  double now_s = (double)time(NULL);
  struct stat info;
  for (struct dirent *entry; listing && (entry = readdir(listing));) {
    if (!is_part_name(entry->d_name)) continue;
    char *path = path_join(folder, entry->d_name);
    bool is_old = lstat(path, &info) == 0 && now_s - (double)info.st_mtime >= unchanged_s;
    if (is_old || unchanged_s == 0) unlink(path);
    free(path);
  }
  if (listing) closedir(listing);
}

static void sync_folder(const char *path) {
  char *folder = path_folder(path);
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    fsync(fd);
    close(fd);
  }
  free(folder);
}

status stream_flush(FILE *stream, const char *path) {
  errno = 0;
  if (fflush(stream) == 0 && !ferror(stream)) return OK;
  if (errno == 0) {
    /* The reason why an earlier write failed is gone, but one more gets it again from a full disk. */
    clearerr(stream);
    fputc(' ', stream);
    fflush(stream);
  }
  if (errno != 0) return error_from_errno("write", path);
  return error_new(ERROR_IO, NOWHERE, "cannot write %s: a part of it was not taken", path);
}

static status finish(atomic_file *f, bool to_disk) {
  status error = stream_flush(f->stream, f->path);
  if (!error && to_disk && fsync(fileno(f->stream)) != 0)
    error = error_from_errno("write", f->path);
  bool is_named = f->part != NULL;
  if (!error && !is_named) {
    is_named = link_part(f->now, f->path, &f->part);
    if (!is_named) error = error_from_errno("write", f->path);
  }
  if (fclose(f->stream) != 0 && !error) error = error_from_errno("write", f->path);
  f->stream = NULL;
  if (!error && rename(f->part, f->path) != 0) error = error_from_errno("write", f->path);
  if (error && is_named) unlink(f->part);
  if (!error && to_disk) sync_folder(f->path);
  atomic_abandon(f);
  return error;
}

status atomic_commit(atomic_file *f) {
  return finish(f, true);
}

status atomic_commit_unsynced(atomic_file *f) {
  return finish(f, false);
}

status file_write_atomic(const char *path, const void *data, size_t length) {
  atomic_file f;
  TRY(atomic_begin(path, &f));
  if (length > 0 && fwrite(data, 1, length, f.stream) != length) {
    status error = error_from_errno("write", path);
    atomic_abandon(&f);
    return error;
  }
  return atomic_commit(&f);
}

status folder_create(const char *path) {
  char *copy = memory_strdup(path);
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

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *where) {
  (void)info;
  (void)type;
  (void)where;
  remove(path);
  return 0;
}

void folder_remove(const char *path) {
  enum { OPEN_FOLDERS = 16 };
  nftw(path, remove_one, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS);
}

bool file_exists(const char *path) {
  return access(path, F_OK) == 0;
}

status file_lock(const char *path, int *fd, bool *has_locks) {
  *has_locks = true;
  *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (*fd < 0) return error_from_errno("open", path);
  if (flock(*fd, LOCK_EX | LOCK_NB) == 0) return OK;
  *has_locks = errno != ENOSYS && errno != EOPNOTSUPP && errno != ENOLCK; /* as Lustre may be */
  if (!*has_locks) return OK;
  status error = errno == EWOULDBLOCK ? OK : error_from_errno("lock", path);
  close(*fd);
  *fd = -1;
  return error;
}

char *path_join(const char *folder, const char *name) {
  if (name[0] == '/' || !folder || !folder[0] || strcmp(folder, ".") == 0)
    return memory_strdup(name);
  text_buffer joined = {0};
  text_add(&joined, "%s%s%s", folder, text_ends_with(folder, "/") ? "" : "/", name);
  return joined.data;
}

char *path_folder(const char *path) {
  const char *slash = strrchr(path, '/');
  if (!slash) return memory_strdup(".");
  return memory_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}
