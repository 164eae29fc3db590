#include "gpu/emulator/emulator.h"
#include "gpu/emulator/races.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

static const char *running = "no kernel";

[[noreturn]] void emulator_fail(const char *what) {
  fprintf(stderr, "CUDA emulator: %s (%s, block %u %u %u, thread %u %u %u)\n", what, running,
          blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  abort();
}

/* ---- device memory: out of reach of the host's code ------------------------------------------- */

/* The block ends where its pages end, so that what lies behind it is never mapped. */
enum { PAGE = 4096, ALIGN = 256 };

struct mapping {
  char *base;
  size_t bytes;
};
static std::map<void *, mapping> mappings;

bool emulator_is_device_memory(const void *at) {
  auto next = mappings.upper_bound(const_cast<void *>(at));
  if (next == mappings.begin()) return false;
  const mapping &m = (--next)->second;
  return at < m.base + m.bytes;
}

static int open_count;

static void protect_all(int protection) {
  for (auto &m : mappings)
    if (mprotect(m.second.base, m.second.bytes - PAGE, protection))
      emulator_fail("mprotect failed");
}

void emulator_unprotect() {
  if (open_count++ == 0) protect_all(PROT_READ | PROT_WRITE);
}

void emulator_protect() {
  if (--open_count == 0) protect_all(PROT_NONE);
}

static cudaStream_t capturing; /* the stream that is being captured; nullptr: none */

/* The runtime refuses what may wait for the device while a stream is captured. */
static void refuse_in_capture(const char *what) {
  if (capturing) emulator_fail(what);
}

/* Device memory starts undefined: as floats NaN, so that whoever reads what nobody wrote is found. */
static cudaError_t map_memory(void **out, size_t bytes) {
  size_t used = (bytes + ALIGN - 1) / ALIGN * ALIGN;
  size_t pages = (used + PAGE - 1) / PAGE * PAGE + PAGE; /* the last one stays out of reach */
  char *base = static_cast<char *>(
      mmap(nullptr, pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (base == MAP_FAILED) return cudaErrorMemoryAllocation;
  memset(base, 0xff, pages - PAGE);
  if (mprotect(base, pages, PROT_NONE)) emulator_fail("mprotect failed");
  *out = base + (pages - PAGE - used);
  mappings[*out] = {base, pages};
  return cudaSuccess;
}

static void unmap_memory(void *memory) {
  auto at = mappings.find(memory);
  if (at == mappings.end()) emulator_fail("memory is given back that was not taken");
  munmap(at->second.base, at->second.bytes);
  mappings.erase(at);
}

cudaError_t cudaMalloc(void **out, size_t bytes) {
  refuse_in_capture("cudaMalloc while a stream is captured");
  return map_memory(out, bytes);
}
cudaError_t cudaFree(void *memory) {
  refuse_in_capture("cudaFree while a stream is captured");
  if (memory) unmap_memory(memory);
  return cudaSuccess;
}
cudaError_t cudaMallocAsync(void **out, size_t bytes, cudaStream_t) {
  refuse_in_capture("cudaMallocAsync while a stream is captured");
  return map_memory(out, bytes);
}
cudaError_t cudaFreeAsync(void *memory, cudaStream_t stream) {
  refuse_in_capture("cudaFreeAsync while a stream is captured");
  if (memory) emulator_enqueue(stream, [=] { unmap_memory(memory); });
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void **out, size_t bytes) {
  refuse_in_capture("cudaMallocHost while a stream is captured");
  *out = malloc(bytes);
  return *out ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void *memory) {
  refuse_in_capture("cudaFreeHost while a stream is captured");
  free(memory);
  return cudaSuccess;
}

/* What a test wants the card to have left, or plenty less what is taken. */
cudaError_t cudaMemGetInfo(size_t *left, size_t *all) {
  const char *wanted = getenv("STRATA_EMULATOR_FREE_BYTES");
  *all = *left = size_t(1) << 34;
  for (auto &m : mappings) *left -= m.second.bytes;
  if (wanted) *left = strtoull(wanted, nullptr, 10);
  return cudaSuccess;
}

/* ---- streams ------------------------------------------------------------------------------------ */

/* Records of an event so far: asked for by the host, and reached by the stream. */
struct records {
  uint64_t asked = 0, reached = 0;
};
struct emulated_event {
  std::shared_ptr<records> all = std::make_shared<records>();
  cudaStream_t stream = nullptr; /* of the last record */
};

/* Work, or a wait for an event as it was recorded then. */
struct task {
  std::function<void()> work;
  std::shared_ptr<records> event; /* nullptr: work */
  uint64_t record;
};

struct emulated_graph {
  std::vector<std::function<void()>> work;
};

static thread_local int current_card;

struct emulated_stream {
  int card = current_card;
  std::deque<task> queue;
  emulated_graph *captured = nullptr;
};

static std::vector<cudaStream_t> streams;

void emulator_enqueue(cudaStream_t stream, std::function<void()> work) {
  if (stream->card != current_card) emulator_fail("a thread that uses one card asks another");
  if (stream->captured)
    stream->captured->work.push_back(std::move(work));
  else
    stream->queue.push_back({std::move(work), nullptr, 0});
}

static bool is_runnable(cudaStream_t s) {
  if (s->queue.empty()) return false;
  const task &next = s->queue.front();
  return !next.event || next.event->reached >= next.record;
}

static void run_next(cudaStream_t s) {
  task next = std::move(s->queue.front());
  s->queue.pop_front();
  if (next.work) next.work();
}

static uint64_t drawn = 0x9e3779b97f4a7c15ull;

/* Whose turn it is while the host waits for `wanted`; the header says in what orders. */
static cudaStream_t next_stream(cudaStream_t wanted) {
  const char *order = getenv("STRATA_EMULATOR_STREAMS");
  bool early = order && strcmp(order, "early") == 0, mixed = order && strcmp(order, "mixed") == 0;
  std::vector<cudaStream_t> ready;
  for (cudaStream_t s : streams)
    if (s != wanted && is_runnable(s)) ready.push_back(s);
  if (is_runnable(wanted)) ready.insert(early ? ready.end() : ready.begin(), wanted);
  if (ready.empty()) emulator_fail("the host waits for what no stream can reach");
  if (!mixed) return ready.front();
  drawn ^= drawn << 13, drawn ^= drawn >> 7, drawn ^= drawn << 17;
  return ready[drawn % ready.size()];
}

/* For tests: how often the host has waited, and kernels it has launched by themselves, in no graph. */
extern "C" __attribute__((visibility("default"))) int64_t emulator_waits, emulator_single_launches;
int64_t emulator_waits, emulator_single_launches;

cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  emulator_waits++;
  if (capturing == s) emulator_fail("waiting for a stream that is being captured");
  while (!s->queue.empty()) run_next(next_stream(s));
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned, int) {
  *out = new emulated_stream();
  streams.push_back(*out);
  return cudaSuccess;
}
/* The runtime lets what was asked for end first. */
cudaError_t cudaStreamDestroy(cudaStream_t s) {
  while (!s->queue.empty()) run_next(next_stream(s));
  for (size_t i = 0; i < streams.size(); i++)
    if (streams[i] == s) streams.erase(streams.begin() + static_cast<std::ptrdiff_t>(i));
  delete s;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned) {
  *out = new emulated_event();
  return cudaSuccess;
}
/* Streams that wait for it or are to reach it do so all the same. */
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (stream->captured) emulator_fail("an event is recorded in a capture");
  std::shared_ptr<records> all = event->all;
  uint64_t record = ++all->asked;
  event->stream = stream;
  stream->queue.push_back({[=] { all->reached = record; }, nullptr, 0});
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (stream->captured) emulator_fail("a captured stream waits for an event");
  if (event->all->asked > 0) stream->queue.push_back({nullptr, event->all, event->all->asked});
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->all->reached == event->all->asked) return cudaSuccess;
  emulator_waits++;
  while (event->all->reached < event->all->asked) run_next(next_stream(event->stream));
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (capturing) emulator_fail("a capture within a capture");
  capturing = stream;
  stream->captured = new emulated_graph();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
  if (capturing != stream) emulator_fail("the end of a capture that did not begin");
  capturing = nullptr;
  *out = stream->captured;
  stream->captured = nullptr;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
  *out = new emulated_graph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  for (auto &work : graph->work) emulator_enqueue(stream, work);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}

/* Both sides are touched when its turn comes: what a card may do to pageable memory, too. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  emulator_enqueue(stream, [=] {
    emulator_unprotect();
    memcpy(to, from, bytes);
    emulator_protect();
  });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
  emulator_enqueue(stream, [=] {
    emulator_unprotect();
    memset(to, value, bytes);
    emulator_protect();
  });
  return cudaSuccess;
}

/* One, or as many as a test wants. */
cudaError_t cudaGetDeviceCount(int *count) {
  const char *wanted = getenv("STRATA_EMULATOR_CARDS");
  *count = wanted ? atoi(wanted) : 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int index) {
  int count;
  cudaGetDeviceCount(&count);
  if (index >= count) return cudaErrorInvalidDevice;
  current_card = index;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int index) {
  if (index != current_card) emulator_fail("a thread that uses one card asks about another");
  *p = {};
  snprintf(p->name, sizeof p->name, "emulated GPU");
  p->major = 8;
  p->multiProcessorCount = 1;
  p->totalGlobalMem = size_t(1) << 34;
  p->sharedMemPerBlockOptin = 99 << 10;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr, int index) {
  if (index != current_card) emulator_fail("a thread that uses one card asks about another");
  *value = 1;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
const char *cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "out of memory";
}

/* How often a kernel was launched whose name begins so, for tests. */
static std::map<std::string, int64_t> launches;

extern "C" __attribute__((visibility("default"))) int64_t emulator_launches(const char *name) {
  int64_t count = 0;
  for (auto &of : launches)
    if (of.first.rfind(name, 0) == 0) count += of.second;
  return count;
}

/* ---- threads as fibers --------------------------------------------------------------------------- */

enum { STACK_BYTES = 128 << 10, LANES = 32, LEFT_BYTES = 32, MOST_THREADS = 1024 };
enum fiber_state { FREE, RUNNING, AT_BLOCK_BARRIER, AT_WARP_BARRIER };

/* Where a stack that is not running goes on. */
#if defined(__x86_64__)
typedef void *place_on_stack; /* below it lies what a function has to keep for its caller */
#else
typedef ucontext_t place_on_stack;
#endif

/* A fiber runs threads one after the other, until one waits; that one keeps it to its end. */
struct fiber {
  place_on_stack place;
  char *stack;
  fiber_state state;
  unsigned thread;
  /* AT_WARP_BARRIER: whom it waits for, and what it takes then, of one lane or (−1) of all. */
  uint32_t mask;
  int from;
  size_t bytes;
  void *result;
};

struct warp_memory {
  char left[LANES][LEFT_BYTES];
};

/* Kept from launch to launch, and given back when the plug-in is unloaded. */
struct fiber_list : std::vector<fiber *> {
  char *stacks = static_cast<char *>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  static constexpr size_t bytes = size_t(MOST_THREADS) * STACK_BYTES;
  ~fiber_list() {
    for (fiber *f : *this) delete f;
    munmap(stacks, bytes);
  }
};
static fiber_list fibers;
static place_on_stack scheduler;
static fiber *current;
static const std::function<void()> *kernel;
static unsigned thread_count, next_thread;
static std::vector<char> is_done;
static std::vector<warp_memory> warps;
enum { MOST_SHARED = 99 << 10 }; /* what every supported card has */
alignas(16) static double shared_memory[MOST_SHARED / sizeof(double)];
static bool in_reverse;
emulated_times times;
#if defined(__SANITIZE_ADDRESS__)
static const void *scheduler_stack;
static size_t scheduler_stack_bytes;
#endif

void *emulator_shared_memory() {
  return shared_memory;
}

/* It starts undefined: NaN, so that whoever reads what nobody wrote is found. */
static void clear_shared_memory(size_t bytes) {
  double *end = shared_memory + (bytes + sizeof(double) - 1) / sizeof(double);
#if defined(__SANITIZE_ADDRESS__) /* which finds what lies behind it */
  double *all = shared_memory + MOST_SHARED / sizeof(double);
  __asan_unpoison_memory_region(shared_memory, sizeof shared_memory);
  __asan_poison_memory_region(end, static_cast<size_t>(all - end) * sizeof(double));
#endif
  std::fill(shared_memory, end, NAN);
}

static void set_thread(unsigned thread) {
  unsigned at = in_reverse ? thread_count - 1 - thread : thread;
  threadIdx = dim3(at % blockDim.x, at / blockDim.x % blockDim.y, at / (blockDim.x * blockDim.y));
}

static unsigned linear_thread() {
  return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

int emulator_lane() {
  return static_cast<int>(linear_thread() % LANES);
}

unsigned emulator_thread() {
  return linear_thread();
}

bool emulator_is_on_stack(const void *at) {
  return at >= fibers.stacks && at < fibers.stacks + fibers.bytes;
}

/* A thread's copies that run beside it. */
struct running_copies {
  struct copy {
    uint4 *to;
    uint4 value;
    uint64_t group;
  };
  std::deque<copy> list;
  uint64_t groups; /* that were ended, by the threads of all blocks that stood here */
};
static running_copies copies[MOST_THREADS];
static int copies_running;

void emulator_begin_copy(uint4 *to, const uint4 &value) {
  running_copies &own = copies[linear_thread()];
  own.list.push_back({to, value, own.groups});
  copies_running++;
}

void emulator_commit_copies() {
  copies[linear_thread()].groups++;
}

uint4 *emulator_end_copy(int left, uint4 *value) {
  running_copies &own = copies[linear_thread()];
  if (own.list.empty() || own.list.front().group + unsigned(left) >= own.groups) return nullptr;
  running_copies::copy next = own.list.front();
  own.list.pop_front();
  copies_running--;
  *value = next.value;
  return next.to;
}

#if defined(__x86_64__)
/* Does without what swapcontext does at every switch: it asks the system for the signal mask, and under the
 * address sanitizer forgets what is known of the whole stack. */
extern "C" void emulator_switch(place_on_stack *from, place_on_stack to);
asm(R"(
  .pushsection .text
  .globl emulator_switch
  .hidden emulator_switch
  .type emulator_switch, @function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size emulator_switch, .-emulator_switch
  .popsection
)");

static void switch_stack(place_on_stack *from, place_on_stack *to) {
  emulator_switch(from, *to);
}

/* The first switch returns to main, which finds the stack as if it had been called. */
static void start_stack(place_on_stack *place, char *stack, void (*main)()) {
  enum { REGISTERS = 6 };
  void **top = reinterpret_cast<void **>(stack + STACK_BYTES) - 2;
  *top = reinterpret_cast<void *>(main);
  *place = top - REGISTERS;
}
#else
static void switch_stack(place_on_stack *from, place_on_stack *to) {
  swapcontext(from, to);
}

static void start_stack(place_on_stack *place, char *stack, void (*main)()) {
  getcontext(place);
  place->uc_stack.ss_sp = stack;
  place->uc_stack.ss_size = STACK_BYTES;
  place->uc_link = nullptr;
  makecontext(place, main, 0);
}
#endif

/* The address sanitizer has to be told that the stack changes. */
static void leave_fiber() {
  fiber *self = current;
#if defined(__SANITIZE_ADDRESS__)
  void *fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, scheduler_stack, scheduler_stack_bytes);
#endif
  switch_stack(&self->place, &scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_stack_bytes);
#endif
}

static void enter_fiber(fiber *f) {
  current = f;
#if defined(__SANITIZE_ADDRESS__)
  void *fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, f->stack, STACK_BYTES);
#endif
  switch_stack(&scheduler, &f->place);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

static void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  for (;;) {
    while (next_thread < thread_count) {
      current->thread = next_thread++;
      current->state = RUNNING;
      set_thread(current->thread);
      (*kernel)();
      set_thread(current->thread);
      is_done[linear_thread()] = 1;
    }
    current->state = FREE;
    leave_fiber();
  }
}

static fiber *new_fiber() {
  for (fiber *f : fibers)
    if (f->state == FREE) return f;
  if (fibers.stacks == MAP_FAILED) emulator_fail("no memory for stacks");
  fiber *f = new fiber();
  f->stack = fibers.stacks + fibers.size() * STACK_BYTES;
  start_stack(&f->place, f->stack, fiber_main);
  fibers.push_back(f);
  return f;
}

static void wait_as(fiber_state state) {
  current->state = state;
  leave_fiber();
  set_thread(current->thread);
}

void emulator_block_barrier() {
  wait_as(AT_BLOCK_BARRIER);
}

/* The scheduler hands out what lanes have left before any of them goes on. */
static void exchange(uint32_t mask, const void *value, size_t bytes, int from, void *result) {
  unsigned thread = linear_thread();
  if (bytes > LEFT_BYTES) emulator_fail("a lane leaves more than 32 bytes");
  memcpy(warps[thread / LANES].left[thread % LANES], value, bytes);
  current->mask = mask;
  current->from = from;
  current->bytes = bytes;
  current->result = result;
  wait_as(AT_WARP_BARRIER);
}

void emulator_exchange(uint32_t mask, const void *value, size_t bytes, int from, void *result) {
  int lane = emulator_lane();
  if (!(mask >> lane & 1)) emulator_fail("a shuffle by a lane that its mask leaves out");
  if (from >= 0 && !(mask >> from & 1))
    emulator_fail("a shuffle from a lane that the mask leaves out");
  exchange(mask, value, bytes, from < 0 ? lane : from, result);
}

void emulator_gather(const void *value, size_t bytes, void *all) {
  exchange(0xffffffffu, value, bytes, -1, all);
}

static unsigned linear_of(const fiber *f) {
  return in_reverse ? thread_count - 1 - f->thread : f->thread;
}

static void hand_out(const fiber *f) {
  const warp_memory &warp = warps[linear_of(f) / LANES];
  if (f->from >= 0) memcpy(f->result, warp.left[f->from], f->bytes);
  for (int i = 0; i < LANES && f->from < 0; i++)
    memcpy(static_cast<char *>(f->result) + i * f->bytes, warp.left[i], f->bytes);
}

static bool release_warps() {
  bool released = false;
  size_t count = (thread_count + LANES - 1) / LANES;
  std::vector<uint32_t> waiting(count);
  for (fiber *f : fibers)
    if (f->state == AT_WARP_BARRIER) waiting[linear_of(f) / LANES] |= 1u << linear_of(f) % LANES;
  std::vector<fiber *> ready;
  for (fiber *f : fibers)
    if (f->state == AT_WARP_BARRIER && (f->mask & ~waiting[linear_of(f) / LANES]) == 0)
      ready.push_back(f);
  for (fiber *f : ready) hand_out(f);
  for (fiber *f : ready)
    if (f->bytes == 0 && f->mask == 0xffffffffu)
      times.warp_barrier[linear_of(f) / LANES] = ++times.now;
  for (fiber *f : ready) {
    f->state = RUNNING;
    released = true;
    enter_fiber(f);
  }
  return released;
}

static bool release_block() {
  std::vector<fiber *> ready;
  for (fiber *f : fibers) {
    if (f->state == AT_WARP_BARRIER) return false;
    if (f->state == AT_BLOCK_BARRIER) ready.push_back(f);
  }
  if (ready.empty()) return false;
  /* The hardware lets threads that have ended count as arrived; code that relies on it is a mistake
   * here, because a kernel that grows would then hang. */
  for (unsigned t = 0; t < thread_count; t++)
    if (is_done[t]) emulator_fail("__syncthreads that some threads never reach");
  times.barrier = ++times.now;
  for (fiber *f : ready) {
    f->state = RUNNING;
    enter_fiber(f);
  }
  return true;
}

static void run_block() {
  next_thread = 0;
  is_done.assign(thread_count, 0);
  while (next_thread < thread_count) enter_fiber(new_fiber());
  while (release_warps() || release_block()) {
  }
  for (fiber *f : fibers)
    if (f->state != FREE) emulator_fail("a warp waits for lanes that have ended");
  if (copies_running > 0) emulator_fail("a block ends with copies that nobody waited for");
}

static void run_kernel(const char *name, dim3 blocks, dim3 threads, size_t shared_bytes,
                       const std::function<void()> &body) {
  const char *order = getenv("STRATA_EMULATOR_ORDER");
  in_reverse = order && strcmp(order, "reverse") == 0;
  blockDim = threads;
  gridDim = blocks;
  thread_count = threads.x * threads.y * threads.z;
  running = name;
  if (thread_count == 0 || thread_count > MOST_THREADS)
    emulator_fail("a block has 1 to 1024 threads");
  if (blocks.x > 0x7fffffffu || blocks.y > 0xffffu || blocks.z > 0xffffu ||
      !(blocks.x && blocks.y && blocks.z))
    emulator_fail("a grid has 1 to 2^31 - 1 blocks along x, 1 to 65535 along y and z");
  if (shared_bytes > MOST_SHARED) emulator_fail("more shared memory than every supported card has");
  kernel = &body;
  warps.assign((thread_count + LANES - 1) / LANES, warp_memory());
  emulator_unprotect();
  times.launch = ++times.now;
  times.is_running = true;
  uint64_t count = uint64_t(blocks.x) * blocks.y * blocks.z;
  for (uint64_t k = 0; k < count; k++) {
    uint64_t b = in_reverse ? count - 1 - k : k;
    blockIdx = dim3(unsigned(b % blocks.x), unsigned(b / blocks.x % blocks.y),
                    unsigned(b / blocks.x / blocks.y));
    clear_shared_memory(shared_bytes);
    times.block = times.barrier = ++times.now;
    run_block();
  }
  times.is_running = false;
  running = "no kernel";
  emulator_protect();
}

void emulate(const char *name, cudaStream_t stream, dim3 blocks, dim3 threads, size_t shared_bytes,
             const std::function<void()> &body) {
  launches[name]++;
  if (!stream->captured) emulator_single_launches++;
  emulator_enqueue(stream, [=] { run_kernel(name, blocks, threads, shared_bytes, body); });
}
