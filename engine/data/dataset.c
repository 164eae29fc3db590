#include "data/cases.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static uint64_t size_of_file(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 ? (uint64_t)info.st_size : 0;
}

/* Case list, roles, file sizes and ignore label. */
static uint64_t identity_of(const dataset *d) {
  uint64_t identity = (uint64_t)d->ignore_label;
  for (int i = 0; i < d->case_count; i++) {
    const case_entry *c = &d->cases[i];
    identity = hash_mix(identity, text_hash(c->name));
    identity = hash_mix(identity, (uint64_t)c->role);
    identity = hash_mix(identity, size_of_file(c->image));
    for (int k = 0; k < c->more_image_count; k++)
      identity = hash_mix(identity, size_of_file(c->more_images[k]));
    identity = hash_mix(identity, c->label ? size_of_file(c->label) : 0);
  }
  return identity;
}

/* `go_on`: with the cases whose files are there. */
static status open_dataset(const data_spec *spec, uint64_t seed, bool go_on, problems *found,
                           dataset **out) {
  *out = NULL;
  dataset *d = calloc(1, sizeof *d);
  if (!d) return error_out_of_memory(sizeof *d);
  status error = layout_read(spec, d, found);
  if (error) {
    dataset_free(d);
    return error_locate(error, spec->dataset_at);
  }
  if (go_on || found->count == 0) split_assign(spec, seed, d, found);
  d->identity = identity_of(d);
  known_files *known = arena_alloc(&d->memory, (size_t)(d->case_count + 1) * sizeof *known);
  for (int i = 0; i < d->case_count; i++) d->cases[i].known = &known[i];
  *out = d;
  return OK;
}

status dataset_inspect(const data_spec *spec, uint64_t seed, problems *found, dataset **out) {
  return open_dataset(spec, seed, true, found, out);
}

status dataset_open(const data_spec *spec, uint64_t seed, dataset **out) {
  problems found = {0};
  status error = open_dataset(spec, seed, false, &found, out);
  if (error)
    problems_free(&found);
  else
    error = error_locate(problems_take(&found), spec->dataset_at);
  if (!error) return OK;
  dataset_free(*out);
  *out = NULL;
  return error;
}

void dataset_free(dataset *d) {
  if (!d) return;
  arena_free(&d->memory);
  free(d);
}

int dataset_role(const dataset *d, role r, int *index) {
  int count = 0;
  for (int i = 0; i < d->case_count; i++)
    if (d->cases[i].role == r) index[count++] = i;
  return count;
}

int dataset_role_count(const dataset *d, role r) {
  int count = 0;
  for (int i = 0; i < d->case_count; i++) count += d->cases[i].role == r;
  return count;
}

char *dataset_describe(const dataset *d, char out[160]) {
  int train = dataset_role_count(d, ROLE_TRAIN),
      labelled = dataset_role_usable(d, ROLE_TRAIN, false);
  int none = dataset_role_count(d, ROLE_NONE);
  char with_labels[40] = "", unused[40] = "";
  if (labelled < train) snprintf(with_labels, sizeof with_labels, " (%d with labels)", labelled);
  if (none > 0) snprintf(unused, sizeof unused, ", %d in no role", none);
  snprintf(out, 160, "%d case%s: %d train%s, %d validation, %d test%s", d->case_count,
           d->case_count == 1 ? "" : "s", train, with_labels,
           dataset_role_count(d, ROLE_VALIDATION), dataset_role_count(d, ROLE_TEST), unused);
  return out;
}

bool case_is_usable(const case_entry *entry, bool label_free) {
  return label_free || entry->label;
}

int dataset_role_usable(const dataset *d, role r, bool label_free) {
  int count = 0;
  for (int i = 0; i < d->case_count; i++)
    count += d->cases[i].role == r && case_is_usable(&d->cases[i], label_free);
  return count;
}

int64_t dataset_steps(const dataset *d, role r, const data_spec *spec, bool label_free,
                      int64_t a_step) {
  int64_t crops = spec->crops_per_case > 0 ? spec->crops_per_case : 1;
  return (dataset_role_usable(d, r, label_free) * crops + a_step - 1) / a_step;
}

int64_t stage_updates(const stage_spec *s, const dataset *d, const data_spec *spec,
                      bool label_free) {
  if (s->steps_per_epoch > 0) return s->steps_per_epoch;
  int64_t batches = dataset_steps(d, ROLE_TRAIN, spec, label_free, s->batch);
  return (batches + s->accumulate - 1) / s->accumulate;
}
