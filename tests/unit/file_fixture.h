/* One file, `path`, in a folder that a program's tests share. FIXTURE_FILE, defined before this is
 * included, is its name. */
#ifndef STRATA_TESTS_FILE_FIXTURE_H
#define STRATA_TESTS_FILE_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[200], path[256];

static int make_folder(void **unused) {
  (void)unused;
  const char *base = getenv("TMPDIR");
  snprintf(folder, sizeof folder, "%.150s/strata-test-XXXXXX", base ? base : P_tmpdir);
  if (!mkdtemp(folder)) return -1;
  snprintf(path, sizeof path, "%s/" FIXTURE_FILE, folder);
  return 0;
}

static int remove_folder(void **unused) {
  (void)unused;
  unlink(path);
  return rmdir(folder);
}

#endif
