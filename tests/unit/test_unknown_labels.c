/* Voxels whose class is unknown (data: ignore_label): what they do to losses, crops, statistics and
 * metrics. */
#include "data_folder.h"
#include "operators.h"

#include "data/check.h"
#include "evaluate/metrics.h"
#include "view/slice.h"

#include <jansson.h>

/* ---- losses ------------------------------------------------------------------------------------ */

enum { VOXELS = 5000, CLASSES = 3, LOGITS = VOXELS * CLASSES }; /* more than one task's voxels */

static const char *const losses[] = {"cross_entropy", "dice",    "dice_ce",         "focal",
                                     "dice_focal",    "tversky", "generalized_dice"};
enum { LOSSES = sizeof losses / sizeof *losses };

/* Each with classes, and with sets of regions, one a channel. */
typedef struct way {
  const char *loss;
  dtype target;
} way;
enum { WAYS = 2 * LOSSES };
static way way_at(int i) {
  return (way){losses[i / 2], i % 2 ? DTYPE_REGIONS : DTYPE_I32};
}

/* Loss and gradient of the logits, (samples, VOXELS, CLASSES). */
static float loss_of(way w, int samples, const float *logits, const int32_t *target,
                     float *gradient) {
  bench t;
  bench_open(&t, 2);
  value_id in[2] = {bench_input(&t, "logits", DTYPE_F32, SHAPE(samples, VOXELS, CLASSES), logits),
                    bench_input(&t, "target", w.target, SHAPE(samples, VOXELS), target)};
  value_id out[8], dx[32];
  const float one = 1;
  must(build_node(&t.b, w.loss, NULL, in, 2, out));
  must(bench_run(&t));
  float loss = *(const float *)t.data[out[0]];
  bench_grad(&t, bench_input(&t, "dy", DTYPE_F32, (shape){.rank = 0}, &one), dx);
  memcpy(gradient, t.data[dx[0]], (size_t)samples * LOGITS * sizeof *gradient);
  bench_close(&t);
  return loss;
}

typedef struct example {
  float logits[2 * LOGITS], gradient[2 * LOGITS], other[2 * LOGITS];
  int32_t target[2 * VOXELS];
} example;

/* Every third voxel is unknown. */
static example *example_new(void) {
  example *e = calloc(1, sizeof *e);
  rng r = rng_open(rng_key_of(3, "test", 0, "case", 0), 0);
  for (int i = 0; i < 2 * LOGITS; i++) e->logits[i] = 2 * rng_normal(&r);
  for (int v = 0; v < 2 * VOXELS; v++)
    e->target[v] = v % 3 == 1 ? TARGET_UNKNOWN : (int32_t)rng_below(&r, CLASSES);
  return e;
}

static void losses_do_not_see_unknown_voxels(void **state) {
  (void)state;
  example *e = example_new();
  for (int i = 0; i < WAYS; i++) {
    float loss = loss_of(way_at(i), 2, e->logits, e->target, e->gradient);
    assert_true(loss > 0 && isfinite(loss));
    for (int v = 0; v < 2 * VOXELS; v++)
      for (int c = 0; c < CLASSES; c++)
        if (e->target[v] == TARGET_UNKNOWN) {
          assert_true(e->gradient[v * CLASSES + c] == 0);
          e->logits[v * CLASSES + c] = (float)(c * 7 - v % 11);
        }
    assert_true(loss_of(way_at(i), 2, e->logits, e->target, e->other) == loss);
    assert_memory_equal(e->gradient, e->other, sizeof e->other);
  }
  free(e);
}

static void a_sample_without_a_known_voxel_changes_nothing(void **state) {
  (void)state;
  example *e = example_new();
  for (int v = VOXELS; v < 2 * VOXELS; v++) e->target[v] = TARGET_UNKNOWN;
  for (int i = 0; i < WAYS; i++) {
    float alone = loss_of(way_at(i), 1, e->logits, e->target, e->gradient);
    assert_true(loss_of(way_at(i), 2, e->logits, e->target, e->other) == alone);
    assert_memory_equal(e->gradient, e->other, LOGITS * sizeof *e->other);
    for (int k = LOGITS; k < 2 * LOGITS; k++) assert_true(e->other[k] == 0);
  }
  free(e);
}

static void where_nothing_is_known_loss_and_gradient_are_zero(void **state) {
  (void)state;
  example *e = example_new();
  for (int v = 0; v < 2 * VOXELS; v++) e->target[v] = TARGET_UNKNOWN;
  for (int i = 0; i < WAYS; i++) {
    assert_true(loss_of(way_at(i), 2, e->logits, e->target, e->gradient) == 0);
    for (int k = 0; k < 2 * LOGITS; k++) assert_true(e->gradient[k] == 0);
  }
  free(e);
}

static void distances_to_boundaries_known_in_part_are_refused(void **state) {
  (void)state;
  const char *names[] = {"boundary", "hausdorff_loss"};
  for (int i = 0; i < 2; i++) {
    bench t;
    bench_open(&t, 1);
    int32_t target[8] = {0, 1, 1, TARGET_UNKNOWN, 0, 0, 1, 0};
    value_id in[2] = {ramp(&t, SHAPE(1, 2, 2, 2, 2)),
                      bench_input(&t, "target", DTYPE_I32, SHAPE(1, 2, 2, 2), target)};
    value_id out[8];
    must(build_node(&t.b, names[i], NULL, in, 2, out));
    must_fail(bench_run(&t), "known in part");
    bench_close(&t);
  }
}

/* ---- data sets --------------------------------------------------------------------------------- */

enum { X = 5, Y = 4, Z = 3, CASE_VOXELS = X * Y * Z };

/* Class 1 in the slab x = 1, class 2 in x = 2, `unknown` in x = 3 and 4. */
static labels map_with(uint8_t unknown) {
  volume v = numbered_volume(X, Y, Z, 1);
  labels l = {0};
  expect_ok(labels_allocate(&l, v.size));
  memcpy(l.affine, v.affine, sizeof l.affine);
  for (int i = 0; i < CASE_VOXELS; i++) {
    int x = i / (Y * Z);
    l.data[i] = x < 3 ? (uint8_t)x : unknown;
  }
  volume_free(&v);
  return l;
}

static void put_case(const char *image, const char *label, uint8_t unknown) {
  volume v = numbered_volume(X, Y, Z, 1);
  labels l = map_with(unknown);
  expect_ok(nifti_write_volume(inside(image), &v));
  expect_ok(nifti_write_labels(inside(label), &l, NULL));
  volume_free(&v);
  labels_free(&l);
}

static void make_nnunet(const char *classes) {
  expect_ok(folder_create(inside("n/imagesTr")));
  expect_ok(folder_create(inside("n/labelsTr")));
  put_case("n/imagesTr/a_0000.nii", "n/labelsTr/a.nii", 4);
  char text[400];
  snprintf(text, sizeof text,
           "{\"channel_names\": {\"0\": \"CT\"}, \"labels\": {\"background\": 0, %s}, "
           "\"file_ending\": \".nii\"}",
           classes);
  write_text(inside("n/dataset.json"), text);
}

static data_spec nnunet_spec(void) {
  return (data_spec){.layout = DATASET_NNUNET, .dataset = inside("n"), .split = {1, 0, 0}};
}

static void nnunets_ignore_label_is_no_class(void **state) {
  (void)state;
  make_nnunet("\"liver\": 1, \"tumour\": 2, \"vessel\": 3, \"ignore\": 4");
  data_spec spec = nnunet_spec();
  dataset *d;
  expect_ok(dataset_open(&spec, 1, &d));
  assert_int_equal(d->class_count, 4);
  assert_int_equal(d->ignore_label, 4);
  medical_case c;
  for (int cached = 0; cached < 2; cached++) {
    expect_ok(case_prepare(&spec, &d->cases[0], inside("cache"), &c));
    labels expected = map_with(LABEL_UNKNOWN);
    assert_memory_equal(c.label.data, expected.data, CASE_VOXELS);
    labels_free(&expected);
    case_free(&c);
  }
  dataset_free(d);
  spec.ignore_label = 5;
  expect_error(dataset_open(&spec, 1, &d), "\"ignore\" is 4, but data: ignore_label says 5");
}

static void the_ignore_label_is_above_all_classes(void **state) {
  (void)state;
  dataset *d;
  make_nnunet("\"liver\": 1, \"tumour\": 2, \"vessel\": 3");
  data_spec spec = nnunet_spec();
  spec.ignore_label = 2;
  expect_error(dataset_open(&spec, 1, &d), "class 3 (vessel) is above it");
  spec = (data_spec){.layout = DATASET_BTCV, .dataset = inside("n"), .ignore_label = 13};
  expect_error(dataset_open(&spec, 1, &d), "the ignore label 13 must be above all classes");
  make_nnunet("\"liver\": 1, \"ignore\": 255, \"far\": 254");
  spec = nnunet_spec();
  expect_ok(dataset_open(&spec, 1, &d));
  assert_int_equal(d->class_count, LABEL_CLASSES);
  dataset_free(d);
}

static void what_is_prepared_with_an_ignore_label_is_cached_apart(void **state) {
  (void)state;
  make_nnunet("\"liver\": 1, \"tumour\": 2, \"vessel\": 3, \"other\": 4");
  data_spec spec = nnunet_spec();
  dataset *whole, *partial;
  medical_case c;
  expect_ok(dataset_open(&spec, 1, &whole));
  assert_int_equal(whole->class_count, 5);
  expect_ok(case_prepare(&spec, &whole->cases[0], inside("cache"), &c));
  assert_int_equal(c.label.data[CASE_VOXELS - 1], 4);
  case_free(&c);
  spec.ignore_label = 4; /* the highest class is not learned any more */
  expect_ok(dataset_open(&spec, 1, &partial));
  assert_int_equal(partial->class_count, 4);
  expect_ok(case_prepare(&spec, &partial->cases[0], inside("cache"), &c));
  assert_int_equal(c.label.data[CASE_VOXELS - 1], LABEL_UNKNOWN);
  case_free(&c);
  expect_ok(case_prepare(&spec, &whole->cases[0], inside("cache"), &c));
  assert_int_equal(c.label.data[CASE_VOXELS - 1], 4);
  case_free(&c);
  assert_true(whole->identity != partial->identity);
  expect_ok(dataset_hash(&spec, whole, NULL, NULL));
  expect_ok(dataset_hash(&spec, partial, NULL, NULL));
  assert_true(dataset_content(whole) != dataset_content(partial));
  dataset_free(whole);
  dataset_free(partial);
}

static void values_that_are_neither_class_nor_ignored_are_refused(void **state) {
  (void)state;
  make_nnunet("\"liver\": 1, \"ignore\": 4"); /* 2 has no name */
  data_spec spec = nnunet_spec();
  dataset *d;
  medical_case c;
  expect_ok(dataset_open(&spec, 1, &d));
  expect_error(case_prepare(&spec, &d->cases[0], NULL, &c),
               "contains class 2, but the data set names only classes 0 to 1 and the ignore label "
               "4. Name it there, or correct the label.");
  dataset_free(d);
  make_nnunet("\"liver\": 1, \"tumour\": 2");
  spec.ignore_label = 4;
  put_case("n/imagesTr/a_0000.nii", "n/labelsTr/a.nii", LABEL_UNKNOWN); /* as it stands in files */
  expect_ok(dataset_open(&spec, 1, &d));
  expect_error(case_prepare(&spec, &d->cases[0], NULL, &c), "contains class 255");
  dataset_free(d);
}

static void data_check_counts_unknown_voxels_apart(void **state) {
  (void)state;
  make_nnunet("\"liver\": 1, \"tumour\": 2, \"ignore\": 4");
  data_spec spec = nnunet_spec();
  dataset *d;
  dataset_look look;
  expect_ok(dataset_open(&spec, 1, &d));
  expect_ok(dataset_look_at(d, NULL, NULL, &look));
  assert_int_equal(look.found.count, 0);
  assert_true(fabs(look.cases[0].unknown - 0.4) < 1e-12);
  assert_int_equal(look.cases[0].class_voxels[1], Y * Z);
  /* Intensities of the foreground: of x = 1 and 2, whose values are 13 to 36. */
  assert_int_equal(look.channels[0].count, 2 * Y * Z);
  assert_true(look.channels[0].min == 13 && look.channels[0].max == 36);
  char *text = NULL;
  size_t length;
  FILE *out = open_memstream(&text, &length);
  dataset_look_print(&look, out);
  fclose(out);
  assert_non_null(strstr(text, "unknown, left out"));
  assert_non_null(strstr(text, "40 to 40 % of the voxels"));
  free(text);
  expect_ok(dataset_look_write(&look, inside("look.json")));
  json_t *root = json_load_file(inside("look.json"), 0, NULL);
  assert_int_equal(json_integer_value(json_object_get(root, "ignore_label")), 4);
  json_t *first = json_array_get(json_object_get(root, "cases"), 0);
  assert_true(fabs(json_real_value(json_object_get(first, "unknown_share")) - 0.4) < 1e-9);
  json_decref(root);
  dataset_look_free(&look);
  dataset_free(d);
}

/* ---- crops and other changes ------------------------------------------------------------------- */

enum { SIDE = 12, SIDE_VOXELS = SIDE * SIDE * SIDE };

/* The middle voxels of crops of 3³ from a map that `value_of` fills. */
static void draw_middles(op_use use, uint8_t (*value_of)(int x), bool counted, int middles[256]) {
  medical_case c = {.name = "case", .image = numbered_volume(SIDE, SIDE, SIDE, 1)};
  data_spec spec = {.sample = &use, .sample_count = 1};
  expect_ok(labels_allocate(&c.label, c.image.size));
  memcpy(c.label.affine, c.image.affine, sizeof c.label.affine);
  for (int i = 0; i < SIDE_VOXELS; i++) c.label.data[i] = value_of(i / (SIDE * SIDE));
  if (counted) expect_ok(labels_count(&c.label));
  memset(middles, 0, 256 * sizeof *middles);
  for (int crop = 0; crop < 300; crop++) {
    medical_case out;
    expect_ok(case_sample(&spec, &c, rng_key_of(1, "stage", 0, "case", crop), &out));
    middles[out.label.data[13]]++;
    case_free(&out);
  }
  case_free(&c);
}

/* Inner slabs, so that crops need not be moved into the volume. */
static uint8_t mostly_unknown(int x) {
  return x == 5 ? 1 : x == 8 ? 0 : LABEL_UNKNOWN;
}

static uint8_t all_unknown(int x) {
  (void)x;
  return LABEL_UNKNOWN;
}

static void crops_lie_around_voxels_whose_class_is_known(void **state) {
  (void)state;
  arena memory = {0};
  op_use uses[] = {USE(&memory, "random_crop", "size", "3"),
                   USE(&memory, "random_crop", "size", "3", "positive", "1", "negative", "0"),
                   USE(&memory, "random_crop", "size", "3", "foreground", "0.5"),
                   USE(&memory, "random_crop", "size", "3", "class_ratios", "[1, 1, 1]")};
  int middles[256];
  for (int k = 0; k < 4; k++)
    for (int counted = 0; counted < 2; counted++) {
      /* y and z of a centre may lie at the rim, where the crop is moved, but not off its slab. */
      draw_middles(uses[k], mostly_unknown, counted, middles);
      assert_int_equal(middles[LABEL_UNKNOWN], 0);
      assert_int_equal(middles[0] + middles[1], 300);
      if (k == 1) assert_int_equal(middles[1], 300);
      if (k != 1) assert_true(middles[0] > 30 && middles[1] > 30);
      draw_middles(uses[k], all_unknown, counted, middles); /* anywhere */
      assert_int_equal(middles[LABEL_UNKNOWN], 300);
    }
  arena_free(&memory);
}

static void resampling_keeps_unknown_a_label_of_its_own(void **state) {
  (void)state;
  arena memory = {0};
  const char *const ways[] = {"nearest", "linear"};
  for (int way = 0; way < 2; way++) {
    op_use use = USE(&memory, "resample", "spacing", "[0.75, 1, 1.25]", "label", ways[way]);
    medical_case c = {.name = "case", .image = numbered_volume(X, Y, Z, 1)};
    const double affine[4][4] = {{1.5, 0, 0, 0}, {0, 2, 0, 0}, {0, 0, 2.5, 0}, {0, 0, 0, 1}};
    c.label = map_with(LABEL_UNKNOWN);
    memcpy(c.image.affine, affine, sizeof affine);
    memcpy(c.label.affine, affine, sizeof affine);
    host_call call = {.op = use.op, .attrs = use.attrs, .c = &c, .delayed = HOST_NOTHING_DELAYED};
    expect_ok(use.op->host(&call));
    const int64_t *size = c.label.size, voxels = size[0] * size[1] * size[2];
    assert_int_equal(size[0], 9);
    int count[256] = {0};
    for (int64_t i = 0; i < voxels; i++) count[c.label.data[i]]++;
    assert_int_equal(count[0] + count[1] + count[2] + count[LABEL_UNKNOWN], voxels);
    assert_int_equal(c.label.data[voxels - 1], LABEL_UNKNOWN);
    /* x = 2 and 3 of the old grid are 4 and 6 of the new; of equals the class is taken. */
    if (way == 1) assert_int_equal(c.label.data[5 * size[1] * size[2]], 2);
    case_free(&c);
  }
  arena_free(&memory);
}

/* Turned, bent and scaled maps have the values that they had, and background from outside. */
static void augmentation_makes_no_other_labels(void **state) {
  (void)state;
  arena memory = {0};
  op_use uses[] = {USE(&memory, "random_affine", "rotation", "40", "rotate_probability", "1",
                       "zoom", "[0.7, 1.4]", "zoom_probability", "1"),
                   USE(&memory, "random_elastic", "probability", "1"),
                   USE(&memory, "random_flip", "probability", "1")};
  for (int k = 0; k < 3; k++) {
    data_spec spec = {.sample = &uses[k], .sample_count = 1};
    int count[256] = {0};
    for (int draw = 0; draw < 20; draw++) {
      medical_case c = {.name = "case", .image = numbered_volume(X, Y, Z, 1)}, out;
      c.label = map_with(LABEL_UNKNOWN);
      expect_ok(case_sample(&spec, &c, rng_key_of(1, "stage", 0, "case", draw), &out));
      for (int i = 0; i < CASE_VOXELS; i++) count[out.label.data[i]]++;
      case_free(&out);
      case_free(&c);
    }
    assert_true(count[LABEL_UNKNOWN] > 0);
    assert_int_equal(count[0] + count[1] + count[2] + count[LABEL_UNKNOWN], 20 * CASE_VOXELS);
  }
  arena_free(&memory);
}

static void padding_is_background(void **state) {
  (void)state;
  arena memory = {0};
  op_use use = USE(&memory, "centre_crop", "size", "[9, 4, 3]");
  medical_case c = {.name = "case", .image = numbered_volume(X, Y, Z, 1)}, out;
  c.label = map_with(LABEL_UNKNOWN);
  data_spec spec = {.sample = &use, .sample_count = 1};
  expect_ok(case_sample(&spec, &c, rng_key_of(1, "stage", 0, "case", 0), &out));
  assert_int_equal(out.label.data[0], 0);
  assert_int_equal(out.label.data[9 * Y * Z - 1], 0);
  assert_int_equal(out.label.data[6 * Y * Z], LABEL_UNKNOWN); /* x = 4 behind two of padding */
  case_free(&out);
  case_free(&c);
  arena_free(&memory);
}

/* ---- metrics ----------------------------------------------------------------------------------- */

static labels cube_map(void) {
  labels l = {0};
  expect_ok(labels_allocate(&l, (int64_t[]){SIDE, SIDE, SIDE}));
  for (int a = 0; a < 4; a++) l.affine[a][a] = 1;
  return l;
}

static void box(labels *l, int from, int to, uint8_t value) {
  for (int x = from; x < to; x++)
    for (int y = 3; y < 9; y++)
      for (int z = 3; z < 9; z++) l->data[(x * SIDE + y) * SIDE + z] = value;
}

/* The reference is a box, whose voxels from x = 8 on are unknown; the prediction goes on there, and up to
 * the end of the volume. */
static void metrics_leave_out_unknown_voxels_of_the_reference(void **state) {
  (void)state;
  evaluate_spec spec = {.metrics = METRIC_BIT(METRIC_COUNT) - 1, .ignore_label = 7};
  labels prediction = cube_map(), reference = cube_map();
  box(&prediction, 2, SIDE, 1);
  box(&reference, 3, 8, 1);
  for (int i = 8 * SIDE * SIDE; i < SIDE_VOXELS; i++) reference.data[i] = 7;
  case_score s;
  expect_ok(score_case(&prediction, &reference, 2, &spec, "case", NULL, &s));
  assert_int_equal(s.voxels, SIDE_VOXELS);
  assert_int_equal(s.ignored_voxels, 4 * SIDE * SIDE);
  assert_int_equal(s.classes[1].predicted_voxels, 6 * 36);
  assert_int_equal(s.classes[1].reference_voxels, 5 * 36);
  assert_int_equal(s.classes[1].overlap_voxels, 5 * 36);
  assert_true(fabs(s.classes[1].value[METRIC_DICE] - 10.0 / 11) < 1e-12);
  assert_true(s.classes[1].value[METRIC_HD] == 1); /* x = 2 beside 3; 4 mm without the key */
  assert_int_equal(s.classes[0].predicted_voxels, 8 * SIDE * SIDE - 6 * 36);
  /* The same as of maps that end where the known voxels do. */
  evaluate_spec plain = spec;
  plain.ignore_label = 0;
  labels cut[2] = {cube_map(), cube_map()};
  for (int k = 0; k < 2; k++) cut[k].size[0] = 8;
  memcpy(cut[0].data, prediction.data, 8 * SIDE * SIDE);
  memcpy(cut[1].data, reference.data, 8 * SIDE * SIDE);
  case_score of_cut;
  expect_ok(score_case(&cut[0], &cut[1], 2, &plain, "case", NULL, &of_cut));
  for (int m = 0; m < METRIC_COUNT; m++)
    assert_memory_equal(&s.classes[1].value[m], &of_cut.classes[1].value[m], sizeof(double));
  case_score_free(&of_cut);
  case_score_free(&s);
  /* Without the key the value is a class like others. */
  expect_error(score_case(&prediction, &reference, 2, &plain, "case", NULL, &s), "class 7");
  for (int k = 0; k < 2; k++) labels_free(&cut[k]);
  labels_free(&prediction);
  labels_free(&reference);
}

static void a_case_of_which_nothing_is_known_has_no_score(void **state) {
  (void)state;
  evaluate_spec spec = {.metrics = METRICS_DEFAULT, .ignore_label = 7, .empty = EMPTY_ONE};
  labels prediction = cube_map(), reference = cube_map();
  box(&prediction, 2, 8, 1);
  memset(reference.data, 7, SIDE_VOXELS);
  case_score s;
  expect_ok(score_case(&prediction, &reference, 2, &spec, "case", NULL, &s));
  assert_true(isnan(s.classes[1].value[METRIC_DICE]) && !s.classes[1].hallucinated);
  case_score_free(&s);
  labels_free(&prediction);
  labels_free(&reference);
}

static void what_was_left_out_stands_in_the_evaluation(void **state) {
  (void)state;
  evaluate_spec spec = {.metrics = METRICS_DEFAULT, .ignore_label = 7};
  const char *names[] = {"background", "a"};
  class_score classes[2] = {{.value = {0}}, {.value = {0.5, 1}}};
  case_score cases[] = {
      {.name = "case", .classes = classes, .voxels = 1000, .ignored_voxels = 125}};
  evaluation e = {
      .class_names = names, .class_count = 2, .cases = cases, .case_count = 1, .spec = &spec};
  expect_ok(evaluation_write(&e, inside("evaluation.json")));
  json_t *root = json_load_file(inside("evaluation.json"), 0, NULL);
  assert_int_equal(json_integer_value(json_object_get(root, "ignore_label")), 7);
  json_t *first = json_array_get(json_object_get(root, "cases"), 0);
  assert_int_equal(json_integer_value(json_object_get(first, "ignored_voxels")), 125);
  json_decref(root);
  char *text = NULL;
  size_t length;
  FILE *out = open_memstream(&text, &length);
  evaluation_print(&e, out);
  fclose(out);
  assert_non_null(strstr(text, "label 7 in the reference are left out, 12.5 % of all"));
  free(text);
}

/* ---- pictures ---------------------------------------------------------------------------------- */

static void unknown_voxels_are_hatched_in_grey(void **state) {
  (void)state;
  labels l = cube_map();
  memset(l.data, LABEL_UNKNOWN, SIDE_VOXELS);
  slice_axes axes = slice_of_voxels(l.size, (const double(*)[4])l.affine, PLANE_AXIAL);
  const label_style styles[] = {LABEL_FILL, LABEL_CONTOUR, LABEL_DASHED};
  for (int k = 0; k < 3; k++) {
    image picture;
    int hatched = 0;
    expect_ok(image_create(&picture, 60, 60, COLOUR_CLEAR));
    slice_labels(&l, &axes, 3, styles[k], 1, &picture);
    for (int p = 0; p < 60 * 60; p++) {
      const uint8_t *c = picture.rgba + 4 * p;
      assert_true(c[3] < 255 && c[0] == c[1] && c[1] == c[2]); /* as no contour is */
      hatched += c[3] > 0;
    }
    assert_in_range(hatched, 60 * 60 / 5, 60 * 60 / 2);
    image_free(&picture);
  }
  labels_free(&l);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(losses_do_not_see_unknown_voxels),
      cmocka_unit_test(a_sample_without_a_known_voxel_changes_nothing),
      cmocka_unit_test(where_nothing_is_known_loss_and_gradient_are_zero),
      cmocka_unit_test(distances_to_boundaries_known_in_part_are_refused),
      cmocka_unit_test_setup_teardown(nnunets_ignore_label_is_no_class, begin, end),
      cmocka_unit_test_setup_teardown(the_ignore_label_is_above_all_classes, begin, end),
      cmocka_unit_test_setup_teardown(what_is_prepared_with_an_ignore_label_is_cached_apart, begin,
                                      end),
      cmocka_unit_test_setup_teardown(values_that_are_neither_class_nor_ignored_are_refused, begin,
                                      end),
      cmocka_unit_test_setup_teardown(data_check_counts_unknown_voxels_apart, begin, end),
      cmocka_unit_test(crops_lie_around_voxels_whose_class_is_known),
      cmocka_unit_test(resampling_keeps_unknown_a_label_of_its_own),
      cmocka_unit_test(augmentation_makes_no_other_labels),
      cmocka_unit_test(padding_is_background),
      cmocka_unit_test(metrics_leave_out_unknown_voxels_of_the_reference),
      cmocka_unit_test(a_case_of_which_nothing_is_known_has_no_score),
      cmocka_unit_test_setup_teardown(what_was_left_out_stands_in_the_evaluation, begin, end),
      cmocka_unit_test(unknown_voxels_are_hatched_in_grey),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
