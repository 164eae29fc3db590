#include "train/case_weights.h"

#include "script/script.h"

#include <stdlib.h>

typedef struct weighing {
  const run *r;
  const stage_spec *stage;
  bool label_free;
  script *script;
} weighing;

static void count_values(const labels *l, int64_t voxels[LABEL_VALUES]) {
  int64_t count = l->size[0] * l->size[1] * l->size[2];
  for (int64_t i = 0; i < count; i++) voxels[l->data[i]]++;
}

static status weigh(const weighing *w, const case_entry *entry, double *out) {
  medical_case c = {0};
  TRY(case_prepare(&w->r->p->data, entry, w->r->cache, &c));
  int64_t voxels[LABEL_VALUES] = {0};
  double spacing_mm[3];
  bool has_label = c.label.data && !w->label_free;
  if (has_label) count_values(&c.label, voxels);
  affine_spacing(c.image.affine, spacing_mm);
  case_facts facts = {.name = entry->name,
                      .patient = entry->patient ? entry->patient : entry->name,
                      .voxels = c.image.size[0] * c.image.size[1] * c.image.size[2],
                      .voxel_mm3 = spacing_mm[0] * spacing_mm[1] * spacing_mm[2],
                      .class_names = w->r->data->class_names,
                      .class_voxels = voxels,
                      .unknown_voxels = voxels[LABEL_UNKNOWN],
                      .class_count = has_label ? w->r->data->class_count : 0};
  status error = script_case_weight(w->script, &facts, out);
  case_free(&c);
  return error;
}

static status weigh_all(const weighing *w, double *weights) {
  const dataset *d = w->r->data;
  double sum = 0;
  for (int i = 0; i < d->case_count; i++) {
    const case_entry *entry = &d->cases[i];
    if (entry->role != ROLE_TRAIN || !case_is_usable(entry, w->label_free)) continue;
    if (run_stop_requested())
      return error_new(ERROR_INTERRUPTED, NOWHERE,
                       "stopped while stage %s weighed its cases; the same command with --resume "
                       "goes on from there",
                       w->stage->name);
    TRY(weigh(w, entry, &weights[i]));
    sum += weights[i];
  }
  if (sum > 0) return OK;
  return script_blame(w->script, error_new(ERROR_SCRIPT, NOWHERE,
                                           "stage %s: every case has the weight 0, so none can be "
                                           "drawn",
                                           w->stage->name));
}

status case_weights_compute(const run *r, const stage_spec *s, bool label_free, double **out) {
  *out = NULL;
  if (!s->case_weights.path) return OK;
  weighing w = {.r = r, .stage = s, .label_free = label_free};
  TRY(script_open(SCRIPT_CASE_WEIGHT, &s->case_weights, &w.script));
  double *weights = calloc((size_t)r->data->case_count + 1, sizeof *weights);
  status error =
      weights ? weigh_all(&w, weights) : error_out_of_memory((size_t)r->data->case_count * 8);
  script_close(w.script);
  if (error) {
    free(weights);
    return error;
  }
  *out = weights;
  return OK;
}
