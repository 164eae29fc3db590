/* Text files that travel together, in a lock or in an archive, and are found there instead of on
 * the disk.
 *
 * A file's name in a bundle is normal: no ".", no "..", no "//". Files that Strata ships begin with
 * their folder (pipelines/models/unetr.yaml, lua/poly.lua); others have the path they were read
 * from (a lock), or one relative to the archive. As a path, in messages and places, a file of a
 * bundle is "OWNER: NAME". */
#ifndef STRATA_LANGUAGE_BUNDLE_H
#define STRATA_LANGUAGE_BUNDLE_H

#include "base/arena.h"

#include <stdbool.h>

typedef struct bundle_file {
  const char *name;
  const char *path; /* where it was read */
  const char *text; /* NUL-terminated; NULL: not a text, only known to be there */
  size_t length;
  bool
      is_part; /* a model, block or script, which the resolved pipeline names; else it has been used
                   up in resolving: a base pipeline, a split */
} bundle_file;

typedef struct bundle {
  const char *owner; /* interned path of the lock or archive */
  bundle_file *files;
  int count, capacity;
} bundle;

/* The name that `path` has in the bundle: "" for the owner itself, NULL for what is not inside. `b`
 * may be NULL. */
const char *bundle_name(const bundle *b, const char *path);
const bundle_file *bundle_find(const bundle *b, const char *name);
/* Adds a file unless one of that name is there. */
void bundle_add(bundle *b, arena *memory, bundle_file file);
/* "OWNER: NAME" */
const char *bundle_path(const bundle *b, arena *memory, const char *name);

/* `name` from inside `folder`, normal. A name that begins with '/' stays; what leads above the
 * folder's root keeps its "..". */
char *normal_name(arena *memory, const char *folder, const char *name);
/* The same for a path on disk, absolute. */
char *normal_path(arena *memory, const char *path);

#endif
