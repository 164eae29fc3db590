/* The prepare cache: one file a case, named after the content it was made from. */
#ifndef STRATA_DATA_CACHE_H
#define STRATA_DATA_CACHE_H

#include "data/volume.h"

typedef struct cache_key {
  uint64_t part[2]; /* XXH3, 128 bits */
} cache_key;

typedef struct file_bytes {
  unsigned char *data; /* NULL: no file */
  size_t length;
} file_bytes;

/* Of a whole file: XXH3, 128 bits, and the length. */
typedef struct content_hash {
  bool is_there; /* false: no file */
  uint64_t length, low, high;
} content_hash;

/* From the images' content, then the label's, and the identity of the prepare graph. */
cache_key cache_key_from(uint64_t prepare, const content_hash *files, int count);
/* From the source files' bytes (`label` without data: none) and the identity of the prepare graph.
 */
cache_key cache_key_of(uint64_t prepare, const file_bytes *images, int count,
                       const file_bytes *label);
/* Is there an entry, damaged or not? */
bool cache_holds(const char *folder, cache_key key);
/* False when there is no entry, or a damaged one. The case has no name. */
bool cache_load(const char *folder, cache_key key, medical_case *out);
/* Keeps a failure to write for cache_problem_take (data/dataset.h) instead of returning it. Safe
 * between threads and between processes that share the folder. */
void cache_store(const char *folder, cache_key key, const medical_case *c);

#endif
