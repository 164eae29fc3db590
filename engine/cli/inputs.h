/* What `strata predict` is given to segment, and where the results go. */
#ifndef STRATA_CLI_INPUTS_H
#define STRATA_CLI_INPUTS_H

#include "cli/command.h"
#include "data/dataset.h"

typedef struct predict_inputs {
  case_entry *cases;
  char **out;           /* the segmentation of each */
  char **probabilities; /* and the file of its probabilities; NULL: not wanted */
  int count;
  const char *folder; /* where they go; NULL: the only one goes to a file that was named */
} predict_inputs;

/* From the operands after the run: files, the files of an image's channels with commas between them,
 * and folders. A folder gives every .nii and .nii.gz file in it as a case, sorted by name; for a run
 * on nnU-Net's layout the files case_0000, case_0001 … of a case are its channels. Creates the folders
 * that the results go to. Errors: nothing to segment, a channel that is missing, two results in one
 * file, a result in the place of an input. All in `memory`. */
status predict_inputs_list(arena *memory, const arguments *a, const data_spec *data,
                           int64_t channels, predict_inputs *out);

#endif
