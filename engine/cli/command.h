/* The command line: one table of commands, one function each. */
#ifndef STRATA_CLI_COMMAND_H
#define STRATA_CLI_COMMAND_H

#include "language/pipeline.h"
#include "run/report.h"

enum { MAX_OPERANDS = 4096, MAX_OVERRIDES = 256, MAX_GROUPS = 32 };

/* Options every command may declare; `flags` of a command says which it takes. */
typedef enum option_flag {
  OPTION_SET = 1 << 0,
  OPTION_OUT = 1 << 1,
  OPTION_RESUME = 1 << 2,
  OPTION_THREADS = 1 << 3,
  OPTION_DEVICE = 1 << 4,
  OPTION_STAGE = 1 << 5,
  OPTION_DOT = 1 << 6,
  OPTION_STEPS = 1 << 7,
  OPTION_PROFILE = 1 << 8,
  OPTION_JSON = 1 << 9,
  OPTION_CASES = 1 << 10,
  OPTION_SEED = 1 << 11,
  OPTION_ORGANS = 1 << 12,
  OPTION_SIZE = 1 << 13,
  OPTION_PREDICTION = 1 << 14,
  OPTION_REFERENCE = 1 << 15,
  OPTION_EMPTY = 1 << 16,
  OPTION_HD95 = 1 << 17,
  OPTION_BATCH = 1 << 18,
  OPTION_QUIET = 1 << 19,
  OPTION_CSV = 1 << 20,
  OPTION_METRICS = 1 << 21,
  OPTION_TOLERANCE = 1 << 22,
  OPTION_GROUP = 1 << 23,
  OPTION_KEY = 1 << 24,
  OPTION_MAP = 1 << 25,
  OPTION_WITHIN = 1 << 26
} option_flag;

typedef struct arguments {
  const char *operands[MAX_OPERANDS];
  int operand_count;
  override overrides[MAX_OVERRIDES];
  int override_count;
  const char *out, *device, *stage, *json, *prediction, *reference, *empty, *hd95;
  const char *csv, *metrics, *tolerance, *key, *map;
  double within;               /* 0: not given */
  override groups[MAX_GROUPS]; /* --group NAME=1,2,3 */
  int group_count;
  bool resume, dot, profile, quiet;
  int64_t threads, steps, cases, seed, organs, size, batch; /* −1: not given */
} arguments;

typedef struct command {
  const char *name;
  const char *operands; /* "FILE" */
  const char *summary;  /* one line */
  const char *help;     /* what it does, by example */
  unsigned options;
  int min_operands, max_operands;
  status (*run)(const arguments *a);
} command;

extern const command commands[];

status command_run(const arguments *a);
status command_check(const arguments *a);
status command_plan(const arguments *a);
status command_predict(const arguments *a);
status command_evaluate(const arguments *a);
status command_ops(const arguments *a);
status command_schema(const arguments *a);
status command_phantom(const arguments *a);
status command_data(const arguments *a);
status command_bench(const arguments *a);
status command_weights(const arguments *a);

/* Progress on this terminal: a live line, or plain lines when stderr is piped. */
reporter console_reporter(bool quiet);
/* Ends the live line, if any, so that what follows starts on a line of its own. */
void console_finish(void);

#endif
