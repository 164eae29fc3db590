/* Values between Lua, YAML and JSON, and tables that a script makes itself. */
#include "ablate/session.h"

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/table.h"
#include "base/text.h"

#include <lauxlib.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { YAML_DEPTH = 16, YAML_KEYS = 200, YAML_BYTES = 64 << 10, CHARGE_PER_BYTE = 4 };

/* ---- Lua → YAML ------------------------------------------------------------------------------ */

static void add_quoted(lua_State *L, int index, luaL_Buffer *out) {
  size_t length;
  const char *text = lua_tolstring(L, index, &length);
  luaL_addchar(out, '"');
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)text[i];
    char escaped[8];
    if (c == '"' || c == '\\')
      snprintf(escaped, sizeof escaped, "\\%c", c);
    else if (c < 32 || c == 127)
      snprintf(escaped, sizeof escaped, "\\x%02X", c);
    else
      snprintf(escaped, sizeof escaped, "%c", c);
    luaL_addstring(out, escaped);
  }
  luaL_addchar(out, '"');
}

/* The buffer may move the stack's top, so `index` is absolute. */
static void add_value(lua_State *L, int index, luaL_Buffer *out, int depth);

static void add_list(lua_State *L, int index, lua_Integer n, luaL_Buffer *out, int depth) {
  luaL_addchar(out, '[');
  for (lua_Integer i = 1; i <= n; i++) {
    if (i > 1) luaL_addstring(out, ", ");
    luaL_Buffer item;
    lua_rawgeti(L, index, i);
    int value = lua_gettop(L);
    luaL_buffinit(L, &item);
    add_value(L, value, &item, depth + 1);
    luaL_pushresult(&item);
    lua_remove(L, value);
    luaL_addvalue(out);
  }
  luaL_addchar(out, ']');
}

static void add_map(lua_State *L, int index, luaL_Buffer *out, int depth) {
  const char *keys[YAML_KEYS];
  int count = 0;
  lua_pushnil(L);
  while (lua_next(L, index)) {
    lua_pop(L, 1);
    if (lua_type(L, -1) != LUA_TSTRING || count == YAML_KEYS)
      luaL_error(L, "a mapping has names as keys, %d at most, and a list the numbers from 1",
                 YAML_KEYS);
    keys[count++] = lua_tostring(L, -1); /* lives as long as the table has it */
  }
  qsort(keys, (size_t)count, sizeof *keys, by_text);
  luaL_addchar(out, '{');
  for (int i = 0; i < count; i++) {
    luaL_Buffer entry;
    lua_pushstring(L, keys[i]);
    lua_pushvalue(L, -1);
    lua_rawget(L, index);
    int value = lua_gettop(L);
    luaL_buffinit(L, &entry);
    if (i > 0) luaL_addstring(&entry, ", ");
    add_quoted(L, value - 1, &entry);
    luaL_addstring(&entry, ": ");
    add_value(L, value, &entry, depth + 1);
    luaL_pushresult(&entry);
    lua_insert(L, value - 1);
    lua_settop(L, value - 1);
    luaL_addvalue(out);
  }
  luaL_addchar(out, '}');
}

static void add_number(lua_State *L, int index, luaL_Buffer *out) {
  char text[40];
  double number = lua_tonumber(L, index);
  if (lua_isinteger(L, index))
    snprintf(text, sizeof text, "%lld", (long long)lua_tointeger(L, index));
  else
    snprintf(text, sizeof text, "%.15g", number);
  if (!isfinite(number)) luaL_error(L, "a value of %f cannot be set", number);
  if (!lua_isinteger(L, index) && strtod(text, NULL) != number)
    snprintf(text, sizeof text, "%.17g", number);
  luaL_addstring(out, text);
}

static void add_value(lua_State *L, int index, luaL_Buffer *out, int depth) {
  luaL_checkstack(L, 16, NULL);
  if (depth > YAML_DEPTH) luaL_error(L, "the value is nested deeper than %d tables", YAML_DEPTH);
  switch (lua_type(L, index)) {
  case LUA_TBOOLEAN:
    luaL_addstring(out, lua_toboolean(L, index) ? "true" : "false");
    break;
  case LUA_TNUMBER:
    add_number(L, index, out);
    break;
  case LUA_TSTRING:
    add_quoted(L, index, out);
    break;
  case LUA_TTABLE: {
    lua_Integer n = (lua_Integer)lua_rawlen(L, index);
    if (n > 0)
      add_list(L, index, n, out, depth);
    else
      add_map(L, index, out, depth);
    break;
  }
  default:
    luaL_error(L, "a %s cannot be the value of a key", luaL_typename(L, index));
  }
}

const char *value_yaml(lua_State *L, int index, arena *memory) {
  index = lua_absindex(L, index);
  int top = lua_gettop(L), type = lua_type(L, index);
  if (type == LUA_TSTRING || type == LUA_TNIL) {
    lua_pushstring(L, type == LUA_TNIL ? "" : lua_tostring(L, index));
  } else {
    luaL_Buffer text;
    luaL_buffinit(L, &text);
    add_value(L, index, &text, 0);
    luaL_pushresult(&text);
  }
  size_t length = lua_rawlen(L, -1);
  if (length > YAML_BYTES) luaL_error(L, "the value is longer than %d KiB", YAML_BYTES / 1024);
  script_charge(L, (int64_t)length * CHARGE_PER_BYTE);
  const char *copy = arena_strdup(memory, lua_tostring(L, -1));
  lua_settop(L, top);
  return copy;
}

const char *value_file_name(lua_State *L, int index) {
  static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  size_t length;
  const char *name = luaL_checklstring(L, index, &length);
  if (length == 0 || length > 100 || name[0] == '.' || name[0] == '-' ||
      strspn(name, allowed) != length || strcmp(name, "trials") == 0)
    luaL_error(L, "a name of files consists of letters, digits, '_', '-' and '.'");
  return name;
}

/* ---- JSON → Lua ------------------------------------------------------------------------------ */

void value_push_json(lua_State *L, const json_t *value) {
  luaL_checkstack(L, 8, NULL);
  script_charge(L, 4);
  switch (json_typeof(value)) {
  case JSON_OBJECT: {
    const char *key;
    json_t *item;
    lua_newtable(L);
    json_object_foreach((json_t *)value, key, item) {
      value_push_json(L, item);
      lua_setfield(L, -2, key);
    }
    break;
  }
  case JSON_ARRAY:
    lua_newtable(L);
    for (size_t i = 0; i < json_array_size(value); i++) {
      value_push_json(L, json_array_get(value, i));
      lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    break;
  case JSON_STRING:
    lua_pushstring(L, json_string_value(value));
    break;
  case JSON_INTEGER:
    lua_pushinteger(L, json_integer_value(value));
    break;
  case JSON_REAL:
    lua_pushnumber(L, json_real_value(value));
    break;
  case JSON_TRUE:
  case JSON_FALSE:
    lua_pushboolean(L, json_is_true(value));
    break;
  case JSON_NULL:
    lua_pushnil(L);
  }
}

/* ---- tables by hand -------------------------------------------------------------------------- */

static void add_cell(table *t, const json_t *value) {
  if (json_is_integer(value))
    table_cell(t, "%lld", (long long)json_integer_value(value));
  else if (json_is_real(value))
    table_cell(t, "%.6g", json_real_value(value));
  else if (json_is_boolean(value))
    table_cell(t, "%s", json_is_true(value) ? "true" : "false");
  else
    table_cell(t, "%s", json_is_string(value) ? json_string_value(value) : "");
}

static table table_of(const char *const *columns, int count, const json_t *rows) {
  table t = {0};
  const json_t *first = json_array_get(rows, 0);
  for (int i = 0; i < count; i++)
    table_column(&t, columns[i], json_is_number(json_object_get(first, columns[i])));
  for (size_t r = 0; r < json_array_size(rows); r++)
    for (int i = 0; i < count; i++)
      add_cell(&t, json_object_get(json_array_get(rows, r), columns[i]));
  return t;
}

typedef void (*table_writer)(const table *t, FILE *out);

static char *file_of(const session *s, const char *name, const char *ending) {
  char file[200];
  snprintf(file, sizeof file, "%.120s%s", name, ending);
  return path_join(s->o->out, file);
}

static status write_table(const session *s, const char *name, const char *ending, const table *t,
                          table_writer write) {
  char *path = file_of(s, name, ending);
  atomic_file file;
  status error = atomic_begin(path, &file);
  if (!error) {
    write(t, file.stream);
    error = atomic_commit(&file);
  }
  free(path);
  return error;
}

static status write_rows(const session *s, const char *name, const json_t *rows) {
  char *path = file_of(s, name, ".json");
  status error = json_write(path, rows, JSON_INDENT(2) | JSON_REAL_PRECISION(9), "");
  free(path);
  return error;
}

status session_show(session *s, const char *name, const char *const *columns, int count,
                    const json_t *rows) {
  table t = table_of(columns, count, rows);
  char *text = NULL;
  size_t length = 0;
  FILE *out = memory_stream(&text, &length);
  table_print(&t, out);
  memory_stream_close(out);
  report_line(&s->o->jobs.report, "\n%s\n\n%s", name, text);
  free(text);
  status error = folder_create(s->o->out);
  if (!error) error = write_table(s, name, ".md", &t, table_markdown);
  if (!error) error = write_table(s, name, ".csv", &t, table_csv);
  if (!error) error = write_rows(s, name, rows);
  table_free(&t);
  return error;
}
