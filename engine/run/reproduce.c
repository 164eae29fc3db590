#include "run/reproduce.h"

#include "base/files.h"
#include "base/memory.h"
#include "base/text.h"
#include "run/lock.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static status new_lock(lock **out) {
  *out = calloc(1, sizeof **out);
  return *out ? OK : error_out_of_memory(sizeof **out);
}

/* Keeps the sentences of an error, one for each thing that differs. */
static void keep_changes(run *r, const problems *found) {
  int kept = problems_kept(found);
  r->changes = memory_take(((size_t)kept + 1) * sizeof *r->changes);
  for (int i = 0; i < kept; i++)
    r->changes[r->change_count++] = memory_strdup(error_message(found->list[i]));
  if (found->count == kept) return;
  text_buffer others = {0};
  text_add(&others, "… and %d more", found->count - kept);
  r->changes[r->change_count++] = others.data;
}

static status compare_with_lock(run *r) {
  problems found = {0};
  arena memory = {0};
  key_differences keys = {0};
  lock_compare_keys(r->locked, r->lock, &memory, &keys);
  for (int i = 0; i < keys.count; i++) problems_add(&found, lock_key_sentence(&keys.list[i]));
  arena_free(&memory);
  lock_compare(r->locked, r->lock, r, &found);
  if (found.count == 0) return OK;
  if (r->allow_changes) {
    keep_changes(r, &found);
    problems_free(&found);
    for (int i = 0; i < r->change_count; i++) report_line(&r->report, "changed: %s", r->changes[i]);
    return OK;
  }
  problems_add(&found, error_new(ERROR_DATA, NOWHERE,
                                 "%s cannot be reproduced as it is; --allow-changes runs it with "
                                 "what has changed, and writes that down in run.json",
                                 r->p->path));
  return problems_take(&found);
}

status reproduce_begin(run *r) {
  TRY(dataset_hash(&r->p->data, r->data, r->cache, r->device->pool));
  TRY(new_lock(&r->lock));
  TRY(lock_make(r, r->lock));
  if (!r->p->lock) {
    if (r->allow_changes && !r->resume)
      return error_new(ERROR_USAGE, NOWHERE,
                       "--allow-changes is for locks such as runs/NAME/" LOCK_FILE
                       "; %s is none, so there is nothing that it could differ from",
                       r->p->path);
    return OK;
  }
  TRY(new_lock(&r->locked));
  TRY(lock_read(r->p->lock, r->p->locked, r->locked));
  return compare_with_lock(r);
}

/* Room in `memory` for what is left of a lock's files. */
static lock_list without_scripts(const lock_list *files, arena *memory) {
  lock_list kept = {.items = arena_alloc(memory, ((size_t)files->count + 1) * sizeof *kept.items)};
  for (int i = 0; i < files->count; i++)
    if (!text_ends_with(files->items[i].name, ".lua")) kept.items[kept.count++] = files->items[i];
  return kept;
}

status reproduce_check_resumed(run *r, arena *memory, resumed_changes *out) {
  char *path = path_join(r->folder, LOCK_FILE);
  tree *root = NULL;
  lock then = {0};
  *out = (resumed_changes){.same_stages = true};
  status error = file_exists(path) ? tree_load(memory, path, &root) : OK;
  const tree *t = !error && root && root->kind == TREE_MAP ? tree_get(root, "lock") : NULL;
  if (!error && t) error = lock_read(t, root, &then);
  if (!error && t) {
    lock now = *r->lock;
    problems found = {0};
    then.numerics = now.numerics;  /* a warning of its own */
    then.scripts_changed = false;  /* it has gone on before */
    then.pipeline_changed = false; /* the same */
    if (r->changed_scripts) {
      then.files = without_scripts(&then.files, memory);
      now.files = without_scripts(&now.files, memory);
    }
    out->has_lock = true;
    out->same_stages = lock_same_stages(&then, &now);
    lock_compare_keys(&then, &now, memory, &out->keys);
    lock_compare(&then, &now, r, &found);
    out->others = problems_take(&found);
  }
  lock_free(&then);
  free(path);
  return error;
}

status reproduce_stage(run *r, const stage_spec *s) {
  char name[256];
  snprintf(name, sizeof name, "weights/%s.safetensors", s->name);
  char *path = path_join(r->folder, name);
  status error = lock_add_weights(r->lock, s->name, path);
  free(path);
  return error ? error : reproduce_write(r);
}

status reproduce_write(const run *r) {
  char *path = path_join(r->folder, LOCK_FILE);
  r->lock->scripts_changed = r->went_on_with_scripts;
  r->lock->pipeline_changed = r->went_on_with_keys;
  status error = lock_write(r, r->lock, path);
  free(path);
  return error;
}

static void say_stage(const run *r, const char *stage, const char *hash) {
  const char *was = r->locked ? lock_weights(r->locked, stage) : NULL;
  if (!r->locked)
    report_line(&r->report, "weights of %s: %s", stage, hash);
  else if (!was)
    report_line(&r->report, "weights of %s: %s; the lock has none to compare with", stage, hash);
  else if (strcmp(was, hash) == 0)
    report_line(&r->report, "weights of %s: %s, identical to the lock: yes", stage, hash);
  else
    report_line(&r->report, "weights of %s: %s, identical to the lock: no, there %s", stage, hash,
                was);
}

/* What may be the reason, and what shows how far the weights are apart. */
static void say_why(const run *r) {
  if (r->change_count > 0)
    report_line(&r->report, "  the run was started with %d change%s, listed in run.json",
                r->change_count, r->change_count == 1 ? "" : "s");
  if (strcmp(r->locked->strata, r->lock->strata) != 0)
    report_line(&r->report, "  the lock was made by strata %s, this is %s", r->locked->strata,
                r->lock->strata);
  if (strcmp(r->locked->compiler, r->lock->compiler) != 0)
    report_line(&r->report, "  that program was compiled by %s, this one by %s",
                r->locked->compiler, r->lock->compiler);
  for (int i = 0; i < r->p->stage_count; i++)
    if (r->p->stages[i].time_limit_s > 0)
      report_line(&r->report, "  stage %s has a time_limit: it ends where the machine got to",
                  r->p->stages[i].name);
  report_line(&r->report, "  strata weights diff A B shows where two weight files differ");
}

void reproduce_end(const run *r) {
  bool all_same = true;
  for (int i = 0; i < r->lock->weights.count; i++) {
    const lock_entry *mine = &r->lock->weights.items[i];
    const char *was = r->locked ? lock_weights(r->locked, mine->name) : NULL;
    say_stage(r, mine->name, mine->value);
    all_same &= !was || strcmp(was, mine->value) == 0;
  }
  if (r->lock->scripts_changed)
    report_line(
        &r->report,
        "the run went on with changed scripts: its lock does not train these weights again");
  if (r->lock->pipeline_changed)
    report_line(&r->report,
                "the run went on with changed keys: its lock does not train these weights again");
  if (!all_same) say_why(r);
  report_line(
      &r->report, "to quote: strata %s, %s, pipeline %016" PRIx64 ", data %s, weights %.16s",
      r->lock->strata, r->lock->numerics, r->p->identity, r->lock->data,
      r->lock->weights.count > 0 ? r->lock->weights.items[r->lock->weights.count - 1].value : "-");
}

void reproduce_free(run *r) {
  if (r->lock) lock_free(r->lock);
  if (r->locked) lock_free(r->locked);
  for (int i = 0; i < r->change_count; i++) free(r->changes[i]);
  free(r->changes);
  free(r->lock);
  free(r->locked);
}
