/* How the engine speaks to whoever runs it: it never prints by itself. The command line shows these
 * as a live line or plain lines; tests count them. */
#ifndef STRATA_RUN_REPORT_H
#define STRATA_RUN_REPORT_H

#include <stdbool.h>
#include <stdint.h>

typedef struct progress {
  const char *stage;        /* "pretrain", "evaluate" */
  const char *unit;         /* what `done` counts: "step", "case" */
  int64_t epoch, epochs;    /* from 1; 0 = no epochs here */
  int64_t done, total;      /* within the epoch */
  double overall;           /* share of the whole stage done, 0…1 */
  double elapsed_s, eta_s;  /* of the stage; eta < 0: not known yet */
  double voxels_per_s;      /* 0 = not applicable */
  bool is_elsewhere;        /* other processes work: the memory of this one means nothing */
  const char *const *names; /* latest values: loss terms, Dice, learning rate */
  const double *values;
  int value_count;
} progress;

typedef struct reporter {
  void (*line)(void *context, const char *text);    /* one finished line */
  void (*update)(void *context, const progress *p); /* many times a second */
  void *context;
} reporter;

/* Work on cases, one after the other. */
typedef struct case_progress {
  const reporter *report; /* may be NULL */
  const char *stage;
  int done, count;  /* cases */
  double started_s; /* clock_now_s */
} case_progress;

/* `begun`: the share of the next case that is done, 0 … 1. What is left takes as long as what is done. */
void report_cases(const case_progress *c, double begun);
void report_line(const reporter *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
