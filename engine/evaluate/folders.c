#include "evaluate/folders.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/text.h"
#include "data/postprocess.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Grids may differ by this part of a voxel anywhere: headers hold f32 values and quaternions. */
static const double SAME_GRID_VOXELS = 0.01;

typedef struct label_file {
  const char *name; /* without the extension */
  const char *path;
  bool is_doubtful; /* another file has the same name */
} label_file;

typedef struct label_folder {
  label_file *files; /* sorted by name */
  int count, capacity;
} label_folder;

static int by_name(const void *a, const void *b) {
  return strcmp(((const label_file *)a)->name, ((const label_file *)b)->name);
}

static status list_folder(arena *memory, const char *folder, problems *found, label_folder *out) {
  *out = (label_folder){0};
  DIR *stream = opendir(folder);
  if (!stream) return error_from_errno("open folder", folder);
  errno = 0;
  for (struct dirent *entry; (entry = readdir(stream)); errno = 0) {
    const char *name = entry->d_name;
    size_t extension = text_ends_with(name, ".nii.gz") ? 7 : text_ends_with(name, ".nii") ? 4 : 0;
    if (extension == 0 || name[0] == '.') continue;
    label_file file = {.name = arena_strndup(memory, name, strlen(name) - extension),
                       .path = arena_printf(memory, "%s/%s", folder, name)};
    ARENA_PUSH(memory, out->files, out->count, out->capacity, file);
  }
  status error = errno ? error_from_errno("list folder", folder) : OK;
  closedir(stream);
  if (error) return error;
  if (out->count > 1) qsort(out->files, (size_t)out->count, sizeof *out->files, by_name);
  for (int i = 1; i < out->count; i++)
    if (strcmp(out->files[i - 1].name, out->files[i].name) == 0) {
      out->files[i - 1].is_doubtful = out->files[i].is_doubtful = true;
      problems_add(found,
                   error_new(ERROR_DATA, NOWHERE, "%s and %s have the same name; keep one of them",
                             out->files[i - 1].path, out->files[i].path));
    }
  return OK;
}

static const label_file *find_file(const label_folder *folder, const char *name) {
  label_file wanted = {.name = name};
  return folder->count == 0 ? NULL
                            : bsearch(&wanted, folder->files, (size_t)folder->count,
                                      sizeof *folder->files, by_name);
}

static status check_same_grid(const char *name, const labels *prediction, const labels *reference) {
  for (int a = 0; a < 3; a++)
    if (prediction->size[a] != reference->size[a]) return OK; /* score_case names the two sizes */
  double apart[3];
  affine_difference(reference->affine, prediction->affine, reference->size, apart);
  double largest = fmax(apart[0], fmax(apart[1], apart[2]));
  if (largest <= SAME_GRID_VOXELS) return OK;
  return error_new(ERROR_DATA, NOWHERE,
                   "%s: the prediction and the reference have as many voxels, but their affines "
                   "put a voxel up to %.3g voxels apart. Resample one onto the grid of the other, "
                   "or correct its header",
                   name, largest);
}

typedef struct pair_reading {
  const label_file *files[2]; /* prediction, reference */
  labels maps[2];
  status error[2];
} pair_reading;

static void read_task(void *context, int64_t side) {
  pair_reading *r = context;
  r->error[side] = nifti_read_labels(r->files[side]->path, &r->maps[side]);
}

static void note_classes(const labels *l, bool occurs[LABEL_VALUES]) {
  int64_t voxels = l->size[0] * l->size[1] * l->size[2];
  for (int64_t v = 0; v < voxels; v++) occurs[l->data[v]] = true;
}

/* `predicted`: values that occur in the prediction as its file has it are marked. */
static status score_pair(const label_file *prediction, const label_file *reference,
                         const evaluate_spec *spec, thread_pool *pool, bool predicted[LABEL_VALUES],
                         case_score *out) {
  pair_reading r = {.files = {prediction, reference}};
  parallel_for(pool, 2, read_task, &r);
  problems found = {0};
  for (int side = 0; side < 2; side++) problems_add(&found, r.error[side]);
  status error = problems_take(&found);
  if (!error) note_classes(&r.maps[0], predicted);
  if (!error)
    error = error_prefix(postprocess(spec->postprocess, spec->postprocess_count, &r.maps[0]), "%s",
                         prediction->name);
  if (!error) error = check_same_grid(prediction->name, &r.maps[0], &r.maps[1]);
  if (!error)
    error = score_case(&r.maps[0], &r.maps[1], LABEL_VALUES, spec, prediction->name, pool, out);
  for (int side = 0; side < 2; side++) labels_free(&r.maps[side]);
  return error;
}

static bool has_class(const case_score *c, int value) {
  return c->classes[value].reference_voxels > 0 || c->classes[value].predicted_voxels > 0;
}

/* Values that no name was given for would be in no mean. */
static status check_named(const case_score *cases, int case_count, int class_count) {
  problems found = {0};
  for (int i = 0; i < case_count; i++)
    for (int value = class_count; value < LABEL_VALUES; value++)
      if (has_class(&cases[i], value))
        problems_add(&found,
                     error_new(ERROR_DATA, NOWHERE,
                               "%s: class %d occurs, but only classes 1 to %d have been named",
                               cases[i].name, value, class_count - 1));
  return problems_take(&found);
}

/* Background and the values that occur. Drops the other rows of every case. */
static void keep_used_classes(arena *memory, case_score *cases, int case_count, evaluation *e) {
  const char **names = arena_alloc(memory, LABEL_VALUES * sizeof *names);
  int *numbers = arena_alloc(memory, LABEL_VALUES * sizeof *numbers), count = 0;
  for (int value = 0; value < LABEL_VALUES; value++) {
    bool is_used = value == 0;
    for (int i = 0; i < case_count; i++) is_used = is_used || has_class(&cases[i], value);
    if (!is_used) continue;
    for (int i = 0; i < case_count; i++) cases[i].classes[count] = cases[i].classes[value];
    numbers[count] = value;
    names[count++] = value == 0 ? "background" : arena_printf(memory, "%d", value);
  }
  e->class_names = names;
  e->class_numbers = numbers;
  e->class_count = count;
}

/* The scores of two folders, whose problems are in `found`. */
typedef struct folder_scores {
  case_score *cases;
  bool predicted
      [LABEL_VALUES]; /* values that occur in some prediction, before it is postprocessed */
  int case_count, pair_count, prediction_count, reference_count;
} folder_scores;

static status score_folders(arena *memory, const char *prediction_dir, const char *reference_dir,
                            const evaluate_spec *spec, thread_pool *pool, const reporter *report,
                            problems *found, folder_scores *out) {
  label_folder predictions, references;
  TRY(list_folder(memory, prediction_dir, found, &predictions));
  TRY(list_folder(memory, reference_dir, found, &references));
  if (predictions.count == 0)
    return error_new(ERROR_DATA, NOWHERE, "there is no .nii or .nii.gz file in %s", prediction_dir);
  case_progress progress = {.report = report,
                            .stage = "evaluate",
                            .count = predictions.count,
                            .started_s = clock_now_s()};
  out->prediction_count = predictions.count;
  out->reference_count = references.count;
  out->cases = arena_alloc(memory, (size_t)predictions.count * sizeof *out->cases);
  for (int i = 0; i < predictions.count; i++) {
    progress.done = i;
    report_cases(&progress, 0);
    const label_file *prediction = &predictions.files[i];
    const label_file *reference = find_file(&references, prediction->name);
    if (!reference) {
      problems_add(found, error_new(ERROR_DATA, NOWHERE,
                                    "%s: no reference of this name (.nii or .nii.gz) in %s",
                                    prediction->path, reference_dir));
      continue;
    }
    out->pair_count++;
    if (prediction->is_doubtful || reference->is_doubtful) continue;
    status error =
        score_pair(prediction, reference, spec, pool, out->predicted, &out->cases[out->case_count]);
    if (error)
      problems_add(found, error);
    else
      out->case_count++;
  }
  progress.done = predictions.count;
  report_cases(&progress, 0);
  return OK;
}

/* A group's mean is over the classes that there are: which are not, must be seen. */
static void print_absent(const evaluation *e, FILE *table) {
  for (int i = 0; i < e->spec->group_count; i++) {
    const class_group *g = &e->spec->groups[i];
    for (int k = 0; k < g->count; k++) {
      bool occurs = false;
      for (int row = 0; row < e->class_count; row++)
        occurs |= (e->class_numbers ? e->class_numbers[row] : row) == g->classes[k];
      if (!occurs)
        fprintf(table, "Class %d of %s is in no file: its mean is over the others.\n",
                g->classes[k], g->name);
    }
  }
}

/* What is done to a class that no prediction has does nothing, and is mostly a number mistaken. */
static void print_not_postprocessed(const evaluate_spec *spec, const folder_scores *s,
                                    FILE *table) {
  for (int i = 0; i < spec->postprocess_count; i++) {
    const op_use *use = &spec->postprocess[i];
    const int_list *chosen = attr_integers(use->op, use->attrs, "classes");
    for (int k = 0; chosen && k < chosen->count; k++)
      if (!s->predicted[chosen->at[k]])
        fprintf(table, "Class %lld of %s is in no prediction.\n", (long long)chosen->at[k],
                use->op->name);
  }
}

static void print_left_out(const folder_scores *s, FILE *table) {
  int bad = s->prediction_count - s->case_count, unused = s->reference_count - s->pair_count;
  if (bad > 0)
    fprintf(table, "%d of %d predictions could not be scored and are in no mean.\n", bad,
            s->prediction_count);
  if (unused > 0)
    fprintf(table, "%d of %d references have no prediction and are not scored.\n", unused,
            s->reference_count);
}

status evaluate_folders(const char *prediction_dir, const char *reference_dir,
                        const char *const *class_names, int class_count, const evaluate_spec *spec,
                        thread_pool *pool, const evaluate_outputs *to) {
  arena memory = {0};
  problems found = {0};
  folder_scores s = {0};
  status error =
      score_folders(&memory, prediction_dir, reference_dir, spec, pool, to->report, &found, &s);
  bool has_regions = spec->region_count > 0;
  if (has_regions) {
    class_names = evaluate_row_names(spec, NULL, &memory);
    class_count = evaluate_rows(spec, 0);
  }
  if (!error && class_names && !has_regions)
    error = check_named(s.cases, s.case_count, class_count);
  if (!error && s.case_count > 0) {
    evaluation e = {.class_names = class_names,
                    .class_count = class_count,
                    .cases = s.cases,
                    .case_count = s.case_count,
                    .spec = spec};
    if (!class_names) keep_used_classes(&memory, s.cases, s.case_count, &e);
    if (to->json_path) error = evaluation_write(&e, to->json_path);
    if (to->csv_path && !error) error = evaluation_write_csv(&e, to->csv_path);
    if (to->table && !error) {
      evaluation_print(&e, to->table);
      print_absent(&e, to->table);
      print_not_postprocessed(spec, &s, to->table);
      print_left_out(&s, to->table);
    }
  }
  for (int i = 0; i < s.case_count; i++) case_score_free(&s.cases[i]);
  arena_free(&memory);
  problems_add(&found, error);
  return problems_take(&found);
}
