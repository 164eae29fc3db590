/* `strata ablate SCRIPT.lua`: many runs from one script, and a table of what they say. */
#ifndef STRATA_ABLATE_ABLATE_H
#define STRATA_ABLATE_ABLATE_H

#include "ablate/study.h"

/* Runs the script. It sees no files but the pipelines it names, and writes what the functions it has
 * write: trials and tables under o->out. Tables go to o->jobs.report. An error also when trials have
 * failed, after everything else has been done and shown; ERROR_INTERRUPTED when the user stops it. */
status ablate(const ablation_options *o);

#endif
