/* Where a step runs. A device is a small table of functions; the CPU is built in, the CUDA device
 * is a shared object loaded when a driver is present and fills the same table.
 *
 * Ownership: memory from `allocate` belongs to the caller until `release`. A kernel may run after
 * `launch` returns; `synchronize` waits for all of them and reports the first failure. */
#ifndef STRATA_DEVICE_DEVICE_H
#define STRATA_DEVICE_DEVICE_H

#include "graph/op.h"
#include "graph/precision.h"

typedef struct device device;

struct device {
  const char *name;          /* "cpu" */
  char description[128];     /* "CPU, 2 threads, AVX-512" */
  const char *numerics;      /* "AVX-512": runs are equal to the bit where this is equal */
  const char *numerics_bf16; /* the same with products in bf16 */
  bool rounds_bf16;          /* factors to bf16, and multiplies them as f32: no faster than f32 */
  bool stores_bf16;          /* its kernels read and write what graph/storage.h stores as bf16 */
  bool has_tf32;             /* it multiplies factors rounded to tf32 faster than f32 */
  thread_pool *pool;         /* CPU: the threads kernels run on */
  bool is_host;              /* its memory is the host's, to be read and written where it lies */
  /* Zeroed memory aligned to 64 bytes. */
  status (*allocate)(device *d, size_t bytes, void **out);
  void (*release)(device *d, void *memory, size_t bytes);
  size_t (*free_bytes)(device *d); /* of its own memory that nobody uses; NULL: it is the host's */
  status (*upload)(device *d, void *to, const void *from, size_t bytes);
  status (*download)(device *d, void *to, const void *from, size_t bytes);
  /* Whether the device has a kernel for this operator; false is reported at the node's YAML line.
   */
  bool (*supports)(const device *d, const op *o);
  /* For a device whose kernels' scratch memory is its own: called once for every call, before the
   * first launch. NULL: `call.workspace` points to memory of the plan. */
  status (*reserve)(device *d, const op *o, const call *c);
  status (*launch)(device *d, const op *o, const call *c);
  /* Both calls of o->chain. NULL: the device launches one after the other. */
  status (*launch_chain)(device *d, const op *o, const call *own, const call *next);
  status (*synchronize)(device *d);
  /* NULL where the device cannot. After `record`, launches are noted instead of run, until `recorded`
   * makes a recording of them, which `replay` runs as one, with the attributes and addresses they
   * had, except scheduled ones (call.scheduled). It has to be called after an error, too. `replay` runs nothing and says so in *is_stale when
   * the device's own memory has moved since. A recording's launches must have run once before. */
  status (*record)(device *d);
  status (*recorded)(device *d, void **recording);
  status (*replay)(device *d, const void *recording, bool *is_stale);
  void (*forget)(device *d, void *recording); /* NULL is allowed */
  /* For the host to read later: copies `count` pieces, as they are once what was asked for so far is
   * done, one behind the other into *note, which is made where it is NULL and then takes as many
   * bytes as the first time. `read_note` waits for that, not for what was asked for since, and
   * reports as `synchronize` does. */
  status (*note)(device *d, const void *const *pieces, const size_t *bytes, int count, void **note);
  status (*read_note)(device *d, void *note, void *to);
  void (*forget_note)(device *d, void *note); /* NULL is allowed */
  /* NULL where the device does one thing after the other. Another order of work on the same device,
   * which runs beside its own and yields to it, with scratch memory of its own and no libraries:
   * memory of either can be used by both. To be closed before the device. What it allocates is given back
   * without waiting, after its own work so far. */
  status (*beside)(device *d, device **out);
  /* What is asked of d from now on runs after all that has been asked of `other` so far. */
  status (*follow)(device *d, device *other);
  status (*copy)(device *d, void *to, const void *from, size_t bytes); /* within its memory */
  void (*close)(device *d);
};

/* `name`: as in base/device_name.h. "auto" takes the first GPU when there is one, otherwise the CPU; `why`
 * (may be NULL, 200 bytes) then says why it fell back. `threads` 0 = all cores. */
status device_open(const char *name, int threads, device **out, char *why);
void device_close(device *d);
/* What a user of this precision should know of this device, "warning: " or "note: " and a sentence
 * without its end; NULL: nothing. */
const char *device_precision_note(const device *d, precision p);
/* What plan_memory wants to know of a device: its threads, or 0 where kernels' scratch memory is its
 * own. */
int device_plan_threads(const device *d);

#endif
