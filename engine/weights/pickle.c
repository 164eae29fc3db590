/* Instructions as pickletools documents them, protocol 2. Each handler checks what it takes from the
 * stack, so a file can end in an error but never in a value of the wrong kind. */
#include "weights/pickle.h"

#include "base/refuse.h"
#include "language/tree.h"

#include <ctype.h>
#include <string.h>

enum { MAX_NAME_BYTES = 200 };

typedef pickle_value value;

typedef enum meaning {
  MEANS_DICT,
  MEANS_SIZE,
  MEANS_TENSOR,
  MEANS_PARAMETER,
  MEANS_STORAGE,
  MEANS_OBJECT
} meaning;

/* All that a file may name. */
typedef struct pickle_name {
  const char *module, *name;
  meaning meaning;
  const char *element; /* of a storage */
} pickle_name;

static const pickle_name allowed[] = {
    {"collections", "OrderedDict", MEANS_DICT, NULL},
    {"torch", "Size", MEANS_SIZE, NULL},
    {"torch._utils", "_rebuild_tensor_v2", MEANS_TENSOR, NULL},
    {"torch._utils", "_rebuild_parameter", MEANS_PARAMETER, NULL},
    {"torch", "FloatStorage", MEANS_STORAGE, "F32"},
    {"torch", "DoubleStorage", MEANS_STORAGE, "F64"},
    {"torch", "HalfStorage", MEANS_STORAGE, "F16"},
    {"torch", "BFloat16Storage", MEANS_STORAGE, "BF16"},
    {"torch", "LongStorage", MEANS_STORAGE, "I64"},
    {"torch", "IntStorage", MEANS_STORAGE, "I32"},
    {"torch", "ShortStorage", MEANS_STORAGE, "I16"},
    {"torch", "CharStorage", MEANS_STORAGE, "I8"},
    {"torch", "ByteStorage", MEANS_STORAGE, "U8"},
    {"torch", "BoolStorage", MEANS_STORAGE, "BOOL"},
    /* What training scripts keep beside the weights: scores that NumPy computed, settings. Nothing
     * of it is built or looked at, so an entry needs no more than its name. */
    {"numpy", "dtype", MEANS_OBJECT, NULL},
    {"numpy", "ndarray", MEANS_OBJECT, NULL},
    {"numpy.core.multiarray", "scalar", MEANS_OBJECT, NULL},
    {"numpy.core.multiarray", "_reconstruct", MEANS_OBJECT, NULL},
    {"numpy._core.multiarray", "scalar", MEANS_OBJECT, NULL},
    {"numpy._core.multiarray", "_reconstruct", MEANS_OBJECT, NULL},
    {"_codecs", "encode", MEANS_OBJECT, NULL}, /* bytes, in protocol 2 */
    {"__builtin__", "set", MEANS_OBJECT, NULL},
    {"__builtin__", "dict", MEANS_OBJECT, NULL},
    {"__builtin__", "list", MEANS_OBJECT, NULL},
    {"__builtin__", "long", MEANS_OBJECT, NULL},
    {"__builtin__", "float", MEANS_OBJECT, NULL},
    {"collections", "defaultdict", MEANS_OBJECT, NULL},
    {"argparse", "Namespace", MEANS_OBJECT, NULL},
    {"pathlib", "PosixPath", MEANS_OBJECT, NULL},
    {"pathlib", "WindowsPath", MEANS_OBJECT, NULL},
    {"pathlib._local", "PosixPath", MEANS_OBJECT, NULL},
    {"pathlib._local", "WindowsPath", MEANS_OBJECT, NULL},
    {"torch", "device", MEANS_OBJECT, NULL},
    {"torch", "float16", MEANS_OBJECT, NULL},
    {"torch", "bfloat16", MEANS_OBJECT, NULL},
    {"torch", "float32", MEANS_OBJECT, NULL},
    {"torch", "float64", MEANS_OBJECT, NULL},
    {"lightning_fabric.utilities.data", "AttributeDict", MEANS_OBJECT, NULL},
    {"lightning.fabric.utilities.data", "AttributeDict", MEANS_OBJECT, NULL},
    {"pytorch_lightning.utilities.parsing", "AttributeDict", MEANS_OBJECT, NULL},
};

typedef struct machine {
  const unsigned char *bytes;
  size_t length, at;
  arena *memory;
  value **stack;
  int depth, stack_capacity;
  int marks[PICKLE_MAX_MARKS]; /* depths */
  int mark_count;
  value **memo; /* NULL: not set */
  size_t memo_capacity;
  int value_count, tensor_count;
} machine;

static status damaged(const machine *m) {
  return refuse("its pickle is damaged at byte %zu", m->at);
}

/* ---- values -----------------------------------------------------------------------------------
 */

static status push(machine *m, value *v) {
  if (m->depth == PICKLE_MAX_STACK)
    return refuse("its pickle stacks more than %d values", PICKLE_MAX_STACK);
  ARENA_PUSH(m->memory, m->stack, m->depth, m->stack_capacity, v);
  return OK;
}

static status push_new(machine *m, value content, value **out) {
  if (m->value_count++ == PICKLE_MAX_VALUES)
    return refuse("its pickle holds more than %d values", PICKLE_MAX_VALUES);
  value *v = arena_copy(m->memory, &content, sizeof content);
  if (out) *out = v;
  return push(m, v);
}

static status push_int(machine *m, int64_t n) {
  return push_new(m, (value){.kind = PICKLE_INT, .integer = n}, NULL);
}

/* Values above the last mark are not the stack's to give. */
static status pop(machine *m, value **out) {
  int floor = m->mark_count ? m->marks[m->mark_count - 1] : 0;
  if (m->depth <= floor) return damaged(m);
  *out = m->stack[--m->depth];
  return OK;
}

static status peek(const machine *m, int below, value **out) {
  int floor = m->mark_count ? m->marks[m->mark_count - 1] : 0;
  if (m->depth - below <= floor) return damaged(m);
  *out = m->stack[m->depth - 1 - below];
  return OK;
}

static status push_mark(machine *m) {
  if (m->mark_count == PICKLE_MAX_MARKS)
    return refuse("its pickle is nested more than %d deep", PICKLE_MAX_MARKS);
  m->marks[m->mark_count++] = m->depth;
  return OK;
}

/* What lies above the last mark, which goes: *first is its place in the stack. The depth stays. */
static status pop_mark(machine *m, int *first) {
  if (m->mark_count == 0) return damaged(m);
  *first = m->marks[--m->mark_count];
  return OK;
}

static status take(machine *m, size_t n, const unsigned char **out) {
  if (m->length - m->at < n) return refuse("its pickle is cut short");
  *out = m->bytes + m->at;
  m->at += n;
  return OK;
}

/* Little-endian, unsigned. */
static status take_number(machine *m, int bytes, uint64_t *out) {
  const unsigned char *p;
  TRY(take(m, (size_t)bytes, &p));
  *out = 0;
  for (int i = 0; i < bytes; i++) *out |= (uint64_t)p[i] << 8 * i;
  return OK;
}

static void append(machine *m, value *to, value *item) {
  ARENA_PUSH(m->memory, to->items, to->count, to->capacity, item);
}

/* ---- names and what they build ----------------------------------------------------------------
 */

/* A line of printable ASCII. */
static status take_line(machine *m, char out[MAX_NAME_BYTES + 1]) {
  size_t n = 0;
  for (;;) {
    const unsigned char *p;
    TRY(take(m, 1, &p));
    if (*p == '\n') break;
    if (n == MAX_NAME_BYTES || !isprint(*p))
      return refuse("its pickle names something unreadable at byte %zu", m->at);
    out[n++] = (char)*p;
  }
  out[n] = 0;
  return OK;
}

static status do_global(machine *m) {
  char module[MAX_NAME_BYTES + 1], name[MAX_NAME_BYTES + 1];
  TRY(take_line(m, module));
  TRY(take_line(m, name));
  for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
    if (strcmp(allowed[i].module, module) == 0 && strcmp(allowed[i].name, name) == 0)
      return push_new(m, (value){.kind = PICKLE_NAME, .name = &allowed[i]}, NULL);
  return refuse(
      "it asks Python for %s.%s. Only tensors, dicts, lists, texts and numbers are read, a few plain "
      "classes are passed over, and nothing in a file is ever run. If you trust its source, write a "
      "file with the weights alone: torch.save(model.state_dict(), PATH)",
      module, name);
}

static bool is_kind(const value *v, pickle_kind kind) {
  return v->kind == kind;
}

/* ('storage', type, key, location, elements) */
static status do_storage(machine *m) {
  value *id;
  TRY(pop(m, &id));
  value *const *part = id->items;
  if (!is_kind(id, PICKLE_TUPLE) || id->count != 5 || !is_kind(part[0], PICKLE_TEXT) ||
      strcmp(part[0]->text, "storage") != 0 || !is_kind(part[1], PICKLE_NAME) ||
      part[1]->name->meaning != MEANS_STORAGE || !is_kind(part[2], PICKLE_TEXT) ||
      !is_kind(part[4], PICKLE_INT) || part[4]->integer < 0)
    return damaged(m);
  pickle_storage *storage = arena_alloc(m->memory, sizeof *storage);
  *storage =
      (pickle_storage){part[2]->text, element_type_of(part[1]->name->element), part[4]->integer};
  return push_new(m, (value){.kind = PICKLE_STORAGE, .storage = storage}, NULL);
}

static status read_numbers(const machine *m, const value *tuple, const char *what,
                           int64_t out[MAX_DIMS]) {
  if (!is_kind(tuple, PICKLE_TUPLE)) return damaged(m);
  if (tuple->count > MAX_DIMS)
    return refuse("a tensor has %d dimensions; at most %d are supported", tuple->count, MAX_DIMS);
  for (int i = 0; i < tuple->count; i++) {
    if (!is_kind(tuple->items[i], PICKLE_INT)) return damaged(m);
    out[i] = tuple->items[i]->integer;
    if (out[i] < 0) return refuse("a tensor has a negative %s", what);
  }
  return OK;
}

/* Size and strides stay inside the storage. */
static status check_reach(const pickle_tensor *t) {
  int64_t elements = 1, last = t->offset; /* of the dimensions that are not 0 */
  bool fits = true, is_empty = false;
  for (int i = 0; i < t->shape.rank && fits; i++) {
    int64_t dim = t->shape.dim[i], reach;
    is_empty |= dim == 0;
    if (dim == 0) continue;
    fits = !__builtin_mul_overflow(elements, dim, &elements) &&
           !__builtin_mul_overflow(dim - 1, t->stride[i], &reach) &&
           !__builtin_add_overflow(last, reach, &last);
  }
  char key[96];
  printable(t->storage->key, key);
  if (!fits || (!is_empty && last >= t->storage->elements))
    return refuse("a tensor reaches outside its storage %s, which has %lld elements", key,
                  (long long)t->storage->elements);
  if (!is_empty && elements > t->storage->elements)
    return refuse("a tensor of %lld elements repeats those of its storage %s, which has %lld; save "
                  "it with .contiguous()",
                  (long long)elements, key, (long long)t->storage->elements);
  return OK;
}

/* (storage, offset, size, stride, requires_grad, hooks[, metadata]) */
static status build_tensor(machine *m, const value *args) {
  value *const *part = args->items;
  if (args->count < 6 || args->count > 7 || !is_kind(part[0], PICKLE_STORAGE) ||
      !is_kind(part[1], PICKLE_INT) || part[1]->integer < 0 || part[2]->count != part[3]->count)
    return damaged(m);
  if (m->tensor_count++ == PICKLE_MAX_TENSORS)
    return refuse("it holds more than %d tensors", PICKLE_MAX_TENSORS);
  pickle_tensor *t = arena_alloc(m->memory, sizeof *t);
  t->storage = part[0]->storage;
  t->offset = part[1]->integer;
  TRY(read_numbers(m, part[2], "size", t->shape.dim));
  TRY(read_numbers(m, part[3], "stride", t->stride));
  t->shape.rank = part[2]->count;
  TRY(check_reach(t));
  return push_new(m, (value){.kind = PICKLE_TENSOR, .tensor = t}, NULL);
}

static status push_object(machine *m, const pickle_name *name) {
  return push_new(m, (value){.kind = PICKLE_OBJECT, .name = name}, NULL);
}

/* class, arguments → object. */
static status do_new_object(machine *m) {
  value *args, *class;
  TRY(pop(m, &args));
  TRY(pop(m, &class));
  if (!is_kind(class, PICKLE_NAME) || class->name->meaning != MEANS_OBJECT ||
      !is_kind(args, PICKLE_TUPLE))
    return damaged(m);
  return push_object(m, class->name);
}

/* callable, arguments → what the callable would return */
static status do_reduce(machine *m) {
  value *args, *callable;
  TRY(pop(m, &args));
  TRY(pop(m, &callable));
  if (!is_kind(callable, PICKLE_NAME) || !is_kind(args, PICKLE_TUPLE)) return damaged(m);
  const pickle_name *name = callable->name;
  switch (name->meaning) {
  case MEANS_DICT: /* filled by SETITEMS */
    if (args->count != 0) return damaged(m);
    return push_new(m, (value){.kind = PICKLE_DICT}, NULL);
  case MEANS_SIZE: /* (tuple,) */
    if (args->count != 1 || !is_kind(args->items[0], PICKLE_TUPLE)) return damaged(m);
    return push(m, args->items[0]);
  case MEANS_TENSOR:
    return build_tensor(m, args);
  case MEANS_PARAMETER: /* (tensor, requires_grad, hooks) */
    if (args->count != 3 || !is_kind(args->items[0], PICKLE_TENSOR)) return damaged(m);
    return push(m, args->items[0]);
  case MEANS_OBJECT:
    return push_object(m, name);
  case MEANS_STORAGE:
    break;
  }
  return refuse("it calls %s.%s, which is not done for weights", name->module, name->name);
}

/* object, attributes → object. A state_dict carries its modules' versions in an attribute. */
static status do_build(machine *m) {
  value *attributes, *object;
  TRY(pop(m, &attributes));
  TRY(peek(m, 0, &object));
  if (is_kind(object, PICKLE_OBJECT)) return OK;
  return is_kind(attributes, PICKLE_DICT) && is_kind(object, PICKLE_DICT) ? OK : damaged(m);
}

/* ---- instructions -----------------------------------------------------------------------------
 */

/* Items of the stack from `first` on become a tuple in their place. */
static status make_tuple(machine *m, int first) {
  value tuple = {.kind = PICKLE_TUPLE, .count = m->depth - first};
  if (tuple.count)
    tuple.items = arena_copy(m->memory, m->stack + first, (size_t)tuple.count * sizeof(value *));
  m->depth = first;
  return push_new(m, tuple, NULL);
}

static status make_short_tuple(machine *m, int count) {
  value *deepest;
  TRY(peek(m, count - 1, &deepest));
  return make_tuple(m, m->depth - count);
}

static status make_marked_tuple(machine *m) {
  int first;
  TRY(pop_mark(m, &first));
  return make_tuple(m, first);
}

/* The items from `first` on go to the list or dict below them; those of an object are dropped. */
static status add_items(machine *m, int first, pickle_kind kind) {
  int count = m->depth - first;
  m->depth = first;
  value *to;
  TRY(peek(m, 0, &to));
  if (is_kind(to, PICKLE_OBJECT)) return OK;
  if (!is_kind(to, kind) || (kind == PICKLE_DICT && count % 2 != 0)) return damaged(m);
  for (int i = 0; i < count; i++) {
    value *item = m->stack[first + i];
    append(m, to, item);
    to->holds_tensor |= kind == PICKLE_DICT && i % 2 == 1 && is_kind(item, PICKLE_TENSOR);
  }
  return OK;
}

static status add_marked_items(machine *m, pickle_kind kind) {
  int first;
  TRY(pop_mark(m, &first));
  return add_items(m, first, kind);
}

static status add_last_items(machine *m, int count, pickle_kind kind) {
  value *target;
  TRY(peek(m, count, &target));
  return add_items(m, m->depth - count, kind);
}

static status do_put(machine *m, int bytes) {
  uint64_t index;
  value *v;
  TRY(take_number(m, bytes, &index));
  TRY(peek(m, 0, &v));
  /* A pickler counts, and spends two bytes on each. */
  if (index >= m->at) return refuse("its pickle has a memo out of proportion");
  if (index >= m->memo_capacity) {
    size_t capacity = m->memo_capacity * 2 > index ? m->memo_capacity * 2 : (size_t)index + 64;
    value **grown = arena_alloc(m->memory, capacity * sizeof *grown);
    if (m->memo_capacity) memcpy(grown, m->memo, m->memo_capacity * sizeof *grown);
    m->memo = grown;
    m->memo_capacity = capacity;
  }
  m->memo[index] = v;
  return OK;
}

static status do_get(machine *m, int bytes) {
  uint64_t index;
  TRY(take_number(m, bytes, &index));
  if (index >= m->memo_capacity || !m->memo[index]) return damaged(m);
  return push(m, m->memo[index]);
}

static status do_text(machine *m) {
  uint64_t bytes;
  const unsigned char *p;
  TRY(take_number(m, 4, &bytes));
  TRY(take(m, (size_t)bytes, &p));
  if (memchr(p, 0, (size_t)bytes)) /* the bytes of a NumPy number */
    return push_new(m, (value){.kind = PICKLE_BYTES}, NULL);
  const char *text = arena_strndup(m->memory, (const char *)p, (size_t)bytes);
  return push_new(m, (value){.kind = PICKLE_TEXT, .text = text}, NULL);
}

static status do_fixed_int(machine *m, int bytes, bool is_signed) {
  uint64_t n;
  TRY(take_number(m, bytes, &n));
  return push_int(m, is_signed ? (int32_t)(uint32_t)n : (int64_t)n);
}

/* Two's complement of any length. */
static status do_long(machine *m) {
  uint64_t bytes, n = 0;
  const unsigned char *p;
  TRY(take_number(m, 1, &bytes));
  TRY(take(m, (size_t)bytes, &p));
  if (bytes > 8) return push_new(m, (value){.kind = PICKLE_LARGE_INT}, NULL);
  for (uint64_t i = 0; i < 8; i++) {
    bool is_negative = bytes && p[bytes - 1] & 0x80;
    n |= (uint64_t)(i < bytes ? p[i] : is_negative ? 0xFF : 0) << 8 * i;
  }
  return push_int(m, (int64_t)n);
}

static status do_float(machine *m) { /* big-endian */
  const unsigned char *p;
  TRY(take(m, 8, &p));
  uint64_t bits = 0;
  for (int i = 0; i < 8; i++) bits = bits << 8 | p[i];
  value v = {.kind = PICKLE_FLOAT};
  memcpy(&v.number, &bits, sizeof bits);
  return push_new(m, v, NULL);
}

static status do_protocol(machine *m) {
  uint64_t protocol;
  TRY(take_number(m, 1, &protocol));
  if (protocol == 2) return OK;
  return refuse("its pickle has protocol %d; save it without pickle_protocol=, in protocol 2",
                (int)protocol);
}

static status step(machine *m, unsigned char instruction) {
  switch (instruction) {
  case 0x80:
    return do_protocol(m);
  case '(':
    return push_mark(m);
  case '}':
    return push_new(m, (value){.kind = PICKLE_DICT}, NULL);
  case ']':
    return push_new(m, (value){.kind = PICKLE_LIST}, NULL);
  case ')':
    return push_new(m, (value){.kind = PICKLE_TUPLE}, NULL);
  case 't':
    return make_marked_tuple(m);
  case 0x85: /* TUPLE1, 2, 3 */
  case 0x86:
  case 0x87:
    return make_short_tuple(m, instruction - 0x84);
  case 'a':
    return add_last_items(m, 1, PICKLE_LIST);
  case 'e':
    return add_marked_items(m, PICKLE_LIST);
  case 's':
    return add_last_items(m, 2, PICKLE_DICT);
  case 'u':
    return add_marked_items(m, PICKLE_DICT);
  case 'N':
    return push_new(m, (value){.kind = PICKLE_NONE}, NULL);
  case 0x88: /* NEWTRUE, NEWFALSE */
  case 0x89:
    return push_new(m, (value){.kind = PICKLE_BOOL, .integer = instruction == 0x88}, NULL);
  case 'K':
    return do_fixed_int(m, 1, false);
  case 'M':
    return do_fixed_int(m, 2, false);
  case 'J':
    return do_fixed_int(m, 4, true);
  case 0x8a: /* LONG1 */
    return do_long(m);
  case 'G':
    return do_float(m);
  case 'X':
    return do_text(m);
  case 'q':
    return do_put(m, 1);
  case 'r':
    return do_put(m, 4);
  case 'h':
    return do_get(m, 1);
  case 'j':
    return do_get(m, 4);
  case 'c':
    return do_global(m);
  case 'Q':
    return do_storage(m);
  case 'R':
    return do_reduce(m);
  case 0x81: /* NEWOBJ */
    return do_new_object(m);
  case 'b':
    return do_build(m);
  default:
    return refuse("instruction 0x%02x at byte %zu of its pickle is none that torch.save uses for "
                  "tensors, dicts, lists, texts and numbers",
                  instruction, m->at - 1);
  }
}

status pickle_read(const void *bytes, size_t length, arena *memory, const pickle_value **out) {
  if (length > PICKLE_MAX_BYTES)
    return refuse("its pickle has %zu bytes; at most %d are read", length, PICKLE_MAX_BYTES);
  machine m = {.bytes = bytes, .length = length, .memory = memory};
  for (;;) {
    const unsigned char *instruction;
    TRY(take(&m, 1, &instruction));
    if (*instruction == '.') break;
    TRY(step(&m, *instruction));
  }
  if (m.depth != 1 || m.mark_count != 0 || m.at != length) return damaged(&m);
  *out = m.stack[0];
  return OK;
}

const pickle_value *pickle_get(const pickle_value *dict, const char *key) {
  for (int i = dict->kind == PICKLE_DICT ? dict->count : 0; i >= 2; i -= 2) {
    const value *name = dict->items[i - 2];
    if (name->kind == PICKLE_TEXT && strcmp(name->text, key) == 0) return dict->items[i - 1];
  }
  return NULL;
}

const char *pickle_describe(const pickle_value *v, char out[96]) {
  enum { ROOM = 96 };
  char dims[96];
  switch (v->kind) {
  case PICKLE_NONE:
    snprintf(out, ROOM, "None");
    break;
  case PICKLE_BOOL:
    snprintf(out, ROOM, "%s", v->integer ? "True" : "False");
    break;
  case PICKLE_INT:
    snprintf(out, ROOM, "%lld", (long long)v->integer);
    break;
  case PICKLE_LARGE_INT:
    snprintf(out, ROOM, "a large integer");
    break;
  case PICKLE_FLOAT:
    snprintf(out, ROOM, "%g", v->number);
    break;
  case PICKLE_TEXT:
    snprintf(out, ROOM, "a text of %zu bytes", strlen(v->text));
    break;
  case PICKLE_BYTES:
    snprintf(out, ROOM, "bytes");
    break;
  case PICKLE_LIST:
    snprintf(out, ROOM, "a list of %d", v->count);
    break;
  case PICKLE_TUPLE:
    snprintf(out, ROOM, "a tuple of %d", v->count);
    break;
  case PICKLE_DICT:
    snprintf(out, ROOM, "a dict of %d", v->count / 2);
    break;
  case PICKLE_TENSOR:
    snprintf(out, ROOM, "a tensor %.80s", shape_format(dims, &v->tensor->shape));
    break;
  case PICKLE_STORAGE:
    snprintf(out, ROOM, "a storage");
    break;
  case PICKLE_OBJECT:
    snprintf(out, ROOM, "an object of %.40s.%.40s", v->name->module, v->name->name);
    break;
  case PICKLE_NAME:
    snprintf(out, ROOM, "the type %s.%s", v->name->module, v->name->name);
    break;
  }
  return out;
}
