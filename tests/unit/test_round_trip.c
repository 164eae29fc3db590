/* From a file through prepare and a network to a segmentation of that file: oblique, flipped and
 * anisotropic grids come back as they were, and a label that lies elsewhere is caught. */
#include "data_fixture.h"

#include "infer/infer.h"

enum { CLASSES = 4, FULL = 100 };

typedef struct grid {
  const char *name;
  int64_t size[3];
  double affine[4][4];
} grid;

/* Columns: the millimetres of one voxel step along x, y, z. */
static const grid grids[] = {
    {"straight", {24, 22, 20}, {{1.5, 0, 0, -10}, {0, 1.5, 0, 4}, {0, 0, 2, 30}, {0, 0, 0, 1}}},
    {"flipped", {24, 22, 20}, {{-1.5, 0, 0, 90}, {0, -1.5, 0, 4}, {0, 0, -2, 30}, {0, 0, 0, 1}}},
    {"axes in another order",
     {20, 30, 17},
     {{0, 1.2, 0, -20}, {0, 0, -2.5, 4}, {-1.5, 0, 0, 30}, {0, 0, 0, 1}}},
    {"anisotropic", {33, 31, 9}, {{-0.8, 0, 0, 11}, {0, -0.8, 0, 8}, {0, 0, 5, -70}, {0, 0, 0, 1}}},
    {"oblique",
     {26, 24, 18},
     {{1.36, 0.2, -0.4, -10}, {-0.17, 1.42, 0.38, 4}, {0.32, -0.35, 2.1, 30}, {0, 0, 0, 1}}},
    {"oblique, flipped, anisotropic, in another order",
     {12, 28, 30},
     {{-0.9, 0.25, -1.1, 50}, {0.6, -1.05, -0.3, 4}, {4.4, 0.2, 0.25, -30}, {0, 0, 0, 1}}},
};

/* Balls of classes 1 to 3, each with a place of its own, so that no flip or exchange of axes maps them
 * onto each other. */
static uint8_t class_at(const grid *g, const int64_t at[3]) {
  static const double centre[CLASSES][3] = {
      {0}, {0.35, 0.4, 0.6}, {0.7, 0.55, 0.4}, {0.45, 0.72, 0.25}};
  static const double radius_mm[CLASSES] = {0, 8, 7, 5};
  for (int c = 1; c < CLASSES; c++) {
    double square = 0;
    for (int r = 0; r < 3; r++) {
      double mm = 0;
      for (int a = 0; a < 3; a++)
        mm += g->affine[r][a] * ((double)at[a] - centre[c][a] * (double)(g->size[a] - 1));
      square += mm * mm;
    }
    if (square < radius_mm[c] * radius_mm[c]) return (uint8_t)c;
  }
  return 0;
}

/* A label file, and an image file with a channel for each class but background: FULL where it is. */
static void write_case(const grid *g, const char *image_path, const char *label_path) {
  volume image = {0};
  labels label = {0};
  expect_ok(volume_allocate(&image, g->size, CLASSES - 1));
  expect_ok(labels_allocate(&label, g->size));
  memcpy(image.affine, g->affine, sizeof image.affine);
  memcpy(label.affine, g->affine, sizeof label.affine);
  int64_t at[3], v = 0;
  for (at[0] = 0; at[0] < g->size[0]; at[0]++)
    for (at[1] = 0; at[1] < g->size[1]; at[1]++)
      for (at[2] = 0; at[2] < g->size[2]; at[2]++, v++) {
        label.data[v] = class_at(g, at);
        for (int c = 1; c < CLASSES; c++)
          image.data[v * (CLASSES - 1) + c - 1] = label.data[v] == c ? FULL : 0;
      }
  expect_ok(nifti_write_volume(image_path, &image));
  expect_ok(nifti_write_labels(label_path, &label, NULL));
  volume_free(&image);
  labels_free(&label);
}

enum {
  WINDOW_X = 12,
  WINDOW_Y = 11,
  WINDOW_Z = 10,
  WINDOW_VOXELS = WINDOW_X * WINDOW_Y * WINDOW_Z
};

typedef struct identity_network {
  float image[WINDOW_VOXELS * (CLASSES - 1)], logits[WINDOW_VOXELS * CLASSES];
} identity_network;

/* Says of every voxel what its channels say. */
static status run_identity(void *context, scores_fn take, void *taker) {
  identity_network *n = context;
  const float *image = n->image;
  float *logits = n->logits;
  for (int64_t v = 0; v < WINDOW_VOXELS; v++) {
    *logits++ = 0;
    for (int c = 1; c < CLASSES; c++) *logits++ = (*image++ - FULL / 2.0f) / (FULL / 4.0f);
  }
  return take(taker, 0, 0, WINDOW_X, n->logits);
}

/* Share of the voxels of any class that are not the same. */
static double difference(const labels *a, const labels *b) {
  assert_memory_equal(a->size, b->size, sizeof a->size);
  int64_t n = a->size[0] * a->size[1] * a->size[2], different = 0, foreground = 0;
  for (int64_t v = 0; v < n; v++) {
    foreground += b->data[v] > 0;
    different += a->data[v] != b->data[v];
  }
  assert_true(foreground > 100);
  return (double)different / (double)foreground;
}

/* The segmentation of a file after `spec`'s operators, read back from the file it is written to. */
static void segment(const data_spec *spec, const char *image_path, const char *label_path,
                    labels *out) {
  case_entry entry = {.name = "case", .image = image_path, .label = label_path};
  medical_case c;
  volume target = {0};
  labels made;
  label_export e;
  static identity_network network;
  inferer f = {.windows = {.size = {WINDOW_X, WINDOW_Y, WINDOW_Z},
                           .overlap = 0.5,
                           .blend = BLEND_GAUSSIAN,
                           .sigma_scale = 0.125,
                           .batch = 1},
               .classes = CLASSES,
               .image = network.image,
               .run = run_identity,
               .context = &network};
  expect_ok(case_prepare(spec, &entry, NULL, &c));
  expect_ok(nifti_read_grid(image_path, &target));
  expect_ok(export_open(&c.image, CLASSES, target.size, (const double(*)[4])target.affine, NULL,
                        &made, &e));
  score_reader reader = export_reader(&e);
  expect_ok(sliding_window(&f, &c.image, &reader));
  expect_ok(nifti_write_labels("segmented.nii.gz", &made, image_path));
  labels_free(&made);
  case_free(&c);
  expect_ok(nifti_read_labels("segmented.nii.gz", out));
  assert_memory_equal(out->size, target.size, sizeof out->size);
  double voxels[3];
  affine_difference((const double(*)[4])out->affine, (const double(*)[4])target.affine, out->size,
                    voxels);
  for (int a = 0; a < 3; a++) assert_true(voxels[a] < 1e-4);
}

static void every_grid_comes_back(void **state) {
  (void)state;
  arena memory = {0};
  char *folder = temporary_folder(), *here = getcwd(NULL, 0);
  assert_int_equal(chdir(folder), 0);
  op_use turned[] = {USE(&memory, "orient", "axes", "RAS"),
                     USE(&memory, "crop_foreground", "above", "50", "margin", "2"),
                     USE(&memory, "pad", "size", "[16, 16, 16]")};
  op_use resampled[] = {USE(&memory, "orient", "axes", "LPS"),
                        USE(&memory, "resample", "spacing", "[1.0, 1.0, 1.2]"),
                        USE(&memory, "crop_foreground", "above", "50", "margin", "3")};
  op_use edges[] = {
      USE(&memory, "orient", "axes", "RAS"),
      USE(&memory, "resample", "spacing", "[0.9, 0.9, 1.1]", "grid", "extent", "image", "cubic")};
  const struct {
    op_use *list;
    int count;
    double most; /* share of the foreground that may differ */
  } chains[] = {{turned, 3, 0}, {resampled, 3, 0.06}, {edges, 2, 0.06}};
  for (size_t g = 0; g < sizeof grids / sizeof grids[0]; g++) {
    write_case(&grids[g], "image.nii.gz", "label.nii.gz");
    labels want = {0};
    expect_ok(nifti_read_labels("label.nii.gz", &want));
    for (size_t k = 0; k < sizeof chains / sizeof chains[0]; k++) {
      data_spec spec = {.prepare = chains[k].list, .prepare_count = chains[k].count};
      labels got = {0};
      segment(&spec, "image.nii.gz", "label.nii.gz", &got);
      double share = difference(&got, &want);
      if (share > chains[k].most)
        fail_msg("%s, chain %zu: %.1f %% of the foreground differs", grids[g].name, k, 100 * share);
      labels_free(&got);
    }
    labels_free(&want);
  }
  assert_int_equal(chdir(here), 0);
  free(here);
  remove_folder(folder);
  arena_free(&memory);
}

/* Same size, same voxels, another place: flipped, shifted by a voxel, turned by a few degrees. */
static void a_label_that_lies_elsewhere_is_caught(void **state) {
  (void)state;
  char *folder = temporary_folder(), *here = getcwd(NULL, 0);
  assert_int_equal(chdir(folder), 0);
  static const double wrong[][4][4] = {
      {{-1.5, 0, 0, 24.5}, {0, 1.5, 0, 4}, {0, 0, 2, 30}, {0, 0, 0, 1}},
      {{1.5, 0, 0, -10}, {0, 1.5, 0, 5.5}, {0, 0, 2, 30}, {0, 0, 0, 1}},
      {{1.5, 0.08, 0, -10}, {-0.08, 1.5, 0, 4}, {0, 0, 2, 30}, {0, 0, 0, 1}},
      {{1.5, 0, 0, -10}, {0, 1.5, 0, 4}, {0, 0, 2.1, 30}, {0, 0, 0, 1}},
  };
  for (size_t k = 0; k < sizeof wrong / sizeof wrong[0]; k++) {
    grid moved = grids[0];
    memcpy(moved.affine, wrong[k], sizeof moved.affine);
    write_case(&moved, "unused.nii.gz", "label.nii.gz");
    write_case(&grids[0], "image.nii.gz", "straight.nii.gz");
    case_entry entry = {.name = "case", .image = "image.nii.gz", .label = "label.nii.gz"};
    data_spec spec = {0};
    medical_case c;
    expect_error(case_prepare(&spec, &entry, NULL, &c), "label.nii.gz");
    entry.label = "straight.nii.gz";
    expect_ok(case_prepare(&spec, &entry, NULL, &c));
    case_free(&c);
  }
  assert_int_equal(chdir(here), 0);
  free(here);
  remove_folder(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_grid_comes_back),
      cmocka_unit_test(a_label_that_lies_elsewhere_is_caught),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
