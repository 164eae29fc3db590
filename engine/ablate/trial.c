#include "ablate/trial.h"

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/text.h"
#include "data/dataset.h"
#include "evaluate/metrics.h"
#include "run/run.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { RECORD_BYTES = 1 << 20, TAIL_BYTES = 8192 };

static const char *const state_names[] = {
    [TRIAL_NEW] = "new", [TRIAL_BEGUN] = "begun", [TRIAL_FAILED] = "failed", [TRIAL_DONE] = "done"};

/* ---- what is to be done ---------------------------------------------------------------------- */

/* Whether labels are read is known when the graph is expanded; for a share of the work it is enough
 * that a stage without a segmentation reads none. */
static int64_t samples_of_epoch(const pipeline *p, const stage_spec *s, const dataset *d) {
  if (s->steps_per_epoch > 0) return s->steps_per_epoch * s->batch * s->accumulate;
  return dataset_steps(d, ROLE_TRAIN, &p->data, !s->use_labels && !s->output, 1);
}

static void describe(arena *memory, const pipeline *p, const dataset *d, trial *t) {
  t->name = arena_strdup(memory, p->name);
  t->identities[0] = p->identity;
  t->identities[1] = d->identity;
  t->key = hash_mix(p->identity, d->identity);
  t->seed = (int64_t)p->seed;
  t->is_evaluated = p->evaluate.enabled;
  t->metrics = arena_alloc(memory, METRIC_SLOTS * sizeof *t->metrics);
  for (int m = 0; m < METRIC_SLOTS && t->is_evaluated; m++)
    if (p->evaluate.metrics & METRIC_BIT(m))
      t->metrics[t->metric_count++] = arena_strdup(memory, evaluate_metric(&p->evaluate, m)->key);
  for (int i = 0; i < d->case_count && t->is_evaluated; i++)
    if (d->cases[i].role == ROLE_TEST && d->cases[i].label)
      t->tested += text_hash(d->cases[i].name);
  t->work_count = 0;
  for (int i = 0; i < p->stage_count && t->work_count < TRIAL_STAGES_MAX; i++) {
    const stage_spec *s = &p->stages[i];
    if (s->enabled)
      t->work[t->work_count++] =
          (stage_work){arena_strdup(memory, s->name), s->epochs, samples_of_epoch(p, s, d)};
  }
}

status trial_resolve(arena *memory, trial *t) {
  pipeline *p = NULL;
  dataset *d = NULL;
  status error = pipeline_load(t->pipeline, t->overrides, t->override_count, &p);
  if (!error) error = dataset_open(&p->data, p->seed, &d);
  if (!error) describe(memory, p, d, t);
  dataset_free(d);
  pipeline_free(p);
  return error;
}

status trial_compile(const trial *t) {
  run r = {0};
  status error = run_load(t->pipeline, t->overrides, t->override_count, &r.p, &r.data);
  if (!error) error = device_open("cpu", 1, &r.device, NULL);
  if (!error) error = run_compile(&r);
  device_close(r.device);
  dataset_free(r.data);
  pipeline_free(r.p);
  return error;
}

double trial_work(const trial *t) {
  double samples = 0;
  for (int i = 0; i < t->work_count; i++)
    samples += (double)t->work[i].epochs * (double)t->work[i].samples;
  return samples;
}

/* The last whole line of a file; heap, or NULL. */
static char *last_line(const char *path) {
  FILE *in = fopen(path, "rb");
  if (!in) return NULL;
  char tail[TAIL_BYTES + 1], *line = NULL;
  if (fseek(in, 0, SEEK_END) == 0) {
    long size = ftell(in);
    fseek(in, size > TAIL_BYTES ? size - TAIL_BYTES : 0, SEEK_SET);
  }
  size_t length = fread(tail, 1, TAIL_BYTES, in);
  fclose(in);
  while (length > 0 && tail[length - 1] != '\n') length--;
  if (length > 0) {
    tail[length - 1] = 0;
    char *before = strrchr(tail, '\n');
    line = memory_strdup(before ? before + 1 : tail);
  }
  return line;
}

double trial_work_done(const trial *t) {
  if (t->state == TRIAL_DONE) return trial_work(t);
  char *path = t->folder ? trial_file(t, "metrics.jsonl") : NULL;
  char *line = path ? last_line(path) : NULL;
  json_t *root = line ? json_loads(line, 0, NULL) : NULL;
  const char *stage = json_string_value(json_object_get(root, "stage"));
  double epoch = (double)json_integer_value(json_object_get(root, "epoch")), samples = 0;
  int at = t->work_count;
  for (int i = 0; stage && i < t->work_count; i++)
    if (strcmp(t->work[i].stage, stage) == 0) at = i;
  for (int i = 0; at < t->work_count && i <= at; i++)
    samples += (i < at ? (double)t->work[i].epochs : epoch) * (double)t->work[i].samples;
  json_decref(root);
  free(line);
  free(path);
  return samples;
}

json_t *trial_measured(const trial *t) {
  json_t *all = json_object();
  char *path = trial_file(t, "metrics.jsonl"), *line = NULL;
  FILE *in = fopen(path, "rb");
  size_t room = 0;
  const char *last = t->work_count > 0 ? t->work[t->work_count - 1].stage : "";
  while (in && getline(&line, &room, in) > 0) {
    json_t *epoch = json_loads(line, 0, NULL), *value;
    const char *stage = json_string_value(json_object_get(epoch, "stage")), *name;
    bool is_last = stage && strcmp(stage, last) == 0;
    json_object_foreach(epoch, name, value) {
      if (is_last && json_is_number(value)) json_object_set(all, name, value);
    }
    json_decref(epoch);
  }
  if (in) fclose(in);
  free(line);
  free(path);
  return all;
}

/* ---- the folder ------------------------------------------------------------------------------ */

char *trial_file(const trial *t, const char *name) {
  return path_join(t->folder, name);
}

/* The key in a folder's trial.json. False where it holds no trial. */
static bool read_record(const char *folder, json_t **root, uint64_t *key) {
  char *path = path_join(folder, "trial.json");
  status error = json_read(path, RECORD_BYTES, root);
  if (error) *root = NULL;
  error_free(error);
  free(path);
  const char *hex = json_string_value(json_object_get(*root, "key"));
  char *end = NULL;
  *key = hex ? strtoull(hex, &end, 16) : 0;
  if (hex && end == hex + 16 && !*end) return true;
  json_decref(*root);
  *root = NULL;
  return false;
}

static void set_error(trial *t, const char *text) {
  free(t->error);
  t->error = text ? memory_strdup(text) : NULL;
}

/* A trial is done when its record says so and its result is there. */
static trial_state state_of(const trial *t, const char *name) {
  for (int i = TRIAL_NEW; name && i <= TRIAL_DONE; i++) {
    if (strcmp(name, state_names[i]) != 0) continue;
    char *result = trial_file(t, "evaluation.json");
    bool is_there = !t->is_evaluated || (result && file_exists(result));
    free(result);
    return i == TRIAL_DONE && !is_there ? TRIAL_BEGUN : (trial_state)i;
  }
  return TRIAL_BEGUN;
}

status trial_refresh(trial *t) {
  json_t *root;
  uint64_t key;
  if (!read_record(t->folder, &root, &key)) {
    t->state = TRIAL_NEW;
    return OK;
  }
  status error = OK;
  if (key == t->key) {
    t->state = state_of(t, json_string_value(json_object_get(root, "state")));
    t->seconds = json_number_value(json_object_get(root, "seconds"));
    set_error(t, json_string_value(json_object_get(root, "error")));
  } else {
    error = error_new(ERROR_DATA, NOWHERE,
                      "%s holds another trial than it did; choose another --out", t->folder);
  }
  json_decref(root);
  return error;
}

/* Does run.json's `name` say so? */
static bool says(const json_t *run, const char *name, uint64_t identity) {
  char hex[20];
  snprintf(hex, sizeof hex, "%016" PRIx64, identity);
  const char *text = json_string_value(json_object_get(run, name));
  return text && strcmp(text, hex) == 0;
}

status trial_check_run(const trial *t) {
  char *path = trial_file(t, "run.json");
  json_t *run = NULL;
  status error = json_read(path, RECORD_BYTES, &run);
  if (!error && (!says(run, "pipeline_identity", t->identities[0]) ||
                 !says(run, "data_identity", t->identities[1])))
    error = error_new(ERROR_DATA, NOWHERE,
                      "%s or its data set were changed after the study had begun; start it again",
                      t->pipeline);
  json_decref(run);
  free(path);
  return error;
}

status trial_find(arena *memory, const char *out, trial *t) {
  char *trials = path_join(out, "trials"), ending[24];
  snprintf(ending, sizeof ending, "-%08" PRIx32, (uint32_t)(t->key >> 32));
  t->folder = NULL;
  t->state = TRIAL_NEW;
  t->seconds = 0;
  set_error(t, NULL);
  DIR *listing = opendir(trials);
  bool is_taken = false;
  for (struct dirent *entry; listing && !t->folder && (entry = readdir(listing));) {
    if (!text_ends_with(entry->d_name, ending)) continue;
    const char *folder = arena_printf(memory, "%s/%s", trials, entry->d_name);
    json_t *root;
    uint64_t key;
    if (!read_record(folder, &root, &key)) continue;
    if (key == t->key) t->folder = folder;
    is_taken |= key != t->key;
    json_decref(root);
  }
  if (listing) closedir(listing);
  status error = OK;
  if (t->folder)
    error = trial_refresh(t);
  else if (is_taken) /* the first halves of two keys are the same */
    t->folder = arena_printf(memory, "%s/%s-%016" PRIx64, trials, t->name, t->key);
  else
    t->folder = arena_printf(memory, "%s/%s%s", trials, t->name, ending);
  free(trials);
  return error;
}

status trial_record(const trial *t) {
  char key[20];
  snprintf(key, sizeof key, "%016" PRIx64, t->key);
  json_t *sets = json_array();
  for (int i = 0; i < t->override_count; i++) {
    text_buffer set = {0};
    text_add(&set, "%s=%s", t->overrides[i].key, t->overrides[i].value);
    json_array_append_new(sets, json_text(set.data ? set.data : ""));
    text_free(&set);
  }
  json_t *root =
      json_pack("{s:s, s:s, s:o, s:o, s:o, s:f, s:o*}", "key", key, "state", state_names[t->state],
                "label", json_text(t->label), "pipeline", json_text(t->pipeline), "set", sets,
                "seconds", t->seconds, "error", t->error ? json_text(t->error) : NULL);
  char *path = trial_file(t, "trial.json");
  status error = folder_create(t->folder);
  if (!error) error = json_write(path, root, JSON_INDENT(2) | JSON_REAL_PRECISION(9), "");
  free(path);
  json_decref(root);
  return error;
}

void trial_free(trial *t) {
  set_error(t, NULL);
}
