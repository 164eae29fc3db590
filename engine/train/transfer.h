/* Named weight transfer between stages, with a report of every tensor. */
#ifndef STRATA_TRAIN_TRANSFER_H
#define STRATA_TRAIN_TRANSFER_H

#include "execute/parameters.h"
#include "graph/expand.h"
#include "run/report.h"

/* Fills `p` from `path` as `init:` of stage `s` says: parameters named by `reset` (a result such
 * as "net.out": the layer that makes it; or a parameter's
 * name, prefix or pattern) keep their fresh values,
 * and so do, with `missing: fresh`, those that the file lacks; every other one must be in the file
 * with the same shape. Tensors of the file that nothing here uses are expected only under "loss."
 * (the heads of the other stage's losses) and as PyTorch's counters `num_batches_tracked`, which
 * change nothing at a fixed momentum. Anything else is an error that lists all of it. */
status transfer_weights(const char *path, const stage_graph *graph, const stage_spec *s,
                        parameters *p, const reporter *report);
/* The same mistakes, found before anything is trained, where the weights will come from an earlier
 * stage: `from` is its graph. */
status transfer_check(const stage_graph *to, const stage_spec *s, const stage_graph *from,
                      const char *from_name);
/* And where they come from a file. */
status transfer_check_file(const stage_graph *to, const stage_spec *s);

#endif
