/* Weights from files of other programs: any format, names brought to those of a network. */
#ifndef STRATA_WEIGHTS_IMPORT_H
#define STRATA_WEIGHTS_IMPORT_H

#include "run/report.h"
#include "run/weights.h"

typedef struct weight_source {
  const char *path; /* safetensors, or what torch.save writes; told apart by content */
  const char *key;  /* which dict of a PyTorch file; NULL: found */
  const char *map;  /* file with name rules (names.h); NULL: wrappers' common prefixes go */
} weight_source;

/* Every tensor under the name it has in the file. */
status weights_open(const char *path, const char *key, weights *out, const reporter *report);
/* Learned numbers only, under their new names: integer tensors (counters, index tables) are left
 * out. What was left out and renamed is reported. On error *out is empty. */
status weights_import(const weight_source *source, weights *out, const reporter *report);

#endif
