#include "weights/pytorch.h"

#include "base/refuse.h"
#include "base/text.h"
#include "base/zip.h"
#include "language/tree.h"
#include "weights/pickle.h"

#include <stdlib.h>
#include <string.h>

enum {
  MAX_SHARING = 16, /* tensors may share storages, but not make the file so much larger */
  SHARING_FREE_BYTES = 1 << 20,
  MAX_REPORTED = 20 /* lines about what is not read */
};

typedef struct source {
  zip_archive zip;
  arena memory;
  const char *prefix; /* of every entry: "archive/" */
  uint64_t bytes_left;
  const reporter *report;
} source;

/* ---- the archive ------------------------------------------------------------------------------
 */

static zip_entry *entry_of(source *s, const char *name) {
  return zip_find(&s->zip, arena_printf(&s->memory, "%s%s", s->prefix, name));
}

/* "data.pkl", in the one folder that every archive of PyTorch has, whatever that is called. */
static status find_pickle(source *s, zip_entry **out) {
  *out = NULL;
  for (int i = 0; i < s->zip.count; i++) {
    zip_entry *entry = &s->zip.entries[i];
    const char *slash = strchr(entry->name, '/');
    if (strcmp(slash ? slash + 1 : entry->name, "data.pkl") != 0) continue;
    if (*out) return refuse("it holds two pickles, %s and %s", (*out)->name, entry->name);
    *out = entry;
    s->prefix =
        arena_strndup(&s->memory, entry->name, slash ? (size_t)(slash + 1 - entry->name) : 0);
  }
  if (!*out)
    return refuse("it is a zip archive, but none that torch.save wrote: data.pkl is missing");
  if (entry_of(s, "constants.pkl"))
    return refuse(
        "it is a TorchScript program; save its weights with torch.save(model.state_dict(), "
        "PATH)");
  zip_entry *order = entry_of(s, "byteorder");
  const void *text = NULL;
  if (order) TRY(zip_data(&s->zip, order, &text));
  if (order && (order->bytes != 6 || memcmp(text, "little", 6) != 0))
    return refuse("its numbers are not little-endian");
  return OK;
}

/* ---- tensors ----------------------------------------------------------------------------------
 */

static bool is_dense(const pickle_tensor *t) {
  int64_t expected = 1;
  for (int i = t->shape.rank - 1; i >= 0; i--) {
    if (t->shape.dim[i] != 1 && t->stride[i] != expected) return false;
    expected *= t->shape.dim[i];
  }
  return true;
}

/* The elements of a view one after the other, last dimension fastest. */
static void gather(const pickle_tensor *t, const unsigned char *storage, unsigned char *out) {
  size_t bytes = t->storage->type->bytes;
  int64_t index[MAX_DIMS] = {0}, at = t->offset, count = shape_elements(&t->shape);
  for (int64_t i = 0; i < count; i++) {
    memcpy(out + (size_t)i * bytes, storage + (size_t)at * bytes, bytes);
    for (int d = t->shape.rank - 1; d >= 0; d--) {
      if (++index[d] < t->shape.dim[d]) {
        at += t->stride[d];
        break;
      }
      at -= t->stride[d] * (t->shape.dim[d] - 1); /* any number is the stride of one element */
      index[d] = 0;
    }
  }
}

/* The storage's numbers, whose size in the archive is what the pickle says. */
static status find_storage(source *s, const char *name, const pickle_storage *storage,
                           const void **out) {
  char key[96];
  zip_entry *entry = entry_of(s, arena_printf(&s->memory, "data/%s", storage->key));
  if (!entry)
    return refuse("the data of tensor '%s', entry data/%s, is missing", name,
                  printable(storage->key, key));
  uint64_t bytes;
  if (__builtin_mul_overflow((uint64_t)storage->elements, (uint64_t)storage->type->bytes, &bytes) ||
      bytes != entry->bytes)
    return refuse("the data of tensor '%s', entry data/%s, has %llu bytes, but its %lld numbers of "
                  "type %s do not take that",
                  name, printable(storage->key, key), (unsigned long long)entry->bytes,
                  (long long)storage->elements, storage->type->name);
  return zip_data(&s->zip, entry, out);
}

static status load_tensor(source *s, const char *name, const pickle_tensor *t, weights *out) {
  const void *storage;
  const element_type *type = t->storage->type;
  TRY(find_storage(s, name, t->storage, &storage));
  int64_t count = shape_elements(&t->shape);
  uint64_t bytes = (uint64_t)count * (type->bytes > 4 ? type->bytes : 4);
  if (bytes > s->bytes_left)
    return refuse(
        "its tensors share storages so that they would take more than %d times the file's "
        "size",
        MAX_SHARING);
  s->bytes_left -= bytes;
  const unsigned char *from = storage;
  unsigned char *gathered = NULL;
  if (count > 0 && is_dense(t)) {
    from += (size_t)t->offset * type->bytes;
  } else if (count > 0) {
    gathered = malloc((size_t)count * type->bytes);
    if (!gathered) return error_out_of_memory((size_t)count * type->bytes);
    gather(t, storage, gathered);
    from = gathered;
  }
  tensor loaded = {.dtype = type->becomes, .shape = t->shape};
  status error = element_convert(type, from, count, name, &loaded.data);
  free(gathered);
  if (!error) weights_add(out, name, loaded);
  return error;
}

/* ---- the state dict ---------------------------------------------------------------------------
 */

static bool holds_tensors(const pickle_value *v) {
  return v && v->holds_tensor;
}

/* What a dict holds, for an error: "epoch (3), optimizer (a dict of 2)". */
static const char *list_contents(source *s, const pickle_value *dict) {
  text_buffer t = {0};
  int shown = 0;
  for (int i = 0; dict->kind == PICKLE_DICT && i < dict->count && shown < MAX_REPORTED; i += 2) {
    char name[96], what[96];
    if (dict->items[i]->kind != PICKLE_TEXT) continue;
    text_add(&t, "%s%s (%s)", shown++ ? ", " : "", printable(dict->items[i]->text, name),
             pickle_describe(dict->items[i + 1], what));
  }
  const char *list = shown ? arena_strdup(&s->memory, t.data) : "nothing with a name";
  text_free(&t);
  return list;
}

/* "a.b" is item b of item a; a key with dots inside is found too, the longest first. */
static status find_key(source *s, const pickle_value *root, const char *key,
                       const pickle_value **out) {
  const pickle_value *at = root;
  char shown[96];
  for (const char *rest = key; rest;) {
    size_t length = strlen(rest);
    const pickle_value *found = NULL;
    for (; length > 0 && !found; length--)
      if (rest[length] == 0 || rest[length] == '.') {
        found = pickle_get(at, arena_strndup(&s->memory, rest, length));
        if (found) break;
      }
    if (!found)
      return refuse("it has no \"%s\"; there it holds %s", printable(rest, shown),
                    list_contents(s, at));
    at = found;
    rest = rest[length] ? rest + length + 1 : NULL;
  }
  *out = at;
  if (holds_tensors(at)) return OK;
  return refuse("\"%s\" is no dict of tensors; it holds %s", printable(key, shown),
                list_contents(s, at));
}

static const char *key_of(const pickle_value *root, const pickle_value *item) {
  for (int i = 0; root->kind == PICKLE_DICT && i < root->count; i += 2)
    if (root->items[i + 1] == item && root->items[i]->kind == PICKLE_TEXT)
      return root->items[i]->text;
  return "";
}

/* Names that PyTorch Lightning, MONAI, nnU-Net and plain scripts use; else the whole file; else the
 * only dict of tensors in it. */
static status find_state_dict(source *s, const pickle_value *root, const pickle_value **out) {
  static const char *const usual[] = {
      "state_dict", "model_state_dict", "network_weights", "model", "net", NULL};
  *out = NULL;
  for (const char *const *name = usual; *name && !*out; name++)
    if (holds_tensors(pickle_get(root, *name))) *out = pickle_get(root, *name);
  if (!*out && holds_tensors(root)) *out = root;
  int candidates = 0;
  for (int i = 1; !*out && root->kind == PICKLE_DICT && i < root->count; i += 2)
    candidates += holds_tensors(root->items[i]);
  for (int i = 1; candidates == 1 && !*out && i < root->count; i += 2)
    if (holds_tensors(root->items[i])) *out = root->items[i];
  if (*out) return OK;
  char what[96];
  if (root->kind != PICKLE_DICT)
    return refuse("it holds %s instead of a dict of tensors", pickle_describe(root, what));
  return refuse("%s: it holds %s. Name it with --key (in YAML, key:)",
                candidates ? "several dicts in it could be the state dict"
                           : "no dict of tensors is at its top",
                list_contents(s, root));
}

/* Everything beside the state dict, and in it what is no tensor. */
static void report_unread(source *s, const pickle_value *dict, const pickle_value *chosen) {
  int unread = 0;
  for (int i = 0; dict->kind == PICKLE_DICT && i < dict->count; i += 2) {
    char name[96], what[96];
    const pickle_value *key = dict->items[i], *item = dict->items[i + 1];
    bool is_named = key->kind == PICKLE_TEXT;
    if (item == chosen || (dict == chosen && is_named && item->kind == PICKLE_TENSOR)) continue;
    if (unread++ < MAX_REPORTED)
      report_line(s->report, "  not read %-52s %s",
                  is_named ? printable(key->text, name) : "(a key that is no text)",
                  pickle_describe(item, what));
  }
  if (unread > MAX_REPORTED)
    report_line(s->report, "  not read and %d more", unread - MAX_REPORTED);
}

static status read_state_dict(source *s, const char *key, weights *out) {
  zip_entry *entry;
  const void *bytes;
  const pickle_value *root, *dict;
  TRY(find_pickle(s, &entry));
  TRY(zip_data(&s->zip, entry, &bytes));
  TRY(pickle_read(bytes, (size_t)entry->bytes, &s->memory, &root));
  TRY(key ? find_key(s, root, key, &dict) : find_state_dict(s, root, &dict));
  char shown[96];
  if (key || dict != root)
    report_line(s->report, "state dict: %s", printable(key ? key : key_of(root, dict), shown));
  if (dict != root) report_unread(s, root, dict);
  report_unread(s, dict, dict);
  uint64_t total = 0;
  for (int i = 0; i < s->zip.count; i++) total += s->zip.entries[i].bytes;
  s->bytes_left = total * MAX_SHARING + SHARING_FREE_BYTES;
  TRY(weights_begin(out));
  for (int i = 0; i < dict->count; i += 2)
    if (dict->items[i]->kind == PICKLE_BYTES && dict->items[i + 1]->kind == PICKLE_TENSOR)
      return refuse("a tensor's name has a NUL inside");
    else if (dict->items[i]->kind == PICKLE_TEXT && dict->items[i + 1]->kind == PICKLE_TENSOR)
      TRY(load_tensor(s, dict->items[i]->text, dict->items[i + 1]->tensor, out));
  return weights_end(out);
}

status pytorch_read(const char *path, const char *key, weights *out, const reporter *report) {
  *out = (weights){0};
  source s = {.report = report};
  status error = zip_open(path, &s.zip);
  if (!error) error = read_state_dict(&s, key, out);
  if (error && error_code_of(error) == ERROR_DATA) error = weights_refused(path, error);
  if (error) weights_close(out);
  zip_close(&s.zip);
  arena_free(&s.memory);
  return error;
}

bool pytorch_is_legacy(const unsigned char *bytes, size_t length) {
  /* A safetensors file of the same first bytes has its brace at the ninth. */
  return length > 8 && bytes[0] == 0x80 && bytes[1] >= 1 && bytes[1] <= 5 && bytes[8] != '{';
}

status pytorch_legacy_refused(void) {
  return refuse(
      "it is a pickle without an archive, as PyTorch wrote before 1.6. Write it anew with "
      "a present PyTorch: torch.save(torch.load(PATH, weights_only=True), NEW_PATH)");
}
