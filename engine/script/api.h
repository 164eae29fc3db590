/* What scripts can use, declared once: every function and value has a name, a signature, a sentence
 * and the kinds of scripts that have it. The sandbox registers from these tables, `strata lua` and
 * the reference in docs/lua.md are printed from them, and a message about a name that a kind of
 * script lacks knows which have it.
 *
 * To give scripts more, as a module of its own:
 *   1. a kind in script_kind and script_kinds (api.c), if it is a new kind of script;
 *   2. `const script_group script_<what> = {…}` with its entries, listed in `groups` (api.c);
 *   3. script_open and a call of its own, or script_run for a file that is a program.
 * docs/lua_reference.sh then brings docs/lua.md up to date; a test compares the two. */
#ifndef STRATA_SCRIPT_API_H
#define STRATA_SCRIPT_API_H

#include "script/script.h"

#include <stdio.h>

#include <lua.h>

/* ---- the tables ------------------------------------------------------------------------------ */

#define SCRIPT_BIT(kind) (1u << (kind))
#define SCRIPT_ALL (SCRIPT_BIT(SCRIPT_KIND_COUNT) - 1)
#define SCRIPTS_THAT_LOG                                                                           \
  (SCRIPT_BIT(SCRIPT_VALIDATION) | SCRIPT_BIT(SCRIPT_EPOCH_END) | SCRIPT_BIT(SCRIPT_STAGE_END))

typedef struct script_kind_info {
  const char *name;   /* "schedule" */
  const char *key;    /* the place that names such a script, by example */
  const char *result; /* what the file returns, or that it returns nothing */
  const char *doc;    /* when it is called */
} script_kind_info;

extern const script_kind_info script_kinds[SCRIPT_KIND_COUNT];

typedef struct script_entry {
  const char *name;
  const char *signature;  /* "(name) → number" of a function; "number" of a value */
  const char *doc;        /* one sentence, or a phrase, without a full stop */
  unsigned kinds;         /* SCRIPT_BITs; 0: those of its group */
  lua_CFunction function; /* NULL: from Lua's library as it is, or a value that the owner sets */
} script_entry;

typedef struct script_group {
  const char *name;   /* "math" */
  const char *prefix; /* of the names in scripts and messages: "math."; "" of globals */
  const char *doc;    /* a sentence about all of them */
  unsigned kinds;     /* SCRIPT_BITs: scripts that have it */
  /* The group is part of the environment: its functions are globals, or fields of a read-only global
   * named as the prefix says. Else its owner pushes it (script_push_functions). */
  bool is_environment;
  lua_CFunction library;       /* opens the Lua library that entries without a function are from */
  const script_entry *entries; /* ends with a NULL name */
} script_group;

int script_group_count(void);
const script_group *script_group_at(int i);
/* The entry called `name` with its prefix ("event.get"), in any kind of script; NULL: none. */
const script_entry *script_entry_find(const char *name, const script_group **group);
/* SCRIPT_BITs of the kinds that have the entry. */
unsigned script_entry_kinds(const script_group *g, const script_entry *e);

/* ---- for functions called by scripts ---------------------------------------------------------
 * All may raise a Lua error. */

/* Sets those functions of a group that the script's kind has, in the table on top. */
void script_push_functions(lua_State *L, const script_group *g);
/* Replaces the table on top by a read-only view of it; reading a name it lacks is an error that
 * names the nearest one. `prefix` ("math.") goes in front of names in messages. */
void script_read_only(lua_State *L, const char *prefix);
/* From now on reading a name from the table below the top which it lacks is an error that names the
 * nearest one, but for the names in the table on top (name → true), which may be nil. Pops that.
 * `lacks` begins the message: "a result has no". In an open table, to which scripts add names, one that
 * is near to none is nil. */
void script_refuse_unknown(lua_State *L, const char *lacks, bool is_open);
/* Pushes a YAML value: a number, a text, a boolean, a table, nil. */
void script_push_tree(lua_State *L, const tree *t);
/* An error for each of `arguments` that the script has not read by now. Raises nothing. */
status script_check_arguments(lua_State *L, const tree *arguments);
/* What script_run was given. */
void *script_context(lua_State *L);
/* Ends the script with this error (ownership moves). The place is that of the Lua line, unless the
 * error has one. */
int script_raise(lua_State *L, status error);
/* Counts `units` instructions done by a function on behalf of the script; raises when the budget is
 * gone. */
void script_charge(lua_State *L, int64_t units);

/* ---- a script that is a program -------------------------------------------------------------- */

typedef struct script_program {
  script_kind kind;
  const script_limits *limits;                  /* NULL: script_limits_default */
  void (*log)(void *context, const char *text); /* print; text without control characters */
  void *context;                                /* script_context */
  bool *met_unknown_name; /* set when the script has ended at a name that does not exist; or NULL */
} script_program;

/* Runs the file once, from top to bottom, with the groups of its kind; globals may be set. What it
 * returns is ignored. Arguments that it does not read are errors, as with script_open. */
status script_run(const script_program *program, const script_ref *file);

/* ---- the reference --------------------------------------------------------------------------- */

/* As text: everything, or with a name ("event.get", "math", "schedule") that entry, group or kind. An
 * unknown name is an error with the nearest one. */
status script_explain(const char *name, FILE *out);
/* The reference part of docs/lua.md. */
void script_reference(FILE *out);

#endif
