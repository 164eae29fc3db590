/* event.state as JSON. A list (keys 1 … n) is an array; any other table is an object in which an
 * integer key n is written "#n" and a string key that begins with # gets a second one. Infinity and
 * NaN, which JSON lacks, are {"#": "inf"}, {"#": "-inf"} and {"#": "nan"}. */
#include "script/sandbox.h"

#include <jansson.h>
#include <lauxlib.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH = 32, KEY_BYTES = 256 };

/* ---- from Lua ----------------------------------------------------------------------------------
 * Nothing here may raise a Lua error: it would pass over the JSON values under construction. */

typedef struct encoder {
  lua_State *L;
  size_t bytes; /* lower bound of the text so far */
  char *problem;
  char path[80];
} encoder;

static json_t *refuse(encoder *e, const char *why) {
  snprintf(e->problem, 200, "%s %s", e->path, why);
  return NULL;
}

static bool is_within_budget(encoder *e, size_t more) {
  e->bytes += more;
  if (e->bytes <= SCRIPT_STATE_BYTES) return true;
  snprintf(e->path, sizeof e->path, "event.state");
  refuse(e, "is larger than 1 MiB; keep what later epochs need, not a history of everything");
  return false;
}

static json_t *encode(encoder *e, int index, int depth);

static json_t *encode_number(encoder *e, int index) {
  if (!is_within_budget(e, 20)) return NULL;
  if (lua_isinteger(e->L, index)) return json_integer(lua_tointeger(e->L, index));
  double value = lua_tonumber(e->L, index);
  if (isfinite(value)) return json_real(value);
  return json_pack("{s:s}", "#", isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
}

static json_t *encode_string(encoder *e, int index) {
  size_t length;
  const char *text = lua_tolstring(e->L, index, &length);
  if (!is_within_budget(e, length)) return NULL;
  json_t *value = json_stringn(text, length);
  return value ? value : refuse(e, "holds a string that is not UTF-8 text");
}

/* Length when the keys are exactly 1 … n, n ≥ 1; else 0. */
static lua_Integer list_length(encoder *e, int index) {
  lua_Integer n = 0, largest = 0;
  lua_pushnil(e->L);
  while (lua_next(e->L, index)) {
    lua_pop(e->L, 1);
    lua_Integer key = lua_isinteger(e->L, -1) ? lua_tointeger(e->L, -1) : 0;
    if (key < 1) {
      lua_pop(e->L, 1);
      return 0;
    }
    if (key > largest) largest = key;
    n++;
  }
  return n == largest ? n : 0;
}

static json_t *encode_list(encoder *e, int index, lua_Integer n, int depth) {
  json_t *list = json_array();
  size_t path_length = strlen(e->path);
  for (lua_Integer i = 1; list && i <= n; i++) {
    snprintf(e->path + path_length, sizeof e->path - path_length, "[%lld]", (long long)i);
    lua_rawgeti(e->L, index, i);
    json_t *value = encode(e, lua_gettop(e->L), depth + 1);
    lua_pop(e->L, 1);
    if (!value || json_array_append_new(list, value) != 0) {
      json_decref(list);
      return NULL;
    }
    e->path[path_length] = 0;
  }
  return list;
}

/* The JSON key of the Lua key on the stack at `index`; false with the problem told. */
static bool encode_key(encoder *e, int index, char out[KEY_BYTES]) {
  if (lua_isinteger(e->L, index)) {
    snprintf(out, KEY_BYTES, "#%lld", (long long)lua_tointeger(e->L, index));
    return true;
  }
  if (lua_type(e->L, index) != LUA_TSTRING) {
    refuse(e, "has a key that is neither a string nor an integer");
    return false;
  }
  size_t length;
  const char *text = lua_tolstring(e->L, index, &length);
  if (length > KEY_BYTES - 2 || memchr(text, 0, length)) {
    refuse(e, "has a key that is longer than 254 bytes or holds a zero byte");
    return false;
  }
  snprintf(out, KEY_BYTES, "%s%s", text[0] == '#' ? "#" : "", text);
  return true;
}

static json_t *encode_map(encoder *e, int index, int depth) {
  json_t *map = json_object();
  size_t path_length = strlen(e->path);
  lua_pushnil(e->L);
  while (map && lua_next(e->L, index)) {
    int value_index = lua_gettop(e->L);
    char key[KEY_BYTES];
    json_t *value = NULL;
    if (encode_key(e, value_index - 1, key) && is_within_budget(e, strlen(key))) {
      snprintf(e->path + path_length, sizeof e->path - path_length, ".%s", key);
      value = encode(e, value_index, depth + 1);
    }
    if (value && json_object_set_new(map, key, value) != 0) {
      refuse(e, "has a key that is not UTF-8 text");
      value = NULL;
    }
    if (!value) {
      json_decref(map);
      lua_pop(e->L, 2);
      return NULL;
    }
    e->path[path_length] = 0;
    lua_pop(e->L, 1);
  }
  return map;
}

static json_t *encode(encoder *e, int index, int depth) {
  if (!is_within_budget(e, 2)) return NULL;
  int type = lua_type(e->L, index);
  if (type == LUA_TBOOLEAN) return json_boolean(lua_toboolean(e->L, index));
  if (type == LUA_TNUMBER) return encode_number(e, index);
  if (type == LUA_TSTRING) return encode_string(e, index);
  if (type != LUA_TTABLE) {
    char why[120];
    snprintf(why, sizeof why, "is a %s; only numbers, strings, booleans and tables can be kept",
             lua_typename(e->L, type));
    return refuse(e, why);
  }
  if (depth > DEPTH || !lua_checkstack(e->L, 8))
    return refuse(e, "is nested deeper than 32 tables, or contains itself");
  lua_Integer n = list_length(e, index);
  return n > 0 ? encode_list(e, index, n, depth) : encode_map(e, index, depth);
}

char *state_encode(lua_State *L, int index, char problem[200]) {
  encoder e = {.L = L, .problem = problem, .path = "event.state"};
  snprintf(problem, 200, "event.state could not be kept: out of memory");
  json_t *value = encode(&e, lua_absindex(L, index), 0);
  /* Seventeen digits, jansson's default, bring every double back. */
  char *text = value ? json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : NULL;
  json_decref(value);
  return text;
}

/* ---- to Lua -----------------------------------------------------------------------------------
 */

/* The number a map stands for, when it is one of the three that JSON lacks. */
static bool is_special_number(const json_t *map, double *out) {
  const char *name = json_string_value(json_object_get(map, "#"));
  if (!name || json_object_size(map) != 1) return false;
  *out = strcmp(name, "inf") == 0 ? INFINITY : strcmp(name, "-inf") == 0 ? -INFINITY : (double)NAN;
  return true;
}

/* The integer in a key of the form "#n". */
static bool integer_key(const char *key, lua_Integer *out) {
  if (key[0] != '#' || key[1] == '#') return false;
  char *end;
  errno = 0;
  long long value = strtoll(key + 1, &end, 10);
  if (end == key + 1 || *end || errno) return false;
  *out = value;
  return true;
}

static bool is_well_formed(const json_t *value, int depth) {
  if (json_is_null(value)) return false;
  if (json_is_string(value)) return json_string_length(value) <= SCRIPT_STRING_BYTES;
  if (!json_is_array(value) && !json_is_object(value)) return true;
  if (depth > DEPTH) return false;
  size_t i;
  json_t *item;
  json_array_foreach(value, i, item) if (!is_well_formed(item, depth + 1)) return false;
  double number;
  if (json_is_object(value) && is_special_number(value, &number)) return true;
  const char *key;
  json_object_foreach((json_t *)value, key, item) {
    lua_Integer n;
    bool is_escaped = key[0] == '#' && key[1] == '#';
    if (key[0] == '#' && !is_escaped && !integer_key(key, &n)) return false;
    if (strlen(key) >= KEY_BYTES || !is_well_formed(item, depth + 1)) return false;
  }
  return true;
}

status state_parse(const char *text, json_t **out) {
  json_error_t problem;
  *out = NULL;
  if (strlen(text) > 8 * (size_t)SCRIPT_STATE_BYTES)
    return error_new(ERROR_DATA, NOWHERE, "the saved event.state is larger than 8 MiB");
  json_t *value = json_loads(text, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &problem);
  if (!value)
    return error_new(ERROR_DATA, NOWHERE, "the saved event.state is not JSON: %s (line %d)",
                     problem.text, problem.line);
  double number;
  if (!is_well_formed(value, 0) || (json_is_object(value) && is_special_number(value, &number))) {
    json_decref(value);
    return error_new(ERROR_DATA, NOWHERE,
                     "the saved event.state holds something a script cannot have put there");
  }
  *out = value;
  return OK;
}

void state_push(lua_State *L, const json_t *value) {
  luaL_checkstack(L, 8, NULL);
  double number;
  if (json_is_integer(value)) {
    lua_pushinteger(L, json_integer_value(value));
  } else if (json_is_real(value)) {
    lua_pushnumber(L, json_real_value(value));
  } else if (json_is_string(value)) {
    lua_pushlstring(L, json_string_value(value), json_string_length(value));
  } else if (json_is_boolean(value)) {
    lua_pushboolean(L, json_is_true(value));
  } else if (json_is_array(value)) {
    lua_newtable(L);
    size_t i;
    json_t *item;
    json_array_foreach(value, i, item) {
      state_push(L, item);
      lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
  } else if (is_special_number(value, &number)) {
    lua_pushnumber(L, number);
  } else {
    lua_newtable(L);
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)value, key, item) {
      lua_Integer n;
      if (integer_key(key, &n))
        lua_pushinteger(L, n);
      else
        lua_pushstring(L, key[0] == '#' ? key + 1 : key);
      state_push(L, item);
      lua_rawset(L, -3);
    }
  }
}
