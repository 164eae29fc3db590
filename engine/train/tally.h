/* Named numbers of a pass over some batches: loss, its terms, metrics. */
#ifndef STRATA_TRAIN_TALLY_H
#define STRATA_TRAIN_TALLY_H

#include "execute/program.h"
#include "graph/expand.h"
#include "run/state.h"

enum {
  TALLY_NAME_BYTES = sizeof((named_number *)0)->name,
  TALLY_MAX = STATE_MAX_VALUES - 1 /* a checkpoint adds how many batches there were */
};

typedef struct tally {
  named_number sums[TALLY_MAX];
  int count;
  double batches;
} tally;

/* Names in a tally: of a loss term, "loss.context"; of a short output, "structure.accuracy" or, where it
 * has several numbers, "structure.accuracy.0". A stage whose one term is `loss` has no other. */
bool tally_is_plain(const stage_graph *g);
void tally_term_name(const stage_graph *g, int term, char out[TALLY_NAME_BYTES]);
int64_t tally_metric_numbers(const stage_graph *g, int metric);
void tally_metric_name(const char *metric, int64_t number, int64_t numbers,
                       char out[TALLY_NAME_BYTES]);

/* Adds to the sum of that name; what is beyond TALLY_MAX names is left out. */
void tally_add(tally *t, const char *name, double value);
/* Notes the loss, its terms and the metrics of the batch just run (device.h); *note NULL: is made. */
status tally_note(program *p, const stage_graph *g, void **note);
/* Adds them up. `culprit`: of a loss that is not finite, a term that is not; "": none. */
status tally_read(tally *t, program *p, const stage_graph *g, void *note, double *loss,
                  const char **culprit);

#endif
