/* Inside of script/: the environment a script sees, and event.state as JSON. */
#ifndef STRATA_SCRIPT_SANDBOX_H
#define STRATA_SCRIPT_SANDBOX_H

#include "script/script.h"

#include <lua.h>

typedef enum script_limit { LIMIT_NONE, LIMIT_MEMORY, LIMIT_STRING, LIMIT_BLOCK } script_limit;

struct script {
  lua_State *L;
  const char *file; /* interned */
  int function_ref; /* the function the file returned */
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

  int error_line;    /* innermost Lua line when an error was raised; 0 unknown */
  status pending;    /* error of a callback, on its way through Lua */
  hook_event *event; /* during script_hook only */
  char *state;       /* event.state as JSON, heap; NULL = empty */
};

script *script_of(lua_State *L);
/* Counts `units` instructions done by a library function on behalf of the script; raises when the
 * budget is gone. */
void script_charge(lua_State *L, int64_t units);

/* Pushes the environment of a script. Raises. */
void sandbox_push_environment(lua_State *L);
/* Replaces the table on top by a read-only view of it; reading a name it lacks is an error that
 * names the nearest one. `prefix` ("math.") goes in front of names in messages. Raises. */
void sandbox_read_only(lua_State *L, const char *prefix);
/* Replaces the table of arguments on top by a view that notes what is read. Raises. */
void sandbox_watch_arguments(lua_State *L);
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
