/* What an ablation script can use: pipelines, studies, tables. docs/lua.md is made from the entries
 * at the end. Everything a call allocates is the session's, because a Lua error may end any call. */
#include "ablate/session.h"

#include "base/files.h"
#include "base/rng.h"
#include "base/text.h"
#include "language/load.h"

#include <jansson.h>
#include <lauxlib.h>

#include <string.h>

enum {
  CHANGES_MAX = 200,
  FACTORS_MAX = 8,
  LEVELS_MAX = 100,
  TRIALS_MAX = 10000,
  COLUMNS_MAX = 64,
  METRICS_MAX = 32,
  FOLDS_MAX = 1000,
  REHEARSED_RUNS = 10,
  LABEL_BYTES = 500,
  CALL_COST = 2000 /* instructions that a call counts for: it takes memory outside of Lua's */
};

extern const script_group script_pipeline_methods, script_study_methods;

static session *session_of(lua_State *L) {
  script_charge(L, CALL_COST);
  session *s = script_context(L);
  session_release(s);
  return s;
}

/* An error in a change stands at the script's line; the option that a user gave is named. */
static int raise_error(lua_State *L, status error) {
  source_pos at = error_position(error);
  bool is_of_option = at.file && at.line == 0;
  if (is_of_option) error = error_prefix(error, "%s", at.file);
  if ((is_of_option || error_code_of(error) == ERROR_USAGE) && error_count(error) == 1) {
    status plain = error_new(ERROR_SCRIPT, NOWHERE, "%s", error_message(error));
    error_free(error);
    error = plain;
  }
  return script_raise(L, error);
}

/* ---- objects --------------------------------------------------------------------------------- */

static int refuse_assignment(lua_State *L) {
  return luaL_error(L, "this object has functions only: nothing can be assigned to it");
}

static int show_kind(lua_State *L) {
  luaL_getmetafield(L, 1, "__name");
  return 1;
}

static void push_object(lua_State *L, const script_group *methods, void *what) {
  *(void **)lua_newuserdatauv(L, sizeof what, 0) = what;
  if (luaL_newmetatable(L, methods->name)) {
    lua_newtable(L);
    script_push_functions(L, methods);
    script_read_only(L, methods->prefix);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, refuse_assignment);
    lua_setfield(L, -2, "__newindex");
    lua_pushcfunction(L, show_kind);
    lua_setfield(L, -2, "__tostring");
  }
  lua_setmetatable(L, -2);
}

static void *check_object(lua_State *L, int index, const script_group *methods) {
  void **what = luaL_testudata(L, index, methods->name);
  if (!what && index == 1) luaL_error(L, "call it with a colon: %s…", methods->prefix);
  if (!what)
    luaL_error(L, "a %s is missing here: argument %d is a %s", methods->name, index - 1,
               luaL_typename(L, index));
  return *what;
}

static variant *check_pipeline(lua_State *L, int index) {
  return check_object(L, index, &script_pipeline_methods);
}

static study *check_study(lua_State *L) {
  return check_object(L, 1, &script_study_methods);
}

/* A study that is about to be changed: its trials are then those of another one. */
static study *check_changed_study(lua_State *L) {
  study *s = check_study(L);
  s->is_planned = false;
  return s;
}

/* A name in tables. */
static const char *check_text(lua_State *L, int index, arena *memory) {
  size_t length;
  const char *text = luaL_checklstring(L, index, &length);
  json_t *good = length < LABEL_BYTES && strlen(text) == length ? json_string(text) : NULL;
  json_decref(good);
  if (!good) luaL_error(L, "names are UTF-8 and shorter than %d bytes", LABEL_BYTES);
  return arena_strdup(memory, text);
}

/* ---- pipelines ------------------------------------------------------------------------------- */

static void add_change(lua_State *L, session *s, variant *v, const char *key, int value) {
  if (v->count == CHANGES_MAX) luaL_error(L, "a pipeline has at most %d changes", CHANGES_MAX);
  variant_set(&s->memory, v, key, value_yaml(L, value, &s->memory));
  script_charge(L, (int64_t)strlen(key));
}

/* Arguments (key, value), or a table of them, which are taken in the order of their names. */
static void add_changes(lua_State *L, session *s, variant *v, int index) {
  if (lua_type(L, index) == LUA_TSTRING) {
    luaL_checkany(L, index + 1);
    add_change(L, s, v, lua_tostring(L, index), index + 1);
    return;
  }
  luaL_checktype(L, index, LUA_TTABLE);
  const char *keys[CHANGES_MAX];
  int count = 0;
  lua_pushnil(L);
  while (lua_next(L, index)) {
    lua_pop(L, 1);
    if (lua_type(L, -1) != LUA_TSTRING || count == CHANGES_MAX)
      luaL_error(L, "changes are written as {[\"stages.segment.epochs\"] = 10}, %d at most",
                 CHANGES_MAX);
    keys[count++] = lua_tostring(L, -1);
  }
  qsort(keys, (size_t)count, sizeof *keys, by_text);
  for (int i = 0; i < count; i++) {
    lua_getfield(L, index, keys[i]);
    add_change(L, s, v, keys[i], lua_gettop(L));
    lua_pop(L, 1);
  }
}

static void check_loads(lua_State *L, session *s, const variant *v) {
  status error = variant_load(s->o, v, &s->looked_at);
  if (error) raise_error(L, error);
}

static variant *new_variant(lua_State *L, session *s, const variant *from) {
  for (int i = 0; i < from->count; i++)
    script_charge(L, (int64_t)(strlen(from->changes[i].key) + strlen(from->changes[i].value)));
  variant *v = arena_alloc(&s->memory, sizeof *v);
  *v = variant_copy(&s->memory, from);
  return v;
}

static int global_pipeline(lua_State *L) {
  session *s = session_of(L);
  const char *name = luaL_checkstring(L, 1);
  char *path = arena_strdup(&s->memory, name);
  if (!file_exists(path)) {
    status error = find_file(&s->memory, name, "pipelines", s->script, NOWHERE, &path, NULL);
    if (error) return raise_error(L, error);
  }
  variant *v = new_variant(L, s, &(variant){.path = path});
  if (!lua_isnoneornil(L, 2)) add_changes(L, s, v, 2);
  check_loads(L, s, v);
  push_object(L, &script_pipeline_methods, v);
  return 1;
}

static int pipeline_set(lua_State *L) {
  session *s = session_of(L);
  variant *v = check_pipeline(L, 1);
  add_changes(L, s, v, 2);
  check_loads(L, s, v);
  lua_settop(L, 1);
  return 1;
}

static int pipeline_with(lua_State *L) {
  session *s = session_of(L);
  variant *v = new_variant(L, s, check_pipeline(L, 1));
  add_changes(L, s, v, 2);
  check_loads(L, s, v);
  push_object(L, &script_pipeline_methods, v);
  return 1;
}

static int pipeline_get(lua_State *L) {
  session *s = session_of(L);
  const variant *v = check_pipeline(L, 1);
  const char *key = luaL_checkstring(L, 2);
  check_loads(L, s, v);
  const tree *value = pipeline_value(s->looked_at, key);
  if (value)
    script_push_tree(L, value);
  else
    lua_pushnil(L);
  return 1;
}

/* ---- studies: what is compared ---------------------------------------------------------------- */

static int global_ablation(lua_State *L) {
  session *s = session_of(L);
  const char *name = value_file_name(L, 1);
  for (int i = 0; i < s->study_count; i++)
    if (strcmp(s->studies[i]->name, name) == 0)
      return luaL_error(L, "there is a study \"%s\" already; tables are named after it", name);
  study *made;
  status error = study_create(s->o, name, &made);
  if (error) return raise_error(L, error);
  ARENA_PUSH(&s->memory, s->studies, s->study_count, s->study_capacity, made);
  push_object(L, &script_study_methods, made);
  return 1;
}

static void add_arm(lua_State *L, study *to, const char *label, const char *const *levels,
                    const variant *v) {
  script_charge(L, CALL_COST);
  if ((to->arm_count + 1) * study_repeats(to) > TRIALS_MAX)
    luaL_error(L, "a study has at most %d trials", TRIALS_MAX);
  status error = study_add_arm(to, label, levels, v);
  if (error) raise_error(L, error);
}

static int study_arm_function(lua_State *L) {
  session *s = session_of(L);
  study *to = check_changed_study(L);
  const char *label = check_text(L, 2, &s->memory);
  add_arm(L, to, label, NULL, check_pipeline(L, 3));
  lua_settop(L, 1);
  return 1;
}

typedef struct level {
  const char *label;
  variant changes; /* without a path */
} level;

typedef struct factor {
  const char *name;
  level levels[LEVELS_MAX];
  int count;
} factor;

/* How a value is called in tables. */
static const char *level_label(lua_State *L, int index, arena *memory) {
  if (lua_type(L, index) == LUA_TNUMBER && !lua_isinteger(L, index))
    return arena_printf(memory, "%.10g", lua_tonumber(L, index));
  lua_pushstring(L, value_yaml(L, index, memory));
  const char *label = check_text(L, -1, memory);
  lua_pop(L, 1);
  return label;
}

static level *next_level(lua_State *L, factor *f) {
  if (f->count == LEVELS_MAX) luaL_error(L, "a factor has at most %d levels", LEVELS_MAX);
  f->levels[f->count] = (level){0};
  return &f->levels[f->count++];
}

/* `values` of one key. */
static void read_values(lua_State *L, session *s, factor *f, const char *key, int values) {
  luaL_checktype(L, values, LUA_TTABLE);
  lua_Integer n = (lua_Integer)lua_rawlen(L, values);
  for (lua_Integer i = 1; i <= n; i++) {
    level *one = next_level(L, f);
    lua_rawgeti(L, values, i);
    one->label = level_label(L, lua_gettop(L), &s->memory);
    add_change(L, s, &one->changes, key, lua_gettop(L));
    lua_pop(L, 1);
  }
  if (n == 0) luaL_error(L, "the factor \"%s\" has no values", f->name);
}

/* Levels as {"label", {changes}}. */
static void read_levels(lua_State *L, session *s, factor *f, int levels) {
  lua_Integer n = (lua_Integer)lua_rawlen(L, levels);
  for (lua_Integer i = 1; i <= n; i++) {
    level *one = next_level(L, f);
    lua_rawgeti(L, levels, i);
    int entry = lua_gettop(L);
    if (!lua_istable(L, entry) || lua_rawgeti(L, entry, 1) != LUA_TSTRING)
      luaL_error(L, "level %d of \"%s\" must be {\"label\", {changes}}", (int)i, f->name);
    one->label = check_text(L, -1, &s->memory);
    if (lua_rawgeti(L, entry, 2) != LUA_TNIL) add_changes(L, s, &one->changes, lua_gettop(L));
    lua_settop(L, entry - 1);
  }
  if (n == 0)
    luaL_error(L, "the factor \"%s\" has no levels; they are a list: {{\"label\", {changes}}, …}",
               f->name);
}

/* {"name", "key", {values}} or {"name", {levels}}. */
static void read_factor(lua_State *L, session *s, int index, factor *f) {
  *f = (factor){0};
  if (!lua_istable(L, index) || lua_rawgeti(L, index, 1) != LUA_TSTRING)
    luaL_error(L, "a factor is {\"name\", \"key\", {values}} or {\"name\", {levels}}");
  f->name = check_text(L, -1, &s->memory);
  int type = lua_rawgeti(L, index, 2);
  lua_rawgeti(L, index, 3);
  int top = lua_gettop(L);
  if (type == LUA_TSTRING)
    read_values(L, s, f, lua_tostring(L, top - 1), top);
  else if (type == LUA_TTABLE)
    read_levels(L, s, f, top - 1);
  else
    luaL_error(L, "the factor \"%s\" needs a key with a list of values, or a list of levels",
               f->name);
  lua_settop(L, top - 3);
}

/* What every result of a trial has beside its factors and metrics. */
static const char *const result_fields[] = {"arm",     "seed",  "fold",  "state",   "folder",
                                            "seconds", "error", "cases", "measured"};

static void check_factor_name(lua_State *L, const char *name) {
  for (size_t i = 0; i < sizeof result_fields / sizeof *result_fields; i++)
    if (strcmp(name, result_fields[i]) == 0)
      luaL_error(L, "a factor cannot be called \"%s\": every result has that of its own", name);
}

/* One arm for each combination of levels, the last factor changing fastest. */
static void add_grid(lua_State *L, session *s, study *to, const variant *base,
                     const factor *factors, int count) {
  if (to->factor_count > 0) luaL_error(L, "a study has one grid");
  for (int i = 0; i < count; i++) check_factor_name(L, factors[i].name);
  for (int i = 0; i < count; i++)
    if (study_factor(to, factors[i].name) != i)
      luaL_error(L, "two factors are called \"%s\"", factors[i].name);
  int at[FACTORS_MAX] = {0};
  for (bool done = false; !done;) {
    variant *v = new_variant(L, s, base);
    const char *levels[FACTORS_MAX];
    text_buffer label = {0};
    for (int i = 0; i < count; i++) {
      const level *l = &factors[i].levels[at[i]];
      for (int k = 0; k < l->changes.count; k++)
        variant_set(&s->memory, v, l->changes.changes[k].key, l->changes.changes[k].value);
      levels[i] = l->label;
      text_add(&label, "%s%s %s", i > 0 ? ", " : "", factors[i].name, l->label);
    }
    const char *kept = arena_strdup(&s->memory, label.data ? label.data : "");
    text_free(&label);
    check_loads(L, s, v);
    session_release(s);
    add_arm(L, to, kept, levels, v);
    int i = count - 1;
    for (; i >= 0 && ++at[i] == factors[i].count; i--) at[i] = 0;
    done = i < 0;
  }
}

static int study_grid(lua_State *L) {
  session *s = session_of(L);
  study *to = check_changed_study(L);
  const variant *base = check_pipeline(L, 2);
  luaL_checktype(L, 3, LUA_TTABLE);
  int count = (int)lua_rawlen(L, 3);
  if (count < 1 || count > FACTORS_MAX)
    return luaL_error(L,
                      "a grid is a list of 1 to %d factors: {{\"name\", \"key\", {values}}, "
                      "{\"name\", {levels}}, …}",
                      FACTORS_MAX);
  factor *factors = arena_alloc(&s->memory, (size_t)count * sizeof *factors);
  for (int i = 0; i < count; i++) {
    lua_rawgeti(L, 3, i + 1);
    read_factor(L, s, lua_gettop(L), &factors[i]);
    lua_settop(L, 3);
  }
  add_grid(L, s, to, base, factors, count);
  lua_settop(L, 1);
  return 1;
}

static int study_vary(lua_State *L) {
  session *s = session_of(L);
  study *to = check_changed_study(L);
  const variant *base = check_pipeline(L, 2);
  factor *f = arena_alloc(&s->memory, sizeof *f);
  f->name = check_text(L, 3, &s->memory);
  if (lua_type(L, 4) == LUA_TSTRING) {
    read_values(L, s, f, lua_tostring(L, 4), 5);
  } else {
    luaL_checktype(L, 4, LUA_TTABLE);
    read_levels(L, s, f, 4);
  }
  add_grid(L, s, to, base, f, 1);
  lua_settop(L, 1);
  return 1;
}

/* ---- studies: baseline and repeats ------------------------------------------------------------ */

static void set_baseline_levels(lua_State *L, study *to) {
  to->baseline_levels =
      arena_alloc(&to->memory, (size_t)(to->factor_count + 1) * sizeof *to->baseline_levels);
  lua_pushnil(L);
  while (lua_next(L, 2)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    int index = -1;
    for (int i = 0; i < to->factor_count; i++)
      if (strcmp(to->factors[i], name) == 0) index = i;
    if (index < 0) {
      const char *near = nearest_name(name, to->factors, to->factor_count);
      luaL_error(L,
                 near ? "the study has no factor \"%s\"; did you mean \"%s\"?"
                      : "the study has no factor \"%s\"; add its grid first",
                 name, near);
    }
    to->baseline_levels[index] = level_label(L, lua_gettop(L), &to->memory);
    lua_pop(L, 1);
  }
}

static int study_baseline(lua_State *L) {
  session_of(L);
  study *to = check_changed_study(L);
  to->baseline_label = NULL;
  to->baseline_levels = NULL;
  if (lua_istable(L, 2))
    set_baseline_levels(L, to);
  else
    to->baseline_label = arena_strdup(&to->memory, luaL_checkstring(L, 2));
  lua_settop(L, 1);
  return 1;
}

static int study_seeds(lua_State *L) {
  session_of(L);
  study *to = check_changed_study(L);
  bool is_list = lua_istable(L, 2);
  lua_Integer count = is_list ? (lua_Integer)lua_rawlen(L, 2) : luaL_checkinteger(L, 2);
  if (count < 1 || count > 1000) return luaL_error(L, "seeds: how many (1 to 1000), or a list");
  int64_t *seeds = arena_alloc(&to->memory, (size_t)count * sizeof *seeds);
  for (lua_Integer i = 0; is_list && i < count; i++) {
    lua_rawgeti(L, 2, i + 1);
    int is_whole;
    seeds[i] = lua_tointegerx(L, -1, &is_whole);
    if (!is_whole || seeds[i] < 0) return luaL_error(L, "a seed is a whole number from 0");
    lua_pop(L, 1);
  }
  to->seeds = is_list ? seeds : NULL;
  to->seed_count = (int)count;
  lua_settop(L, 1);
  return 1;
}

static int study_folds(lua_State *L) {
  session_of(L);
  study *to = check_changed_study(L);
  lua_Integer count = luaL_checkinteger(L, 2);
  if (count < 2 || count > FOLDS_MAX) return luaL_error(L, "folds: 2 to %d", FOLDS_MAX);
  to->folds = count;
  lua_settop(L, 1);
  return 1;
}

/* ---- studies: trials and tables ---------------------------------------------------------------- */

static status list_trials(session *s, const study *of) {
  char *text = study_describe(of);
  report_line(&s->o->jobs.report, "%s", text);
  free(text);
  for (int i = 0; i < of->trial_count; i++) s->has_ended |= of->trials[i].state != TRIAL_DONE;
  return s->has_ended ? error_new(ERROR_INTERRUPTED, NOWHERE, "--dry-run ends here") : OK;
}

/* Instead of the trials, in a rehearsal. A script that runs a study again and again waits for results. */
static status rehearse_run(session *s, study *of) {
  bool is_done = true;
  for (int i = 0; i < of->trial_count; i++) is_done &= of->trials[i].state == TRIAL_DONE;
  if (is_done) return study_run(of);
  s->lacks_results = true;
  if (of->trial_count == of->rehearsed_trials || s->rehearsed_runs == REHEARSED_RUNS)
    return error_new(ERROR_INTERRUPTED, NOWHERE, "the rehearsal ends here");
  of->rehearsed_trials = of->trial_count;
  s->rehearsed_runs++;
  return OK;
}

/* Lists the names that a result may have; one that it lacks is then a misspelt one. */
static void refuse_unknown_names(lua_State *L, const study *of) {
  for (int i = 0; i < of->trial_count; i++) {
    lua_rawgeti(L, -1, i + 1);
    lua_newtable(L);
    const trial *t = &of->trials[i];
    const size_t fixed = sizeof result_fields / sizeof *result_fields;
    for (size_t k = 0; k < fixed + (size_t)(of->factor_count + t->metric_count); k++) {
      size_t factor = k - fixed, metric = factor - (size_t)of->factor_count;
      lua_pushboolean(L, true);
      lua_setfield(L, -2,
                   k < fixed                           ? result_fields[k]
                   : factor < (size_t)of->factor_count ? of->factors[factor]
                                                       : t->metrics[metric]);
    }
    script_refuse_unknown(L, "a result has no", true);
    if (lua_getfield(L, -1, "measured") == LUA_TTABLE) {
      lua_pushvalue(L, -1);
      script_refuse_unknown(L, "the last stage measured no", false);
    }
    lua_pop(L, 1);
    lua_pop(L, 1);
  }
}

static int study_run_function(lua_State *L) {
  session *s = session_of(L);
  study *of = check_study(L);
  status error = script_check_arguments(L, s->arguments);
  if (!error && (int64_t)of->arm_count * study_repeats(of) > TRIALS_MAX)
    error = error_new(ERROR_SCRIPT, NOWHERE, "a study has at most %d trials", TRIALS_MAX);
  if (!error) error = study_plan(of);
  if (!error && !s->is_rehearsal) error = study_compile(of);
  if (!error && s->o->dry_run && !s->is_rehearsal) error = list_trials(s, of);
  if (!error && s->is_rehearsal)
    error = rehearse_run(s, of);
  else if (!error)
    error = study_run(of); /* with everything done it only reads */
  if (error) return raise_error(L, error);
  session_keep(s, trial_rows(of));
  value_push_json(L, s->json);
  refuse_unknown_names(L, of);
  return 1;
}

static int study_report_function(lua_State *L) {
  session *s = session_of(L);
  const study *of = check_study(L);
  const char *metrics[METRICS_MAX];
  int count = lua_gettop(L) - 1;
  if (count > METRICS_MAX) return luaL_error(L, "at most %d metrics", METRICS_MAX);
  for (int i = 0; i < count; i++) metrics[i] = luaL_checkstring(L, i + 2);
  if (!of->is_planned)
    return luaL_error(L, "call run before report, and again after arms, seeds or folds change");
  status error;
  if (s->is_rehearsal) {
    s->lacks_results = true;
    error = report_ahead(of, metrics, count, &s->report);
    s->is_certain |= error != OK;
  } else {
    error = report_make(of, metrics, count, &s->report);
    if (!error) error = report_write(&s->report);
  }
  if (error) return raise_error(L, error);
  if (!s->is_rehearsal) {
    char *text = report_text(&s->report);
    report_line(&s->o->jobs.report, "%s", text);
    report_line(&s->o->jobs.report, "tables: %s/%s.md, .html, .csv, .json", s->o->out, of->name);
    free(text);
  }
  json_t *rows = json_array();
  session_keep(s, rows);
  for (int i = 0; i < of->arm_count; i++) json_array_append_new(rows, report_row(&s->report, i));
  value_push_json(L, rows);
  return 1;
}

/* ---- show ------------------------------------------------------------------------------------ */

static json_t *cell_of(lua_State *L, int index) {
  if (lua_isinteger(L, index)) return json_integer(lua_tointeger(L, index));
  if (lua_type(L, index) == LUA_TNUMBER) {
    json_t *number = json_real(lua_tonumber(L, index));
    return number ? number : json_null();
  }
  if (lua_isboolean(L, index)) return json_boolean(lua_toboolean(L, index));
  json_t *text = lua_type(L, index) == LUA_TSTRING ? json_string(lua_tostring(L, index)) : NULL;
  return text ? text : json_null();
}

/* A column that is empty may be one whose numbers are not defined, or whose trials failed. Where rows have
 * a field of nearly its name, of which there is no column, it is misspelt. */
static void check_column(lua_State *L, int rows, const char *const *columns, int count,
                         const char *column) {
  enum { NAMES = 64 };
  const char *names[NAMES];
  int named = 0;
  lua_rawgeti(L, rows, 1);
  lua_pushnil(L);
  for (; lua_next(L, -2); lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
    bool is_shown = false;
    for (int i = 0; name && i < count; i++) is_shown |= strcmp(columns[i], name) == 0;
    if (name && !is_shown && named < NAMES) names[named++] = name;
  }
  lua_pop(L, 1);
  const char *near = nearest_name(column, names, named);
  if (near) luaL_error(L, "no row has a field \"%s\"; did you mean \"%s\"?", column, near);
}

static int global_show(lua_State *L) {
  session *s = session_of(L);
  const char *name = value_file_name(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_checktype(L, 3, LUA_TTABLE);
  const char *columns[COLUMNS_MAX];
  int count = (int)lua_rawlen(L, 3);
  if (count < 1 || count > COLUMNS_MAX) return luaL_error(L, "1 to %d columns", COLUMNS_MAX);
  for (int i = 0; i < count; i++) {
    if (lua_rawgeti(L, 3, i + 1) != LUA_TSTRING)
      return luaL_error(L, "columns are names of the rows' fields");
    columns[i] = arena_strdup(&s->memory, lua_tostring(L, -1));
    lua_pop(L, 1);
  }
  json_t *rows = json_array();
  session_keep(s, rows);
  bool is_there[COLUMNS_MAX] = {false};
  lua_Integer row_count = (lua_Integer)lua_rawlen(L, 2);
  for (lua_Integer r = 1; r <= row_count; r++) {
    script_charge(L, 20 * count);
    if (lua_rawgeti(L, 2, r) != LUA_TTABLE) return luaL_error(L, "a row is a table of its fields");
    json_t *row = json_object();
    json_array_append_new(rows, row);
    for (int i = 0; i < count; i++) {
      is_there[i] |=
          lua_getfield(L, -1, columns[i]) != LUA_TNIL; /* of a result: must be a name it has */
      json_object_set_new(row, columns[i], cell_of(L, -1));
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
  for (int i = 0; i < count && row_count > 0 && !s->lacks_results; i++)
    if (!is_there[i]) check_column(L, 2, columns, count, columns[i]);
  status error = s->is_rehearsal ? OK : session_show(s, name, columns, count, rows);
  return error ? raise_error(L, error) : 0;
}

/* ---- random ---------------------------------------------------------------------------------- */

/* A number that the keys name, as every random number of Strata is named: nothing is advanced, so a
 * script that is run again, or that was changed elsewhere, draws the same. */
static int global_random(lua_State *L) {
  session_of(L);
  uint64_t name = text_hash("random");
  luaL_checkany(L, 1);
  for (int i = 1; i <= lua_gettop(L); i++) {
    int type = lua_type(L, i);
    lua_Integer whole;
    uint64_t key;
    if (type == LUA_TNUMBER && lua_tointegerx(L, i, NULL) == lua_tonumber(L, i)) {
      whole = lua_tointeger(L, i); /* 1 and 1.0 are one number in Lua */
      key = bytes_hash(&whole, sizeof whole);
    } else if (type == LUA_TNUMBER) {
      double number = lua_tonumber(L, i);
      key = bytes_hash(&number, sizeof number);
    } else {
      size_t length;
      const char *text = luaL_checklstring(L, i, &length);
      script_charge(L, (int64_t)length / 8);
      key = bytes_hash(text, length);
    }
    name = hash_mix(hash_mix(name, (uint64_t)type), key);
  }
  rng r = rng_open((rng_key){.run = name}, text_hash("ablation"));
  uint64_t high = rng_u32(&r) >> 5, low = rng_u32(&r) >> 6;
  lua_pushnumber(L, (double)(high << 26 | low) / 9007199254740992.0); /* 53 bits */
  return 1;
}

/* ---- what scripts can use --------------------------------------------------------------------- */

static const script_entry globals[] = {
    {"pipeline", "(file, changes) → pipeline",
     "a pipeline file, looked for here, beside the script and among the shipped ones; `changes` as "
     "in `p:set`",
     0, global_pipeline},
    {"ablation", "(name) → study", "a study; its tables are called `name`", 0, global_ablation},
    {"random", "(key, …) → number",
     "at least 0 and below 1; the same for the same keys (numbers and texts), whatever else the "
     "script draws: `random(\"rate\", i)`",
     0, global_random},
    {"show", "(name, rows, columns)",
     "prints rows (tables) as a table of these fields and writes it, too", 0, global_show},
    {0}};

const script_group script_ablation = {
    .name = "ablations",
    .prefix = "",
    .doc = "For `strata ablate`; docs/ablations.md shows them at work.",
    .kinds = SCRIPT_BIT(SCRIPT_ABLATION),
    .is_environment = true,
    .entries = globals};

static const script_entry pipeline_entries[] = {
    {"set", "(key, value) → p",
     "changes a key, named as after --set, or a table of them; text is read as YAML, nil takes the "
     "key away",
     0, pipeline_set},
    {"with", "(key, value) → pipeline", "a copy that is changed so", 0, pipeline_with},
    {"get", "(key) → value", "what the pipeline says; nil where it says nothing", 0, pipeline_get},
    {0}};

const script_group script_pipeline_methods = {.name = "pipeline",
                                              .prefix = "p:",
                                              .doc = "What `pipeline` and `p:with` return.",
                                              .kinds = SCRIPT_BIT(SCRIPT_ABLATION),
                                              .entries = pipeline_entries};

static const script_entry study_entries[] = {
    {"arm", "(label, pipeline) → study", "adds a pipeline to compare", 0, study_arm_function},
    {"vary", "(pipeline, factor, key, values) → study",
     "adds an arm for each value of a key; or, in place of key and values, for each of the levels "
     "{{\"label\", {changes}}, …}",
     0, study_vary},
    {"grid", "(pipeline, factors) → study",
     "adds an arm for each combination; a factor is {\"name\", \"key\", {values}} or {\"name\", "
     "{levels}}",
     0, study_grid},
    {"baseline", "(label) → study",
     "what the others are compared with (the first arm); {factor = level}: each arm with the one "
     "that has this level and is else the same",
     0, study_baseline},
    {"seeds", "(n) → study",
     "repeats every arm with n seeds from the pipeline's on, or with a list of seeds; the cases stay "
     "in their roles",
     0, study_seeds},
    {"folds", "(k) → study", "repeats every arm over a k-fold split", 0, study_folds},
    {"run", "() → results",
     "runs the trials that are not done; a list with arm, seed, fold, state, folder, seconds, "
     "error, the metrics and cases of each, and `measured`: what its last stage measured last "
     "(`measured[\"validation.dice\"]`)",
     0, study_run_function},
    {"report", "(metric, …) → rows",
     "prints and writes the table of the arms, for some metrics or for all; what it returns has "
     "every figure",
     0, study_report_function},
    {0}};

const script_group script_study_methods = {.name = "study",
                                           .prefix = "study:",
                                           .doc = "What `ablation` returns.",
                                           .kinds = SCRIPT_BIT(SCRIPT_ABLATION),
                                           .entries = study_entries};
