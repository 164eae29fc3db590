#include "base/status.h"

#include "base/memory.h"
#include "base/text.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { PROBLEMS_KEPT = 50 };

struct error {
  error_code code;
  source_pos at;
  char *message;
  bool message_is_static;
  struct error **parts; /* non-NULL: a collection; message is unused */
  int part_count, parts_dropped;
};

/* Returned when there is no memory for the error itself. */
static struct error out_of_memory = {
    .code = ERROR_MEMORY, .message = "out of memory", .message_is_static = true};

status error_newv(error_code code, source_pos at, const char *format, va_list args) {
  va_list again;
  va_copy(again, args);
  int length = vsnprintf(NULL, 0, format, again);
  va_end(again);
  if (length < 0) length = 0;
  struct error *error = calloc(1, sizeof *error);
  char *message = malloc((size_t)length + 1);
  if (!error || !message) {
    free(error);
    free(message);
    return &out_of_memory;
  }
  vsnprintf(message, (size_t)length + 1, format, args);
  text_make_printable(message); /* names in it may come from a stranger's file */
  error->code = code;
  error->at = at;
  error->message = message;
  return error;
}

status error_new(error_code code, source_pos at, const char *format, ...) {
  va_list args;
  va_start(args, format);
  status error = error_newv(code, at, format, args);
  va_end(args);
  return error;
}

static status with_prefix(status error, const char *prefix) {
  if (error == &out_of_memory) return error;
  for (int i = 0; i < error->part_count; i++)
    error->parts[i] = with_prefix(error->parts[i], prefix);
  if (error->parts) return error;
  status joined = error_new(error->code, error->at, "%s: %s", prefix, error->message);
  if (joined == &out_of_memory) return error;
  error_free(error);
  return joined;
}

status error_prefix(status error, const char *format, ...) {
  if (!error) return error;
  va_list args;
  va_start(args, format);
  status prefix = error_newv(error->code, error->at, format, args);
  va_end(args);
  if (prefix == &out_of_memory) return error;
  error = with_prefix(error, prefix->message);
  error_free(prefix);
  return error;
}

static status with_suffix(status error, const char *suffix) {
  if (error == &out_of_memory) return error;
  for (int i = 0; i < error->part_count; i++)
    error->parts[i] = with_suffix(error->parts[i], suffix);
  if (error->parts) return error;
  status joined = error_new(error->code, error->at, "%s%s", error->message, suffix);
  if (joined == &out_of_memory) return error;
  error_free(error);
  return joined;
}

status error_suffix(status error, const char *format, ...) {
  if (!error) return error;
  va_list args;
  va_start(args, format);
  status suffix = error_newv(error_code_of(error), NOWHERE, format, args);
  va_end(args);
  error = with_suffix(error, suffix->message);
  error_free(suffix);
  return error;
}

status error_locate(status error, source_pos at) {
  if (error && error != &out_of_memory && !error->parts && !error->at.file) error->at = at;
  return error;
}

status error_move(status error, const char *file, const char *name, source_pos at) {
  if (!error || error == &out_of_memory) return error;
  for (int i = 0; i < error->part_count; i++)
    error->parts[i] = error_move(error->parts[i], file, name, at);
  source_pos was = error->at;
  if (error->parts || was.file != file || was.line == 0) return error;
  error = error_suffix(error, " (%s:%d:%d)", name, was.line, was.column);
  if (error != &out_of_memory) error->at = at;
  return error;
}

status error_from_errno(const char *action, const char *path) {
  int number = errno;
  const char *hint = number == ENOSPC   ? " (the disk is full: free some space and try again)"
                     : number == EACCES ? " (check the permissions)"
                     : number == EMFILE ? " (too many open files: raise ulimit -n)"
                                        : "";
  return error_new(ERROR_IO, NOWHERE, "cannot %s %s: %s%s", action, path, strerror(number), hint);
}

status error_out_of_memory(size_t bytes) {
  char size[24];
  return error_new(ERROR_MEMORY, NOWHERE, "out of memory: could not allocate %s",
                   format_bytes(size, (double)bytes));
}

error_code error_code_of(status error) {
  if (!error) return (error_code)0;
  return error->parts ? error->parts[0]->code : error->code;
}

const char *error_message(status error) {
  if (!error) return "";
  return error->parts ? error->parts[0]->message : error->message;
}

source_pos error_position(status error) {
  if (!error) return NOWHERE;
  return error->parts ? error->parts[0]->at : error->at;
}

void error_free(status error) {
  if (!error || error == &out_of_memory) return;
  for (int i = 0; i < error->part_count; i++) error_free(error->parts[i]);
  free(error->parts);
  if (!error->message_is_static) free(error->message);
  free(error);
}

static void print_excerpt(FILE *out, source_pos at) {
  FILE *in = at.file ? fopen(at.file, "rb") : NULL;
  if (!in) return;
  char line[512];
  int number = 1, c = 0;
  while (number < at.line && (c = fgetc(in)) != EOF) number += c == '\n';
  if (number == at.line && fgets(line, sizeof line, in)) {
    line[strcspn(line, "\r\n")] = 0;
    text_make_printable(line);
    fprintf(out, "  %s\n  ", line);
    /* Columns count characters, so UTF-8 continuation bytes take no space under the line. */
    int column = 1;
    for (char *p = line; *p && column < at.column; p++) {
      if (((unsigned char)p[1] & 0xC0) == 0x80) continue;
      fputc(*p == '\t' ? '\t' : ' ', out);
      column++;
    }
    fputs("^\n", out);
  }
  fclose(in);
}

void error_print(FILE *out, status error) {
  if (!error) return;
  if (error->parts) {
    for (int i = 0; i < error->part_count; i++) error_print(out, error->parts[i]);
    if (error->parts_dropped > 0) fprintf(out, "… and %d more\n", error->parts_dropped);
    return;
  }
  if (error->at.file && error->at.line > 0)
    fprintf(out, "%s:%d:%d: error: %s\n", error->at.file, error->at.line, error->at.column,
            error->message);
  else if (error->at.file)
    fprintf(out, "%s: error: %s\n", error->at.file, error->message);
  else
    fprintf(out, "strata: error: %s\n", error->message);
  if (error->at.line > 0) print_excerpt(out, error->at);
}

static bool is_same(status a, status b) {
  return a->at.file && a->at.file == b->at.file && a->at.line == b->at.line &&
         a->at.column == b->at.column && strcmp(a->message, b->message) == 0;
}

static void append(problems *all, status error) {
  /* A file that two stages use has its mistake once. */
  for (int i = 0; i < all->count && i < PROBLEMS_KEPT; i++)
    if (is_same(all->list[i], error)) {
      error_free(error);
      return;
    }
  if (all->count >= PROBLEMS_KEPT) {
    all->count++; /* counted, not kept */
    error_free(error);
    return;
  }
  if (all->count == all->capacity) {
    int capacity = all->capacity ? all->capacity * 2 : 8;
    all->list = memory_resize(all->list, (size_t)capacity * sizeof *all->list);
    all->capacity = capacity;
  }
  all->list[all->count++] = error;
}

static bool has_place(const problems *all, int count, source_pos at) {
  bool known = false;
  for (int i = 0; at.line > 0 && i < count; i++) {
    source_pos other = all->list[i]->at;
    known |= other.file == at.file && other.line == at.line && other.column == at.column;
  }
  return known;
}

static void add(problems *all, status error, bool only_new_places) {
  if (!error) return;
  int before = problems_kept(all);
  status *parts = error->parts ? error->parts : &error;
  int count = error->parts ? error->part_count : 1, dropped = error->parts_dropped;
  bool joined = error->parts != NULL;
  for (int i = 0; i < count; i++) {
    if (only_new_places && has_place(all, before, parts[i]->at))
      error_free(parts[i]);
    else
      append(all, parts[i]);
  }
  if (!joined) return;
  all->count += dropped;
  free(parts);
  free(error);
}

void problems_add(problems *all, status error) {
  add(all, error, false);
}

void problems_report(problems *all, source_pos at, const char *format, ...) {
  va_list args;
  va_start(args, format);
  problems_add(all, error_newv(ERROR_PIPELINE, at, format, args));
  va_end(args);
}

void problems_add_new_places(problems *all, status error) {
  add(all, error, true);
}

int problems_kept(const problems *all) {
  return all->count < PROBLEMS_KEPT ? all->count : PROBLEMS_KEPT;
}

status problems_take(problems *all) {
  int kept = problems_kept(all);
  if (all->count == 0) {
    problems_free(all);
    return OK;
  }
  struct error *joined = kept == 1 && all->count == 1 ? NULL : calloc(1, sizeof *joined);
  if (!joined) {
    status first = all->list[0];
    for (int i = 1; i < kept; i++) error_free(all->list[i]);
    all->count = 0;
    problems_free(all);
    return first;
  }
  joined->code = all->list[0]->code;
  joined->parts = all->list;
  joined->part_count = kept;
  joined->parts_dropped = all->count - kept;
  *all = (problems){0};
  return joined;
}

void problems_free(problems *all) {
  int kept = problems_kept(all);
  for (int i = 0; i < kept; i++) error_free(all->list[i]);
  free(all->list);
  *all = (problems){0};
}

int error_count(status error) {
  if (!error) return 0;
  return error->parts ? error->part_count + error->parts_dropped : 1;
}
