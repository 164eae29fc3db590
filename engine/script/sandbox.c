/* What a script can name. Everything is on a white list; the tables are read-only views, so a
 * typing error is an error with the nearest name instead of a nil. A library function whose work
 * grows with its arguments is wrapped and counts that work against the instruction budget, because
 * the count hook sees a C function as one instruction.
 *
 * What could differ from run to run is left out or replaced: random numbers, addresses in texts,
 * and the order of pairs, which in plain Lua depends on a hash seed made from the clock. */
#include "script/sandbox.h"

#include "base/text.h"

#include <lauxlib.h>
#include <lualib.h>

#include <stdlib.h>
#include <string.h>

enum { NAMES_IN_SUGGESTION = 200, UNPACK_VALUES = 200 };

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
    {"math.random", "a script computes the same on every run; random numbers belong to the "
                    "pipeline's operators, where they follow from its seed"},
    {"math.randomseed", "a script computes the same on every run; random numbers belong to the "
                        "pipeline's operators, where they follow from its seed"},
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

static int undefined_name(lua_State *L, const char *prefix, const char *name) {
  const char *full = lua_pushfstring(L, "%s%s", prefix, name);
  for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
    if (strcmp(full, absent[i].name) == 0)
      return luaL_error(L, "%s is not available: %s", full, absent[i].instead);
  const char *names[NAMES_IN_SUGGESTION];
  int count = 0;
  lua_pushnil(L);
  while (count < NAMES_IN_SUGGESTION && lua_next(L, lua_upvalueindex(1))) {
    if (lua_type(L, -2) == LUA_TSTRING) names[count++] = lua_tostring(L, -2);
    lua_pop(L, 1);
  }
  const char *near = nearest_name(name, names, count);
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

void sandbox_read_only(lua_State *L, const char *prefix) {
  make_view(L, prefix, view_get_named, view_set);
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

static int compare_names(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
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
  qsort(names, (size_t)count, sizeof *names, compare_names);
  return count;
}

/* ---- sorting and pairs ---------------------------------------------------------------------- */

/* Whether the value on top comes before the one below it; leaves both. */
typedef bool (*before_fn)(lua_State *L);

static bool before_by_value(lua_State *L) {
  return lua_compare(L, -1, -2, LUA_OPLT);
}

/* The comparator is table.sort's second argument. */
static bool before_by_function(lua_State *L) {
  lua_pushvalue(L, 2);
  lua_pushvalue(L, -2);
  lua_pushvalue(L, -4);
  lua_call(L, 2, 1);
  bool before = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return before;
}

/* Numbers, then strings by bytes, then false and true. */
static bool before_as_key(lua_State *L) {
  int above = lua_type(L, -1), below = lua_type(L, -2);
  if (above != below) {
    int rank_above = above == LUA_TNUMBER ? 0 : above == LUA_TSTRING ? 1 : 2;
    int rank_below = below == LUA_TNUMBER ? 0 : below == LUA_TSTRING ? 1 : 2;
    return rank_above < rank_below;
  }
  if (above == LUA_TNUMBER) return lua_compare(L, -1, -2, LUA_OPLT);
  if (above == LUA_TBOOLEAN) return lua_toboolean(L, -1) < lua_toboolean(L, -2);
  size_t length_above, length_below;
  const char *text_above = lua_tolstring(L, -1, &length_above);
  const char *text_below = lua_tolstring(L, -2, &length_below);
  size_t shared = length_above < length_below ? length_above : length_below;
  int order = memcmp(text_above, text_below, shared);
  return order != 0 ? order < 0 : length_above < length_below;
}

/* Merges the sorted runs [low, middle) and [middle, high) of `from` into `to`. */
static void merge_runs(lua_State *L, int from, int to, lua_Integer low, lua_Integer middle,
                       lua_Integer high, before_fn before) {
  lua_Integer left = low, right = middle;
  for (lua_Integer i = low; i < high; i++) {
    bool take_right = left >= middle;
    if (!take_right && right < high) {
      lua_rawgeti(L, from, left);
      lua_rawgeti(L, from, right);
      take_right = before(L);
      lua_pop(L, 2);
    }
    lua_rawgeti(L, from, take_right ? right++ : left++);
    lua_rawseti(L, to, i);
  }
}

/* Sorts entries 1 … n of the table at absolute index `list`. A merge sort: stable, so the result is
 * one whatever the comparator, and it ends with comparators that contradict themselves. */
static void merge_sort(lua_State *L, int list, lua_Integer n, before_fn before) {
  if (n < 2) return;
  int64_t levels = 0;
  for (lua_Integer width = 1; width < n; width *= 2) levels++;
  script_charge(L, 8 * n * levels);
  luaL_checkstack(L, 8, NULL);
  lua_createtable(L, (int)n, 0);
  int from = list, to = lua_gettop(L);
  for (lua_Integer width = 1; width < n; width *= 2) {
    for (lua_Integer low = 1; low <= n; low += 2 * width) {
      lua_Integer middle = low + width <= n + 1 ? low + width : n + 1;
      lua_Integer high = low + 2 * width <= n + 1 ? low + 2 * width : n + 1;
      merge_runs(L, from, to, low, middle, high, before);
    }
    int swapped = from;
    from = to;
    to = swapped;
  }
  for (lua_Integer i = 1; from != list && i <= n; i++) {
    lua_rawgeti(L, from, i);
    lua_rawseti(L, list, i);
  }
  lua_pop(L, 1);
}

static int table_sort(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
  luaL_argcheck(L, n < SCRIPT_BLOCK_BYTES, 1, "list too long");
  merge_sort(L, 1, n, lua_isnil(L, 2) ? before_by_value : before_by_function);
  return 0;
}

/* Upvalues: the table, its keys in order, how many have been given out. */
static int pairs_step(lua_State *L) {
  lua_settop(L, 0);
  lua_Integer at = lua_tointeger(L, lua_upvalueindex(3));
  for (;;) {
    at++;
    int type = lua_rawgeti(L, lua_upvalueindex(2), at);
    if (type == LUA_TNIL) return 1;
    lua_pushvalue(L, -1);
    /* A key removed since the loop began is passed over. */
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) break;
    lua_pop(L, 2);
  }
  lua_pushinteger(L, at);
  lua_replace(L, lua_upvalueindex(3));
  return 2;
}

static int base_pairs(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  if (lua_getmetatable(L, 1)) {
    lua_getfield(L, -1, "behind");
    lua_getfield(L, -2, "__index");
    script *s = script_of(L);
    if (s->is_loading && lua_tocfunction(L, -1) == argument_get) s->all_arguments_read = true;
    lua_pop(L, 1);
    lua_replace(L, 1);
    lua_settop(L, 1);
  }
  lua_newtable(L);
  lua_Integer n = 0;
  lua_pushnil(L);
  while (lua_next(L, 1)) {
    lua_pop(L, 1);
    int type = lua_type(L, -1);
    if (type != LUA_TNUMBER && type != LUA_TSTRING && type != LUA_TBOOLEAN)
      return luaL_error(L,
                        "pairs goes through keys that are numbers, strings or booleans; this "
                        "table has a %s as a key",
                        lua_typename(L, type));
    lua_pushvalue(L, -1);
    lua_rawseti(L, 2, ++n);
  }
  script_charge(L, 4 * n);
  merge_sort(L, 2, n, before_as_key);
  lua_pushinteger(L, 0);
  lua_pushcclosure(L, pairs_step, 3);
  return 1;
}

/* ---- wrapped library functions ----------------------------------------------------------------
 */

/* Calls the library's function (upvalue 1) in this frame, with this frame's arguments. */
static int original(lua_State *L) {
  return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

static int too_long(lua_State *L, const char *what) {
  return luaL_error(L, "%s would make a string of more than %d KiB", what,
                    SCRIPT_STRING_BYTES / 1024);
}

static int string_rep(lua_State *L) {
  size_t length, separator = 0;
  luaL_checklstring(L, 1, &length);
  lua_Integer times = luaL_checkinteger(L, 2);
  luaL_optlstring(L, 3, "", &separator);
  if (times > 0 && length + separator > 0) {
    if (times > SCRIPT_STRING_BYTES ||
        (size_t)times * length + ((size_t)times - 1) * separator > SCRIPT_STRING_BYTES)
      return too_long(L, "string.rep");
  }
  return original(L);
}

static int string_format(lua_State *L) {
  size_t length;
  const char *format = luaL_checklstring(L, 1, &length);
  /* Addresses differ from run to run, so nothing that prints one gets through. */
  for (size_t i = 0; i + 1 < length; i++) {
    if (format[i] != '%') continue;
    do i++;
    while (i < length && format[i] && strchr("-+ #0123456789.", format[i]));
    if (i < length && format[i] == 'p')
      return luaL_error(L, "string.format has no '%%p' here: addresses differ from run to run");
  }
  script_charge(L, 400 * (int64_t)lua_gettop(L)); /* %f of 1e308 takes ten microseconds */
  size_t total = length;
  for (int i = 2; i <= lua_gettop(L); i++) {
    int type = lua_type(L, i);
    if (type != LUA_TNIL && type != LUA_TBOOLEAN && type != LUA_TNUMBER && type != LUA_TSTRING)
      return luaL_argerror(L, i,
                           lua_pushfstring(L, "a %s cannot be formatted", lua_typename(L, type)));
    if (type == LUA_TSTRING) total += lua_rawlen(L, i);
  }
  if (total > SCRIPT_STRING_BYTES) return too_long(L, "string.format");
  return original(L);
}

/* string.find(s, text, init): plain text, so it takes time in proportion to what it reads. */
static int string_find(lua_State *L) {
  size_t length, sought;
  luaL_checklstring(L, 1, &length);
  luaL_checklstring(L, 2, &sought);
  luaL_optinteger(L, 3, 1);
  script_charge(L, 1 + (int64_t)(length * (sought + 1) / 16));
  lua_settop(L, 3);
  if (lua_isnil(L, 3)) {
    lua_pushinteger(L, 1);
    lua_replace(L, 3);
  }
  lua_pushboolean(L, 1);
  return original(L);
}

static int table_concat(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  size_t separator = 0, total = 0;
  luaL_optlstring(L, 2, "", &separator);
  lua_Integer first = luaL_optinteger(L, 3, 1);
  lua_Integer last = luaL_opt(L, luaL_checkinteger, 4, (lua_Integer)lua_rawlen(L, 1));
  for (lua_Integer i = first; i <= last; i++) {
    int type = lua_rawgeti(L, 1, i);
    if (type != LUA_TSTRING && type != LUA_TNUMBER)
      return luaL_error(L, "entry %d is a %s: table.concat joins strings and numbers", (int)i,
                        lua_typename(L, type));
    total += separator + (type == LUA_TSTRING ? lua_rawlen(L, -1) : 8);
    if (total > SCRIPT_STRING_BYTES + separator) return too_long(L, "table.concat");
    lua_pop(L, 1);
    script_charge(L, 2);
    if (i == LUA_MAXINTEGER) break;
  }
  return original(L);
}

static int table_insert(lua_State *L) {
  if (lua_gettop(L) > 2 && lua_istable(L, 1)) script_charge(L, (int64_t)lua_rawlen(L, 1));
  return original(L);
}

static int table_remove(lua_State *L) {
  if (lua_gettop(L) > 1 && lua_istable(L, 1)) script_charge(L, (int64_t)lua_rawlen(L, 1));
  return original(L);
}

static int table_unpack(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_Integer first = luaL_optinteger(L, 2, 1);
  lua_Integer last = luaL_opt(L, luaL_checkinteger, 3, (lua_Integer)lua_rawlen(L, 1));
  if (first <= last && (lua_Unsigned)last - (lua_Unsigned)first >= UNPACK_VALUES)
    return luaL_error(L, "table.unpack gives at most %d values; go through the list with a loop",
                      UNPACK_VALUES);
  script_charge(L, UNPACK_VALUES / 4);
  return original(L);
}

static int base_tostring(lua_State *L) {
  luaL_checkany(L, 1);
  int type = lua_type(L, 1);
  if (type == LUA_TTABLE || type == LUA_TFUNCTION)
    lua_pushstring(L, lua_typename(L, type)); /* no address: it differs from run to run */
  else
    luaL_tolstring(L, 1, NULL);
  return 1;
}

/* Arguments joined by tabs, to the hook's log. */
static int base_print(lua_State *L) {
  int n = lua_gettop(L);
  luaL_Buffer text;
  luaL_buffinit(L, &text);
  size_t total = 0;
  for (int i = 1; i <= n; i++) {
    if (i > 1) luaL_addchar(&text, '\t');
    lua_pushcfunction(L, base_tostring);
    lua_pushvalue(L, i);
    lua_call(L, 1, 1);
    total += lua_rawlen(L, -1) + 1;
    if (total > SCRIPT_STRING_BYTES) return too_long(L, "print");
    luaL_addvalue(&text);
  }
  luaL_pushresult(&text);
  script_log(L, lua_gettop(L));
  return 0;
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

typedef struct entry {
  const char *name;
  lua_CFunction wrapper; /* NULL: the library's function or constant as it is */
} entry;

static const entry base_entries[] = {
    {"assert", NULL},      {"error", NULL},    {"ipairs", NULL},   {"pairs", base_pairs},
    {"print", base_print}, {"select", NULL},   {"tonumber", NULL}, {"tostring", base_tostring},
    {"type", NULL},        {"_VERSION", NULL}, {NULL, NULL}};

static const entry math_entries[] = {
    {"abs", NULL},        {"acos", NULL}, {"asin", NULL},      {"atan", NULL},       {"ceil", NULL},
    {"cos", NULL},        {"deg", NULL},  {"exp", NULL},       {"floor", NULL},      {"fmod", NULL},
    {"huge", NULL},       {"log", NULL},  {"max", NULL},       {"maxinteger", NULL}, {"min", NULL},
    {"mininteger", NULL}, {"modf", NULL}, {"pi", NULL},        {"rad", NULL},        {"sin", NULL},
    {"sqrt", NULL},       {"tan", NULL},  {"tointeger", NULL}, {"type", NULL},       {"ult", NULL},
    {NULL, NULL}};

static const entry string_entries[] = {
    {"byte", NULL}, {"char", NULL},  {"find", string_find}, {"format", string_format},
    {"len", NULL},  {"lower", NULL}, {"rep", string_rep},   {"reverse", NULL},
    {"sub", NULL},  {"upper", NULL}, {NULL, NULL}};

static const entry table_entries[] = {{"concat", table_concat}, {"insert", table_insert},
                                      {"remove", table_remove}, {"sort", table_sort},
                                      {"unpack", table_unpack}, {NULL, NULL}};

/* Pushes a table with the listed entries of a library. */
static void push_selection(lua_State *L, lua_CFunction library, const entry *entries) {
  lua_pushcfunction(L, library);
  lua_call(L, 0, 1);
  int full = lua_gettop(L);
  lua_newtable(L);
  for (const entry *e = entries; e->name; e++) {
    lua_getfield(L, full, e->name);
    if (e->wrapper) lua_pushcclosure(L, e->wrapper, 1);
    lua_setfield(L, -2, e->name);
  }
  lua_remove(L, full);
}

void sandbox_push_environment(lua_State *L) {
  push_selection(L, luaopen_base, base_entries);
  const struct {
    const char *name, *prefix;
    lua_CFunction library;
    const entry *entries;
  } libraries[] = {{"math", "math.", luaopen_math, math_entries},
                   {"string", "string.", luaopen_string, string_entries},
                   {"table", "table.", luaopen_table, table_entries}};
  for (int i = 0; i < 3; i++) {
    push_selection(L, libraries[i].library, libraries[i].entries);
    sandbox_read_only(L, libraries[i].prefix);
    lua_setfield(L, -2, libraries[i].name);
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
