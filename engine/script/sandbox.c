/* What a script can name. Everything is on a white list (script/api.h); the tables are read-only
 * views, so a typing error is an error with the nearest name instead of a nil. */
#include "script/sandbox.h"

#include "base/text.h"

#include <lauxlib.h>

#include <stdlib.h>
#include <string.h>

enum { NAMES_IN_SUGGESTION = 200 };

/* ---- read-only views ------------------------------------------------------------------------ */

static const struct {
  const char *name, *instead;
} absent[] = {
    {"io", "a script cannot reach files; print and event.log write to the run's log"},
    {"os", "a script cannot reach the machine or the clock"},
    {"debug", "a script cannot reach the interpreter"},
    {"package", "a script is one file"},
    {"require", "a script is one file"},
    {"dofile", "a script is one file"},
    {"loadfile", "a script is one file"},
    {"load", "code cannot be made from text"},
    {"loadstring", "code cannot be made from text"},
    {"pcall", "an error ends the script and is reported with its line"},
    {"xpcall", "an error ends the script and is reported with its line"},
    {"coroutine", "a schedule or a hook is one call from start to end"},
    {"setmetatable", "use plain tables and functions"},
    {"getmetatable", "use plain tables and functions"},
    {"rawget", "use t[key]"},
    {"rawset", "use t[key] = value"},
    {"rawequal", "use a == b"},
    {"rawlen", "use #t"},
    {"next", "use pairs, which goes through the keys in sorted order"},
    {"collectgarbage", "memory is managed by itself"},
    {"warn", "use print"},
    {"_G", "name what you need, or keep it in a local table"},
    {"unpack", "use table.unpack"},
    {"utf8", "use the string functions, which count bytes"},
    {"math.random",
     "a script computes the same on every run; `strata ablate` has random(key, …), and "
     "the pipeline's operators draw by its seed"},
    {"math.randomseed",
     "a script computes the same on every run; `strata ablate` has random(key, …), "
     "and the pipeline's operators draw by its seed"},
    {"math.pow", "use x ^ y"},
    {"string.match", "patterns can take unbounded time; string.find looks for plain text"},
    {"string.gmatch", "patterns can take unbounded time; string.find looks for plain text"},
    {"string.gsub", "patterns can take unbounded time; string.find looks for plain text"},
    {"string.dump", "code cannot be turned into text"},
    {"string.pack", "binary data has no use in a script"},
    {"string.unpack", "binary data has no use in a script"},
    {"table.pack", "use {...}"},
    {"table.move", "use a loop"},
};

/* Of the table in the first upvalue. */
static int names_of(lua_State *L, const char *names[NAMES_IN_SUGGESTION]) {
  int count = 0;
  lua_pushnil(L);
  while (count < NAMES_IN_SUGGESTION && lua_next(L, lua_upvalueindex(1))) {
    if (lua_type(L, -2) == LUA_TSTRING) names[count++] = lua_tostring(L, -2);
    lua_pop(L, 1);
  }
  return count;
}

static int undefined_name(lua_State *L, const char *prefix, const char *name) {
  const char *full = lua_pushfstring(L, "%s%s", prefix, name);
  script_of(L)->met_unknown_name = true;
  for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
    if (strcmp(full, absent[i].name) == 0)
      return luaL_error(L, "%s is not available: %s", full, absent[i].instead);
  const script_group *group;
  const script_entry *entry = script_entry_find(full, &group);
  unsigned kinds = entry ? script_entry_kinds(group, entry) : 0;
  if (kinds && !(kinds & SCRIPT_BIT(script_of(L)->kind))) {
    luaL_Buffer list;
    luaL_buffinit(L, &list);
    for (int k = 0, listed = 0; k < SCRIPT_KIND_COUNT; k++)
      if (kinds & SCRIPT_BIT(k)) {
        if (listed++) luaL_addstring(&list, ", ");
        luaL_addstring(&list, script_kinds[k].name);
      }
    luaL_pushresult(&list);
    return luaL_error(L, "%s is not available in this script (%s); these have it: %s", full,
                      script_kinds[script_of(L)->kind].name, lua_tostring(L, -1));
  }
  const char *names[NAMES_IN_SUGGESTION];
  const char *near = nearest_name(name, names, names_of(L, names));
  if (near) return luaL_error(L, "%s is not defined; did you mean %s%s?", full, prefix, near);
  return luaL_error(L, "%s is not defined", full);
}

/* __index of a view. Upvalues: the table behind it, the prefix. */
static int view_get(lua_State *L) {
  lua_settop(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
  lua_settop(L, 1);
  return luaL_error(L, "no such entry in %s", lua_tostring(L, lua_upvalueindex(2)));
}

static int view_get_named(lua_State *L) {
  lua_settop(L, 2);
  if (lua_type(L, 2) != LUA_TSTRING) return view_get(L);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
  return undefined_name(L, lua_tostring(L, lua_upvalueindex(2)), lua_tostring(L, 2));
}

static int view_set(lua_State *L) {
  const char *prefix = lua_tostring(L, lua_upvalueindex(2));
  const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "[…]";
  if (strcmp(prefix, "event.") == 0 && strcmp(name, "state") == 0)
    return luaL_error(L, "event.state cannot be replaced; assign to its fields, as in "
                         "event.state.best = 1");
  return luaL_error(L, "%s%s cannot be assigned: this table is read-only", prefix, name);
}

static int environment_set(lua_State *L) {
  if (!script_of(L)->is_loading)
    return luaL_error(L,
                      "global '%s' cannot be assigned inside the function: use local, or "
                      "event.state to keep something between epochs",
                      lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "?");
  lua_settop(L, 3);
  lua_rawset(L, lua_upvalueindex(1));
  return 0;
}

/* The table on top becomes an empty one whose metatable reads through `get`. The field "behind" is
 * for pairs; no script can reach a metatable. */
static void make_view(lua_State *L, const char *prefix, lua_CFunction get, lua_CFunction set) {
  luaL_checkstack(L, 8, NULL);
  lua_newtable(L);
  lua_createtable(L, 0, 3);
  const struct {
    const char *field;
    lua_CFunction function;
  } entries[] = {{"__index", get}, {"__newindex", set}};
  for (int i = 0; i < 2; i++) {
    lua_pushvalue(L, -3);
    lua_pushstring(L, prefix);
    lua_pushcclosure(L, entries[i].function, 2);
    lua_setfield(L, -2, entries[i].field);
  }
  lua_pushvalue(L, -3);
  lua_setfield(L, -2, "behind");
  lua_setmetatable(L, -2);
  lua_remove(L, -2);
}

void script_read_only(lua_State *L, const char *prefix) {
  make_view(L, prefix, view_get_named, view_set);
}

/* The name with a unit behind it (hd95: hd95_mm), or the nearest one. */
static const char *meant_name(const char *name, const char *const *names, int count) {
  size_t length = strlen(name);
  for (int i = 0; i < count; i++)
    if (text_starts_with(names[i], name) && names[i][length] == '_') return names[i];
  return nearest_name(name, names, count);
}

/* __index of a table that has names of its own. Upvalues: those that may be nil, how a message begins,
 * and whether scripts add names. */
static int known_get(lua_State *L) {
  lua_settop(L, 2);
  if (lua_type(L, 2) != LUA_TSTRING) return 0;
  if (text_starts_with(lua_tostring(L, 2), "own.")) return 0; /* of event.record: perhaps later */
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 0;
  const char *names[NAMES_IN_SUGGESTION];
  int count = names_of(L, names);
  script_charge(L, 50 * (int64_t)count);
  qsort(names, (size_t)count, sizeof *names, by_text);
  const char *name = lua_tostring(L, 2), *lacks = lua_tostring(L, lua_upvalueindex(2));
  const char *near = meant_name(name, names, count);
  if (!near && lua_toboolean(L, lua_upvalueindex(3))) return 0;
  script_of(L)->met_unknown_name = true;
  if (near) return luaL_error(L, "%s \"%s\"; did you mean \"%s\"?", lacks, name, near);
  luaL_Buffer list;
  luaL_buffinit(L, &list);
  for (int i = 0; i < count; i++) {
    if (i > 0) luaL_addstring(&list, ", ");
    luaL_addstring(&list, names[i]);
  }
  luaL_pushresult(&list);
  return luaL_error(L, "%s \"%s\"; there are %s", lacks, name, lua_tostring(L, -1));
}

void script_refuse_unknown(lua_State *L, const char *lacks, bool is_open) {
  luaL_checkstack(L, 4, NULL);
  lua_pushstring(L, lacks);
  lua_pushboolean(L, is_open);
  lua_pushcclosure(L, known_get, 3);
  lua_createtable(L, 0, 2);
  lua_insert(L, -2);
  lua_setfield(L, -2, "__index");
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "behind"); /* for pairs: the table itself */
  lua_setmetatable(L, -2);
}

/* ---- arguments ------------------------------------------------------------------------------ */

/* Registry key of the set of argument names the script has read. */
static const char arguments_read = 0;

static int argument_get(lua_State *L) {
  lua_settop(L, 2);
  if (script_of(L)->is_loading) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &arguments_read);
    lua_pushvalue(L, 2);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
    lua_settop(L, 2);
  }
  lua_rawget(L, lua_upvalueindex(1));
  return 1;
}

void sandbox_watch_arguments(lua_State *L) {
  lua_newtable(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &arguments_read);
  make_view(L, "args.", argument_get, view_set);
}

void sandbox_look_behind(lua_State *L, int index) {
  script *s = script_of(L);
  if (!lua_getmetatable(L, index)) return;
  lua_getfield(L, -1, "__index");
  if (s->is_loading && lua_tocfunction(L, -1) == argument_get) s->all_arguments_read = true;
  lua_getfield(L, -2, "behind");
  lua_replace(L, index);
  lua_pop(L, 2);
}

int sandbox_arguments_read(lua_State *L, const char *names[], int limit) {
  int count = 0;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &arguments_read);
  lua_pushnil(L);
  while (lua_next(L, -2)) {
    lua_pop(L, 1);
    if (lua_type(L, -1) == LUA_TSTRING && count < limit) names[count++] = lua_tostring(L, -1);
  }
  lua_pop(L, 1);
  qsort(names, (size_t)count, sizeof *names, by_text);
  return count;
}

/* ---- what a function can reach -----------------------------------------------------------------
 */

enum { DIGEST_DEPTH = 8, DIGEST_VALUES = 2000 };

typedef struct digest_walk {
  lua_State *L;
  int values_left;
  bool globals_done;
} digest_walk;

static uint64_t digest_value(digest_walk *w, int index, int depth);

/* A sum, because the order of a table's entries means nothing. */
static uint64_t digest_table(digest_walk *w, int index, int depth) {
  uint64_t sum = 0;
  lua_pushnil(w->L);
  while (lua_next(w->L, index)) {
    int value = lua_gettop(w->L);
    sum += hash_mix(digest_value(w, value - 1, depth + 1), digest_value(w, value, depth + 1));
    lua_pop(w->L, 1);
  }
  return sum;
}

/* Only the globals can change; the other views are constants. */
static uint64_t digest_view(digest_walk *w, int index, int depth) {
  uint64_t hash = 0;
  lua_getmetatable(w->L, index);
  lua_pushliteral(w->L, "__newindex");
  lua_rawget(w->L, -2);
  if (!w->globals_done && lua_tocfunction(w->L, -1) == environment_set) {
    w->globals_done = true;
    lua_getupvalue(w->L, -1, 1);
    hash = digest_table(w, lua_gettop(w->L), depth);
    lua_pop(w->L, 1);
  }
  lua_pop(w->L, 2);
  return hash;
}

static uint64_t digest_value(digest_walk *w, int index, int depth) {
  lua_State *L = w->L;
  int type = lua_type(L, index);
  uint64_t hash = (uint64_t)type;
  if (w->values_left-- <= 0 || depth > DIGEST_DEPTH || !lua_checkstack(L, 8)) return hash;
  if (type == LUA_TBOOLEAN) return hash_mix(hash, (uint64_t)lua_toboolean(L, index));
  if (type == LUA_TNUMBER && lua_isinteger(L, index))
    return hash_mix(hash, (uint64_t)lua_tointeger(L, index));
  if (type == LUA_TNUMBER) {
    double number = lua_tonumber(L, index);
    return hash_mix(~hash, bytes_hash(&number, sizeof number));
  }
  if (type == LUA_TSTRING) {
    size_t length;
    const char *text = lua_tolstring(L, index, &length);
    return hash_mix(hash, bytes_hash(text, length));
  }
  if (type == LUA_TTABLE) {
    if (lua_getmetatable(L, index)) {
      lua_pop(L, 1);
      return hash_mix(hash, digest_view(w, index, depth));
    }
    return hash_mix(hash, digest_table(w, index, depth));
  }
  if (type == LUA_TFUNCTION && !lua_iscfunction(L, index)) {
    for (int i = 1; lua_getupvalue(L, index, i); i++) {
      hash = hash_mix(hash, digest_value(w, lua_gettop(L), depth + 1));
      lua_pop(L, 1);
    }
  }
  return hash;
}

uint64_t sandbox_digest(lua_State *L, int index) {
  digest_walk w = {.L = L, .values_left = DIGEST_VALUES};
  return digest_value(&w, lua_absindex(L, index), 0);
}

/* ---- the environment --------------------------------------------------------------------------
 */

/* Into the table on top: those entries of the group that the script's kind has, from the Lua library
 * whose table is at `library` (0: none) where they are not our own. */
static void set_entries(lua_State *L, const script_group *g, int library) {
  unsigned kind = SCRIPT_BIT(script_of(L)->kind);
  luaL_checkstack(L, 8, NULL);
  for (const script_entry *e = g->entries; e->name; e++) {
    if (!(script_entry_kinds(g, e) & kind)) continue;
    if (library)
      lua_getfield(L, library, e->name);
    else if (!e->function)
      continue;
    /* A wrapper finds the library's function in its upvalue. */
    if (library && e->function)
      lua_pushcclosure(L, e->function, 1);
    else if (e->function)
      lua_pushcfunction(L, e->function);
    lua_setfield(L, -2, e->name);
  }
}

void script_push_functions(lua_State *L, const script_group *g) {
  set_entries(L, g, 0);
}

/* Adds a group to the environment on top. */
static void add_group(lua_State *L, const script_group *g) {
  int environment = lua_gettop(L), library = 0;
  if (g->library) {
    lua_pushcfunction(L, g->library);
    lua_call(L, 0, 1);
    library = lua_gettop(L);
  }
  bool is_global = g->prefix[0] == 0;
  if (is_global)
    lua_pushvalue(L, environment);
  else
    lua_newtable(L);
  set_entries(L, g, library);
  if (!is_global) {
    script_read_only(L, g->prefix);
    lua_setfield(L, environment, g->name);
  }
  lua_settop(L, environment);
}

void sandbox_push_environment(lua_State *L) {
  lua_newtable(L);
  for (int i = 0; i < script_group_count(); i++) {
    const script_group *g = script_group_at(i);
    if (g->is_environment && (g->kinds & SCRIPT_BIT(script_of(L)->kind))) add_group(L, g);
  }
  /* ("text"):upper() finds the same selection. The library's own metatable would also convert
   * strings to numbers in arithmetic. */
  lua_pushliteral(L, "");
  lua_newtable(L);
  lua_getfield(L, -3, "string");
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
  lua_pop(L, 1);
  make_view(L, "", view_get_named, environment_set);
}
