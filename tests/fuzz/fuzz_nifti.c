/* NIfTI-1/2 volumes and label maps, plain and compressed. A checksum stops most mutations of what is
 * compressed, so a plain input is read once more out of a sound gzip stream. */
#include "fuzz.h"

#include "data/volume.h"

#include <libdeflate.h>
#include <math.h>

typedef struct content {
  volume image;
  labels label;
} content;

static int64_t voxels_of(const int64_t size[3]) {
  return size[0] * size[1] * size[2];
}

/* What the bytes hold; no data where they were refused. */
static content read_file(const char *name, const uint8_t *data, size_t size) {
  content c = {0};
  status error = nifti_parse_volume(name, data, size, &c.image);
  if (!error) {
    FUZZ_REQUIRE(affine_is_valid((const double(*)[4])c.image.affine));
    int64_t values = voxels_of(c.image.size) * c.image.channels;
    for (int64_t i = 0; i < values; i++) FUZZ_REQUIRE(isfinite(c.image.data[i]));
  }
  fuzz_refused(error);
  error = nifti_parse_labels(name, data, size, &c.label);
  for (int64_t i = 0; !error && i < voxels_of(c.label.size); i++)
    FUZZ_REQUIRE(c.label.data[i] >= 0 && c.label.data[i] <= 255);
  fuzz_refused(error);
  double voxels[3];
  if (nifti_forms_differ(name, data, size, voxels))
    FUZZ_REQUIRE(voxels[0] > 0 || voxels[1] > 0 || voxels[2] > 0);
  return c;
}

static void free_content(content *c) {
  volume_free(&c->image);
  labels_free(&c->label);
}

/* `members` gzip streams, one after the other. */
static uint8_t *zip(const uint8_t *data, size_t size, size_t members, size_t *length) {
  struct libdeflate_compressor *c = libdeflate_alloc_compressor(1);
  if (!c) abort();
  size_t room = members * libdeflate_gzip_compress_bound(c, size);
  uint8_t *out = malloc(room);
  if (!out) abort();
  *length = 0;
  for (size_t m = 0; m < members; m++) {
    size_t from = size * m / members, to = size * (m + 1) / members;
    *length += libdeflate_gzip_compress(c, data + from, to - from, out + *length, room - *length);
  }
  libdeflate_free_compressor(c);
  return out;
}

static void require_same(const content *a, const content *b) {
  FUZZ_REQUIRE(!a->image.data == !b->image.data && !a->label.data == !b->label.data);
  FUZZ_REQUIRE(memcmp(a->image.size, b->image.size, sizeof a->image.size) == 0);
  if (a->image.data)
    FUZZ_REQUIRE(memcmp(a->image.data, b->image.data,
                        (size_t)(voxels_of(a->image.size) * a->image.channels) * sizeof(float)) ==
                 0);
  if (a->label.data)
    FUZZ_REQUIRE(memcmp(a->label.data, b->label.data, (size_t)voxels_of(a->label.size)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bool zipped = size >= 2 && data[0] == 0x1f && data[1] == 0x8b;
  content plain = read_file(zipped ? "input.nii.gz" : "input.nii", data, size);
  for (size_t members = 1; members <= 2 && !zipped; members++) {
    size_t length;
    uint8_t *bytes = zip(data, size, members, &length);
    content unzipped = read_file("input.nii.gz", bytes, length);
    require_same(&plain, &unzipped);
    free_content(&unzipped);
    free(bytes);
  }
  free_content(&plain);
  return 0;
}
