/* Errors are values: a function that can fail returns a `status`, NULL when it worked.
 *
 * An error carries a code, a message for the user (what, where, what to do) and, where there is
 * one, the place in the user's file it speaks of. The caller owns a returned error: it passes it
 * on, wraps it, or frees it. Nothing here prints or exits; the command line does. */
#ifndef STRATA_BASE_STATUS_H
#define STRATA_BASE_STATUS_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A place in a user's file. `file` is borrowed and must outlive every error that names it (file
 * names are interned by the language front end for the life of the process). Lines and columns
 * count from 1; line 0 means "no particular place". */
typedef struct source_pos {
  const char *file;
  int line;
  int column;
} source_pos;

#define NOWHERE ((source_pos){NULL, 0, 0})

typedef enum error_code {
  ERROR_USAGE = 1,   /* the command line is wrong */
  ERROR_PIPELINE,    /* the pipeline file is wrong */
  ERROR_DATA,        /* a volume, data set or weight file is wrong */
  ERROR_IO,          /* the operating system refused: missing, full, not permitted */
  ERROR_MEMORY,      /* out of memory, or over a stated budget */
  ERROR_SCRIPT,      /* a Lua script failed */
  ERROR_NUMERIC,     /* NaN or infinity where a finite number must be */
  ERROR_INTERRUPTED, /* the user asked to stop */
  ERROR_INTERNAL     /* a bug in Strata */
} error_code;

typedef struct error *status;
#define OK ((status)NULL)

/* New error. The message is one or more complete sentences without a trailing newline. */
status error_new(error_code code, source_pos at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
status error_newv(error_code code, source_pos at, const char *format, va_list args);
/* Adds "prefix: " in front of the message, or of each of several (printf style); keeps code and place. NULL
 * stays NULL. */
status error_prefix(status error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Adds text after the message (printf style; it brings its own space); of several errors, after each.
 * NULL stays NULL. */
status error_suffix(status error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Gives the error a place if it has none yet. NULL stays NULL. */
status error_locate(status error, source_pos at);
/* What is placed in `file` is placed at `at` instead; "(name:line:column)" at the end of its message
 * keeps where it was. NULL stays NULL. */
status error_move(status error, const char *file, const char *name, source_pos at);
/* From errno: "cannot <action> <path>: <reason>". */
status error_from_errno(const char *action, const char *path);
status error_out_of_memory(size_t bytes);

error_code error_code_of(status error);
const char *error_message(status error);
source_pos error_position(status error);
void error_free(status error);

/* Prints "file:line:column: error: message" and, when the file can still be read, the line itself
 * with a caret under the column. */
void error_print(FILE *out, status error);

#define TRY(expression)                                                                            \
  do {                                                                                             \
    status try_error_ = (expression);                                                              \
    if (try_error_) return try_error_;                                                             \
  } while (0)

/* Several errors found in one go. Zero-initialise; `problems_free` when done. */
typedef struct problems {
  status *list;
  int count, capacity;
} problems;

/* Takes ownership of `error`; NULL is ignored. Keeps at most 50 and counts the rest. */
void problems_add(problems *all, status error);
/* A mistake in a pipeline, or in a file that belongs to one, at its place. */
void problems_report(problems *all, source_pos at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same as problems_add, leaving out what stands at a place that has a problem already. */
void problems_add_new_places(problems *all, status error);
/* How many of them are in `list`. */
int problems_kept(const problems *all);
/* One status that prints every collected problem (ownership moves), or OK when there are none. */
status problems_take(problems *all);
void problems_free(problems *all);
/* Number of problems a status stands for (0 for OK, 1 for a plain error). */
int error_count(status error);

#endif
