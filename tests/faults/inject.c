/* Makes one call to the system fail: a library for LD_PRELOAD, with which faults.py runs the program.
 *
 *   FAULT_COUNTS=FILE  counts of every class, shared by all processes that the program starts
 *   FAULT_CALL=CLASS   memory, open, read, write, close, sync, rename, mkdir, lock or thread
 *   FAULT_AT=N         its Nth call fails, from 1; 0: none does, calls are only counted
 *   FAULT_ERROR=NAME   with ENOMEM, ENOSPC, EIO, EINTR, EAGAIN, EOPNOTSUPP; "short": half of a read or
 *                      write; or SIGINT, SIGKILL: the call is made, and the signal comes before it
 *   FAULT_STAYS=1      and every one after it
 *   FAULT_TRACE=FILE   where the calls that failed came from
 *   FAULT_SITES=FILE   gets a line for each place in the program that makes such calls: class and
 *                      number of the first
 *
 * What goes to standard error is left alone: it is the message that a test looks for. */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include <dirent.h>
#include <sys/stat.h>

enum { MEMORY, OPEN, READ, WRITE, CLOSE, SYNC, RENAME, MKDIR, LOCK, THREAD, CLASSES };

static const char *const class_names[CLASSES] = {"memory", "open",   "read",  "write", "close",
                                                 "sync",   "rename", "mkdir", "lock",  "thread"};

static atomic_ulong own_counts[CLASSES]; /* until FAULT_COUNTS is mapped */
static atomic_ulong *counts = own_counts;
static int faulty_class = -1, fault_errno, fault_signal;
static unsigned long fault_at;
static bool fault_stays, fault_is_short, is_ready;
static const char *trace_path, *sites_path;

/* The next definition of `name`: the C library's. */
#define NEXT(name)                                                                                 \
  static __typeof__(&name) next;                                                                   \
  if (!next) *(void **)&next = dlsym(RTLD_NEXT, #name)

static int number_of(const char *error) {
  static const struct {
    const char *name;
    int number;
  } errors[] = {{"ENOMEM", ENOMEM}, {"ENOSPC", ENOSPC}, {"EIO", EIO},
                {"EINTR", EINTR},   {"EAGAIN", EAGAIN}, {"EOPNOTSUPP", EOPNOTSUPP}};
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
    if (strcmp(errors[i].name, error) == 0) return errors[i].number;
  fprintf(stderr, "FAULT_ERROR=%s is unknown\n", error);
  _exit(99);
}

__attribute__((constructor)) static void begin(void) {
  const char *call = getenv("FAULT_CALL"), *at = getenv("FAULT_AT"), *error = getenv("FAULT_ERROR");
  const char *path = getenv("FAULT_COUNTS");
  void *unused[1];
  backtrace(unused, 1); /* loads what it needs, outside the count */
  NEXT(open);
  int fd = path ? next(path, O_RDWR | O_CREAT, 0666) : -1;
  if (fd >= 0 && lseek(fd, sizeof own_counts - 1, SEEK_SET) >= 0) {
    struct stat info;
    if (fstat(fd, &info) == 0 && info.st_size == 0 &&
        posix_fallocate(fd, 0, sizeof own_counts) != 0)
      _exit(99);
    void *map = mmap(NULL, sizeof own_counts, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) counts = map;
  }
  for (int i = 0; call && i < CLASSES; i++)
    if (strcmp(call, class_names[i]) == 0) faulty_class = i;
  fault_at = at ? strtoul(at, NULL, 10) : 0;
  fault_is_short = error && strcmp(error, "short") == 0;
  if (error && strcmp(error, "SIGINT") == 0) fault_signal = SIGINT;
  if (error && strcmp(error, "SIGKILL") == 0) fault_signal = SIGKILL;
  fault_errno = error && !fault_is_short && !fault_signal ? number_of(error) : EIO;
  fault_stays = getenv("FAULT_STAYS") != NULL;
  trace_path = getenv("FAULT_TRACE");
  sites_path = getenv("FAULT_SITES");
  is_ready = true;
}

static _Thread_local bool is_tracing;

static void trace(void) {
  void *calls[32];
  is_tracing = true;
  int fd = open(trace_path, O_WRONLY | O_CREAT | O_APPEND, 0666);
  backtrace_symbols_fd(calls, backtrace(calls, 32), fd);
  close(fd);
  is_tracing = false;
}

/* A place is the innermost callers. Notes its number if no call came from there before. */
static void note_site(int class, unsigned long number) {
  enum { DEPTH = 5, OWN = 2, PLACES = 1 << 16 };
  static _Atomic uint64_t places[PLACES];
  void *calls[DEPTH + OWN];
  is_tracing = true;
  int depth = backtrace(calls, DEPTH + OWN);
  uint64_t hash = 1u + (unsigned)class;
  for (int i = OWN; i < depth; i++) hash = (hash ^ (uintptr_t)calls[i]) * 1099511628211u;
  for (size_t at = hash % PLACES;; at = (at + 1) % PLACES) {
    uint64_t seen = 0;
    if (atomic_compare_exchange_strong(&places[at], &seen, hash)) {
      char line[48];
      int bytes = snprintf(line, sizeof line, "%s %lu\n", class_names[class], number);
      int fd = open(sites_path, O_WRONLY | O_CREAT | O_APPEND, 0666);
      if (write(fd, line, (size_t)bytes) != bytes) _exit(99);
      close(fd);
      break;
    }
    if (seen == hash) break;
  }
  is_tracing = false;
}

/* Counts a call; whether it has to fail. */
static bool fails(int class) {
  if (!is_ready || is_tracing) return false;
  unsigned long now = atomic_fetch_add(&counts[class], 1) + 1;
  if (sites_path) note_site(class, now);
  if (class != faulty_class || fault_at == 0) return false;
  if (now != fault_at && !(fault_stays && now > fault_at)) return false;
  if (trace_path) trace();
  if (fault_signal) {
    raise(fault_signal);
    return false;
  }
  errno = fault_errno;
  return true;
}

/* ---- memory --------------------------------------------------------------------------------- */

/* The C library's own names: dlsym itself asks for memory. */
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

void *malloc(size_t bytes) {
  return fails(MEMORY) ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes) {
  return fails(MEMORY) ? NULL : __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes) {
  return fails(MEMORY) ? NULL : __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) {
  return fails(MEMORY) ? NULL : __libc_memalign(alignment, bytes);
}

int posix_memalign(void **out, size_t alignment, size_t bytes) {
  if (fails(MEMORY)) return ENOMEM;
  *out = __libc_memalign(alignment, bytes);
  return *out ? 0 : ENOMEM;
}

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
  NEXT(mmap);
  return fails(MEMORY) ? MAP_FAILED : next(at, bytes, protection, flags, fd, offset);
}

/* ---- files by number ------------------------------------------------------------------------ */

int open(const char *path, int flags, ...) {
  NEXT(open);
  va_list args;
  va_start(args, flags);
  bool creates = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
  mode_t mode = creates ? va_arg(args, mode_t) : 0;
  va_end(args);
  return fails(OPEN) ? -1 : next(path, flags, mode);
}

int mkstemp(char *path) {
  NEXT(mkstemp);
  return fails(OPEN) ? -1 : next(path);
}

DIR *opendir(const char *path) {
  NEXT(opendir);
  return fails(OPEN) ? NULL : next(path);
}

static size_t half(size_t bytes) {
  return bytes > 1 ? bytes / 2 : bytes;
}

ssize_t read(int fd, void *out, size_t bytes) {
  NEXT(read);
  if (!fails(READ)) return next(fd, out, bytes);
  return fault_is_short ? next(fd, out, half(bytes)) : -1;
}

ssize_t pread(int fd, void *out, size_t bytes, off_t at) {
  NEXT(pread);
  if (!fails(READ)) return next(fd, out, bytes, at);
  return fault_is_short ? next(fd, out, half(bytes), at) : -1;
}

ssize_t write(int fd, const void *data, size_t bytes) {
  NEXT(write);
  if (fd == STDERR_FILENO || !fails(WRITE)) return next(fd, data, bytes);
  return fault_is_short ? next(fd, data, half(bytes)) : -1;
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at) {
  NEXT(pwrite);
  if (!fails(WRITE)) return next(fd, data, bytes, at);
  return fault_is_short ? next(fd, data, half(bytes), at) : -1;
}

int posix_fallocate(int fd, off_t from, off_t bytes) {
  NEXT(posix_fallocate);
  return fails(WRITE) ? fault_errno : next(fd, from, bytes);
}

int ftruncate(int fd, off_t bytes) {
  NEXT(ftruncate);
  return fails(WRITE) ? -1 : next(fd, bytes);
}

/* The number is free afterwards all the same, as on Linux. */
int close(int fd) {
  NEXT(close);
  int closed = next(fd);
  return fails(CLOSE) ? -1 : closed;
}

int fsync(int fd) {
  NEXT(fsync);
  return fails(SYNC) ? -1 : next(fd);
}

int rename(const char *from, const char *to) {
  NEXT(rename);
  return fails(RENAME) ? -1 : next(from, to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
  NEXT(linkat);
  return fails(RENAME) ? -1 : next(from_folder, from, to_folder, to, flags);
}

int mkdir(const char *path, mode_t mode) {
  NEXT(mkdir);
  return fails(MKDIR) ? -1 : next(path, mode);
}

int flock(int fd, int operation) {
  NEXT(flock);
  return fails(LOCK) ? -1 : next(fd, operation);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                   void *argument) {
  NEXT(pthread_create);
  return fails(THREAD) ? EAGAIN : next(thread, attributes, start, argument);
}

/* ---- streams -------------------------------------------------------------------------------- */

/* Inside the C library a stream writes without passing here, so that its calls fail instead. A real
 * failure leaves the stream's flag for ferror, and errno as long as nothing else touches it. */
static bool stream_fails(int class, FILE *stream) {
  if (stream == stderr || (fault_is_short && class == faulty_class) || !fails(class)) return false;
  stream->_flags |= 0x20; /* _IO_ERR_SEEN */
  return true;
}

FILE *fopen(const char *path, const char *mode) {
  NEXT(fopen);
  return fails(OPEN) ? NULL : next(path, mode);
}

FILE *fdopen(int fd, const char *mode) {
  NEXT(fdopen);
  return fails(OPEN) ? NULL : next(fd, mode);
}

size_t fread(void *out, size_t bytes, size_t count, FILE *stream) {
  NEXT(fread);
  return stream_fails(READ, stream) ? 0 : next(out, bytes, count, stream);
}

char *fgets(char *out, int bytes, FILE *stream) {
  NEXT(fgets);
  return stream_fails(READ, stream) ? NULL : next(out, bytes, stream);
}

size_t fwrite(const void *data, size_t bytes, size_t count, FILE *stream) {
  NEXT(fwrite);
  return stream_fails(WRITE, stream) ? 0 : next(data, bytes, count, stream);
}

int fputs(const char *text, FILE *stream) {
  NEXT(fputs);
  return stream_fails(WRITE, stream) ? EOF : next(text, stream);
}

int puts(const char *text) {
  NEXT(puts);
  return stream_fails(WRITE, stdout) ? EOF : next(text);
}

int fputc(int c, FILE *stream) {
  NEXT(fputc);
  return stream_fails(WRITE, stream) ? EOF : next(c, stream);
}

int putc(int c, FILE *stream) {
  NEXT(putc);
  return stream_fails(WRITE, stream) ? EOF : next(c, stream);
}

int putchar(int c) {
  NEXT(putchar);
  return stream_fails(WRITE, stdout) ? EOF : next(c);
}

int vfprintf(FILE *stream, const char *format, va_list args) {
  NEXT(vfprintf);
  return stream_fails(WRITE, stream) ? -1 : next(stream, format, args);
}

int fprintf(FILE *stream, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int written = vfprintf(stream, format, args);
  va_end(args);
  return written;
}

int printf(const char *format, ...) {
  va_list args;
  va_start(args, format);
  int written = vfprintf(stdout, format, args);
  va_end(args);
  return written;
}

int fflush(FILE *stream) {
  NEXT(fflush);
  return stream && stream_fails(WRITE, stream) ? EOF : next(stream);
}

int fclose(FILE *stream) {
  NEXT(fclose);
  int closed = next(stream);
  return fails(CLOSE) ? EOF : closed;
}
