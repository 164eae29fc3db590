#include "data/check.h"

#include "base/clock.h"
#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/text.h"
#include "data/grid.h"
#include "statistics/statistics.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES_A_CASE = 10000 };

/* qform and sform of real files differ by their rounding; a tenth of a voxel is more. */
static const double FORMS_APART_VOXELS = 0.1;

/* The square of a value beyond it, as in a variance, is more than a float32 holds. */
static const double LARGEST_SQUARED = 1e20;

static const char *const role_names[] = {"train", "validation", "test", "none"};

typedef struct look_work {
  dataset_look *look;
  float **samples; /* by case: channels of a voxel side by side; owned */
  int64_t *sample_counts;
  problems *problems;   /* by case */
  pthread_mutex_t lock; /* of the notes and the progress */
  case_progress progress;
} look_work;

static void add_note(look_work *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_note(look_work *w, const char *format, ...) {
  dataset_look *l = w->look;
  text_buffer text = {0};
  va_list args;
  va_start(args, format);
  text_addv(&text, format, args);
  va_end(args);
  pthread_mutex_lock(&w->lock);
  if (l->note_count == l->note_capacity) {
    l->note_capacity = l->note_capacity ? 2 * l->note_capacity : 16;
    l->notes = memory_resize(l->notes, (size_t)l->note_capacity * sizeof *l->notes);
  }
  l->notes[l->note_count++] = text.data;
  pthread_mutex_unlock(&w->lock);
}

static void add_problem(look_work *w, int64_t index, status error) {
  problems_add(&w->problems[index],
               error_prefix(error, "case %s", w->look->cases[index].entry->name));
}

/* ---- one case ---- */

/* Directions and spacings, as `orient` sees them. */
static void describe_axes(const volume *v, case_look *look) {
  const grid_map to_ras = grid_to_axes(v->affine, v->size, "RAS");
  affine_spacing(v->affine, look->spacing_mm);
  for (int world = 0; world < 3; world++) {
    int along = look->ras_axis[world] = to_ras.axis[world];
    look->axes[along] = to_ras.flip[world] ? "LPI"[world] : "RAS"[world];
    look->spacing_ras_mm[world] = look->spacing_mm[along];
  }
}

static void note_forms(look_work *w, const char *path, const file_bytes *file) {
  double apart[3];
  if (!nifti_forms_differ(path, file->data, file->length, apart)) return;
  double largest = fmax(apart[0], fmax(apart[1], apart[2]));
  if (largest > FORMS_APART_VOXELS)
    add_note(w, "%s: qform and sform put a voxel up to %.3g voxels apart; the sform counts", path,
             largest);
}

static status take_samples(look_work *w, int64_t index, const medical_case *c, int64_t foreground) {
  int64_t step = (foreground + SAMPLES_A_CASE - 1) / SAMPLES_A_CASE, seen = 0, count = 0;
  int64_t channels = c->image.channels,
          voxels = c->image.size[0] * c->image.size[1] * c->image.size[2];
  if (foreground == 0) return OK;
  size_t bytes = (size_t)((foreground / step + 1) * channels) * sizeof(float);
  float *samples = malloc(bytes);
  if (!samples) return error_out_of_memory(bytes);
  for (int64_t v = 0; v < voxels; v++)
    if (c->label.data[v] > 0 && c->label.data[v] != LABEL_UNKNOWN && seen++ % step == 0)
      memcpy(samples + count++ * channels, c->image.data + v * channels,
             (size_t)channels * sizeof *samples);
  w->samples[index] = samples;
  w->sample_counts[index] = count;
  return OK;
}

/* Least, largest and mean value; says what nothing can be learned from. */
static void describe_values(look_work *w, const volume *v, case_look *look) {
  const char *name = look->entry->name;
  int64_t values = v->size[0] * v->size[1] * v->size[2] * v->channels;
  double sum = 0;
  look->min = INFINITY;
  look->max = -INFINITY;
  for (int64_t k = 0; k < v->channels; k++) {
    double least = INFINITY, largest = -INFINITY;
    for (int64_t i = k; i < values; i += v->channels) {
      double value = (double)v->data[i];
      sum += value;
      least = fmin(least, value);
      largest = fmax(largest, value);
    }
    if (least == largest && v->channels == 1)
      add_note(w, "case %s: every voxel of the image is %.4g", name, least);
    else if (least == largest)
      add_note(w, "case %s: every voxel of channel %lld is %.4g", name, (long long)k, least);
    look->min = fmin(look->min, least);
    look->max = fmax(look->max, largest);
  }
  look->mean = sum / (double)values;
  double furthest = fmax(-look->min, look->max);
  if (furthest > LARGEST_SQUARED)
    add_note(w, "case %s: values reach %.4g, whose square is more than float32 holds", name,
             -look->min > look->max ? look->min : look->max);
}

static void note_flatness(look_work *w, const case_look *look) {
  const long long size[3] = {look->size[0], look->size[1], look->size[2]};
  for (int a = 0; a < 3; a++)
    if (size[a] == 1)
      add_note(w, "case %s: one voxel along %c of the file; %lld × %lld × %lld is no volume",
               look->entry->name, "xyz"[a], size[0], size[1], size[2]);
}

static status describe(look_work *w, int64_t index, const medical_case *c) {
  case_look *look = &w->look->cases[index];
  const volume *v = &c->image;
  int64_t voxels = v->size[0] * v->size[1] * v->size[2], foreground = 0;
  memcpy(look->size, v->size, sizeof look->size);
  look->channels = v->channels;
  describe_axes(v, look);
  look->voxel_ml = affine_voxel_mm3(v->affine) / 1000;
  describe_values(w, v, look);
  note_flatness(w, look);
  int64_t low[3], high[3];
  if (volume_box_beyond(v, -INFINITY, 0, low, high))
    for (int a = 0; a < 3; a++) look->box_size[a] = high[a] + 1 - low[a];
  if (!c->label.data) return OK;
  look->class_voxels = calloc((size_t)w->look->data->class_count, sizeof *look->class_voxels);
  if (!look->class_voxels) return error_out_of_memory(4096);
  int64_t counts[LABEL_VALUES] = {0};
  for (int64_t i = 0; i < voxels; i++) counts[c->label.data[i]]++;
  for (int k = 0; k < w->look->data->class_count; k++) look->class_voxels[k] = counts[k];
  for (int k = 1; k < w->look->data->class_count; k++) foreground += look->class_voxels[k];
  look->unknown = (double)counts[LABEL_UNKNOWN] / (double)voxels;
  /* What is learned from intensities must not come from cases that are reported on. */
  return look->entry->role == ROLE_TRAIN ? take_samples(w, index, c, foreground) : OK;
}

/* Says of each file what is wrong with it by itself; false when it is nothing. */
static bool blame_files(look_work *w, int64_t index) {
  const case_entry *entry = w->look->cases[index].entry;
  bool found = false;
  for (int i = 0; i <= entry->more_image_count + (entry->label != NULL); i++) {
    volume v = {0};
    labels l = {0};
    status error = i == 0                         ? nifti_read_volume(entry->image, &v)
                   : i <= entry->more_image_count ? nifti_read_volume(entry->more_images[i - 1], &v)
                                                  : nifti_read_labels(entry->label, &l);
    found |= error != OK;
    add_problem(w, index, error);
    volume_free(&v);
    labels_free(&l);
  }
  return found;
}

static void look_at_case(void *context, int64_t index) {
  look_work *w = context;
  case_look *look = &w->look->cases[index];
  const case_entry *entry = look->entry;
  case_files files = {0};
  medical_case c = {0};
  status error = case_files_load(entry, &files);
  if (!error) {
    look->image_hash = bytes_hash(files.images[0].data, files.images[0].length);
    error = case_parse(entry, &files, &c);
  }
  if (!error) error = case_check_channels(entry, c.image.channels, w->look->data);
  if (!error) {
    note_forms(w, entry->image, &files.images[0]);
    for (int i = 0; i < entry->more_image_count; i++)
      note_forms(w, entry->more_images[i], &files.images[1 + i]);
    if (entry->label) note_forms(w, entry->label, &files.label);
    error = describe(w, index, &c);
    add_problem(w, index, error);
    look->is_good = !error;
  } else if (blame_files(w, index)) {
    error_free(error);
  } else {
    add_problem(w, index, error);
  }
  case_files_free(&files);
  case_free(&c);
  pthread_mutex_lock(&w->lock);
  w->progress.done++;
  report_cases(&w->progress, 0);
  pthread_mutex_unlock(&w->lock);
}

/* ---- the whole ---- */

static status summarize_channel(const look_work *w, int channel, channel_values *out) {
  const dataset_look *l = w->look;
  int64_t count = 0, at = 0;
  for (int i = 0; i < l->data->case_count; i++) count += w->sample_counts[i];
  *out = (channel_values){.count = count};
  if (count == 0) return OK;
  double *values = malloc((size_t)count * sizeof *values), sum = 0, squares = 0;
  if (!values) return error_out_of_memory((size_t)count * sizeof *values);
  for (int i = 0; i < l->data->case_count; i++)
    for (int64_t k = 0; k < w->sample_counts[i]; k++)
      values[at++] = (double)w->samples[i][k * l->channel_count + channel];
  for (int64_t i = 0; i < count; i++) sum += values[i];
  out->mean = sum / (double)count;
  for (int64_t i = 0; i < count; i++) squares += (values[i] - out->mean) * (values[i] - out->mean);
  out->deviation = sqrt(squares / (double)count);
  sort_numbers(values, count);
  out->min = values[0];
  out->max = values[count - 1];
  out->percentile_0_5 = quantile_of_sorted(values, count, 0.005);
  out->median = quantile_of_sorted(values, count, 0.5);
  out->percentile_99_5 = quantile_of_sorted(values, count, 0.995);
  free(values);
  return OK;
}

static int by_hash(const void *a, const void *b) {
  const case_look *x = *(const case_look *const *)a, *y = *(const case_look *const *)b;
  if (x->image_hash != y->image_hash) return x->image_hash < y->image_hash ? -1 : 1;
  return strcmp(x->entry->name, y->entry->name);
}

/* Then the first number of two cases' spacings is of two directions in the patient. */
static void note_mixed_axes(look_work *w) {
  const dataset_look *l = w->look;
  const case_look *first = NULL;
  for (int i = 0; i < l->data->case_count; i++) {
    const case_look *c = &l->cases[i];
    if (!c->is_good) continue;
    if (!first) first = c;
    if (memcmp(c->ras_axis, first->ras_axis, sizeof c->ras_axis) == 0) continue;
    add_note(w,
             "the files' axes are not in one order (case %s %s, case %s %s), so spacing_mm mixes "
             "directions: after orient, resample to spacing_ras_mm (of RAS)",
             first->entry->name, first->axes, c->entry->name, c->axes);
    return;
  }
}

static status note_doubles(look_work *w) {
  int n = w->look->data->case_count, good = 0;
  const case_look **cases = malloc((size_t)(n + 1) * sizeof *cases);
  if (!cases) return error_out_of_memory((size_t)n * sizeof *cases);
  for (int i = 0; i < n; i++)
    if (w->look->cases[i].is_good && w->look->cases[i].entry->more_image_count == 0)
      cases[good++] = &w->look->cases[i];
  qsort(cases, (size_t)good, sizeof *cases, by_hash);
  for (int i = 1; i < good; i++)
    if (cases[i]->image_hash == cases[i - 1]->image_hash)
      add_note(w, "cases %s and %s hold the same image", cases[i - 1]->entry->name,
               cases[i]->entry->name);
  free(cases);
  return OK;
}

static void note_unused_classes(look_work *w) {
  const dataset_look *l = w->look;
  bool any_label = false, used[LABEL_CLASSES] = {0}, any_used = false;
  for (int i = 0; i < l->data->case_count; i++) {
    any_label |= l->cases[i].class_voxels != NULL;
    for (int c = 1; c < l->data->class_count && l->cases[i].class_voxels; c++)
      used[c] |= l->cases[i].class_voxels[c] > 0;
  }
  for (int c = 1; c < l->data->class_count; c++) any_used |= used[c];
  if (any_label && !any_used) add_note(w, "no label has a voxel of any class but the background");
  for (int c = 1; c < l->data->class_count && any_used; c++)
    if (!used[c]) add_note(w, "class %d (%s) is in no label", c, l->data->class_names[c]);
  bool unknown = false;
  for (int i = 0; i < l->data->case_count; i++) unknown |= l->cases[i].unknown > 0;
  if (l->data->ignore_label && any_label && !unknown)
    add_note(w, "the ignore label %d is in no label", l->data->ignore_label);
}

/* `found` keeps the first problems only; the report of a case has all. */
static void keep_messages(const problems *all, case_look *look) {
  if (all->count == 0) return;
  int kept = problems_kept(all);
  look->problems = memory_take((size_t)kept * sizeof *look->problems);
  for (int i = 0; i < kept; i++)
    look->problems[look->problem_count++] = memory_strdup(error_message(all->list[i]));
}

status dataset_look_at(const dataset *data, thread_pool *pool, const reporter *report,
                       dataset_look *out) {
  size_t n = (size_t)data->case_count + 1;
  *out = (dataset_look){.data = data,
                        .cases = calloc(n, sizeof *out->cases),
                        .channel_count = data->channels,
                        .channels = calloc((size_t)data->channels, sizeof *out->channels)};
  look_work w = {.look = out,
                 .progress = {.report = report,
                              .stage = "data check",
                              .count = data->case_count,
                              .started_s = clock_now_s()},
                 .samples = calloc(n, sizeof *w.samples),
                 .sample_counts = calloc(n, sizeof *w.sample_counts),
                 .problems = calloc(n, sizeof *w.problems)};
  status error = OK;
  if (!out->cases || !out->channels || !w.samples || !w.sample_counts || !w.problems)
    error = error_out_of_memory(n * sizeof *out->cases);
  pthread_mutex_init(&w.lock, NULL);
  if (!error) {
    for (int i = 0; i < data->case_count; i++) out->cases[i].entry = &data->cases[i];
    parallel_for(pool, data->case_count, look_at_case, &w);
    for (int i = 0; i < data->case_count; i++) {
      keep_messages(&w.problems[i], &out->cases[i]);
      problems_add(&out->found, problems_take(&w.problems[i]));
    }
    note_unused_classes(&w);
    note_mixed_axes(&w);
    error = note_doubles(&w);
    /* Threads come in any order. */
    if (out->note_count > 0)
      qsort(out->notes, (size_t)out->note_count, sizeof *out->notes, by_text);
  }
  for (int c = 0; c < data->channels && !error; c++)
    error = summarize_channel(&w, c, &out->channels[c]);
  for (int i = 0; i < data->case_count && w.samples; i++) free(w.samples[i]);
  free(w.samples);
  free(w.sample_counts);
  free(w.problems);
  pthread_mutex_destroy(&w.lock);
  return error;
}

void dataset_look_free(dataset_look *l) {
  for (int i = 0; l->data && l->cases && i < l->data->case_count; i++) {
    case_look *c = &l->cases[i];
    free(c->class_voxels);
    for (int k = 0; k < c->problem_count; k++) free(c->problems[k]);
    free(c->problems);
  }
  for (int i = 0; i < l->note_count; i++) free(l->notes[i]);
  free(l->notes);
  free(l->cases);
  free(l->channels);
  problems_free(&l->found);
  *l = (dataset_look){0};
}

/* ---- report ---- */

typedef struct spread { /* of a number over the good cases */
  int64_t count;
  double min, median, max, mean;
} spread;

typedef double (*case_number)(const case_look *c, int which);

static double size_of(const case_look *c, int axis) {
  return (double)c->size[axis];
}

static double spacing_of(const case_look *c, int axis) {
  return c->spacing_mm[axis];
}

static double spacing_ras_of(const case_look *c, int axis) {
  return c->spacing_ras_mm[axis];
}

/* NaN: the class is not in the case. */
static double volume_of(const case_look *c, int class_number) {
  if (!c->class_voxels || c->class_voxels[class_number] == 0) return (double)NAN;
  return (double)c->class_voxels[class_number] * c->voxel_ml;
}

/* NaN: every voxel's class is known. */
static double unknown_of(const case_look *c, int which) {
  (void)which;
  return c->unknown > 0 ? c->unknown : (double)NAN;
}

static spread spread_over(const dataset_look *l, case_number number, int which) {
  spread s = {0};
  double *values = memory_take((size_t)l->data->case_count * sizeof *values), sum = 0;
  for (int i = 0; i < l->data->case_count; i++) {
    double value = l->cases[i].is_good ? number(&l->cases[i], which) : (double)NAN;
    if (!isnan(value)) values[s.count++] = value;
  }
  if (s.count > 0) {
    sort_numbers(values, s.count);
    for (int64_t i = 0; i < s.count; i++) sum += values[i];
    s.min = values[0];
    s.median = quantile_of_sorted(values, s.count, 0.5);
    s.max = values[s.count - 1];
    s.mean = sum / (double)s.count;
  }
  free(values);
  return s;
}

static int good_cases(const dataset_look *l) {
  int good = 0;
  for (int i = 0; i < l->data->case_count; i++) good += l->cases[i].is_good;
  return good;
}

static void print_triple(FILE *out, double x, double y, double z) {
  enum { WIDTH = 26, SIGN_BYTES = 2 }; /* × takes two bytes and one column */
  char text[96];
  int bytes = snprintf(text, sizeof text, "%.4g × %.4g × %.4g", x, y, z);
  fprintf(out, "%*s%s", WIDTH - bytes + 2 * (SIGN_BYTES - 1), "", text);
}

static void print_three(const dataset_look *l, const char *title, case_number number, FILE *out) {
  spread s[3];
  for (int a = 0; a < 3; a++) s[a] = spread_over(l, number, a);
  fprintf(out, "%-12s", title);
  print_triple(out, s[0].min, s[1].min, s[2].min);
  print_triple(out, s[0].median, s[1].median, s[2].median);
  print_triple(out, s[0].max, s[1].max, s[2].max);
  fputc('\n', out);
}

/* Do the axes of some files run in another order than those of RAS? */
static bool is_permuted(const dataset_look *l) {
  static const int in_order[3] = {0, 1, 2};
  bool is = false;
  for (int i = 0; i < l->data->case_count; i++)
    is |= l->cases[i].is_good && memcmp(l->cases[i].ras_axis, in_order, sizeof in_order) != 0;
  return is;
}

static void print_axes(const dataset_look *l, FILE *out) {
  fputs("orientation ", out);
  for (int i = 0; i < l->data->case_count; i++) {
    const char *axes = l->cases[i].axes;
    int count = 0;
    bool is_first = l->cases[i].is_good;
    for (int k = 0; k < l->data->case_count; k++) {
      bool same = l->cases[k].is_good && strcmp(l->cases[k].axes, axes) == 0;
      if (same && k < i) is_first = false;
      count += same;
    }
    if (is_first) fprintf(out, " %s (%d)", axes, count);
  }
  fputc('\n', out);
}

void dataset_look_print(const dataset_look *l, FILE *out) {
  const dataset *d = l->data;
  int good = good_cases(l);
  char cases[160];
  fprintf(out, "%s, %s; %d good\n", d->name, dataset_describe(d, cases), good);
  if (good > 0) {
    fprintf(out, "%-12s%26s%26s%26s\n", "", "smallest", "median", "largest");
    print_three(l, "size", size_of, out);
    print_three(l, "spacing mm", spacing_of, out);
    if (is_permuted(l)) print_three(l, "  as RAS", spacing_ras_of, out);
    print_axes(l, out);
  }
  for (int c = 0; c < l->channel_count; c++) {
    const channel_values *v = &l->channels[c];
    if (v->count == 0) continue;
    if (c == 0)
      fprintf(out, "\nforeground %10s %10s %10s %10s %10s %10s %10s\n", "mean", "deviation",
              "least", "0.5 %", "median", "99.5 %", "largest");
    fprintf(out, "channel %-2d %10.4g %10.4g %10.4g %10.4g %10.4g %10.4g %10.4g\n", c, v->mean,
            v->deviation, v->min, v->percentile_0_5, v->median, v->percentile_99_5, v->max);
  }
  fprintf(out, "\n%-5s %-24s %6s %10s %10s %10s %10s\n", "class", "", "cases", "least ml", "median",
          "mean", "largest");
  for (int c = 1; c < d->class_count; c++) {
    spread s = spread_over(l, volume_of, c);
    fprintf(out, "%5d %-24s %6lld", c, d->class_names[c], (long long)s.count);
    if (s.count > 0) fprintf(out, " %10.4g %10.4g %10.4g %10.4g", s.min, s.median, s.mean, s.max);
    fputc('\n', out);
  }
  if (d->ignore_label) {
    spread s = spread_over(l, unknown_of, 0);
    fprintf(out, "%5d %-24s %6lld", d->ignore_label, "unknown, left out", (long long)s.count);
    if (s.count > 0)
      fprintf(out, "   %.3g to %.3g %% of the voxels, mean %.3g", 100 * s.min, 100 * s.max,
              100 * s.mean);
    fputc('\n', out);
  }
  if (l->note_count > 0) fputc('\n', out);
  for (int i = 0; i < l->note_count; i++) fprintf(out, "note: %s\n", l->notes[i]);
}

static json_t *three(const dataset_look *l, case_number number) {
  static const char *const keys[] = {"smallest", "median", "largest"};
  json_t *lists[3] = {json_array(), json_array(), json_array()}, *entry = json_object();
  for (int a = 0; a < 3; a++) {
    spread s = spread_over(l, number, a);
    json_array_append_new(lists[0], json_real(s.min));
    json_array_append_new(lists[1], json_real(s.median));
    json_array_append_new(lists[2], json_real(s.max));
  }
  for (int i = 0; i < 3; i++) json_object_set_new(entry, keys[i], lists[i]);
  return entry;
}

static json_t *case_json(const dataset_look *l, const case_look *c) {
  const case_entry *e = c->entry;
  json_t *entry = json_pack("{s:o, s:s, s:b}", "name", json_text(e->name), "role",
                            role_names[e->role], "good", c->is_good);
  json_t *wrong = json_array();
  for (int i = 0; i < c->problem_count; i++)
    json_array_append_new(wrong, json_text(c->problems[i]));
  json_object_set_new(entry, "problems", wrong);
  if (!c->is_good) return entry;
  json_object_update_new(entry, json_pack("{s:[I, I, I], s:[f, f, f], s:s, s:I, s:f, s:f, s:f}",
                                          "size", (json_int_t)c->size[0], (json_int_t)c->size[1],
                                          (json_int_t)c->size[2], "spacing_mm", c->spacing_mm[0],
                                          c->spacing_mm[1], c->spacing_mm[2], "axes", c->axes,
                                          "channels", (json_int_t)c->channels, "min", c->min, "max",
                                          c->max, "mean", c->mean));
  if (!c->class_voxels) return entry;
  json_t *volumes = json_array();
  for (int k = 0; k < l->data->class_count; k++)
    json_array_append_new(volumes, json_real((double)c->class_voxels[k] * c->voxel_ml));
  json_object_set_new(entry, "class_volumes_ml", volumes);
  if (l->data->ignore_label) json_object_set_new(entry, "unknown_share", json_real(c->unknown));
  return entry;
}

static json_t *look_json(const dataset_look *l) {
  const dataset *d = l->data;
  json_t *channels = json_array(), *classes = json_array(), *cases = json_array(),
         *notes = json_array();
  for (int c = 0; c < l->channel_count; c++) {
    const channel_values *v = &l->channels[c];
    if (v->count > 0)
      json_array_append_new(channels,
                            json_pack("{s:i, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "channel", c,
                                      "voxels", (json_int_t)v->count, "mean", v->mean,
                                      "standard_deviation", v->deviation, "min", v->min,
                                      "percentile_0_5", v->percentile_0_5, "median", v->median,
                                      "percentile_99_5", v->percentile_99_5, "max", v->max));
  }
  for (int c = 1; c < d->class_count; c++) {
    spread s = spread_over(l, volume_of, c);
    json_t *entry = json_pack("{s:i, s:s, s:I}", "number", c, "name", d->class_names[c], "cases",
                              (json_int_t)s.count);
    if (s.count > 0)
      json_object_set_new(entry, "volume_ml",
                          json_pack("{s:f, s:f, s:f, s:f}", "min", s.min, "median", s.median,
                                    "mean", s.mean, "max", s.max));
    json_array_append_new(classes, entry);
  }
  for (int i = 0; i < d->case_count; i++) json_array_append_new(cases, case_json(l, &l->cases[i]));
  for (int i = 0; i < l->note_count; i++) json_array_append_new(notes, json_text(l->notes[i]));
  json_t *root = json_pack("{s:o, s:i, s:i, s:o}", "name", json_text(d->name), "case_count",
                           d->case_count, "good", good_cases(l), "notes", notes);
  if (d->ignore_label) json_object_set_new(root, "ignore_label", json_integer(d->ignore_label));
  if (good_cases(l) > 0)
    json_object_update_new(root, json_pack("{s:o, s:o, s:o}", "size", three(l, size_of),
                                           "spacing_mm", three(l, spacing_of), "spacing_ras_mm",
                                           three(l, spacing_ras_of)));
  json_object_update_new(root, json_pack("{s:o, s:o, s:o}", "foreground_intensities", channels,
                                         "classes", classes, "cases", cases));
  return root;
}

status dataset_look_write(const dataset_look *l, const char *path) {
  json_t *root = look_json(l);
  status error = json_write(path, root, JSON_INDENT(2) | JSON_REAL_PRECISION(9), "\n");
  json_decref(root);
  return error;
}
