#include "run/lock.h"

#include "base/files.h"
#include "base/text.h"
#include "run/weights.h"

#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

static const char *const role_names[] = {
    [ROLE_TRAIN] = "train", [ROLE_VALIDATION] = "validation", [ROLE_TEST] = "test"};

static void add(lock *l, lock_list *list, const char *name, const char *value) {
  lock_entry entry = {arena_strdup(&l->memory, name), arena_strdup(&l->memory, value)};
  ARENA_PUSH(&l->memory, list->items, list->count, list->capacity, entry);
}

static const char *find(const lock_list *list, const char *name) {
  for (int i = 0; i < list->count; i++)
    if (strcmp(list->items[i].name, name) == 0) return list->items[i].value;
  return NULL;
}

static const char *hash_128(lock *l, uint64_t high, uint64_t low) {
  return arena_printf(&l->memory, "%016" PRIx64 "%016" PRIx64, high, low);
}

static const char *hash_64(lock *l, uint64_t hash) {
  return arena_printf(&l->memory, "%016" PRIx64, hash);
}

/* ---- what a run is made of ---------------------------------------------------------------- */

static void add_operators(lock *l, const run *r) {
  for (int i = 0; i < op_count(); i++)
    if (r->operators[i])
      add(l, &l->operators, op_at(i)->name,
          arena_printf(&l->memory, "%u", (unsigned)op_at(i)->version));
}

static void add_files(lock *l, const pipeline *p) {
  for (int i = 0; i < p->sources.count; i++) {
    const bundle_file *file = &p->sources.files[i];
    if (!file->is_part) continue;
    XXH128_hash_t hash = XXH3_128bits(file->text, file->length);
    add(l, &l->files, file->name, hash_128(l, hash.high64, hash.low64));
  }
}

static void add_case(lock *l, const case_entry *entry) {
  int images = 1 + entry->more_image_count;
  const char *image = "";
  for (int i = 0; i < images; i++)
    image = arena_printf(&l->memory, "%s%s%s", image, i ? " " : "",
                         hash_128(l, entry->content[i].high, entry->content[i].low));
  l->cases[l->case_count++] = (lock_case){
      .name = entry->name,
      .role = role_names[entry->role],
      .image = image,
      .label =
          entry->label ? hash_128(l, entry->content[images].high, entry->content[images].low) : ""};
}

static void add_data(lock *l, const dataset *d) {
  int count = 0;
  l->data = hash_64(l, dataset_content(d));
  for (int i = 0; i < d->case_count; i++) count += d->cases[i].content != NULL;
  if (count > LOCK_CASES_MAX) return;
  l->cases = arena_alloc(&l->memory, ((size_t)count + 1) * sizeof *l->cases);
  for (int i = 0; i < d->case_count; i++)
    if (d->cases[i].content) add_case(l, &d->cases[i]);
}

/* Of a file that is not a part of the lock: only its content counts, wherever it is. */
static status add_outside(lock *l, const char *stage, const char *what, const char *path) {
  uint64_t length, low, high;
  if (!path) return OK;
  TRY(file_hash(path, &length, &low, &high));
  add(l, &l->init, arena_printf(&l->memory, "%s: %s", stage, what), hash_128(l, high, low));
  return OK;
}

status lock_make(const run *r, lock *out) {
  const pipeline *p = r->p;
  *out = (lock){.strata = STRATA_VERSION,
                .compiler = __VERSION__,
                .numerics = run_numerics(r->p, r->device),
                .pipeline = p->resolved};
  for (int i = 0; i < p->part_count; i++)
    add(out, &out->parts, p->parts[i].name, hash_64(out, p->parts[i].hash));
  add_operators(out, r);
  add_files(out, p);
  add_data(out, r->data);
  for (int i = 0; i < p->stage_count; i++) {
    const stage_spec *s = &p->stages[i];
    if (!s->enabled || !s->init_is_file) continue;
    TRY(add_outside(out, s->name, "weights", s->init_from));
    TRY(add_outside(out, s->name, "map", s->init_map));
  }
  return OK;
}

void lock_free(lock *l) {
  arena_free(&l->memory);
  *l = (lock){0};
}

/* ---- weights ------------------------------------------------------------------------------ */

static void hash_tensor(XXH3_state_t *state, const named_tensor *t) {
  int64_t facts[MAX_DIMS + 3] = {(int64_t)strlen(t->name), t->tensor.dtype, t->tensor.shape.rank};
  for (int d = 0; d < t->tensor.shape.rank; d++) facts[3 + d] = t->tensor.shape.dim[d];
  XXH3_128bits_update(state, facts, sizeof facts);
  XXH3_128bits_update(state, t->name, strlen(t->name));
  XXH3_128bits_update(state, t->tensor.data, tensor_bytes(&t->tensor));
}

/* Of a weight file's tensors, 32 hexadecimal digits. */
static status weights_hash(const char *path, char out[33]) {
  weights w;
  TRY(weights_read(path, &w));
  XXH3_state_t *state = XXH3_createState();
  if (!state) {
    weights_close(&w);
    return error_out_of_memory(sizeof w);
  }
  XXH3_128bits_reset(state);
  for (int i = 0; i < w.count; i++) hash_tensor(state, &w.list[i]);
  XXH128_hash_t hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  weights_close(&w);
  snprintf(out, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)hash.high64, (uint64_t)hash.low64);
  return OK;
}

status lock_add_weights(lock *l, const char *stage, const char *path) {
  char hash[33];
  TRY(weights_hash(path, hash));
  add(l, &l->weights, stage, hash);
  return OK;
}

const char *lock_weights(const lock *l, const char *stage) {
  return find(&l->weights, stage);
}

/* ---- comparing ---------------------------------------------------------------------------- */

static void differs(problems *found, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void differs(problems *found, const char *format, ...) {
  va_list args;
  va_start(args, format);
  problems_add(found, error_newv(ERROR_DATA, NOWHERE, format, args));
  va_end(args);
}

static void compare_lists(const lock_list *then, const lock_list *now, const char *what,
                          const char *changed, problems *found) {
  for (int i = 0; i < now->count; i++) {
    const lock_entry *mine = &now->items[i];
    const char *was = find(then, mine->name);
    if (!was)
      differs(found, "%s %s is not in the lock.", what, mine->name);
    else if (strcmp(was, mine->value) != 0)
      differs(found, "%s %s %s: %s, in the lock %s.", what, mine->name, changed, mine->value, was);
  }
  for (int i = 0; i < then->count; i++)
    if (!find(now, then->items[i].name))
      differs(found, "%s %s is in the lock and no more in use.", what, then->items[i].name);
}

/* The file of a case whose hash is another one, by its place in the list. */
static void compare_images(const case_entry *entry, const lock_case *then, const lock_case *now,
                           problems *found) {
  const char *a = then->image, *b = now->image;
  for (int i = 0; *a || *b; i++) {
    size_t n = strcspn(a, " "), m = strcspn(b, " ");
    if (n == 0 || m == 0) {
      differs(found, "case %s: it has another number of image files.", now->name);
      return;
    }
    if (n != m || memcmp(a, b, n) != 0)
      differs(found, "case %s: the image %s has changed: %.*s, in the lock %.*s.", now->name,
              i == 0 ? entry->image : entry->more_images[i - 1], (int)m, b, (int)n, a);
    a += n + (a[n] == ' ');
    b += m + (b[m] == ' ');
  }
}

static const lock_case *find_case(const lock *l, const char *name) {
  for (int i = 0; i < l->case_count; i++)
    if (strcmp(l->cases[i].name, name) == 0) return &l->cases[i];
  return NULL;
}

static void compare_case(const case_entry *entry, const lock_case *then, const lock_case *now,
                         problems *found) {
  if (strcmp(then->role, now->role) != 0)
    differs(found, "case %s: its role is %s, in the lock %s.", now->name, now->role, then->role);
  compare_images(entry, then, now, found);
  if (strcmp(then->label, now->label) == 0) return;
  if (!now->label[0])
    differs(found, "case %s: it has no label; in the lock it has one.", now->name);
  else
    differs(found, "case %s: the label %s has changed: %s, in the lock %s.", now->name,
            entry->label, now->label, then->label[0] ? then->label : "there is none");
}

static void compare_data(const lock *then, const lock *now, const dataset *d, problems *found) {
  if (strcmp(then->data, now->data) == 0) return;
  int before = found->count, k = 0;
  for (int i = 0; i < d->case_count && now->case_count > 0; i++) {
    const case_entry *entry = &d->cases[i];
    if (!entry->content) continue;
    const lock_case *mine = &now->cases[k++], *was = find_case(then, mine->name);
    if (was)
      compare_case(entry, was, mine, found);
    else
      differs(found, "case %s is not in the lock.", mine->name);
  }
  for (int i = 0; i < then->case_count; i++)
    if (!find_case(now, then->cases[i].name))
      differs(found, "case %s of the lock is not in the data set.", then->cases[i].name);
  if (found->count == before)
    differs(found, "the classes or the cases of the data set have changed: %s, in the lock %s.",
            now->data, then->data);
}

void lock_compare_keys(const lock *then, const lock *now, arena *memory, key_differences *out) {
  for (int i = 0; i < now->parts.count + then->parts.count; i++) {
    bool is_mine = i < now->parts.count;
    const char *name =
        is_mine ? now->parts.items[i].name : then->parts.items[i - now->parts.count].name;
    const char *was = find(&then->parts, name), *is = find(&now->parts, name);
    if (is_mine ? was && strcmp(was, is) == 0 : is != NULL) continue;
    int before = out->count;
    pipeline_differences(memory, name, then->pipeline, now->pipeline, out);
    if (out->count > before) continue;
    key_difference whole = {.key = arena_strdup(memory, name)};
    ARENA_PUSH(memory, out->list, out->count, out->capacity, whole);
  }
}

/* From the i-th part on; the count at the end. */
static int next_stage(const lock_list *parts, int i) {
  while (i < parts->count && !text_starts_with(parts->items[i].name, "stages.")) i++;
  return i;
}

bool lock_same_stages(const lock *then, const lock *now) {
  int i = next_stage(&then->parts, 0), k = next_stage(&now->parts, 0);
  while (i < then->parts.count && k < now->parts.count) {
    if (strcmp(then->parts.items[i].name, now->parts.items[k].name) != 0) return false;
    i = next_stage(&then->parts, i + 1);
    k = next_stage(&now->parts, k + 1);
  }
  return i == then->parts.count && k == now->parts.count;
}

status lock_key_sentence(const key_difference *d) {
  if (!d->now && !d->then)
    return error_new(
        ERROR_DATA, NOWHERE,
        "the pipeline's key %s says something else than it said when the lock was made. The "
        "file was edited there and holds no word of what it said; changed by --set, every "
        "key is named with both values.",
        d->key);
  if (!d->now)
    return error_new(ERROR_DATA, NOWHERE,
                     "the pipeline's key %s is left out; in the lock it is %s.", d->key, d->then);
  return error_new(ERROR_DATA, NOWHERE, "the pipeline's key %s is %s, in the lock %s.", d->key,
                   d->now, d->then ? d->then : "it is left out");
}

void lock_compare(const lock *then, const lock *now, const run *r, problems *found) {
  compare_lists(&then->files, &now->files, "the file", "has changed", found);
  compare_lists(&then->operators, &now->operators, "the operator", "is of another version", found);
  compare_lists(&then->init, &now->init, "init of stage", "reads another file", found);
  compare_data(then, now, r->data, found);
  if (then->scripts_changed)
    differs(found, "the run that made the lock went on with changed scripts: there is no pipeline "
                   "that trains its weights.");
  if (then->pipeline_changed)
    differs(found,
            "the run that made the lock went on with changed keys: there is no pipeline that "
            "trains its weights.");
  if (strcmp(then->numerics, now->numerics) != 0)
    differs(found,
            "this device computes with %s, the lock was made with %s: the last bits will differ.",
            now->numerics, then->numerics);
}

/* ---- reading ------------------------------------------------------------------------------ */

static const char *text_of(const tree *map, const char *key, const char *fallback) {
  const tree *t = tree_get(map, key);
  return t && t->kind == TREE_SCALAR ? t->text : fallback;
}

static status need_map(const tree *t, const char *key, tree_kind kind, const tree **out) {
  static const char *const kinds[] = {"text", "a list", "a mapping"};
  char shown[96];
  *out = tree_get(t, key);
  if (!*out) return error_new(ERROR_DATA, t->at, "lock needs \"%s\".", key);
  bool is_empty = (*out)->kind == TREE_SCALAR ? tree_is_null(*out) : (*out)->count == 0;
  if ((*out)->kind == kind || is_empty) return OK;
  return error_new(ERROR_DATA, (*out)->at, "lock: %s must be %s, not %s.", key, kinds[kind],
                   tree_describe(*out, shown));
}

static status read_list(const tree *t, const char *key, lock *l, lock_list *out) {
  const tree *map;
  TRY(need_map(t, key, TREE_MAP, &map));
  for (int i = 0; i < map->count; i++)
    if (map->items[i]->kind == TREE_SCALAR) add(l, out, map->keys[i]->text, map->items[i]->text);
  return OK;
}

static status read_data(const tree *t, lock *l) {
  const tree *data, *cases = NULL;
  TRY(need_map(t, "data", TREE_MAP, &data));
  l->data = text_of(data, "hash", "");
  if (data->count > 0) TRY(need_map(data, "cases", TREE_LIST, &cases));
  if (!cases || cases->count == 0) return OK;
  l->cases = arena_alloc(&l->memory, (size_t)cases->count * sizeof *l->cases);
  for (int i = 0; i < cases->count; i++) {
    const tree *item = cases->items[i];
    if (item->kind != TREE_MAP)
      return error_new(ERROR_DATA, item->at, "lock: data: a case is {name: …, role: …, image: …}.");
    l->cases[l->case_count++] = (lock_case){.name = text_of(item, "name", ""),
                                            .role = text_of(item, "role", ""),
                                            .image = text_of(item, "image", ""),
                                            .label = text_of(item, "label", "")};
  }
  return OK;
}

status lock_read(const tree *t, const tree *file, lock *out) {
  *out = (lock){.strata = text_of(t, "strata", "?"),
                .compiler = text_of(t, "compiler", "?"),
                .numerics = text_of(t, "numerics", "?"),
                .pipeline = file,
                .scripts_changed = tree_get(t, "scripts_changed") != NULL,
                .pipeline_changed = tree_get(t, "pipeline_changed") != NULL};
  const tree *files;
  TRY(need_map(t, "files", TREE_LIST, &files));
  for (int i = 0; i < files->count; i++)
    add(out, &out->files, text_of(files->items[i], "name", ""),
        text_of(files->items[i], "hash", ""));
  TRY(read_list(t, "pipeline", out, &out->parts));
  TRY(read_list(t, "operators", out, &out->operators));
  TRY(read_list(t, "init", out, &out->init));
  TRY(read_list(t, "weights", out, &out->weights));
  return read_data(t, out);
}

/* ---- writing ------------------------------------------------------------------------------ */

static void write_list(text_buffer *out, const char *key, const lock_list *list) {
  text_add(out, "  %s:%s\n", key, list->count ? "" : " {}");
  for (int i = 0; i < list->count; i++) {
    text_add(out, "    ");
    tree_write_key(list->items[i].name, out);
    text_add(out, ": \"%s\"\n", list->items[i].value);
  }
}

/* Versions are short: several on a line. */
static void write_operators(text_buffer *out, const lock_list *list) {
  enum { LINE = 96 };
  text_add(out, "  operators: {");
  size_t start = out->length - strlen("  operators: {");
  for (int i = 0; i < list->count; i++) {
    const lock_entry *e = &list->items[i];
    if (out->length - start + strlen(e->name) + strlen(e->value) + 3 > LINE) {
      text_add(out, "\n    ");
      start = out->length - 4;
    } else if (i > 0) {
      text_add(out, " ");
    }
    text_add(out, "%s: %s%s", e->name, e->value, i + 1 < list->count ? "," : "");
  }
  text_add(out, "}\n");
}

static void write_files(text_buffer *out, const lock *l, const pipeline *p) {
  text_add(out, "  files:%s\n", l->files.count ? "" : " []");
  for (int i = 0; i < l->files.count; i++) {
    const bundle_file *file = bundle_find(&p->sources, l->files.items[i].name);
    text_add(out, "    - name: ");
    tree_write_text(file->name, out, 6);
    text_add(out, "      hash: \"%s\"\n      text: ", l->files.items[i].value);
    tree_write_text(file->text, out, 6);
  }
}

static void write_data(text_buffer *out, const lock *l) {
  text_add(out, "  data:\n    hash: \"%s\"\n    cases:%s\n", l->data, l->case_count ? "" : " []");
  for (int i = 0; i < l->case_count; i++) {
    const lock_case *c = &l->cases[i];
    text_add(out, "      - name: ");
    tree_write_text(c->name, out, 8);
    text_add(out, "        role: %s\n        image: \"%s\"\n", c->role, c->image);
    if (c->label[0]) text_add(out, "        label: \"%s\"\n", c->label);
  }
}

status lock_write(const run *r, const lock *l, const char *path) {
  text_buffer out = {0};
  text_add(
      &out,
      "# Made by strata %s: the pipeline with every parameter, include and override filled in,\n"
      "# and under `lock` what it is made of. `strata run` of this file trains the same weights\n"
      "# again; --set data.root=DIR where the data lie elsewhere.\n",
      STRATA_VERSION);
  tree_write(r->p->resolved, &out, 0);
  text_add(&out, "lock:\n  strata: \"%s\"\n  compiler: \"%s\"\n  numerics: \"%s\"\n", l->strata,
           l->compiler, l->numerics);
  if (l->scripts_changed) text_add(&out, "  scripts_changed: true\n");
  if (l->pipeline_changed) text_add(&out, "  pipeline_changed: true\n");
  write_list(&out, "weights", &l->weights);
  write_list(&out, "pipeline", &l->parts);
  write_operators(&out, &l->operators);
  write_list(&out, "init", &l->init);
  write_data(&out, l);
  write_files(&out, l, r->p);
  status error = file_write_atomic(path, out.data, out.length);
  text_free(&out);
  return error;
}
