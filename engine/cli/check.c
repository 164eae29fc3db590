/* check: the plan of a run, as a compiler would print it. What is read, what every stage computes, what
 * it takes, what is written, and what may surprise. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/device_name.h"
#include "base/files.h"
#include "base/limits.h"
#include "base/text.h"
#include "cli/opened.h"
#include "evaluate/metrics.h"
#include "execute/estimate.h"
#include "ops/method/cells.h"
#include "run/run.h"

/* Beyond it, source files are not read to find their entries in the cache. */
static const double LOOK_UP_BYTES = 2.0 * 1024 * 1024 * 1024;

enum { LABEL_WIDTH = 12 };

typedef struct checked {
  opened *o;
  char *folder, *cache; /* where the run would go; no cache: NULL */
  text_buffer notes;    /* a line each */
  text_buffer files;    /* that the run writes */
  fitted_stage *fitted; /* by stage */
  device_speed speed;
  double seconds; /* of training, all stages */
} checked;

static void note(checked *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void note(checked *c, const char *format, ...) {
  va_list args;
  va_start(args, format);
  text_add(&c->notes, "  ");
  text_addv(&c->notes, format, args);
  text_add(&c->notes, "\n");
  va_end(args);
}

static bool asks_for_gpu(const checked *c) {
  device_kind kind;
  return device_name_read(c->o->p->device, &kind, NULL) && kind == DEVICE_CUDA;
}

static void row(const char *label, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void row(const char *label, const char *format, ...) {
  va_list args;
  va_start(args, format);
  printf("  %-*s ", LABEL_WIDTH, label);
  vprintf(format, args);
  putchar('\n');
  va_end(args);
}

static const char *plural(int64_t n) {
  return n == 1 ? "" : "s";
}

/* ---- what is read ------------------------------------------------------------------------- */

/* Smallest and largest of what the headers say, and the bytes of the files. */
typedef struct extent {
  int64_t size[2][3];
  double spacing_mm[2][3];
  double bytes;
  int count;
  int padded[3],
      trained; /* training cases that are smaller than the crop along an axis; all of them */
  int flat;    /* cases with one voxel along an axis */
  const char *first_flat;
  bool shrinks; /* cases may be smaller than their headers say */
} extent;

static double file_bytes_of(const char *path) {
  struct stat info;
  return path && stat(path, &info) == 0 ? (double)info.st_size : 0;
}

static void measure_case(const case_entry *entry, const volume *grid, extent *e) {
  double spacing[3];
  affine_spacing(grid->affine, spacing);
  for (int a = 0; a < 3; a++) {
    bool first = e->count == 0;
    if (first || grid->size[a] < e->size[0][a]) e->size[0][a] = grid->size[a];
    if (first || grid->size[a] > e->size[1][a]) e->size[1][a] = grid->size[a];
    if (first || spacing[a] < e->spacing_mm[0][a]) e->spacing_mm[0][a] = spacing[a];
    if (first || spacing[a] > e->spacing_mm[1][a]) e->spacing_mm[1][a] = spacing[a];
  }
  bool is_flat = grid->size[0] == 1 || grid->size[1] == 1 || grid->size[2] == 1;
  if (is_flat && e->flat++ == 0) e->first_flat = entry->name;
  e->count++;
  e->bytes += file_bytes_of(entry->image) + file_bytes_of(entry->label);
  for (int i = 0; i < entry->more_image_count; i++)
    e->bytes += file_bytes_of(entry->more_images[i]);
}

/* Along which axes is the case smaller than the crops of some stage? */
static status compare_with_crops(const opened *o, const case_entry *entry, const volume *grid,
                                 extent *e) {
  const data_spec *last = NULL; /* most stages share one list */
  bool any[3] = {false}, padded[3];
  for (int i = 0; i < o->p->stage_count; i++) {
    const stage_spec *s = &o->p->stages[i];
    if (!s->enabled || s->data == last) continue;
    last = s->data;
    TRY(error_prefix(sample_is_padded(last, grid, padded, &e->shrinks), "case %s", entry->name));
    for (int a = 0; a < 3; a++) any[a] |= padded[a];
  }
  for (int a = 0; a < 3; a++) e->padded[a] += any[a];
  e->trained++;
  return OK;
}

/* The cases of every role; files with a bad header are all reported. */
static status measure(const opened *o, extent *e) {
  const dataset *d = o->data;
  volume *grids = calloc((size_t)d->case_count + 1, sizeof *grids);
  *e = (extent){0};
  if (!grids) return error_out_of_memory((size_t)d->case_count * sizeof *grids);
  status error = dataset_read_headers(d, o->device->pool, grids);
  for (int i = 0; i < d->case_count && !error; i++) {
    if (d->cases[i].role != ROLE_NONE) measure_case(&d->cases[i], &grids[i], e);
    if (d->cases[i].role == ROLE_TRAIN) error = compare_with_crops(o, &d->cases[i], &grids[i], e);
  }
  free(grids);
  return error;
}

static void add_range(text_buffer *out, const double low[3], const double high[3],
                      const char *unit) {
  bool same = true;
  for (int a = 0; a < 3; a++) same &= fabs(high[a] - low[a]) < 5e-4 * fabs(high[a]);
  text_add(out, "%.4g×%.4g×%.4g", low[0], low[1], low[2]);
  if (!same) text_add(out, " to %.4g×%.4g×%.4g", high[0], high[1], high[2]);
  text_add(out, " %s", unit);
}

static void print_images(const opened *o, const extent *e) {
  text_buffer line = {0};
  char bytes[24];
  double size[2][3];
  for (int k = 0; k < 2; k++)
    for (int a = 0; a < 3; a++) size[k][a] = (double)e->size[k][a];
  text_add(&line, "%d channel%s, ", o->data->channels, plural(o->data->channels));
  add_range(&line, size[0], size[1], "voxels, ");
  add_range(&line, e->spacing_mm[0], e->spacing_mm[1], "mm; ");
  row("images", "%s%s of files", line.data, format_bytes(bytes, e->bytes));
  text_free(&line);
}

static void print_classes(const dataset *d) {
  enum { SHOWN = 16 };
  text_buffer line = {0};
  for (int i = 0; i < d->class_count && i < SHOWN; i++)
    text_add(&line, "%s%d %s", i ? ", " : "", i, d->class_names[i]);
  if (d->class_count > SHOWN) text_add(&line, ", …");
  if (d->ignore_label) text_add(&line, "; %d unknown, left out", d->ignore_label);
  row("classes", "%s", line.data);
  text_free(&line);
}

/* Of each its classes, and the label of voxels that lie in none of the regions behind it. */
static void print_regions(const data_spec *d) {
  text_buffer line = {0};
  if (d->region_count == 0) return;
  for (int i = 0; i < d->region_count; i++) {
    const class_group *g = &d->regions[i];
    text_add(&line, "%s%s [", i ? ", " : "", g->name);
    for (int k = 0; k < g->count; k++) text_add(&line, "%s%d", k ? ", " : "", g->classes[k]);
    text_add(&line, "]");
  }
  text_add(&line, "; predicted as");
  for (int i = 0; i < d->region_count; i++) text_add(&line, " %d", d->regions[i].label);
  row("regions", "%s", line.data);
  text_free(&line);
}

static void print_operators(const char *label, const op_use *uses, int count, const char *end) {
  text_buffer line = {0};
  for (int i = 0; i < count; i++) text_add(&line, "%s%s", i ? " → " : "", uses[i].op->name);
  row(label, "%s%s%s", count ? line.data : "", count ? " → " : "", end);
  text_free(&line);
}

static void print_sample(const opened *o, const stage_spec *s) {
  char crop[96];
  snprintf(crop, sizeof crop, "crop of %lld×%lld×%lld voxels, %d channel%s", (long long)s->crop[0],
           (long long)s->crop[1], (long long)s->crop[2], o->data->channels,
           plural(o->data->channels));
  print_operators("sample", s->data->sample, s->data->sample_count, crop);
}

static status print_cache(const checked *c, const extent *e) {
  const dataset *d = c->o->data;
  char bytes[24];
  int held = 0;
  if (!c->cache) {
    row("cache", "none: cases are prepared anew in every stage");
    return OK;
  }
  if (e->bytes > LOOK_UP_BYTES && file_exists(c->cache)) {
    row("cache", "%s; not looked through, that would mean reading %s", c->cache,
        format_bytes(bytes, e->bytes));
    return OK;
  }
  for (int i = 0; i < d->case_count && file_exists(c->cache); i++) {
    bool is = false;
    if (d->cases[i].role != ROLE_NONE)
      TRY(case_is_cached(&c->o->p->data, &d->cases[i], c->cache, &is));
    held += is;
  }
  row("cache", "%s: %d of %d cases are prepared", c->cache, held, e->count);
  return OK;
}

/* Zeros take the place of what a crop does not find. */
static void note_padding(checked *c, const extent *e) {
  text_buffer line = {0};
  for (int a = 0; a < 3; a++)
    if (e->padded[a])
      text_add(&line, "%s%d along %c", line.length ? ", " : "", e->padded[a], "xyz"[a]);
  if (line.length)
    note(c, "of %d training case%s %s%s %s smaller than the crop and padded with 0", e->trained,
         plural(e->trained), e->shrinks ? "at least " : "", line.data,
         e->padded[0] + e->padded[1] + e->padded[2] == 1 ? "is" : "are");
  text_free(&line);
}

static void note_flat(checked *c, const extent *e) {
  if (e->flat == 1)
    note(c, "case %s has one voxel along an axis", e->first_flat);
  else if (e->flat)
    note(c, "%d cases, %s among them, have one voxel along an axis", e->flat, e->first_flat);
}

static void note_cases(checked *c) {
  const dataset *d = c->o->data;
  const data_spec *spec = &c->o->p->data;
  int nobody = dataset_role_count(d, ROLE_NONE), unlabelled = 0;
  for (int i = 0; i < d->case_count; i++)
    unlabelled +=
        !d->cases[i].label && !d->cases[i].is_label_withheld && d->cases[i].role != ROLE_NONE;
  if (nobody)
    note(c, "%d case%s of the data set ha%s no role", nobody, plural(nobody),
         nobody == 1 ? "s" : "ve");
  if (unlabelled)
    note(c, "%d case%s ha%s no label: only stages that read none learn from %s", unlabelled,
         plural(unlabelled), unlabelled == 1 ? "s" : "ve", unlabelled == 1 ? "it" : "them");
  if (spec->label_fraction < 1)
    note(c, "label_fraction: stages that read labels train on %d of %d cases",
         dataset_role_usable(d, ROLE_TRAIN, false), dataset_role_count(d, ROLE_TRAIN));
}

static status print_data(checked *c) {
  const opened *o = c->o;
  const stage_spec *common = NULL; /* one that crops as `data: sample` says */
  char cases[160];
  extent e;
  TRY(measure(o, &e));
  printf("\ndata %s, %s\n", o->data->name, o->p->data.dataset);
  row("cases", "%s; none in two roles", dataset_describe(o->data, cases));
  print_images(o, &e);
  print_classes(o->data);
  print_regions(&o->p->data);
  print_operators("prepare", o->p->data.prepare, o->p->data.prepare_count, "prepared case");
  TRY(print_cache(c, &e));
  for (int i = 0; i < o->p->stage_count; i++)
    if (o->p->stages[i].enabled && o->p->stages[i].data == &o->p->data) common = &o->p->stages[i];
  if (common) print_sample(o, common);
  note_cases(c);
  note_flat(c, &e);
  note_padding(c, &e);
  return OK;
}

/* ---- what a stage computes ---------------------------------------------------------------- */

/* The operator, block or `model` of an item. */
static const char *item_operator(const tree *body) {
  for (int i = 0; body->kind == TREE_MAP && i < body->count; i++)
    if (strcmp(body->keys[i]->text, "when") != 0 && strcmp(body->keys[i]->text, "parameters") != 0)
      return body->keys[i]->text;
  return "";
}

static void print_value(const stage_graph *g, const graph_name *n, const char *operator) {
  enum { SHOWN = 6 };
  text_buffer shapes = {0};
  char shape[96];
  for (int i = 0; i < n->count && i < SHOWN; i++)
    text_add(&shapes, "%s%s", i ? ", " : "",
             shape_format(shape, &g->g->values[n->values[i]].type.shape));
  if (n->count > SHOWN) text_add(&shapes, ", … (%d)", n->count);
  bool is_scalar = n->count == 1 && g->g->values[n->values[0]].type.shape.rank == 0;
  printf("    %-24s %-18s %s\n", n->name, operator, is_scalar ? "a number" : shapes.data);
  text_free(&shapes);
}

static bool is_port(const char *name, const char *item, size_t length) {
  return strncmp(name, item, length) == 0 && name[length] == '.' && !strchr(name + length + 1, '.');
}

/* The first output of an item is the item itself; of the model, `net.out` says more than `net`. */
static void print_item(const stage_graph *g, const char *name, const char *operator) {
  size_t length = strlen(name);
  const graph_name *whole = stage_graph_find(g, name), *end = g->names.list + g->names.count;
  bool is_model = strcmp(operator, "model") == 0;
  if (!whole || whole->count < 1) return;
  if (!is_model) print_value(g, whole, operator);
  for (const graph_name *n = whole + 1; n < end && is_port(n->name, name, length); n++)
    if (n->count > 0 && (is_model || n->values[0] != whole->values[0]))
      print_value(g, n, is_model ? operator : "");
}

static void print_items(const stage_graph *g, const tree *list) {
  for (int i = 0; i < list->count; i++) {
    const tree *item = list->items[i];
    if (item->count == 1)
      print_item(g, item->keys[0]->text, item_operator(item->items[0]));
    else
      printf("    %-24s %lld items, several times\n", "repeat",
             (long long)(tree_get(item, "graph") ? tree_get(item, "graph")->count : 0));
  }
}

static void print_edges(const stage_graph *g, const stage_spec *s) {
  const char *const given[][2] = {
      {"image", "the batch"}, {"label", "the batch"}, {"regions", "label"}};
  for (int i = 0; i < 3; i++) {
    const graph_name *name = stage_graph_find(g, given[i][0]);
    if (name && value_is_read(g->g, name->values[0])) print_value(g, name, given[i][1]);
  }
  print_items(g, s->graph);
}

static void print_start(checked *c, const stage_spec *s) {
  text_buffer line = {0};
  if (s->init_from) {
    text_add(&line, "weights of %s", s->init_from);
    for (int i = 0; i < s->reset_count; i++)
      text_add(&line, "%s%s", i ? ", " : ", except what makes ", s->reset[i]);
  } else {
    text_add(&line, "fresh weights%s%s", s->initialize.op ? ", " : "",
             s->initialize.op ? s->initialize.op->name : "");
  }
  row("starts from", "%s", line.data);
  text_free(&line);
  if (s->init_skipped)
    note(c, "stage %s starts from fresh weights, since stage %s is switched off", s->name,
         s->init_skipped);
}

/* ---- what a stage takes ------------------------------------------------------------------- */

static void print_precision(const checked *c, const graph *g) {
  char line[PRECISION_TEXT_BYTES];
  if (describe_precision(g, c->o->device, line)) row("precision", "%s", line);
}

static void print_memory(checked *c, const stage_spec *s, const step_memory *m,
                         const plan *memory) {
  const opened *o = c->o;
  char parts[4][24];
  text_buffer again = {0};
  double crop =
      (double)(s->crop[0] * s->crop[1] * s->crop[2]) * (double)(4 * o->data->channels + 1);
  double ahead = crop * (double)s->batch * (double)o->p->data.queue;
  double wanted = (double)memory->arena_bytes + (double)m->outside_bytes + ahead;
  double allowed = limits_memory();
  row("memory", "%s for the step (alive at once at most %s), %s for %s, %s for batches ahead",
      format_bytes(parts[0], (double)memory->arena_bytes),
      format_bytes(parts[1], (double)memory->lower_bound_bytes),
      format_bytes(parts[2], (double)m->outside_bytes), step_memory_outside(m),
      format_bytes(parts[3], ahead));
  if (wanted > allowed && !asks_for_gpu(c))
    note(c,
         "stage %s wants %s on the CPU, beside prepared cases, and this process may have %s here: "
         "the key memory of the stage makes it less",
         s->name, format_bytes(parts[0], wanted), format_bytes(parts[1], allowed));
  if (s->memory_bytes == 0) return;
  step_memory_describe(m, &again);
  row("budget", "%s; %s", format_bytes(parts[0], (double)s->memory_bytes),
      again.data ? again.data : "met without recomputing anything");
  text_free(&again);
}

/* Seconds where that says more than 0:03. */
static char *short_duration(char out[24], double seconds) {
  if (seconds >= 60) return format_duration(out, seconds);
  snprintf(out, 24, "%.2g s", seconds);
  return out;
}

static void print_time(checked *c, const stage_spec *s, int64_t steps, double seconds) {
  char once[24], epoch[24], whole[24];
  double all = seconds * (double)steps * (double)s->epochs;
  bool is_limited = s->time_limit_s > 0 && s->time_limit_s < all;
  if (is_limited) {
    all = s->time_limit_s;
    note(c, "stage %s ends by its time_limit, where this machine has got to by then", s->name);
  }
  row("time here", "about %s a step, %s an epoch, %s in all%s", short_duration(once, seconds),
      short_duration(epoch, seconds * (double)steps), short_duration(whole, all),
      is_limited ? " by its time_limit" : "");
  c->seconds += all;
}

static void print_schedule(const stage_spec *s, int64_t steps, bool label_free) {
  row("training", "%lld epoch%s of %lld step%s, %lld crop%s a step; %s; %s", (long long)s->epochs,
      plural(s->epochs), (long long)steps, plural(steps), (long long)(s->batch * s->accumulate),
      plural(s->batch * s->accumulate), s->optimizer.op->name,
      label_free ? "no label is read" : "labels are read");
}

/* "lr by warmup_cosine.lua" */
static void print_scripts(const stage_spec *s) {
  text_buffer line = {0};
  for (int i = 0; i < s->schedule_count; i++) {
    const char *path = s->schedules[i].script.path, *slash = strrchr(path, '/');
    text_add(&line, "%s%s by %s", i ? ", " : "", s->schedules[i].target, slash ? slash + 1 : path);
  }
  if (line.length) row("schedules", "%s", line.data);
  text_free(&line);
}

static void add_files(checked *c, const stage_spec *s, const graph *g) {
  char weights[24], state[24], name[160];
  double bytes = (double)graph_param_elements(g) * 4;
  snprintf(name, sizeof name, "weights/%s.safetensors", s->name);
  text_add(&c->files, "  %-34s %s; state.safetensors of %s until then\n", name,
           format_bytes(weights, bytes),
           format_bytes(state, bytes * (1 + s->optimizer.op->state_buffers + (s->ema_decay > 0) +
                                        (s->best != NULL))));
}

static void note_batch(checked *c, const stage_spec *s, bool label_free) {
  const data_spec *d = &c->o->p->data;
  int64_t crops = dataset_steps(c->o->data, ROLE_TRAIN, d, label_free, 1);
  if (s->batch > crops)
    note(c,
         "stage %s: a batch of %lld is more than the %lld crop%s of all cases, so every batch has "
         "cases several times",
         s->name, (long long)s->batch, (long long)crops, plural(crops));
}

/* A crop and its mirror image have opposite orders, which a network cannot tell apart. */
static void note_mirroring(checked *c, const stage_spec *s, const graph *g) {
  unsigned shuffled = 0, mirrored = 0;
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    const cell_attrs *cut = strcmp(n->op->name, "shuffle_cells") == 0 ? n->attrs : NULL;
    for (int a = 0; a < 3 && cut; a++)
      if (cut->cells[a] > 1) shuffled |= 1u << a;
  }
  for (int i = 0; i < s->data->sample_count; i++) {
    const op_use *use = &s->data->sample[i];
    if (strcmp(use->op->name, "random_flip") == 0 &&
        *attr_number(use->op, use->attrs, "probability") > 0)
      mirrored |= *attr_axes(use->op, use->attrs, "axes");
  }
  for (int a = 0; a < 3; a++)
    if (shuffled & mirrored & 1u << a)
      note(c,
           "stage %s mirrors crops along %c, along which it shuffles their parts: the order is "
           "ambiguous then; `sample` of the stage can leave that axis out",
           s->name, "xyz"[a]);
}

/* Nothing of the step's size is made: neither its memory nor its weights. */
static status check_stage(checked *c, const stage_spec *s) {
  stage_graph step;
  parameter_groups groups = {0};
  plan memory = {0};
  step_memory fitted;
  status error = OK;
  if (!fitted_take(&c->fitted[s - c->o->p->stages], &step, &fitted)) {
    TRY(expand_stage(c->o, s, s->batch, &step));
    error = stage_fit_memory(s, c->o->device, &step, &fitted);
  }
  graph *g = step.g;
  if (!error) error = parameter_groups_open(s, g, &groups);
  if (!error) error = program_check(g, c->o->device);
  if (!error) error = plan_memory(g, &fitted.use, &memory);
  if (!error) {
    bool label_free = step.label == VALUE_NONE && !s->use_labels;
    double update = stage_update_bytes(s, g);
    double seconds = (double)s->accumulate * graph_seconds(g, update, &c->speed);
    int64_t steps = stage_updates(s, c->o->data, &c->o->p->data, label_free);
    printf("\nstage %s\n", s->name);
    print_start(c, s);
    if (s->data != &c->o->p->data) print_sample(c->o, s);
    print_edges(&step, s);
    print_schedule(s, steps, label_free);
    print_scripts(s);
    row("size", "%lld parameters, %.4g GFLOP a step", (long long)graph_param_elements(g),
        (double)s->accumulate * graph_cost(g).flops / 1e9);
    print_precision(c, g);
    print_groups(&groups);
    print_memory(c, s, &fitted, &memory);
    print_time(c, s, steps, seconds);
    add_files(c, s, g);
    note_batch(c, s, label_free);
    note_mirroring(c, s, g);
  }
  plan_free(&memory);
  stage_graph_free(&step);
  return error;
}

/* ---- evaluation and results --------------------------------------------------------------- */

static void print_evaluation(checked *c) {
  const evaluate_spec *e = &c->o->p->evaluate;
  const window_spec *w = &e->windows;
  text_buffer metrics = {0};
  int cases = dataset_role_count(c->o->data, ROLE_TEST);
  if (!e->enabled) {
    note(c, "the file has no `evaluate:`: nothing is segmented or scored at the end");
    return;
  }
  for (int m = 0; m < METRIC_SLOTS; m++)
    if (e->metrics & METRIC_BIT(m))
      text_add(&metrics, "%s%s", metrics.length ? ", " : "", evaluate_metric(e, m)->name);
  printf("\nevaluation\n");
  row("segments", "%d test case%s by %s of stage %s, windows of %lld×%lld×%lld", cases,
      plural(cases), e->output, e->stage, (long long)w->size[0], (long long)w->size[1],
      (long long)w->size[2]);
  if (e->postprocess_count > 0)
    print_operators("postprocess", e->postprocess, e->postprocess_count, "segmentation");
  for (int i = 0; i < e->region_count; i++)
    text_add(&metrics, "%s%s", i ? ", " : " of the regions ", e->regions[i].name);
  if (e->region_count > 0 && c->o->p->data.region_count == 0)
    note(c, "regions are scored, but the network learns classes; data: regions has it learn them");
  row("scores", "%s, on the grid of the files", metrics.data);
  text_free(&metrics);
  if (cases == 0) note(c, "no case has the role test: there is nothing to evaluate");
  text_add(&c->files, "  %-34s %d segmentation%s\n", "predictions/", cases, plural(cases));
  text_add(&c->files, "  evaluation.json, evaluation.csv\n");
}

static void note_stages(checked *c) {
  const pipeline *p = c->o->p;
  for (int i = 0; i < p->stage_count; i++) {
    const stage_spec *s = &p->stages[i];
    if (!s->enabled) note(c, "stage %s is switched off", s->name);
    if (s->enabled && s->output_is_found && !s->output)
      note(c,
           "stage %s validates by its losses only: say what it segments, validate: {output: "
           "net.out}, for Dice",
           s->name);
    if (s->enabled && s->output && dataset_role_count(c->o->data, ROLE_VALIDATION) == 0)
      note(c, "stage %s validates, but no case has the role validation", s->name);
  }
}

/* check counts on the CPU; whether another device is here, only opening it tells. */
static void note_device(checked *c) {
  if (!asks_for_gpu(c)) return;
  device *d = NULL;
  status error = device_open(c->o->p->device, 1, &d, NULL);
  if (error)
    note(c, "the figures above are of the CPU; here the run would be refused: %s",
         error_message(error));
  else
    note(c, "the figures above are of the CPU; the run would use %s", d->description);
  error_free(error);
  device_close(d);
}

static status print_all(checked *c) {
  opened *o = c->o;
  char whole[24];
  printf("%s: %s, seed %llu, %s\n", o->p->name, o->p->path, (unsigned long long)o->p->seed,
         o->device->description);
  TRY(print_data(c));
  for (int i = 0; i < o->p->stage_count; i++)
    if (o->p->stages[i].enabled) TRY(check_stage(c, &o->p->stages[i]));
  print_evaluation(c);
  note_stages(c);
  note_device(c);
  printf("\nwritten to %s\n  pipeline.lock.yaml, run.json, metrics.jsonl, metrics.csv, "
         "report.html%s\n%s",
         c->folder, o->p->tensorboard ? ", tensorboard/" : "", c->files.data);
  if (c->notes.length) printf("\nnotes\n%s", c->notes.data);
  printf(
      "\nno mistakes found; about %s of training here, beside loading, validation and evaluation\n",
      short_duration(whole, c->seconds));
  return OK;
}

static status check_opened(opened *o) {
  run all = {.p = o->p, .data = o->data, .device = o->device};
  checked c = {.o = o, .folder = run_fresh_folder(o->p->name)};
  all.fitted = c.fitted = calloc((size_t)o->p->stage_count + 1, sizeof *c.fitted);
  status error = c.folder && c.fitted ? run_compile(&all) : error_out_of_memory(512);
  if (!error) c.cache = run_cache_folder(&o->p->data, c.folder);
  if (!error) error = device_measure(o->device, pipeline_precisions(o->p), &c.speed);
  if (!error) error = print_all(&c);
  fitted_free(c.fitted, o->p->stage_count);
  text_free(&c.notes);
  text_free(&c.files);
  free(c.folder);
  free(c.cache);
  return error;
}

status command_check(const arguments *a) {
  opened o;
  status error = open_pipeline(a, &o);
  if (!error) error = check_opened(&o);
  close_pipeline(&o);
  return error;
}
