/* Schedules: a number for every step. */
#include "script/sandbox.h"

#include <lauxlib.h>

#include <math.h>

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
  script_check_nothing_kept(L);
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
  TRY(script_protected(s, schedule_body, &call));
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

/* ---- the reference --------------------------------------------------------------------------- */

static const script_entry parameters[] = {
    {"step", "integer", "from 0, over the whole stage", 0, NULL},
    {"epoch", "integer", "from 0", 0, NULL},
    {"total", "integer", "steps of the whole stage", 0, NULL},
    {"base", "number", "the value in the pipeline file, or what `event.set` made of it", 0, NULL},
    {"steps_per_epoch", "integer", "to turn epochs into steps", 0, NULL},
    {0}};

const script_group script_schedule_parameters = {
    .name = "parameters of a schedule",
    .prefix = "",
    .doc = "What the function is given, in this order; it may name fewer.",
    .kinds = SCRIPT_BIT(SCRIPT_SCHEDULE),
    .entries = parameters};
