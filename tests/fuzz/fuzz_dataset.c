/* dataset.json, beside the few files that the seeds name. */
#include "fuzz.h"

#include "data/dataset.h"

enum { FILES = 4 };
static char folder[] = "fuzz-dataset-XXXXXX";
static char paths[FILES][64];

static void remove_folder(void) {
  for (int i = 0; i < FILES; i++) unlink(paths[i]);
  rmdir(folder);
}

static void write_file(const char *path, const uint8_t *data, size_t size) {
  FILE *out = fopen(path, "wb");
  if (!out || fwrite(data, 1, size, out) != size || fclose(out) != 0) abort();
}

static void make_folder(void) {
  static const char *const names[FILES] = {"dataset.json", "a.nii.gz", "b.nii", "c.nii"};
  if (!mkdtemp(folder)) abort();
  atexit(remove_folder);
  for (int i = 0; i < FILES; i++) {
    snprintf(paths[i], sizeof paths[i], "%s/%s", folder, names[i]);
    write_file(paths[i], (const uint8_t *)"", 0);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!paths[0][0]) make_folder();
  write_file(paths[0], data, size);
  /* The folder has no imagesTr: cases of nnU-Net's layout are those that "dataset" names. */
  const data_spec specs[] = {
      {.dataset = paths[0], .split = {0.7, 0.1, 0.2}},
      {.dataset = paths[0], .split_kind = SPLIT_LISTED},
      {.layout = DATASET_NNUNET, .dataset = folder, .split = {0.7, 0.1, 0.2}}};
  for (int i = 0; i < 3; i++) {
    dataset *d;
    status error = dataset_open(&specs[i], 17, &d);
    if (!error) {
      int roles = 0;
      for (int r = 0; r < 3; r++) roles += dataset_role_count(d, (role)r);
      FUZZ_REQUIRE(roles == d->case_count && d->class_count >= 2 && d->channels >= 1);
      dataset_free(d);
    }
    fuzz_refused(error);
  }
  return 0;
}
