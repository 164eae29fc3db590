/* Hooks: functions that are given an event and may change what follows. */
#include "script/sandbox.h"

#include "base/memory.h"

#include <jansson.h>
#include <lauxlib.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  LOG_INSTRUCTIONS = 2000, /* a log line costs this much, which bounds the log */
  LOG_LINE_BYTES = SCRIPT_STRING_BYTES + 1,
  RECORDED_NAME = 60
};

static hook_event *current_event(lua_State *L) {
  hook_event *event = script_of(L)->event;
  if (!event) luaL_error(L, "the event's functions work during the call they were given to");
  return event;
}

/* The first argument. event:get("lr") would give the event in its place. */
static const char *check_text(lua_State *L, const char *function) {
  if (lua_istable(L, 1)) luaL_error(L, "call it with a dot and a text: event.%s(…)", function);
  return luaL_checkstring(L, 1);
}

static int event_get(lua_State *L) {
  hook_event *event = current_event(L);
  const char *name = check_text(L, "get");
  double value = 0;
  if (!event->get) return luaL_error(L, "event.get has nothing to read here");
  status error = event->get(event->context, name, &value);
  if (error) return script_raise(L, error);
  lua_pushnumber(L, value);
  return 1;
}

static int event_set(lua_State *L) {
  hook_event *event = current_event(L);
  const char *name = check_text(L, "set");
  luaL_checktype(L, 2, LUA_TNUMBER);
  double value = lua_tonumber(L, 2);
  if (!isfinite(value)) return luaL_error(L, "event.set(\"%s\", %f): not finite", name, value);
  if (!event->set) return luaL_error(L, "event.set has nothing to change here");
  status error = event->set(event->context, name, value);
  return error ? script_raise(L, error) : 0;
}

static int event_record(lua_State *L) {
  static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  hook_event *event = current_event(L);
  const char *name = check_text(L, "record");
  luaL_checktype(L, 2, LUA_TNUMBER);
  double value = lua_tonumber(L, 2);
  if (!name[0] || name[strspn(name, allowed)] || strlen(name) > RECORDED_NAME)
    return luaL_error(L, "the name of a number has 1 to %d letters, digits, '_', '-' and '.'",
                      RECORDED_NAME);
  if (!isfinite(value)) return luaL_error(L, "event.record(\"%s\", %f): not finite", name, value);
  if (!event->record) return luaL_error(L, "event.record has nowhere to write here");
  status error = event->record(event->context, name, value);
  return error ? script_raise(L, error) : 0;
}

static int event_stop(lua_State *L) {
  hook_event *event = current_event(L);
  const char *reason = lua_isnoneornil(L, 1) ? "" : check_text(L, "stop");
  script_copy_printable(event->stop_reason, sizeof event->stop_reason,
                        reason[0] ? reason : "a script asked to stop");
  event->stop = true;
  return 0;
}

void script_log(lua_State *L, int index) {
  const script *s = script_of(L);
  if (!s->log) {
    luaL_error(L, "there is no log here: print and event.log work inside a hook");
    return;
  }
  script_charge(L, LOG_INSTRUCTIONS);
  char line[LOG_LINE_BYTES];
  script_copy_printable(line, sizeof line, lua_tostring(L, index));
  s->log(s->context, line);
}

static int event_log(lua_State *L) {
  check_text(L, "log");
  script_log(L, 1);
  return 0;
}

enum { WHILE_IT_RUNS = SCRIPT_BIT(SCRIPT_VALIDATION) | SCRIPT_BIT(SCRIPT_EPOCH_END) };

static const script_entry event_entries[] = {
    {"stage", "text", "name of the stage", 0, NULL},
    {"epoch", "integer", "the epoch that has ended, from 0", 0, NULL},
    {"step", "integer", "steps done in this stage", 0, NULL},
    {"metrics", "table",
     "name → number, what was measured in this epoch (`loss`, `validation.dice`, …), at the end of "
     "a stage what was measured last; nil for what was not, or is not defined",
     0, NULL},
    {"classes", "list of tables",
     "a table for each foreground class: `number`, `name`, `dice` and the other metrics of "
     "`validate`, means over the validation cases; nil where one is not defined",
     SCRIPT_BIT(SCRIPT_VALIDATION), NULL},
    {"reason", "text",
     "why the stage ended: `epochs`, `time limit`, or what `event.stop` was given",
     SCRIPT_BIT(SCRIPT_STAGE_END), NULL},
    {"state", "table", "yours, kept between calls and in checkpoints; assign to its fields",
     WHILE_IT_RUNS, NULL},
    {"get", "(name) → number",
     "a number that the pipeline lets change: `lr`, `groups.0.lr_scale`, `loss.<term>.weight`, "
     "`<item>.<attribute>`; with a schedule, what it last made of it",
     0, event_get},
    {"set", "(name, number)",
     "changes it from now on; with a schedule, the base that the schedule starts from",
     WHILE_IT_RUNS, event_set},
    {"record", "(name, number)",
     "a number of your own for this epoch: `own.<name>` in `metrics.jsonl` and `.csv`, in "
     "TensorBoard and among the metrics of hooks and schedules",
     WHILE_IT_RUNS, event_record},
    {"stop", "(reason)", "ends the stage after this epoch; the function itself goes on",
     WHILE_IT_RUNS, event_stop},
    {"log", "(text)", "a line in the run's log", 0, event_log},
    {0}};

const script_group script_event = {.name = "event",
                                   .prefix = "event.",
                                   .doc = "What a hook is given.",
                                   .kinds = SCRIPTS_THAT_LOG,
                                   .entries = event_entries};

typedef struct hook_call {
  script *script;
  json_t *state; /* before */
  char *encoded; /* after */
  char problem[200];
} hook_call;

/* A list of {number, name, dice, …}. */
static void push_classes(lua_State *L, const hook_event *event) {
  lua_createtable(L, event->class_count, 0);
  for (int c = 0; c < event->class_count; c++) {
    const hook_class *class = &event->classes[c];
    script_push_numbers(
        L, &(script_numbers){event->class_metrics, class->values, event->class_metric_count},
        "a class has no");
    lua_pushinteger(L, class->number);
    lua_setfield(L, -2, "number");
    lua_pushstring(L, class->name);
    lua_setfield(L, -2, "name");
    lua_rawseti(L, -2, c + 1);
  }
}

static void push_event(lua_State *L, const hook_event *event, const json_t *state) {
  script_kind kind = script_of(L)->kind;
  lua_newtable(L);
  lua_pushstring(L, event->stage ? event->stage : "");
  lua_setfield(L, -2, "stage");
  lua_pushinteger(L, event->epoch);
  lua_setfield(L, -2, "epoch");
  lua_pushinteger(L, event->step);
  lua_setfield(L, -2, "step");
  script_push_numbers(L, &event->metrics, SCRIPT_NOT_MEASURED);
  lua_setfield(L, -2, "metrics");
  if (kind == SCRIPT_VALIDATION) {
    push_classes(L, event);
    lua_setfield(L, -2, "classes");
  }
  if (kind == SCRIPT_STAGE_END) {
    lua_pushstring(L, event->reason ? event->reason : "");
    lua_setfield(L, -2, "reason");
  } else {
    if (state)
      state_push(L, state);
    else
      lua_newtable(L);
    lua_setfield(L, -2, "state");
  }
  script_push_functions(L, &script_event);
}

static int hook_body(lua_State *L) {
  hook_call *call = lua_touserdata(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, call->script->function_ref);
  push_event(L, call->script->event, call->state);
  lua_pushliteral(L, "state");
  lua_rawget(L, -2);
  lua_insert(L, 2); /* below the function: read again after the call */
  script_read_only(L, script_event.prefix);
  lua_call(L, 1, 1);
  if (!lua_isnil(L, -1))
    luaL_error(L, "a hook returns nothing, and this one a %s; event.stop(reason) ends the stage",
               luaL_typename(L, -1));
  script_check_nothing_kept(L);
  if (lua_istable(L, 2)) call->encoded = state_encode(L, 2, call->problem);
  return 0;
}

static bool keeps_state(const script *s) {
  return s->kind == SCRIPT_VALIDATION || s->kind == SCRIPT_EPOCH_END;
}

status script_hook(script *s, hook_event *event) {
  hook_call call = {.script = s};
  if (s->state) TRY(state_parse(s->state, &call.state));
  event->stop = false;
  event->stop_reason[0] = 0;
  s->event = event;
  s->log = event->log;
  s->context = event->context;
  status error = script_protected(s, hook_body, &call);
  s->event = NULL;
  s->log = NULL;
  json_decref(call.state);
  if (!error && keeps_state(s) && !call.encoded)
    error = error_new(ERROR_SCRIPT, NOWHERE, "%s", call.problem);
  if (error) {
    free(call.encoded);
    event->stop = false;
    return script_blame(s, error);
  }
  free(s->state);
  s->state = call.encoded;
  return OK;
}

status script_state_save(script *s, char **json) {
  *json = memory_strdup(s->state ? s->state : "{}");
  return OK;
}

status script_state_load(script *s, const char *json) {
  json_t *value;
  TRY(state_parse(json, &value));
  json_decref(value);
  char *copy = memory_strdup(json);
  free(s->state);
  s->state = copy;
  return OK;
}
