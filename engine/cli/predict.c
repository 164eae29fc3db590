/* predict: new volumes segmented with a finished run, or several. */
#include "base/clock.h"
#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/inputs.h"
#include "infer/network.h"
#include "run/lock.h"
#include "run/run.h"
#include "run/segmented.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { ENSEMBLE_MAX = 64 };

/* The runs to predict with; their networks are the same, their weights differ. */
typedef struct ensemble {
  char *folders[ENSEMBLE_MAX], *weights[ENSEMBLE_MAX];
  pipeline *pipelines[ENSEMBLE_MAX];
  int count;
  int64_t channels;
  int classes;
} ensemble;

/* A file of a run: in its folder, or in its pack. */
static char *run_file(const char *run, const char *name) {
  if (!archive_is(run)) return path_join(run, name);
  text_buffer path = {0};
  text_add(&path, "%s: %s", run, name);
  return path.data;
}

/* What predict must know of the data a run was trained on. */
static status read_description(const char *folder, int64_t *channels, int *classes) {
  char *path = run_file(folder, "run.json");
  json_t *root;
  status error = json_read(path, 1 << 20, &root);
  if (error && !file_exists(path)) {
    error = error_prefix(error, "%s is not a run, or not one packed with --weights", folder);
  } else if (!error) {
    *channels = json_integer_value(json_object_get(root, "channels"));
    *classes = (int)json_array_size(json_object_get(root, "classes"));
    if (*channels < 1 || *classes < 1)
      error = error_new(ERROR_DATA, NOWHERE, "%s is damaged", path);
    else if (*classes < 2)
      error = error_new(ERROR_DATA, NOWHERE,
                        "%s was trained on images without classes: its network segments nothing. "
                        "A stage of another pipeline can begin with its weights (init: {from: "
                        "%s/weights/STAGE.safetensors})",
                        folder, folder);
    json_decref(root);
  }
  free(path);
  return error;
}

static bool same_regions(const data_spec *a, const data_spec *b) {
  if (a->region_count != b->region_count) return false;
  for (int i = 0; i < a->region_count; i++) {
    const class_group *x = &a->regions[i], *y = &b->regions[i];
    int both = classes_in_both(x, y);
    if (both != x->count || both != y->count) return false;
  }
  return true;
}

static status open_member(ensemble *e, const arguments *a, const char *folder, size_t length) {
  if (e->count == ENSEMBLE_MAX)
    return error_new(ERROR_USAGE, NOWHERE, "an ensemble has at most %d runs", ENSEMBLE_MAX);
  int i = e->count++, classes = 0;
  int64_t channels = 0;
  e->folders[i] = memory_strndup(folder, length);
  TRY(read_description(e->folders[i], &channels, &classes));
  char *yaml = archive_is(e->folders[i]) ? memory_strdup(e->folders[i])
                                         : path_join(e->folders[i], LOCK_FILE);
  char name[256];
  status error =
      pipeline_load_for_prediction(yaml, a->overrides, a->override_count, &e->pipelines[i]);
  const stage_spec *stage =
      error ? NULL : pipeline_stage(e->pipelines[i], e->pipelines[i]->evaluate.stage);
  if (!error && !stage)
    error = error_new(ERROR_DATA, NOWHERE, "%s names no stage to predict with", yaml);
  free(yaml);
  TRY(error);
  snprintf(name, sizeof name, "weights/%s.safetensors", stage->name);
  e->weights[i] = run_file(e->folders[i], name);
  if (!archive_is(e->folders[i]) && !file_exists(e->weights[i]))
    return error_new(ERROR_DATA, NOWHERE,
                     "%s has no weights of stage %s yet: the run is not finished (strata run FILE "
                     "--out %s --resume goes on with it)",
                     e->folders[i], stage->name, e->folders[i]);
  if (i == 0) {
    e->channels = channels;
    e->classes = classes;
  } else if (channels != e->channels || classes != e->classes) {
    return error_new(ERROR_DATA, NOWHERE,
                     "%s has %lld channels and %d classes, %s has %lld and %d: they cannot predict "
                     "together",
                     e->folders[0], (long long)e->channels, e->classes, e->folders[i],
                     (long long)channels, classes);
  } else if (prepare_identity(&e->pipelines[i]->data) != prepare_identity(&e->pipelines[0]->data)) {
    return error_new(ERROR_DATA, NOWHERE,
                     "%s and %s prepare their images differently: they cannot predict together",
                     e->folders[0], e->folders[i]);
  } else if (!same_regions(&e->pipelines[i]->data, &e->pipelines[0]->data)) {
    return error_new(ERROR_DATA, NOWHERE,
                     "%s and %s segment different regions: they cannot predict together",
                     e->folders[0], e->folders[i]);
  }
  return OK;
}

/* `operand`: a run's folder, or several with commas between them. */
static status ensemble_open(const arguments *a, const char *operand, ensemble *out) {
  *out = (ensemble){0};
  if (file_exists(operand)) return open_member(out, a, operand, strlen(operand));
  for (const char *p = operand;; p++) {
    size_t length = strcspn(p, ",");
    TRY(open_member(out, a, p, length));
    p += length;
    if (!*p) return OK;
  }
}

static void ensemble_close(ensemble *e) {
  for (int i = 0; i < e->count; i++) {
    pipeline_free(e->pipelines[i]);
    free(e->folders[i]);
    free(e->weights[i]);
  }
}

/* ---- the cases --------------------------------------------------------------------------- */

typedef struct predictor {
  const ensemble *runs;
  const predict_inputs *in;
  device *device;
  network network;
  segmented done; /* of results in a folder */
  int done_before;
} predictor;

/* `soft`: where the probabilities go; NULL: nowhere. */
static status predict_case(predictor *p, const case_entry *input, const char *out,
                           const char *soft) {
  medical_case c = {0};
  labels prediction = {0};
  nifti_values probabilities = {0};
  status error = case_prepare(&p->runs->pipelines[0]->data, input, NULL, &c);
  if (!error)
    error = network_segment(&p->network, &c.image, input->image, &prediction,
                            soft ? &probabilities : NULL);
  if (!error && soft) error = nifti_values_write(&probabilities, soft);
  if (!error) error = nifti_write_labels(out, &prediction, input->image);
  nifti_values_close(&probabilities);
  labels_free(&prediction);
  case_free(&c);
  return error;
}

static status add_content(text_buffer *text, const char *path) {
  uint64_t length, low, high;
  TRY(file_hash(path, &length, &low, &high));
  text_add(text, " %016" PRIx64 "%016" PRIx64, high, low);
  return OK;
}

/* The result's name and the content of the files that it is made of. */
static status record_name(const case_entry *input, const char *out, text_buffer *name) {
  text_add(name, "%s", strrchr(out, '/') + 1);
  TRY(add_content(name, input->image));
  for (int m = 0; m < input->more_image_count; m++) TRY(add_content(name, input->more_images[m]));
  return OK;
}

/* In a folder, what is done already is left as it is, and what comes is recorded. */
static status predict_recorded(predictor *p, int i) {
  const case_entry *input = &p->in->cases[i];
  const char *out = p->in->out[i], *soft = p->in->probabilities ? p->in->probabilities[i] : NULL;
  if (!p->in->folder) return predict_case(p, input, out, soft);
  text_buffer name = {0};
  status error = record_name(input, out, &name);
  if (!error && segmented_has(&p->done, name.data, out) && (!soft || file_exists(soft))) {
    p->done_before++;
  } else if (!error) {
    error = predict_case(p, input, out, soft);
    if (!error) error = segmented_add(&p->done, name.data, out);
  }
  text_free(&name);
  return error;
}

static status open_record(predictor *p, bool resume) {
  const ensemble *e = p->runs;
  text_buffer by = {0};
  text_add(&by, "%s", STRATA_VERSION);
  status error = OK;
  for (int i = 0; !error && i < e->count; i++) {
    text_add(&by, " %016" PRIx64 " %s", e->pipelines[i]->identity,
             run_numerics(e->pipelines[i], p->device));
    error = add_content(&by, e->weights[i]);
  }
  char *path = path_join(p->in->folder, "state.predict.jsonl");
  if (!error) error = segmented_open(path, by.data, resume, &p->done);
  free(path);
  text_free(&by);
  return error;
}

static status stopped_predicting(const predictor *p, const case_progress *progress) {
  return error_new(ERROR_INTERRUPTED, NOWHERE, "stopped after %d of %d inputs%s", progress->done,
                   progress->count,
                   p->in->folder ? "; the same command with --resume goes on from there" : "");
}

/* A bad case is reported and the others are still segmented. The files of the results are the
 * command's output, also with --quiet. */
static status predict_all(predictor *p, bool quiet) {
  problems found = {0};
  reporter report = console_reporter(quiet);
  case_progress progress = {
      .report = &report, .stage = "predict", .count = p->in->count, .started_s = clock_now_s()};
  p->network.inferer.after = run_after_windows;
  p->network.inferer.after_context = &progress;
  for (; progress.done < progress.count; progress.done++) {
    status error = run_stop_requested() ? stopped_predicting(p, &progress)
                                        : predict_recorded(p, progress.done);
    if (error && error_code_of(error) == ERROR_INTERRUPTED) {
      error_free(error); /* it speaks of windows */
      problems_add(&found, stopped_predicting(p, &progress));
      break;
    }
    problems_add(&found, error);
    if (error) continue;
    console_print(p->in->out[progress.done]);
  }
  if (p->done_before > 0)
    report_line(&report, "%d of %d were segmented before", p->done_before, progress.count);
  return problems_take(&found);
}

static void say_precision(const graph *g, const device *d) {
  for (int p = 0; p < PRECISIONS; p++) {
    const char *text = device_precision_note(d, (precision)p);
    if (text && graph_precisions(g) >> p & 1) fprintf(stderr, "%s\n", text);
  }
}

static bool is_within(const char *key, const char *outer) {
  size_t length = strlen(outer);
  return strncmp(key, outer, length) == 0 && (key[length] == 0 || key[length] == '.');
}

/* What has been learned, and how, is over; and nothing is scored. */
static bool is_read_by_prediction(const char *key) {
  static const char *const scoring[] = {"metrics",   "empty",  "hd95",
                                        "tolerance", "groups", "regions"};
  if (text_starts_with(key, "stages.")) return text_ends_with(key, ".precision");
  if (!text_starts_with(key, "evaluate."))
    return is_within(key, "device") || is_within(key, "threads");
  for (size_t i = 0; i < sizeof scoring / sizeof *scoring; i++)
    if (is_within(key + strlen("evaluate."), scoring[i])) return false;
  return true;
}

static status check_overrides(const arguments *a) {
  for (int i = 0; i < a->override_count; i++)
    if (!is_read_by_prediction(a->overrides[i].key))
      return error_new(ERROR_USAGE, NOWHERE,
                       "--set %s: nothing that predict reads. It reads the keys of evaluate: that "
                       "say how is segmented, such as evaluate.postprocess and "
                       "evaluate.inferer.sliding_window.mirror, and stages.NAME.precision",
                       a->overrides[i].key);
  return OK;
}

status command_predict(const arguments *a) {
  if (!a->out)
    return error_new(ERROR_USAGE, NOWHERE,
                     "say where the segmentation goes: -o seg.nii.gz or -o FOLDER");
  TRY(check_overrides(a));
  ensemble e;
  arena memory = {0};
  predict_inputs in = {0};
  predictor p = {.runs = &e, .in = &in};
  status error = ensemble_open(a, a->operands[0], &e);
  pipeline *first = e.pipelines[0];
  if (!error) error = predict_inputs_list(&memory, a, &first->data, e.channels, &in);
  if (!error && a->resume && !in.folder)
    error = error_new(ERROR_USAGE, NOWHERE,
                      "--resume goes on with a folder of segmentations: -o FOLDER, not %s", a->out);
  if (!error)
    error = device_open(a->device ? a->device : first->device,
                        (int)(a->threads > 0 ? a->threads : first->threads), &p.device, NULL);
  if (!error)
    error = network_open(first, pipeline_stage(first, first->evaluate.stage),
                         first->evaluate.output, e.channels, e.classes, p.device, NULL, &p.network);
  if (!error) say_precision(p.network.graph.g, p.device);
  if (!error) error = network_load(&p.network, (const char *const *)e.weights, e.count);
  if (!error && in.folder) error = open_record(&p, a->resume);
  if (!error) error = predict_all(&p, a->quiet);
  segmented_close(&p.done, !error);
  network_close(&p.network);
  device_close(p.device);
  arena_free(&memory);
  ensemble_close(&e);
  return error;
}
