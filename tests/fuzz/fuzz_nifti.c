/* NIfTI-1/2 volumes and label maps, plain and compressed. */
#include "fuzz.h"

#include "data/volume.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bool zipped = size >= 2 && data[0] == 0x1f && data[1] == 0x8b;
  const char *name = zipped ? "input.nii.gz" : "input.nii";
  volume image = {0};
  labels label = {0};
  status error = nifti_parse_volume(name, data, size, &image);
  if (!error) {
    FUZZ_REQUIRE(affine_is_valid((const double(*)[4])image.affine));
    int64_t values = image.size[0] * image.size[1] * image.size[2] * image.channels;
    for (int64_t i = 0; i < values; i++) FUZZ_REQUIRE(isfinite(image.data[i]));
  }
  fuzz_refused(error);
  error = nifti_parse_labels(name, data, size, &label);
  for (int64_t i = 0; !error && i < label.size[0] * label.size[1] * label.size[2]; i++)
    FUZZ_REQUIRE(label.data[i] >= 0 && label.data[i] <= 255);
  fuzz_refused(error);
  volume_free(&image);
  labels_free(&label);
  return 0;
}
