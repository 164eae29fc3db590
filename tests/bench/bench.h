/* What the benchmark programs share. */
#ifndef STRATA_TESTS_BENCH_H
#define STRATA_TESTS_BENCH_H

#include "base/status.h"

/* main of a program that takes the arguments of `usage`, `count` with its own name: runs it and
 * prints what went wrong. Returns the exit status. */
static inline int bench_main(int argc, char **argv, int count, const char *usage,
                             status (*measure)(char **)) {
  if (argc != count) {
    fprintf(stderr, "%s\n", usage);
    return 2;
  }
  status error = measure(argv);
  if (!error) return 0;
  error_print(stderr, error);
  error_free(error);
  return 1;
}

#endif
