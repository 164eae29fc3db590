/* The plug-in: one GPU, a stream for the step and one for what runs beside it, and the table of kernels
 * that the build makes from the CUDA_OP lines under ops/. */
#include "device/cuda/kernel.cuh"
#include "device/cuda/libraries.cuh"

#include <cstdio>
#include <cstdlib>
#include <cstring>

struct kernel_entry {
  const char *name;
  status (*run)(const launch *);
  size_t (*scratch)(const launch *); /* NULL: needs none */
};

#include "cuda_kernels.h" /* const kernel_entry kernel_list[], sorted by name */

enum { KERNELS = sizeof kernel_list / sizeof *kernel_list };

/* Random keys and scheduled numbers come at every step, and nobody should wait for them: they are copied
 * by way of pinned memory, a ring of stages. What is larger than half of them waits. */
enum { STAGE_BYTES = 4096, STAGES = 64 };

/* Kernels run one after the other on a stream, so one block of scratch serves all of it. */
struct plugin_device {
  const plugin_host *host;
  int card;            /* its index */
  bool is_beside;      /* of another one, whose faults it has */
  bool frees_in_order; /* its allocations are part of the stream's order */
  cudaStream_t stream;
  cudaEvent_t passed;          /* where another stream follows this one */
  struct libraries *libraries; /* NULL beside: their workspace is the step's */
  void *scratch;
  size_t scratch_bytes;
  char *stages;             /* pinned host memory: small uploads on their way */
  cudaEvent_t sent[STAGES]; /* the stage has been read */
  int next_stage;
  struct fault *faults;
  char description[128], numerics[64];
};

static status cuda_failed(const plugin_host *host, const char *what, cudaError_t error) {
  if (error == cudaErrorMemoryAllocation)
    return host->error(ERROR_MEMORY, "%s: the GPU is out of memory", what);
  return host->error(ERROR_INTERNAL, "%s: CUDA says: %s", what, cudaGetErrorString(error));
}

#define CUDA_TRY(host, what, expression)                                                           \
  do {                                                                                             \
    cudaError_t error_ = (expression);                                                             \
    if (error_ != cudaSuccess) return cuda_failed((host), (what), error_);                         \
  } while (0)

status launched(const launch *l, const char *kernel) {
  cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? OK : cuda_failed(l->host, kernel, error);
}

static launch launch_of(const plugin_device *d, const plugin_call *c) {
  launch l = {};
  l.call = c;
  l.host = d->host;
  l.stream = d->stream;
  l.scratch = d->scratch;
  l.libraries = d->libraries;
  l.faults = d->faults;
  return l;
}

static void device_close(plugin_device *d) {
  if (d->stream) cudaStreamSynchronize(d->stream);
  for (int i = 0; i < STAGES; i++)
    if (d->sent[i]) cudaEventDestroy(d->sent[i]);
  if (d->passed) cudaEventDestroy(d->passed);
  libraries_close(d->libraries);
  if (d->scratch) cudaFree(d->scratch);
  if (d->faults && !d->is_beside) cudaFree(d->faults);
  if (d->stages) cudaFreeHost(d->stages);
  if (d->stream) cudaStreamDestroy(d->stream);
  free(d);
}

static status open_stream(plugin_device *d) {
  static const char what[] = "opening the GPU";
  int least, greatest;
  CUDA_TRY(d->host, what, cudaDeviceGetStreamPriorityRange(&least, &greatest));
  CUDA_TRY(d->host, what,
           cudaStreamCreateWithPriority(&d->stream, cudaStreamNonBlocking,
                                        d->is_beside ? least : greatest));
  CUDA_TRY(d->host, what, cudaEventCreateWithFlags(&d->passed, cudaEventDisableTiming));
  void *stages = nullptr;
  CUDA_TRY(d->host, what, cudaMallocHost(&stages, STAGES * STAGE_BYTES));
  d->stages = (char *)stages;
  for (int i = 0; i < STAGES; i++)
    CUDA_TRY(d->host, what, cudaEventCreateWithFlags(&d->sent[i], cudaEventDisableTiming));
  return OK;
}

static status open_card(plugin_device *d, int index) {
  int count = 0, driver = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count < 1) {
    cudaDriverGetVersion(&driver);
    return d->host->error(ERROR_USAGE,
                          driver > 0 ? "there is no GPU that CUDA can use (%s)"
                                     : "no NVIDIA driver is installed (%s)",
                          cudaGetErrorString(error));
  }
  if (index >= count)
    return d->host->error(ERROR_USAGE,
                          count == 1 ? "there is one GPU here, cuda:0"
                                     : "there are %d GPUs here, cuda:0 to cuda:%d",
                          count, count - 1);
  CUDA_TRY(d->host, "opening the GPU", cudaSetDevice(index));
  cudaDeviceProp card;
  CUDA_TRY(d->host, "opening the GPU", cudaGetDeviceProperties(&card, index));
  d->card = index;
  status failed = open_stream(d);
  if (failed) return failed;
  void *faults = nullptr;
  CUDA_TRY(d->host, "opening the GPU", cudaMalloc(&faults, sizeof *d->faults));
  d->faults = (struct fault *)faults;
  CUDA_TRY(d->host, "opening the GPU", cudaMemsetAsync(faults, 0, sizeof *d->faults, d->stream));
  failed = libraries_open(d->host, d->stream, &d->libraries);
  if (failed) return failed;
  const char *convolutions = libraries_convolutions(d->libraries);
  char which[24] = "";
  if (count > 1) snprintf(which, sizeof which, "cuda:%d, ", index);
  snprintf(d->description, sizeof d->description, "%s%.40s, %.1f GiB, sm_%d%d, %.40s", which,
           card.name, (double)card.totalGlobalMem / (1 << 30), card.major, card.minor,
           convolutions);
  /* Without the reason. */
  int shown = (int)strcspn(convolutions, ":");
  snprintf(d->numerics, sizeof d->numerics, "cuda/sm_%d%d, %.*s", card.major, card.minor, shown,
           convolutions);
  return OK;
}

static status new_device(const plugin_host *host, plugin_device **out) {
  *out = (plugin_device *)calloc(1, sizeof **out);
  if (!*out) return host->error(ERROR_MEMORY, "out of memory");
  (*out)->host = host;
  return OK;
}

/* Gives `d` to the caller, or up. */
static status opened(plugin_device *d, status error, plugin_device **out) {
  if (error)
    device_close(d);
  else
    *out = d;
  return error;
}

static status device_open(const plugin_host *host, int card, plugin_device **out) {
  plugin_device *d;
  status error = new_device(host, &d);
  return error ? error : opened(d, open_card(d, card), out);
}

static status device_beside(plugin_device *of, plugin_device **out) {
  plugin_device *d;
  status error = new_device(of->host, &d);
  if (error) return error;
  int has_pools = 0;
  d->is_beside = true;
  d->faults = of->faults;
  d->card = of->card;
  cudaDeviceGetAttribute(&has_pools, cudaDevAttrMemoryPoolsSupported, d->card);
  d->frees_in_order = has_pools != 0;
  return opened(d, open_stream(d), out);
}

static void device_describe(const plugin_device *d, char description[128], char numerics[64]) {
  memcpy(description, d->description, sizeof d->description);
  memcpy(numerics, d->numerics, sizeof d->numerics);
}

static status device_allocate(plugin_device *d, size_t bytes, void **out) {
  if (bytes == 0) bytes = 1;
  cudaError_t error =
      d->frees_in_order ? cudaMallocAsync(out, bytes, d->stream) : cudaMalloc(out, bytes);
  if (error == cudaErrorMemoryAllocation)
    return d->host->error(ERROR_MEMORY,
                          "the GPU has no %.1f GiB left; a smaller batch or crop needs less",
                          (double)bytes / (1 << 30));
  CUDA_TRY(d->host, "allocating", error);
  CUDA_TRY(d->host, "clearing memory", cudaMemsetAsync(*out, 0, bytes, d->stream));
  return OK;
}

static void device_release(plugin_device *d, void *memory) {
  if (d->frees_in_order) {
    cudaFreeAsync(memory, d->stream);
    return;
  }
  cudaStreamSynchronize(d->stream);
  cudaFree(memory);
}

static size_t device_free_bytes(plugin_device *d) {
  (void)d;
  size_t left = 0, all = 0;
  return cudaMemGetInfo(&left, &all) == cudaSuccess ? left : 0;
}

/* Waits until everything that was asked for is done. */
static status wait_for_stream(plugin_device *d, const char *what) {
  CUDA_TRY(d->host, what, cudaStreamSynchronize(d->stream));
  return OK;
}

static status upload_by_stage(plugin_device *d, char *to, const char *from, size_t bytes) {
  int i = d->next_stage;
  d->next_stage = (i + 1) % STAGES;
  char *stage = d->stages + STAGE_BYTES * i;
  /* In use since STAGES uploads ago, which a run that is not far ahead of the device never meets. */
  CUDA_TRY(d->host, "copying to the GPU", cudaEventSynchronize(d->sent[i]));
  memcpy(stage, from, bytes);
  CUDA_TRY(d->host, "copying to the GPU",
           cudaMemcpyAsync(to, stage, bytes, cudaMemcpyHostToDevice, d->stream));
  CUDA_TRY(d->host, "copying to the GPU", cudaEventRecord(d->sent[i], d->stream));
  return OK;
}

static status device_upload(plugin_device *d, void *to, const void *from, size_t bytes) {
  if (bytes <= STAGES / 2 * STAGE_BYTES) {
    for (size_t at = 0; at < bytes; at += STAGE_BYTES) {
      size_t part = bytes - at < STAGE_BYTES ? bytes - at : (size_t)STAGE_BYTES;
      status error = upload_by_stage(d, (char *)to + at, (const char *)from + at, part);
      if (error) return error;
    }
    return OK;
  }
  CUDA_TRY(d->host, "copying to the GPU",
           cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, d->stream));
  /* `from` may be changed by the caller at once. */
  return wait_for_stream(d, "copying to the GPU");
}

static status device_download(plugin_device *d, void *to, const void *from, size_t bytes) {
  CUDA_TRY(d->host, "copying from the GPU",
           cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, d->stream));
  return wait_for_stream(d, "copying from the GPU");
}

static int by_name(const void *name, const void *entry) {
  return strcmp((const char *)name, ((const kernel_entry *)entry)->name);
}

static int device_find(const char *op_name) {
  const kernel_entry *found =
      (const kernel_entry *)bsearch(op_name, kernel_list, KERNELS, sizeof *kernel_list, by_name);
  return found ? (int)(found - kernel_list) : -1;
}

static status device_reserve(plugin_device *d, int kernel, const plugin_call *c) {
  if (!kernel_list[kernel].scratch) return OK;
  launch l = launch_of(d, c);
  size_t bytes = kernel_list[kernel].scratch(&l);
  if (bytes <= d->scratch_bytes) return OK;
  CUDA_TRY(d->host, "scratch memory", cudaStreamSynchronize(d->stream));
  cudaFree(d->scratch);
  d->scratch = nullptr;
  d->scratch_bytes = 0;
  CUDA_TRY(d->host, "scratch memory", cudaMalloc(&d->scratch, bytes));
  d->scratch_bytes = bytes;
  return OK;
}

static status device_launch(plugin_device *d, int kernel, const plugin_call *c) {
  launch l = launch_of(d, c);
  return kernel_list[kernel].run(&l);
}

/* What kernels found wrong with the data, which is then forgotten. */
static status report_fault(plugin_device *d, const struct fault *found) {
  if (found->kind == NO_FAULT) return OK;
  CUDA_TRY(d->host, "a kernel on the GPU",
           cudaMemsetAsync(d->faults, 0, sizeof *d->faults, d->stream));
  if (found->kind == FAULT_REGIONS) {
    int number = 1;
    for (int set = found->label; set >>= 1;) number++;
    return d->host->error(ERROR_DATA,
                          "a voxel lies in region %d of data: regions, but the network's outputs "
                          "end at region %d; give it one output for each region (outputs: "
                          "\"${regions}\")",
                          number, found->classes);
  }
  return d->host->error(ERROR_DATA,
                        "a label is %d, but the network has %d outputs for classes 0 to %d; check "
                        "the labels of the data set or the number of outputs",
                        found->label, found->classes, found->classes - 1);
}

static status device_synchronize(plugin_device *d) {
  struct fault found;
  CUDA_TRY(d->host, "a kernel on the GPU",
           cudaMemcpyAsync(&found, d->faults, sizeof found, cudaMemcpyDeviceToHost, d->stream));
  status error = wait_for_stream(d, "a kernel on the GPU");
  return error ? error : report_fault(d, &found);
}

/* ---- notes: values for the host to read later, with what was found wrong until then ---------------- */

struct note {
  cudaEvent_t written;
  size_t bytes;
  char *content; /* pinned: a fault, then the pieces */
};

static const char noting[] = "reading results from the GPU";

static void device_forget_note(plugin_device *, void *which) {
  note *n = (note *)which;
  if (n->written) cudaEventSynchronize(n->written);
  if (n->written) cudaEventDestroy(n->written);
  if (n->content) cudaFreeHost(n->content);
  free(n);
}

static status make_note(plugin_device *d, size_t bytes, void **out) {
  note *n = (note *)calloc(1, sizeof *n);
  if (!n) return d->host->error(ERROR_MEMORY, "out of memory");
  void *content = nullptr;
  n->bytes = bytes;
  cudaError_t error = cudaMallocHost(&content, sizeof(fault) + bytes);
  n->content = (char *)content;
  if (error == cudaSuccess) error = cudaEventCreateWithFlags(&n->written, cudaEventDisableTiming);
  if (error == cudaSuccess) {
    *out = n;
    return OK;
  }
  device_forget_note(d, n);
  return cuda_failed(d->host, noting, error);
}

static status device_note(plugin_device *d, const void *const *pieces, const size_t *bytes,
                          int count, void **out) {
  size_t total = 0;
  for (int i = 0; i < count; i++) total += bytes[i];
  status error = *out ? OK : make_note(d, total, out);
  if (error) return error;
  note *n = (note *)*out;
  char *to = n->content;
  CUDA_TRY(d->host, noting,
           cudaMemcpyAsync(to, d->faults, sizeof(fault), cudaMemcpyDeviceToHost, d->stream));
  to += sizeof(fault);
  for (int i = 0; i < count; to += bytes[i++])
    CUDA_TRY(d->host, noting,
             cudaMemcpyAsync(to, pieces[i], bytes[i], cudaMemcpyDeviceToHost, d->stream));
  CUDA_TRY(d->host, noting, cudaEventRecord(n->written, d->stream));
  return OK;
}

static status device_read_note(plugin_device *d, void *which, void *to) {
  const note *n = (const note *)which;
  struct fault found;
  CUDA_TRY(d->host, "a kernel on the GPU", cudaEventSynchronize(n->written));
  memcpy(&found, n->content, sizeof found);
  memcpy(to, n->content + sizeof found, n->bytes);
  return report_fault(d, &found);
}

/* ---- the order between streams ---------------------------------------------------------------------- */

static status device_follow(plugin_device *d, plugin_device *other) {
  CUDA_TRY(d->host, "ordering work on the GPU", cudaEventRecord(other->passed, other->stream));
  CUDA_TRY(d->host, "ordering work on the GPU", cudaStreamWaitEvent(d->stream, other->passed, 0));
  return OK;
}

static status device_copy(plugin_device *d, void *to, const void *from, size_t bytes) {
  CUDA_TRY(d->host, "copying on the GPU",
           cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, d->stream));
  return OK;
}

/* ---- a step as one CUDA graph: thousands of launches for the price of one ------------------------- */

struct recording {
  cudaGraphExec_t graph;
  const void *scratch; /* where it was: kernels have its address */
};

static status device_record(plugin_device *d) {
  CUDA_TRY(d->host, "recording a step",
           cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeThreadLocal));
  return OK;
}

static status device_recorded(plugin_device *d, void **out) {
  *out = nullptr;
  cudaGraph_t graph = nullptr;
  CUDA_TRY(d->host, "recording a step", cudaStreamEndCapture(d->stream, &graph));
  recording *r = (recording *)calloc(1, sizeof *r);
  cudaError_t error = r ? cudaGraphInstantiate(&r->graph, graph, 0) : cudaSuccess;
  cudaGraphDestroy(graph);
  if (!r) return d->host->error(ERROR_MEMORY, "out of memory");
  if (error != cudaSuccess) {
    free(r);
    return cuda_failed(d->host, "recording a step", error);
  }
  r->scratch = d->scratch;
  *out = r;
  return OK;
}

static status device_replay(plugin_device *d, const void *which, bool *is_stale) {
  const recording *r = (const recording *)which;
  *is_stale = r->scratch != d->scratch;
  if (!*is_stale) CUDA_TRY(d->host, "replaying a step", cudaGraphLaunch(r->graph, d->stream));
  return OK;
}

static void device_forget(plugin_device *d, void *which) {
  recording *r = (recording *)which;
  cudaStreamSynchronize(d->stream);
  cudaGraphExecDestroy(r->graph);
  free(r);
}

static const plugin_table table = {
    PLUGIN_VERSION, device_open,       device_close,       device_describe,  device_allocate,
    device_release, device_free_bytes, device_upload,      device_download,  device_find,
    device_reserve, device_launch,     device_synchronize, device_record,    device_recorded,
    device_replay,  device_forget,     device_note,        device_read_note, device_forget_note,
    device_beside,  device_follow,     device_copy};

extern "C" __attribute__((visibility("default"))) const plugin_table *strata_cuda_plugin(void) {
  return &table;
}
