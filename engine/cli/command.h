/* The command line: one table of commands, one function each. */
#ifndef STRATA_CLI_COMMAND_H
#define STRATA_CLI_COMMAND_H

#include "language/pipeline.h"
#include "run/report.h"

enum { MAX_OPERANDS = 4096, MAX_OVERRIDES = 256, MAX_GROUPS = 32, MAX_ARGUMENTS = 64 };

/* Options every command may declare; `flags` of a command says which it takes. */
#define OPTION_SET (UINT64_C(1) << 0)
#define OPTION_NAMES (UINT64_C(1) << 35)
#define OPTION_ALLOW_CHANGES (UINT64_C(1) << 60)
#define OPTION_WITH_WEIGHTS (UINT64_C(1) << 61)
#define OPTION_LIST (UINT64_C(1) << 62)
#define OPTION_OUT (UINT64_C(1) << 1)
#define OPTION_RESUME (UINT64_C(1) << 2)
#define OPTION_RESUME_IF_ANY (UINT64_C(1) << 46)
#define OPTION_THREADS (UINT64_C(1) << 3)
#define OPTION_DEVICE (UINT64_C(1) << 4)
#define OPTION_STAGE (UINT64_C(1) << 5)
#define OPTION_DOT (UINT64_C(1) << 6)
#define OPTION_STEPS (UINT64_C(1) << 7)
#define OPTION_PROFILE (UINT64_C(1) << 8)
#define OPTION_JSON (UINT64_C(1) << 9)
#define OPTION_CASES (UINT64_C(1) << 10)
#define OPTION_SEED (UINT64_C(1) << 11)
#define OPTION_ORGANS (UINT64_C(1) << 12)
#define OPTION_SIZE (UINT64_C(1) << 13)
#define OPTION_PREDICTION (UINT64_C(1) << 14)
#define OPTION_REFERENCE (UINT64_C(1) << 15)
#define OPTION_EMPTY (UINT64_C(1) << 16)
#define OPTION_HD95 (UINT64_C(1) << 17)
#define OPTION_BATCH (UINT64_C(1) << 18)
#define OPTION_QUIET (UINT64_C(1) << 19)
#define OPTION_CSV (UINT64_C(1) << 20)
#define OPTION_METRICS (UINT64_C(1) << 21)
#define OPTION_TOLERANCE (UINT64_C(1) << 22)
#define OPTION_GROUP (UINT64_C(1) << 23)
#define OPTION_KEY (UINT64_C(1) << 24)
#define OPTION_MAP (UINT64_C(1) << 25)
#define OPTION_WEIGHTS (UINT64_C(1) << 26)
#define OPTION_INPUT (UINT64_C(1) << 27)
#define OPTION_OUTPUT (UINT64_C(1) << 28)
#define OPTION_GRADIENTS (UINT64_C(1) << 29)
#define OPTION_TRAIN (UINT64_C(1) << 30)
#define OPTION_WITHIN (UINT64_C(1) << 31)
#define OPTION_LAYOUT (UINT64_C(1) << 32)
#define OPTION_MARKDOWN (UINT64_C(1) << 33)
#define OPTION_IGNORE_LABEL (UINT64_C(1) << 36)
#define OPTION_REGION (UINT64_C(1) << 37)
#define OPTION_POSTPROCESS (UINT64_C(1) << 38)
#define OPTION_MEMORY (UINT64_C(1) << 39)
#define OPTION_NETWORK (UINT64_C(1) << 43)
#define OPTION_ARG (UINT64_C(1) << 40)
#define OPTION_JOBS (UINT64_C(1) << 41)
#define OPTION_DRY_RUN (UINT64_C(1) << 42)
#define OPTION_INFERENCE (UINT64_C(1) << 49)
#define OPTION_COMMON (UINT64_C(1) << 50)
#define OPTION_CLASSES (UINT64_C(1) << 51)
#define OPTION_ZEROS (UINT64_C(1) << 52)
#define OPTION_RESAMPLES (UINT64_C(1) << 53)
#define OPTION_CONFIDENCE (UINT64_C(1) << 54)
#define OPTION_BOOTSTRAP (UINT64_C(1) << 55)
#define OPTION_CHANGED_SCRIPTS (UINT64_C(1) << 34)
#define OPTION_AGAINST (UINT64_C(1) << 56)
#define OPTION_CASE (UINT64_C(1) << 57)
#define OPTION_CROPS (UINT64_C(1) << 58)
#define OPTION_EPOCH (UINT64_C(1) << 59)
#define OPTION_PROBABILITIES (UINT64_C(1) << 44)
#define OPTION_NNUNET (UINT64_C(1) << 45)
/* No option: the command looks at run_stop_requested. */
#define STOPS_IN_ORDER (UINT64_C(1) << 63)

typedef struct arguments {
  const char *const *words; /* the whole command line, NULL-terminated */
  const char *operands[MAX_OPERANDS];
  int operand_count;
  bool allow_changes, with_weights, list;
  override overrides[MAX_OVERRIDES];
  int override_count;
  const char *out, *device, *against, *stage, *json, *prediction, *reference, *empty, *hd95;
  const char *csv, *metrics, *tolerance, *postprocess, *names, *key, *map, *memory, *network;
  const char *probabilities, *nnunet;
  double within;               /* 0: not given */
  override groups[MAX_GROUPS]; /* --group NAME=1,2,3 */
  int group_count;
  override regions[MAX_GROUPS]; /* --region NAME=1,2,3 */
  int region_count;
  override script_arguments[MAX_ARGUMENTS]; /* --arg name=value */
  int script_argument_count;
  const char *weights, *input, *output, *gradients, *layout;
  bool resume, resume_if_any, dot, profile, inference, quiet, train, markdown, changed_scripts,
      dry_run;
  const char *case_name;
  int64_t crops, epoch; /* −1: not given */
  int64_t ignore_label; /* −1: not given */
  bool common;
  const char *classes, *zeros, *bootstrap;
  double confidence;                                              /* 0: not given */
  int64_t resamples;                                              /* −1: not given */
  int64_t threads, steps, cases, seed, organs, size, batch, jobs; /* −1: not given */
} arguments;

typedef struct command {
  const char *name;
  const char *operands; /* "FILE" */
  const char *summary;  /* one line */
  const char *help;     /* what it does, by example */
  uint64_t options;
  int min_operands, max_operands;
  status (*run)(const arguments *a);
} command;

extern const command commands[];

status command_run(const arguments *a);
status command_pack(const arguments *a);
status command_unpack(const arguments *a);
status command_ablate(const arguments *a);
status command_check(const arguments *a);
status command_plan(const arguments *a);
status command_predict(const arguments *a);
status command_evaluate(const arguments *a);
status command_compare(const arguments *a);
status command_report(const arguments *a);
status command_ops(const arguments *a);
status command_lua(const arguments *a);
status command_schema(const arguments *a);
status command_phantom(const arguments *a);
status command_data(const arguments *a);
status command_new(const arguments *a);
status command_preview(const arguments *a);
status command_bench(const arguments *a);
status command_weights(const arguments *a);
status command_forward(const arguments *a);

/* What an option takes: the index of the name that was given (0 when none was), of two or three. */
status choose(const char *option, const char *given, const char *const *names, int count, int *out);

/* Progress on this terminal: a live line, or plain lines when stderr is piped. */
reporter console_reporter(bool quiet);
/* A line of results. When nobody reads standard output any more, what is still to be said is not. */
void console_print(const char *text);
/* Ends the live line, if any, so that what follows starts on a line of its own. */
void console_finish(void);

/* What a signal does from here on: it asks a command that stops in order to stop, and ends another. */
void signals_prepare(bool stops_in_order);

#endif
