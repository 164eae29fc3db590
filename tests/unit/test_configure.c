/* Spacing, crops, levels and slabs by the rules of configure.h, against plans that nnU-Net is known to make;
 * and what is written of them. */
#include "configure/write.h"
#include "data_fixture.h"

/* ---- the rules, by themselves ---- */

/* "331 333": a level after the other, of which x, y and z. */
static void expect_levels(const char *name, const char *what, const int64_t (*list)[3], int levels,
                          const char *expected) {
  text_buffer found = {0};
  for (int l = 0; l < levels; l++)
    text_add(&found, "%s%d%d%d", l ? " " : "", (int)list[l][0], (int)list[l][1], (int)list[l][2]);
  if (strcmp(found.data, expected) != 0)
    fail_msg("%s: %s are %s, expected %s", name, what, found.data, expected);
  text_free(&found);
}

static void expect_size(const char *name, const int64_t found[3], const int64_t expected[3]) {
  if (memcmp(found, expected, 3 * sizeof *found) != 0)
    fail_msg("%s: %lld × %lld × %lld, expected %lld × %lld × %lld", name, (long long)found[0],
             (long long)found[1], (long long)found[2], (long long)expected[0],
             (long long)expected[1], (long long)expected[2]);
}

static void levels_follow_from_crop_and_spacing(void **state) {
  (void)state;
  static const struct {
    const char *name;
    double mm[3];
    int64_t crop[3], enlarged[3];
    const char *strides, *kernels;
  } cases[] = {
      {"Task04_Hippocampus",
       {1, 1, 1},
       {36, 50, 35},
       {40, 56, 40},
       "111 222 222 222",
       "333 333 333 333"},
      {"BTCV, kernels of one slice at first",
       {0.76, 0.76, 3},
       {192, 192, 48},
       {192, 192, 48},
       "111 221 222 222 222 221",
       "331 333 333 333 333 333"},
      {"few voxels", {1, 1, 1}, {7, 5, 6}, {7, 5, 6}, "111", "333"},
      {"an axis alone", {1, 1, 1}, {12, 5, 5}, {12, 5, 5}, "111 211", "333 333"},
      {"an axis alone, too short", {1, 1, 1}, {11, 5, 5}, {11, 5, 5}, "111", "333"},
      {"halves of an odd side are rounded up",
       {1, 1, 1},
       {15, 15, 15},
       {16, 16, 16},
       "111 222 222",
       "333 333 333"},
      {"voxels that others outgrow keep their kernels",
       {1, 1, 1},
       {64, 64, 6},
       {64, 64, 6},
       "111 221 221 221 221",
       "333 333 333 333 333"},
      {"the last level's kernels",
       {1, 1, 8},
       {16, 16, 4},
       {16, 16, 4},
       "111 221 221",
       "331 331 333"},
      {"eight levels at most",
       {1, 1, 1},
       {2048, 2048, 2048},
       {2048, 2048, 2048},
       "111 222 222 222 222 222 222 222",
       "333 333 333 333 333 333 333 333"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *name = cases[i].name;
    configuration c = {0};
    memcpy(c.spacing_mm, cases[i].mm, sizeof c.spacing_mm);
    memcpy(c.crop, cases[i].crop, sizeof c.crop);
    configure_levels(&c);
    expect_levels(name, "strides", (const int64_t(*)[3])c.strides, c.levels, cases[i].strides);
    expect_levels(name, "kernels", (const int64_t(*)[3])c.kernels, c.levels, cases[i].kernels);
    expect_size(name, c.crop, cases[i].enlarged);
  }
}

static void the_first_crop_is_a_cube_in_mm(void **state) {
  (void)state;
  static const struct {
    const char *name;
    double mm[3];
    int64_t median[3], crop[3];
  } cases[] = {
      {"256³ voxels", {1, 1, 1}, {400, 500, 600}, {256, 256, 256}},
      {"as many of them", {0.8, 0.8, 3.2}, {600, 600, 600}, {406, 406, 102}},
      {"not beyond the median case", {0.8, 0.8, 3.2}, {300, 600, 50}, {300, 406, 50}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    configuration c = {0};
    memcpy(c.spacing_mm, cases[i].mm, sizeof c.spacing_mm);
    memcpy(c.median_size, cases[i].median, sizeof c.median_size);
    configure_first_crop(&c);
    expect_size(cases[i].name, c.crop, cases[i].crop);
  }
}

static configuration with_crop(const int64_t median[3], const int64_t crop[3]) {
  configuration c = {.spacing_mm = {1, 1, 1}};
  memcpy(c.median_size, median, sizeof c.median_size);
  memcpy(c.crop, crop, sizeof c.crop);
  configure_levels(&c);
  return c;
}

static void a_crop_shrinks_where_it_has_most_of_the_case(void **state) {
  (void)state;
  static const struct {
    const char *name;
    int64_t median[3], crop[3], smaller[3];
  } cases[] = {
      {"x", {50, 100, 100}, {48, 48, 48}, {40, 48, 48}},
      {"y", {100, 60, 100}, {48, 48, 48}, {48, 40, 48}},
      {"z", {100, 100, 50}, {48, 48, 48}, {48, 48, 40}},
      {"equal shares", {48, 48, 48}, {48, 48, 48}, {40, 48, 48}},
      {"z cannot", {100, 100, 4}, {48, 56, 4}, {48, 48, 4}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    configuration c = with_crop(cases[i].median, cases[i].crop);
    if (!configure_shrink(&c)) fail_msg("%s: it does not", cases[i].name);
    expect_size(cases[i].name, c.crop, cases[i].smaller);
  }
  configuration least = with_crop((const int64_t[3]){9, 9, 9}, (const int64_t[3]){4, 4, 4});
  assert_false(configure_shrink(&least));
}

static void a_crop_grows_as_long_as_its_levels_stay(void **state) {
  (void)state;
  static const int64_t median[3] = {100, 44, 200};
  configuration c = with_crop(median, (const int64_t[3]){40, 40, 40});
  assert_int_equal(c.levels, 4);
  assert_true(configure_enlarge(&c, 0));
  expect_size("by what the levels divide", c.crop, (const int64_t[3]){48, 40, 40});
  assert_true(configure_enlarge(&c, 1));
  expect_size("to what the median needs", c.crop, (const int64_t[3]){48, 48, 40});
  assert_false(configure_enlarge(&c, 1));
  expect_size("not beyond it", c.crop, (const int64_t[3]){48, 48, 40});
  c = with_crop(median, (const int64_t[3]){56, 40, 56});
  assert_true(configure_enlarge(&c, 0));
  assert_false(configure_enlarge(&c, 2)); /* 64 × 40 × 64 has a fifth level */
  expect_size("with other levels", c.crop, (const int64_t[3]){64, 40, 56});
  assert_int_equal(c.levels, 4);
}

static void slabs_and_patches_fit_the_crop(void **state) {
  (void)state;
  static const struct {
    const char *name;
    double mm[3];
    int64_t crop[3];
    int axis, slabs, tapped;
    int64_t patch[3];
  } cases[] = {
      /* Slabs: of the places of the lowest level that tells the order. */
      {"Task04_Hippocampus", {1, 1, 1}, {40, 56, 40}, 1, 7, 3, {8, 8, 8}},
      {"BTCV: of six levels three tell", {0.76, 0.76, 3}, {192, 192, 48}, 1, 4, 3, {16, 16, 8}},
      {"a patch is a fourth of the crop at most", {1, 1, 1}, {48, 64, 16}, 1, 4, 3, {8, 16, 4}},
      {"no level, no order", {1, 1, 1}, {7, 5, 6}, 0, 0, 0, {1, 1, 1}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    configuration c = {0};
    memcpy(c.spacing_mm, cases[i].mm, sizeof c.spacing_mm);
    memcpy(c.crop, cases[i].crop, sizeof c.crop);
    configure_levels(&c);
    configure_pretext(&c);
    if (c.slab_axis != cases[i].axis || c.slabs != cases[i].slabs || c.tapped != cases[i].tapped)
      fail_msg("%s: %d slabs along %c, %d levels tell", cases[i].name, c.slabs, "xyz"[c.slab_axis],
               c.tapped);
    expect_size(cases[i].name, c.patch, cases[i].patch);
  }
}

/* Task04_Hippocampus: 260 cases, nine crops a step; fewer where the memory has no room for them. */
static void a_batch_holds_a_twentieth_of_the_voxels(void **state) {
  (void)state;
  configuration c = {.median_size = {36, 50, 35},
                     .crop = {40, 56, 40},
                     .parameters = 1 << 20,
                     .step_bytes = (size_t)216 << 20}; /* 16 MiB of them for weights and moments */
  configure_options o = {.memory_bytes = (int64_t)8 << 30, .batch = 2};
  configure_batch(&o, 260, &c);
  assert_int_equal(c.planned_batch, 9);
  o.memory_bytes = (int64_t)420 << 20;
  configure_batch(&o, 260, &c);
  assert_int_equal(c.planned_batch, 4);
  configure_batch(&o, 20, &c);
  assert_int_equal(c.planned_batch, 2);
}

static void slices_three_times_as_thick_take_the_finest_tenth(void **state) {
  (void)state;
  double spacings[11][3], sizes[11][3];
  for (int i = 0; i < 11; i++)
    for (int a = 0; a < 3; a++) {
      spacings[i][a] = a < 2 ? 0.8 : 2 + 0.5 * i; /* z: 2 … 7, the tenth percentile 2.5 */
      sizes[i][a] = a < 2 ? 512 : 60;
    }
  configuration c = {0};
  configure_spacing(spacings[0], sizes[0], 11, &c);
  assert_true(c.is_coarse && c.coarse_axis == 2);
  assert_true(c.spacing_mm[0] == 0.8 && c.spacing_mm[1] == 0.8 && c.spacing_mm[2] == 2.5);
  spacings[0][2] = spacings[1][2] = 0.5; /* but no finer than the others */
  configure_spacing(spacings[0], sizes[0], 11, &c);
  assert_true(c.is_coarse && c.spacing_mm[2] == 0.8);
  for (int i = 0; i < 11; i++) sizes[i][2] = 200; /* slices enough: the median stands */
  configure_spacing(spacings[0], sizes[0], 11, &c);
  assert_false(c.is_coarse);
  assert_true(c.spacing_mm[2] == 4.5);
}

/* ---- a data set's look, and what follows from it ---- */

enum { CASES = 12, CHANNELS = 6, CLASSES = 4 };

/* A data set of 12 labelled cases of 64 × 56 × 48 voxels of 1 mm, two classes and one channel, whose
 * intensities begin with 1. */
typedef struct fake {
  case_entry entries[CASES];
  case_look cases[CASES];
  channel_values channels[CHANNELS];
  int64_t class_voxels[CLASSES];
  const char *class_names[CLASSES];
  dataset data;
  dataset_look look;
  data_spec spec;
  configure_options options;
} fake;

static fake *make_fake(void) {
  fake *f = calloc(1, sizeof *f);
  assert_non_null(f);
  static const char *const names[CLASSES] = {"background", "one", "two", "three"};
  memcpy(f->class_names, names, sizeof names);
  f->data = (dataset){.name = "fake",
                      .cases = f->entries,
                      .case_count = CASES,
                      .class_names = f->class_names,
                      .class_count = CLASSES,
                      .channels = 1};
  f->look = (dataset_look){
      .data = &f->data, .cases = f->cases, .channels = f->channels, .channel_count = 1};
  /* Any folder that is there: no file of it is read. */
  f->spec = (data_spec){.dataset = TEST_DATA, .layout = DATASET_NNUNET};
  f->options = (configure_options){
      .data = &f->spec, .path = "fake.yaml", .memory_bytes = (int64_t)256 << 20, .batch = 2};
  for (int i = 0; i < CASES; i++)
    f->cases[i] = (case_look){.entry = &f->entries[i],
                              .is_good = true,
                              .size = {64, 56, 48},
                              .box_size = {64, 56, 48},
                              .channels = 1,
                              .ras_axis = {0, 1, 2},
                              .spacing_ras_mm = {1, 1, 1},
                              .min = 1,
                              .max = 100,
                              .class_voxels = f->class_voxels};
  for (int c = 0; c < CHANNELS; c++)
    f->channels[c] = (channel_values){.count = 100,
                                      .mean = 50,
                                      .deviation = 20,
                                      .min = 1,
                                      .max = 100,
                                      .percentile_0_5 = 10 + c,
                                      .percentile_99_5 = 90 + c};
  return f;
}

static status configure_fake(fake *f, configuration *c) {
  device *d;
  text_buffer yaml = {0};
  expect_ok(device_open("cpu", 1, &d, NULL));
  status error = configure(&f->options, &f->look, d, c, &yaml);
  device_close(d);
  text_free(&yaml);
  return error;
}

static void what_surrounds_the_body_is_cropped(void **state) {
  (void)state;
  static const struct {
    const char *name;
    double min;
    int64_t box[3];
    int alike; /* cases; the others are all body */
    bool is_empty;
    int64_t median[3];
  } cases[] = {
      {"a box of 70 %", 0, {45, 56, 48}, CASES, true, {45, 56, 48}},
      {"a box of 77 %", 0, {49, 56, 48}, CASES, false, {64, 56, 48}},
      {"in half of the cases", 0, {40, 40, 40}, CASES / 2, false, {64, 56, 48}},
      {"in more than half", 0, {40, 40, 40}, CASES / 2 + 1, true, {40, 40, 40}},
      {"values below 0", -1, {40, 40, 40}, CASES, false, {64, 56, 48}},
      {"nothing but 0", 0, {0, 0, 0}, CASES, false, {64, 56, 48}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    fake *f = make_fake();
    configuration c;
    for (int k = 0; k < cases[i].alike; k++) {
      f->cases[k].min = cases[i].min;
      memcpy(f->cases[k].box_size, cases[i].box, sizeof cases[i].box);
    }
    expect_ok(configure_fake(f, &c));
    if (c.has_empty_surround != cases[i].is_empty)
      fail_msg("%s: %s", cases[i].name, c.has_empty_surround ? "cropped" : "not cropped");
    expect_size(cases[i].name, c.median_size, cases[i].median);
    free(f);
  }
}

/* Of voxels of another size than that of most cases there are others; axes of the file are those of RAS. */
static void the_median_case_has_the_common_spacing(void **state) {
  (void)state;
  fake *f = make_fake();
  configuration c;
  for (int i = 0; i < CASES; i++) {
    f->cases[i].ras_axis[0] = 2;
    f->cases[i].ras_axis[2] = 0;
    f->cases[i].spacing_ras_mm[1] = i < 5 ? 2 : 1;
    f->cases[i].min = -1; /* nothing is cropped */
  }
  for (int i = 0; i < 5; i++) f->cases[i].size[1] = 40; /* 80 voxels of 1 mm */
  expect_ok(configure_fake(f, &c));
  expect_size("x and z exchanged", c.median_size, (const int64_t[3]){48, 56, 64});
  for (int i = 5; i < 7; i++) f->cases[i].size[1] = 80;
  expect_ok(configure_fake(f, &c));
  expect_size("most are long", c.median_size, (const int64_t[3]){48, 80, 64});
  free(f);
}

static void what_cannot_be_configured_is_an_error(void **state) {
  (void)state;
  fake *f = make_fake();
  configuration c;
  for (int i = 3; i < CASES; i++) f->cases[i].class_voxels = NULL;
  expect_ok(configure_fake(f, &c));
  assert_int_equal(c.labelled, 3);
  f->cases[2].class_voxels = NULL;
  expect_error(configure_fake(f, &c), "2 cases have a label: a pipeline trains on some");
  f->cases[1].class_voxels = NULL;
  expect_error(configure_fake(f, &c), "1 case has a label");
  f->cases[0].class_voxels = NULL;
  expect_ok(configure_fake(f, &c)); /* initial weights only */
  for (int i = 0; i < CASES; i++)
    for (int a = 0; a < 3; a++) f->cases[i].size[a] = 7;
  expect_error(configure_fake(f, &c), "7 × 7 × 7 voxels, too few for a network of 2 resolutions");
  for (int i = 0; i < CASES; i++) f->cases[i].is_good = false;
  expect_error(configure_fake(f, &c), "there is no case that can be read");
  free(f);
}

static void what_a_lost_level_leaves_free_is_used(void **state) {
  (void)state;
  fake *f = make_fake();
  configuration c;
  for (int i = 0; i < CASES; i++) {
    memcpy(f->cases[i].size, (const int64_t[3]){200, 200, 60}, sizeof f->cases[i].size);
    f->cases[i].min = -1000;
    memcpy(f->cases[i].spacing_ras_mm, (const double[3]){0.8, 0.8, 3}, 3 * sizeof(double));
  }
  f->options.memory_bytes = (int64_t)100 << 20; /* the last crop of four levels takes more, and the
                                                   first of three half of it */
  expect_ok(configure_fake(f, &c));
  assert_int_equal(c.levels, 3);
  assert_in_range(c.step_bytes, 85 << 20, 100 << 20);
  f->options.memory_bytes = (int64_t)400 << 20;
  expect_ok(configure_fake(f, &c));
  assert_in_range(c.step_bytes, 360 << 20, 400 << 20);
  assert_in_range(2 * c.crop[1], 0, 3 * c.crop[0]); /* axes of one length grow alike */
  free(f);
}

/* ---- what is written ---- */

static void expect_text(const char *name, const fake *f, const configuration *c,
                        const char *const *fragments) {
  text_buffer yaml = {0};
  configure_write(&f->options, &f->look, c, &yaml);
  for (; *fragments; fragments++) {
    bool is_absent = **fragments == '!';
    if ((strstr(yaml.data, *fragments + is_absent) == NULL) != is_absent)
      fail_msg("%s: %s %s in\n%s", name, is_absent ? "there is" : "there is no",
               *fragments + is_absent, yaml.data);
  }
  text_free(&yaml);
}

static configuration decided(const int64_t crop[3]) {
  configuration c = with_crop((const int64_t[3]){300, 300, 300}, crop);
  c.labelled = CASES;
  configure_pretext(&c);
  return c;
}

static void crops_and_levels_are_written(void **state) {
  (void)state;
  fake *f = make_fake();
  static const struct {
    int64_t crop[3];
    const char *fragments[8];
  } cases[] = {
      {{64, 64, 64},
       {"random_affine: {rotation: 30, zoom: [0.71, 1.43]}", "zoom: [0.5, 1], axes: [x, y, z],",
        "random_flip: {axes: [x, y, z], probability: 0.5}\n\n", "Not z, along which",
        "        - random_flip: {axes: [x, y], probability: 0.5}\n      graph:",
        "filters: [32, 64, 128, 256, 320]\n"}},
      {{64, 64, 32},
       {"rotation: 30,", "        - random_flip: {axes: [x, z],", "mirror: [x, y, z]."}},
      {{64, 64, 16}, {"rotation: [0, 0, 180],", "plane: [x, y]", "zoom: [0.5, 1], axes: [x, y],"}},
      {{64, 16, 64}, {"rotation: [0, 180, 0],", "plane: [x, z]", "zoom: [0.5, 1], axes: [x, z],"}},
      {{16, 64, 64}, {"rotation: [180, 0, 0],", "plane: [y, z]", "zoom: [0.5, 1], axes: [y, z],"}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    configuration c = decided(cases[i].crop);
    char name[32];
    snprintf(name, sizeof name, "crop %zu", i);
    expect_text(name, f, &c, cases[i].fragments);
  }
  free(f);
}

/* As nnU-Net counts them, at least one of every batch. */
static void crops_around_classes_are_whole_ones_of_a_batch(void **state) {
  (void)state;
  static const struct {
    int64_t batch;
    const char *fragments[2];
  } cases[] = {{2, {"foreground: 0.5}"}},
               {3, {"foreground: 0.333}"}},
               {4, {"foreground: 0.25}"}},
               {5, {"foreground: 0.4}"}},
               {12, {"foreground: 0.333}"}}};
  fake *f = make_fake();
  configuration c = decided((const int64_t[3]){64, 64, 64});
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    f->options.batch = cases[i].batch;
    char name[32];
    snprintf(name, sizeof name, "batch of %lld", (long long)cases[i].batch);
    expect_text(name, f, &c, cases[i].fragments);
  }
  free(f);
}

static void splits_follow_from_the_labelled_cases(void **state) {
  (void)state;
  static const struct {
    int labelled;
    const char *fragments[4];
  } cases[] = {
      {0, {"split: {train: 1, validation: 0, test: 0}", "!segment:", "!evaluate:"}},
      {4, {"split: {folds: 4, fold: 0}", "!validate:"}},
      {9, {"split: {folds: 5, fold: 0}", "!validate:"}},
      {10,
       {"split: {folds: 5, fold: 0, validation: 0.1}", "validate: {every: 50, output: net.out}"}},
  };
  fake *f = make_fake();
  configuration c = decided((const int64_t[3]){64, 64, 64});
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char name[32];
    snprintf(name, sizeof name, "%d labelled cases", cases[i].labelled);
    c.labelled = cases[i].labelled;
    expect_text(name, f, &c, cases[i].fragments);
  }
  free(f);
}

static void targets_are_classes_or_regions(void **state) {
  (void)state;
  fake *f = make_fake();
  configuration c = decided((const int64_t[3]){64, 64, 64});
  expect_text("classes", f, &c,
              (const char *const[]){"deep_supervision: [label, net.out,", "outputs: \"${classes}\"",
                                    "include_background: false", "!regions", NULL});
  int whole[] = {1, 2, 3}, core[] = {2, 3}, enhancing[] = {3};
  class_group regions[] = {{.name = "enhancing", .classes = enhancing, .count = 1},
                           {.name = "whole", .classes = whole, .count = 3},
                           {.name = "core", .classes = core, .count = 2}};
  f->data.regions = regions;
  f->data.region_count = 3;
  expect_text("regions", f, &c,
              (const char *const[]){"deep_supervision: [regions, net.out,",
                                    "outputs: \"${regions}\"", "!include_background",
                                    "    whole: [1, 2, 3]\n    core: [2, 3]\n    enhancing: [3]\n",
                                    NULL});
  free(f);
}

static void channels_are_scaled_by_their_names(void **state) {
  (void)state;
  static const struct {
    const char *names[CHANNELS + 1]; /* none: dataset.json has no names */
    double min;
    int alike; /* cases with this least value */
    const char *fragments[6];
  } cases[] = {
      {{"CT"}, 1, CASES, {"standardize: {clip: [10, 90], mean: 50, sd: 20}", "!normalize"}},
      {{"ct"}, 1, CASES, {"standardize: {clip: [10, 90], mean: 50, sd: 20}", "!normalize"}},
      {{"T1"},
       -1000,
       CASES,
       {"normalize: {mode: zscore, scope: whole}", "!standardize", "!synchronize_channels"}},
      {{"rescale_to_0_1"}, 1, CASES, {"normalize: {mode: minmax}", "!zscore"}},
      {{"rgb_to_0_1"}, 1, CASES, {"scale_range: {from: [0, 255]}", "!zscore"}},
      {{"noNorm"}, 1, CASES, {"!standardize", "!normalize", "!scale_range"}},
      {{"T1", "CT", "rescale_to_0_1", "rgb_to_0_1", "noNorm", "T2"},
       1,
       CASES,
       {"standardize: {clip: [11, 91], mean: 50, sd: 20, channels: [1]}",
        "normalize: {mode: minmax, channels: [2]}", "scale_range: {from: [0, 255], channels: [3]}",
        "normalize: {mode: zscore, scope: whole, channels: [0, 5]}"}},
      {{NULL}, -900, CASES, {"standardize: {clip:"}},
      {{NULL}, -899, CASES, {"!standardize"}},
      {{NULL}, -1024, CASES / 2 + 1, {"standardize: {clip:"}},
      {{NULL}, -1024, CASES / 2, {"!standardize"}},
  };
  configuration c = decided((const int64_t[3]){64, 64, 64});
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    fake *f = make_fake();
    const char *names[CHANNELS];
    int count = 0;
    for (; cases[i].names[count]; count++) names[count] = cases[i].names[count];
    if (count > 0) f->data.channel_names = names;
    f->data.channels = f->look.channel_count = count > 0 ? count : 1;
    for (int k = 0; k < cases[i].alike; k++) f->cases[k].min = cases[i].min;
    char name[48];
    snprintf(name, sizeof name, "channels %zu, %s", i, count > 0 ? names[0] : "without names");
    expect_text(name, f, &c, cases[i].fragments);
    free(f);
  }
  /* Two channels without names are no CT, and a CT without a label has no numbers. */
  fake *f = make_fake();
  for (int k = 0; k < CASES; k++) f->cases[k].min = -1024;
  f->data.channels = f->look.channel_count = 2;
  expect_text("two channels", f, &c,
              (const char *const[]){"!standardize", "zscore",
                                    "channel_probability: 0.5, synchronize_channels: false}",
                                    NULL});
  f->data.channels = f->look.channel_count = 1;
  f->channels[0] = (channel_values){0};
  expect_text("no foreground", f, &c, (const char *const[]){"!standardize", "zscore", NULL});
  free(f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(levels_follow_from_crop_and_spacing),
      cmocka_unit_test(the_first_crop_is_a_cube_in_mm),
      cmocka_unit_test(a_crop_shrinks_where_it_has_most_of_the_case),
      cmocka_unit_test(a_crop_grows_as_long_as_its_levels_stay),
      cmocka_unit_test(slabs_and_patches_fit_the_crop),
      cmocka_unit_test(a_batch_holds_a_twentieth_of_the_voxels),
      cmocka_unit_test(slices_three_times_as_thick_take_the_finest_tenth),
      cmocka_unit_test(what_surrounds_the_body_is_cropped),
      cmocka_unit_test(the_median_case_has_the_common_spacing),
      cmocka_unit_test(what_cannot_be_configured_is_an_error),
      cmocka_unit_test(what_a_lost_level_leaves_free_is_used),
      cmocka_unit_test(crops_and_levels_are_written),
      cmocka_unit_test(crops_around_classes_are_whole_ones_of_a_batch),
      cmocka_unit_test(splits_follow_from_the_labelled_cases),
      cmocka_unit_test(targets_are_classes_or_regions),
      cmocka_unit_test(channels_are_scaled_by_their_names),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
