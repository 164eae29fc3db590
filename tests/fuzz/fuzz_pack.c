/* Packs and locks. An input that begins as an archive is read as a pack; checksums stop most mutations
 * there, so any other input is taken as the pipeline, which may be a lock, of a sound one. */
#include "fuzz.h"

#include "language/pipeline.h"
#include "run/lock.h"
#include "tests/unit/zip_fixture.h"

static void read_pack(const uint8_t *data, size_t size) {
  pipeline *p;
  status error = pipeline_load_for_prediction(fuzz_file(data, size), NULL, 0, &p);
  if (!error) {
    lock l;
    if (p->lock) {
      fuzz_refused(lock_read(p->lock, p->locked, &l));
      lock_free(&l);
    }
    for (int i = 0; i < p->sources.count; i++)
      FUZZ_REQUIRE(strlen(p->sources.files[i].text) == p->sources.files[i].length);
    pipeline_free(p);
  }
  fuzz_refused(error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char manifest[] = "strata: 1\npipeline: pipeline.lock.yaml\n";
  if (archive_is(fuzz_file(data, size))) {
    read_pack(data, size);
    return 0;
  }
  zip_writer z = {0};
  zip_add(&z, "pack.yaml", manifest, strlen(manifest));
  zip_add(&z, "pipeline.lock.yaml", data, size);
  zip_end(&z);
  read_pack((const uint8_t *)z.out.data, z.out.length);
  text_free(&z.out);
  return 0;
}
