/* A large array that is kept in memory up to a budget, and beyond it in a temporary file. */
#ifndef STRATA_BASE_SPILL_H
#define STRATA_BASE_SPILL_H

#include "base/status.h"

#include <stdbool.h>

/* A page that is read brings its neighbours along, as Linux maps up to 64 KiB around a fault. */
enum { SPILL_AROUND_A_FAULT = 1 << 16 };

typedef struct spill {
  void *data; /* zeroed at the start */
  size_t bytes;
  bool in_file;
  size_t budget, touched; /* bytes that may be, and that may by now be, in memory */
} spill;

/* More than `budget` bytes go to a file in $TMPDIR, else in /var/tmp, that is mapped and has no name
 * any more: nothing is left of it, whatever happens. Its room on the disk is taken at once, so a full
 * disk is an error here and not a signal later. */
status spill_open(size_t bytes, size_t budget, spill *out);
/* To be called before `rows` runs of `row_bytes` each are read or written. When what was touched
 * since may exceed the budget, all of it leaves memory; its content stays. Not while other threads
 * use the array. */
void spill_touch(spill *s, size_t rows, size_t row_bytes);
void spill_close(spill *s);

#endif
