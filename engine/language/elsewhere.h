/* What PyTorch, MONAI and nnU-Net call the operators and attributes that are called otherwise here, so that who
 * writes their word is told ours. */
#ifndef STRATA_LANGUAGE_ELSEWHERE_H
#define STRATA_LANGUAGE_ELSEWHERE_H

#include "graph/op.h"

/* The operator with `trait` (0: of graphs) whose declaration names `word` among what it equals, with or without the d
 * of MONAI's dictionary transforms: "RandFlipd" → random_flip. NULL: none. */
const op *elsewhere_operator(const char *word, unsigned trait);
/* The attribute of `o` that is called `word` there: "prob" → "probability". NULL: none. */
const char *elsewhere_attribute(const op *o, const char *word);

#endif
