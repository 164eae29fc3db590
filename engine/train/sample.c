#include "train/sample.h"

#include "base/files.h"
#include "base/json.h"
#include "execute/program.h"
#include "graph/expand.h"
#include "language/bind.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { VALUES_MAX = 32, CHANNELS_MAX = 4, NUMBERS_MAX = 256 };

/* A named value of the stage graph that can be shown. */
typedef struct shown {
  const char *name;
  value_id value;
  const node *from; /* NULL: the image */
  const char *part;
} shown;

typedef struct sampler {
  const run *r;
  const stage_spec *stage;
  stage_graph graph;
  program program;
  loader *loader;
  int64_t batch;
  shown list[VALUES_MAX];
  int count;
  arena memory;
  char name[256]; /* of the random streams; the loader reads it as long as it is open */
} sampler;

/* ---- which values, and what they are to the graph ------------------------------------------- */

/* The operator of an item of the stage's graph and the names it reads; NULL for repeats. */
static const tree *item_operator(const tree *item, const tree **refs) {
  if (item->kind != TREE_MAP || item->count != 1 || item->items[0]->kind != TREE_MAP) return NULL;
  const tree *body = item->items[0];
  for (int i = 0; i < body->count; i++) {
    const char *key = body->keys[i]->text;
    if (strcmp(key, "when") == 0 || strcmp(key, "parameters") == 0) continue;
    *refs = body->items[i];
    return body->keys[i];
  }
  return NULL;
}

static bool reads(const tree *refs, const char *name) {
  if (refs->kind == TREE_SCALAR) return strcmp(refs->text, name) == 0;
  for (int i = 0; i < refs->count; i++)
    if (refs->items[i]->kind == TREE_SCALAR && strcmp(refs->items[i]->text, name) == 0) return true;
  return false;
}

/* Is `name` a result of the item: "net", "net.out"? */
static bool is_of(const char *name, const char *item) {
  size_t length = strlen(item);
  return strncmp(name, item, length) == 0 && (name[length] == 0 || name[length] == '.');
}

static const char *part_of(const stage_spec *stage, const char *name) {
  const char *part = strcmp(name, "image") == 0 ? "image" : "";
  for (int i = 0; i < stage->graph->count; i++) {
    const tree *item = stage->graph->items[i], *refs;
    const tree *key = item_operator(item, &refs);
    if (!key) continue;
    bool is_model = strcmp(key->text, "model") == 0;
    const op *o = is_model ? NULL : op_find(key->text);
    if (is_model && is_of(name, item->keys[0]->text)) return "output";
    if (is_model && reads(refs, name)) return "input";
    if (o && (o->traits & OP_LOSS) && !part[0] && reads(refs, name)) part = "target";
  }
  return part;
}

static bool is_volume(const sampler *t, const tensor *v) {
  const int64_t *size = t->stage->crop;
  return v->dtype == DTYPE_F32 && v->shape.rank == 5 && v->shape.dim[1] == size[0] &&
         v->shape.dim[2] == size[1] && v->shape.dim[3] == size[2] &&
         v->shape.dim[4] <= CHANNELS_MAX;
}

static bool is_numbers(const sampler *t, const tensor *v) {
  int64_t each = t->batch > 0 ? shape_elements(&v->shape) / t->batch : 0;
  return v->dtype == DTYPE_I32 && v->shape.rank >= 1 && v->shape.rank <= 2 &&
         v->shape.dim[0] == t->batch && each <= NUMBERS_MAX;
}

static void add_value(sampler *t, const char *name, value_id v) {
  const value *made = &t->graph.g->values[v];
  if (t->count == VALUES_MAX || (made->kind != VALUE_INPUT && made->producer < 0)) return;
  if (!is_volume(t, &made->type) && !is_numbers(t, &made->type)) return;
  for (int i = 0; i < t->count; i++)
    if (t->list[i].value == v) return; /* "net" and "net.out" */
  t->list[t->count++] =
      (shown){.name = name,
              .value = v,
              .from = made->kind == VALUE_INPUT ? NULL : &t->graph.g->nodes[made->producer],
              .part = part_of(t->stage, name)};
}

static void choose_values(sampler *t) {
  add_value(t, "image", t->graph.image);
  for (int i = 0; i < t->graph.names.count; i++) {
    const graph_name *n = &t->graph.names.list[i];
    if (n->count == 1) add_value(t, n->name, n->values[0]);
  }
}

/* ---- running -------------------------------------------------------------------------------- */

static status open_sampler(sampler *t, parameters *trained) {
  const run *r = t->r;
  const int64_t *crop = t->stage->crop;
  bool label_free = !t->stage->use_labels;
  bool validation = dataset_role_usable(r->data, ROLE_VALIDATION, label_free) > 0;
  snprintf(t->name, sizeof t->name, "%s/validation", t->stage->name);
  value_id keep[VALUES_MAX];
  for (int i = 0; i < t->count; i++) keep[i] = t->list[i].value;
  TRY(program_create(t->graph.g, r->device, trained, keep, t->count, t->batch, NULL, &t->program));
  loader_options o = {.spec = t->stage->data,
                      .data = r->data,
                      .cache = r->cache,
                      .seed = r->p->seed,
                      .stage = t->name,
                      .role = validation ? ROLE_VALIDATION : ROLE_TRAIN,
                      .label_free = label_free,
                      .batch = t->batch,
                      .epochs = 1,
                      .size = {crop[0], crop[1], crop[2]},
                      .channels = r->data->channels,
                      .world = 1};
  return loader_open(&o, &t->loader);
}

/* Spacing and directions of the prepared case. */
static status case_affine(const sampler *t, const char *name, double affine[4][4]) {
  const dataset *d = t->r->data;
  for (int i = 0; i < d->case_count; i++) {
    if (strcmp(d->cases[i].name, name) != 0) continue;
    medical_case c = {0};
    TRY(case_prepare(&t->r->p->data, &d->cases[i], t->r->cache, &c));
    memcpy(affine, c.image.affine, sizeof c.image.affine);
    case_free(&c);
    return OK;
  }
  return error_new(ERROR_INTERNAL, NOWHERE, "the batch is of no case of the data set");
}

/* ---- writing -------------------------------------------------------------------------------- */

/* The operator as the user wrote it, "model" for results of the network. */
static const char *operator_of(const sampler *t, const shown *v) {
  for (int i = 0; i < t->stage->graph->count; i++) {
    const tree *item = t->stage->graph->items[i], *refs;
    const tree *key = item_operator(item, &refs);
    if (key && is_of(v->name, item->keys[0]->text)) return key->text;
  }
  return v->from ? v->from->op->name : "";
}

/* Attributes as in YAML: {"ratio": "0.4"}. */
static json_t *attributes_of(sampler *t, const shown *v) {
  json_t *out = json_object();
  const node *n = strcmp(v->part, "output") == 0 ? NULL : v->from; /* not those of the last layer */
  for (const attr *a = n ? n->op->attrs : NULL; a && a->name; a++)
    json_object_set_new(out, a->name, json_text(attr_format(a, n->attrs, &t->memory)));
  return out;
}

static json_t *describe(sampler *t, const shown *v) {
  return json_pack("{s:o, s:s, s:o, s:s}", "name", json_text(v->name), "operator",
                   operator_of(t, v), "attributes", attributes_of(t, v), "part", v->part);
}

static status write_numbers(sampler *t, const shown *v, json_t *list) {
  const shape *s = &t->graph.g->values[v->value].type.shape;
  int64_t total = shape_elements(s);
  int32_t *values = malloc((size_t)total * sizeof *values);
  if (!values) return error_out_of_memory((size_t)total * sizeof *values);
  status error = program_read(&t->program, v->value, values);
  if (!error) {
    json_t *entry = describe(t, v), *numbers = json_array();
    for (int64_t i = 0; i < total / t->batch; i++)
      json_array_append_new(numbers, json_integer(values[i]));
    json_object_set_new(entry, "values", numbers);
    json_array_append_new(list, entry);
  }
  free(values);
  return error;
}

/* In the order of the graph, without what names may hold and file names should not. */
static const char *file_name(sampler *t, const shown *v) {
  char *name = arena_printf(&t->memory, "%d-%s.nii.gz", (int)(v - t->list) + 1, v->name);
  for (char *p = name; *p; p++)
    if (!isalnum((unsigned char)*p) && !strchr("._-", *p)) *p = '_';
  return name;
}

/* The first sample of the batch. */
static status write_volume(sampler *t, const shown *v, const char *folder,
                           const double affine[4][4], json_t *list) {
  const tensor *type = &t->graph.g->values[v->value].type;
  volume out = {0};
  float *all = malloc(tensor_bytes(type));
  status error = all ? OK : error_out_of_memory(tensor_bytes(type));
  if (!error) error = program_read(&t->program, v->value, all);
  if (!error) error = volume_allocate(&out, type->shape.dim + 1, type->shape.dim[4]);
  if (!error) {
    memcpy(out.data, all, tensor_bytes(type) / (size_t)t->batch);
    memcpy(out.affine, affine, sizeof out.affine);
    const char *file = file_name(t, v);
    error = nifti_write_volume(arena_printf(&t->memory, "%s/%s", folder, file), &out);
    json_t *entry = describe(t, v);
    json_object_set_new(entry, "file", json_string(file));
    json_array_append_new(list, entry);
  }
  volume_free(&out);
  free(all);
  return error;
}

static status write_all(sampler *t, const char *folder, const char *case_name) {
  double affine[4][4];
  TRY(case_affine(t, case_name, affine));
  TRY(folder_create(folder));
  json_t *volumes = json_array(), *numbers = json_array();
  status error = OK;
  for (int i = 0; i < t->count && !error; i++) {
    const shown *v = &t->list[i];
    error = is_volume(t, &t->graph.g->values[v->value].type)
                ? write_volume(t, v, folder, affine, volumes)
                : write_numbers(t, v, numbers);
  }
  json_t *root = json_pack("{s:o, s:o, s:o, s:o}", "stage", json_text(t->stage->name), "case",
                           json_text(case_name), "volumes", volumes, "numbers", numbers);
  if (!error)
    error =
        json_write(arena_printf(&t->memory, "%s/sample.json", folder), root, JSON_INDENT(2), "");
  json_decref(root);
  return error;
}

static status run_once(sampler *t) {
  batch *b = NULL;
  TRY(loader_next(t->loader, &b));
  if (!b) return error_new(ERROR_INTERNAL, t->stage->at, "the loader has no batch");
  TRY(program_write(&t->program, t->graph.image, b->image));
  TRY(program_set_keys(&t->program, b->keys));
  TRY(program_run(&t->program));
  char *folder = path_join(t->r->folder, arena_printf(&t->memory, "samples/%s", t->stage->name));
  status error = write_all(t, folder, b->case_names[0]);
  free(folder);
  return error;
}

status sample_write(const run *r, const stage_spec *stage, parameters *trained) {
  sampler t = {.r = r, .stage = stage, .batch = stage->batch};
  expand_options options =
      crop_options(stage, r->data->channels, r->data->class_count, t.batch, false);
  TRY(stage_expand(r->p, stage, &options, &t.graph));
  status error = OK;
  if (t.graph.label == VALUE_NONE) {
    choose_values(&t);
    error = open_sampler(&t, trained);
    if (!error) error = run_once(&t);
  }
  loader_close(t.loader);
  program_free(&t.program);
  stage_graph_free(&t.graph);
  arena_free(&t.memory);
  return error_prefix(error, "samples/%s", stage->name);
}
