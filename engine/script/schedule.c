/* Schedules: a number for every step. */
#include "script/sandbox.h"

#include <lauxlib.h>

#include <math.h>

typedef struct schedule_call {
  script *script;
  const schedule_point *at;
  double result;
  int result_type;
} schedule_call;

static int schedule_body(lua_State *L) {
  schedule_call *call = lua_touserdata(L, 1);
  const schedule_point *at = call->at;
  lua_rawgeti(L, LUA_REGISTRYINDEX, call->script->function_ref);
  lua_pushinteger(L, at->step);
  lua_pushinteger(L, at->epoch);
  lua_pushinteger(L, at->total);
  lua_pushnumber(L, at->base);
  lua_pushinteger(L, at->steps_per_epoch);
  script_push_numbers(L, &at->metrics, SCRIPT_NOT_MEASURED);
  lua_call(L, 6, 1);
  call->result_type = lua_type(L, -1);
  if (call->result_type == LUA_TNUMBER) call->result = lua_tonumber(L, -1);
  script_check_nothing_kept(L);
  return 0;
}

status script_schedule(script *s, const schedule_point *at, double *out) {
  schedule_call call = {.script = s, .at = at, .result = NAN};
  status error = script_protected(s, schedule_body, &call);
  if (!error && call.result_type != LUA_TNUMBER)
    error = error_new(ERROR_SCRIPT, NOWHERE,
                      "the schedule must return a number; at step %lld it returned a %s value",
                      (long long)at->step, lua_typename(s->L, call.result_type));
  else if (!error && !isfinite(call.result))
    error = error_new(ERROR_SCRIPT, NOWHERE, "the schedule returned %s at step %lld (epoch %lld)",
                      isnan(call.result) ? "a number that is none (nan)" : "infinity",
                      (long long)at->step, (long long)at->epoch);
  *out = call.result;
  return script_blame(s, error);
}

/* ---- the reference --------------------------------------------------------------------------- */

static const script_entry parameters[] = {
    {"step", "integer", "from 0, over the whole stage", 0, NULL},
    {"epoch", "integer", "from 0", 0, NULL},
    {"total", "integer", "steps of the whole stage", 0, NULL},
    {"base", "number", "the value in the pipeline file, or what `event.set` made of it", 0, NULL},
    {"steps_per_epoch", "integer", "to turn epochs into steps", 0, NULL},
    {"metrics", "table",
     "name → number, what was measured last: the finished epoch's `loss` and its "
     "terms, the last validation's `validation.dice`, …; empty at first",
     0, NULL},
    {0}};

const script_group script_schedule_parameters = {
    .name = "parameters of a schedule",
    .prefix = "",
    .doc = "What the function is given, in this order; it may name fewer.",
    .kinds = SCRIPT_BIT(SCRIPT_SCHEDULE),
    .entries = parameters};
