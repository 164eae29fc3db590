/* Finds accesses to memory that nothing orders: two threads, one of which writes, and no barrier between
 * them, though the one order in which the emulator runs them may give the right result. Two threads of
 * a block are ordered by __syncthreads, of a warp by __syncwarp, too (not by shuffles or products of
 * matrices: PTX ISA, "Memory Consistency Model"), those of two blocks by nothing. And finds shared
 * memory that a block reads but has not written, and vectors of numbers that are not aligned to their
 * size.
 *
 * The kernels are compiled with -fsanitize=thread, which calls the functions at the end before every
 * access; they stand in the place of that sanitizer's library. Not looked at are bytes (labels), for
 * memory is followed in pieces of two, and volatile writes, of which any may win. */
#include "gpu/emulator/races.h"
#include "gpu/emulator/emulator.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <unordered_map>

enum { PAGE = 4096, PIECE = 2, THREAD_BITS = 10 };

/* Who touched two bytes last, and when: an order's count << THREAD_BITS | thread. */
struct piece {
  uint64_t written, read, read_before; /* the readers are two threads */
};

struct page {
  uint64_t launch; /* the last that touched it: what it has of earlier ones counts no more */
  bool is_device;
  piece pieces[PAGE / PIECE];
};

static page &page_of(uintptr_t at) {
  static std::unordered_map<uintptr_t, std::unique_ptr<page>> pages;
  static struct {
    uintptr_t number;
    page *found;
  } recent[1024];
  uintptr_t number = at / PAGE;
  auto &slot = recent[number % 1024];
  if (!slot.found || slot.number != number) {
    std::unique_ptr<page> &found = pages[number];
    if (!found) found.reset(new page());
    slot = {number, found.get()};
  }
  return *slot.found;
}

static bool is_ordered(uint64_t access, bool is_device, unsigned thread) {
  uint64_t time = access >> THREAD_BITS;
  unsigned other = access & ((1 << THREAD_BITS) - 1);
  if (time < times.launch) return true;
  if (time < times.block) return !is_device;
  if (other == thread || time < times.barrier) return true;
  return other / 32 == thread / 32 && time < times.warp_barrier[thread / 32];
}

static void refuse(const char *what, uint64_t access, bool is_device) {
  fprintf(stderr, "%s memory, thread %u of %s block\n", is_device ? "device" : "shared",
          unsigned(access & ((1 << THREAD_BITS) - 1)),
          access >> THREAD_BITS < times.block ? "another" : "the same");
  emulator_fail(what);
}

static void touch(const void *address, size_t bytes, size_t aligned, bool writes) {
  if (!times.is_running || bytes < PIECE || emulator_is_on_stack(address)) return;
  uintptr_t at = reinterpret_cast<uintptr_t>(address);
  if (at % aligned) emulator_fail("an access that is not aligned to its size");
  unsigned thread = emulator_thread();
  uint64_t access = times.now << THREAD_BITS | thread;
  page &p = page_of(at);
  if (p.launch != times.launch) {
    bool is_device = emulator_is_device_memory(address);
    if (p.is_device && !is_device) p = page(); /* it was given back, and is the host's now */
    p.launch = times.launch;
    p.is_device = is_device;
  }
  for (uintptr_t i = at; i < at + bytes; i += PIECE) {
    piece &found = (i / PAGE == at / PAGE ? p : page_of(i)).pieces[i % PAGE / PIECE];
    bool is_left_over = found.written && found.written >> THREAD_BITS < times.block;
    if (!writes && !p.is_device && is_left_over)
      refuse("read before the block writes it", found.written, false);
    if (!is_ordered(found.written, p.is_device, thread))
      refuse(writes ? "written twice, and nothing between" : "read while it is written",
             found.written, p.is_device);
    if (writes) {
      if (!is_ordered(found.read, p.is_device, thread))
        refuse("written while it is read", found.read, p.is_device);
      if (!is_ordered(found.read_before, p.is_device, thread))
        refuse("written while it is read", found.read_before, p.is_device);
      found = {access, 0, 0};
    } else if (found.read != access) {
      if ((found.read ^ access) & ((1 << THREAD_BITS) - 1)) found.read_before = found.read;
      found.read = access;
    }
  }
}

#define ACCESSES(bytes)                                                                            \
  void __tsan_read##bytes(void *at) {                                                              \
    touch(at, bytes, bytes, false);                                                                \
  }                                                                                                \
  void __tsan_write##bytes(void *at) {                                                             \
    touch(at, bytes, bytes, true);                                                                 \
  }
extern "C" {
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void *at, size_t bytes) {
  touch(at, bytes, 1, false);
}
void __tsan_write_range(void *at, size_t bytes) {
  touch(at, bytes, 1, true);
}
void __tsan_volatile_write4(void *) {}
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void *) {}
}
