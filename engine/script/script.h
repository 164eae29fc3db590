/* Lua 5.4 in a sandbox: schedules and hooks. A script sees arithmetic, tables, a few string
 * functions, its arguments and nothing of the machine; memory, instructions and time are bounded,
 * and whatever it computes is the same on every run. docs/lua.md is the user's side of this header.
 */
#ifndef STRATA_SCRIPT_SCRIPT_H
#define STRATA_SCRIPT_SCRIPT_H

#include "language/pipeline.h"

typedef struct script script;

/* Who calls a script, and so what it has (script/api.h). */
typedef enum script_kind {
  SCRIPT_SCHEDULE,
  SCRIPT_VALIDATION, /* hooks */
  SCRIPT_EPOCH_END,
  SCRIPT_STAGE_END,
  SCRIPT_METRIC,
  SCRIPT_CASE_WEIGHT,
  SCRIPT_ABLATION,
  SCRIPT_KIND_COUNT
} script_kind;

enum {
  SCRIPT_SOURCE_BYTES = 64 << 10,
  SCRIPT_MEMORY_BYTES = 16 << 20,
  SCRIPT_STRING_BYTES = 16 << 10, /* one string */
  SCRIPT_BLOCK_BYTES = 1 << 20,   /* one table: 65536 list entries */
  SCRIPT_STATE_BYTES = 1 << 20,   /* event.state as JSON */
  SCRIPT_DEPTH = 2000,            /* nested calls */
  /* Per call. Work done inside library functions and allocation count as instructions too. The time
   * is the thread's CPU time: a backstop several times what the instructions take. */
  SCRIPT_INSTRUCTIONS = 20 * 1000 * 1000,
  SCRIPT_CPU_MS = 1000
};

typedef struct script_limits {
  size_t memory_bytes, string_bytes, block_bytes;
  int64_t instructions;
  int64_t cpu_ms; /* 0: no limit, for a script that waits for work done elsewhere */
  int depth;
} script_limits;

/* The figures above. */
extern const script_limits script_limits_default;

/* Compiles the file (text only, never bytecode), runs it once; it must return a function.
 * ref->arguments (map of numbers, strings, booleans, lists; may be NULL) becomes the global table
 * `args`; one that the script does not read while it loads is an error at its place in the YAML
 * file, so a misspelt argument cannot be ignored.
 *
 * Every error of a script, here and below, stands at its line and says where the pipeline names the
 * script (ref->at). */
status script_open(script_kind kind, const script_ref *ref, script **out);
void script_close(script *s);

/* An error about what a script returned: gets the place of its function, and where the pipeline names
 * it. */
status script_blame(const script *s, status error);

/* name → number; NaN: not defined, which Lua sees as nil. A name that is not among them is an error in
 * Lua, unless there are none at all. */
typedef struct script_numbers {
  const char *const *names;
  const double *values;
  int count;
} script_numbers;

/* Schedule: returns f(step, epoch, total, base, steps_per_epoch, metrics). Steps and epochs count
 * from 0, `total` is the number of steps of the stage, `base` the attribute's value in the YAML file
 * and `metrics` what was measured last. The result must be a finite number. It must depend on the
 * arguments alone: a schedule keeps no state, so that a resumed run equals an uninterrupted one. */
typedef struct schedule_point {
  int64_t step, epoch, total, steps_per_epoch;
  double base;
  script_numbers metrics;
} schedule_point;
status script_schedule(script *s, const schedule_point *at, double *out);

/* Hook: calls f(event), which has what script/api.h lists for the script's kind. print goes to `log`
 * as well. Texts handed to `log` and `stop_reason` hold no control characters. `get`, `set`,
 * `record` and `log` may be NULL where the caller has nothing to offer; using them then is an error in the
 * script. Errors of `get`, `set` and `record` without a place get the script's. Between calls event.state is
 * held as JSON, so a resumed run sees exactly what an uninterrupted one sees. */
typedef struct hook_class { /* of a validation */
  int number;
  const char *name;
  const double *values; /* one for each of the event's class_metrics; NaN: not defined */
} hook_class;

typedef struct hook_event {
  const char *stage;
  int64_t epoch, step;
  script_numbers metrics;
  const hook_class *classes; /* SCRIPT_VALIDATION */
  int class_count;
  const char *const *class_metrics;
  int class_metric_count;
  const char *reason; /* SCRIPT_STAGE_END: why the stage ended */
  status (*get)(void *context, const char *name, double *out);
  status (*set)(void *context, const char *name, double value);
  status (*record)(void *context, const char *name,
                   double value); /* name: letters, digits, _ - . */
  void (*log)(void *context, const char *text);
  void *context;
  bool stop; /* set by the hook */
  char stop_reason[200];
} hook_event;
status script_hook(script *s, hook_event *event);
/* Metric: calls f(counts) for a class of a case; NaN for nil. Anything but a finite number or nil is an
 * error that names case and class. */
typedef struct metric_counts {
  int64_t tp, fp, fn, tn; /* voxels */
  double voxel_mm3;
  const char *class_name, *case_name;
  int class_number;
} metric_counts;
status script_metric(script *s, const metric_counts *counts, double *out);

/* Weight of a case: calls f(case). Anything but a finite number ≥ 0 is an error that names the case. */
typedef struct case_facts {
  const char *name, *patient;
  int64_t voxels;
  double voxel_mm3;
  const char *const *class_names; /* [0] = background */
  const int64_t *class_voxels;
  int64_t unknown_voxels; /* of no class */
  int class_count;        /* 0: no label */
} case_facts;
status script_case_weight(script *s, const case_facts *facts, double *out);

/* event.state as JSON text (heap, caller frees), and back, checked: for exact resume. Numbers keep
 * every bit, and integers stay integers. */
status script_state_save(script *s, char **json);
status script_state_load(script *s, const char *json);

#endif
