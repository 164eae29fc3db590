#include "device/cpu.h"

#include "ops/kernels/gemm.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE_BYTES = 2 << 20 };

static size_t mapped_bytes(size_t bytes) {
  return (bytes + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
}

/* Straight from the system, on huge pages where they are to be had: a step then takes no page
 * faults after its first run. */
static status cpu_allocate(device *d, size_t bytes, void **out) {
  (void)d;
  size_t length = mapped_bytes(bytes ? bytes : 1);
  void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return error_out_of_memory(bytes);
  madvise(memory, length, MADV_HUGEPAGE);
  *out = memory;
  return OK;
}

static void cpu_release(device *d, void *memory, size_t bytes) {
  (void)d;
  if (memory) munmap(memory, mapped_bytes(bytes ? bytes : 1));
}

static status cpu_copy(device *d, void *to, const void *from, size_t bytes) {
  (void)d;
  memcpy(to, from, bytes);
  return OK;
}

static bool cpu_supports(const device *d, const op *o) {
  (void)d;
  return o->cpu != NULL || (o->traits & OP_VIEW);
}

static status cpu_launch(device *d, const op *o, const call *c) {
  (void)d;
  return o->cpu(c);
}

static status cpu_launch_chain(device *d, const op *o, const call *own, const call *next) {
  (void)d;
  return o->chain->cpu(own, next);
}

static status cpu_synchronize(device *d) {
  (void)d;
  return OK;
}

typedef struct cpu_note {
  size_t bytes;
  char content[];
} cpu_note;

static status cpu_note_down(device *d, const void *const *pieces, const size_t *bytes, int count,
                            void **note) {
  (void)d;
  size_t total = 0, at = 0;
  for (int i = 0; i < count; i++) total += bytes[i];
  cpu_note *n = *note;
  if (!n) {
    *note = n = malloc(sizeof *n + total);
    if (!n) return error_out_of_memory(total);
    n->bytes = total;
  }
  for (int i = 0; i < count; at += bytes[i++]) memcpy(n->content + at, pieces[i], bytes[i]);
  return OK;
}

static status cpu_read_note(device *d, void *note, void *to) {
  (void)d;
  const cpu_note *n = note;
  memcpy(to, n->content, n->bytes);
  return OK;
}

static void cpu_forget_note(device *d, void *note) {
  (void)d;
  free(note);
}

static void cpu_close(device *d) {
  pool_destroy(d->pool);
  free(d);
}

status cpu_device_open(int threads, device **out) {
  device *d = calloc(1, sizeof *d);
  if (!d) return error_out_of_memory(sizeof *d);
  status error = pool_create(threads, &d->pool);
  if (error) {
    free(d);
    return error;
  }
  d->name = "cpu";
  d->is_host = true;
  const gemm_kernels *pairs = gemm_best_bf16();
  d->numerics = gemm_best()->name;
  d->rounds_bf16 = !pairs;
  d->numerics_bf16 = pairs ? pairs->name : gemm_best()->rounded_name;
  int n = pool_threads(d->pool);
  snprintf(d->description, sizeof d->description, "CPU, %d thread%s, %s", n, n == 1 ? "" : "s",
           d->numerics);
  d->allocate = cpu_allocate;
  d->release = cpu_release;
  d->upload = cpu_copy;
  d->download = cpu_copy;
  d->supports = cpu_supports;
  d->launch = cpu_launch;
  d->launch_chain = cpu_launch_chain;
  d->synchronize = cpu_synchronize;
  d->note = cpu_note_down;
  d->read_note = cpu_read_note;
  d->forget_note = cpu_forget_note;
  d->close = cpu_close;
  *out = d;
  return OK;
}
