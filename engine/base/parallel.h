/* The thread pool kernels run on. One pool per program; its workers sleep between steps.
 *
 * Rule for identical results on any number of threads: what a task computes depends only on its
 * index, never on the thread that runs it, and the number of tasks depends only on the problem,
 * never on the number of threads. A reduction writes one partial result per task and adds the
 * partials in index order afterwards. */
#ifndef STRATA_BASE_PARALLEL_H
#define STRATA_BASE_PARALLEL_H

#include "base/status.h"

#include <stdint.h>

typedef struct thread_pool thread_pool;

/* `threads` ≥ 1 counts the caller; 0 means every core the process may use (base/limits.h). */
status pool_create(int threads, thread_pool **out);
void pool_destroy(thread_pool *pool);
int pool_threads(const thread_pool *pool);

typedef void (*task_fn)(void *context, int64_t task);

/* Runs fn(context, 0) … fn(context, tasks − 1), in any order, and returns when all are done. Tasks
 * are claimed one at a time, so uneven ones balance. Allocates nothing. Not reentrant: a task must
 * not call it. A NULL pool runs everything on the caller. */
void parallel_for(thread_pool *pool, int64_t tasks, task_fn fn, void *context);

#endif
