/* Packs: a pipeline or a run as one file to share.
 *
 * A pack is a zip archive of stored entries, the same bytes for the same content:
 *
 *   pack.yaml                     {strata: 1, pipeline: which of the files below is run}
 *   project/…                     the pipeline and what it names of its own, as they lie together
 *   pipelines/…, lua/…            what it names of Strata's own files
 *   fingerprint.json              what data.fingerprint names
 *   init/STAGE/…                  name rules and, if wanted, weights that a stage begins with
 *
 * of a run instead:
 *
 *   pipeline.lock.yaml, run.json
 *   weights/STAGE.safetensors     if wanted */
#ifndef STRATA_RUN_PACK_H
#define STRATA_RUN_PACK_H

#include "run/report.h"

#include "base/status.h"

typedef struct pack_options {
  const char *from; /* a pipeline file, a lock or a run's folder */
  const char *out;  /* NULL: the pipeline's or the run's name, .strata */
  bool weights;
  reporter report;
} pack_options;

/* What was packed is opened again before it gets its name: a pack that exists works. */
status pack_write(const pack_options *o);
/* A line for each file: bytes and name. */
status pack_list(const char *path, const reporter *report);
/* Into a folder that is not there yet. */
status pack_unpack(const char *path, const char *folder, const reporter *report);

#endif
