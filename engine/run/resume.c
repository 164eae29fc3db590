#include "run/resume.h"

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/text.h"
#include "run/lock.h"
#include "run/reproduce.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- where the stages stand ---------------------------------------------------------------- */

static bool has_weights(const run *r, const stage_spec *s) {
  char name[256];
  snprintf(name, sizeof name, "weights/%s.safetensors", s->name);
  char *path = path_join(r->folder, name);
  bool there = file_exists(path);
  free(path);
  return there;
}

bool resume_is_longer(const run_state *ended, const stage_spec *s) {
  if (ended->epoch >= s->epochs) return false;
  if (ended->end == END_TIME_LIMIT)
    return s->time_limit_s <= 0 || ended->elapsed_s < s->time_limit_s;
  return ended->end == END_EPOCHS;
}

static const run_state *state_of(const resume_states *s, int stage) {
  if (s->unfinished.stage == stage) return &s->unfinished;
  return s->final.stage == stage ? &s->final : NULL;
}

bool resume_stage_is_done(const run *r, const resume_states *s, int stage, const run_state **from) {
  const stage_spec *spec = &r->p->stages[stage];
  const run_state *state = state_of(s, stage);
  bool is_there = has_weights(r, spec);
  /* A final state whose weights somebody has taken away: the stage is to be done again. */
  if (state && state->is_final && (!is_there || !resume_is_longer(state, spec))) state = NULL;
  if (from) *from = state;
  return is_there && !state;
}

static status open_state(const run *r, const char *name, run_state *out) {
  char *path = path_join(r->folder, name);
  status error = file_exists(path) ? state_open(path, out) : OK;
  if (!file_exists(path)) out->stage = -1;
  free(path);
  return error;
}

static status open_states(const run *r, resume_states *out) {
  TRY(open_state(r, RUN_STATE_FILE, &out->unfinished));
  TRY(open_state(r, RUN_FINAL_STATE_FILE, &out->final));
  out->final.is_final = true;
  return OK;
}

void resume_states_free(resume_states *s) {
  state_free(&s->unfinished);
  state_free(&s->final);
}

/* ---- what run.json says -------------------------------------------------------------------- */

static void add_former_identities(run *r, const json_t *changes) {
  const json_t *change;
  size_t i;
  json_array_foreach(changes, i, change) {
    const char *from = json_string_value(json_object_get(change, "from"));
    if (!from) continue;
    if (r->former_identity_count == FORMER_IDENTITIES_MAX) /* the oldest is the least likely */
      memmove(r->former_identities, r->former_identities + 1,
              (size_t)--r->former_identity_count * sizeof *r->former_identities);
    r->former_identities[r->former_identity_count++] = strtoull(from, NULL, 16);
  }
}

static void read_former_identities(run *r, const json_t *root) {
  const json_t *scripts = json_object_get(root, "script_changes");
  const json_t *keys = json_object_get(root, "pipeline_changes"), *change;
  add_former_identities(r, scripts);
  add_former_identities(r, keys);
  r->went_on_with_scripts = json_array_size(scripts) > 0;
  size_t i;
  json_array_foreach(keys, i, change) r->went_on_with_keys |=
      !json_is_true(json_object_get(change, "is_as_if_uninterrupted"));
}

static bool is_identity_of(const run *r, uint64_t identity) {
  bool known = identity == r->p->identity;
  for (int i = 0; i < r->former_identity_count; i++) known |= identity == r->former_identities[i];
  return known;
}

static status check_identity(const run *r, const run_state *state, const char *name) {
  bool is_ours = state->stage < r->p->stage_count && is_identity_of(r, state->identity);
  if (state->stage < 0 || is_ours) return OK;
  return error_new(ERROR_DATA, NOWHERE, "%s/%s belongs to another pipeline", r->folder, name);
}

/* Adds to a list in run.json. */
static void note(json_t *root, const char *list, json_t *entry) {
  if (!json_object_get(root, list)) json_object_set_new(root, list, json_array());
  json_array_append_new(json_object_get(root, list), entry);
}

/* Where the run stands, and the identities it had and has. */
static json_t *change_here(const run *r, const json_t *root, const resume_states *states) {
  char now[32];
  const run_state *s = states->unfinished.stage >= 0 ? &states->unfinished : &states->final;
  bool is_known = s->stage >= 0 && s->stage < r->p->stage_count;
  snprintf(now, sizeof now, "%016" PRIx64, r->p->identity);
  return json_pack("{s:s?, s:s, s:s?, s:I}", "from",
                   json_string_value(json_object_get(root, "pipeline_identity")), "to", now,
                   "stage", is_known ? r->p->stages[s->stage].name : NULL, "epoch",
                   (json_int_t)(is_known ? s->epoch : 0));
}

static void set_identity(json_t *root, const char *key, uint64_t identity) {
  char text[32];
  snprintf(text, sizeof text, "%016" PRIx64, identity);
  json_object_set_new(root, key, json_string(text));
}

/* The run goes on with other scripts from here: run.json says since when. */
static void note_scripts(const run *r, json_t *root, const resume_states *states) {
  json_t *change = change_here(r, root, states);
  const char *stage = json_string_value(json_object_get(change, "stage"));
  report_line(&r->report, "the run goes on with changed scripts from %s%s on; run.json notes it",
              stage ? "stage " : "here", stage ? stage : "");
  note(root, "script_changes", change);
}

/* The stage whose length the key says; -1: it says something else. */
static int stage_of_length(const run *r, const char *key) {
  for (int i = 0; i < r->p->stage_count; i++) {
    size_t length = strlen(r->p->stages[i].name);
    if (!text_starts_with(key, "stages.")) return -1;
    const char *name = key + strlen("stages.");
    if (strncmp(name, r->p->stages[i].name, length) != 0 || name[length] != '.') continue;
    const char *rest = name + length + 1;
    if (strcmp(rest, "epochs") == 0 || strcmp(rest, "time_limit") == 0) return i;
  }
  return -1;
}

/* What schedules and hooks have done so far in a stage that is of another length now, they might have
 * done otherwise. Where there are none, the run is from its beginning what the pipeline of now says. */
static bool is_as_if_uninterrupted(const run *r, const key_differences *keys, bool only_lengths) {
  for (int i = 0; i < keys->count && only_lengths; i++) {
    const stage_spec *s = &r->p->stages[stage_of_length(r, keys->list[i].key)];
    only_lengths = s->schedule_count == 0;
    for (int k = 0; k < HOOK_COUNT; k++) only_lengths &= !s->hooks[k].path;
  }
  return only_lengths;
}

static void note_keys(const run *r, json_t *root, const resume_states *states,
                      const key_differences *keys, bool only_lengths) {
  json_t *change = change_here(r, root, states), *list = json_array();
  report_line(&r->report, "the run goes on with changed keys; run.json notes them");
  for (int i = 0; i < keys->count; i++) {
    const key_difference *d = &keys->list[i];
    report_line(&r->report, "  %s: %s%s%s%s", d->key, d->now ? d->now : "left out",
                d->then ? " (was " : "", d->then ? d->then : "", d->then ? ")" : "");
    json_array_append_new(list, json_pack("{s:s, s:o, s:o}", "key", d->key, "was",
                                          d->then ? json_text(d->then) : json_null(), "is",
                                          d->now ? json_text(d->now) : json_null()));
  }
  json_object_set_new(change, "keys", list);
  json_object_set_new(change, "is_as_if_uninterrupted",
                      json_boolean(is_as_if_uninterrupted(r, keys, only_lengths)));
  note(root, "pipeline_changes", change);
}

/* The user goes on although data, files or operators have changed: run.json keeps what. */
static status note_others(const run *r, json_t *root, status changes) {
  char *list = NULL;
  size_t length = 0;
  FILE *out = memory_stream(&list, &length);
  error_print(out, changes);
  memory_stream_close(out);
  note(root, "changes_at_resume", json_text(list));
  report_line(&r->report, "goes on although something has changed; run.json notes it\n%s", list);
  free(list);
  return OK;
}

/* ---- stages of another length --------------------------------------------------------------- */

static status check_length(const run *r, const resume_states *states, int stage) {
  const stage_spec *s = &r->p->stages[stage];
  const run_state *state = state_of(states, stage);
  bool is_done = has_weights(r, s);
  if (state) {
    int64_t begun = state->epoch + (state->step > 0);
    if (begun > s->epochs)
      return error_new(ERROR_USAGE, s->at,
                       "stage %s is in epoch %lld or has done it: it cannot end "
                       "after %lld",
                       s->name, (long long)begun, (long long)s->epochs);
    if (state->end == END_HOOK && state->epoch < s->epochs)
      return error_new(ERROR_USAGE, s->at,
                       "stage %s was ended by its hook after epoch %lld (%s): more epochs change "
                       "nothing",
                       s->name, (long long)state->epoch, state->ended);
    return OK;
  }
  if (!is_done) return OK; /* it has not begun */
  for (int i = stage + 1; i < r->p->stage_count; i++)
    if (r->p->stages[i].enabled)
      return error_new(ERROR_USAGE, s->at,
                       "stage %s is finished, and stage %s goes on from its weights: its length "
                       "cannot change in this run. Use another --out",
                       s->name, r->p->stages[i].name);
  return error_new(
      ERROR_USAGE, s->at,
      "stage %s is finished, and there is no " RUN_FINAL_STATE_FILE " to go on from "
      "(checkpoint: {final: false}, no room for it, or made by an older strata). A run of its own can "
      "begin with the weights: --set 'stages.%s.init={from: %s/weights/%s.safetensors}'"
      " --out another",
      s->name, s->name, r->folder, s->name);
}

/* Of the keys that say how long a stage is, all have to be possible. */
static status check_lengths(const run *r, const resume_states *states, const key_differences *keys,
                            bool *only_lengths) {
  problems found = {0};
  *only_lengths = keys->count > 0;
  for (int i = 0; i < keys->count; i++) {
    int stage = stage_of_length(r, keys->list[i].key);
    if (stage < 0)
      *only_lengths = false;
    else
      problems_add(&found, check_length(r, states, stage));
  }
  return problems_take(&found);
}

/* ---- is it the same run? ------------------------------------------------------------------- */

static void say_differences(const run *r, const resumed_changes *changes, problems *found) {
  const key_differences *keys = &changes->keys;
  if (!changes->same_stages) {
    problems_add(found, error_new(ERROR_USAGE, NOWHERE,
                                  "%s was started from another pipeline, with other stages or in "
                                  "another order; resume with its own, or use another --out",
                                  r->folder));
    return;
  }
  problems_add(
      found, error_new(ERROR_USAGE, NOWHERE,
                       "%s was started from another pipeline%s. Resume with the same file and the "
                       "same --set, or use another --out; --allow-changes goes on with what this "
                       "pipeline says, and run.json notes it",
                       r->folder,
                       !changes->has_lock ? "; its " LOCK_FILE " is missing, so there is no "
                                            "telling in what it differs"
                       : keys->count > 0  ? ", which says otherwise"
                       : changes->others  ? ""
                                          : ": its keys are the same, operators that make "
                                            "gradients are of other versions"));
  for (int i = 0; i < keys->count; i++) {
    const key_difference *d = &keys->list[i];
    if (d->then || d->now)
      problems_add(found,
                   error_new(ERROR_USAGE, NOWHERE, "%s is %s; %s was started with %s", d->key,
                             d->now ? d->now : "left out", r->folder, d->then ? d->then : "none"));
    else
      problems_add(found, error_new(ERROR_USAGE, NOWHERE, "%s says something else", d->key));
  }
}

/* A stage that is done stays as it is, whatever its keys say now. */
static void say_without_effect(const run *r, const resume_states *states,
                               const key_differences *keys) {
  for (int i = 0; i < r->p->stage_count; i++) {
    const char *name = r->p->stages[i].name;
    bool has_changed = false;
    for (int k = 0; k < keys->count; k++)
      has_changed |= text_starts_with(keys->list[k].key, "stages.") &&
                     text_starts_with(keys->list[k].key + strlen("stages."), name) &&
                     keys->list[k].key[strlen("stages.") + strlen(name)] == '.';
    if (has_changed && resume_stage_is_done(r, states, i, NULL))
      report_line(&r->report, "warning: stage %s is finished; what has changed in it has no effect",
                  name);
  }
}

typedef struct described { /* by run.json */
  const char *pipeline, *bare, *data, *numerics;
} described;

static bool is_identity(const char *text, uint64_t identity) {
  char mine[32];
  snprintf(mine, sizeof mine, "%016" PRIx64, identity);
  return text && strcmp(text, mine) == 0;
}

/* What keeps the run from going on, as one error. */
static status find_reasons(run *r, const described *was, const resume_states *states,
                           resumed_changes *changes, bool *only_lengths) {
  problems found = {0};
  bool is_same = is_identity(was->pipeline, r->p->identity);
  bool is_same_but_scripts = !is_same && is_identity(was->bare, r->p->identity_without_scripts);
  status lengths = check_lengths(r, states, &changes->keys, only_lengths);
  if (!changes->others && !is_identity(was->data, r->data->identity))
    changes->others = error_new(ERROR_DATA, NOWHERE,
                                "the data set is another one (identity %s, now %016" PRIx64 ").",
                                was->data, r->data->identity);
  if (is_same_but_scripts && !r->changed_scripts && !r->allow_changes) {
    problems_add(
        &found, error_new(ERROR_USAGE, NOWHERE,
                          "the Lua files of this pipeline have changed since %s was started; with "
                          "--changed-scripts it goes on with what they say now, and run.json notes "
                          "it",
                          r->folder));
  } else if (!is_same && !is_same_but_scripts) {
    bool may_go_on = (r->allow_changes && changes->same_stages) || *only_lengths;
    if (!may_go_on) say_differences(r, changes, &found);
    if (may_go_on && lengths) {
      problems_add(&found, lengths);
      lengths = OK;
    }
  }
  error_free(lengths);
  if (!changes->others || (r->allow_changes && found.count == 0)) return problems_take(&found);
  if (found.count == 0)
    problems_add(&found, error_new(ERROR_DATA, NOWHERE,
                                   "what the run is made of has changed since %s was started; "
                                   "--allow-changes goes on all the same, and run.json notes it",
                                   r->folder));
  problems_add(&found, changes->others);
  changes->others = OK;
  return problems_take(&found);
}

/* The run goes on: run.json is to note with what. */
static status note_all(run *r, json_t *root, const described *was, const resume_states *states,
                       const resumed_changes *changes, bool only_lengths) {
  bool is_same = is_identity(was->pipeline, r->p->identity);
  bool is_same_but_scripts = !is_same && is_identity(was->bare, r->p->identity_without_scripts);
  if (!is_same && is_same_but_scripts)
    note_scripts(r, root, states);
  else if (!is_same) {
    note_keys(r, root, states, &changes->keys, only_lengths && !changes->others);
    say_without_effect(r, states, &changes->keys);
  }
  if (changes->others) TRY(note_others(r, root, changes->others));
  set_identity(root, "pipeline_identity", r->p->identity);
  set_identity(root, "pipeline_identity_without_scripts", r->p->identity_without_scripts);
  set_identity(root, "data_identity", r->data->identity);
  return OK;
}

status resume_check(run *r, const char *description, resume_states *states) {
  json_t *root;
  arena memory = {0};
  resumed_changes changes = {0};
  bool only_lengths = false;
  TRY(json_read(description, 1 << 20, &root));
  described was = {
      json_string_value(json_object_get(root, "pipeline_identity")),
      json_string_value(json_object_get(root, "pipeline_identity_without_scripts")),
      json_string_value(json_object_get(root, "data_identity")),
      json_string_value(json_object_get(root, "numerics")),
  };
  status error =
      was.pipeline && was.data ? OK : error_new(ERROR_DATA, NOWHERE, "%s is damaged", description);
  if (!error) error = reproduce_check_resumed(r, &memory, &changes);
  if (!error) error = open_states(r, states);
  if (!error) error = find_reasons(r, &was, states, &changes, &only_lengths);
  if (!error && (!was.numerics || strcmp(was.numerics, run_numerics(r->p, r->device)) != 0))
    report_line(&r->report,
                "warning: this run was started with %s kernels and goes on with %s; its results "
                "will differ in the last bits from an uninterrupted run's",
                was.numerics ? was.numerics : "other", run_numerics(r->p, r->device));
  if (!error) error = note_all(r, root, &was, states, &changes, only_lengths);
  if (!error) read_former_identities(r, root);
  if (!error) error = check_identity(r, &states->unfinished, RUN_STATE_FILE);
  if (!error) error = check_identity(r, &states->final, RUN_FINAL_STATE_FILE);
  if (!error) error = json_write(description, root, JSON_INDENT(2), "");
  error_free(changes.others);
  arena_free(&memory);
  json_decref(root);
  return error;
}
