/* A restricted reader of Python pickles, for what torch.save writes of nested dicts, lists, tuples,
 * texts, numbers, tensors and parameters.
 *
 * A pickle is a program for a stack machine, which in Python may import and call anything. This
 * machine has no such instruction: a file can only *name* something of the short list in pickle.c.
 * collections.OrderedDict, torch.Size, torch._utils._rebuild_tensor_v2, _rebuild_parameter and the
 * storage types build a value described here. NumPy's numbers and a few plain classes become an
 * object without content, so that a checkpoint can be read that has such things beside the weights.
 * Any other name is an error that says it; so is every instruction that torch.save does not use for
 * such values.
 *
 * Bounded: the length of the pickle, the number of values and tensors, the stack and its marks, and
 * the memo, whose indices never exceed the bytes read so far. Values may share each other and may
 * even contain themselves, so who walks them must not recurse without a limit. */
#ifndef STRATA_WEIGHTS_PICKLE_H
#define STRATA_WEIGHTS_PICKLE_H

#include "base/arena.h"
#include "weights/element.h"

enum {
  PICKLE_MAX_BYTES = 64 << 20,
  PICKLE_MAX_VALUES = 4 << 20,
  PICKLE_MAX_TENSORS = 200000,
  PICKLE_MAX_STACK = 1 << 20,
  PICKLE_MAX_MARKS = 200
};

typedef enum pickle_kind {
  PICKLE_NONE,
  PICKLE_BOOL,
  PICKLE_INT,
  PICKLE_LARGE_INT, /* beyond 64 bits; its value is not kept */
  PICKLE_FLOAT,
  PICKLE_TEXT,
  PICKLE_LIST,
  PICKLE_TUPLE, /* torch.Size too */
  PICKLE_DICT,  /* OrderedDict too */
  PICKLE_TENSOR,
  PICKLE_OBJECT, /* of a class that is passed over: what it holds is not kept */
  PICKLE_BYTES,  /* a text with NUL inside, which is not kept */
  /* Parts of tensors; as values of their own only in odd files. */
  PICKLE_STORAGE,
  PICKLE_NAME
} pickle_kind;

/* A flat array of numbers that lies in the archive as entry data/KEY. */
typedef struct pickle_storage {
  const char *key;
  const element_type *type;
  int64_t elements;
} pickle_storage;

/* Element (i, j, …) is number offset + i·stride[0] + j·stride[1] + … of the storage. Every index
 * lies inside the storage, and the tensor has no more elements than the storage. */
typedef struct pickle_tensor {
  const pickle_storage *storage;
  int64_t offset;
  shape shape;
  int64_t stride[MAX_DIMS];
} pickle_tensor;

typedef struct pickle_value {
  pickle_kind kind;
  bool holds_tensor;   /* a dict: one of its values is a tensor */
  int count, capacity; /* list, tuple: items; dict: keys and values, twice its size */
  union {
    int64_t integer;             /* bool, int */
    double number;               /* float */
    const char *text;            /* text, without NUL inside */
    struct pickle_value **items; /* list, tuple; dict: key, value, key, value, … */
    const pickle_tensor *tensor;
    const pickle_storage *storage;
    const struct pickle_name *name; /* object, name */
  };
} pickle_value;

/* Everything is copied into `memory`, *out too. Messages do not name the file. */
status pickle_read(const void *bytes, size_t length, arena *memory, const pickle_value **out);
/* The value of a text key, NULL when there is none. Of equal keys the last counts, as in Python. */
const pickle_value *pickle_get(const pickle_value *dict, const char *key);
/* What a value is, for messages: "a dict of 3", "an int (12)". Into `out` of 96 bytes; returns it. */
const char *pickle_describe(const pickle_value *v, char out[96]);

#endif
