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

#include <jansson.h>
#include <lauxlib.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
  HOOK_INTERVAL = 1000,
  RESERVE_BYTES = 8 << 20, /* granted over the limit until the next instruction */
  BYTES_PER_INSTRUCTION = 16,
  LOG_INSTRUCTIONS = 2000, /* a log line costs this much, which bounds the log */
  ARGUMENT_NAMES = 64
};

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

static const char *limit_text(script_limit limit, char out[200]) {
  switch (limit) {
  case LIMIT_STRING:
    snprintf(out, 200, "a string of more than %d KiB is not allowed", SCRIPT_STRING_BYTES / 1024);
    break;
  case LIMIT_BLOCK:
    snprintf(
        out, 200,
        "a table with more than %zu entries, or as many values in nested calls, is not allowed",
        SCRIPT_BLOCK_BYTES / (2 * sizeof(lua_Number)));
    break;
  default:
    snprintf(out, 200,
             "the script needs more than %d MiB of memory; keep numbers that matter later, not "
             "everything",
             SCRIPT_MEMORY_BYTES >> 20);
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
  if (s->spent > SCRIPT_INSTRUCTIONS)
    raise_here(L, "more than 20 million instructions in one call; does a loop never end? What does "
                  "not change between calls can be computed once, outside the function");
  if (cpu_ns() - s->cpu_start_ns > SCRIPT_CPU_MS * INT64_C(1000000))
    raise_here(L, "more than a second in one call; what does not change between calls can be "
                  "computed once, outside the function");
}

static void on_count(lua_State *L, lua_Debug *where) {
  (void)where;
  script *s = script_of(L);
  s->spent += s->hook_interval;
  lua_Debug deep;
  if (lua_getstack(L, SCRIPT_DEPTH, &deep))
    raise_here(L, "more than 2000 nested calls; does a function call itself without end?");
  if (s->over == LIMIT_MEMORY) {
    lua_gc(L, LUA_GCCOLLECT);
    s->spent += HOOK_INTERVAL;
    if (s->used_bytes <= SCRIPT_MEMORY_BYTES) s->over = LIMIT_NONE;
  }
  char text[200];
  if (s->over) raise_here(L, limit_text(s->over, text));
  check_budget(L, s);
  if (s->hook_interval != HOOK_INTERVAL) {
    s->hook_interval = HOOK_INTERVAL;
    lua_sethook(L, on_count, LUA_MASKCOUNT, HOOK_INTERVAL);
  }
}

void script_charge(lua_State *L, int64_t units) {
  script *s = script_of(L);
  s->spent += units;
  if (s->spent > SCRIPT_INSTRUCTIONS) {
    luaL_where(L, 1);
    lua_pushfstring(L, "more than 20 million instructions in one call, counting the work of "
                       "library functions on long lists and strings");
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
    if (used > SCRIPT_MEMORY_BYTES + RESERVE_BYTES || bytes > RESERVE_BYTES) {
      if (s->is_running) exceed(s, bytes > RESERVE_BYTES ? LIMIT_BLOCK : LIMIT_MEMORY);
      return NULL; /* Lua collects garbage and asks once more */
    }
    s->spent += (int64_t)((bytes - old_bytes) / BYTES_PER_INSTRUCTION);
  }
  void *moved = realloc(block, bytes);
  if (!moved) return NULL;
  s->used_bytes = used;
  if (s->is_running && bytes > old_bytes) {
    if (is_string && bytes > SCRIPT_STRING_BYTES + 64)
      exceed(s, LIMIT_STRING);
    else if (bytes > SCRIPT_BLOCK_BYTES)
      exceed(s, LIMIT_BLOCK);
    else if (used > SCRIPT_MEMORY_BYTES && !s->over)
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

/* Copies `text` without what a terminal could act on. */
static void copy_printable(char *out, size_t capacity, const char *text) {
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
    limit_text(s->over, text);
  } else if (lua_type(s->L, -1) == LUA_TSTRING) {
    copy_printable(text, sizeof text, lua_tostring(s->L, -1));
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

/* Runs `body` with one light userdata argument under the limits. The stack is empty before and
 * after. */
static status run_limited(script *s, lua_CFunction body, void *argument) {
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
                      limit_text(s->over, text));
  }
  lua_settop(s->L, 0);
  return error;
}

/* ---- opening ----------------------------------------------------------------------------------
 */

typedef struct opening {
  script *script;
  const char *source;
  const tree *arguments;
} opening;

static void push_argument(lua_State *L, const tree *t) {
  luaL_checkstack(L, 8, NULL);
  if (t->kind != TREE_SCALAR) {
    lua_newtable(L);
    for (int i = 0; i < t->count; i++) {
      if (t->kind == TREE_MAP)
        lua_pushstring(L, t->keys[i]->text);
      else
        lua_pushinteger(L, i + 1);
      push_argument(L, t->items[i]);
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

/* Every argument must have been read by now. */
static status check_arguments(const script *s, const tree *arguments) {
  const char *names[ARGUMENT_NAMES];
  int count = sandbox_arguments_read(s->L, names, ARGUMENT_NAMES);
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
    problems_add(
        &all, error_new(ERROR_PIPELINE, arguments->keys[i]->at,
                        "%s reads no argument '%s'%s%s%s; it reads: %s (while the file loads, as "
                        "in local warmup = args.warmup)",
                        s->file, name, near ? "; did you mean '" : "", near ? near : "",
                        near ? "'?" : "", count ? list.data : "none"));
  }
  text_free(&list);
  return problems_take(&all);
}

static int open_body(lua_State *L) {
  opening *o = lua_touserdata(L, 1);
  script *s = o->script;
  sandbox_push_environment(L);
  lua_newtable(L);
  for (int i = 0; o->arguments && i < o->arguments->count; i++) {
    push_argument(L, o->arguments->items[i]);
    lua_setfield(L, -2, o->arguments->keys[i]->text);
  }
  sandbox_watch_arguments(L);
  lua_setfield(L, -2, "args"); /* the script may set globals while it loads, and so may we */
  /* Chunks are loaded with this table as their globals, so the library's own are out of reach. */
  lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);

  const char *source = o->source;
  if (text_starts_with(source, "\xEF\xBB\xBF")) source += 3;
  if (luaL_loadbufferx(L, source, strlen(source), "=" CHUNK, "t") != LUA_OK) return lua_error(L);
  lua_call(L, 0, 1);
  if (!lua_isfunction(L, -1) || lua_iscfunction(L, -1)) {
    lua_pushfstring(L,
                    "the file must end with \"return function(…) … end\"; it returned a %s value",
                    luaL_typename(L, -1));
    return lua_error(L);
  }
  lua_Debug about;
  lua_pushvalue(L, -1);
  lua_getinfo(L, ">S", &about);
  s->function_line = about.linedefined;
  s->digest = sandbox_digest(L, -1);
  s->function_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

status script_open(const char *source, const char *name, const tree *arguments, script **out) {
  *out = NULL;
  source_pos at = {intern_file(name), 1, 1};
  if (strlen(source) > SCRIPT_SOURCE_BYTES)
    return error_new(ERROR_SCRIPT, at, "the script is longer than %d KiB",
                     SCRIPT_SOURCE_BYTES / 1024);
  if (source[0] == '\x1b')
    return error_new(ERROR_SCRIPT, at, "this is compiled Lua; a script must be text");
  if (arguments && arguments->kind != TREE_MAP)
    return error_new(ERROR_PIPELINE, arguments->at, "script arguments must be a mapping");
  script *s = calloc(1, sizeof *s);
  if (!s) return error_out_of_memory(sizeof *s);
  s->file = at.file;
  s->L = lua_newstate(allocate, s);
  if (!s->L) {
    free(s);
    return error_out_of_memory(SCRIPT_MEMORY_BYTES);
  }
  *(script **)lua_getextraspace(s->L) = s;
  s->is_loading = true;
  opening o = {s, source, arguments};
  status error = run_limited(s, open_body, &o);
  s->is_loading = false;
  if (!error) error = check_arguments(s, arguments);
  if (error) {
    script_close(s);
    return error_locate(error, at);
  }
  *out = s;
  return OK;
}

void script_close(script *s) {
  if (!s) return;
  lua_close(s->L);
  error_free(s->pending);
  free(s->state);
  free(s);
}

/* The function at the bottom of a call may not leave anything behind: the next call could then
 * differ from the same call in a resumed run. */
static void check_nothing_kept(lua_State *L, const script *s) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->function_ref);
  if (sandbox_digest(L, -1) != s->digest)
    luaL_error(L, "the function changed a variable outside itself, which a resumed run would not "
                  "know; a schedule computes from its arguments alone, and a hook keeps things in "
                  "event.state");
  lua_pop(L, 1);
}

/* ---- schedules --------------------------------------------------------------------------------
 */

typedef struct schedule_call {
  script *script;
  int64_t step, epoch, total_steps, steps_per_epoch;
  double base, result;
  int result_type;
} schedule_call;

static int schedule_body(lua_State *L) {
  schedule_call *call = lua_touserdata(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, call->script->function_ref);
  lua_pushinteger(L, call->step);
  lua_pushinteger(L, call->epoch);
  lua_pushinteger(L, call->total_steps);
  lua_pushnumber(L, call->base);
  lua_pushinteger(L, call->steps_per_epoch);
  lua_call(L, 5, 1);
  call->result_type = lua_type(L, -1);
  if (call->result_type == LUA_TNUMBER) call->result = lua_tonumber(L, -1);
  check_nothing_kept(L, call->script);
  return 0;
}

status script_schedule(script *s, int64_t step, int64_t epoch, int64_t total_steps,
                       int64_t steps_per_epoch, double base, double *out) {
  schedule_call call = {.script = s,
                        .step = step,
                        .epoch = epoch,
                        .total_steps = total_steps,
                        .steps_per_epoch = steps_per_epoch,
                        .base = base,
                        .result = NAN};
  TRY(run_limited(s, schedule_body, &call));
  source_pos at = {s->file, s->function_line, 1};
  if (call.result_type != LUA_TNUMBER)
    return error_new(ERROR_SCRIPT, at,
                     "the schedule must return a number; at step %lld it returned a %s value",
                     (long long)step, lua_typename(s->L, call.result_type));
  if (!isfinite(call.result))
    return error_new(ERROR_SCRIPT, at, "the schedule returned %g at step %lld (epoch %lld)",
                     call.result, (long long)step, (long long)epoch);
  *out = call.result;
  return OK;
}

/* ---- hooks ------------------------------------------------------------------------------------
 */

static hook_event *current_event(lua_State *L) {
  hook_event *event = script_of(L)->event;
  if (!event) luaL_error(L, "the event's functions work during the call they were given to");
  return event;
}

static int raise_pending(lua_State *L, status error) {
  script_of(L)->pending = error;
  return luaL_error(L, "callback");
}

static int event_get(lua_State *L) {
  hook_event *event = current_event(L);
  const char *name = luaL_checkstring(L, 1);
  double value = 0;
  if (!event->get) return luaL_error(L, "event.get has nothing to read here");
  status error = event->get(event->context, name, &value);
  if (error) return raise_pending(L, error);
  lua_pushnumber(L, value);
  return 1;
}

static int event_set(lua_State *L) {
  hook_event *event = current_event(L);
  const char *name = luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TNUMBER);
  double value = lua_tonumber(L, 2);
  if (!isfinite(value)) return luaL_error(L, "event.set(\"%s\", %f): not finite", name, value);
  if (!event->set) return luaL_error(L, "event.set has nothing to change here");
  status error = event->set(event->context, name, value);
  return error ? raise_pending(L, error) : 0;
}

static int event_stop(lua_State *L) {
  hook_event *event = current_event(L);
  copy_printable(event->stop_reason, sizeof event->stop_reason,
                 luaL_optstring(L, 1, "a script asked to stop"));
  event->stop = true;
  return 0;
}

void script_log(lua_State *L, int index) {
  hook_event *event = script_of(L)->event;
  if (!event || !event->log) {
    luaL_error(L, "there is no log here: print and event.log work inside a hook");
    return;
  }
  script_charge(L, LOG_INSTRUCTIONS);
  char line[SCRIPT_STRING_BYTES + 1];
  copy_printable(line, sizeof line, lua_tostring(L, index));
  event->log(event->context, line);
}

static int event_log(lua_State *L) {
  luaL_checkstring(L, 1);
  script_log(L, 1);
  return 0;
}

typedef struct hook_call {
  script *script;
  json_t *state; /* before */
  char *encoded; /* after */
  char problem[200];
} hook_call;

static void push_event(lua_State *L, const hook_event *event, const json_t *state) {
  lua_newtable(L);
  lua_pushstring(L, event->stage ? event->stage : "");
  lua_setfield(L, -2, "stage");
  lua_pushinteger(L, event->epoch);
  lua_setfield(L, -2, "epoch");
  lua_pushinteger(L, event->step);
  lua_setfield(L, -2, "step");
  lua_newtable(L);
  for (int i = 0; i < event->metric_count; i++) {
    lua_pushnumber(L, event->metric_values[i]);
    lua_setfield(L, -2, event->metric_names[i]);
  }
  lua_setfield(L, -2, "metrics");
  if (state)
    state_push(L, state);
  else
    lua_newtable(L);
  lua_setfield(L, -2, "state");
  static const struct {
    const char *name;
    lua_CFunction function;
  } functions[] = {
      {"get", event_get}, {"set", event_set}, {"stop", event_stop}, {"log", event_log}};
  for (int i = 0; i < 4; i++) {
    lua_pushcfunction(L, functions[i].function);
    lua_setfield(L, -2, functions[i].name);
  }
}

static int hook_body(lua_State *L) {
  hook_call *call = lua_touserdata(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, call->script->function_ref);
  push_event(L, call->script->event, call->state);
  lua_getfield(L, -1, "state");
  lua_insert(L, 2); /* below the function: read again after the call */
  sandbox_read_only(L, "event.");
  lua_call(L, 1, 0);
  check_nothing_kept(L, call->script);
  call->encoded = state_encode(L, 2, call->problem);
  return 0;
}

status script_hook(script *s, hook_event *event) {
  hook_call call = {.script = s};
  if (s->state) TRY(state_parse(s->state, &call.state));
  event->stop = false;
  event->stop_reason[0] = 0;
  s->event = event;
  status error = run_limited(s, hook_body, &call);
  s->event = NULL;
  json_decref(call.state);
  if (!error && !call.encoded)
    error = error_new(ERROR_SCRIPT, (source_pos){s->file, s->function_line, 1}, "%s", call.problem);
  if (error) {
    free(call.encoded);
    event->stop = false;
    return error;
  }
  free(s->state);
  s->state = call.encoded;
  return OK;
}

status script_state_save(script *s, char **json) {
  *json = strdup(s->state ? s->state : "{}");
  return *json ? OK : error_out_of_memory(strlen(s->state));
}

status script_state_load(script *s, const char *json) {
  json_t *value;
  TRY(state_parse(json, &value));
  json_decref(value);
  char *copy = strdup(json);
  if (!copy) return error_out_of_memory(strlen(json));
  free(s->state);
  s->state = copy;
  return OK;
}
