/* JSON files of users and of earlier runs. */
#ifndef STRATA_BASE_JSON_H
#define STRATA_BASE_JSON_H

#include "base/status.h"

#include <jansson.h>

/* Reads a file that holds one JSON object. Broken JSON, a key that stands twice and anything but an
 * object are errors that name the file (and line). Caller: json_decref. NULL on error. */
status json_read(const char *path, size_t limit_bytes, json_t **root);

#endif
