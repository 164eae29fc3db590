#include "base/parallel.h"

#include "base/limits.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Workers look for new work this many times before they sleep: a step is hundreds of kernels a few
 * microseconds apart, and a sleep costs about fifty. */
enum { SPINS_BEFORE_SLEEP = 4000 };

struct thread_pool {
  int threads;
  int spins; /* before a thread lets go of its core; 0 where there are more threads than cores */
  pthread_t *workers;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  _Atomic uint64_t generation; /* a new number is a new parallel_for */
  _Atomic int64_t next_task;
  _Atomic int busy_workers;
  _Atomic int sleepers;
  _Atomic bool stop;
  int64_t tasks;
  task_fn fn;
  void *context;
};

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb"); /* about as long; `yield` takes no time */
#endif
}

static void drain(thread_pool *pool) {
  for (;;) {
    int64_t task = atomic_fetch_add_explicit(&pool->next_task, 1, memory_order_relaxed);
    if (task >= pool->tasks) return;
    pool->fn(pool->context, task);
  }
}

static void *worker_main(void *argument) {
  thread_pool *pool = argument;
  uint64_t seen = 0;
  for (;;) {
    int spins = 0;
    while (atomic_load_explicit(&pool->generation, memory_order_acquire) == seen) {
      if (++spins < pool->spins) {
        relax();
        continue;
      }
      pthread_mutex_lock(&pool->lock);
      atomic_fetch_add(&pool->sleepers, 1);
      while (atomic_load(&pool->generation) == seen) pthread_cond_wait(&pool->wake, &pool->lock);
      atomic_fetch_sub(&pool->sleepers, 1);
      pthread_mutex_unlock(&pool->lock);
    }
    seen = atomic_load_explicit(&pool->generation, memory_order_acquire);
    if (atomic_load(&pool->stop)) return NULL;
    drain(pool);
    atomic_fetch_sub_explicit(&pool->busy_workers, 1, memory_order_release);
  }
}

static void announce(thread_pool *pool) {
  atomic_fetch_add(&pool->generation, 1);
  if (atomic_load(&pool->sleepers) > 0) {
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
  }
}

status pool_create(int threads, thread_pool **out) {
  *out = NULL;
  if (threads <= 0) threads = limits_cores();
  if (threads > 1024) threads = 1024;
  thread_pool *pool = calloc(1, sizeof *pool);
  if (!pool) return error_out_of_memory(sizeof *pool);
  pool->threads = 1;
  pool->spins = threads > limits_cores() ? 0 : SPINS_BEFORE_SLEEP;
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->wake, NULL);
  pool->workers = calloc((size_t)threads, sizeof *pool->workers);
  if (!pool->workers) {
    pool_destroy(pool);
    return error_out_of_memory((size_t)threads * sizeof *pool->workers);
  }
  while (pool->threads < threads) {
    int refused = pthread_create(&pool->workers[pool->threads - 1], NULL, worker_main, pool);
    if (refused) {
      pool_destroy(pool);
      return error_new(ERROR_IO, NOWHERE, "cannot start %d threads: %s. Try --threads 1", threads,
                       strerror(refused));
    }
    pool->threads++;
  }
  *out = pool;
  return OK;
}

void pool_destroy(thread_pool *pool) {
  if (!pool) return;
  atomic_store(&pool->stop, true);
  announce(pool);
  for (int i = 0; i < pool->threads - 1; i++) pthread_join(pool->workers[i], NULL);
  pthread_mutex_destroy(&pool->lock);
  pthread_cond_destroy(&pool->wake);
  free(pool->workers);
  free(pool);
}

int pool_threads(const thread_pool *pool) {
  return pool ? pool->threads : 1;
}

void parallel_for(thread_pool *pool, int64_t tasks, task_fn fn, void *context) {
  if (!pool || pool->threads == 1 || tasks <= 1) {
    for (int64_t task = 0; task < tasks; task++) fn(context, task);
    return;
  }
  pool->tasks = tasks;
  pool->fn = fn;
  pool->context = context;
  atomic_store_explicit(&pool->next_task, 0, memory_order_relaxed);
  atomic_store_explicit(&pool->busy_workers, pool->threads - 1, memory_order_relaxed);
  announce(pool);
  drain(pool);
  int spins = 0;
  while (atomic_load_explicit(&pool->busy_workers, memory_order_acquire) > 0) {
    if (++spins < pool->spins) {
      relax();
    } else {
      sched_yield();
      spins = 0;
    }
  }
}
