/* Memory for what describes a run: names, paths, messages, lists, JSON. It is a few megabytes at most,
 * whatever a file says, and a program that cannot have even that can only say so: it then ends with a
 * message and exit status 1. So these never return NULL.
 *
 * Memory whose size follows from volumes, networks and files is asked for with malloc, and to lack it
 * is an error like any other (error_out_of_memory). */
#ifndef STRATA_BASE_MEMORY_H
#define STRATA_BASE_MEMORY_H

#include <stddef.h>
#include <stdio.h>

/* Zeroed; the caller frees. */
void *memory_take(size_t bytes);
void *memory_resize(void *memory, size_t bytes);
char *memory_strdup(const char *text);
char *memory_strndup(const char *text, size_t length);
/* A stream into *text, which is there, whole, when the stream is closed. The caller frees *text. */
FILE *memory_stream(char **text, size_t *bytes);
void memory_stream_close(FILE *stream);
_Noreturn void memory_end(size_t bytes);

#endif
