/* Functions from facts to a number: metrics of a class, weights of a case. */
#include "script/sandbox.h"

#include <lauxlib.h>

#include <math.h>

typedef struct number_call {
  script *script;
  void (*push)(lua_State *L, const void *facts);
  const void *facts;
  const char *prefix;
  double result;
  int result_type;
} number_call;

static int number_body(lua_State *L) {
  number_call *call = lua_touserdata(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, call->script->function_ref);
  call->push(L, call->facts);
  script_read_only(L, call->prefix);
  lua_call(L, 1, 1);
  call->result_type = lua_type(L, -1);
  if (call->result_type == LUA_TNUMBER) call->result = lua_tonumber(L, -1);
  script_check_nothing_kept(L);
  return 0;
}

static void set_integer(lua_State *L, const char *name, int64_t value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, name);
}

static void set_number(lua_State *L, const char *name, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, name);
}

static void set_text(lua_State *L, const char *name, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, name);
}

/* ---- metrics ------------------------------------------------------------------------------- */

static const script_entry count_entries[] = {
    {"tp", "integer", "voxels of the class in both the prediction and the reference", 0, NULL},
    {"fp", "integer", "voxels of the class in the prediction only", 0, NULL},
    {"fn", "integer", "voxels of the class in the reference only", 0, NULL},
    {"tn", "integer", "all other voxels whose class is known", 0, NULL},
    {"voxel_mm3", "number", "volume of a voxel", 0, NULL},
    {"class", "text", "name of the class", 0, NULL},
    {"number", "integer", "number of the class, from 1", 0, NULL},
    {"case", "text", "name of the case", 0, NULL},
    {0}};

const script_group script_counts = {.name = "counts",
                                    .prefix = "counts.",
                                    .doc = "What a metric is given: a class of a case.",
                                    .kinds = SCRIPT_BIT(SCRIPT_METRIC),
                                    .entries = count_entries};

static void push_counts(lua_State *L, const void *facts) {
  const metric_counts *c = facts;
  lua_newtable(L);
  set_integer(L, "tp", c->tp);
  set_integer(L, "fp", c->fp);
  set_integer(L, "fn", c->fn);
  set_integer(L, "tn", c->tn);
  set_number(L, "voxel_mm3", c->voxel_mm3);
  set_text(L, "class", c->class_name);
  set_integer(L, "number", c->class_number);
  set_text(L, "case", c->case_name);
}

status script_metric(script *s, const metric_counts *counts, double *out) {
  number_call call = {.script = s,
                      .push = push_counts,
                      .facts = counts,
                      .prefix = script_counts.prefix,
                      .result = NAN};
  status error = script_protected(s, number_body, &call);
  *out = call.result;
  if (!error && call.result_type != LUA_TNUMBER && call.result_type != LUA_TNIL)
    error = error_new(ERROR_SCRIPT, NOWHERE,
                      "a metric is a number, or nil where it is not defined, not a %s value",
                      lua_typename(s->L, call.result_type));
  else if (!error && call.result_type == LUA_TNUMBER && !isfinite(call.result))
    error = error_new(ERROR_SCRIPT, NOWHERE, "the metric is %g; return nil where it is not defined",
                      call.result);
  error = error_prefix(error, "case %s, class %s", counts->case_name, counts->class_name);
  return script_blame(s, error);
}

/* ---- weights of cases ---------------------------------------------------------------------- */

static const script_entry case_entries[] = {
    {"name", "text", "name of the case", 0, NULL},
    {"patient", "text", "whose case it is: the case's name unless `data: patient` says more", 0,
     NULL},
    {"voxels", "integer", "of the prepared volume", 0, NULL},
    {"voxel_mm3", "number", "volume of a voxel", 0, NULL},
    {"unknown", "integer", "voxels whose class is unknown (`data: ignore_label`)", 0, NULL},
    {"classes", "list of tables",
     "a table for each foreground class of the label: `number`, `name`, `voxels`; empty in a stage "
     "that reads no labels",
     0, NULL},
    {0}};

const script_group script_case = {.name = "case",
                                  .prefix = "case.",
                                  .doc = "What a weight is made from: a training case, prepared.",
                                  .kinds = SCRIPT_BIT(SCRIPT_CASE_WEIGHT),
                                  .entries = case_entries};

static void push_case(lua_State *L, const void *facts) {
  const case_facts *c = facts;
  lua_newtable(L);
  set_text(L, "name", c->name);
  set_text(L, "patient", c->patient);
  set_integer(L, "voxels", c->voxels);
  set_number(L, "voxel_mm3", c->voxel_mm3);
  set_integer(L, "unknown", c->unknown_voxels);
  lua_newtable(L);
  for (int i = 1; i < c->class_count; i++) {
    lua_newtable(L);
    set_integer(L, "number", i);
    set_text(L, "name", c->class_names[i]);
    set_integer(L, "voxels", c->class_voxels[i]);
    script_read_only(L, "class.");
    lua_rawseti(L, -2, i);
  }
  lua_setfield(L, -2, "classes");
}

status script_case_weight(script *s, const case_facts *facts, double *out) {
  number_call call = {
      .script = s, .push = push_case, .facts = facts, .prefix = script_case.prefix, .result = NAN};
  status error = script_protected(s, number_body, &call);
  *out = call.result;
  if (!error && call.result_type != LUA_TNUMBER)
    error = error_new(ERROR_SCRIPT, NOWHERE, "the weight must be a number, not a %s value",
                      lua_typename(s->L, call.result_type));
  else if (!error && !(call.result >= 0 && isfinite(call.result)))
    error = error_new(ERROR_SCRIPT, NOWHERE, "the weight must be 0 or more, not %g", call.result);
  return script_blame(s, error_prefix(error, "case %s", facts->name));
}
