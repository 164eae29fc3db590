/* Inside of script/: the environment a script sees, and event.state as JSON. */
#ifndef STRATA_SCRIPT_SANDBOX_H
#define STRATA_SCRIPT_SANDBOX_H

#include "script/api.h"

#define SCRIPT_NOT_MEASURED "this stage measures no"

typedef enum script_limit { LIMIT_NONE, LIMIT_MEMORY, LIMIT_STRING, LIMIT_BLOCK } script_limit;

struct script {
  lua_State *L;
  script_kind kind;
  const script_limits *limits;
  const char *file;    /* interned */
  source_pos named_at; /* in the pipeline */
  int function_ref;    /* the function the file returned */
  int function_line;
  uint64_t digest; /* of what the function can reach, when the file had loaded */
  bool is_loading; /* globals may be assigned, arguments are noted as read */
  bool all_arguments_read;

  /* One call's budget. */
  size_t used_bytes;
  int64_t spent; /* instructions, and what counts as such */
  int64_t cpu_start_ns;
  int hook_interval;
  bool is_running;
  script_limit over; /* exceeded; raised at the next instruction */

  bool met_unknown_name; /* read, which is an error */

  int error_line;    /* innermost Lua line when an error was raised; 0 unknown */
  status pending;    /* error of a callback, on its way through Lua */
  hook_event *event; /* during script_hook only */
  /* Where print goes, during script_hook and script_run; NULL: nowhere. */
  void (*log)(void *context, const char *text);
  void *context;
  char *state; /* event.state as JSON, heap; NULL = empty */
};

script *script_of(lua_State *L);
/* Creates the interpreter and loads the file: with `wants_function` it must return one. `ref` is
 * borrowed for the call. */
status script_create(script_kind kind, const script_limits *limits, const script_ref *ref,
                     bool wants_function, script *s);
/* Runs `body` with one light userdata argument under the limits. The stack is empty before and
 * after. */
status script_protected(script *s, lua_CFunction body, void *argument);
/* Raises when the function has left anything behind: the next call could then differ from the same
 * call in a resumed run. */
void script_check_nothing_kept(lua_State *L);
/* Pushes a table of name → number, without those that are NaN: they are not defined, which is nil; a
 * name that is not listed is an error that begins with `lacks`, if any is listed. Raises. */
void script_push_numbers(lua_State *L, const script_numbers *numbers, const char *lacks);
/* Copies `text` without what a terminal could act on. */
void script_copy_printable(char *out, size_t capacity, const char *text);

/* Pushes the environment of a script. Raises. */
void sandbox_push_environment(lua_State *L);
/* Replaces the table of arguments on top by a view that notes what is read. Raises. */
void sandbox_watch_arguments(lua_State *L);
/* Replaces a view at the absolute index by the table behind it; nothing for a plain table. All
 * arguments count as read then, if it is theirs. Raises. */
void sandbox_look_behind(lua_State *L, int index);
/* Names of the arguments the script has read, sorted; valid while the script is open. Never
 * raises. */
int sandbox_arguments_read(lua_State *L, const char *names[], int limit);
/* Hash of the values the function at `index` can reach besides its arguments: variables around it,
 * globals of the file, and what those hold. Raises. */
uint64_t sandbox_digest(lua_State *L, int index);
/* event.log of the string at `index`. Raises when there is no log. */
void script_log(lua_State *L, int index);

/* The value at `index` as JSON text (heap), or NULL with the reason in `problem`. Never raises. */
char *state_encode(lua_State *L, int index, char problem[200]);
/* A parsed state (json_t), or NULL with an error. */
struct json_t;
status state_parse(const char *text, struct json_t **out);
/* Pushes the table. Raises. */
void state_push(lua_State *L, const struct json_t *value);

#endif
