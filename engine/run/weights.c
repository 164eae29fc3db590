/* The safetensors format: u64 header length (little-endian), header, data. The header is a JSON
 * object: name → {"dtype", "shape", "data_offsets": [begin, end) in the data part}, and optionally
 * "__metadata__" → {string: string}. The tensors cover the data part without gaps or overlaps. */
#include "run/weights.h"

#include "base/arena.h"
#include "base/files.h"
#include "base/map.h"
#include "base/text.h"
#include "weights/element.h"

#include <jansson.h>

#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are mapped as they are");

enum { LENGTH_BYTES = 8, ALIGNMENT = 8 };

/* ---- reading ----------------------------------------------------------------------------------
 */

typedef struct weight_file {
  arena memory;
  file_map file;
  unsigned char *map; /* its data */
  size_t map_bytes;
  void **copies; /* converted tensors, heap */
  int copy_count, copy_capacity, list_capacity;
} weight_file;

typedef struct header_entry {
  const char *name;
  const element_type *type;
  shape shape;
  uint64_t begin, end;
} header_entry;

status weights_refused(const char *path, status error) {
  return error_prefix(error, "%s is not a usable weight file", path);
}

static status refuse(const char *path, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static status refuse(const char *path, const char *format, ...) {
  va_list args;
  va_start(args, format);
  status error = error_newv(ERROR_DATA, NOWHERE, format, args);
  va_end(args);
  return weights_refused(path, error);
}

static status map_file(const char *path, weight_file *file) {
  status error = file_map_open(path, &file->file);
  if (error) return error_code_of(error) == ERROR_DATA ? weights_refused(path, error) : error;
  file->map = file->file.data;
  file->map_bytes = file->file.bytes;
  if (file->map_bytes < LENGTH_BYTES + 2)
    return refuse(path, "it has only %zu bytes", file->map_bytes);
  return OK;
}

static bool is_valid_name(const char *name) {
  size_t length = strlen(name);
  return length > 0 && length <= WEIGHTS_MAX_NAME_BYTES && text_is_printable(name);
}

static status read_shape(const char *path, const json_t *list, header_entry *entry,
                         uint64_t *bytes) {
  size_t rank = json_array_size(list);
  if (!json_is_array(list)) return refuse(path, "tensor '%s' has no shape", entry->name);
  if (rank > MAX_DIMS)
    return refuse(path, "tensor '%s' has %zu dimensions; at most %d are supported", entry->name,
                  rank, MAX_DIMS);
  entry->shape.rank = (int)rank;
  bool is_empty = false;
  int64_t product = (int64_t)entry->type->bytes; /* of the dimensions that are not 0 */
  for (size_t i = 0; i < rank; i++) {
    const json_t *item = json_array_get(list, i);
    if (!json_is_integer(item) || json_integer_value(item) < 0)
      return refuse(path, "dimension %zu of tensor '%s' is not a whole number ≥ 0", i, entry->name);
    int64_t dim = json_integer_value(item);
    entry->shape.dim[i] = dim;
    is_empty |= dim == 0;
    if (__builtin_mul_overflow(product, dim > 0 ? dim : 1, &product))
      return refuse(path, "tensor '%s' is larger than any memory", entry->name);
  }
  *bytes = is_empty ? 0 : (uint64_t)product;
  return OK;
}

static status read_entry(const char *path, const json_t *value, uint64_t data_bytes,
                         header_entry *entry) {
  if (!is_valid_name(entry->name))
    return refuse(path,
                  "a tensor's name is empty, longer than %d bytes or holds control characters",
                  WEIGHTS_MAX_NAME_BYTES);
  const char *type = json_string_value(json_object_get(value, "dtype"));
  if (!type) return refuse(path, "tensor '%s' has no dtype", entry->name);
  entry->type = element_type_of(type);
  if (!entry->type)
    return refuse(path,
                  "tensor '%s' has the type %.16s; supported are F32, F16, BF16, F64, I32, I64, "
                  "I16, I8, U8 and BOOL",
                  entry->name, type);
  uint64_t bytes = 0;
  TRY(read_shape(path, json_object_get(value, "shape"), entry, &bytes));
  const json_t *offsets = json_object_get(value, "data_offsets");
  const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
  if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
      json_integer_value(begin) < 0 || json_integer_value(end) < json_integer_value(begin))
    return refuse(path, "tensor '%s' has no data_offsets [begin, end]", entry->name);
  entry->begin = (uint64_t)json_integer_value(begin);
  entry->end = (uint64_t)json_integer_value(end);
  if (entry->end > data_bytes)
    return refuse(path,
                  "tensor '%s' ends at byte %llu of the data, which has %llu; is the file cut "
                  "short?",
                  entry->name, (unsigned long long)entry->end, (unsigned long long)data_bytes);
  if (entry->end - entry->begin != bytes) {
    char text[96];
    return refuse(path, "tensor '%s' (%s %s) takes %llu bytes, but %llu are given", entry->name,
                  type, shape_format(text, &entry->shape), (unsigned long long)bytes,
                  (unsigned long long)(entry->end - entry->begin));
  }
  return OK;
}

static int compare_begin(const void *a, const void *b) {
  const header_entry *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  if (x->end != y->end) return x->end < y->end ? -1 : 1;
  return strcmp(x->name, y->name);
}

/* The entries, sorted by place, cover [0, data_bytes) exactly. */
static status check_cover(const char *path, const header_entry *entries, int count,
                          uint64_t data_bytes) {
  uint64_t at = 0;
  for (int i = 0; i < count; i++) {
    if (entries[i].begin < at)
      return refuse(path, "tensors '%s' and '%s' overlap", entries[i - 1].name, entries[i].name);
    if (entries[i].begin > at)
      return refuse(path, "%llu bytes before tensor '%s' belong to no tensor",
                    (unsigned long long)(entries[i].begin - at), entries[i].name);
    at = entries[i].end;
  }
  if (at != data_bytes)
    return refuse(path, "%llu bytes at the end belong to no tensor",
                  (unsigned long long)(data_bytes - at));
  return OK;
}

static int compare_pairs(const void *a, const void *b) {
  return strcmp(((const char *const *)a)[0], ((const char *const *)b)[0]);
}

static status read_metadata(const char *path, const json_t *map, weight_file *file, weights *out) {
  size_t n = json_object_size(map);
  const char **pairs = arena_alloc(&file->memory, (2 * n + 1) * sizeof *pairs);
  size_t i = 0;
  const char *key;
  json_t *value;
  if (map && !json_is_object(map)) return refuse(path, "its __metadata__ is not an object");
  json_object_foreach((json_t *)map, key, value) {
    if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value))
      return refuse(path, "its __metadata__ holds something else than text");
    pairs[2 * i] = arena_strdup(&file->memory, key);
    pairs[2 * i + 1] = arena_strdup(&file->memory, json_string_value(value));
    i++;
  }
  qsort(pairs, n, 2 * sizeof *pairs, compare_pairs);
  out->metadata = pairs;
  return OK;
}

/* A copy with the element type Strata computes in. */
static status convert(const char *path, const header_entry *entry, const unsigned char *data,
                      weight_file *file, named_tensor *out) {
  void *copy;
  status error =
      element_convert(entry->type, data, shape_elements(&entry->shape), entry->name, &copy);
  if (error) return weights_refused(path, error);
  ARENA_PUSH(&file->memory, file->copies, file->copy_count, file->copy_capacity, copy);
  out->tensor.data = copy;
  return OK;
}

static int compare_tensors(const void *a, const void *b) {
  return strcmp(((const named_tensor *)a)->name, ((const named_tensor *)b)->name);
}

static status read_tensors(const char *path, const json_t *header, size_t data_at,
                           weight_file *file, weights *out) {
  uint64_t data_bytes = file->map_bytes - data_at;
  const json_t *metadata = json_object_get(header, "__metadata__");
  int count = (int)json_object_size(header) - (metadata != NULL), i = 0;
  header_entry *entries = arena_alloc(&file->memory, (size_t)count * sizeof *entries);
  TRY(read_metadata(path, metadata, file, out));
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)header, key, value) {
    if (value == metadata) continue;
    entries[i].name = arena_strdup(&file->memory, key);
    TRY(read_entry(path, value, data_bytes, &entries[i]));
    i++;
  }
  qsort(entries, (size_t)count, sizeof *entries, compare_begin);
  TRY(check_cover(path, entries, count, data_bytes));
  out->list = arena_alloc(&file->memory, (size_t)count * sizeof *out->list);
  for (i = 0; i < count; i++) {
    unsigned char *data = file->map + data_at + entries[i].begin;
    named_tensor *t = &out->list[i];
    t->name = entries[i].name;
    t->tensor = (tensor){entries[i].type->becomes, entries[i].shape, data};
    if (!element_is_native(entries[i].type) || (uintptr_t)data % 4 != 0)
      TRY(convert(path, &entries[i], data, file, t));
  }
  qsort(out->list, (size_t)count, sizeof *out->list, compare_tensors);
  out->count = count;
  return OK;
}

static status read_mapped(const char *path, weight_file *file, weights *out) {
  uint64_t header_bytes;
  memcpy(&header_bytes, file->map, sizeof header_bytes);
  if (header_bytes > file->map_bytes - LENGTH_BYTES)
    return refuse(path,
                  "its header should have %llu bytes, but the file has %zu; it is cut short "
                  "or no safetensors file",
                  (unsigned long long)header_bytes, file->map_bytes);
  if (header_bytes > WEIGHTS_MAX_HEADER_BYTES)
    return refuse(path, "its header has %llu bytes; at most %d are read",
                  (unsigned long long)header_bytes, WEIGHTS_MAX_HEADER_BYTES);
  const char *text = (const char *)file->map + LENGTH_BYTES;
  if (header_bytes < 2 || text[0] != '{') return refuse(path, "its header does not begin with {");
  json_error_t problem;
  json_t *header = json_loadb(text, (size_t)header_bytes, JSON_REJECT_DUPLICATES, &problem);
  if (!header)
    return refuse(path, "its header is not JSON: %s, at byte %d", problem.text, problem.position);
  status error = read_tensors(path, header, LENGTH_BYTES + (size_t)header_bytes, file, out);
  json_decref(header);
  return error;
}

status weights_read(const char *path, weights *out) {
  *out = (weights){0};
  weight_file *file = calloc(1, sizeof *file);
  if (!file) return error_out_of_memory(sizeof *file);
  out->impl = file;
  status error = map_file(path, file);
  if (!error) error = read_mapped(path, file, out);
  if (error) weights_close(out);
  return error;
}

const named_tensor *weights_find(const weights *w, const char *name) {
  named_tensor key = {.name = name};
  return w->count ? bsearch(&key, w->list, (size_t)w->count, sizeof *w->list, compare_tensors)
                  : NULL;
}

void weights_close(weights *w) {
  weight_file *file = w->impl;
  if (!file) return;
  for (int i = 0; i < file->copy_count; i++) free(file->copies[i]);
  file_map_close(&file->file);
  arena_free(&file->memory);
  free(file);
  *w = (weights){0};
}

/* ---- building --------------------------------------------------------------------------------
 */

status weights_begin(weights *out) {
  *out = (weights){.impl = calloc(1, sizeof(weight_file))};
  if (!out->impl) return error_out_of_memory(sizeof(weight_file));
  weight_file *file = out->impl;
  out->metadata = arena_alloc(&file->memory, sizeof *out->metadata);
  return OK;
}

void weights_add(weights *w, const char *name, tensor t) {
  weight_file *file = w->impl;
  ARENA_PUSH(&file->memory, file->copies, file->copy_count, file->copy_capacity, t.data);
  const named_tensor added = {arena_strdup(&file->memory, name), t};
  ARENA_PUSH(&file->memory, w->list, w->count, file->list_capacity, added);
}

status weights_end(weights *w) {
  if (w->count) qsort(w->list, (size_t)w->count, sizeof *w->list, compare_tensors);
  for (int i = 0; i < w->count; i++) {
    if (!is_valid_name(w->list[i].name))
      return error_new(ERROR_DATA, NOWHERE,
                       "a tensor's name is empty, longer than %d bytes or holds control characters",
                       WEIGHTS_MAX_NAME_BYTES);
    if (i > 0 && strcmp(w->list[i - 1].name, w->list[i].name) == 0)
      return error_new(ERROR_DATA, NOWHERE, "two tensors are named '%s'", w->list[i].name);
  }
  return OK;
}

status weights_rename(weights *w, const char *const *names) {
  weight_file *file = w->impl;
  int kept = 0;
  for (int i = 0; i < w->count; i++)
    if (names[i])
      w->list[kept++] = (named_tensor){arena_strdup(&file->memory, names[i]), w->list[i].tensor};
  w->count = kept;
  return weights_end(w);
}

/* ---- writing ----------------------------------------------------------------------------------
 */

/* A JSON string, quoted and escaped. */
static status add_string(const char *path, text_buffer *out, const char *text) {
  json_t *value = json_string(text);
  char *quoted = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
  json_decref(value);
  if (!quoted)
    return error_new(ERROR_DATA, NOWHERE, "cannot write %s: a name in it is not UTF-8 text", path);
  text_add(out, "%s", quoted);
  free(quoted);
  return OK;
}

static status add_metadata(const char *path, text_buffer *out, const char *const *metadata) {
  size_t n = 0;
  while (metadata && metadata[2 * n]) n++;
  if (n == 0) return OK;
  const char **pairs = malloc(2 * n * sizeof *pairs);
  if (!pairs) return error_out_of_memory(2 * n * sizeof *pairs);
  memcpy(pairs, metadata, 2 * n * sizeof *pairs);
  qsort(pairs, n, 2 * sizeof *pairs, compare_pairs);
  text_add(out, "\"__metadata__\":{");
  status error = OK;
  for (size_t i = 0; i < n && !error; i++) {
    if (i > 0) text_add(out, ",");
    error = add_string(path, out, pairs[2 * i]);
    text_add(out, ":");
    if (!error) error = add_string(path, out, pairs[2 * i + 1]);
  }
  text_add(out, "}");
  free(pairs);
  return error;
}

static status add_header(const char *path, text_buffer *out, const named_tensor *list, int count,
                         const char *const *metadata) {
  text_add(out, "{");
  TRY(add_metadata(path, out, metadata));
  uint64_t at = 0;
  for (int i = 0; i < count; i++) {
    const named_tensor *t = &list[i];
    if (i > 0 && strcmp(list[i - 1].name, t->name) == 0)
      return error_new(ERROR_DATA, NOWHERE, "cannot write %s: two tensors are named '%s'", path,
                       t->name);
    if (!is_valid_name(t->name) || strcmp(t->name, "__metadata__") == 0)
      return error_new(ERROR_DATA, NOWHERE, "cannot write %s: '%.100s' cannot name a tensor", path,
                       t->name);
    if (out->length > 1) text_add(out, ",");
    TRY(add_string(path, out, t->name));
    text_add(out, ":{\"dtype\":\"%s\",\"shape\":[", t->tensor.dtype == DTYPE_F32 ? "F32" : "I32");
    for (int d = 0; d < t->tensor.shape.rank; d++)
      text_add(out, "%s%lld", d ? "," : "", (long long)t->tensor.shape.dim[d]);
    uint64_t end = at + tensor_bytes(&t->tensor);
    text_add(out, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
             (unsigned long long)end);
    at = end;
  }
  text_add(out, "}");
  while (out->length % ALIGNMENT != 0) text_add(out, " ");
  return OK;
}

status weights_write(const char *path, const named_tensor *list, int count,
                     const char *const *metadata) {
  named_tensor *sorted = malloc(((size_t)count + 1) * sizeof *sorted);
  if (!sorted) return error_out_of_memory((size_t)count * sizeof *sorted);
  if (count) memcpy(sorted, list, (size_t)count * sizeof *sorted);
  qsort(sorted, (size_t)count, sizeof *sorted, compare_tensors);
  text_buffer header = {0};
  atomic_file file = {0};
  status error = add_header(path, &header, sorted, count, metadata);
  if (!error) error = atomic_begin(path, &file);
  if (!error) {
    uint64_t header_bytes = header.length;
    bool wrote = fwrite(&header_bytes, sizeof header_bytes, 1, file.stream) == 1 &&
                 fwrite(header.data, 1, header.length, file.stream) == header.length;
    for (int i = 0; i < count && wrote; i++) {
      size_t bytes = tensor_bytes(&sorted[i].tensor);
      wrote = bytes == 0 || fwrite(sorted[i].tensor.data, 1, bytes, file.stream) == bytes;
    }
    if (wrote) {
      error = atomic_commit(&file);
    } else {
      error = error_from_errno("write", path);
      atomic_abandon(&file);
    }
  }
  text_free(&header);
  free(sorted);
  return error;
}
