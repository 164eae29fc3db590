/* Layouts of data sets, splits, and what must never be in two roles. */
#include "data_folder.h"

#include "language/pipeline.h"

#include <limits.h>
#include <sys/stat.h>

static void put_text(const char *name, const char *text) {
  char *path = inside(name), *parent = path_folder(path);
  expect_ok(folder_create(parent));
  free(parent);
  write_text(path, text);
}

/* A volume whose voxels are `first`, `first` + 1, …; every other `first` makes other content. */
static void put_image(const char *name, float first, int64_t channels) {
  char *path = inside(name), *parent = path_folder(path);
  expect_ok(folder_create(parent));
  free(parent);
  volume v = numbered_volume(5, 4, 3, channels);
  for (int64_t i = 0; i < 60 * channels; i++) v.data[i] += first;
  expect_ok(nifti_write_volume(path, &v));
  volume_free(&v);
}

static void put_label(const char *name, uint8_t class_number) {
  char *path = inside(name), *parent = path_folder(path);
  expect_ok(folder_create(parent));
  free(parent);
  volume v = numbered_volume(5, 4, 3, 1);
  labels l = {0};
  expect_ok(labels_allocate(&l, v.size));
  memcpy(l.affine, v.affine, sizeof l.affine);
  for (int i = 10; i < 20; i++) l.data[i] = class_number;
  expect_ok(nifti_write_labels(path, &l, NULL));
  labels_free(&l);
  volume_free(&v);
}

static data_spec spec_of(dataset_layout layout, const char *path) {
  return (data_spec){.layout = layout, .dataset = path, .split = {0.6, 0.2, 0.2}};
}

static const case_entry *find_case(const dataset *d, const char *name) {
  for (int i = 0; i < d->case_count; i++)
    if (strcmp(d->cases[i].name, name) == 0) return &d->cases[i];
  fail_msg("there is no case %s", name);
  return NULL;
}

/* ---- layouts ---- */

static void btcv_is_read_by_its_folders(void **state) {
  (void)state;
  put_image("b/img/img0001.nii.gz", 0, 1);
  put_image("b/img/img0002.nii.gz", 1, 1);
  put_image("b/img/img0010.nii.gz", 2, 1);
  put_label("b/label/label0001.nii.gz", 13);
  put_label("b/label/label0002.nii.gz", 1);
  put_label("b/label/label0010.nii.gz", 1);
  data_spec spec = spec_of(DATASET_BTCV, inside("b"));
  dataset *d;
  expect_ok(dataset_open(&spec, 1, &d));
  assert_int_equal(d->case_count, 3);
  assert_int_equal(d->class_count, 14);
  assert_string_equal(d->class_names[6], "liver");
  assert_string_equal(d->cases[2].name, "img0010");
  assert_non_null(strstr(d->cases[2].label, "label/label0010.nii.gz"));
  dataset_free(d);
  put_label("b/label/label0003.nii.gz", 1);
  expect_error(
      dataset_open(&spec, 1, &d),
      "label0003.nii.gz: there is no image to this label: the wildcards of its pattern stand "
      "for \"0003\"");
  spec.dataset = inside("b/img");
  expect_error(dataset_open(&spec, 1, &d), "img/img0001.nii.gz");
}

static void nnunet_stacks_the_channels_of_a_case(void **state) {
  (void)state;
  put_text("n/dataset.json",
           "{\"channel_names\": {\"0\": \"T1\", \"1\": \"T2\"}, \"labels\": {\"background\": 0, "
           "\"tumour\": 1}, \"numTraining\": 3, \"file_ending\": \".nii\"}");
  for (int i = 0; i < 3; i++) {
    char name[64];
    for (int c = 0; c < 2; c++) {
      snprintf(name, sizeof name, "n/imagesTr/case_%d_%04d.nii", i, c);
      put_image(name, (float)(100 * c + i), 1);
    }
    snprintf(name, sizeof name, "n/labelsTr/case_%d.nii", i);
    put_label(name, 1);
  }
  data_spec spec = spec_of(DATASET_NNUNET, inside("n"));
  dataset *d;
  expect_ok(dataset_open(&spec, 1, &d));
  assert_int_equal(d->case_count, 3);
  assert_int_equal(d->channels, 2);
  assert_string_equal(d->name, "n");
  const case_entry *entry = find_case(d, "case_1");
  assert_int_equal(entry->more_image_count, 1);
  medical_case c, again;
  char *cache = inside("cache");
  expect_ok(case_prepare(&spec, entry, cache, &c));
  assert_int_equal(c.image.channels, 2);
  for (int i = 0; i < 60; i++) {
    assert_true(c.image.data[2 * i] == (float)(i + 2));
    assert_true(c.image.data[2 * i + 1] == (float)(i + 102));
  }
  expect_ok(case_prepare(&spec, entry, cache, &again));
  assert_memory_equal(c.image.data, again.image.data, 120 * sizeof(float));
  case_free(&again);
  case_free(&c);
  /* Another second channel is another case, though the first file is the same. */
  put_image("n/imagesTr/case_1_0001.nii", 500, 1);
  expect_ok(case_prepare(&spec, entry, cache, &c));
  assert_true(c.image.data[1] == 501);
  case_free(&c);
  dataset_free(d);

  assert_int_equal(unlink(inside("n/imagesTr/case_2_0001.nii")), 0);
  expect_error(dataset_open(&spec, 1, &d), "case case_2: channel 1 is missing");
  assert_int_equal(unlink(inside("n/imagesTr/case_2_0000.nii")), 0);
  assert_int_equal(unlink(inside("n/labelsTr/case_2.nii")), 0);
  expect_error(dataset_open(&spec, 1, &d), "\"numTraining\" is 3, but imagesTr holds 2");
}

static void nnunet_descriptions_that_cannot_be_read_say_why(void **state) {
  (void)state;
  static const struct {
    const char *text, *word;
  } rows[] = {
      {"{\"labels\": {\"a\": 0, \"b\": 1}, \"channel_names\": {\"0\": \"CT\"}}", "file_ending"},
      {"{\"labels\": {\"a\": 0, \"b\": 1}, \"file_ending\": \".nii\"}", "channel_names"},
      {"{\"labels\": {\"a\": 0, \"b\": 1}, \"channel_names\": {\"0\": \"CT\"}, \"file_ending\": "
       "\".nrrd\"}",
       ".nrrd"},
      {"{\"labels\": {\"a\": 0, \"whole\": [1, 2]}, \"channel_names\": {\"0\": \"CT\"}, "
       "\"file_ending\": \".nii\"}",
       "no .nii or .nii.gz file fits imagesTr/*_0000.nii"},
      {"{\"labels\": {\"a\": 0, \"whole\": [1, 1]}, \"channel_names\": {\"0\": \"CT\"}, "
       "\"file_ending\": \".nii\"}",
       "\"whole\" must be a class from 1 to 254, or a list of some, each once"},
      {"{\"labels\": {\"a\": 0, \"whole\": [1, 255]}, \"channel_names\": {\"0\": \"CT\"}, "
       "\"file_ending\": \".nii\"}",
       "\"whole\" must be a class"},
      {"{\"training\": [], \"labels\": {\"0\": \"a\", \"1\": \"b\"}}",
       "say dataset: {decathlon: …}"},
      {"{\"labels\": {\"a\": 0, \"b\": 2, \"ignore\": 1}, \"channel_names\": {\"0\": \"CT\"}, "
       "\"file_ending\": \".nii\"}",
       "must be above all classes, but class 2 (b) is above it"},
      {"{\"labels\": {\"a\": 0, \"b\": 1, \"ignore\": 256}, \"channel_names\": {\"0\": \"CT\"}, "
       "\"file_ending\": \".nii\"}",
       "\"ignore\" must be a number from 1 to 255"},
      {"{\"labels\": {\"a\": 0, \"b\": 1}, \"channel_names\": {\"0\": \"CT\"}, \"file_ending\": "
       "\".nii\"}",
       "no .nii or .nii.gz file fits imagesTr/*_0000.nii"},
      {"[1, 2]", "mapping"},
      {"{", "line 1"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    put_text("bad/dataset.json", rows[i].text);
    data_spec spec = spec_of(DATASET_NNUNET, inside("bad"));
    dataset *d;
    expect_error(dataset_open(&spec, 1, &d), rows[i].word);
  }
}

/* Files anywhere, under any names; what else lies in imagesTr is no case. */
static void nnunet_takes_the_files_that_dataset_names(void **state) {
  (void)state;
  static const char head[] = "{\"channel_names\": {\"0\": \"T1\", \"1\": \"T2\"}, \"labels\": "
                             "{\"background\": 0, \"tumour\": 1}, \"file_ending\": \".nii\"";
  char text[PATH_MAX + 2000], absolute[PATH_MAX];
  put_image("e/imagesTr/other_0000.nii", 0, 1);
  put_image("e/scans/a/first.nii", 1, 1);
  put_image("elsewhere/second.nii", 2, 1);
  put_image("e/scans/b.nii", 3, 1);
  put_label("e/scans/a/truth.nii", 1);
  assert_non_null(realpath(inside("e/scans/b.nii"), absolute));
  snprintf(text, sizeof text,
           "%s, \"numTraining\": 2, \"dataset\": {\"b\": {\"images\": [\"scans/b.nii\", \"%s\"]}, "
           "\"a\": {\"images\": [\"./scans/a/first.nii\", \"../elsewhere/second.nii\"], \"label\": "
           "\"scans/a/truth.nii\"}}}",
           head, absolute);
  put_text("e/dataset.json", text);
  data_spec spec = spec_of(DATASET_NNUNET, inside("e"));
  spec.split[0] = 1;
  spec.split[1] = spec.split[2] = 0;
  dataset *d;
  expect_ok(dataset_open(&spec, 1, &d));
  assert_int_equal(d->case_count, 2);
  const case_entry *a = find_case(d, "a"), *b = find_case(d, "b");
  assert_true(strstr(a->image, "e/scans/a/first.nii") != NULL);
  assert_int_equal(a->more_image_count, 1);
  assert_true(strstr(a->more_images[0], "elsewhere/second.nii") != NULL);
  assert_true(strstr(a->label, "truth.nii") != NULL);
  assert_string_equal(b->more_images[0], absolute);
  assert_null(b->label);
  medical_case c;
  expect_ok(case_prepare(&spec, a, NULL, &c));
  assert_int_equal(c.image.channels, 2);
  assert_true(c.image.data[0] == 2 && c.image.data[1] == 3);
  case_free(&c);
  dataset_free(d);
  static const struct {
    const char *cases, *word;
  } rows[] = {
      {"[]", "\"dataset\" must be a mapping from at most"},
      {"\"KiTS\"", "\"dataset\" must be a mapping from at most"},
      {"{}", "\"dataset\" must be a mapping from at most"},
      {"{\"a\": {\"images\": [\"scans/b.nii\"]}}",
       "\"dataset\": \"a\" has 1 images, but \"channel_names\" names 2 channels"},
      {"{\"a\": {\"images\": \"scans/b.nii\"}}", "\"a\" must be {\"images\": ["},
      {"{\"a\": [\"scans/b.nii\"]}", "\"a\" must be {\"images\": ["},
      {"{\"a\": {\"images\": [\"scans/b.nii\", 7]}}", "\"a\" must be {\"images\": ["},
      {"{\"a\": {\"images\": [\"scans/b.nii\", \"/etc/passwd\"]}}",
       "\"/etc/passwd\" is not the path of a .nii or .nii.gz file"},
      {"{\"a\": {\"images\": [\"scans/b.nii\", \"scans\\n/b.nii\"]}}", "is not the path of"},
      {"{\"a\": {\"images\": [\"scans/b.nii\", \"scans/c.nii\"]}}", "scans/c.nii is missing"},
      {"{\"a\": {\"images\": [\"scans/b.nii\", \"scans/b.nii\"], \"label\": 1}}", "\"a\" must be"},
      {"{\"../a\": {\"images\": [\"scans/b.nii\", \"scans/b.nii\"]}}",
       "a case's name is printable"},
      {"{\"x/a\": {\"images\": [\"scans/b.nii\", \"scans/b.nii\"]}}", "a case's name is printable"},
      {"{\"\": {\"images\": [\"scans/b.nii\", \"scans/b.nii\"]}}", "a case's name is printable"},
      {"{\"a\": {\"images\": [\"scans/b.nii\", \"scans/b.nii\"]}}, \"numTraining\": 3",
       "\"numTraining\" is 3, but \"dataset\" has 1 cases."},
      {"{\"a\": {\"images\": [\"scans/b.nii\", \"scans/b.nii\"]}, \"a\": {}}", "duplicate"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    snprintf(text, sizeof text, "%s, \"dataset\": %s}", head, rows[i].cases);
    put_text("e/dataset.json", text);
    expect_error(dataset_open(&spec, 1, &d), rows[i].word);
  }
}

static void nnunet_regions_are_classes_and_their_unions(void **state) {
  (void)state;
  put_text(
      "r/dataset.json",
      "{\"channel_names\": {\"0\": \"T1\"}, \"labels\": {\"background\": 0, \"whole\": "
      "[1, 2, 4], \"core\": [2, 4], \"enhancing\": 4, \"ignore\": 5}, \"regions_class_order\": "
      "[1, 2, 3], \"numTraining\": 3, \"file_ending\": \".nii\"}");
  for (int i = 0; i < 3; i++) {
    char name[64];
    snprintf(name, sizeof name, "r/imagesTr/%c_0000.nii", "abc"[i]);
    put_image(name, (float)i, 1);
    snprintf(name, sizeof name, "r/labelsTr/%c.nii", "abc"[i]);
    put_label(name, 1);
  }
  static const char *const classes[] = {"background", "class 1", "class 2", "class 3", "enhancing"};
  static const struct {
    const char *name;
    int classes[3], count;
  } regions[] = {{"whole", {1, 2, 4}, 3}, {"core", {2, 4}, 2}, {"enhancing", {4}, 1}};
  const char *given[] = {"r", "r/dataset.json"}; /* the folder, or its file */
  for (int i = 0; i < 2; i++) {
    data_spec spec = spec_of(DATASET_NNUNET, inside(given[i]));
    dataset *d;
    expect_ok(dataset_open(&spec, 1, &d));
    assert_string_equal(d->name, "r");
    assert_int_equal(d->ignore_label, 5);
    assert_int_equal(d->class_count, 5);
    for (int c = 0; c < 5; c++) assert_string_equal(d->class_names[c], classes[c]);
    assert_int_equal(d->region_count, 3);
    for (int k = 0; k < 3; k++) {
      assert_string_equal(d->regions[k].name, regions[k].name);
      assert_int_equal(d->regions[k].count, regions[k].count);
      assert_memory_equal(d->regions[k].classes, regions[k].classes,
                          (size_t)regions[k].count * sizeof(int));
    }
    dataset_free(d);
  }
}

static data_spec patterns(const char **images, int count, const char *labels) {
  static const char *classes[] = {"background", "lesion"};
  data_spec spec = spec_of(DATASET_FILES, folder);
  spec.image_patterns = images;
  spec.image_pattern_count = count;
  spec.label_pattern = labels;
  spec.class_names = classes;
  spec.class_count = 2;
  return spec;
}

static void patterns_pair_files_by_what_the_star_stands_for(void **state) {
  (void)state;
  for (int i = 0; i < 4; i++) {
    char name[96];
    snprintf(name, sizeof name, "p/sub-%d/anat/sub-%d_t1.nii.gz", i, i);
    put_image(name, (float)i, 1);
    snprintf(name, sizeof name, "p/sub-%d/anat/sub-%d_t2.nii.gz", i, i);
    put_image(name, (float)(50 + i), 2);
    snprintf(name, sizeof name, "p/masks/%d-lesion.nii", i);
    if (i != 3) put_label(name, 1);
  }
  const char *images[] = {"p/sub-*/anat/sub-*_t1.nii.gz", "p/sub-*/anat/sub-*_t2.nii.gz"};
  data_spec spec = patterns(images, 2, "p/masks/*-lesion.nii");
  dataset *d;
  expect_ok(dataset_open(&spec, 1, &d));
  assert_int_equal(d->case_count, 4);
  const case_entry *entry = find_case(d, "2");
  assert_non_null(strstr(entry->label, "masks/2-lesion.nii"));
  assert_null(find_case(d, "3")->label);
  medical_case c;
  expect_ok(case_prepare(&spec, entry, NULL, &c));
  assert_int_equal(c.image.channels, 3); /* one file of one channel, one of two */
  assert_true(c.image.data[0] == 3 && c.image.data[1] == 53 && c.image.data[2] == 54);
  case_free(&c);
  dataset_free(d);

  /* An absolute pattern is the same. */
  char *here = realpath(folder, NULL), absolute[700];
  snprintf(absolute, sizeof absolute, "%s/p/masks/?-lesion.nii", here);
  free(here);
  spec.label_pattern = absolute;
  expect_ok(dataset_open(&spec, 1, &d));
  assert_non_null(find_case(d, "0")->label);
  dataset_free(d);

  const char *one[] = {"p/sub-1/anat/*.nii.gz"};
  spec = patterns(one, 1, "p/masks/?-lesion.nii");
  expect_error(dataset_open(&spec, 1, &d), "there is no image to this label");
  const char *two[] = {"p/sub-?/anat/sub-1_t?.nii.gz"};
  spec = patterns(two, 1, NULL);
  spec.split[0] = 1;
  spec.split[1] = spec.split[2] = 0;
  expect_ok(dataset_open(&spec, 1, &d));
  assert_int_equal(d->case_count, 2);
  find_case(d, "1");
  find_case(d, "1-2");
  dataset_free(d);
  put_image("q/a/a-b.nii", 1, 1);
  put_image("q/a-a/b.nii", 2, 1);
  const char *same[] = {"q/*/*.nii"};
  spec = patterns(same, 1, NULL);
  expect_error(dataset_open(&spec, 1, &d), "cannot be told apart");
  const char *none[] = {"p/*/nothing/*.nii.gz"};
  spec = patterns(none, 1, NULL);
  expect_error(dataset_open(&spec, 1, &d), "no .nii or .nii.gz file fits p/*/nothing/*.nii.gz");
}

static void channels_on_two_grids_are_refused(void **state) {
  (void)state;
  put_image("g/a_0.nii", 0, 1);
  put_image("g/a_1.nii", 1, 1);
  volume v = numbered_volume(5, 4, 3, 1);
  v.affine[0][3] += 3;
  expect_ok(nifti_write_volume(inside("g/a_1.nii"), &v));
  volume_free(&v);
  const char *images[] = {"g/*_0.nii", "g/*_1.nii"};
  data_spec spec = patterns(images, 2, NULL);
  spec.split[0] = 1;
  spec.split[1] = spec.split[2] = 0;
  dataset *d;
  expect_ok(dataset_open(&spec, 1, &d));
  medical_case c;
  expect_error(case_prepare(&spec, &d->cases[0], NULL, &c), "a_1.nii place them apart");
  dataset_free(d);
}

static void monai_lists_give_roles_and_channels(void **state) {
  (void)state;
  const char *const names[] = {"a", "b", "c", "d"};
  for (int i = 0; i < 4; i++) {
    char name[64];
    snprintf(name, sizeof name, "m/%s.nii", names[i]);
    put_image(name, (float)i, 1);
    snprintf(name, sizeof name, "m/%s-seg.nii", names[i]);
    put_label(name, 1);
  }
  put_text("m/list.json",
           "{\"labels\": {\"0\": \"background\", \"1\": \"x\"}, \"modality\": {\"0\": \"T1\", "
           "\"1\": \"T2\"}, \"training\": [{\"image\": [\"a.nii\", \"b.nii\"], \"label\": "
           "\"a-seg.nii\"}], \"validation\": [{\"image\": [\"b.nii\", \"c.nii\"], \"label\": "
           "\"b-seg.nii\"}], \"test\": [\"./d.nii\"]}");
  data_spec spec = spec_of(DATASET_DECATHLON, inside("m/list.json"));
  spec.split_kind = SPLIT_LISTED;
  dataset *d;
  expect_ok(dataset_open(&spec, 1, &d));
  assert_int_equal(d->case_count, 3);
  assert_int_equal(find_case(d, "a")->role, ROLE_TRAIN);
  assert_int_equal(find_case(d, "a")->more_image_count, 1);
  assert_int_equal(find_case(d, "b")->role, ROLE_VALIDATION);
  assert_int_equal(find_case(d, "d")->role, ROLE_TEST);
  dataset_free(d);
  /* Fractions are of the labelled lists. */
  spec.split_kind = SPLIT_FRACTIONS;
  spec.split[0] = 1;
  spec.split[1] = spec.split[2] = 0;
  expect_ok(dataset_open(&spec, 1, &d));
  assert_int_equal(d->case_count, 2);
  dataset_free(d);
  put_text("m/list.json", "{\"labels\": {\"0\": \"background\", \"1\": \"x\"}, \"training\": "
                          "[{\"image\": [], \"label\": \"a-seg.nii\"}]}");
  expect_error(dataset_open(&spec, 1, &d), "\"training\"[0] must be");
}

/* ---- splits ---- */

enum { CASES = 20 };

/* s00_a, s00_b, s01_a …: two cases a patient. */
static data_spec two_cases_a_patient(void) {
  static const char *images[] = {"k/img/*.nii"};
  static bool made;
  for (int i = 0; i < CASES && !made; i++) {
    char name[64];
    snprintf(name, sizeof name, "k/img/s%02d_%c.nii", i / 2, "ab"[i % 2]);
    put_image(name, (float)i, 1);
    snprintf(name, sizeof name, "k/seg/s%02d_%c.nii", i / 2, "ab"[i % 2]);
    put_label(name, 1);
  }
  made = true;
  return patterns(images, 1, "k/seg/*.nii");
}

static void folds_test_every_case_once(void **state) {
  (void)state;
  data_spec spec = two_cases_a_patient();
  spec.split_kind = SPLIT_FOLDS;
  spec.folds = 3;
  spec.split[0] = spec.split[2] = 0;
  spec.split[1] = 0.2;
  int tested[CASES] = {0};
  for (spec.fold = 0; spec.fold < 3; spec.fold++) {
    dataset *d;
    expect_ok(dataset_open(&spec, 5, &d));
    assert_in_range(dataset_role_count(d, ROLE_TEST), 6, 7);
    assert_in_range(dataset_role_count(d, ROLE_VALIDATION), 2, 3);
    for (int i = 0; i < CASES; i++) tested[i] += d->cases[i].role == ROLE_TEST;
    dataset_free(d);
  }
  for (int i = 0; i < CASES; i++) assert_int_equal(tested[i], 1);
  spec.folds = CASES + 1;
  dataset *d;
  expect_error(dataset_open(&spec, 5, &d), "21 folds need as many cases");
}

/* 6 of 20 cases have labels: these are dealt, 4 : 1 : 1, and the others train. */
static void patients_without_labels_train(void **state) {
  (void)state;
  const char *images[] = {"k/img/*.nii"};
  for (int i = 0; i < 6; i++) {
    char name[64];
    snprintf(name, sizeof name, "some/s%02d_%c.nii", i / 2, "ab"[i % 2]);
    put_label(name, 1);
  }
  two_cases_a_patient();
  data_spec spec = patterns(images, 1, "some/*.nii");
  dataset *d;
  for (int folds = 0; folds < 2; folds++) {
    spec.split_kind = folds ? SPLIT_FOLDS : SPLIT_FRACTIONS;
    spec.folds = 6;
    spec.split[0] = 0.7;
    spec.split[1] = spec.split[2] = 0.15;
    expect_ok(dataset_open(&spec, 5, &d));
    assert_int_equal(dataset_role_count(d, ROLE_TRAIN), 18);
    assert_int_equal(dataset_role_usable(d, ROLE_TRAIN, false), 4);
    assert_int_equal(dataset_role_count(d, ROLE_VALIDATION), 1);
    for (int i = 0; i < CASES; i++)
      assert_true(d->cases[i].label || d->cases[i].role == ROLE_TRAIN);
    dataset_free(d);
  }
  spec.folds = 7;
  expect_error(dataset_open(&spec, 5, &d), "7 folds need as many cases; ");
  spec.patient = "(*)_?"; /* a patient with one label is dealt with both cases */
  assert_int_equal(unlink(inside("some/s02_b.nii")), 0);
  spec.split_kind = SPLIT_FRACTIONS;
  expect_ok(dataset_open(&spec, 5, &d));
  assert_int_equal(find_case(d, "s02_a")->role, find_case(d, "s02_b")->role);
  assert_int_equal(dataset_role_count(d, ROLE_TEST), 2);
  dataset_free(d);
}

static void cases_of_a_patient_share_a_role(void **state) {
  (void)state;
  data_spec spec = two_cases_a_patient();
  spec.patient = "(*)_?";
  dataset *d;
  expect_ok(dataset_open(&spec, 5, &d));
  for (int i = 0; i < CASES; i += 2) assert_int_equal(d->cases[i].role, d->cases[i + 1].role);
  assert_int_equal(dataset_role_count(d, ROLE_TRAIN), 12);
  assert_string_equal(d->cases[3].patient, "s01");
  dataset_free(d);
  spec.split_kind = SPLIT_NAMES;
  spec.split[1] = 0;
  const listed_case train[] = {{.name = "s00_a"}, {.name = "s01_a"}}, test[] = {{.name = "s01_b"}};
  spec.split_names[0] = train;
  spec.split_name_count[0] = 2;
  spec.split_names[2] = test;
  spec.split_name_count[2] = 1;
  expect_error(dataset_open(&spec, 5, &d), "patient s01 is in two roles");
  spec.patient = NULL;
  expect_ok(dataset_open(&spec, 5, &d));
  assert_int_equal(dataset_role_count(d, ROLE_NONE), CASES - 3);
  dataset_free(d);
  spec.patient = "t(*)_?";
  expect_error(dataset_open(&spec, 5, &d), "does not fit data: patient");
}

static void lists_that_do_not_fit_are_refused(void **state) {
  (void)state;
  data_spec spec = two_cases_a_patient();
  spec.split_kind = SPLIT_NAMES;
  spec.split[1] = 0;
  const listed_case train[] = {{.name = "s00_a"}, {.name = "s01_a"}},
                    test[] = {{.name = "s00_a"},
                              {.name = "s02_\033aa", .at = {"split.json", 7, 3}}};
  spec.split_names[0] = train;
  spec.split_name_count[0] = 2;
  spec.split_names[2] = test;
  spec.split_name_count[2] = 1;
  dataset *d;
  expect_error(dataset_open(&spec, 5, &d), "case s00_a is in the split's train and test lists");
  spec.split_names[2] = test + 1;
  status error = dataset_open(&spec, 5, &d);
  assert_non_null(error);
  assert_int_equal(error_position(error).line, 7);
  expect_error(error, "the split's test list names s02_?aa, which is not in");
  spec.split_names[2] = NULL;
  spec.split_name_count[2] = 0;
  const listed_case twice[] = {{.name = "s00_a"}, {.name = "s00_a"}};
  spec.split_names[0] = twice;
  expect_error(dataset_open(&spec, 5, &d), "case s00_a is in the split's train list twice");
}

/* Of 16 listed cases of 8 patients a quarter validates, with all cases of a patient; the listed test
 * cases test whatever the seed. */
static void a_share_of_the_training_list_validates(void **state) {
  (void)state;
  data_spec spec = two_cases_a_patient();
  listed_case names[CASES];
  char text[CASES][16];
  for (int i = 0; i < CASES; i++) {
    snprintf(text[i], sizeof text[i], "s%02d_%c", i / 2, "ab"[i % 2]);
    names[i] = (listed_case){.name = text[i]};
  }
  spec.split_kind = SPLIT_NAMES;
  spec.patient = "(*)_?";
  spec.split_names[0] = names;
  spec.split_name_count[0] = 16;
  spec.split_names[2] = names + 16;
  spec.split_name_count[2] = 2; /* the last two have no role */
  spec.split[0] = spec.split[2] = 0;
  spec.split[1] = 0.25;
  bool differs = false;
  role first[CASES];
  for (uint64_t seed = 1; seed <= 8; seed++) {
    dataset *d;
    expect_ok(dataset_open(&spec, seed, &d));
    assert_int_equal(dataset_role_count(d, ROLE_TRAIN), 12);
    assert_int_equal(dataset_role_count(d, ROLE_VALIDATION), 4);
    for (int i = 0; i < CASES; i++) {
      assert_int_equal(d->cases[i].role, d->cases[i ^ 1].role);
      assert_true((i >= 16 && i < 18) == (d->cases[i].role == ROLE_TEST));
      assert_true((i >= 18) == (d->cases[i].role == ROLE_NONE));
      differs |= seed > 1 && d->cases[i].role != first[i];
      if (seed == 1) first[i] = d->cases[i].role;
    }
    dataset_free(d);
  }
  assert_true(differs);
  spec.split_name_count[0] = 2;
  dataset *d;
  expect_error(dataset_open(&spec, 1, &d), "has only 1 patient in the list train");
}

static void one_image_under_two_names_is_a_leak(void **state) {
  (void)state;
  const char *images[] = {"l/*.nii"};
  data_spec spec = patterns(images, 1, NULL);
  put_image("l/a.nii", 7, 1);
  put_image("l/b.nii", 7, 1); /* the same bytes */
  put_image("l/c.nii", 8, 1);
  spec.split_kind = SPLIT_NAMES;
  spec.split[1] = 0;
  const listed_case names[] = {{.name = "a"}, {.name = "b"}, {.name = "c"}};
  spec.split_names[0] = names;
  spec.split_name_count[0] = 1;
  spec.split_names[2] = names + 1;
  spec.split_name_count[2] = 2;
  dataset *d;
  expect_error(dataset_open(&spec, 5, &d), "hold the same image");
  spec.split_name_count[0] = 2; /* both train */
  spec.split_names[2] = names + 2;
  spec.split_name_count[2] = 1;
  expect_ok(dataset_open(&spec, 5, &d));
  dataset_free(d);
  assert_int_equal(unlink(inside("l/c.nii")), 0);
  assert_int_equal(symlink("a.nii", inside("l/c.nii")), 0);
  expect_error(dataset_open(&spec, 5, &d), "hold the same image");
}

static void smaller_label_fractions_are_part_of_larger_ones(void **state) {
  (void)state;
  data_spec spec = two_cases_a_patient();
  bool before[CASES] = {0};
  static const double fractions[] = {0.1, 0.2, 0.4, 0.6, 0.8, 1};
  static const int kept[] = {2, 3, 5, 8, 10, 12};
  for (int f = 0; f < 6; f++) {
    spec.label_fraction = fractions[f];
    dataset *d;
    expect_ok(dataset_open(&spec, 5, &d));
    int count = 0;
    for (int i = 0; i < CASES; i++) {
      const case_entry *c = &d->cases[i];
      if (c->role != ROLE_TRAIN) {
        assert_true(c->label && !c->is_label_withheld);
        continue;
      }
      assert_true(c->is_label_withheld == (c->label == NULL));
      if (before[i]) assert_non_null(c->label);
      before[i] = c->label != NULL;
      count += before[i];
    }
    assert_int_equal(count, kept[f]);
    assert_int_equal(dataset_role_usable(d, ROLE_TRAIN, false), kept[f]);
    assert_int_equal(dataset_role_usable(d, ROLE_TRAIN, true), 12);
    assert_int_equal(dataset_steps(d, ROLE_TRAIN, &spec, false, 1), kept[f]);
    dataset_free(d);
  }
}

static void a_split_seed_keeps_the_cases_where_they_are(void **state) {
  (void)state;
  data_spec spec = two_cases_a_patient();
  spec.label_fraction = 0.4;
  dataset *by_seed, *by_split_seed;
  expect_ok(dataset_open(&spec, 5, &by_seed));
  spec.has_split_seed = true;
  spec.split_seed = 5;
  expect_ok(dataset_open(&spec, 6, &by_split_seed));
  assert_true(by_seed->identity == by_split_seed->identity);
  for (int i = 0; i < CASES; i++) {
    assert_int_equal(by_seed->cases[i].role, by_split_seed->cases[i].role);
    assert_true(by_seed->cases[i].is_label_withheld == by_split_seed->cases[i].is_label_withheld);
  }
  dataset_free(by_split_seed);
  spec.split_seed = 6;
  expect_ok(dataset_open(&spec, 5, &by_split_seed));
  assert_true(by_seed->identity != by_split_seed->identity);
  dataset_free(by_split_seed);
  dataset_free(by_seed);
}

/* Which cases a stage sees. */
static int cases_seen(const data_spec *spec, const dataset *d, bool label_free) {
  loader_options o = {.spec = spec,
                      .data = d,
                      .seed = 1,
                      .stage = "s",
                      .role = ROLE_TRAIN,
                      .label_free = label_free,
                      .batch = 1,
                      .epochs = 1,
                      .size = {5, 4, 3},
                      .channels = 1};
  loader *l;
  expect_ok(loader_open(&o, &l));
  batch *b;
  int count = 0;
  for (;;) {
    expect_ok(loader_next(l, &b));
    if (!b) break;
    count++;
  }
  loader_close(l);
  return count;
}

static void stages_without_labels_train_on_every_case(void **state) {
  (void)state;
  data_spec spec = two_cases_a_patient();
  spec.label_fraction = 0.2;
  dataset *d;
  expect_ok(dataset_open(&spec, 5, &d));
  assert_int_equal(cases_seen(&spec, d, true), 12);
  assert_int_equal(cases_seen(&spec, d, false), 3);
  dataset_free(d);
}

/* ---- from the file ---- */

static void pipeline_with(const char *dataset, const char *split) {
  char text[1024];
  snprintf(text, sizeof text,
           "strata: 1\nuse: %s/pipelines/base.yaml\ndata:\n  dataset: {decathlon: ~, %s}\n"
           "  split: %s\n",
           TEST_DATA, dataset, split);
  put_text("y/p.yaml", text);
}

static void the_file_says_layout_and_split(void **state) {
  (void)state;
  put_image("y/b/img/img0001.nii.gz", 0, 1);
  pipeline_with("btcv: b", "{train: ~, validation: ~, test: ~, file: splits/synapse_18_12.yaml}");
  pipeline *p;
  expect_ok(pipeline_load(inside("y/p.yaml"), NULL, 0, &p));
  assert_int_equal(p->data.layout, DATASET_BTCV);
  assert_int_equal(p->data.split_kind, SPLIT_NAMES);
  assert_int_equal(p->data.split_name_count[0], 18);
  assert_int_equal(p->data.split_name_count[1], 0);
  assert_int_equal(p->data.split_name_count[2], 12);
  assert_string_equal(p->data.split_names[2][0].name, "img0001");
  uint64_t identity = p->identity;
  pipeline_free(p);
  pipeline_with("btcv: b", "{train: ~, validation: ~, test: ~, file: splits/synapse_24_6.yaml}");
  expect_ok(pipeline_load(inside("y/p.yaml"), NULL, 0, &p));
  assert_int_equal(p->data.split_name_count[0], 24);
  assert_true(p->identity != identity); /* by what the lists say */
  pipeline_free(p);

  put_text("y/monai.json", "{\"training\": [{\"image\": \"x/img0001.nii.gz\", \"label\": \"l\"}], "
                           "\"validation\": [\"img0002\"], \"numTest\": 3}");
  pipeline_with("btcv: b", "{train: ~, validation: ~, test: ~, file: monai.json}");
  expect_ok(pipeline_load(inside("y/p.yaml"), NULL, 0, &p));
  assert_string_equal(p->data.split_names[0][0].name, "img0001");
  assert_string_equal(p->data.split_names[1][0].name, "img0002");
  pipeline_free(p);

  pipeline_with(
      "files: {images: [\"*_t1.nii\", \"*_t2.nii\"], labels: \"*_s.nii\", classes: {2: b}}",
      "{train: ~, validation: ~, test: ~, folds: 5, fold: 4}");
  expect_ok(pipeline_load(inside("y/p.yaml"), NULL, 0, &p));
  assert_int_equal(p->data.image_pattern_count, 2);
  assert_int_equal(p->data.class_count, 3);
  assert_string_equal(p->data.class_names[1], "class 1");
  assert_string_equal(p->data.class_names[2], "b");
  assert_int_equal(p->data.split_kind, SPLIT_FOLDS);
  pipeline_free(p);
}

static const char folds_of_nnunet[] = "[\n"
                                      "    {\n"
                                      "        \"train\": [\"img0001\", \"img0002\"],\n"
                                      "        \"val\": [\"img0003\"]\n"
                                      "    },\n"
                                      "    {\n"
                                      "        \"train\": [\"img0002\", \"img0003\"],\n"
                                      "        \"val\": [\"img0001\"]\n"
                                      "    }\n"
                                      "]";

static void a_fold_of_nnunet_trains_and_tests(void **state) {
  (void)state;
  put_text("y/splits_final.json", folds_of_nnunet);
  pipeline *p;
  pipeline_with("btcv: b", "{train: ~, validation: ~, test: ~, file: splits_final.json, fold: 1}");
  expect_ok(pipeline_load(inside("y/p.yaml"), NULL, 0, &p));
  assert_int_equal(p->data.split_kind, SPLIT_NAMES);
  assert_int_equal(p->data.split_name_count[0], 2);
  assert_int_equal(p->data.split_name_count[1], 0);
  assert_int_equal(p->data.split_name_count[2], 1);
  assert_string_equal(p->data.split_names[0][0].name, "img0002");
  assert_string_equal(p->data.split_names[2][0].name, "img0001");
  assert_true(strstr(p->data.split_names[2][0].at.file, "splits_final.json") != NULL);
  assert_int_equal(p->data.split_names[2][0].at.line, 8);
  assert_true(p->data.split[1] == 0);
  uint64_t identity = p->identity;
  pipeline_free(p);
  pipeline_with("btcv: b",
                "{train: ~, test: ~, file: splits_final.json, fold: 1, validation: 0.5}");
  expect_ok(pipeline_load(inside("y/p.yaml"), NULL, 0, &p));
  assert_true(p->data.split[1] == 0.5);
  assert_int_equal(p->data.split_name_count[0], 2);
  assert_true(p->identity != identity);
  pipeline_free(p);
  const override other = {"data.split.fold", "0"};
  expect_ok(pipeline_load(inside("y/p.yaml"), &other, 1, &p));
  assert_string_equal(p->data.split_names[2][0].name, "img0003");
  pipeline_free(p);
}

static void split_files_that_cannot_be_used_say_why(void **state) {
  (void)state;
  const struct {
    const char *text, *rest, *place, *message;
  } bad[] = {
      {folds_of_nnunet, "", "p.yaml:5", "s.json is a list of folds, and fold: 0 to 1 says which"},
      {folds_of_nnunet, ", fold: 2", "p.yaml:5", "fold is 2, but s.json has folds 0 to 1."},
      {folds_of_nnunet, ", fold: -1", "p.yaml:5", "fold is -1, but s.json has folds 0 to 1."},
      {folds_of_nnunet, ", fold: all", "p.yaml:5", "data: split: fold"},
      {folds_of_nnunet, ", fold: 0, validation: [img0001]", "p.yaml:5", "such as 0.1, not a list"},
      {folds_of_nnunet, ", fold: 0, validation: 1", "p.yaml:5", "validation must be from 0 to 0.9"},
      {folds_of_nnunet, ", fold: 0, folds: 2", "p.yaml:5", "has no key \"folds\""},
      {"[]", ", fold: 0", "s.json:1", "a list without any fold"},
      {"[[\"img0001\"]]", ", fold: 0", "s.json:1", "A fold must be {\"train\": [case, …]"},
      {"[7]", ", fold: 0", "s.json:1", "\"val\": [case, …]}, not \"7\"."},
      {"[{\"train\": [\"a\"]}]", ", fold: 0", "s.json:1", "not a mapping without one of them"},
      {"[{\"train\": [\"a\"],\n\"val\": \"b\"}]", ", fold: 0", "s.json:2",
       "val must be a list of cases, not \"b\""},
      {"[{\"train\": [\"a\"],\n\"val\": [null]}]", ", fold: 0", "s.json:2",
       "val: an entry is a name or {image: file}, not nothing"},
      {"[{\"train\": [\"a\"], \"val\": [[\"b\"]]}]", ", fold: 0", "s.json:1", "not a list of 1"},
      {"[{\"train\": [], \"val\": [\"a\"]}]", ", fold: 0", "p.yaml:5", "train names no case"},
      {"[{\"train\": [\"a\"], \"val\": [], \"test\": []}]", ", fold: 0", "s.json:1",
       "A fold has no key \"test\"; it can have train, val."},
      {"[{\"train\": [\"a\"],\n\"train\": [\"b\"]}]", ", fold: 0", "s.json:2", "train"},
      {"[{\"train\": [\"a\"", ", fold: 0", "s.json:2", "expected ',' or ']'"},
      {"img0001", ", fold: 0", "s.json:1", "or a list of folds, not \"img0001\""},
      {"{\"train\": [\"a\"]}", ", fold: 0", "p.yaml:5", "s.json has one split, no folds"},
      {"{\"train\": [\"a\"], \"val\": [\"b\"]}", ", validation: 0.1", "p.yaml:5",
       "s.json lists the cases that validate itself"},
      {"{\"labels\": {\"a\": 1}}", "", "s.json:1", "none of the lists train, validation and test"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char split[200], place[64];
    put_text("y/s.json", bad[i].text);
    snprintf(split, sizeof split, "{train: ~, validation: ~, test: ~, file: s.json%s}",
             bad[i].rest);
    if (strstr(bad[i].rest, "validation"))
      snprintf(split, sizeof split, "{train: ~, test: ~, file: s.json%s}", bad[i].rest);
    pipeline_with("btcv: b", split);
    pipeline *p;
    status error = pipeline_load(inside("y/p.yaml"), NULL, 0, &p);
    if (!error) fail_msg("row %zu was taken", i);
    source_pos at = error_position(error);
    const char *slash = at.file ? strrchr(at.file, '/') : NULL;
    snprintf(place, sizeof place, "%s:%d", slash ? slash + 1 : "", at.line);
    if (strcmp(place, bad[i].place) != 0)
      fail_msg("row %zu: at %s, not at %s: %s", i, place, bad[i].place, error_message(error));
    expect_error(error, bad[i].message);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(btcv_is_read_by_its_folders),
      cmocka_unit_test(nnunet_stacks_the_channels_of_a_case),
      cmocka_unit_test(nnunet_descriptions_that_cannot_be_read_say_why),
      cmocka_unit_test(nnunet_takes_the_files_that_dataset_names),
      cmocka_unit_test(nnunet_regions_are_classes_and_their_unions),
      cmocka_unit_test(patterns_pair_files_by_what_the_star_stands_for),
      cmocka_unit_test(channels_on_two_grids_are_refused),
      cmocka_unit_test(monai_lists_give_roles_and_channels),
      cmocka_unit_test(folds_test_every_case_once),
      cmocka_unit_test(patients_without_labels_train),
      cmocka_unit_test(cases_of_a_patient_share_a_role),
      cmocka_unit_test(lists_that_do_not_fit_are_refused),
      cmocka_unit_test(a_share_of_the_training_list_validates),
      cmocka_unit_test(one_image_under_two_names_is_a_leak),
      cmocka_unit_test(smaller_label_fractions_are_part_of_larger_ones),
      cmocka_unit_test(a_split_seed_keeps_the_cases_where_they_are),
      cmocka_unit_test(stages_without_labels_train_on_every_case),
      cmocka_unit_test(the_file_says_layout_and_split),
      cmocka_unit_test(a_fold_of_nnunet_trains_and_tests),
      cmocka_unit_test(split_files_that_cannot_be_used_say_why),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
