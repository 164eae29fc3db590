#include "preview/trace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "execute/program.h"
#include "graph/expand.h"
#include "language/bind.h"
#include "train/controls.h"

/* Bits of an image, to see whether an operator changed it. */
static uint64_t image_hash(const volume *v) {
  size_t values = (size_t)(v->size[0] * v->size[1] * v->size[2] * v->channels);
  uint64_t hash = bytes_hash(v->data, values * sizeof(float));
  for (int a = 0; a < 3; a++) hash = hash_mix(hash, (uint64_t)v->size[a]);
  return hash;
}

static const char *taken(arena *memory, text_buffer *text) {
  const char *kept = arena_strdup(memory, text->data ? text->data : "");
  text_free(text);
  return kept;
}

/* ---- prepare ------------------------------------------------------------------------------ */

/* The operators one after the other; each alone is the sample graph of one operator without chance.
 * Leaves the prepared case in `out`. */
static status trace_prepare(const preview_options *o, arena *memory, medical_case *out) {
  const data_spec *whole = &o->p->data;
  data_spec none = *whole, one = *whole;
  none.prepare_count = 0;
  TRY(case_prepare(&none, o->entry, NULL, out));
  preview_edge edge = {.name = "the file", .operator= "", .attributes = "", .c = out};
  status error = o->visit(o->context, &edge);
  one.sample_count = 1;
  for (int i = 0; i < whole->prepare_count && !error; i++) {
    medical_case next;
    uint64_t before = image_hash(&out->image);
    one.sample = &whole->prepare[i];
    error = case_sample(&one, out, (rng_key){0, 0}, &next);
    if (error) break;
    case_free(out);
    *out = next;
    edge.name = one.sample->op->name;
    edge.attributes = attrs_format(one.sample->op, one.sample->attrs, memory);
    edge.is_unchanged = image_hash(&out->image) == before;
    error = o->visit(o->context, &edge);
  }
  if (error) case_free(out);
  return error_prefix(error, "case %s", o->entry->name);
}

/* ---- sample ------------------------------------------------------------------------------- */

static rng_key key_of(const preview_options *o, int crop) {
  return rng_key_of(o->p->seed, o->stage->name, o->epoch, o->entry->name, crop);
}

/* An operator's random numbers depend on its place in the list, so the first k operators are run anew
 * for every k. */
static status trace_sample(const preview_options *o, arena *memory, const medical_case *prepared) {
  data_spec first = *o->stage->data;
  uint64_t *before = arena_alloc(memory, (size_t)o->crops * sizeof *before);
  for (int k = 1; k <= o->stage->data->sample_count; k++) {
    const op_use *use = &o->stage->data->sample[k - 1];
    first.sample_count = k;
    for (int crop = 0; crop < o->crops; crop++) {
      medical_case c;
      TRY(error_prefix(case_sample(&first, prepared, key_of(o, crop), &c), "case %s",
                       o->entry->name));
      uint64_t after = image_hash(&c.image);
      preview_edge edge = {.graph = PREVIEW_SAMPLE,
                           .name = use->op->name,
                           .operator= "",
                           .attributes = attrs_format(use->op, use->attrs, memory),
                           .crop = crop,
                           .is_unchanged = k > 1 && after == before[crop],
                           .c = &c};
      before[crop] = after;
      status error = o->visit(o->context, &edge);
      case_free(&c);
      TRY(error);
    }
  }
  return OK;
}

/* ---- the stage's graph -------------------------------------------------------------------- */

typedef struct item {
  const char *name, *operator, * attributes;
  value_id value;
} item;

typedef struct items {
  item *list;
  int count, capacity;
} items;

/* Values that the image alone decides: no parameter, no label's meaning, nothing of the backward part. */
static bool *free_of_parameters(const graph *g, arena *memory) {
  bool *is_free = arena_alloc(memory, (size_t)g->value_count + 1);
  for (int i = 0; i < g->value_count; i++) is_free[i] = g->values[i].kind == VALUE_INPUT;
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    bool all = !n->backward;
    for (int k = 0; k < n->in_count; k++) all &= n->in[k] == VALUE_NONE || is_free[n->in[k]];
    for (int k = 0; k < n->out_count; k++) is_free[n->out[k]] = all;
  }
  return is_free;
}

/* Passes leave values behind whose node they took away. */
static bool has_producer(const graph *g, value_id v) {
  for (int i = 0; i < g->node_count; i++)
    for (int k = 0; k < g->nodes[i].out_count; k++)
      if (g->nodes[i].out[k] == v) return true;
  return false;
}

static bool is_known(const items *all, value_id v) {
  for (int i = 0; i < all->count; i++)
    if (all->list[i].value == v) return true;
  return false;
}

/* The item of the stage's graph that is called so, or whose output is. */
static const tree *item_called(const tree *list, const char *name) {
  for (int i = 0; i < list->count; i++) {
    const tree *t = list->items[i];
    if (t->kind != TREE_MAP || t->count != 1 || t->items[0]->kind != TREE_MAP) continue;
    size_t length = strlen(t->keys[0]->text);
    bool is_output = strncmp(name, t->keys[0]->text, length) == 0 && name[length] == '.';
    if (is_output || strcmp(name, t->keys[0]->text) == 0) return t;
  }
  return NULL;
}

static void add_value(const tree *t, text_buffer *out) {
  if (t->kind == TREE_SCALAR) text_add(out, "%s", t->text);
  if (t->kind != TREE_LIST) return;
  for (int i = 0; i < t->count; i++) {
    text_add(out, i ? ", " : "[");
    add_value(t->items[i], out);
  }
  text_add(out, "]");
}

/* What the file says of an item, with the parameters filled in and numbers as they are scheduled. */
static void describe_item(const preview_options *o, const stage_graph *s, arena *memory,
                          item *made) {
  static const char *const others[] = {"when", "parameters"};
  const tree *t = item_called(o->stage->graph, made->name), *body = t ? t->items[0] : NULL;
  bool is_output = t && strcmp(t->keys[0]->text, made->name) != 0;
  text_buffer out = {0};
  if (!t || is_output) return;
  made->operator= "";
  for (int i = 0; i < body->count; i++) {
    const char *key = body->keys[i]->text;
    if (strcmp(key, others[0]) == 0 || strcmp(key, others[1]) == 0) continue;
    if (!made->operator[0]) {
      made->operator= key;
      continue;
    }
    double number;
    tree *value;
    text_add(&out, "%s%s: ", out.length ? ", " : "", key);
    status error = scope_eval(&o->stage->params, memory, body->items[i], &value);
    if (stage_graph_get_number(s, arena_printf(memory, "%s.%s", made->name, key), &number))
      text_add(&out, "%.6g", number);
    else
      add_value(error ? body->items[i] : value, &out);
    error_free(error);
  }
  made->attributes = taken(memory, &out);
}

/* Classes of voxels, which are those of the crops that were shown. */
static bool is_label_map(const tensor *t) {
  return t->dtype != DTYPE_F32 && t->shape.rank >= 4;
}

/* What the graph's items make before the network: not the losses, which are numbers. */
static void find_items(const preview_options *o, const stage_graph *s, arena *memory, items *out) {
  const graph *g = s->g;
  const bool *is_free = free_of_parameters(g, memory);
  for (int i = 0; i < s->names.count; i++) {
    const graph_name *n = &s->names.list[i];
    if (n->count != 1 || n->values[0] == s->image || !is_free[n->values[0]]) continue;
    const tensor *type = &g->values[n->values[0]].type;
    bool is_made = g->values[n->values[0]].kind == VALUE_TEMP && has_producer(g, n->values[0]);
    if (!is_made || is_label_map(type) || type->shape.rank == 0 || is_known(out, n->values[0]))
      continue;
    item made = {n->name, "", "", n->values[0]};
    describe_item(o, s, memory, &made);
    ARENA_PUSH(memory, out->list, out->count, out->capacity, made);
  }
}

/* The numbers of one sample, for what is no volume. */
static const char *numbers_text(arena *memory, const tensor *t, const void *data, int64_t first,
                                int64_t count) {
  enum { SHOWN = 24 };
  text_buffer out = {0};
  for (int64_t i = 0; i < count && i < SHOWN; i++) {
    double x = t->dtype == DTYPE_F32 ? (double)((const float *)data)[first + i]
                                     : (double)((const int32_t *)data)[first + i];
    text_add(&out, "%s%.4g", i ? " " : "", x);
  }
  if (count > SHOWN) text_add(&out, " … (%lld numbers)", (long long)count);
  return taken(memory, &out);
}

/* One row of the batch as a case on the crop's grid. */
static status visit_value(const preview_options *o, arena *memory, const item *i, const tensor *t,
                          float *data, const medical_case *crops) {
  int64_t rows = t->shape.dim[0], elements = shape_elements(&t->shape) / rows;
  bool is_volume = t->dtype == DTYPE_F32 && t->shape.rank == 5;
  for (int crop = 0; crop < o->crops && crop < rows; crop++) {
    medical_case c = {.name = o->entry->name};
    preview_edge edge = {.graph = PREVIEW_STEP,
                         .name = i->name,
                         .operator= i->operator,
                         .attributes = i->attributes,
                         .crop = crop};
    if (is_volume) {
      c.image.channels = t->shape.dim[4];
      c.image.data = data + crop * elements;
      memcpy(c.image.size, &t->shape.dim[1], sizeof c.image.size);
      memcpy(c.image.affine, crops[crop].image.affine, sizeof c.image.affine);
      edge.c = &c;
    } else {
      edge.note = numbers_text(memory, t, data, crop * elements, elements);
    }
    TRY(o->visit(o->context, &edge));
  }
  return OK;
}

static status visit_items(const preview_options *o, arena *memory, program *p, const items *all,
                          const medical_case *crops) {
  for (int i = 0; i < all->count; i++) {
    const tensor *t = &p->g->values[all->list[i].value].type;
    float *data = malloc((size_t)shape_elements(&t->shape) * sizeof *data);
    if (!data) return error_out_of_memory((size_t)shape_elements(&t->shape) * sizeof *data);
    status error = program_read(p, all->list[i].value, data);
    if (!error) error = visit_value(o, memory, &all->list[i], t, data, crops);
    free(data);
    TRY(error);
  }
  return OK;
}

/* The batch: the crops, which are the first rows. */
static status feed(const preview_options *o, program *p, const stage_graph *s, int rows,
                   const medical_case *crops) {
  const int64_t *crop = o->stage->crop;
  int64_t voxels = crop[0] * crop[1] * crop[2], values = voxels * o->data->channels;
  float *image = malloc((size_t)(rows * values) * sizeof *image);
  uint8_t *label = calloc((size_t)(rows * voxels), 1);
  rng_key *keys = calloc((size_t)rows, sizeof *keys);
  status error =
      image && label && keys ? OK : error_out_of_memory((size_t)(rows * values) * sizeof *image);
  for (int row = 0; row < rows && !error; row++) {
    memcpy(image + row * values, crops[row].image.data, (size_t)values * sizeof *image);
    if (crops[row].label.data) memcpy(label + row * voxels, crops[row].label.data, (size_t)voxels);
    keys[row] = key_of(o, row);
  }
  if (!error && value_is_read(s->g, s->image)) error = program_write(p, s->image, image);
  if (!error && s->label != VALUE_NONE) error = program_write_classes(p, s->label, label);
  if (!error) error = program_set_keys(p, keys);
  free(image);
  free(label);
  free(keys);
  return error;
}

/* Numbers as the schedules set them at the first step of the epoch, nothing having been measured. */
static status set_numbers(const preview_options *o, controls *c, bool label_free) {
  const stage_spec *stage = o->stage;
  int64_t steps = stage_updates(stage, o->data, stage->data, label_free);
  const schedule_point at = {.step = o->epoch * steps,
                             .epoch = o->epoch,
                             .total = stage->epochs * steps,
                             .steps_per_epoch = steps};
  TRY(controls_step(c, at));
  return controls_epoch(c, at);
}

/* Without a loss nothing is differentiated: only what makes the items stays. */
static void keep_items(stage_graph *s, const items *all, value_id *keep) {
  for (int i = 0; i < s->g->value_count; i++) s->g->values[i].gradient = VALUE_NONE;
  for (int i = 0; i < all->count; i++) keep[i] = all->list[i].value;
  graph_prune(s->g, keep, all->count);
  if (!value_is_read(s->g, s->label)) s->label = VALUE_NONE;
}

static status run_items(const preview_options *o, arena *memory, stage_graph *s, const items *all,
                        int rows, const medical_case *crops) {
  value_id *keep = arena_alloc(memory, (size_t)(all->count + 1) * sizeof *keep);
  parameters nothing;
  program p;
  keep_items(s, all, keep);
  TRY(parameters_create(s->g, o->device, &nothing));
  status error = program_create(s->g, o->device, &nothing, keep, all->count, rows, NULL, &p);
  if (!error) {
    error = feed(o, &p, s, rows, crops);
    if (!error) error = program_run(&p);
    if (!error) error = visit_items(o, memory, &p, all, crops);
    program_free(&p);
  }
  parameters_free(&nothing);
  return error;
}

static void free_crops(medical_case *crops, int count) {
  for (int i = 0; i < count; i++) case_free(&crops[i]);
}

static status trace_step(const preview_options *o, arena *memory, stage_graph *s, int rows,
                         const medical_case *prepared) {
  items all = {0};
  find_items(o, s, memory, &all);
  if (all.count == 0) return OK;
  medical_case *crops = arena_alloc(memory, (size_t)rows * sizeof *crops);
  int made = 0;
  status error = OK;
  for (; made < rows && !error; made += !error)
    error = case_sample(o->stage->data, prepared, key_of(o, made), &crops[made]);
  if (!error) error = run_items(o, memory, s, &all, rows, crops);
  free_crops(crops, made);
  return error;
}

/* ---- all ---------------------------------------------------------------------------------- */

static status trace_random(const preview_options *o, arena *memory, medical_case *prepared) {
  /* A stage may need a batch of several samples to make sense. */
  int rows = o->crops > o->stage->batch ? o->crops : (int)o->stage->batch;
  expand_options options =
      crop_options(o->stage, o->data->channels, o->data->class_count, rows, true);
  stage_graph s;
  TRY(stage_expand(o->p, o->stage, &options, &s));
  bool label_free = s.label == VALUE_NONE && !o->stage->use_labels;
  controls c = {0};
  status error = controls_open(o->stage, &s, &c);
  if (!error) error = set_numbers(o, &c, label_free);
  if (label_free) labels_free(&prepared->label);
  if (!error && prepared->label.data) error = labels_count(&prepared->label);
  if (!error) error = trace_sample(o, memory, prepared);
  if (!error) error = trace_step(o, memory, &s, rows, prepared);
  controls_close(&c);
  stage_graph_free(&s);
  return error;
}

status preview_trace(const preview_options *o) {
  arena memory = {0};
  medical_case prepared;
  status error = trace_prepare(o, &memory, &prepared);
  if (!error) {
    error = trace_random(o, &memory, &prepared);
    case_free(&prepared);
  }
  arena_free(&memory);
  return error;
}
