/* Lua 5.4 in a sandbox: schedules and hooks. A script sees math, table, a few string functions, its
 * arguments and nothing of the machine; memory and instructions are bounded. */
#ifndef STRATA_SCRIPT_SCRIPT_H
#define STRATA_SCRIPT_SCRIPT_H

#include "language/pipeline.h"

typedef struct script script;

enum {
  SCRIPT_MEMORY_BYTES = 64 << 20,
  SCRIPT_INSTRUCTIONS = 20 * 1000 * 1000 /* per call */
};

/* Compiles `source` (text only, never bytecode), runs it once; it must return a function. `name` is
 * the file name for messages. `arguments` (map of numbers, strings, booleans, lists; may be NULL)
 * becomes the global table `args`. */
status script_open(const char *source, const char *name, const tree *arguments, script **out);
void script_close(script *s);

/* Schedule: returns f(step, epoch, total_steps), plus the per-epoch count as a fourth argument:
 *   f(step, epoch, total, base) with `base` the attribute's value in the YAML file. The result must
 * be a finite number. Steps and epochs count from 0. */
status script_schedule(script *s, int64_t step, int64_t epoch, int64_t total_steps,
                       int64_t steps_per_epoch, double base, double *out);

/* Hook: calls f(event). event.stage, event.epoch (from 0), event.step, event.metrics (name → number),
 * event.state (a table kept between calls and in checkpoints; plain values only), event.get(name),
 * event.set(name, number), event.stop(reason), event.log(text). */
typedef struct hook_event {
  const char *stage;
  int64_t epoch, step;
  const char *const *metric_names;
  const double *metric_values;
  int metric_count;
  status (*get)(void *context, const char *name, double *out);
  status (*set)(void *context, const char *name, double value);
  void (*log)(void *context, const char *text);
  void *context;
  bool stop; /* set by the hook */
  char stop_reason[200];
} hook_event;
status script_hook(script *s, hook_event *event);
/* event.state as JSON text (heap, caller frees), and back: for exact resume. */
status script_state_save(script *s, char **json);
status script_state_load(script *s, const char *json);

#endif
