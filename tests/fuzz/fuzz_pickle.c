/* PyTorch's weight files. An input that begins as an archive is read as one; checksums stop most
 * mutations there, so any other input is taken as the pickle of sound archives. */
#include "fuzz.h"

#include "base/zip.h"
#include "tests/unit/zip_fixture.h"
#include "weights/import.h"

/* Storages of the seeds' archives, in bytes. */
static const int storages[][20] = {
    {48, 16, 16, 16, 16, 16, 8, -1},                                              /* ordered */
    {96, 48, 48, 8, -1},                                                          /* views */
    {4, 48, 48, 4, 16, 16, 4, 16, 16, 4, 16, 16, 48, 16, 16, 16, 16, 16, 8, -1}}; /* checkpoint */

static volatile double sum; /* touches every value */

static void read_file(const char *path) {
  weights w;
  const weight_source source = {.path = path};
  status error = weights_import(&source, &w, NULL);
  for (int i = 0; !error && i < w.count; i++) {
    FUZZ_REQUIRE(weights_find(&w, w.list[i].name) == &w.list[i]);
    sum = sum + tensor_norm(&w.list[i].tensor);
  }
  if (!error) weights_close(&w);
  fuzz_refused(error);
}

static void read_pickle(const uint8_t *data, size_t size, const int *bytes) {
  static const char zeros[96];
  zip_writer z = {0};
  zip_add(&z, "a/data.pkl", data, size);
  for (int i = 0; bytes[i] >= 0; i++) {
    char name[32];
    snprintf(name, sizeof name, "a/data/%d", i);
    zip_add(&z, name, zeros, (size_t)bytes[i]);
  }
  zip_end(&z);
  read_file(fuzz_file((const uint8_t *)z.out.data, z.out.length));
  text_free(&z.out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (zip_is_archive(data, size))
    read_file(fuzz_file(data, size));
  else
    for (size_t i = 0; i < sizeof storages / sizeof *storages; i++)
      read_pickle(data, size, storages[i]);
  return 0;
}
