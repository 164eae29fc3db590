/* JSON of users and of runs: files read and written, text and numbers as values. */
#ifndef STRATA_BASE_JSON_H
#define STRATA_BASE_JSON_H

#include "base/status.h"

#include <jansson.h>

/* Makes JSON a description like any other (base/memory.h). Without it a text or a list is left out where
 * there is no memory for it, for nobody looks at each. Called once, before all else. */
void json_use_memory(void);
/* Reads a file that holds one JSON object. Broken JSON, a key that stands twice and anything but an
 * object are errors that name the file (and line). Caller: json_decref. NULL on error. */
status json_read(const char *path, size_t limit_bytes, json_t **root);
/* Replaces `path` atomically by `root` (borrowed; NULL: memory has run out while it was made) as
 * json_dumps writes it with `flags`, and `end` after it: "\n" or "". */
status json_write(const char *path, const json_t *root, size_t flags, const char *end);

/* A string. File names can hold any bytes, JSON holds UTF-8: where text is not, bytes above 127 become
 * '?'. NULL only when memory runs out. */
json_t *json_text(const char *text);
/* null where the number is not finite. */
json_t *json_number(double value);

#endif
