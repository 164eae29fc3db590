/* Between the program and its CUDA plug-in, libstrata_cuda.so: plain structs and two tables of
 * functions, readable by C11 and by CUDA C. The program loads the plug-in when it is asked for a
 * GPU; the plug-in links nothing of the program, and the program nothing of CUDA.
 *
 * Both are built from one source tree; PLUGIN_VERSION refuses a plug-in of another. */
#ifndef STRATA_DEVICE_CUDA_PLUGIN_H
#define STRATA_DEVICE_CUDA_PLUGIN_H

#include "base/rng.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PLUGIN_VERSION = 8, PLUGIN_DIMS = 8 };

/* The choices of the attribute `precision` that round (graph/precision.h). */
enum { PLUGIN_PRECISION_BF16 = 2, PLUGIN_PRECISION_TF32 = 3 };

/* A `tensor` (graph/tensor.h), member by member: that header has names which C++ does not take.
 * engine/device/cuda.c asserts that the two are one layout. */
typedef struct plugin_shape {
  int rank; /* −1: an optional input that is absent */
  int64_t dim[PLUGIN_DIMS];
} plugin_shape;

typedef enum plugin_type { PLUGIN_F32, PLUGIN_I32, PLUGIN_BF16, PLUGIN_REGIONS } plugin_type;

typedef struct plugin_tensor {
  plugin_type dtype;
  plugin_shape shape;
  void *data; /* device memory; NULL when absent */
} plugin_tensor;

/* What a kernel is called with: a `call` (graph/op.h) and the means to read its attributes. */
typedef struct plugin_call {
  const void *op, *attrs;
  const plugin_tensor *in, *out;
  int in_count, out_count;
  const rng_key *rng_keys; /* device memory; one per sample */
  uint64_t node_id;
  const double *scheduled; /* device memory or NULL, as in a `call` */
} plugin_call;

/* What the program does for the plug-in. */
typedef struct plugin_host {
  int version;
  /* A new error without a place. */
  status (*error)(error_code code, const char *format, ...);
  /* Attributes by their name in the operator's declaration: numbers of every kind (booleans are 0
   * and 1, choices their index, axes their bits), and one number of a list or a triple. Asking for
   * a name or an index that is not there is a bug and ends the program, and so is asking for a number
   * that a schedule may change, other than by `scheduled`. */
  double (*number)(const plugin_call *c, const char *name);
  double (*number_at)(const plugin_call *c, const char *name, int index);
  int (*length)(const plugin_call *c, const char *name); /* of a list or triple */
  /* The index of an attribute in `plugin_call.scheduled`, and its value now. */
  int (*scheduled)(const plugin_call *c, const char *name, double *value);
} plugin_host;

typedef struct plugin_device plugin_device;

/* What the plug-in does for the program. Errors of a kernel that runs later come out of
 * `synchronize`, `upload` or `download`. */
typedef struct plugin_table {
  int version;
  status (*open)(const plugin_host *host, int card, plugin_device **out);
  void (*close)(plugin_device *d);
  void (*describe)(const plugin_device *d, char description[128], char numerics[64]);
  status (*allocate)(plugin_device *d, size_t bytes, void **out); /* zeroed */
  void (*release)(plugin_device *d, void *memory);
  size_t (*free_bytes)(plugin_device *d);
  status (*upload)(plugin_device *d, void *to, const void *from, size_t bytes);
  status (*download)(plugin_device *d, void *to, const void *from, size_t bytes);
  /* The number of an operator's kernel, or −1. */
  int (*find)(const char *op_name);
  /* Makes sure that the kernel's scratch memory is there; before the first launch of a call. */
  status (*reserve)(plugin_device *d, int kernel, const plugin_call *c);
  status (*launch)(plugin_device *d, int kernel, const plugin_call *c);
  status (*synchronize)(plugin_device *d);
  /* As in a `device` (device/device.h). */
  status (*record)(plugin_device *d);
  status (*recorded)(plugin_device *d, void **recording);
  status (*replay)(plugin_device *d, const void *recording, bool *is_stale);
  void (*forget)(plugin_device *d, void *recording);
  status (*note)(plugin_device *d, const void *const *pieces, const size_t *bytes, int count,
                 void **note);
  status (*read_note)(plugin_device *d, void *note, void *to);
  void (*forget_note)(plugin_device *d, void *note);
  status (*beside)(plugin_device *d, plugin_device **out);
  status (*follow)(plugin_device *d, plugin_device *other);
  status (*copy)(plugin_device *d, void *to, const void *from, size_t bytes);
} plugin_table;

/* The one symbol that the plug-in exports. */
#define PLUGIN_ENTRY "strata_cuda_plugin"
const plugin_table *strata_cuda_plugin(void);

#ifdef __cplusplus
}
#endif

#endif
