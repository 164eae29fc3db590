#include "device/cuda.h"

#include "base/text.h"
#include "device/cuda/plugin.h"
#include "graph/precision.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* plugin.h repeats these structs for C++. */
#define SAME_MEMBER(ours, theirs, member)                                                          \
  _Static_assert(offsetof(ours, member) == offsetof(theirs, member) &&                             \
                     sizeof(((ours *)0)->member) == sizeof(((theirs *)0)->member),                 \
                 #ours " and " #theirs " have one layout")
SAME_MEMBER(tensor, plugin_tensor, dtype);
SAME_MEMBER(tensor, plugin_tensor, shape);
SAME_MEMBER(tensor, plugin_tensor, data);
SAME_MEMBER(shape, plugin_shape, rank);
SAME_MEMBER(shape, plugin_shape, dim);
_Static_assert((int)DTYPE_F32 == (int)PLUGIN_F32 && (int)DTYPE_I32 == (int)PLUGIN_I32 &&
                   (int)DTYPE_BF16 == (int)PLUGIN_BF16 && (int)DTYPE_REGIONS == (int)PLUGIN_REGIONS,
               "the types have one numbering");
_Static_assert((int)PRECISION_BF16 == (int)PLUGIN_PRECISION_BF16 &&
                   (int)PRECISION_TF32 == (int)PLUGIN_PRECISION_TF32,
               "precisions have one numbering");
_Static_assert(sizeof(tensor) == sizeof(plugin_tensor), "arrays of both have one layout");

typedef struct cuda_device {
  device device;
  void *library;
  const plugin_table *table;
  plugin_device *opened;
  char numerics[64];
} cuda_device;

static cuda_device *cuda_of(const device *d) {
  return (cuda_device *)(uintptr_t)d;
}

/* ---- what the plug-in asks of the program ------------------------------------------------- */

static status host_error(error_code code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  status error = error_newv(code, NOWHERE, format, args);
  va_end(args);
  return error;
}

static const attr *find_attr(const plugin_call *c, const char *name) {
  const op *o = c->op;
  for (const attr *a = o->attrs; a && a->name; a++)
    if (strcmp(a->name, name) == 0) return a;
  fprintf(stderr, "strata: the CUDA kernel of %s asks for its attribute %s, which is not there\n",
          o->name, name);
  abort();
}

static int attr_length(const attr *a, const void *field) {
  switch (a->kind) {
  case ATTR_INT3:
  case ATTR_FLOAT3:
    return 3;
  case ATTR_RANGE:
    return 2;
  case ATTR_INTS:
    return ((const int_list *)field)->count;
  case ATTR_FLOATS:
    return ((const float_list *)field)->count;
  default:
    return 1;
  }
}

static int host_length(const plugin_call *c, const char *name) {
  const attr *a = find_attr(c, name);
  return attr_length(a, (const char *)c->attrs + a->offset);
}

/* What a kernel is given now would stand in a recording for good. */
static void refuse_scheduled(const plugin_call *c, const attr *a) {
  if (!attr_is_scheduled(a)) return;
  fprintf(stderr, "strata: the CUDA kernel of %s takes %s for fixed, which schedules may change\n",
          ((const op *)c->op)->name, a->name);
  abort();
}

static double host_number_at(const plugin_call *c, const char *name, int index) {
  const attr *a = find_attr(c, name);
  const void *field = (const char *)c->attrs + a->offset;
  refuse_scheduled(c, a);
  if (index >= 0 && index < attr_length(a, field)) switch (a->kind) {
    case ATTR_BOOL:
      return *(const bool *)field;
    case ATTR_INT:
      return (double)*(const int64_t *)field;
    case ATTR_FLOAT:
      return *(const double *)field;
    case ATTR_CHOICE:
      return *(const int *)field;
    case ATTR_AXES:
      return *(const unsigned *)field;
    case ATTR_INT3:
      return (double)((const int64_t *)field)[index];
    case ATTR_FLOAT3:
    case ATTR_RANGE:
      return ((const double *)field)[index];
    case ATTR_INTS:
      return (double)((const int_list *)field)->at[index];
    case ATTR_FLOATS:
      return ((const float_list *)field)->at[index];
    case ATTR_STRING:
      break;
    }
  fprintf(stderr, "strata: the CUDA kernel of %s asks for number %d of %s, which is not there\n",
          ((const op *)c->op)->name, index, name);
  abort();
}

static double host_number(const plugin_call *c, const char *name) {
  return host_number_at(c, name, 0);
}

static int host_scheduled(const plugin_call *c, const char *name, double *value) {
  const op *o = c->op;
  const attr *a = find_attr(c, name);
  int index = 0;
  for (const attr *before = o->attrs; before != a; before++) index += attr_is_scheduled(before);
  *value = attr_scheduled_value(a, c->attrs);
  return index;
}

static const plugin_host host_table = {.version = PLUGIN_VERSION,
                                       .error = host_error,
                                       .number = host_number,
                                       .number_at = host_number_at,
                                       .length = host_length,
                                       .scheduled = host_scheduled};

/* ---- the device's table ------------------------------------------------------------------- */

static status cuda_allocate(device *d, size_t bytes, void **out) {
  return cuda_of(d)->table->allocate(cuda_of(d)->opened, bytes, out);
}

static void cuda_release(device *d, void *memory, size_t bytes) {
  (void)bytes;
  if (memory) cuda_of(d)->table->release(cuda_of(d)->opened, memory);
}

static size_t cuda_free_bytes(device *d) {
  return cuda_of(d)->table->free_bytes(cuda_of(d)->opened);
}

static status cuda_upload(device *d, void *to, const void *from, size_t bytes) {
  return cuda_of(d)->table->upload(cuda_of(d)->opened, to, from, bytes);
}

static status cuda_download(device *d, void *to, const void *from, size_t bytes) {
  return cuda_of(d)->table->download(cuda_of(d)->opened, to, from, bytes);
}

static int kernel_of(const device *d, const op *o) {
  return cuda_of(d)->table->find(o->name);
}

static bool cuda_supports(const device *d, const op *o) {
  return kernel_of(d, o) >= 0 || (o->traits & OP_VIEW);
}

static plugin_call translate(const op *o, const call *c) {
  return (plugin_call){.op = o,
                       .attrs = c->attrs,
                       .in = (const plugin_tensor *)(const void *)c->in,
                       .out = (const plugin_tensor *)(const void *)c->out,
                       .in_count = c->in_count,
                       .out_count = c->out_count,
                       .rng_keys = c->rng_keys,
                       .node_id = c->node_id,
                       .scheduled = c->scheduled};
}

static status cuda_reserve(device *d, const op *o, const call *c) {
  plugin_call translated = translate(o, c);
  return cuda_of(d)->table->reserve(cuda_of(d)->opened, kernel_of(d, o), &translated);
}

static status cuda_launch(device *d, const op *o, const call *c) {
  plugin_call translated = translate(o, c);
  return cuda_of(d)->table->launch(cuda_of(d)->opened, kernel_of(d, o), &translated);
}

static status cuda_synchronize(device *d) {
  return cuda_of(d)->table->synchronize(cuda_of(d)->opened);
}

static status cuda_record(device *d) {
  return cuda_of(d)->table->record(cuda_of(d)->opened);
}

static status cuda_recorded(device *d, void **recording) {
  return cuda_of(d)->table->recorded(cuda_of(d)->opened, recording);
}

static status cuda_replay(device *d, const void *recording, bool *is_stale) {
  return cuda_of(d)->table->replay(cuda_of(d)->opened, recording, is_stale);
}

static void cuda_forget(device *d, void *recording) {
  if (recording) cuda_of(d)->table->forget(cuda_of(d)->opened, recording);
}

static status cuda_note(device *d, const void *const *pieces, const size_t *bytes, int count,
                        void **note) {
  return cuda_of(d)->table->note(cuda_of(d)->opened, pieces, bytes, count, note);
}

static status cuda_read_note(device *d, void *note, void *to) {
  return cuda_of(d)->table->read_note(cuda_of(d)->opened, note, to);
}

static void cuda_forget_note(device *d, void *note) {
  if (note) cuda_of(d)->table->forget_note(cuda_of(d)->opened, note);
}

static status cuda_follow(device *d, device *other) {
  return cuda_of(d)->table->follow(cuda_of(d)->opened, cuda_of(other)->opened);
}

static status cuda_copy(device *d, void *to, const void *from, size_t bytes) {
  return cuda_of(d)->table->copy(cuda_of(d)->opened, to, from, bytes);
}

static void cuda_close_beside(device *d) {
  cuda_device *c = cuda_of(d);
  if (c->opened) c->table->close(c->opened);
  free(c);
}

static status cuda_beside(device *d, device **out) {
  cuda_device *c = malloc(sizeof *c);
  if (!c) return error_out_of_memory(sizeof *c);
  *c = *cuda_of(d);
  c->opened = NULL;
  c->device.beside = NULL;
  c->device.record = NULL;
  c->device.close = cuda_close_beside;
  status error = c->table->beside(cuda_of(d)->opened, &c->opened);
  if (error)
    cuda_close_beside(&c->device);
  else
    *out = &c->device;
  return error;
}

static void cuda_close(device *d) {
  cuda_device *c = cuda_of(d);
  if (c->opened) c->table->close(c->opened);
  if (c->library) dlclose(c->library);
  pool_destroy(c->device.pool);
  free(c);
}

/* ---- finding the plug-in ------------------------------------------------------------------ */

static const char plugin_name[] = "libstrata_cuda.so";

/* "…/strata" → "…/<relative>/libstrata_cuda.so"; heap, NULL when the program's path is unknown. */
static char *beside_program(const char *relative) {
  char program[4096], *path = NULL;
  ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length <= 0) return NULL;
  program[length] = 0;
  char *slash = strrchr(program, '/');
  if (!slash) return NULL;
  slash[1] = 0;
  if (asprintf(&path, "%s%s%s", program, relative, plugin_name) < 0) return NULL;
  return path;
}

static status load_plugin(void **library) {
  const char *chosen = getenv("STRATA_CUDA_PLUGIN");
  if (chosen && *chosen) {
    *library = dlopen(chosen, RTLD_NOW | RTLD_LOCAL);
    if (*library) return OK;
    return error_new(ERROR_USAGE, NOWHERE, "the CUDA plug-in named by STRATA_CUDA_PLUGIN: %s",
                     dlerror());
  }
  /* The plug-in brings hundreds of megabytes of libraries: not where they could do nothing. */
  void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (!driver) return error_new(ERROR_USAGE, NOWHERE, "no NVIDIA driver is installed");
  dlclose(driver);
  static const char *const places[] = {"", "../lib/strata/"};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    char *path = beside_program(places[i]);
    bool is_there = path && access(path, R_OK) == 0;
    if (is_there) *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    free(path);
    if (*library) return OK;
    /* The plug-in is there and does not load: a library of CUDA's is missing, which dlerror names. */
    if (is_there) return error_new(ERROR_USAGE, NOWHERE, "the CUDA plug-in: %s", dlerror());
  }
  *library = dlopen(plugin_name, RTLD_NOW | RTLD_LOCAL);
  if (*library) return OK;
  return error_new(ERROR_USAGE, NOWHERE, "this installation has no CUDA plug-in (%s)", plugin_name);
}

static status open_plugin(cuda_device *c, int card) {
  TRY(load_plugin(&c->library));
  const plugin_table *(*entry)(void) = NULL;
  void *symbol = dlsym(c->library, PLUGIN_ENTRY);
  memcpy(&entry, &symbol, sizeof entry); /* ISO C has no cast from an object to a function */
  c->table = entry ? entry() : NULL;
  if (!c->table || c->table->version != PLUGIN_VERSION) {
    c->table = NULL;
    return error_new(ERROR_USAGE, NOWHERE,
                     "the CUDA plug-in %s belongs to another version of Strata", plugin_name);
  }
  return c->table->open(&host_table, card, &c->opened);
}

status cuda_device_open(int card, int threads, device **out) {
  cuda_device *c = calloc(1, sizeof *c);
  if (!c) return error_out_of_memory(sizeof *c);
  status error = open_plugin(c, card);
  if (!error) error = pool_create(threads, &c->device.pool);
  if (error) {
    cuda_close(&c->device);
    return error;
  }
  c->table->describe(c->opened, c->device.description, c->numerics);
  c->device.name = "cuda";
  c->device.numerics = c->device.numerics_bf16 = c->numerics;
  c->device.has_tf32 = true;
  const char *storage = getenv("STRATA_STORAGE");
  c->device.stores_bf16 = !storage || strcmp(storage, "f32") != 0;
  c->device.allocate = cuda_allocate;
  c->device.release = cuda_release;
  c->device.free_bytes = cuda_free_bytes;
  c->device.upload = cuda_upload;
  c->device.download = cuda_download;
  c->device.supports = cuda_supports;
  c->device.reserve = cuda_reserve;
  c->device.launch = cuda_launch;
  c->device.synchronize = cuda_synchronize;
  const char *graphs = getenv("STRATA_CUDA_GRAPHS");
  if (!graphs || strcmp(graphs, "off") != 0) {
    c->device.record = cuda_record;
    c->device.recorded = cuda_recorded;
    c->device.replay = cuda_replay;
    c->device.forget = cuda_forget;
  }
  c->device.note = cuda_note;
  c->device.read_note = cuda_read_note;
  c->device.forget_note = cuda_forget_note;
  c->device.beside = cuda_beside;
  c->device.follow = cuda_follow;
  c->device.copy = cuda_copy;
  c->device.close = cuda_close;
  *out = &c->device;
  return OK;
}
