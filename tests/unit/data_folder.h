/* A folder of its own for every test of a program, and paths inside it. */
#ifndef STRATA_TESTS_DATA_FOLDER_H
#define STRATA_TESTS_DATA_FOLDER_H

#include "data_fixture.h"

static char *folder;

static int begin(void **state) {
  (void)state;
  folder = temporary_folder();
  return 0;
}

static int end(void **state) {
  (void)state;
  remove_folder(folder);
  return 0;
}

static char *inside(const char *name) {
  static char paths[8][512];
  static int next;
  char *path = paths[next++ % 8];
  snprintf(path, 512, "%s/%s", folder, name);
  return path;
}

#endif
