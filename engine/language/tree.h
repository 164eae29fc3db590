/* YAML as a tree with a source position on every node, read from hostile files: bounded size,
 * depth, node count and alias expansion; duplicate keys, unknown tags, anchors that contain
 * themselves and multi-document files are errors. Nodes live in the arena they were loaded into. */
#ifndef STRATA_LANGUAGE_TREE_H
#define STRATA_LANGUAGE_TREE_H

#include "base/arena.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum tree_kind { TREE_SCALAR, TREE_LIST, TREE_MAP } tree_kind;

typedef struct tree {
  tree_kind kind;
  source_pos at;
  bool quoted;         /* scalar written in quotes: always a string, never a number or null */
  const char *text;    /* scalar, NUL-terminated; contains no NUL inside */
  int count;           /* list items or map entries */
  struct tree **keys;  /* map: scalars, unique */
  struct tree **items; /* list items or map values */
} tree;

enum {
  TREE_MAX_FILE_BYTES = 4 << 20, /* a larger file is refused before it is parsed */
  TREE_MAX_DEPTH = 64,
  TREE_MAX_NODES = 100000, /* counted after alias expansion */
  TREE_MAX_KEY_BYTES = 200
};

status tree_load(arena *memory, const char *path, tree **out);
/* `name` stands for the file in messages and is interned. */
status tree_parse(arena *memory, const char *text, size_t length, const char *name, tree **out);

/* Value of a key, or NULL. */
tree *tree_get(const tree *map, const char *key);
tree *tree_key(const tree *map, const char *key); /* the key node itself, for its position */
/* New nodes (used by substitution and overrides). Text that could not be written without quotes
 * becomes quoted. */
tree *tree_scalar(arena *memory, source_pos at, const char *text, bool quoted);
tree *tree_new(arena *memory, source_pos at, tree_kind kind, int capacity);
tree *tree_copy(arena *memory, const tree *t);
/* An error for every key that `map` has twice. */
status tree_check_duplicates(const tree *map);
/* Nodes of `t`, itself included. */
int64_t tree_size(const tree *t);
/* What a node is, for messages: `"12.5"`, `a list`. Printable, short; returns `out`. */
const char *tree_describe(const tree *t, char out[96]);
/* Text from a user's file, made printable and short, for messages; returns `out`. */
const char *printable(const char *text, char out[96]);
/* Typed reading. The error says what was expected, what came, and where. */
bool tree_is_null(const tree *t); /* plain empty, ~ or null */
status tree_bool(const tree *t, bool *out);
status tree_int(const tree *t, int64_t *out);  /* 12, 1_000, 1e3 when integral */
status tree_float(const tree *t, double *out); /* 1.0e-4, 1e-4, 3; not nan */
status tree_string(const tree *t, const char **out);
/* Every key of `map` must be one of `allowed` (NULL-terminated): otherwise an error per key with
 * the nearest name. `what` names the mapping ("stage", "data"). */
void tree_check_keys(const tree *map, const char *what, const char *const *allowed, problems *all);
/* Writes YAML that parses back to the same tree. `indent` in spaces. */
struct text_buffer;
void tree_write(const tree *t, struct text_buffer *out, int indent);

/* Text as a key, or as a value on one line or in brackets. */
void tree_write_key(const char *text, struct text_buffer *out);
/* Text as a value of a mapping whose keys stand at `indent`, to follow "key: ": lines as they are where
 * YAML can hold them so, quoted otherwise. Parses back to the same text; ends the line. */
void tree_write_text(const char *text, struct text_buffer *out, int indent);

/* Interned copy of a file name (process life), for source_pos.file. */
const char *intern_file(const char *path);

#endif
