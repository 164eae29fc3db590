/* pipeline.lock.yaml: the resolved pipeline, the files it names, and hashes of everything that
 * decides the weights a run ends with. `strata run` of a lock trains those weights again, to the
 * bit on the same kind of device, or says what is not as it was.
 *
 * Hashes are XXH3, 128 bits, of files' bytes as `xxhsum -H128` prints them: they find changes, they
 * are no protection against forgery. Weights are hashed by names, shapes and values. */
#ifndef STRATA_RUN_LOCK_H
#define STRATA_RUN_LOCK_H

#include "run/run.h"

enum { LOCK_CASES_MAX = 10000 }; /* listed one by one; of more there is one hash of all */

typedef struct lock_entry {
  const char *name, *value;
} lock_entry;

typedef struct lock_list {
  lock_entry *items;
  int count, capacity;
} lock_list;

typedef struct lock_case {
  const char *name, *role;
  const char *image; /* a hash for every file, with spaces between */
  const char *label; /* "": none */
} lock_case;

typedef struct lock {
  arena memory;
  const char *strata, *compiler; /* that made it; a difference is told when weights differ */
  const char *numerics;          /* of the device: results are equal to the bit within one kind */
  lock_list parts;               /* keys of the pipeline (identity_part) */
  lock_list operators;           /* names and versions of those that run */
  lock_list files;               /* models, blocks and scripts */
  lock_list init;                /* stages that begin with a weight file: its content, name rules */
  lock_list weights;             /* stages that are finished: the weights they ended with */
  const tree *pipeline;          /* the resolved file, for naming keys; NULL: not at hand */
  bool scripts_changed;          /* while the run went on: it cannot be repeated */
  bool pipeline_changed;         /* the same of other keys */
  const char *data;              /* dataset_content */
  lock_case *cases;
  int case_count;
} lock;

/* What a run is made of. Its data set has been hashed, its stages have been compiled with
 * run.operators. No weights yet. Owns its memory from here on, whatever comes back. */
status lock_make(const run *r, lock *out);
/* From what stands under `lock:`, and the file around it (NULL: not at hand). Both must live as long
 * as the lock. */
status lock_read(const tree *t, const tree *file, lock *out);
void lock_free(lock *l);
/* The keys in which the pipelines differ, in `memory`; of a part in which none is found its own name,
 * without values. */
void lock_compare_keys(const lock *then, const lock *now, arena *memory, key_differences *out);
/* "the pipeline's key seed is 2, in the lock 1." */
status lock_key_sentence(const key_difference *d);
/* Have both the same stages in the same order? */
bool lock_same_stages(const lock *then, const lock *now);
/* A sentence for each other thing in which `now` is not what `then` was. `r`: the run of `now`. */
void lock_compare(const lock *then, const lock *now, const run *r, problems *found);
/* Adds the weights of a finished stage from its file. */
status lock_add_weights(lock *l, const char *stage, const char *path);
/* NULL when the stage is not among the finished ones. */
const char *lock_weights(const lock *l, const char *stage);
/* The file: pipeline, then lock. */
status lock_write(const run *r, const lock *l, const char *path);

#endif
