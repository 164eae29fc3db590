/* Inside the language folder: the parts pipeline_load is made of. */
#ifndef STRATA_LANGUAGE_LOAD_H
#define STRATA_LANGUAGE_LOAD_H

#include "language/pipeline.h"

/* Stands for a value whose error was already reported; whoever meets it stays silent. */
extern tree unreadable;

/* ---- operators.c: under keys that are no graphs --------------------------------------------- */

/* Where an operator stands that graphs cannot name: "data: sample:". NULL: nowhere in a file. */
const char *operator_place(const op *o);
bool any_unreadable(const tree *t);
/* `name: {attributes}`; `content` is NULL when only the name was given. `sort`: what `trait` makes of an
 * operator, "an optimizer". op NULL: there is none, which is a problem. */
op_use operator_read(arena *memory, const tree *key, const tree *content, unsigned trait,
                     const char *sort, problems *all);
/* The items of a list, in which what is called otherwise elsewhere gets our names. */
op_use *operators_read(arena *memory, tree *list, const char *what, unsigned trait,
                       const char *sort, int *count, problems *all);

/* ---- source.c: where files are, and what they say -------------------------------------------- */

/* A text file that a pipeline names. */
typedef struct source {
  const char *path; /* "OWNER: NAME" in a bundle */
  const char *name; /* that it has in a bundle (bundle.h) */
  bool shipped; /* found in Strata's own folders, so that the name in the file will do anywhere */
} source;

/* Does a place belong to the command line (`--set key=value`) instead of a file? */
bool is_override_place(source_pos at);
/* `name` as a path: relative to the file that `at` names, or to the archive it is in; to the working
 * folder for overrides. */
char *relative_path(pipeline *p, const char *name, source_pos at);
/* Finds `name` on disk: beside the file of `naming`, then in the shipped folder `share` ("pipelines"
 * or "lua"). *shipped (may be NULL) tells which. Errors are placed at `at`. */
status find_file(arena *memory, const char *name, const char *share, source_pos naming,
                 source_pos at, char **path, bool *shipped);
/* The same for what a pipeline names. What a file of p->inside names is looked up there and nowhere
 * else. */
status source_find(pipeline *p, const char *name, const char *share, source_pos naming,
                   source_pos at, source *out);
/* The pipeline file that a command line names: a path, or the name of a shipped one, with or without
 * `pipelines/` before it. */
status source_named(pipeline *p, const char *path, source *out);
/* Its name among Strata's own files, wherever it was found; NULL: it is not one of them. */
const char *source_shipped(pipeline *p, const source *s);
/* The file at a path that needs no looking for. */
source source_at(pipeline *p, const char *path);
/* Content, NUL-terminated, in p->memory; the file is listed in p->sources. `is_part`: of what runs,
 * not of what is resolved away (bundle.h). */
status source_read(pipeline *p, const source *s, bool is_part, size_t limit, const char **text,
                   size_t *length);
status source_tree(pipeline *p, const source *s, bool is_part, tree **root);

/* ---- include.c: other files ---------------------------------------------------------------- */

/* Takes a key out of a mapping; nothing where it is not there. */
void remove_key(tree *map, const char *key);
/* Loads a file with what it takes from other pipelines: under it the base its `use:` names, and
 * under its stages the stages their `use:` names. Fills p->lock. */
status load_with_bases(pipeline *p, const source *file, tree **root);
/* Lua source of `lua: name`, and where it was found. */
status load_script(pipeline *p, const char *name, source_pos at, script_ref *out, source *from);
/* The checks that a graph needs before it is expanded. `in_stage`: of a stage, where `model` is an
 * operator. `is_inline`: the model stands in the pipeline file. */
void check_graph(const tree *list, const tree *blocks, bool in_stage, problems *all);
void check_graph_file(const tree *root, const char *what, bool is_inline, problems *all);
/* Can it be a name in an expression? */
status check_name(const tree *key, const char *what);

/* ---- archive.c ----------------------------------------------------------------------------- */

extern const char pack_file[]; /* says which file of a pack is the pipeline */
/* Fills p->inside from a pack and finds its pipeline. */
status archive_open(pipeline *p, const char *path, source *entry);
/* The file that a stage begins with and names by `path`, where the pack holds it; NULL: it does not. */
const char *archive_init_file(const pipeline *p, arena *memory, const char *stage,
                              const char *path);

/* ---- lock_files.c -------------------------------------------------------------------------- */

extern const char lock_key[];
/* Puts the texts of `files:` into p->inside. `file` is the lock itself. */
status lock_open_files(pipeline *p, const source *file, const tree *lock);

/* ---- segmented.c ---------------------------------------------------------------------------- */

/* The one value of a stage's graph that its losses compare with `target` (`label`, or `regions`): "net.out".
 * NULL: there is none, or there are several. */
const char *segmented_value(const tree *graph, const char *target);

/* ---- override.c ---------------------------------------------------------------------------- */

extern const char *const pipeline_keys[];
void apply_override(arena *memory, tree *root, const override *set, problems *all);
/* The same for a model file that stands alone, of which only parameters can be set. */
void override_parameter(arena *memory, const tree *root, const override *set, problems *all);

/* ---- identity.c ---------------------------------------------------------------------------- */

/* Hash of what a tree says, whatever its layout, key order and spelling of numbers. */
uint64_t tree_hash(const tree *t);
/* Keys of a part (identity_part.name) that change no result. */
const char *const *identity_ignored(const char *part);
/* Loads every block file the model is made of; hash of what they say and of their operators. */
status model_files_hash(pipeline *p, uint64_t *hash);
/* Fills p->identity; `root` is the file with expressions filled in. */
void pipeline_identity(pipeline *p, const tree *root, uint64_t model_hash);

#endif
