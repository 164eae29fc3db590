/* Shared by the fuzz targets. A target reads bytes as a part of Strata would read them from a
 * user's file; it may refuse them with an error, and nothing else. */
#ifndef STRATA_TESTS_FUZZ_H
#define STRATA_TESTS_FUZZ_H

#include "base/status.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A file in memory with these bytes, for code that reads from a path. The path is the same for
 * every input. */
static inline const char *fuzz_file(const uint8_t *data, size_t size) {
  static char path[64];
  static int fd = -1;
  if (fd < 0) fd = memfd_create("input", 0);
  if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size) abort();
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return path;
}

/* The bytes as text, NUL-terminated. Caller frees. */
static inline char *fuzz_text(const uint8_t *data, size_t size) {
  char *text = malloc(size + 1);
  if (!text) abort();
  if (size > 0) memcpy(text, data, size);
  text[size] = 0;
  return text;
}

/* An error must say something; one that calls itself a bug in Strata is one. */
static inline void fuzz_refused(status error) {
  if (!error) return;
  if (error_code_of(error) == ERROR_INTERNAL || !error_message(error)[0]) {
    error_print(stderr, error);
    abort();
  }
  error_free(error);
}

/* A property that must hold whatever the input. */
#define FUZZ_REQUIRE(condition)                                                                    \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                \
      abort();                                                                                     \
    }                                                                                              \
  } while (0)

#endif
