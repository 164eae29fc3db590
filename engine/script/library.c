/* What scripts have of Lua's own library, and what stands in for it. A function whose work grows with
 * its arguments is wrapped and counts that work against the instruction budget, because the count
 * hook sees a C function as one instruction.
 *
 * What could differ from run to run is left out or replaced: random numbers, addresses in texts,
 * and the order of pairs, which in plain Lua depends on a hash seed made from the clock. */
#include "script/sandbox.h"

#include <lauxlib.h>
#include <lualib.h>

#include <string.h>

enum { UNPACK_VALUES = 200 };

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
  luaL_argcheck(L, n < (lua_Integer)script_of(L)->limits->block_bytes, 1, "list too long");
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
  sandbox_look_behind(L, 1);
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

static size_t longest_string(lua_State *L) {
  return script_of(L)->limits->string_bytes;
}

static int too_long(lua_State *L, const char *what) {
  return luaL_error(L, "%s would make a string of more than %d KiB", what,
                    (int)(longest_string(L) / 1024));
}

static int string_rep(lua_State *L) {
  size_t length, separator = 0;
  luaL_checklstring(L, 1, &length);
  lua_Integer times = luaL_checkinteger(L, 2);
  luaL_optlstring(L, 3, "", &separator);
  if (times <= 0 || length + separator == 0) { /* Lua would count copies of nothing one by one */
    lua_pushliteral(L, "");
    return 1;
  }
  size_t most = longest_string(L);
  if ((size_t)times > most || (size_t)times * length + ((size_t)times - 1) * separator > most)
    return too_long(L, "string.rep");
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
  if (total > longest_string(L)) return too_long(L, "string.format");
  return original(L);
}

/* string.find(s, text, init, plain): plain text, so it takes time in proportion to what it reads. What
 * looks like a pattern would never be found; who means it as it stands says so. */
static int string_find(lua_State *L) {
  size_t length, sought;
  luaL_checklstring(L, 1, &length);
  const char *text = luaL_checklstring(L, 2, &sought);
  luaL_optinteger(L, 3, 1);
  if (!lua_toboolean(L, 4) && strpbrk(text, "^$*+?[%"))
    return luaL_error(L,
                      "string.find looks for plain text, and \"%s\" looks like a pattern; "
                      "s:find(text, 1, true) looks for it as it stands",
                      text);
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
    if (total > longest_string(L) + separator) return too_long(L, "table.concat");
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
    if (total > longest_string(L)) return too_long(L, "print");
    luaL_addvalue(&text);
  }
  luaL_pushresult(&text);
  script_log(L, lua_gettop(L));
  return 0;
}

/* ---- the tables -------------------------------------------------------------------------------
 */

static const script_entry base_entries[] = {
    {"args", "table", "the other keys beside `lua`; read them while the file loads", 0, NULL},
    {"assert", "(value, text)", "ends the script with `text` when `value` is false or nil", 0,
     NULL},
    {"error", "(text)", "ends the script with this message", 0, NULL},
    {"ipairs", "(list) → iterator", "goes through 1, 2, … up to the first nil", 0, NULL},
    {"pairs", "(table) → iterator", "goes through keys in order: numbers, strings, booleans", 0,
     base_pairs},
    {"print", "(…)", "a line in the run's log", SCRIPTS_THAT_LOG | SCRIPT_BIT(SCRIPT_ABLATION),
     base_print},
    {"select", "(n, …) → values", "the arguments from the n-th on; `select(\"#\", …)` counts them",
     0, NULL},
    {"tonumber", "(text, base) → number", "a number from text, or nil", 0, NULL},
    {"tostring", "(value) → text", "text of a value; a table's is \"table\", without an address", 0,
     base_tostring},
    {"type", "(value) → text",
     "\"number\", \"string\", \"boolean\", \"table\", \"function\" or \"nil\"", 0, NULL},
    {"_VERSION", "text", "\"Lua 5.4\"", 0, NULL},
    {0}};

const script_group script_base = {
    .name = "base",
    .prefix = "",
    .doc =
        "Plain Lua. There is no `pcall`: an error ends the script and is reported with its line.",
    .kinds = SCRIPT_ALL,
    .is_environment = true,
    .library = luaopen_base,
    .entries = base_entries};

static const script_entry math_entries[] = {
    {"abs", "(x) → number", "the absolute value", 0, NULL},
    {"acos", "(x) → number", "arc cosine", 0, NULL},
    {"asin", "(x) → number", "arc sine", 0, NULL},
    {"atan", "(y, x) → number", "arc tangent of y / x (x: 1)", 0, NULL},
    {"ceil", "(x) → integer", "rounded up", 0, NULL},
    {"cos", "(x) → number", "cosine", 0, NULL},
    {"deg", "(x) → number", "radians as degrees", 0, NULL},
    {"exp", "(x) → number", "e to the power of x", 0, NULL},
    {"floor", "(x) → integer", "rounded down", 0, NULL},
    {"fmod", "(x, y) → number", "remainder of x / y, rounded towards 0", 0, NULL},
    {"huge", "number", "infinity", 0, NULL},
    {"log", "(x, base) → number", "logarithm (base: e)", 0, NULL},
    {"max", "(x, …) → number", "the largest", 0, NULL},
    {"maxinteger", "integer", "2^63 − 1", 0, NULL},
    {"min", "(x, …) → number", "the smallest", 0, NULL},
    {"mininteger", "integer", "−2^63", 0, NULL},
    {"modf", "(x) → number, number", "the whole part and the rest", 0, NULL},
    {"pi", "number", "π", 0, NULL},
    {"rad", "(x) → number", "degrees as radians", 0, NULL},
    {"sin", "(x) → number", "sine", 0, NULL},
    {"sqrt", "(x) → number", "square root", 0, NULL},
    {"tan", "(x) → number", "tangent", 0, NULL},
    {"tointeger", "(x) → integer", "x as an integer, or nil", 0, NULL},
    {"type", "(x) → text", "\"integer\", \"float\", or nil for no number", 0, NULL},
    {"ult", "(m, n) → boolean", "m < n, both without sign", 0, NULL},
    {0}};

const script_group script_math = {.name = "math",
                                  .prefix = "math.",
                                  .doc = "Arithmetic. There are no random numbers.",
                                  .kinds = SCRIPT_ALL,
                                  .is_environment = true,
                                  .library = luaopen_math,
                                  .entries = math_entries};

static const script_entry string_entries[] = {
    {"byte", "(s, i, j) → integers", "the bytes from i (1) to j (i)", 0, NULL},
    {"char", "(…) → text", "a string of these bytes", 0, NULL},
    {"find", "(s, text, init, plain) → integer, integer",
     "where plain `text` stands in s, or nil; there are no patterns, so a text with one of ^$*+?[% "
     "needs `plain` true",
     0, string_find},
    {"format", "(format, …) → text", "as in C; %q quotes, %p is not there", 0, string_format},
    {"len", "(s) → integer", "bytes in s", 0, NULL},
    {"lower", "(s) → text", "in small letters", 0, NULL},
    {"rep", "(s, n, separator) → text", "s, n times", 0, string_rep},
    {"reverse", "(s) → text", "the bytes backwards", 0, NULL},
    {"sub", "(s, i, j) → text", "the bytes from i to j (the end); negative from the end", 0, NULL},
    {"upper", "(s) → text", "in capital letters", 0, NULL},
    {0}};

const script_group script_string = {.name = "string",
                                    .prefix = "string.",
                                    .doc = "Texts; `(\"a\"):upper()` works too.",
                                    .kinds = SCRIPT_ALL,
                                    .is_environment = true,
                                    .library = luaopen_string,
                                    .entries = string_entries};

static const script_entry table_entries[] = {
    {"concat", "(list, separator, i, j) → text", "strings and numbers joined", 0, table_concat},
    {"insert", "(list, position, value)", "adds a value (at the end)", 0, table_insert},
    {"remove", "(list, position) → value", "takes a value out (the last)", 0, table_remove},
    {"sort", "(list, before)", "sorts in place; stable", 0, table_sort},
    {"unpack", "(list, i, j) → values", "the entries as values, at most 200", 0, table_unpack},
    {0}};

const script_group script_table = {.name = "table",
                                   .prefix = "table.",
                                   .doc = "Lists.",
                                   .kinds = SCRIPT_ALL,
                                   .is_environment = true,
                                   .library = luaopen_table,
                                   .entries = table_entries};
