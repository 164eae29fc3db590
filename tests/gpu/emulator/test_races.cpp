/* What the watched emulator (races.cpp) refuses, and what it does not. Each kernel runs in a process of
 * its own, which ends when it is refused. */
#include "gpu/emulator/emulator.h"

#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>
}

enum { COUNT = 64 };

/* What stands between a thread's write to shared memory and its read of a neighbour's. */
enum between { NOTHING, SHUFFLE, WARP, BLOCK };

static void wait_as(between what) {
  if (what == SHUFFLE) __shfl_xor_sync(0xffffffffu, 1, 1);
  if (what == WARP) __syncwarp();
  if (what == BLOCK) __syncthreads();
}

/* `turns` times: neighbours `apart` exchange a number; `after` it is read, the place is written again. */
static void exchange(float *to, int apart, int turns, between before, between after) {
  __shared__ float place[COUNT];
  unsigned own = threadIdx.x, other = own ^ unsigned(apart);
  float sum = 0;
  for (int k = 0; k < turns; k++) {
    place[own] = float(own + unsigned(k));
    wait_as(before);
    sum += place[other];
    wait_as(after);
  }
  to[blockIdx.x * COUNT + own] = sum;
}

static void copy_fours(float *memory, int from) {
  float4 *to = reinterpret_cast<float4 *>(memory) + threadIdx.x;
  to[COUNT] = *reinterpret_cast<float4 *>(memory + from + 4 * threadIdx.x);
}

/* `turns` times: a thread copies four numbers beside itself, waits until at most `left` of its copies run,
 * and reads what another warp's thread has copied. */
static void copy_beside(float *memory, int turns, int left, between before, between after) {
  alignas(16) __shared__ float place[4 * COUNT];
  unsigned own = threadIdx.x;
  float sum = 0;
  for (int k = 0; k < turns; k++) {
    emulator_copy_async(place + 4 * own, memory + 4 * own, true);
    emulator_commit_copies();
    emulator_wait_for_copies(left);
    wait_as(before);
    sum += place[4 * (own ^ 32)];
    wait_as(after);
  }
  emulator_wait_for_copies(0);
  memory[4 * COUNT + own] = sum;
}

static void copy_and_leave(float *memory) {
  alignas(16) __shared__ float place[4];
  emulator_copy_async(place, memory, true);
}

/* Block 0 leaves a number that the others find, in the emulator. */
static void read_left_over(float *to) {
  __shared__ float place;
  if (blockIdx.x == 0) place = 1;
  to[blockIdx.x] = place;
}

static void write_halves(uint16_t *to) {
  to[threadIdx.x] = 1;
}

static void write_all(float *to, unsigned step) {
  to[blockIdx.x * step] = 1;
}

/* `T` is the type of the kernel's first argument, device memory of 64 KiB. */
template <typename T, typename... P, typename... A>
static bool is_refused(dim3 blocks, unsigned threads, void (*kernel)(T *, P...), A... arguments) {
  fflush(nullptr);
  pid_t child = fork();
  if (child == 0) {
    void *memory = nullptr;
    cudaStream_t stream = nullptr;
    cudaMalloc(&memory, 1 << 16);
    cudaStreamCreateWithPriority(&stream, 0, 0);
    emulate_kernel("a kernel", stream, blocks, threads, 0, kernel, static_cast<T *>(memory),
                   arguments...);
    cudaStreamSynchronize(stream);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGABRT : WEXITSTATUS(status) == 0);
  return WIFSIGNALED(status);
}

static bool exchange_is_refused(int apart, int turns, between before, between after) {
  return is_refused(2, COUNT, exchange, apart, turns, before, after);
}

static void a_read_needs_a_barrier_after_the_write(void **) {
  assert_true(exchange_is_refused(1, 1, NOTHING, NOTHING));
  assert_true(exchange_is_refused(1, 1, SHUFFLE, NOTHING));
  assert_true(exchange_is_refused(32, 1, WARP, NOTHING)); /* of another warp */
  assert_false(exchange_is_refused(1, 1, WARP, NOTHING));
  assert_false(exchange_is_refused(32, 1, BLOCK, NOTHING));
  assert_false(exchange_is_refused(0, 1, NOTHING, NOTHING)); /* a thread's own */
}

static void a_write_needs_a_barrier_after_the_read(void **) {
  assert_true(exchange_is_refused(1, 2, BLOCK, NOTHING));
  assert_true(exchange_is_refused(32, 2, BLOCK, WARP));
  assert_false(exchange_is_refused(1, 2, BLOCK, WARP));
  assert_false(exchange_is_refused(32, 2, BLOCK, BLOCK));
}

static void copies_beside_a_thread_are_waited_for(void **) {
  assert_true(is_refused(1, COUNT, copy_beside, 1, 1, BLOCK, NOTHING)); /* no wait */
  assert_true(is_refused(1, COUNT, copy_beside, 1, 0, WARP, NOTHING));
  assert_true(
      is_refused(1, COUNT, copy_beside, 2, 0, BLOCK, NOTHING)); /* copied over what is read */
  assert_true(is_refused(1, 1, copy_and_leave));
  assert_false(is_refused(1, COUNT, copy_beside, 1, 0, BLOCK, NOTHING));
  assert_false(is_refused(1, COUNT, copy_beside, 2, 0, BLOCK, BLOCK));
}

static void blocks_have_device_memory_of_their_own(void **) {
  assert_true(is_refused(2, 1, write_all, 0u));
  assert_false(is_refused(2, 1, write_all, 1u));
}

static void shared_memory_is_written_before_it_is_read(void **) {
  assert_true(is_refused(2, 1, read_left_over));
  assert_false(is_refused(1, 1, read_left_over));
}

static void neighbours_of_two_bytes_are_apart(void **) {
  assert_false(is_refused(1, COUNT, write_halves));
}

static void vectors_are_aligned(void **) {
  assert_true(is_refused(1, 2, copy_fours, 2));
  assert_false(is_refused(1, 2, copy_fours, 4));
}

static void grids_are_no_larger_than_the_card_takes(void **) {
  assert_true(is_refused(dim3(1, 65536), 1, copy_fours, 0));
  assert_true(is_refused(dim3(1, 1, 0), 1, copy_fours, 0));
}

int main() {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_read_needs_a_barrier_after_the_write),
      cmocka_unit_test(a_write_needs_a_barrier_after_the_read),
      cmocka_unit_test(copies_beside_a_thread_are_waited_for),
      cmocka_unit_test(blocks_have_device_memory_of_their_own),
      cmocka_unit_test(shared_memory_is_written_before_it_is_read),
      cmocka_unit_test(neighbours_of_two_bytes_are_apart),
      cmocka_unit_test(vectors_are_aligned),
      cmocka_unit_test(grids_are_no_larger_than_the_card_takes),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
