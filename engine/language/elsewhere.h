/* What PyTorch, MONAI, TorchIO and nnU-Net call the operators, attributes, keys and metrics that are called otherwise here:
 * who writes their word is understood where the same values mean the same, and told ours otherwise. */
#ifndef STRATA_LANGUAGE_ELSEWHERE_H
#define STRATA_LANGUAGE_ELSEWHERE_H

#include "base/text.h"
#include "graph/op.h"
#include "language/tree.h"

/* The operator with `trait`, or one of several (0: of graphs), that is called `word` there, with or without the d of
 * MONAI's dictionary transforms: "RandFlipd" → random_flip, "swish" → silu. NULL: none. */
const op *elsewhere_operator(const char *word, unsigned trait);
/* What is other about that operator, or what to do in the place of one that has no counterpart: "LoadImaged" → "every
 * case is loaded, without being told". NULL: nothing is known. */
const char *elsewhere_operator_remark(const char *word);
/* What is said of an operator that is unknown here and known there: `; did you mean "random_flip"?`, with what is
 * other about it and where it stands, or `: every case is loaded, …`. *ours: the operator with `trait` that is meant,
 * or NULL. False: it is unknown there, too. */
bool elsewhere_answer(const char *word, unsigned trait, const op **ours, text_buffer *out);
/* The attribute of `o` that is called `word` there: "rotate_range" → "rotation". NULL: none. *difference: what else
 * is other about it, "in degrees, where MONAI has radians"; NULL: nothing. */
const char *elsewhere_attribute(const op *o, const char *word, const char **difference);
/* The same of an attribute that has no counterpart: "num_samples" → "`data: crops_per_case` says how many". */
const char *elsewhere_attribute_remark(const op *o, const char *word);
/* The words there for an attribute of a prepare, sample or postprocess operator that may be written here, too, one after the
 * other: for probability "prob", then "p_per_sample". NULL: no more. */
const char *elsewhere_word(const op *o, const attr *a, int index);
/* Where a setting there that is no key here is made: "val_interval" → "`validate: {every: 10}` of a stage". NULL:
 * nothing is known. */
const char *elsewhere_key(const char *word);
/* The metric that is called `word` there: "DiceMetric" → "dice". NULL: none. */
const char *elsewhere_metric(const char *word);
/* Writes our names for those words into the operator's mapping of attributes. An attribute that is there under two
 * names is a problem. */
void elsewhere_translate(const op *o, tree *attributes, arena *memory, problems *all);

#endif
