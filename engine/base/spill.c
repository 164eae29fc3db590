#include "base/spill.h"

#include "base/files.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static status in_folder(const char *folder, size_t bytes, spill *out) {
  char size[24], *path = path_join(folder, "strata-XXXXXX");
  int file = mkstemp(path);
  if (file >= 0) unlink(path);
  int failure = file < 0 ? errno : posix_fallocate(file, 0, (off_t)bytes);
  if (!failure) {
    void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (data == MAP_FAILED)
      failure = errno;
    else
      out->data = data;
  }
  if (file >= 0) close(file);
  free(path);
  if (!failure) return OK;
  return error_new(ERROR_IO, NOWHERE,
                   "a temporary file of %s in %s is needed, but: %s. Set TMPDIR to a folder with "
                   "room, or raise the memory budget",
                   format_bytes(size, (double)bytes), folder, strerror(failure));
}

status spill_open(size_t bytes, size_t budget, spill *out) {
  *out = (spill){.bytes = bytes, .budget = budget, .in_file = bytes > budget};
  if (out->in_file) {
    const char *folder = getenv("TMPDIR");
    return in_folder(folder && folder[0] ? folder : "/var/tmp", bytes, out);
  }
  out->data = calloc(bytes, 1);
  return out->data ? OK : error_out_of_memory(bytes);
}

void spill_touch(spill *s, size_t rows, size_t row_bytes) {
  if (!s->in_file) return;
  size_t pages = row_bytes / SPILL_AROUND_A_FAULT + 2, touched;
  if (__builtin_mul_overflow(rows, pages * SPILL_AROUND_A_FAULT, &touched) || touched > s->bytes)
    touched = s->bytes;
  if (s->touched > 0 && touched > s->budget - (s->touched < s->budget ? s->touched : s->budget)) {
    madvise(s->data, s->bytes, MADV_DONTNEED); /* of a shared mapping: the file keeps the content */
    s->touched = 0;
  }
  s->touched += touched;
}

void spill_close(spill *s) {
  if (s->in_file && s->data)
    munmap(s->data, s->bytes);
  else if (!s->in_file)
    free(s->data);
  *s = (spill){0};
}
