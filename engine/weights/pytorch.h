/* PyTorch's weight files (.pt, .pth, .bin): what torch.save writes, a zip archive with one pickle
 * and an entry for each storage. Read without Python and without running anything: see pickle.h.
 *
 * torch.save(model.state_dict()) is a dict of tensors. Training scripts save more around it; then
 * the state dict is looked for under the names that common frameworks use, and what else the file
 * holds is reported. Data are read for the tensors of the state dict only. Views (transposed,
 * sliced, sharing a storage) become tensors of their own. */
#ifndef STRATA_WEIGHTS_PYTORCH_H
#define STRATA_WEIGHTS_PYTORCH_H

#include "run/report.h"
#include "run/weights.h"

/* `key`: which dict, such as "state_dict" or "trainer.model"; NULL: found as described. On error
 * *out is empty. */
status pytorch_read(const char *path, const char *key, weights *out, const reporter *report);
/* Is it a pickle without a zip around it, as PyTorch wrote before 1.6? `bytes`: its first. */
bool pytorch_is_legacy(const unsigned char *bytes, size_t length);
/* The error for one. */
status pytorch_legacy_refused(void);

#endif
