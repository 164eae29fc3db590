#include "train/tally.h"

#include <string.h>

void tally_add(tally *t, const char *name, double value) {
  for (int i = 0; i < t->count; i++)
    if (strcmp(t->sums[i].name, name) == 0) {
      t->sums[i].value += value;
      return;
    }
  if (t->count == STATE_MAX_VALUES) return;
  snprintf(t->sums[t->count].name, TALLY_NAME_BYTES, "%s", name);
  t->sums[t->count++].value = value;
}

status tally_read(tally *t, program *p, const stage_graph *g, double *loss) {
  float value = 0;
  TRY(program_read(p, g->loss, &value));
  *loss = (double)value;
  tally_add(t, "loss", *loss);
  for (int i = 0; i < g->term_count; i++) {
    char name[TALLY_NAME_BYTES];
    if (g->term_count == 1 && strcmp(g->term_names[i], "loss") == 0) break;
    snprintf(name, sizeof name, "loss.%s", g->term_names[i]);
    TRY(program_read(p, g->terms[i], &value));
    tally_add(t, name, (double)value);
  }
  for (int i = 0; i < g->metric_count; i++) {
    float values[LIST_MAX];
    int64_t n = shape_elements(&g->g->values[g->metrics[i]].type.shape);
    TRY(program_read(p, g->metrics[i], values));
    for (int64_t k = 0; k < n; k++) {
      char name[TALLY_NAME_BYTES];
      if (n == 1)
        snprintf(name, sizeof name, "%s", g->metric_names[i]);
      else
        snprintf(name, sizeof name, "%s.%lld", g->metric_names[i], (long long)k);
      tally_add(t, name, (double)values[k]);
    }
  }
  t->batches += 1;
  return OK;
}
