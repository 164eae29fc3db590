#include "train/tally.h"

#include <math.h>
#include <string.h>

void tally_add(tally *t, const char *name, double value) {
  for (int i = 0; i < t->count; i++)
    if (strcmp(t->sums[i].name, name) == 0) {
      t->sums[i].value += value;
      return;
    }
  if (t->count == TALLY_MAX) return;
  snprintf(t->sums[t->count].name, TALLY_NAME_BYTES, "%s", name);
  t->sums[t->count++].value = value;
}

enum { MOST_VALUES = 256, MOST_FLOATS = 1024 };

static int64_t value_elements(const stage_graph *g, value_id v) {
  return shape_elements(&g->g->values[v].type.shape);
}

/* Loss, terms, metrics. What is beyond the room, which is far beyond the names of a tally, is left
 * out. */
static int noted_values(const stage_graph *g, value_id out[MOST_VALUES]) {
  int count = 0;
  int64_t floats = 0;
  for (int i = 0; i < 1 + g->term_count + g->metric_count && count < MOST_VALUES; i++) {
    int term = i - 1, metric = term - g->term_count;
    value_id v = i == 0 ? g->loss : metric < 0 ? g->terms[term] : g->metrics[metric];
    floats += value_elements(g, v);
    if (floats > MOST_FLOATS) break;
    out[count++] = v;
  }
  return count;
}

status tally_note(program *p, const stage_graph *g, void **note) {
  value_id values[MOST_VALUES];
  int count = noted_values(g, values);
  return program_note(p, values, count, note);
}

bool tally_is_plain(const stage_graph *g) {
  return g->term_count == 1 && strcmp(g->term_names[0], "loss") == 0;
}

void tally_term_name(const stage_graph *g, int term, char out[TALLY_NAME_BYTES]) {
  snprintf(out, TALLY_NAME_BYTES, "loss.%s", g->term_names[term]);
}

int64_t tally_metric_numbers(const stage_graph *g, int metric) {
  return value_elements(g, g->metrics[metric]);
}

void tally_metric_name(const char *metric, int64_t number, int64_t numbers,
                       char out[TALLY_NAME_BYTES]) {
  if (numbers == 1)
    snprintf(out, TALLY_NAME_BYTES, "%s", metric);
  else
    snprintf(out, TALLY_NAME_BYTES, "%s.%lld", metric, (long long)number);
}

static void add_metric(tally *t, const char *metric, const float *values, int64_t count) {
  char name[TALLY_NAME_BYTES];
  for (int64_t k = 0; k < count; k++) {
    tally_metric_name(metric, k, count, name);
    tally_add(t, name, (double)values[k]);
  }
}

status tally_read(tally *t, program *p, const stage_graph *g, void *note, double *loss,
                  const char **culprit) {
  value_id values[MOST_VALUES];
  float read[MOST_FLOATS];
  int count = noted_values(g, values);
  TRY(p->device->read_note(p->device, note, read));
  const float *at = read;
  bool is_plain = tally_is_plain(g);
  *culprit = "";
  for (int i = 0; i < count; at += value_elements(g, values[i++])) {
    if (i == 0) {
      *loss = (double)*at;
      tally_add(t, "loss", *loss);
    } else if (i <= g->term_count) {
      char name[TALLY_NAME_BYTES];
      tally_term_name(g, i - 1, name);
      if (!is_plain) tally_add(t, name, (double)*at);
      if (!isfinite(*at)) *culprit = g->term_names[i - 1];
    } else {
      int m = i - 1 - g->term_count;
      add_metric(t, g->metric_names[m], at, value_elements(g, values[i]));
    }
  }
  t->batches += 1;
  return OK;
}
