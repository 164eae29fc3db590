#include "ablate/ablate.h"

#include "ablate/session.h"
#include "base/files.h"
#include "base/text.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Larger than a hook's: results of many trials pass through. No limit of time, because a script
 * mostly waits; the instructions bound what it can compute itself. */
static const script_limits limits = {.memory_bytes = 256 << 20,
                                     .string_bytes = 1 << 20,
                                     .block_bytes = 16 << 20,
                                     .instructions = 100 * 1000 * 1000,
                                     .depth = SCRIPT_DEPTH};

void session_release(session *s) {
  pipeline_free(s->looked_at);
  s->looked_at = NULL;
  json_decref(s->json);
  s->json = NULL;
  report_free(&s->report);
  s->report = (study_report){0};
}

void session_keep(session *s, json_t *json) {
  json_decref(s->json);
  s->json = json;
}

static void log_line(void *context, const char *text) {
  const session *s = context;
  if (s->is_rehearsal) return;
  report_line(&s->o->jobs.report, "%s", text);
}

/* --arg options as a mapping. Values are YAML, as with --set. */
static status read_arguments(session *s) {
  const ablation_options *o = s->o;
  tree *map = tree_new(&s->memory, NOWHERE, TREE_MAP, o->argument_count);
  for (int i = 0; i < o->argument_count; i++) {
    const override *a = &o->arguments[i];
    const char *place = intern_file(arena_printf(&s->memory, "--arg %s=%s", a->key, a->value));
    source_pos at = {place, 0, 0};
    tree *value = tree_scalar(&s->memory, at, "", false);
    if (a->value[strspn(a->value, " ")])
      TRY(tree_parse(&s->memory, a->value, strlen(a->value), place, &value));
    map->keys[i] = tree_scalar(&s->memory, at, a->key, false);
    map->items[i] = value;
    map->count++;
  }
  s->arguments = map;
  return tree_check_duplicates(map);
}

/* Trials that failed, over all studies; the table has said why. */
static status check_failures(const session *s) {
  int failed = 0, all = 0;
  for (int i = 0; i < s->study_count; i++) {
    const study *one = s->studies[i];
    all += one->trial_count;
    for (int k = 0; k < one->trial_count; k++) failed += one->trials[k].state == TRIAL_FAILED;
  }
  if (failed == 0) return OK;
  return error_new(
      ERROR_DATA, NOWHERE,
      "%d of %d trials failed; the same command tries them again and leaves the others "
      "as they are",
      failed, all);
}

static status run_script(session *s) {
  char *source;
  size_t length;
  TRY(file_read(s->o->script, SCRIPT_SOURCE_BYTES, &source, &length));
  script_ref ref = {.path = s->o->script, .source = source, .arguments = s->arguments};
  bool met_unknown_name = false;
  script_program program = {.kind = SCRIPT_ABLATION,
                            .limits = &limits,
                            .log = log_line,
                            .context = s,
                            .met_unknown_name = &met_unknown_name};
  status error = script_run(&program, &ref);
  s->is_certain |= met_unknown_name;
  free(source);
  return error;
}

static void close_session(session *s) {
  session_release(s);
  for (int i = 0; i < s->study_count; i++) study_free(s->studies[i]);
  arena_free(&s->memory);
}

static status rehearse(const ablation_options *o) {
  session s = {.o = o, .script = {intern_file(o->script), 1, 1}, .is_rehearsal = true};
  status error = read_arguments(&s);
  if (!error) error = run_script(&s);
  if (!s.lacks_results || !s.is_certain) { /* what is wrong before the trials is found in earnest */
    error_free(error);
    error = OK;
  }
  close_session(&s);
  return error_suffix(error, " (found before the trials)");
}

status ablate(const ablation_options *o) {
  TRY(rehearse(o));
  session s = {.o = o, .script = {intern_file(o->script), 1, 1}};
  status error = read_arguments(&s);
  if (!error) error = run_script(&s);
  if (error && error_code_of(error) == ERROR_INTERRUPTED) { /* no matter at which line */
    status plain =
        s.has_ended ? OK : error_new(ERROR_INTERRUPTED, NOWHERE, "%s", error_message(error));
    error_free(error);
    error = plain;
  }
  if (!error && !s.has_ended) error = check_failures(&s);
  close_session(&s);
  return error;
}
