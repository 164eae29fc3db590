#include "base/memory.h"

#include "base/text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Other threads may be at work: nothing is torn down under them. Files that are not whole have no
 * name yet (base/files.h). */
void memory_end(size_t bytes) {
  fflush(stdout);
  char size[24];
  fprintf(stderr, "strata: error: out of memory: could not allocate %s\n",
          format_bytes(size, (double)bytes));
  _exit(1);
}

void *memory_take(size_t bytes) {
  void *taken = calloc(bytes ? bytes : 1, 1);
  if (!taken) memory_end(bytes);
  return taken;
}

void *memory_resize(void *memory, size_t bytes) {
  void *moved = realloc(memory, bytes ? bytes : 1);
  if (!moved) memory_end(bytes);
  return moved;
}

FILE *memory_stream(char **text, size_t *bytes) {
  FILE *stream = open_memstream(text, bytes);
  if (!stream) memory_end(BUFSIZ);
  return stream;
}

void memory_stream_close(FILE *stream) {
  bool is_whole = !ferror(stream);
  if (fclose(stream) != 0 || !is_whole) memory_end(BUFSIZ);
}

char *memory_strdup(const char *text) {
  return memory_strndup(text, strlen(text));
}

char *memory_strndup(const char *text, size_t length) {
  char *copy = memory_take(length + 1);
  memcpy(copy, text, length);
  copy[length] = 0;
  return copy;
}
