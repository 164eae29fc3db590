/* What the files of a data set hold, as hashes. */
#include "data/cases.h"

#include "base/files.h"
#include "base/text.h"

#include <stdlib.h>

typedef struct hashing {
  const data_spec *spec;
  dataset *d;
  const char *cache; /* NULL: none */
  uint64_t prepare;
  status *errors; /* of each case */
} hashing;

static status hash_case(const hashing *h, case_entry *entry, content_hash *out) {
  uint64_t stamp[2];
  int count = case_file_count(entry);
  bool has_stamp = h->cache && entry->known && case_stamp(entry, stamp);
  bool is_known = has_stamp && content_known(h->cache, stamp, out, count);
  for (int i = 0; i < count && !is_known; i++) {
    out[i].is_there = true;
    TRY(file_hash(case_file_path(entry, i), &out[i].length, &out[i].low, &out[i].high));
  }
  if (has_stamp && !is_known) content_keep(h->cache, stamp, out, count);
  if (has_stamp) /* the key counts a label that is not there */
    case_remember(entry, stamp, h->prepare,
                  cache_key_from(h->prepare, out, entry->more_image_count + 2));
  return OK;
}

static void hash_task(void *context, int64_t i) {
  hashing *h = context;
  case_entry *entry = &h->d->cases[i];
  if (entry->role != ROLE_NONE)
    h->errors[i] =
        error_prefix(hash_case(h, entry, (content_hash *)entry->content), "case %s", entry->name);
}

status dataset_hash(const data_spec *spec, dataset *d, const char *cache, thread_pool *pool) {
  hashing h = {.spec = spec, .d = d, .cache = cache};
  h.errors = calloc((size_t)d->case_count + 1, sizeof *h.errors);
  if (!h.errors) return error_out_of_memory((size_t)d->case_count * sizeof *h.errors);
  if (cache) h.prepare = prepared_identity(spec, d->ignore_label);
  for (int i = 0; i < d->case_count; i++)
    if (d->cases[i].role != ROLE_NONE)
      d->cases[i].content = arena_alloc(&d->memory, ((size_t)d->cases[i].more_image_count + 2) *
                                                        sizeof(content_hash));
  parallel_for(pool, d->case_count, hash_task, &h);
  problems found = {0};
  for (int i = 0; i < d->case_count; i++) problems_add(&found, h.errors[i]);
  free(h.errors);
  return problems_take(&found);
}

uint64_t dataset_content(const dataset *d) {
  uint64_t hash = 0;
  for (int i = 0; i < d->class_count; i++) hash = hash_mix(hash, text_hash(d->class_names[i]));
  if (d->ignore_label) hash = hash_mix(hash, (uint64_t)d->ignore_label);
  for (int i = 0; i < d->case_count; i++) {
    const case_entry *c = &d->cases[i];
    if (!c->content) continue;
    hash = hash_mix(hash_mix(hash, text_hash(c->name)), (uint64_t)c->role);
    for (int k = 0; k < case_file_count(c); k++)
      hash = hash_mix(hash, hash_mix(c->content[k].low, c->content[k].high));
  }
  return hash;
}
