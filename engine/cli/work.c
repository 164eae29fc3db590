/* run, evaluate, data, new, phantom. */
#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/text.h"
#include "cli/command.h"
#include "configure/plans.h"
#include "data/check.h"
#include "data/dataset.h"
#include "data/phantom.h"
#include "data/postprocess.h"
#include "evaluate/folders.h"
#include "run/reproduce.h"
#include "run/run.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

status command_run(const arguments *a) {
  run_options o = {.pipeline_path = a->operands[0],
                   .overrides = a->overrides,
                   .override_count = a->override_count,
                   .folder = a->out,
                   .resume = a->resume,
                   .resume_if_any = a->resume_if_any,
                   .changed_scripts = a->changed_scripts,
                   .allow_changes = a->allow_changes,
                   .threads = a->threads,
                   .device = a->device,
                   .command = a->words,
                   .report = console_reporter(a->quiet)};
  bool may_resume = a->resume || a->resume_if_any;
  if (a->changed_scripts && !may_resume)
    return error_new(ERROR_USAGE, NOWHERE, "--changed-scripts goes with --resume");
  if (may_resume && !a->out)
    return error_new(ERROR_USAGE, NOWHERE,
                     "--resume%s needs --out, the folder of the run to go on with",
                     a->resume ? "" : "-if-any");
  return run_pipeline(&o, NULL);
}

/* ---- evaluate, phantom ------------------------------------------------------------------- */

status choose(const char *option, const char *given, const char *const *names, int count,
              int *out) {
  *out = -1;
  for (int i = 0; given && i < count; i++)
    if (strcmp(given, names[i]) == 0) *out = i;
  if (!given) *out = 0;
  if (*out >= 0) return OK;
  return error_new(ERROR_USAGE, NOWHERE, "--%s is one of %s, %s%s%s, not \"%s\"", option, names[0],
                   names[1], count > 2 ? ", " : "", count > 2 ? names[2] : "", given);
}

/* "dice,hd95" as the list [dice, hd95], which may have its brackets, as in a file. */
static status read_list(arena *memory, const char *option, const char *text, bool always_list,
                        tree **out) {
  *out = NULL;
  if (!text) return OK;
  bool has_brackets = text[strspn(text, " ")] == '[';
  bool is_list = !has_brackets && (always_list || strchr(text, ','));
  const char *yaml = arena_printf(memory, is_list ? "[%s]" : "%s", text);
  status error = tree_parse(memory, yaml, strlen(yaml), option, out);
  if (!error) return OK;
  error_free(error);
  return error_new(ERROR_USAGE, NOWHERE, "%s takes values with commas between them, not \"%s\"",
                   option, text);
}

/* What is given with --group or --region as the map in the pipeline file. */
static status read_class_lists(arena *memory, const char *option, const override *lists, int count,
                               tree **out) {
  tree *map = *out = tree_new(memory, NOWHERE, TREE_MAP, MAX_GROUPS);
  for (int i = 0; i < count; i++) {
    for (int k = 0; k < i; k++)
      if (strcmp(lists[k].key, lists[i].key) == 0)
        return error_new(ERROR_USAGE, NOWHERE, "%s: \"%s\" is there twice", option, lists[i].key);
    map->keys[i] = tree_scalar(memory, NOWHERE, lists[i].key, true);
    TRY(read_list(memory, option, lists[i].value, true, &map->items[i]));
    map->count++;
  }
  return OK;
}

/* --metrics, --tolerance, --postprocess, --group and --region are the keys of the same name in `evaluate:`.
 * `named`: classes that --names names, with the background; 0: any may occur. */
static status read_scoring(const arguments *a, arena *memory, int named, evaluate_spec *spec) {
  tree *metrics, *tolerance, *changes, *groups, *regions;
  bool is_all = a->metrics && strcmp(a->metrics, "all") == 0;
  TRY(read_list(memory, "--metrics", a->metrics, !is_all, &metrics));
  TRY(read_list(memory, "--tolerance", a->tolerance, false, &tolerance));
  TRY(read_list(memory, "--postprocess", a->postprocess, true, &changes));
  TRY(read_class_lists(memory, "--group", a->groups, a->group_count, &groups));
  TRY(read_class_lists(memory, "--region", a->regions, a->region_count, &regions));
  problems found = {0};
  scoring_metrics(metrics, spec, &found);
  scoring_tolerance(memory, tolerance, spec, &found);
  postprocess_read(memory, changes, spec, &found);
  scoring_groups(memory, groups, regions, spec, &found);
  if (named > 0 && found.count == 0)
    problems_add(&found, postprocess_check(spec->postprocess, spec->postprocess_count, named));
  status error = problems_take(&found);
  if (!error) return OK;
  status usage = error_new(ERROR_USAGE, NOWHERE, "%s", error_message(error));
  error_free(error);
  return usage;
}

/* --names liver,spleen: what classes 1, 2, … are called. */
static status read_names(const arguments *a, arena *memory, const char ***names, int *count) {
  *names = NULL;
  *count = 0;
  if (!a->names) return OK;
  tree *list;
  TRY(read_list(memory, "--names", a->names, true, &list));
  *names = arena_alloc(memory, (size_t)(list->count + 1) * sizeof **names);
  (*names)[(*count)++] = "background";
  for (int i = 0; i < list->count; i++) {
    const char *name = list->items[i]->kind == TREE_SCALAR ? list->items[i]->text : "";
    for (int k = 0; k < *count; k++)
      if (!name[0] || strcmp((*names)[k], name) == 0)
        return error_new(ERROR_USAGE, NOWHERE,
                         name[0] ? "--names: \"%s\" is there twice, or is the background, class 0"
                                 : "--names: a class has no name%s",
                         name);
    (*names)[(*count)++] = name;
  }
  return OK;
}

status command_evaluate(const arguments *a) {
  if (!a->prediction || !a->reference)
    return error_new(ERROR_USAGE, NOWHERE,
                     "usage: strata evaluate --prediction DIR --reference DIR");
  static const char *const policies[] = {"skip", "one", "zero"};
  static const char *const definitions[] = {"max", "pooled"};
  int policy, definition;
  TRY(choose("empty", a->empty, policies, 3, &policy));
  TRY(choose("hd95", a->hd95, definitions, 2, &definition));
  if (a->ignore_label == 0 || a->ignore_label >= LABEL_VALUES)
    return error_new(ERROR_USAGE, NOWHERE,
                     "--ignore-label takes a number from 1 to %d, not %lld (0 is the background)",
                     LABEL_VALUES - 1, (long long)a->ignore_label);
  evaluate_spec spec = {.empty = (empty_policy)policy,
                        .hd95_pooled = definition == 1,
                        .ignore_label = a->ignore_label > 0 ? (int)a->ignore_label : 0};
  reporter report = console_reporter(false);
  evaluate_outputs to = {
      .table = stdout, .json_path = a->json, .csv_path = a->csv, .report = &report};
  arena memory = {0};
  thread_pool *pool = NULL;
  const char **names;
  int name_count;
  if (a->names && a->region_count > 0)
    return error_new(ERROR_USAGE, NOWHERE,
                     "--names names classes, and with --region no class is scored by itself");
  if (a->group_count > 0 && a->region_count > 0)
    return error_new(
        ERROR_USAGE, NOWHERE,
        "--group is a mean over classes, and with --region no class is scored by itself");
  status error = read_names(a, &memory, &names, &name_count);
  if (!error) error = read_scoring(a, &memory, name_count, &spec);
  if (!error) error = pool_create(a->threads > 0 ? (int)a->threads : 0, &pool);
  if (!error)
    error = evaluate_folders(a->prediction, a->reference, names, name_count, &spec, pool, &to);
  pool_destroy(pool);
  arena_free(&memory);
  return error;
}

/* ---- data ------------------------------------------------------------------------------------ */

static bool is_in(const char *folder, const char *name) {
  char *path = path_join(folder, name);
  bool there = file_exists(path);
  free(path);
  return there;
}

/* nnU-Net's dataset.json names the ending of its files. */
static bool is_nnunet(const char *json_path) {
  json_t *root = NULL;
  error_free(json_read(json_path, DATASET_JSON_BYTES, &root)); /* who opens the data set says it */
  bool named = json_object_get(root, "file_ending") != NULL;
  json_decref(root);
  return named;
}

static bool is_btcv(const char *folder) {
  return is_in(folder, "img") && is_in(folder, "label");
}

/* A data set `depth` folders below this one: of those that are looked at the first by name, NULL when
 * there is none. */
static const char *data_set_below(arena *memory, const char *folder, int depth) {
  enum { LOOKED_AT = 64 }; /* entries of a folder */
  if (depth == 0) return is_btcv(folder) || is_in(folder, "dataset.json") ? folder : NULL;
  DIR *stream = opendir(folder);
  if (!stream) return NULL;
  const char *names[LOOKED_AT], *found = NULL;
  int count = 0;
  for (struct dirent *entry; count < LOOKED_AT && (entry = readdir(stream));)
    if (entry->d_name[0] != '.') names[count++] = arena_strdup(memory, entry->d_name);
  closedir(stream);
  qsort(names, (size_t)count, sizeof *names, by_text);
  for (int i = 0; i < count && !found; i++) {
    char *below = path_join(folder, names[i]);
    found = data_set_below(memory, arena_strdup(memory, below), depth - 1);
    free(below);
  }
  return found;
}

static status not_recognised(arena *memory, const char *path) {
  const char *below = data_set_below(memory, path, 1);
  if (!below) below = data_set_below(memory, path, 2);
  return error_new(
      ERROR_DATA, NOWHERE,
      "%s has neither dataset.json (Decathlon, nnU-Net) nor img and label (BTCV)%s%s%s.", path,
      below ? ": " : "", below ? below : "",
      below ? " is a folder that has" : ". Describe other layouts in a pipeline file");
}

/* The layout of a data set that no pipeline describes. */
static status recognise(arena *memory, const char *path, data_spec *spec) {
  *spec = (data_spec){.dataset = path, .split = {1, 0, 0}};
  struct stat info;
  if (stat(path, &info) != 0) return error_from_errno("open", path);
  if (!S_ISDIR(info.st_mode)) {
    if (!is_nnunet(path)) return OK;
    char *folder = path_folder(path);
    spec->dataset = arena_strdup(memory, folder);
    spec->layout = DATASET_NNUNET;
    free(folder);
    return OK;
  }
  if (is_btcv(path)) {
    spec->layout = DATASET_BTCV;
  } else if (is_in(path, "dataset.json")) {
    const char *json_path = arena_printf(memory, "%s/dataset.json", path);
    spec->layout = is_nnunet(json_path) ? DATASET_NNUNET : DATASET_DECATHLON;
    if (spec->layout == DATASET_DECATHLON) spec->dataset = json_path;
  } else {
    return not_recognised(memory, path);
  }
  return OK;
}

/* A data set that was opened to be looked at, whatever is wrong with its cases. */
typedef struct looked {
  dataset *data;
  dataset_look look;
  problems found; /* what is wrong */
} looked;

static status look_at(const data_spec *spec, uint64_t seed, const arguments *a, looked *out) {
  thread_pool *pool = NULL;
  reporter report = console_reporter(false);
  *out = (looked){0};
  TRY(dataset_inspect(spec, seed, &out->found, &out->data));
  status error = pool_create(a->threads > 0 ? (int)a->threads : 0, &pool);
  if (!error) error = dataset_look_at(out->data, pool, &report, &out->look);
  if (!error) problems_add(&out->found, problems_take(&out->look.found));
  pool_destroy(pool);
  return error;
}

static status close_look(looked *l, status error) {
  problems_add(&l->found, error);
  dataset_look_free(&l->look);
  dataset_free(l->data);
  return problems_take(&l->found);
}

static status look_through(const data_spec *spec, uint64_t seed, const arguments *a) {
  looked l;
  status error = look_at(spec, seed, a, &l);
  if (!error && a->json) error = dataset_look_write(&l.look, a->json);
  if (!error) dataset_look_print(&l.look, stdout);
  return close_look(&l, error);
}

status command_data(const arguments *a) {
  const char *path = a->operands[1];
  if (strcmp(a->operands[0], "check") != 0)
    return error_new(ERROR_USAGE, NOWHERE, "usage: strata data check FILE|DIR");
  if (text_ends_with(path, ".yaml") || text_ends_with(path, ".yml") || archive_is(path)) {
    pipeline *p;
    TRY(pipeline_load_to_look(path, a->overrides, a->override_count, &p));
    p->data.label_fraction = 1; /* every label is looked at */
    status error = look_through(&p->data, p->seed, a);
    pipeline_free(p);
    return error;
  }
  if (a->override_count > 0)
    return error_new(ERROR_USAGE, NOWHERE, "--set changes a pipeline file, and %s is none", path);
  arena memory = {0};
  data_spec spec;
  status error = recognise(&memory, path, &spec);
  if (!error) error = look_through(&spec, 0, a);
  arena_free(&memory);
  return error;
}

static void print_configuration(const configure_options *o, const configuration *c,
                                const dataset *d, const char *path) {
  char bytes[24];
  printf("%s: a pipeline for %s, %d case%s, %d of them labelled\n", path, d->name, d->case_count,
         d->case_count == 1 ? "" : "s", c->labelled);
  printf("  spacing   %g × %g × %g mm; a median case has %lld × %lld × %lld voxels\n",
         c->spacing_mm[0], c->spacing_mm[1], c->spacing_mm[2], (long long)c->median_size[0],
         (long long)c->median_size[1], (long long)c->median_size[2]);
  printf("  crop      %lld × %lld × %lld voxels, %lld a step", (long long)c->crop[0],
         (long long)c->crop[1], (long long)c->crop[2], (long long)o->batch);
  if (c->planned_batch > o->batch)
    printf(" (nnU-Net would take %lld: --batch %lld)", (long long)c->planned_batch,
           (long long)c->planned_batch);
  printf("\n");
  printf("  network   %d levels, %.1f million parameters\n", c->levels,
         (double)c->parameters / 1e6);
  printf("  memory    %s a training step%s\n", format_bytes(bytes, (double)c->step_bytes),
         o->trained ? "" : "; --memory makes the crop smaller or larger");
  if (o->trained)
    printf("  weights   %s/fold_%s/%s\n", o->trained->folder, o->trained->fold,
           o->trained->checkpoint);
  if (c->slabs) printf("  step 1    %d slabs along %c\n", c->slabs, "xyz"[c->slab_axis]);
  printf("\nstrata check %s     the plan, and how long it takes here\n"
         "strata preview %s   what its transforms do\n"
         "strata run %s\n",
         path, path, path);
  if (o->trained && plans_segment(o->trained, d))
    printf(
        "strata run %s --set stages.segment.epochs=0   the network as it is, for strata predict\n",
        path);
}

static status write_new(const configure_options *o, const arguments *a) {
  looked l;
  device *d = NULL;
  configuration c;
  text_buffer yaml = {0};
  status error = look_at(o->data, 0, a, &l);
  if (!error && l.found.count > 0)
    error =
        error_new(ERROR_DATA, NOWHERE,
                  "nothing is written before these are mended; `strata data check %s` says more",
                  a->operands[0]);
  if (!error) error = device_open("cpu", 1, &d, NULL);
  if (!error) error = (o->trained ? configure_trained : configure)(o, &l.look, d, &c, &yaml);
  if (!error) error = file_write_atomic(a->out, yaml.data, yaml.length);
  if (!error) print_configuration(o, &c, l.data, a->out);
  text_free(&yaml);
  device_close(d);
  return close_look(&l, error);
}

/* Of a trained model. */
static status read_model(const arguments *a, arena *memory, plans *model, configure_options *o) {
  if (!a->nnunet) return OK;
  if (a->network || a->memory || a->batch > 0)
    return error_new(ERROR_USAGE, NOWHERE,
                     "--%s does not go with --nnunet: the model's plans have decided it",
                     a->network  ? "network"
                     : a->memory ? "memory"
                                 : "batch");
  TRY(plans_read(a->nnunet, memory, model));
  o->trained = model;
  o->batch = model->c.planned_batch;
  return OK;
}

static status check_folder_of(const char *path) {
  char *folder = path_folder(path);
  status error = access(folder, W_OK) == 0 ? OK : error_from_errno("write to", folder);
  free(folder);
  return error;
}

status command_new(const arguments *a) {
  static const char *const networks[] = {"dynunet", "resenc_unet"};
  int network;
  arena memory = {0};
  data_spec spec;
  configure_options o = {.data = &spec,
                         .path = a->out,
                         .stop = run_stop_requested,
                         .memory_bytes = (int64_t)8 << 30,
                         .batch = a->batch > 0 ? a->batch : 2};
  TRY(choose("network", a->network, networks, 2, &network));
  o.network = (configured_network)network;
  if (a->memory && !parse_bytes(a->memory, &o.memory_bytes))
    return error_new(ERROR_USAGE, NOWHERE, "--memory takes a size such as 4GiB, not \"%s\"",
                     a->memory);
  if (o.batch > BATCH_MAX)
    return error_new(ERROR_USAGE, NOWHERE, "--batch is at most %d", BATCH_MAX);
  if (!a->out || !(text_ends_with(a->out, ".yaml") || text_ends_with(a->out, ".yml")))
    return error_new(ERROR_USAGE, NOWHERE, "usage: strata new DIR -o FILE.yaml");
  if (file_exists(a->out))
    return error_new(ERROR_USAGE, NOWHERE, "%s is there already, and stays as it is", a->out);
  TRY(check_folder_of(a->out));
  plans model;
  status error = recognise(&memory, a->operands[0], &spec);
  if (!error) error = read_model(a, &memory, &model, &o);
  if (!error) error = write_new(&o, a);
  arena_free(&memory);
  return error;
}

status command_phantom(const arguments *a) {
  phantom_options o = {.organs = a->organs > 0 ? (int)a->organs : 0};
  if (a->layout && !phantom_layout_named(a->layout, &o.layout))
    return error_new(ERROR_USAGE, NOWHERE, "--layout is decathlon, synapse, lung or brats, not %s",
                     a->layout);
  if (a->size > 0) {
    static const double slices[] = {[PHANTOM_DECATHLON] = 2.0 / 3,
                                    [PHANTOM_SYNAPSE] = 0.29,
                                    [PHANTOM_LUNG] = 0.5,
                                    [PHANTOM_BRATS] = 155.0 / 240};
    o.size[0] = o.size[1] = a->size;
    o.size[2] = (int64_t)fmax(16, (double)a->size * slices[o.layout]);
  }
  if (a->cases > PHANTOM_CASES_MAX)
    return error_new(ERROR_USAGE, NOWHERE, "--cases is at most %d", PHANTOM_CASES_MAX);
  TRY(phantom_write(a->operands[0], a->cases > 0 ? (int)a->cases : 0,
                    a->seed >= 0 ? (uint64_t)a->seed : 1, &o));
  printf("%s: a data set in the layout %s\n", a->operands[0], a->layout ? a->layout : "decathlon");
  return OK;
}
