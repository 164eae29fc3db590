/* Inside the language folder: the parts pipeline_load is made of. */
#ifndef STRATA_LANGUAGE_LOAD_H
#define STRATA_LANGUAGE_LOAD_H

#include "language/pipeline.h"

/* Stands for a value whose error was already reported; whoever meets it stays silent. */
extern tree unreadable;

/* ---- include.c: other files ---------------------------------------------------------------- */

/* Does a place belong to the command line (`--set key=value`) instead of a file? */
bool is_override_place(source_pos at);
/* `name` as a path: relative to the file that `at` names; to the working folder for overrides. */
char *relative_path(arena *memory, const char *name, source_pos at);
/* Finds `name` beside the file of `naming`, then in the shipped folder `share` ("pipelines" or
 * "lua"). *shipped (may be NULL) tells which. Errors are placed at `at`. */
status find_file(arena *memory, const char *name, const char *share, source_pos naming,
                 source_pos at, char **path, bool *shipped);
/* Takes a key out of a mapping; nothing where it is not there. */
void remove_key(tree *map, const char *key);
/* Loads `path` with what it takes from other pipelines: under it the base its `use:` names, and
 * under its stages the stages their `use:` names. */
status load_with_bases(arena *memory, const char *path, tree **root);
/* Lua source of `lua: name`. */
status load_script(arena *memory, const char *name, source_pos at, script_ref *out, bool *shipped);
/* The checks that a graph needs before it is expanded. `in_stage`: of a stage, where `model` is an
 * operator. `is_inline`: the model stands in the pipeline file. */
void check_graph(const tree *list, const tree *blocks, bool in_stage, problems *all);
void check_graph_file(const tree *root, const char *what, bool is_inline, problems *all);
/* Can it be a name in an expression? */
status check_name(const tree *key, const char *what);

/* ---- override.c ---------------------------------------------------------------------------- */

extern const char *const pipeline_keys[];
void apply_override(arena *memory, tree *root, const override *set, problems *all);
/* The same for a model file that stands alone, of which only parameters can be set. */
void override_parameter(arena *memory, const tree *root, const override *set, problems *all);

/* ---- identity.c ---------------------------------------------------------------------------- */

/* Hash of what a tree says, whatever its layout, key order and spelling of numbers. */
uint64_t tree_hash(const tree *t);
/* Loads every block file the model is made of; hash of what they say and of their operators. */
status model_files_hash(pipeline *p, uint64_t *hash);
/* Fills p->identity; `root` is the file with expressions filled in. */
void pipeline_identity(pipeline *p, const tree *root, uint64_t model_hash);

#endif
