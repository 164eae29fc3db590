#include "run/state.h"

#include "base/json.h"
#include "base/memory.h"
#include "base/text.h"
#include "data/volume.h"
#include "run/weights.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Host copies of the device's flat buffers, viewed tensor by tensor. */
typedef struct host_copy {
  float *data;
} host_copy;

static status download(device *d, const float *from, int64_t n, host_copy *out) {
  out->data = malloc((size_t)(n ? n : 1) * sizeof *out->data);
  if (!out->data) return error_out_of_memory((size_t)n * sizeof *out->data);
  return d->download(d, out->data, from, (size_t)n * sizeof *out->data);
}

/* An update can leave a parameter that is no number although the loss before it was one. */
static status check_finite(const named_tensor *t) {
  const float *values = t->tensor.data;
  int64_t n = shape_elements(&t->tensor.shape), i = 0;
  if (floats_are_finite(values, n)) return OK;
  while (isfinite(values[i])) i++;
  return error_new(ERROR_NUMERIC, NOWHERE, "%s became %s", t->name,
                   isnan(values[i]) ? "NaN" : "infinite");
}

static status add_tensors(const parameters *p, const char *prefix, const host_copy *copy,
                          bool trained_only, arena *memory, named_tensor *list, int *count) {
  for (int i = 0; i < p->count; i++) {
    const parameter *parameter = &p->list[i];
    if (trained_only && !parameter->trained) continue;
    named_tensor *t = &list[(*count)++];
    *t = (named_tensor){
        .name = prefix[0] ? arena_printf(memory, "%s%s", prefix, parameter->name) : parameter->name,
        .tensor = {
            .dtype = DTYPE_F32, .shape = parameter->shape, .data = copy->data + parameter->offset}};
    TRY(check_finite(t));
  }
  return OK;
}

status parameters_write(const char *path, const parameters *p, const char *const *metadata) {
  host_copy copy = {0};
  arena memory = {0};
  status error = download(p->device, p->data, p->elements, &copy);
  if (!error) {
    named_tensor *list = arena_alloc(&memory, (size_t)(p->count + 1) * sizeof *list);
    int count = 0;
    error = add_tensors(p, "", &copy, false, &memory, list, &count);
    if (!error) error = weights_write(path, list, count, metadata);
  }
  free(copy.data);
  arena_free(&memory);
  return error;
}

/* Doubles travel as hexadecimal floats: exact. */
static json_t *numbers_to_json(const named_number *list, int count) {
  json_t *out = json_array();
  for (int i = 0; i < count; i++) {
    char text[64];
    snprintf(text, sizeof text, "%a", list[i].value);
    json_array_append_new(out, json_pack("[s, s]", list[i].name, text));
  }
  return out;
}

static int numbers_from_json(const json_t *list, named_number *out) {
  size_t count = json_array_size(list);
  int kept = 0;
  for (size_t i = 0; i < count && kept < STATE_MAX_VALUES; i++) {
    const json_t *pair = json_array_get(list, i);
    const char *name = json_string_value(json_array_get(pair, 0));
    const char *text = json_string_value(json_array_get(pair, 1));
    if (!name || !text) continue;
    snprintf(out[kept].name, sizeof out[kept].name, "%s", name);
    out[kept++].value = strtod(text, NULL);
  }
  return kept;
}

static char *state_to_json(const run_state *s) {
  char identity[32], elapsed[64];
  json_t *hooks = json_object();
  for (int i = 0; i < HOOK_COUNT; i++)
    if (s->hook_states[i])
      json_object_set_new(hooks, stage_hook_keys[i], json_string(s->hook_states[i]));
  snprintf(identity, sizeof identity, "%016" PRIx64, s->identity);
  snprintf(elapsed, sizeof elapsed, "%a", s->elapsed_s);
  json_t *root = json_pack(
      "{s:i, s:I, s:I, s:I, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:i, s:I, s:o, s:I}", "stage",
      s->stage, "epoch", (json_int_t)s->epoch, "step", (json_int_t)s->step, "updates",
      (json_int_t)s->updates, "elapsed_s", elapsed, "identity", identity, "sums",
      numbers_to_json(s->sums, s->sum_count), "numbers",
      numbers_to_json(s->numbers, s->number_count), "measured",
      numbers_to_json(s->measured, s->measured_count), "hooks", hooks, "ended", json_text(s->ended),
      "end", (int)s->end, "epochs", (json_int_t)s->epochs, "best",
      numbers_to_json(&s->best, s->best_weights != NULL), "best_epoch", (json_int_t)s->best_epoch);
  char *text = root ? json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
  json_decref(root);
  return text;
}

status state_save(const char *path, const run_state *s, const program *p) {
  const parameters *ps = p->parameters;
  arena memory = {0};
  int buffers = 2 + p->state_count, count = 0;
  const host_copy best = {s->best_weights};
  host_copy *copies = arena_alloc(&memory, (size_t)buffers * sizeof *copies);
  named_tensor *list = arena_alloc(&memory, (size_t)((buffers + 1) * ps->count + 1) * sizeof *list);
  status error = download(p->device, ps->data, ps->elements, &copies[0]);
  if (!error) error = add_tensors(ps, "parameter/", &copies[0], false, &memory, list, &count);
  for (int i = 0; i < p->state_count && !error; i++) {
    error = download(p->device, p->states[i], ps->trained_elements, &copies[1 + i]);
    const char *prefix = arena_printf(&memory, "optimizer%d/", i);
    if (!error) error = add_tensors(ps, prefix, &copies[1 + i], true, &memory, list, &count);
  }
  if (p->average && !error) {
    host_copy *average = &copies[1 + p->state_count];
    error = download(p->device, p->average, ps->trained_elements, average);
    if (!error) error = add_tensors(ps, "average/", average, true, &memory, list, &count);
  }
  if (best.data && !error) error = add_tensors(ps, "best/", &best, false, &memory, list, &count);
  char *json = error ? NULL : state_to_json(s);
  if (!error && !json) error = error_out_of_memory(4096);
  if (!error) error = weights_write(path, list, count, (const char *const[]){"state", json, NULL});
  free(json);
  for (int i = 0; i < buffers; i++) free(copies[i].data);
  arena_free(&memory);
  return error;
}

static const char *metadata_value(const weights *w, const char *key) {
  for (const char *const *m = w->metadata; m && m[0]; m += 2)
    if (strcmp(m[0], key) == 0) return m[1];
  return NULL;
}

status state_open(const char *path, run_state *out) {
  *out = (run_state){0};
  weights w;
  TRY(weights_read(path, &w));
  const char *text = metadata_value(&w, "state");
  json_t *root = text ? json_loads(text, 0, NULL) : NULL;
  json_int_t epoch, step, updates;
  const char *elapsed, *identity, *ended;
  json_t *sums, *numbers, *measured, *hooks;
  status error = OK;
  if (!root ||
      json_unpack(root, "{s:i, s:I, s:I, s:I, s:s, s:s, s:o, s:o, s:o, s:o, s:s}", "stage",
                  &out->stage, "epoch", &epoch, "step", &step, "updates", &updates, "elapsed_s",
                  &elapsed, "identity", &identity, "sums", &sums, "numbers", &numbers, "measured",
                  &measured, "hooks", &hooks, "ended", &ended) ||
      out->stage < 0 || epoch < 0 || step < 0 || updates < 0) {
    error = error_new(ERROR_DATA, NOWHERE, "%s is not a training state of Strata", path);
  } else {
    out->epoch = epoch;
    out->step = step;
    out->updates = updates;
    out->elapsed_s = strtod(elapsed, NULL);
    out->identity = strtoull(identity, NULL, 16);
    out->sum_count = numbers_from_json(sums, out->sums);
    out->number_count = numbers_from_json(numbers, out->numbers);
    out->measured_count = numbers_from_json(measured, out->measured);
    for (int i = 0; i < HOOK_COUNT; i++) {
      const char *hook = json_string_value(json_object_get(hooks, stage_hook_keys[i]));
      out->hook_states[i] = hook ? memory_strdup(hook) : NULL;
    }
    snprintf(out->ended, sizeof out->ended, "%s", ended);
    json_int_t end = json_integer_value(json_object_get(root, "end"));
    out->end = !ended[0]                             ? END_NOT_YET
               : end > END_NOT_YET && end < END_HOOK ? (stage_end)end
                                                     : END_HOOK;
    out->epochs = json_integer_value(json_object_get(root, "epochs"));
    named_number best[STATE_MAX_VALUES];
    if (numbers_from_json(json_object_get(root, "best"), best) > 0) out->best = best[0];
    out->best_epoch = json_integer_value(json_object_get(root, "best_epoch"));
  }
  json_decref(root);
  weights_close(&w);
  return error;
}

/* To the device, or with NULL for it to the host. */
static status restore_buffer(const weights *w, const char *path, const char *prefix,
                             const parameters *ps, device *d, float *to, bool trained_only) {
  for (int i = 0; i < ps->count; i++) {
    const parameter *parameter = &ps->list[i];
    if (trained_only && !parameter->trained) continue;
    char name[512];
    snprintf(name, sizeof name, "%s%s", prefix, parameter->name);
    const named_tensor *t = weights_find(w, name);
    if (!t || t->tensor.dtype != DTYPE_F32 || !shape_equal(&t->tensor.shape, &parameter->shape))
      return error_new(ERROR_DATA, NOWHERE, "%s lacks %s, or its shape differs", path, name);
    float *place = to + parameter->offset;
    if (d)
      TRY(d->upload(d, place, t->tensor.data, tensor_bytes(&t->tensor)));
    else
      memcpy(place, t->tensor.data, tensor_bytes(&t->tensor));
  }
  return OK;
}

status state_restore(const char *path, program *p) {
  weights w;
  TRY(weights_read(path, &w));
  const parameters *ps = p->parameters;
  status error = restore_buffer(&w, path, "parameter/", ps, p->device, ps->data, false);
  for (int i = 0; i < p->state_count && !error; i++) {
    char prefix[32];
    snprintf(prefix, sizeof prefix, "optimizer%d/", i);
    error = restore_buffer(&w, path, prefix, ps, p->device, p->states[i], true);
  }
  if (p->average && !error)
    error = restore_buffer(&w, path, "average/", ps, p->device, p->average, true);
  weights_close(&w);
  return error;
}

status state_restore_best(const char *path, const parameters *p, float *to) {
  weights w;
  TRY(weights_read(path, &w));
  status error = restore_buffer(&w, path, "best/", p, NULL, to, false);
  weights_close(&w);
  return error;
}

void state_free(run_state *s) {
  for (int i = 0; i < HOOK_COUNT; i++) free(s->hook_states[i]);
  *s = (run_state){0};
}
