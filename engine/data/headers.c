/* The headers of a whole data set: what can be wrong with it without a voxel being read. */
#include "base/memory.h"
#include "data/cases.h"

#include <stdlib.h>

typedef struct header_work {
  const dataset *data;
  volume *grids;
  status *errors; /* by case */
} header_work;

status case_check_channels(const case_entry *entry, int64_t channels, const dataset *d) {
  if (channels == d->channels) return OK;
  return error_new(ERROR_DATA, NOWHERE, "%s has %lld channel%s, the data set %d", entry->image,
                   (long long)channels, channels == 1 ? "" : "s", d->channels);
}

static void read_case(void *context, int64_t index) {
  header_work *w = context;
  const case_entry *entry = &w->data->cases[index];
  volume *grid = &w->grids[index];
  *grid = (volume){0};
  if (entry->role == ROLE_NONE) return;
  status error = case_read_headers(entry, grid);
  if (!error)
    error =
        error_prefix(case_check_channels(entry, grid->channels, w->data), "case %s", entry->name);
  if (error) *grid = (volume){0};
  w->errors[index] = error;
}

status dataset_read_headers(const dataset *d, thread_pool *pool, volume *grids) {
  size_t n = (size_t)d->case_count;
  header_work w = {d, memory_take(n * sizeof *w.grids), memory_take(n * sizeof *w.errors)};
  problems found = {0};
  parallel_for(pool, d->case_count, read_case, &w);
  for (int i = 0; i < d->case_count && found.count == 0 && grids; i++) grids[i] = w.grids[i];
  for (int i = 0; i < d->case_count; i++) problems_add(&found, w.errors[i]);
  free(w.grids);
  free(w.errors);
  return problems_take(&found);
}
