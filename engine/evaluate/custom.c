#include "evaluate/custom.h"

status custom_metrics_open(const custom_metric *list, int count, custom_metrics *out) {
  *out = (custom_metrics){.count = count};
  problems all = {0};
  for (int i = 0; i < count; i++)
    problems_add(&all, script_open(SCRIPT_METRIC, &list[i].script, &out->scripts[i]));
  status error = problems_take(&all);
  if (error) custom_metrics_close(out);
  return error;
}

void custom_metrics_close(custom_metrics *m) {
  for (int i = 0; i < m->count; i++) script_close(m->scripts[i]);
  *m = (custom_metrics){0};
}

status custom_metrics_score(custom_metrics *m, const labels *reference,
                            const char *const *class_names, int class_count, case_score *score) {
  double spacing_mm[3];
  affine_spacing(reference->affine, spacing_mm);
  int64_t voxels = score->voxels - score->ignored_voxels;
  for (int i = 0; i < m->count; i++)
    for (int c = 1; c < class_count; c++) {
      class_score *s = &score->classes[c];
      metric_counts counts = {.tp = s->overlap_voxels,
                              .fp = s->predicted_voxels - s->overlap_voxels,
                              .fn = s->reference_voxels - s->overlap_voxels,
                              .voxel_mm3 = spacing_mm[0] * spacing_mm[1] * spacing_mm[2],
                              .class_name = class_names[c],
                              .class_number = c,
                              .case_name = score->name};
      counts.tn = voxels - counts.tp - counts.fp - counts.fn;
      TRY(script_metric(m->scripts[i], &counts, &s->value[METRIC_COUNT + i]));
    }
  return OK;
}
