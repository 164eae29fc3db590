/* plans.json of a trained model of nnU-Net, and its dataset.json: the same bytes, in which each finds its
 * keys. */
#include "fuzz.h"

#include "configure/plans.h"

#include <sys/stat.h>

static char folder[] = "fuzz-plans-XXXXXX";

static void path_of(const char *name, char out[96]) {
  snprintf(out, 96, "%s/%s", folder, name);
}

static void write_file(const char *name, const uint8_t *data, size_t size) {
  char path[96];
  path_of(name, path);
  FILE *out = fopen(path, "wb");
  if (!out || fwrite(data, 1, size, out) != size || fclose(out) != 0) abort();
}

static void remove_folder(void) {
  static const char *const names[] = {"plans.json", "dataset.json", "fold_0/checkpoint_final.pth"};
  char path[96];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    path_of(names[i], path);
    unlink(path);
  }
  path_of("fold_0", path);
  rmdir(path);
  rmdir(folder);
}

static void make_folder(void) {
  char path[96];
  if (!mkdtemp(folder)) abort();
  atexit(remove_folder);
  path_of("fold_0", path);
  if (mkdir(path, 0700) != 0) abort();
  write_file("fold_0/checkpoint_final.pth", (const uint8_t *)"", 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static bool is_made;
  if (!is_made) make_folder();
  is_made = true;
  write_file("plans.json", data, size);
  write_file("dataset.json", data, size);
  arena memory = {0};
  plans p;
  status error = plans_read(folder, &memory, &p);
  if (!error) {
    FUZZ_REQUIRE(p.channels >= 1 && p.channels <= PLANNED_CHANNELS_MAX);
    FUZZ_REQUIRE(p.c.levels >= 2 && p.c.levels <= CONFIGURED_LEVELS_MAX);
    for (int a = 0; a < 3; a++) FUZZ_REQUIRE(p.c.spacing_mm[a] > 0 && p.c.crop[a] > 0);
    for (int l = 0; l < p.c.levels; l++) FUZZ_REQUIRE(p.features[l] > 0 && p.convolutions[l] > 0);
    FUZZ_REQUIRE(p.output_count <= LABEL_CLASSES && p.interpolation && p.fold && p.checkpoint);
  }
  fuzz_refused(error);
  arena_free(&memory);
  return 0;
}
