/* Running a script: limits, calls, and turning what goes wrong into a status with the script's
 * line.
 *
 * How a call is bounded. A count hook sees every 1000th instruction and adds up; the allocator adds
 * what is allocated, and wrapped library functions what they do in C (sandbox.c). A limit on memory
 * is exceeded first and reported at the next instruction, where there is a line to report, so the
 * allocator grants some more than the limit and refuses only beyond that. There is no pcall, no
 * coroutine and no metatable in the sandbox, so nothing can catch the error. */
#include "script/script.h"

#include "base/text.h"
#include "language/tree.h"
#include "script/sandbox.h"

#include <lauxlib.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HOOK_INTERVAL = 1000, BYTES_PER_INSTRUCTION = 16, ARGUMENT_NAMES = 64 };

const script_limits script_limits_default = {.memory_bytes = SCRIPT_MEMORY_BYTES,
                                             .string_bytes = SCRIPT_STRING_BYTES,
                                             .block_bytes = SCRIPT_BLOCK_BYTES,
                                             .instructions = SCRIPT_INSTRUCTIONS,
                                             .cpu_ms = SCRIPT_CPU_MS,
                                             .depth = SCRIPT_DEPTH};

#define CHUNK "script" /* stands for the file in Lua's messages until they become a status */

script *script_of(lua_State *L) {
  return *(script **)lua_getextraspace(L);
}

/* ---- limits -----------------------------------------------------------------------------------
 */

static int64_t cpu_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Granted over the memory limit until the next instruction. */
static size_t reserve_bytes(const script *s) {
  return 8 * s->limits->block_bytes;
}

static const char *limit_text(const script *s, char out[200]) {
  const script_limits *l = s->limits;
  switch (s->over) {
  case LIMIT_STRING:
    snprintf(out, 200, "a string of more than %zu KiB is not allowed", l->string_bytes / 1024);
    break;
  case LIMIT_BLOCK:
    snprintf(
        out, 200,
        "a table with more than %zu entries, or as many values in nested calls, is not allowed",
        l->block_bytes / (2 * sizeof(lua_Number)));
    break;
  default:
    snprintf(out, 200,
             "the script needs more than %zu MiB of memory; keep numbers that matter later, not "
             "everything",
             l->memory_bytes >> 20);
  }
  return out;
}

/* A Lua error at the line that is being executed. */
static void raise_here(lua_State *L, const char *text) {
  luaL_where(L, 0);
  lua_pushstring(L, text);
  lua_concat(L, 2);
  lua_error(L);
}

static void check_budget(lua_State *L, script *s) {
  char text[200];
  if (s->spent > s->limits->instructions) {
    snprintf(text, sizeof text,
             "more than %lld million instructions in one call; does a loop never end? What does "
             "not change between calls can be computed once, outside the function",
             (long long)s->limits->instructions / 1000000);
    raise_here(L, text);
  }
  if (s->limits->cpu_ms > 0 && cpu_ns() - s->cpu_start_ns > s->limits->cpu_ms * INT64_C(1000000)) {
    snprintf(text, sizeof text,
             "more than %lld ms of processor time in one call; what does not change between calls "
             "can be computed once, outside the function",
             (long long)s->limits->cpu_ms);
    raise_here(L, text);
  }
}

static void on_count(lua_State *L, lua_Debug *where) {
  (void)where;
  script *s = script_of(L);
  s->spent += s->hook_interval;
  lua_Debug deep;
  char text[200];
  if (lua_getstack(L, s->limits->depth, &deep)) {
    snprintf(text, sizeof text,
             "more than %d nested calls; does a function call itself without end?",
             s->limits->depth);
    raise_here(L, text);
  }
  if (s->over == LIMIT_MEMORY) {
    lua_gc(L, LUA_GCCOLLECT);
    s->spent += HOOK_INTERVAL;
    if (s->used_bytes <= s->limits->memory_bytes) s->over = LIMIT_NONE;
  }
  if (s->over) raise_here(L, limit_text(s, text));
  check_budget(L, s);
  if (s->hook_interval != HOOK_INTERVAL) {
    s->hook_interval = HOOK_INTERVAL;
    lua_sethook(L, on_count, LUA_MASKCOUNT, HOOK_INTERVAL);
  }
}

void script_charge(lua_State *L, int64_t units) {
  script *s = script_of(L);
  s->spent += units;
  if (s->spent > s->limits->instructions) {
    luaL_where(L, 1);
    lua_pushfstring(L,
                    "more than %d million instructions in one call, counting the work of library "
                    "functions on long lists and strings",
                    (int)(s->limits->instructions / 1000000));
    lua_concat(L, 2);
    lua_error(L);
  }
}

static void exceed(script *s, script_limit limit) {
  if (s->over && s->over != LIMIT_MEMORY) return;
  s->over = limit;
  s->hook_interval = 1;
  lua_sethook(s->L, on_count, LUA_MASKCOUNT, 1); /* may be called at any time, says the manual */
}

static void *allocate(void *context, void *block, size_t old_bytes, size_t bytes) {
  script *s = context;
  bool is_string = !block && old_bytes == LUA_TSTRING;
  if (!block) old_bytes = 0; /* it was the kind of object */
  if (bytes == 0) {
    free(block);
    s->used_bytes -= old_bytes;
    return NULL;
  }
  size_t used = s->used_bytes - old_bytes + bytes;
  if (bytes > old_bytes) {
    size_t reserve = reserve_bytes(s);
    if (used > s->limits->memory_bytes + reserve || bytes > reserve) {
      if (s->is_running) exceed(s, bytes > reserve ? LIMIT_BLOCK : LIMIT_MEMORY);
      return NULL; /* Lua collects garbage and asks once more */
    }
    s->spent += (int64_t)((bytes - old_bytes) / BYTES_PER_INSTRUCTION);
  }
  void *moved = realloc(block, bytes);
  if (!moved) return NULL;
  s->used_bytes = used;
  if (s->is_running && bytes > old_bytes) {
    if (is_string && bytes > s->limits->string_bytes + 64)
      exceed(s, LIMIT_STRING);
    else if (bytes > s->limits->block_bytes)
      exceed(s, LIMIT_BLOCK);
    else if (used > s->limits->memory_bytes && !s->over)
      exceed(s, LIMIT_MEMORY);
  }
  return moved;
}

/* ---- errors -----------------------------------------------------------------------------------
 */

/* Notes the innermost Lua line; the message stays as it is. */
static int on_error(lua_State *L) {
  script *s = script_of(L);
  lua_Debug frame;
  for (int level = 0; lua_getstack(L, level, &frame); level++) {
    lua_getinfo(L, "l", &frame);
    if (frame.currentline > 0) {
      s->error_line = frame.currentline;
      break;
    }
  }
  return 1;
}

void script_copy_printable(char *out, size_t capacity, const char *text) {
  size_t n = strlen(text);
  bool is_cut = n > capacity - 1;
  if (is_cut) n = capacity - 1;
  /* A cut goes before a whole UTF-8 character. */
  while (is_cut && n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80) n--;
  for (size_t i = 0; i < n; i++) {
    unsigned char c = (unsigned char)text[i];
    out[i] = c < 32 || c == 127 ? ' ' : (char)c;
  }
  out[n] = 0;
}

/* What the failed call left on the stack, as a status. */
static status failure(script *s, int code) {
  source_pos at = {s->file, s->error_line, s->error_line > 0 ? 1 : 0};
  if (s->pending) {
    status error = s->pending;
    s->pending = OK;
    return error_locate(error, at);
  }
  if (at.line == 0) at = (source_pos){s->file, s->function_line, s->function_line > 0 ? 1 : 0};
  if (code == LUA_ERRMEM && !s->over) return error_out_of_memory(s->used_bytes);
  char text[1000];
  if (code == LUA_ERRMEM) {
    limit_text(s, text);
  } else if (lua_type(s->L, -1) == LUA_TSTRING) {
    script_copy_printable(text, sizeof text, lua_tostring(s->L, -1));
  } else if (lua_isinteger(s->L, -1)) {
    snprintf(text, sizeof text, "%lld", (long long)lua_tointeger(s->L, -1));
  } else {
    snprintf(text, sizeof text, "error was called with a %s; give it a text",
             lua_typename(s->L, lua_type(s->L, -1)));
  }
  /* "script:12: …": the place goes where every error has it. */
  const char *message = text;
  size_t prefix = strlen(CHUNK ":");
  if (strncmp(text, CHUNK ":", prefix) == 0) {
    char *end;
    long line = strtol(text + prefix, &end, 10);
    if (line > 0 && end[0] == ':' && end[1] == ' ') {
      at.line = (int)line;
      at.column = 1;
      message = end + 2;
    }
  }
  return error_new(ERROR_SCRIPT, at, "%s", message);
}

status script_protected(script *s, lua_CFunction body, void *argument) {
  s->spent = 0;
  s->over = LIMIT_NONE;
  s->error_line = 0;
  s->hook_interval = HOOK_INTERVAL;
  s->cpu_start_ns = cpu_ns();
  lua_sethook(s->L, on_count, LUA_MASKCOUNT, HOOK_INTERVAL);
  lua_settop(s->L, 0);
  lua_pushcfunction(s->L, on_error);
  lua_pushcfunction(s->L, body);
  lua_pushlightuserdata(s->L, argument);
  s->is_running = true;
  int code = lua_pcall(s->L, 1, 0, 1);
  s->is_running = false;
  status error = OK;
  if (code != LUA_OK) {
    error = failure(s, code);
  } else if (s->over == LIMIT_STRING || s->over == LIMIT_BLOCK) {
    /* Exceeded by the very last instruction. */
    char text[200];
    error = error_new(ERROR_SCRIPT, (source_pos){s->file, s->function_line, 1}, "%s",
                      limit_text(s, text));
  }
  lua_settop(s->L, 0);
  return error;
}

/* ---- opening ----------------------------------------------------------------------------------
 */

typedef struct opening {
  script *script;
  const script_ref *ref;
  bool wants_function;
} opening;

void script_push_tree(lua_State *L, const tree *t) {
  luaL_checkstack(L, 8, NULL);
  if (t->kind != TREE_SCALAR) {
    lua_newtable(L);
    for (int i = 0; i < t->count; i++) {
      if (t->kind == TREE_MAP)
        lua_pushstring(L, t->keys[i]->text);
      else
        lua_pushinteger(L, i + 1);
      script_push_tree(L, t->items[i]);
      lua_rawset(L, -3);
    }
    return;
  }
  bool truth;
  int64_t integer;
  double number;
  status no_truth = tree_bool(t, &truth), no_integer = tree_int(t, &integer);
  status no_number = tree_float(t, &number);
  bool is_truth = !no_truth, is_integer = !no_integer, is_number = !no_number;
  error_free(no_truth);
  error_free(no_integer);
  error_free(no_number);
  if (tree_is_null(t))
    lua_pushnil(L);
  else if (is_truth)
    lua_pushboolean(L, truth);
  else if (is_integer)
    lua_pushinteger(L, integer);
  else if (is_number)
    lua_pushnumber(L, number);
  else
    lua_pushstring(L, t->text);
}

status script_check_arguments(lua_State *L, const tree *arguments) {
  const script *s = script_of(L);
  const char *names[ARGUMENT_NAMES];
  int count = sandbox_arguments_read(L, names, ARGUMENT_NAMES);
  if (!arguments || s->all_arguments_read || count == ARGUMENT_NAMES) return OK;
  text_buffer list = {0};
  for (int i = 0; i < count; i++) text_add(&list, "%s%s", i ? ", " : "", names[i]);
  problems all = {0};
  for (int i = 0; i < arguments->count; i++) {
    const char *name = arguments->keys[i]->text;
    bool was_read = false;
    for (int j = 0; j < count; j++) was_read |= strcmp(name, names[j]) == 0;
    if (was_read) continue;
    const char *near = nearest_name(name, names, count);
    const source_pos at = arguments->keys[i]->at;
    status error =
        error_new(ERROR_PIPELINE, at,
                  "%s reads no argument '%s'%s%s%s it reads: %s (while the file loads, as "
                  "in local warmup = args.warmup)",
                  s->file, name, near ? "; did you mean '" : ";", near ? near : "",
                  near ? "'?" : "", count ? list.data : "none");
    if (s->named_at.file && at.file != s->named_at.file)
      error = error_suffix(error,
                           ". If it was given to another script, take it away: \"%s: ~\" beside "
                           "lua:",
                           name);
    problems_add(&all, error);
  }
  text_free(&list);
  return problems_take(&all);
}

static void push_arguments(lua_State *L, const tree *arguments) {
  lua_newtable(L);
  for (int i = 0; arguments && i < arguments->count; i++) {
    script_push_tree(L, arguments->items[i]);
    lua_setfield(L, -2, arguments->keys[i]->text);
  }
  sandbox_watch_arguments(L);
}

static void keep_function(lua_State *L, script *s) {
  if (!lua_isfunction(L, -1) || lua_iscfunction(L, -1)) {
    lua_pushfstring(L,
                    "the file must end with \"return function(…) … end\"; it returned a %s value",
                    luaL_typename(L, -1));
    lua_error(L);
  }
  lua_Debug about;
  lua_pushvalue(L, -1);
  lua_getinfo(L, ">S", &about);
  s->function_line = about.linedefined;
  s->digest = sandbox_digest(L, -1);
  s->function_ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

static int open_body(lua_State *L) {
  opening *o = lua_touserdata(L, 1);
  sandbox_push_environment(L);
  push_arguments(L, o->ref->arguments);
  lua_setfield(L, -2, "args"); /* the script may set globals while it loads, and so may we */
  /* Chunks are loaded with this table as their globals, so the library's own are out of reach. */
  lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);

  const char *source = o->ref->source;
  if (text_starts_with(source, "\xEF\xBB\xBF")) source += 3;
  if (luaL_loadbufferx(L, source, strlen(source), "=" CHUNK, "t") != LUA_OK) return lua_error(L);
  lua_call(L, 0, 1);
  if (o->wants_function) keep_function(L, o->script);
  return 0;
}

static status load(script *s, const script_ref *ref, bool wants_function) {
  source_pos at = {s->file, 1, 1};
  if (strlen(ref->source) > SCRIPT_SOURCE_BYTES)
    return error_new(ERROR_SCRIPT, at, "the script is longer than %d KiB",
                     SCRIPT_SOURCE_BYTES / 1024);
  if (ref->source[0] == '\x1b')
    return error_new(ERROR_SCRIPT, at, "this is compiled Lua; a script must be text");
  if (ref->arguments && ref->arguments->kind != TREE_MAP)
    return error_new(ERROR_PIPELINE, ref->arguments->at, "script arguments must be a mapping");
  s->L = lua_newstate(allocate, s);
  if (!s->L) return error_out_of_memory(s->limits->memory_bytes);
  *(script **)lua_getextraspace(s->L) = s;
  s->is_loading = true;
  opening o = {s, ref, wants_function};
  status error = script_protected(s, open_body, &o);
  s->is_loading = false;
  if (!error) error = script_check_arguments(s->L, ref->arguments);
  return error_locate(error, at);
}

status script_open(script_kind kind, const script_ref *ref, script **out) {
  *out = NULL;
  script *s = calloc(1, sizeof *s);
  if (!s) return error_out_of_memory(sizeof *s);
  s->kind = kind;
  s->limits = &script_limits_default;
  s->file = intern_file(ref->path);
  s->named_at = ref->at;
  status error = load(s, ref, true);
  if (error_code_of(error) == ERROR_SCRIPT) error = script_blame(s, error);
  if (error) {
    script_close(s);
    return error;
  }
  *out = s;
  return OK;
}

status script_run(const script_program *program, const script_ref *file) {
  script *s = calloc(1, sizeof *s);
  if (!s) return error_out_of_memory(sizeof *s);
  s->kind = program->kind;
  s->limits = program->limits ? program->limits : &script_limits_default;
  s->file = intern_file(file->path);
  s->log = program->log;
  s->context = program->context;
  status error = load(s, file, false);
  if (program->met_unknown_name) *program->met_unknown_name = error && s->met_unknown_name;
  script_close(s);
  return error;
}

void script_close(script *s) {
  if (!s) return;
  if (s->L) lua_close(s->L);
  error_free(s->pending);
  free(s->state);
  free(s);
}

void script_check_nothing_kept(lua_State *L) {
  const script *s = script_of(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->function_ref);
  if (sandbox_digest(L, -1) != s->digest)
    luaL_error(L, "the function changed a variable outside itself, which a resumed run would not "
                  "know; a schedule computes from its arguments alone, and a hook keeps things in "
                  "event.state");
  lua_pop(L, 1);
}

status script_blame(const script *s, status error) {
  source_pos at = s->named_at;
  error =
      error_locate(error, (source_pos){s->file, s->function_line > 0 ? s->function_line : 1, 1});
  if (at.line > 0)
    return error_suffix(error, " (the script is named at %s:%d:%d)", at.file, at.line, at.column);
  return at.file ? error_suffix(error, " (the script is named by %s)", at.file) : error;
}

void script_push_numbers(lua_State *L, const script_numbers *numbers, const char *lacks) {
  lua_createtable(L, 0, numbers->count);
  for (int i = 0; i < numbers->count; i++) {
    if (isnan(numbers->values[i])) continue;
    lua_pushnumber(L, numbers->values[i]);
    lua_setfield(L, -2, numbers->names[i]);
  }
  if (numbers->count == 0) return;
  lua_createtable(L, 0, numbers->count);
  for (int i = 0; i < numbers->count; i++) {
    lua_pushboolean(L, true);
    lua_setfield(L, -2, numbers->names[i]);
  }
  script_refuse_unknown(L, lacks, false);
}

void *script_context(lua_State *L) {
  return script_of(L)->context;
}

int script_raise(lua_State *L, status error) {
  script_of(L)->pending = error;
  return luaL_error(L, "callback");
}
