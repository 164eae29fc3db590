/* Prepare operators against MONAI's and SciPy's results; sample operators by their own definitions. */
#include "data_fixture.h"

#define PREPARE TEST_DATA "/golden/prepare/"

static medical_case load_case(void) {
  medical_case c = {.name = "case"};
  expect_ok(nifti_read_volume(PREPARE "image.nii.gz", &c.image));
  expect_ok(nifti_read_labels(PREPARE "label.nii.gz", &c.label));
  return c;
}

static void compare_volume(const char *name, const volume *got, const volume *want) {
  for (int a = 0; a < 3; a++)
    if (got->size[a] != want->size[a])
      fail_msg("%s: extent %lld along %c, expected %lld", name, (long long)got->size[a], "xyz"[a],
               (long long)want -> size[a]);
  for (int i = 0; i < 12; i++)
    if (!(fabs(got->affine[i / 4][i % 4] - want->affine[i / 4][i % 4]) < 1e-4))
      fail_msg("%s: affine entry %d is %g, expected %g", name, i, got->affine[i / 4][i % 4],
               want->affine[i / 4][i % 4]);
  for (int64_t i = 0; i < got->size[0] * got->size[1] * got->size[2]; i++) {
    double g = (double)got->data[i], w = (double)want->data[i];
    if (!(fabs(g - w) <= 2e-5 * (1 + fabs(w))))
      fail_msg("%s: voxel %lld is %.7g, expected %.7g", name, (long long)i, g, w);
  }
}

/* Nearest-voxel ties may fall either way; a label differs in at most one voxel of a hundred. */
static void compare_labels(const char *name, const labels *got, const labels *want) {
  assert_memory_equal(got->size, want->size, sizeof got->size);
  int64_t n = got->size[0] * got->size[1] * got->size[2], different = 0;
  for (int64_t i = 0; i < n; i++) different += got->data[i] != want->data[i];
  if (different * 100 > n)
    fail_msg("%s: %lld of %lld label voxels differ", name, (long long)different, (long long)n);
}

static void prepare_operators_equal_monai_and_scipy(void **state) {
  (void)state;
  FILE *in = fopen(PREPARE "cases.txt", "r");
  assert_non_null(in);
  char line[512], path[512];
  int cases = 0;
  while (fgets(line, sizeof line, in)) {
    line[strcspn(line, "\n")] = 0;
    const char *field[12] = {0};
    int fields = 0;
    for (char *part = strtok(line, "\t"); part && fields < 12; part = strtok(NULL, "\t"))
      field[fields++] = part;
    const char *attributes[16] = {0};
    arena memory = {0};
    for (int i = 3; i < fields; i++) {
      char *text = arena_strdup(&memory, field[i]), *equals = strchr(text, '=');
      *equals = 0;
      attributes[2 * (i - 3)] = text;
      attributes[2 * (i - 3) + 1] = equals + 1;
    }
    op_use use = use_operator(&memory, field[2], attributes);
    medical_case c = load_case();
    volume want;
    host_call call = {.op = use.op, .attrs = use.attrs, .c = &c, .delayed = HOST_NOTHING_DELAYED};
    host_infer known = {.attrs = use.attrs, .of_case = true};
    memcpy(known.size, c.image.size, sizeof known.size);
    memcpy(known.affine, c.image.affine, sizeof known.affine);
    if (use.op->host_infer) expect_ok(use.op->host_infer(&known));
    expect_ok(use.op->host(&call));
    expect_ok(host_settle(&call, false));
    for (int a = 0; a < 3; a++)
      assert_true(known.shrinks ? known.size[a] >= c.image.size[a]
                                : known.size[a] == c.image.size[a]);
    for (int i = 0; i < 9; i++)
      assert_true(known.affine[i / 3][i % 3] == c.image.affine[i / 3][i % 3]);
    snprintf(path, sizeof path, PREPARE "%s", field[0]);
    expect_ok(nifti_read_volume(path, &want));
    compare_volume(field[0], &c.image, &want);
    assert_memory_equal(c.label.affine, c.image.affine, sizeof c.image.affine);
    if (strcmp(field[1], "-") != 0) {
      labels want_label;
      snprintf(path, sizeof path, PREPARE "%s", field[1]);
      expect_ok(nifti_read_labels(path, &want_label));
      compare_labels(field[1], &c.label, &want_label);
      labels_free(&want_label);
    }
    volume_free(&want);
    case_free(&c);
    arena_free(&memory);
    cases++;
  }
  fclose(in);
  assert_true(cases >= 24);
}

static void orienting_moves_no_voxel(void **state) {
  (void)state;
  static const char letters[3][2] = {{'R', 'L'}, {'A', 'P'}, {'S', 'I'}};
  static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                   {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
  for (int code = 0; code < 48; code++) {
    char axes[4] = {0};
    for (int a = 0; a < 3; a++) axes[a] = letters[orders[code / 8][a]][code >> a & 1];
    const voxel_change plain = {.intensity = RESCALE_NONE};
    volume in = numbered_volume(4, 5, 6, 2), out, back;
    grid_map map = grid_to_axes((const double(*)[4])in.affine, in.size, axes);
    expect_ok(volume_regrid(&in, &map, &plain, &out));
    expect_same_places(&in, &out);
    for (int a = 0; a < 3; a++) {
      int world = orders[code / 8][a];
      assert_true((out.affine[world][a] > 0) == (axes[a] == letters[world][0]));
    }
    map = grid_to_axes((const double(*)[4])out.affine, out.size, "LPS"); /* that of `in` */
    expect_ok(volume_regrid(&out, &map, &plain, &back));
    assert_memory_equal(back.data, in.data, 4 * 5 * 6 * 2 * sizeof *in.data);
    volume_free(&in);
    volume_free(&out);
    volume_free(&back);
  }
  assert_false(grid_axes_valid("RAR"));
  assert_false(grid_axes_valid("RA"));
  assert_false(grid_axes_valid("RASS"));
  assert_false(grid_axes_valid("ras"));
  assert_false(grid_axes_valid("xyx"));
  assert_false(grid_axes_valid("xyS"));
  assert_false(grid_axes_valid("xyzx"));
  assert_true(grid_axes_valid("SLP"));
  assert_true(grid_axes_valid("zxy"));
}

/* Crops, mirror images and both, of two channels and a label. */
static void a_part_of_a_grid_stays_in_its_memory(void **state) {
  (void)state;
  const voxel_change plain = {.intensity = RESCALE_NONE};
  const int64_t size[3] = {9, 7, 11};
  for (int k = 0; k < 64; k++) {
    grid_map map = grid_identity(size);
    for (int a = 0; a < 3; a++) {
      map.size[a] = size[a] - (k >> a & 1 ? 1 + a + k % 3 : 0);
      map.flip[a] = k >> (3 + a) & 1;
      map.start[a] = (size[a] - map.size[a] + 1) / 2 + (map.flip[a] ? map.size[a] - 1 : 0);
    }
    volume v = {0}, want = {0};
    labels l = {0}, want_label = {0};
    expect_ok(volume_allocate(&v, size, 2));
    expect_ok(labels_allocate(&l, size));
    for (int i = 0; i < 9 * 7 * 11 * 2; i++) v.data[i] = (float)i;
    for (int i = 0; i < 9 * 7 * 11; i++) l.data[i] = (uint8_t)(i % 251);
    assert_true(grid_is_part(&map, size));
    expect_ok(volume_regrid(&v, &map, &plain, &want));
    expect_ok(labels_regrid(&l, &map, &want_label));
    volume_keep_part(&v, size, &map);
    labels_keep_part(&l, size, &map);
    size_t voxels = (size_t)(map.size[0] * map.size[1] * map.size[2]);
    assert_memory_equal(v.data, want.data, voxels * 2 * sizeof(float));
    assert_memory_equal(l.data, want_label.data, voxels);
    volume_free(&v);
    volume_free(&want);
    labels_free(&l);
    labels_free(&want_label);
    map.start[k % 3] += size[k % 3];
    assert_false(grid_is_part(&map, size));
  }
}

static void bad_attributes_are_refused_before_data_is_read(void **state) {
  (void)state;
  arena memory = {0};
  op_use bad[] = {
      USE(&memory, "orient", "axes", "RAX"),
      USE(&memory, "scale_range", "from", "[3, 3]"),
      USE(&memory, "pad", "value", "2"),
      USE(&memory, "random_rot90", "plane", "[x]"),
      USE(&memory, "random_affine", "plane", "[x]"),
      USE(&memory, "random_elastic", "plane", "z"),
      USE(&memory, "random_crop", "size", "4", "foreground", "0.3", "class_ratios", "[1, 1]"),
      USE(&memory, "random_crop", "size", "4", "class_ratios", "[0, 0]"),
  };
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    host_infer shape = {.attrs = bad[i].attrs, .size = {-1, -1, -1}, .channels = 1};
    status error = bad[i].op->host_infer(&shape);
    assert_non_null(error);
    error_free(error);
  }
  arena_free(&memory);
}

/* A case with the spacings given, voxels in a row along z counting from 0. */
static medical_case line_along_z(const double spacing_mm[3], int64_t x, int64_t y, int64_t z) {
  medical_case c = {.name = "case", .image = numbered_volume(x, y, z, 1)};
  for (int64_t i = 0; i < x * y * z; i++) c.image.data[i] = (float)(i % z);
  memset(c.image.affine, 0, sizeof c.image.affine);
  for (int a = 0; a < 3; a++) c.image.affine[a][a] = spacing_mm[a];
  c.image.affine[3][3] = 1;
  return c;
}

static void resample_in_place(op_use use, medical_case *c) {
  host_call call = {.attrs = use.attrs, .c = c, .delayed = HOST_NOTHING_DELAYED};
  expect_ok(use.op->host(&call));
  expect_ok(host_settle(&call, false));
}

/* The even voxel as torch's grid_sample has it, the later one as SciPy's map_coordinates of order 0. */
static void halfway_between_voxels_the_grid_decides(void **state) {
  (void)state;
  arena memory = {0};
  const struct {
    op_use use;
    int64_t before;
    double spacing_mm;
    int64_t after;
    float voxels[8];
  } cases[] = {
      {USE(&memory, "resample", "spacing", "[1, 1, 1]", "image", "nearest"),
       4,
       2,
       7,
       {0, 0, 1, 2, 2, 2, 3}},
      {USE(&memory, "resample", "spacing", "[1, 1, 4]", "image", "nearest", "grid", "extent"),
       8,
       2,
       4,
       {1, 3, 5, 7}},
      {USE(&memory, "resample", "spacing", "[1, 1, 4]", "image", "cubic", "grid", "extent",
           "separate_axis", "z"),
       8,
       2,
       4,
       {1, 3, 5, 7}},
      {USE(&memory, "resample", "spacing", "[1, 1, 2]", "image", "nearest", "grid", "extent"),
       4,
       3,
       6,
       {0, 1, 1, 2, 3, 3}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    medical_case c =
        line_along_z((const double[]){1, 1, cases[i].spacing_mm}, 1, 1, cases[i].before);
    resample_in_place(cases[i].use, &c);
    assert_int_equal(c.image.size[2], cases[i].after);
    for (int64_t z = 0; z < cases[i].after; z++)
      assert_float_equal(c.image.data[z], cases[i].voxels[z], 0);
    case_free(&c);
  }
  arena_free(&memory);
}

/* nnU-Net asks the new grid only about a case in which no axis is coarse. */
static void two_coarse_axes_are_interpolated(void **state) {
  (void)state;
  static const char *const ways[] = {"auto", "none"};
  arena memory = {0};
  float voxel[2];
  for (int i = 0; i < 2; i++) {
    op_use use = USE(&memory, "resample", "spacing", "[1, 1, 5]", "image", "cubic", "grid",
                     "extent", "separate_axis", ways[i]);
    medical_case c = line_along_z((const double[]){0.5, 4, 4}, 4, 3, 8);
    resample_in_place(use, &c);
    voxel[i] = c.image.data[1];
    case_free(&c);
  }
  assert_float_equal(voxel[0], voxel[1], 0);
  arena_free(&memory);
}

static void foreground_must_exist(void **state) {
  (void)state;
  arena memory = {0};
  op_use use = USE(&memory, "crop_foreground", "above", "1e9");
  medical_case c = load_case();
  host_call call = {.attrs = use.attrs, .c = &c, .delayed = HOST_NOTHING_DELAYED};
  expect_error(use.op->host(&call), "no foreground");
  case_free(&c);
  arena_free(&memory);
}

/* ---- sample operators ---- */

typedef struct sampling {
  arena memory;
  data_spec spec;
  op_use uses[8];
  medical_case in;
} sampling;

static sampling sampling_of(int64_t x, int64_t y, int64_t z, int64_t channels) {
  sampling s = {.in = {.name = "case", .image = numbered_volume(x, y, z, channels)}};
  expect_ok(labels_allocate(&s.in.label, s.in.image.size));
  memcpy(s.in.label.affine, s.in.image.affine, sizeof s.in.image.affine);
  return s;
}

static void sampling_add(sampling *s, op_use use) {
  s->uses[s->spec.sample_count++] = use;
}

/* The same sample in memory that is there already, and holds something else. */
static void expect_same_in_place(sampling *s, int64_t crop, const medical_case *sample) {
  medical_case room = {.image = sample->image, .label = sample->label};
  size_t voxels = (size_t)(room.image.size[0] * room.image.size[1] * room.image.size[2]);
  size_t values = voxels * (size_t)room.image.channels;
  room.image.data = malloc(values * sizeof(float));
  room.label.data = malloc(voxels);
  memset(room.image.data, 0x55, values * sizeof(float));
  memset(room.label.data, 0x55, voxels);
  expect_ok(case_sample_into(&s->spec, &s->in, rng_key_of(1, "stage", 0, "case", crop), &room));
  assert_memory_equal(room.image.data, sample->image.data, values * sizeof(float));
  for (size_t i = 0; i < voxels; i++)
    assert_int_equal(room.label.data[i], sample->label.data ? sample->label.data[i] : 0);
  free(room.image.data);
  free(room.label.data);
}

static medical_case draw(sampling *s, int64_t crop) {
  medical_case out;
  s->spec.sample = s->uses;
  expect_ok(case_sample(&s->spec, &s->in, rng_key_of(1, "stage", 0, "case", crop), &out));
  expect_same_in_place(s, crop, &out);
  return out;
}

static void sampling_end(sampling *s) {
  case_free(&s->in);
  arena_free(&s->memory);
}

/* A class for every voxel: of neighbours, and of a voxel and its mirror images, hardly two are the
 * same. 0 is left for what lies outside. */
static uint8_t class_of_voxel(int64_t number) {
  return (uint8_t)(number % 251 + 1);
}

static void moving_operators_keep_every_voxel_in_its_place(void **state) {
  (void)state;
  for (int cube = 0; cube < 2; cube++) {
    sampling s = sampling_of(9, 8, 7, 2);
    for (int64_t i = 0; i < 9 * 8 * 7; i++) s.in.label.data[i] = class_of_voxel(i);
    sampling_add(&s, USE(&s.memory, "random_crop", "size", cube ? "[6, 6, 6]" : "[12, 5, 4]"));
    sampling_add(&s, USE(&s.memory, "random_flip", "probability", "0.5"));
    sampling_add(&s, USE(&s.memory, "random_rot90", "plane", "[x, z]", "probability", "0.8"));
    for (int crop = 0; crop < 40; crop++) {
      medical_case out = draw(&s, crop);
      for (int a = 0; a < 3; a++)
        assert_int_equal(out.image.size[a], cube ? 6 : a == 0 ? 12 : a == 1 ? 5 : 4);
      expect_same_places(&s.in.image, &out.image);
      assert_memory_equal(out.label.affine, out.image.affine, sizeof out.image.affine);
      for (int64_t i = 0; i < out.image.size[0] * out.image.size[1] * out.image.size[2]; i++) {
        int64_t number = (int64_t)out.image.data[i * 2 + 1] / 2 - 1; /* −1: outside */
        assert_int_equal(out.label.data[i], number < 0 ? 0 : class_of_voxel(number));
      }
      case_free(&out);
    }
    sampling_end(&s);
  }
}

/* The same list with every change made before the next operator. */
static medical_case draw_step_by_step(sampling *s, int64_t crop) {
  sampling strict = *s;
  op eager[8];
  for (int i = 0; i < s->spec.sample_count; i++) {
    eager[i] = *s->uses[i].op;
    eager[i].traits &= ~(unsigned)OP_LAZY;
    strict.uses[i].op = &eager[i];
  }
  return draw(&strict, crop);
}

static void changes_made_in_one_pass_are_those_of_each_operator(void **state) {
  (void)state;
  enum { SIZES = 3, LISTS = 4 };
  static const char *const crops[SIZES] = {"[6, 6, 6]", "[12, 5, 5]", "[72, 64, 64]"};
  for (int k = 0; k < SIZES * LISTS; k++)
    for (int channels = 1; channels <= 2; channels++) {
      bool large = k % SIZES == 2; /* of more than a MiB: written past the caches */
      sampling s = large ? sampling_of(80, 66, 70, channels) : sampling_of(9, 8, 7, channels);
      int64_t voxels = s.in.image.size[0] * s.in.image.size[1] * s.in.image.size[2];
      for (int64_t i = 0; i < voxels * channels; i++)
        s.in.image.data[i] = i % 13 == 0 ? -0.0f : (float)(i % 1009) / 7 - 50;
      for (int64_t i = 0; i < voxels; i++) s.in.label.data[i] = class_of_voxel(i);
      sampling_add(&s, USE(&s.memory, "random_crop", "size", crops[k % SIZES]));
      sampling_add(&s, USE(&s.memory, "random_flip", "probability", "0.5"));
      if (k / SIZES == 1) /* leaves the crop: what it cut off must not come back */
        sampling_add(&s, USE(&s.memory, "centre_crop", "size", large ? "[80, 70, 66]" : "9"));
      if (k / SIZES == 2) sampling_add(&s, USE(&s.memory, "random_noise", "probability", "1"));
      if (k / SIZES == 3) sampling_add(&s, USE(&s.memory, "random_brightness", "probability", "1"));
      sampling_add(&s, USE(&s.memory, "random_scale_intensity", "probability", "0.7"));
      sampling_add(&s, USE(&s.memory, "random_shift_intensity", "probability", "0.7"));
      sampling_add(&s, USE(&s.memory, "random_rot90", "plane", "[y, z]", "probability", "0.8"));
      sampling_add(&s, USE(&s.memory, "random_scale_intensity", "probability", "0.5"));
      for (int crop = 0; crop < (large ? 4 : 40); crop++) {
        medical_case out = draw(&s, crop), expected = draw_step_by_step(&s, crop);
        size_t n = (size_t)(out.image.size[0] * out.image.size[1] * out.image.size[2]);
        assert_memory_equal(out.image.size, expected.image.size, sizeof out.image.size);
        assert_memory_equal(out.image.affine, expected.image.affine, sizeof out.image.affine);
        assert_memory_equal(out.label.affine, expected.label.affine, sizeof out.label.affine);
        assert_memory_equal(out.image.data, expected.image.data,
                            n * (size_t)channels * sizeof(float));
        assert_memory_equal(out.label.data, expected.label.data, n);
        case_free(&out);
        case_free(&expected);
      }
      sampling_end(&s);
    }
}

static void scaling_then_shifting_rounds_twice(void **state) {
  (void)state;
  sampling s = sampling_of(16, 4, 4, 1); /* of the numbers 1 to 256 */
  sampling_add(&s, USE(&s.memory, "centre_crop", "size", "[18, 4, 4]")); /* a slab of 0 each side */
  sampling_add(&s, USE(&s.memory, "random_scale_intensity", "probability", "1"));
  sampling_add(&s, USE(&s.memory, "random_shift_intensity", "probability", "1"));
  medical_case both = draw(&s, 3);
  s.spec.sample_count = 2;
  medical_case scaled = draw(&s, 3);
  const float shift = both.image.data[0], factor = scaled.image.data[16];
  assert_true(factor > 0.9f && factor < 1.1f && factor != 1);
  assert_true(fabsf(shift) <= 0.1f && shift != 0);
  for (int i = 0; i < 18 * 16; i++) {
    volatile float product = (i < 16 || i >= 17 * 16 ? 0 : (float)(i - 15)) * factor;
    assert_true(product == scaled.image.data[i]);
    assert_true(product + shift == both.image.data[i]);
  }
  case_free(&both);
  case_free(&scaled);
  sampling_end(&s);
}

static void crops_follow_the_positive_share(void **state) {
  (void)state;
  sampling s = sampling_of(30, 30, 30, 1);
  s.in.label.data[(20 * 30 + 11) * 30 + 5] = 1;
  sampling_add(&s, USE(&s.memory, "random_crop", "size", "3", "positive", "3", "negative", "1"));
  int hits = 0, trials = 400;
  for (int crop = 0; crop < trials; crop++) {
    medical_case out = draw(&s, crop);
    hits += out.label.data[13] == 1; /* the middle voxel */
    case_free(&out);
  }
  assert_in_range(hits, trials * 66 / 100, trials * 84 / 100);
  /* Without the label it is one voxel among 27,000. */
  free(s.in.label.data);
  s.in.label.data = NULL;
  int64_t lowest = 30, highest = -1;
  double to_voxel[4][4];
  affine_inverse((const double(*)[4])s.in.image.affine, to_voxel);
  for (int crop = 0; crop < trials; crop++) {
    medical_case out = draw(&s, crop);
    assert_null(out.label.data);
    int64_t x = ((int64_t)out.image.data[0] - 1) / 900;
    lowest = x < lowest ? x : lowest;
    highest = x > highest ? x : highest;
    case_free(&out);
  }
  assert_int_equal(lowest, 0);
  assert_int_equal(highest, 27);
  sampling_end(&s);
}

static void sampling_leaves_the_prepared_case_alone(void **state) {
  (void)state;
  sampling s = sampling_of(20, 20, 20, 1);
  medical_case before;
  expect_ok(case_copy(&s.in, &before));
  sampling_add(&s, USE(&s.memory, "random_noise", "sd", "3", "probability", "1"));
  sampling_add(&s, USE(&s.memory, "random_scale_intensity", "probability", "1"));
  sampling_add(&s, USE(&s.memory, "random_shift_intensity", "probability", "1"));
  medical_case out = draw(&s, 0);
  assert_ptr_not_equal(out.image.data, s.in.image.data);
  assert_memory_not_equal(out.image.data, s.in.image.data, 8000 * sizeof(float));
  assert_memory_equal(before.image.data, s.in.image.data, 8000 * sizeof(float));
  case_free(&out);
  case_free(&before);
  sampling_end(&s);
}

static void intensity_operators_do_what_they_say(void **state) {
  (void)state;
  sampling s = sampling_of(20, 20, 20, 1);
  sampling_add(&s, USE(&s.memory, "random_scale_intensity", "factor", "0.2", "probability", "1"));
  double least = 9, most = 0;
  for (int crop = 0; crop < 200; crop++) {
    medical_case out = draw(&s, crop);
    double ratio = (double)out.image.data[99] / (double)s.in.image.data[99];
    assert_true(fabs((double)out.image.data[7999] / (double)s.in.image.data[7999] - ratio) < 1e-5);
    least = ratio < least ? ratio : least;
    most = ratio > most ? ratio : most;
    case_free(&out);
  }
  assert_true(least >= 0.8 && least < 0.82 && most <= 1.2 && most > 1.18);
  s.spec.sample_count = 0;
  sampling_add(&s, USE(&s.memory, "random_noise", "sd", "2", "probability", "0.5"));
  int changed = 0;
  for (int crop = 0; crop < 200; crop++) {
    medical_case out = draw(&s, crop);
    changed += memcmp(out.image.data, s.in.image.data, 8000 * sizeof(float)) != 0;
    case_free(&out);
  }
  assert_in_range(changed, 75, 125);
  sampling_end(&s);
}

/* A ramp stays a ramp under linear interpolation, so every voxel away from the border must have the
 * value that its place in millimetres asks for. */
static void expect_places(bool in_plane) {
  sampling s = sampling_of(20, 18, 16, 2);
  volume *v = &s.in.image;
  int64_t at[3], i = 0;
  double mm[3];
  for (at[0] = 0; at[0] < 20; at[0]++)
    for (at[1] = 0; at[1] < 18; at[1]++)
      for (at[2] = 0; at[2] < 16; at[2]++, i++) {
        place_mm((const double(*)[4])v->affine, at, mm);
        v->data[i * 2] = (float)(mm[0] - 2 * mm[1] + 3 * mm[2]);
        v->data[i * 2 + 1] = (float)(5 * mm[1]);
        s.in.label.data[i] = class_of_voxel(i);
      }
  sampling_add(&s,
               USE(&s.memory, "random_affine", "rotation", "[30, 20, 180]", "zoom", "[0.7, 1.4]",
                   "rotate_probability", "0.6", "zoom_probability", "0.6", "shear", "0.3",
                   "shear_probability", "0.6", "plane", in_plane ? "[y, z]" : "[x, y, z]"));
  double to_voxel[4][4];
  affine_inverse((const double(*)[4])v->affine, to_voxel);
  int checked = 0, moved = 0;
  for (int crop = 0; crop < 30; crop++) {
    medical_case out = draw(&s, crop);
    moved += memcmp(out.image.affine, v->affine, sizeof v->affine) != 0;
    /* A step across the plane leads to the same place of the next slice. */
    for (int r = 0; r < 3 && in_plane; r++)
      assert_true(fabs(out.image.affine[r][0] - v->affine[r][0]) < 1e-9);
    i = 0;
    for (at[0] = 0; at[0] < 20; at[0]++)
      for (at[1] = 0; at[1] < 18; at[1]++)
        for (at[2] = 0; at[2] < 16; at[2]++, i++) {
          place_mm((const double(*)[4])out.image.affine, at, mm);
          bool inside = true, tie = false;
          int64_t from[3];
          for (int r = 0; r < 3; r++) {
            double voxel = to_voxel[r][3];
            for (int k = 0; k < 3; k++) voxel += to_voxel[r][k] * mm[k];
            inside = inside && voxel > 0 && voxel < (double)(v->size[r] - 1);
            from[r] = (int64_t)rint(voxel);
            tie = tie || fabs(fabs(voxel - rint(voxel)) - 0.5) < 1e-6;
          }
          if (!inside) continue;
          assert_true(fabs((double)out.image.data[i * 2] - (mm[0] - 2 * mm[1] + 3 * mm[2])) < 1e-3);
          assert_true(fabs((double)out.image.data[i * 2 + 1] - 5 * mm[1]) < 1e-3);
          if (!tie)
            assert_int_equal(out.label.data[i],
                             class_of_voxel((from[0] * 18 + from[1]) * 16 + from[2]));
          checked++;
        }
    case_free(&out);
  }
  assert_true(checked > 10000);
  assert_in_range(moved, 20, 30);
  sampling_end(&s);
}

static void rotating_scaling_and_shearing_keep_places(void **state) {
  (void)state;
  expect_places(false);
}

static void in_a_plane_no_slice_is_mixed_with_another(void **state) {
  (void)state;
  expect_places(true);
}

/* Each channel of the case holds a voxel's index along one axis, and the label stands for its number: what
 * comes out says where it came from. */
static sampling indices_of(int64_t x, int64_t y, int64_t z) {
  sampling s = sampling_of(x, y, z, 3);
  int64_t at[3], i = 0;
  for (at[0] = 0; at[0] < x; at[0]++)
    for (at[1] = 0; at[1] < y; at[1]++)
      for (at[2] = 0; at[2] < z; at[2]++, i++) {
        for (int a = 0; a < 3; a++) s.in.image.data[i * 3 + a] = (float)at[a];
        s.in.label.data[i] = class_of_voxel(i);
      }
  return s;
}

static void elastic_displacements_have_the_spread_of_smoothed_noise(void **state) {
  (void)state;
  enum { X = 34, Y = 32, Z = 30, MARGIN = 9 };
  for (int in_plane = 0; in_plane < 2; in_plane++) {
    sampling s = indices_of(X, Y, Z);
    sampling_add(&s, USE(&s.memory, "random_elastic", "sigma", "[2, 2]", "magnitude",
                         in_plane ? "[8, 8]" : "[30, 30]", "probability", "1", "plane",
                         in_plane ? "[x, z]" : "[x, y, z]", "outside", "edge"));
    double squares = 0, weights = 0, weight_squares = 0;
    int64_t counted = 0, wrong = 0;
    for (int crop = 0; crop < (in_plane ? 40 : 8); crop++) {
      medical_case out = draw(&s, crop);
      int64_t at[3], i = 0;
      for (at[0] = 0; at[0] < X; at[0]++)
        for (at[1] = 0; at[1] < Y; at[1]++)
          for (at[2] = 0; at[2] < Z; at[2]++, i++) {
            const float *from = out.image.data + i * 3;
            int64_t nearest = (llrintf(from[0]) * Y + llrintf(from[1])) * Z + llrintf(from[2]);
            wrong += out.label.data[i] != class_of_voxel(nearest); /* only where rounding decides */
            if (in_plane) assert_true(fabsf(from[1] - (float)at[1]) < 1e-4f);
            bool inner = true;
            for (int a = 0; a < 3; a++)
              inner = inner && at[a] >= MARGIN && at[a] < s.in.image.size[a] - MARGIN;
            for (int a = 0; a < 3 && inner; a++) {
              if (in_plane && a == 1) continue;
              double moved = (double)(from[a] - (float)at[a]);
              squares += moved * moved;
              counted++;
            }
          }
      case_free(&out);
    }
    for (int d = -8; d <= 8; d++) weights += exp(-0.125 * d * d);
    for (int d = -8; d <= 8; d++) weight_squares += pow(exp(-0.125 * d * d) / weights, 2);
    double magnitude = in_plane ? 8 : 30;
    double want = magnitude * magnitude / 3 * pow(weight_squares, in_plane ? 2 : 3);
    assert_true(fabs(squares / (double)counted / want - 1) < 0.2);
    assert_true(wrong * 1000 < (int64_t)X * Y * Z);
    sampling_end(&s);
  }
}

static void crops_follow_the_classes(void **state) {
  (void)state;
  static const struct {
    const char *attribute, *value;
    int percent[4]; /* of crops around background or anywhere, and classes 1, 2 and 5 */
  } cases[] = {{"foreground", "1", {0, 33, 33, 33}},
               {"foreground", "0.33", {67, 11, 11, 11}},
               {"class_ratios", "[0, 1, 3, 0]", {0, 25, 75, 0}},
               {"class_ratios", "[2, 1]", {40, 20, 20, 20}},
               {"class_ratios", "[0, 0, 0, 1, 1, 0]", {100, 0, 0, 0}}}; /* classes it has not */
  for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
    sampling s = sampling_of(30, 30, 30, 1);
    for (int64_t i = 0; i < 1000; i++)
      s.in.label.data[((2 + i / 100) * 30 + 2 + i / 10 % 10) * 30 + 2 + i % 10] = 1;
    s.in.label.data[(20 * 30 + 11) * 30 + 5] = 2;
    s.in.label.data[(20 * 30 + 21) * 30 + 25] = s.in.label.data[(20 * 30 + 21) * 30 + 24] = 5;
    sampling_add(&s,
                 USE(&s.memory, "random_crop", "size", "3", cases[k].attribute, cases[k].value));
    int hits[6] = {0}, trials = 600;
    for (int crop = 0; crop < trials; crop++) {
      medical_case out = draw(&s, crop);
      hits[out.label.data[13]]++; /* the middle voxel */
      case_free(&out);
    }
    const int got[4] = {hits[0], hits[1], hits[2], hits[5]};
    for (int c = 0; c < 4; c++) {
      int chance =
          cases[k].percent[0] > 50 && c == 1 ? 4 : 0; /* a crop anywhere may meet class 1 */
      if (abs(got[c] * 100 / trials - cases[k].percent[c]) > 6 + chance)
        fail_msg("%s %s: %d of %d crops are around the %dth kind", cases[k].attribute,
                 cases[k].value, got[c], trials, c);
    }
    sampling_end(&s);
  }
}

static void counted_classes_draw_the_same_crops(void **state) {
  (void)state;
  static const struct {
    const char *attribute, *value;
  } cases[] = {{"positive", "2"}, {"foreground", "0.7"}, {"class_ratios", "[1, 0, 2]"}};
  for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
    sampling s = sampling_of(9, 21, 37, 1);
    /* Stretches of one class, mixed ones, and slabs that lack a class. */
    for (int64_t i = 0; i < 9 * 21 * 37; i++)
      s.in.label.data[i] = (uint8_t)(i % 777 < 400 ? 0 : i / 777 == 4 ? 255 : i % 5);
    sampling_add(&s,
                 USE(&s.memory, "random_crop", "size", "3", cases[k].attribute, cases[k].value));
    for (int crop = 0; crop < 60; crop++) {
      medical_case plain = draw(&s, crop);
      expect_ok(labels_count(&s.in.label));
      medical_case counted = draw(&s, crop);
      assert_memory_equal(plain.image.data, counted.image.data, 27 * sizeof(float));
      assert_memory_equal(plain.label.data, counted.label.data, 27);
      case_free(&plain);
      case_free(&counted);
      free(s.in.label.counts);
      s.in.label.counts = NULL;
    }
    sampling_end(&s);
  }
}

static void filters_equal_their_formulas(void **state) {
  (void)state;
  arena memory = {0};
  volume v = numbered_volume(9, 8, 11, 2);
  int64_t n = 9 * 8 * 11 * 2, middle = ((4 * 8 + 4) * 11 + 5) * 2;
  for (int64_t i = 0; i < n; i++) v.data[i] = 7;
  v.data[middle] = 8;
  medical_case out = apply(USE(&memory, "random_blur", "sd", "[0.6, 0.6]", "probability", "1"), &v);
  double sum = 0, peak = 0;
  for (int d = -2; d <= 2; d++) peak += exp(-0.5 * d * d / 0.36);
  for (int64_t i = 0; i < n; i += 2) sum += (double)out.image.data[i] - 7;
  assert_true(fabs(sum - 1) < 1e-3);
  assert_true(fabs((double)out.image.data[middle] - 7 - pow(peak, -3)) < 1e-5);
  assert_true(fabs((double)out.image.data[middle + 22] - 7 - pow(peak, -3) * exp(-0.5 / 0.36)) <
              1e-5);                                                /* the neighbour along y */
  assert_true(fabs((double)out.image.data[middle + 1] - 7) < 1e-5); /* the other channel */
  case_free(&out);

  for (int64_t i = 0; i < n; i++) v.data[i] = (float)(i / 2 % 100) / 10 - 3; /* −3 … 6.9 */
  out = apply(USE(&memory, "random_gamma", "gamma", "[2, 2]", "probability", "1"), &v);
  for (int64_t i = 0; i < n; i++) {
    double u = ((double)v.data[i] + 3) / 9.9;
    assert_true(fabs((double)out.image.data[i] - (u * u * 9.9 - 3)) < 1e-4);
  }
  case_free(&out);
  out = apply(USE(&memory, "random_gamma", "gamma", "[2, 2]", "probability", "1", "invert", "true"),
              &v);
  for (int64_t i = 0; i < n; i++) {
    double u = (6.9 - (double)v.data[i]) / 9.9;
    assert_true(fabs((double)out.image.data[i] - (6.9 - u * u * 9.9)) < 1e-4);
  }
  case_free(&out);
  out = apply(USE(&memory, "random_contrast", "factor", "[0.5, 0.5]", "probability", "1"), &v);
  double mean = 0;
  for (int64_t i = 0; i < n; i += 2) mean += (double)v.data[i] / (double)(n / 2);
  for (int64_t i = 0; i < n; i++)
    assert_true(fabs((double)out.image.data[i] - (mean + ((double)v.data[i] - mean) / 2)) < 1e-4);
  case_free(&out);
  op_use same[] = {
      USE(&memory, "random_gamma", "gamma", "[1, 1]", "probability", "1", "keep_statistics",
          "true"),
      USE(&memory, "random_contrast", "factor", "[1, 1]", "probability", "1"),
      USE(&memory, "random_low_resolution", "zoom", "[1, 1]", "probability", "1"),
      USE(&memory, "standardize", "clip", "[-9, 9]", "mean", "0", "sd", "1"),
      USE(&memory, "random_affine", "rotate_probability", "1", "zoom_probability", "1"),
      USE(&memory, "random_elastic", "magnitude", "[0, 0]", "probability", "1"),
      USE(&memory, "random_brightness", "factor", "[1, 1]", "probability", "1"),
      USE(&memory, "random_bias_field", "coefficients", "[0, 0]", "probability", "1")};
  for (size_t k = 0; k < sizeof same / sizeof same[0]; k++) {
    out = apply(same[k], &v);
    for (int64_t i = 0; i < n; i++)
      assert_true(fabs((double)out.image.data[i] - (double)v.data[i]) < 1e-5);
    case_free(&out);
  }

  /* All coefficients 0.1: exp of 0.1 times the sum of products of Legendre polynomials. */
  for (int64_t i = 0; i < n; i++) v.data[i] = (float)(1 + i % 2);
  out = apply(USE(&memory, "random_bias_field", "coefficients", "[0.1, 0.1]", "probability", "1"),
              &v);
  for (int64_t i = 0; i < n; i++) {
    double p[3][4], exponent = 0;
    const double at[3] = {(double)(i / 176) / 4 - 1, (double)(i / 22 % 8) * 2 / 7 - 1,
                          (double)(i / 2 % 11) / 5 - 1};
    for (int a = 0; a < 3; a++) {
      p[a][0] = 1;
      p[a][1] = at[a];
      p[a][2] = (3 * at[a] * at[a] - 1) / 2;
      p[a][3] = (5 * at[a] * at[a] - 3) * at[a] / 2;
    }
    for (int k = 0; k < 64; k++)
      if (k / 16 + k / 4 % 4 + k % 4 <= 3)
        exponent += 0.1 * p[0][k / 16] * p[1][k / 4 % 4] * p[2][k % 4];
    assert_true(fabs((double)(out.image.data[i] / v.data[i]) - exp(exponent)) < 1e-5);
  }
  case_free(&out);

  out = apply(USE(&memory, "random_brightness", "probability", "1"), &v);
  for (int c = 0; c < 2; c++) {
    float factor = out.image.data[c] / v.data[c];
    assert_true(factor >= 0.75f && factor < 1.25f);
    for (int64_t i = c; i < n; i += 2) assert_true(out.image.data[i] == v.data[i] * factor);
  }
  assert_true(out.image.data[0] / v.data[0] != out.image.data[1] / v.data[1]);
  case_free(&out);

  /* Half the resolution: pairs of voxels become one, joined linearly between the pairs' middles. */
  volume line = {0};
  expect_ok(volume_allocate(&line, (int64_t[]){1, 1, 8}, 1));
  for (int i = 0; i < 8; i++) line.data[i] = (float)(i * i);
  line.affine[0][0] = line.affine[1][1] = line.affine[2][2] = line.affine[3][3] = 1;
  out =
      apply(USE(&memory, "random_low_resolution", "zoom", "[0.5, 0.5]", "probability", "1"), &line);
  static const float want[8] = {1,  3,  7,  13,
                                21, 31, 43, 49}; /* knots 1, 9, 25, 49 at 0.5, 2.5, … */
  for (int i = 0; i < 8; i++) assert_true(fabsf(out.image.data[i] - want[i]) < 1e-4f);
  case_free(&out);
  out = apply(USE(&memory, "random_low_resolution", "zoom", "[0.5, 0.5]", "probability", "1",
                  "axes", "[x, y]"),
              &line);
  assert_memory_equal(out.image.data, line.data, 8 * sizeof(float));
  case_free(&out);
  volume_free(&line);
  volume_free(&v);
  arena_free(&memory);
}

static void the_sample_graph_has_a_static_shape(void **state) {
  (void)state;
  arena memory = {0};
  op_use prepare = USE(&memory, "orient", "axes", "RAS");
  op_use sample[2] = {USE(&memory, "random_flip", "probability", "1"),
                      USE(&memory, "centre_crop", "size", "[4, 5, 6]")};
  data_spec spec = {.prepare = &prepare, .prepare_count = 1, .sample = sample, .sample_count = 2};
  int64_t size[3];
  expect_ok(sample_infer(&spec, 3, size));
  assert_int_equal(size[2], 6);
  spec.sample_count = 1;
  expect_error(sample_infer(&spec, 3, size), "no fixed extent");
  arena_free(&memory);
}

/* The channel's values, of which `out` has room for n. */
static void take_channel(const volume *v, int64_t c, int64_t n, float *out) {
  for (int64_t i = 0; i < n; i++) out[i] = v->data[i * v->channels + c];
}

/* Three channels with the same voxels: of which draws do they become something else? */
static void channels_are_drawn_together_or_apart(void **state) {
  (void)state;
  static const char *const names[][3] = {{"random_gamma", "gamma", "[0.5, 2]"},
                                         {"random_contrast", "factor", "[0.5, 0.9]"},
                                         {"random_brightness", "factor", "[0.5, 0.9]"},
                                         {"random_blur", "sd", "[0.5, 1.5]"},
                                         {"random_sharpen", "strength", "[0.5, 5]"},
                                         {"random_ringing", "keep", "[0.3, 0.9]"},
                                         {"random_histogram_shift", "control_points", "5"},
                                         {"random_low_resolution", "zoom", "[0.3, 0.9]"}};
  enum { X = 5, Y = 6, Z = 20, VOXELS = X * Y * Z, CROPS = 200 };
  arena memory = {0};
  volume v;
  expect_ok(volume_allocate(&v, (int64_t[]){X, Y, Z}, 3));
  for (int a = 0; a < 4; a++) v.affine[a][a] = 1;
  for (int64_t i = 0; i < VOXELS * 3; i++) v.data[i] = (float)((i / 3) * (i / 3) % 97) - 20;
  float before[VOXELS], now[3][VOXELS];
  take_channel(&v, 0, VOXELS, before);
  for (size_t k = 0; k < sizeof names / sizeof names[0]; k++)
    for (int mode = 0; mode < 4; mode++) {
      bool together = mode & 1, some = mode & 2;
      op_use use = USE(&memory, names[k][0], names[k][1], names[k][2], "probability", "1",
                       "synchronize_channels", together ? "true" : "false", "channel_probability",
                       some ? "0.3" : "1");
      int changed = 0, pairs = 0, alike = 0;
      for (int crop = 0; crop < CROPS; crop++) {
        medical_case out = apply_with(use, &v, crop);
        bool is_changed[3];
        for (int c = 0; c < 3; c++) {
          take_channel(&out.image, c, VOXELS, now[c]);
          is_changed[c] = memcmp(now[c], before, sizeof before) != 0;
          changed += is_changed[c];
        }
        for (int c = 1; c < 3; c++)
          if (is_changed[0] && is_changed[c]) {
            pairs++;
            alike += memcmp(now[0], now[c], sizeof before) == 0;
          }
        case_free(&out);
      }
      double share = changed / (3.0 * CROPS);
      assert_true(some ? fabs(share - 0.3) < 0.07 : share > 0.99);
      assert_true(pairs > 20);
      /* Coarser grids of so few voxels are often the same. */
      assert_true(together ? alike == pairs : alike < pairs / 3);
    }
  volume_free(&v);
  arena_free(&memory);
}

/* Half of the draws below 1, half above: as nnU-Net draws factors. */
static void balanced_factors_lie_on_both_sides_of_1(void **state) {
  (void)state;
  static const struct {
    const char *range, *balanced;
    double low, high, share_below;
  } cases[] = {{"[0.8, 1.8]", "false", 0.8, 1.8, 0.2},
               {"[0.8, 1.8]", "true", 0.8, 1.8, 0.5},
               {"[0.5, 0.9]", "true", 0.5, 0.9, 1},
               {"[1, 2]", "true", 1, 2, 0}};
  enum { DRAWS = 1000 };
  arena memory = {0};
  volume v;
  expect_ok(volume_allocate(&v, (int64_t[]){1, 1, 1}, 1));
  v.data[0] = 1;
  for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
    op_use use = USE(&memory, "random_brightness", "factor", cases[k].range, "probability", "1",
                     "balanced", cases[k].balanced);
    double least = 10, most = 0;
    int below = 0;
    for (int crop = 0; crop < DRAWS; crop++) {
      medical_case out = apply_with(use, &v, crop);
      double f = (double)out.image.data[0];
      below += f < 1;
      least = f < least ? f : least;
      most = f > most ? f : most;
      case_free(&out);
    }
    assert_true(least >= cases[k].low - 1e-6 && least < cases[k].low + 0.02);
    assert_true(most <= cases[k].high + 1e-6 && most > cases[k].high - 0.02);
    assert_true(fabs((double)below / DRAWS - cases[k].share_below) < 0.05);
  }
  volume_free(&v);
  arena_free(&memory);
}

/* A point becomes as wide along every axis, or not. */
static void axes_are_blurred_alike_or_apart(void **state) {
  (void)state;
  arena memory = {0};
  volume v;
  expect_ok(volume_allocate(&v, (int64_t[]){9, 9, 9}, 1));
  for (int a = 0; a < 4; a++) v.affine[a][a] = 1;
  const int64_t middle = 4 * 81 + 4 * 9 + 4, step[3] = {81, 9, 1};
  v.data[middle] = 1;
  for (int apart = 0; apart < 2; apart++) {
    op_use use = USE(&memory, "random_blur", "probability", "1", "synchronize_axes",
                     apart ? "false" : "true");
    medical_case out = apply_with(use, &v, 0);
    const float *at = out.image.data + middle;
    for (int a = 0; a < 3; a++) {
      float one = at[step[a]], other = at[step[(a + 1) % 3]];
      assert_true(apart ? fabsf(one - other) > 1e-4f : fabsf(one - other) < 1e-7f);
    }
    case_free(&out);
  }
  volume_free(&v);
  arena_free(&memory);
}

/* The channels that are named change as all of them would; the others stay. */
static void chosen_channels_alone_are_changed(void **state) {
  (void)state;
  arena memory = {0};
  volume v = {0};
  expect_ok(volume_allocate(&v, (int64_t[]){4, 5, 6}, 3));
  for (int a = 0; a < 4; a++) v.affine[a][a] = 1;
  int64_t n = 4 * 5 * 6 * 3;
  for (int64_t i = 0; i < n; i++) v.data[i] = (float)(i * i % 97) - 20;
  op_use uses[][2] = {
      {USE(&memory, "normalize", "mode", "zscore"),
       USE(&memory, "normalize", "mode", "zscore", "channels", "[2, 0]")},
      {USE(&memory, "standardize", "clip", "[0, 50]", "mean", "20", "sd", "7"),
       USE(&memory, "standardize", "clip", "[0, 50]", "mean", "20", "sd", "7", "channels",
           "[2, 0]")},
      {USE(&memory, "scale_range", "from", "[0, 50]"),
       USE(&memory, "scale_range", "from", "[0, 50]", "channels", "[2, 0]")},
      {USE(&memory, "clip_percentile", "percent", "[20, 80]"),
       USE(&memory, "clip_percentile", "percent", "[20, 80]", "channels", "[2, 0]")}};
  for (size_t k = 0; k < sizeof uses / sizeof uses[0]; k++) {
    medical_case all = apply(uses[k][0], &v), some = apply(uses[k][1], &v);
    int64_t changed = 0;
    for (int64_t i = 0; i < n; i++) {
      assert_true(some.image.data[i] == (i % 3 == 1 ? v.data[i] : all.image.data[i]));
      changed += i % 3 == 1 && all.image.data[i] != v.data[i];
    }
    assert_true(changed > 0);
    case_free(&all);
    case_free(&some);
  }
  volume_free(&v);
  arena_free(&memory);
}

/* A cube of 3³ in 5³ whose middle is 0 in both channels, and a corner in the second. */
static void the_body_holds_what_it_encloses(void **state) {
  (void)state;
  arena memory = {0};
  volume v = {0};
  expect_ok(volume_allocate(&v, (int64_t[]){5, 5, 5}, 2));
  for (int a = 0; a < 4; a++) v.affine[a][a] = 1;
  memset(v.data, 0, 250 * sizeof *v.data);
  double sum = 0;
  for (int i = 0; i < 27; i++) {
    float *at = &v.data[2 * ((i / 9 + 1) * 25 + (i / 3 % 3 + 1) * 5 + i % 3 + 1)];
    at[0] = i == 13 ? 0 : (float)(i - 30);
    at[1] = i == 13 || i == 0 ? 0 : 7;
    sum += (double)at[0];
  }
  medical_case body = apply(USE(&memory, "normalize", "scope", "body"), &v),
               nonzero = apply(USE(&memory, "normalize", "scope", "nonzero"), &v);
  const float *middle = &body.image.data[2 * (2 * 25 + 2 * 5 + 2)],
              *corner = &body.image.data[2 * (25 + 5 + 1)];
  assert_true(middle[0] > 0 && sum < 0);                    /* by the mean of all 27 */
  assert_float_equal(middle[1], corner[1], 1e-6);           /* a hole is like any voxel of 0 */
  assert_true(middle[1] < 0 && body.image.data[0] == 0.0f); /* and what is outside stays */
  assert_true(nonzero.image.data[2 * (2 * 25 + 2 * 5 + 2)] == 0.0f);
  double mean = 0, square = 0;
  for (int i = 0; i < 125; i++) mean += (double)body.image.data[2 * i];
  for (int i = 0; i < 125; i++) square += pow((double)body.image.data[2 * i], 2);
  assert_float_equal(mean, 0, 1e-4);
  assert_float_equal(square, 27, 1e-3);
  case_free(&body);
  case_free(&nonzero);
  volume_free(&v);
  arena_free(&memory);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_body_holds_what_it_encloses),
      cmocka_unit_test(chosen_channels_alone_are_changed),
      cmocka_unit_test(channels_are_drawn_together_or_apart),
      cmocka_unit_test(balanced_factors_lie_on_both_sides_of_1),
      cmocka_unit_test(axes_are_blurred_alike_or_apart),
      cmocka_unit_test(prepare_operators_equal_monai_and_scipy),
      cmocka_unit_test(orienting_moves_no_voxel),
      cmocka_unit_test(a_part_of_a_grid_stays_in_its_memory),
      cmocka_unit_test(bad_attributes_are_refused_before_data_is_read),
      cmocka_unit_test(halfway_between_voxels_the_grid_decides),
      cmocka_unit_test(two_coarse_axes_are_interpolated),
      cmocka_unit_test(foreground_must_exist),
      cmocka_unit_test(moving_operators_keep_every_voxel_in_its_place),
      cmocka_unit_test(changes_made_in_one_pass_are_those_of_each_operator),
      cmocka_unit_test(scaling_then_shifting_rounds_twice),
      cmocka_unit_test(crops_follow_the_positive_share),
      cmocka_unit_test(sampling_leaves_the_prepared_case_alone),
      cmocka_unit_test(intensity_operators_do_what_they_say),
      cmocka_unit_test(rotating_scaling_and_shearing_keep_places),
      cmocka_unit_test(in_a_plane_no_slice_is_mixed_with_another),
      cmocka_unit_test(elastic_displacements_have_the_spread_of_smoothed_noise),
      cmocka_unit_test(crops_follow_the_classes),
      cmocka_unit_test(counted_classes_draw_the_same_crops),
      cmocka_unit_test(filters_equal_their_formulas),
      cmocka_unit_test(the_sample_graph_has_a_static_shape),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
