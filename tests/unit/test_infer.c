/* Sliding-window inference and export against MONAI, nnU-Net and SciPy (tests/golden/make_metrics.py,
 * make_inference.py). */
#include "infer/infer.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static json_t *fixture, *more;

static int load_fixture(void **state) {
  (void)state;
  json_error_t error;
  fixture = json_load_file(TEST_DATA "/golden/metrics/infer.json", 0, &error);
  more = json_load_file(TEST_DATA "/golden/metrics/windows.json", 0, &error);
  return fixture && more ? 0 : -1;
}

static int free_fixture(void **state) {
  (void)state;
  json_decref(fixture);
  json_decref(more);
  return 0;
}

static double number_at(const json_t *array, size_t i) {
  return json_number_value(json_array_get(array, i));
}

static void read_size(const json_t *object, const char *key, int64_t size[3]) {
  for (size_t a = 0; a < 3; a++) size[a] = (int64_t)number_at(json_object_get(object, key), a);
}

static void read_affine(const json_t *object, double affine[4][4]) {
  for (size_t r = 0; r < 4; r++)
    for (size_t c = 0; c < 4; c++)
      affine[r][c] = number_at(json_array_get(json_object_get(object, "affine"), r), c);
}

static void assert_ok(status error) {
  if (error) fail_msg("%s", error_message(error));
}

/* ---- windows ---- */

static void window_positions_are_those_of_monai(void **state) {
  (void)state;
  size_t i;
  json_t *c;
  json_array_foreach(json_object_get(fixture, "positions"), i, c) {
    int64_t start[64] = {0};
    const json_t *expected = json_object_get(c, "start");
    int64_t count = window_positions(json_integer_value(json_object_get(c, "size")),
                                     json_integer_value(json_object_get(c, "window")),
                                     json_number_value(json_object_get(c, "overlap")), start, 64);
    assert_int_equal(count, json_array_size(expected));
    for (int k = 0; k < count; k++)
      assert_int_equal(start[k], (int64_t)number_at(expected, (size_t)k));
  }
}

static void positions_beyond_the_limit_are_counted_but_not_written(void **state) {
  (void)state;
  int64_t start[3] = {-1, -1, -1};
  assert_int_equal(window_positions(96, 16, 0.5, NULL, 0), 11);
  assert_int_equal(window_positions(96, 16, 0.5, start, 2), 11);
  assert_int_equal(start[1], 8);
  assert_int_equal(start[2], -1);
}

static void a_window_larger_than_the_volume_has_one_position(void **state) {
  (void)state;
  int64_t start[2] = {-1, -1};
  assert_int_equal(window_positions(10, 16, 0.5, start, 2), 1);
  assert_int_equal(start[0], 0);
}

static void even_positions_are_those_of_nnunet(void **state) {
  (void)state;
  size_t i;
  json_t *c;
  json_array_foreach(json_object_get(more, "positions"), i, c) {
    int64_t start[64] = {0};
    const json_t *expected = json_object_get(c, "start");
    int64_t count =
        window_positions_evenly(json_integer_value(json_object_get(c, "size")),
                                json_integer_value(json_object_get(c, "window")),
                                json_number_value(json_object_get(c, "step")), start, 64);
    assert_int_equal(count, json_array_size(expected));
    for (int k = 0; k < count; k++)
      assert_int_equal(start[k], (int64_t)number_at(expected, (size_t)k));
  }
  assert_int_equal(window_positions_evenly(5, 8, 4, NULL, 0), 1);       /* padded to the window */
  assert_int_equal(window_positions_evenly(20, 8, 1e-12, NULL, 0), 13); /* none twice */
}

static void check_importance(const json_t *cases, blend kind, double sigma_scale) {
  size_t i;
  json_t *c;
  json_array_foreach(cases, i, c) {
    window_spec w = {.blend = kind, .sigma_scale = sigma_scale};
    const json_t *own_scale = json_object_get(c, "sigma_scale");
    if (own_scale) w.sigma_scale = json_number_value(own_scale);
    read_size(c, "window", w.size);
    const json_t *expected = json_object_get(c, "weight");
    importance made;
    size_t v = 0;
    assert_ok(importance_open(&w, 3, &made));
    for (int64_t x = 0; x < w.size[0]; x++)
      for (int64_t y = 0; y < w.size[1]; y++)
        for (int64_t z = 0; z < w.size[2]; z++) {
          float weight = made.along[0][x] * made.along[1][y] * made.along[2][z];
          if (weight < made.lowest) weight = made.lowest;
          assert_float_equal(weight, number_at(expected, v++), 3e-7);
          assert_float_equal(made.by_class[3 * z + 2], made.along[2][z], 0);
        }
    importance_close(&made);
    w.blend = BLEND_CONSTANT;
    assert_ok(importance_open(&w, 1, &made));
    assert_float_equal(made.along[0][0] * made.along[1][0] * made.along[2][0], 1, 0);
    assert_float_equal(made.lowest, 1, 0);
    importance_close(&made);
  }
}

static void gaussian_importance_is_that_of_monai(void **state) {
  (void)state;
  check_importance(json_object_get(fixture, "importance"), BLEND_GAUSSIAN, 0.125);
}

static void cut_gaussian_importance_is_that_of_nnunet(void **state) {
  (void)state;
  check_importance(json_object_get(more, "importance"), BLEND_GAUSSIAN_NNUNET, 0);
}

typedef struct fake_network {
  int64_t window[3], channels, batch;
  float *image, *logits;
  int runs;     /* how often it ran */
  float poison; /* added to every logit */
  int fail_at;  /* run at which it returns an error; 0 never */
  int member;   /* of the ensemble, whose weights are in place */
} fake_network;

/* Window by window and a few planes at a time, more from run to run. */
static status hand_over(const fake_network *n, scores_fn take, void *taker) {
  int64_t extent = n->window[0], plane = n->window[1] * n->window[2] * 3;
  int64_t step = 1 + n->runs % (extent + 1);
  for (int64_t i = 0; i < n->batch; i++)
    for (int64_t x = 0, to; x < extent; x = to) {
      to = x + step < extent ? x + step : extent;
      TRY(take(taker, i, x, to, n->logits + (i * extent + x) * plane));
    }
  return OK;
}

/* The network of make_metrics.py and make_inference.py: three classes. */
static status run_fake(void *context, scores_fn take, void *taker) {
  fake_network *n = context;
  const float *image = n->image;
  float *logits = n->logits;
  if (++n->runs == n->fail_at) return error_new(ERROR_INTERRUPTED, NOWHERE, "stopped");
  for (int64_t x = 0; x < n->batch * n->window[0]; x++)
    for (int64_t y = 0; y < n->window[1]; y++)
      for (int64_t z = 0; z < n->window[2]; z++) {
        double ramp[3] = {(double)(x % n->window[0]) / (double)n->window[0],
                          (double)y / (double)n->window[1] - 0.3,
                          0.5 - (double)z / (double)n->window[2]};
        double total = 0;
        for (int64_t c = 0; c < n->channels; c++) total += (double)image[c];
        for (int c = 0; c < 3; c++)
          *logits++ =
              n->poison + (float)((c + 1) * total * 0.5 + 2 * ramp[c] -
                                  (double)image[n->channels - 1] * c + 0.7 * n->member * (c - 1));
        image += n->channels;
      }
  return hand_over(n, take, taker);
}

static status choose_fake(void *context, int member) {
  ((fake_network *)context)->member = member;
  return OK;
}

/* An inferer around it; what `windows` does not say is left. */
static inferer open_fake(fake_network *n, const window_spec *windows) {
  memcpy(n->window, windows->size, sizeof n->window);
  n->batch = windows->batch;
  size_t voxels = (size_t)(n->batch * n->window[0] * n->window[1] * n->window[2]);
  n->image = malloc(voxels * (size_t)n->channels * sizeof *n->image);
  n->logits = malloc(voxels * 3 * sizeof *n->logits);
  return (inferer){.windows = *windows,
                   .classes = 3,
                   .image = n->image,
                   .run = run_fake,
                   .context = n,
                   .choose = choose_fake};
}

static void close_fake(fake_network *n) {
  free(n->image);
  free(n->logits);
}

/* A reader that puts the planes together. */
static status collect_planes(void *context, score_band *b, int64_t from, int64_t to) {
  volume *whole = context;
  int64_t low[3] = {0}, high[3] = {b->size[0], b->size[1], b->size[2]};
  low[b->axis] = from;
  high[b->axis] = to;
  for (int64_t x = low[0]; x < high[0]; x++)
    for (int64_t y = low[1]; y < high[1]; y++)
      for (int64_t z = low[2]; z < high[2]; z++)
        memcpy(whole->data + ((x * b->size[1] + y) * b->size[2] + z) * b->classes,
               b->scores + band_voxel(b, x, y, z) * b->classes, (size_t)b->classes * sizeof(float));
  return OK;
}

static status whole_probabilities(const inferer *f, const volume *image, volume *out) {
  score_reader reader = {.probabilities = true, .planes = collect_planes, .context = out};
  assert_ok(volume_allocate(out, image->size, f->classes));
  return sliding_window(f, image, &reader);
}

/* The inferer of a fixture's case. */
static void read_inferer(const json_t *c, fake_network *n, inferer *f) {
  *n = (fake_network){.channels = json_integer_value(json_object_get(c, "channels"))};
  window_spec spec = {.batch = 1, .sigma_scale = 0.125}, *w = &spec;
  read_size(c, "window", w->size);
  w->overlap = json_number_value(json_object_get(c, "overlap"));
  const char *kind = json_string_value(json_object_get(c, "blend"));
  w->blend = strcmp(kind, "constant") == 0   ? BLEND_CONSTANT
             : strcmp(kind, "gaussian") == 0 ? BLEND_GAUSSIAN
                                             : BLEND_GAUSSIAN_NNUNET;
  if (!json_object_get(c, "batch")) {
    *f = open_fake(n, w);
    return;
  }
  w->batch = json_integer_value(json_object_get(c, "batch"));
  w->sigma_scale = json_number_value(json_object_get(c, "sigma_scale"));
  const char *mirror = json_string_value(json_object_get(c, "mirror"));
  for (int a = 0; a < 3; a++) {
    w->step[a] = json_number_value(json_object_get(c, "step")) * (double)w->size[a];
    w->mirror[a] = strchr(mirror, "xyz"[a]) != NULL;
  }
  w->average_probabilities =
      strcmp(json_string_value(json_object_get(c, "average")), "probabilities") == 0;
  int members = (int)json_integer_value(json_object_get(c, "members"));
  *f = open_fake(n, w);
  f->members = members > 1 ? members : 0;
}

static void read_volume(const json_t *c, const char *key, int64_t channels, volume *out) {
  int64_t size[3];
  read_size(c, "size", size);
  assert_ok(volume_allocate(out, size, channels));
  const json_t *values = json_object_get(c, key);
  assert_int_equal(json_array_size(values), size[0] * size[1] * size[2] * channels);
  for (size_t v = 0; v < json_array_size(values); v++) out->data[v] = (float)number_at(values, v);
  for (int a = 0; a < 4; a++) out->affine[a][a] = 1;
}

static void check_blending(const json_t *cases) {
  size_t i;
  json_t *c;
  json_array_foreach(cases, i, c) {
    fake_network network;
    inferer f;
    read_inferer(c, &network, &f);
    volume image = {0}, expected = {0}, made = {0};
    read_volume(c, "image", network.channels, &image);
    read_volume(c, "probabilities", 3, &expected);
    assert_ok(whole_probabilities(&f, &image, &made));
    for (int64_t v = 0; v < image.size[0] * image.size[1] * image.size[2] * 3; v++)
      if (!(fabsf(made.data[v] - expected.data[v]) <= 5e-6f))
        fail_msg("case %zu: value %lld is %g, expected %g", i, (long long)v, (double)made.data[v],
                 (double)expected.data[v]);
    volume_free(&image);
    volume_free(&expected);
    volume_free(&made);
    close_fake(&network);
  }
}

static void blended_windows_equal_monai(void **state) {
  (void)state;
  check_blending(json_object_get(fixture, "sliding_window"));
}

static void mirrored_batched_and_averaged_windows_equal_monai_and_nnunet(void **state) {
  (void)state;
  check_blending(json_object_get(more, "sliding_window"));
}

static void make_image(const int64_t size[3], volume *out) {
  assert_ok(volume_allocate(out, size, 1));
  for (int64_t v = 0; v < size[0] * size[1] * size[2]; v++)
    out->data[v] = (float)(v * 2654435761u % 1000) / 500 - 1;
  for (int a = 0; a < 4; a++) out->affine[a][a] = 1;
}

static status segment(const inferer *f, const volume *image, const int64_t size[3],
                      const double affine[4][4], labels *out) {
  label_export e;
  assert_ok(export_open(image, f->classes, size, affine, f->pool, out, &e));
  score_reader reader = export_reader(&e);
  return sliding_window(f, image, &reader);
}

/* Hands the scores of one channel on as those of two classes, of which the first has a logit of 0: the
 * softmax of the second is the channel's sigmoid. */
typedef struct one_region {
  fake_network *network;
  int region;
  scores_fn take;
  void *taker;
} one_region;

static status take_one_region(void *context, int64_t n, int64_t from, int64_t to,
                              const float *scores) {
  const one_region *o = context;
  int64_t voxels = (to - from) * o->network->window[1] * o->network->window[2];
  float *two = calloc((size_t)voxels * 2, sizeof *two);
  for (int64_t v = 0; v < voxels; v++) two[2 * v + 1] = scores[3 * v + o->region];
  status error = o->take(o->taker, n, from, to, two);
  free(two);
  return error;
}

static status run_one_region(void *context, scores_fn take, void *taker) {
  one_region o = *(one_region *)context;
  o.take = take;
  o.taker = taker;
  return run_fake(o.network, take_one_region, &o);
}

static const double finer[4][4] = {
    {0.7, 0.1, 0, -0.2}, {0, 0, 0.8, 0}, {0.1, 0.6, 0, 1}, {0, 0, 0, 1}};

static void the_last_probable_region_gives_the_label(void **state) {
  (void)state;
  static const uint8_t region_labels[3] = {4, 1, 9};
  const int64_t same[3] = {11, 9, 13}, fine[3] = {14, 12, 17};
  const double unit[4][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}};
  for (int way = 0; way < 4; way++) {
    bool is_fine = way & 1;
    const int64_t *size = is_fine ? fine : same;
    window_spec w = {.size = {6, 7, 5},
                     .overlap = 0.5,
                     .blend = BLEND_GAUSSIAN,
                     .sigma_scale = 0.125,
                     .batch = 2,
                     .average_probabilities = way & 2};
    fake_network network = {.channels = 1, .poison = -0.6f};
    inferer f = open_fake(&network, &w);
    volume image = {0};
    labels made = {0};
    make_image(same, &image);
    f.region_labels = region_labels;
    assert_ok(segment(&f, &image, size, is_fine ? finer : unit, &made));
    int64_t voxels = size[0] * size[1] * size[2], counts[10] = {0};
    uint8_t *expected = calloc((size_t)voxels, 1);
    for (int r = 0; r < 3; r++) {
      one_region o = {.network = &network, .region = r};
      inferer g = f;
      labels one = {0};
      g.classes = 2;
      g.region_labels = NULL;
      g.run = run_one_region;
      g.context = &o;
      assert_ok(segment(&g, &image, size, is_fine ? finer : unit, &one));
      for (int64_t v = 0; v < voxels; v++)
        if (one.data[v]) expected[v] = region_labels[r];
      labels_free(&one);
    }
    assert_memory_equal(made.data, expected, voxels);
    for (int64_t v = 0; v < voxels; v++) counts[expected[v]]++;
    assert_true(counts[0] > 9 && counts[4] > 9 && counts[1] > 9 && counts[9] > 9);
    free(expected);
    labels_free(&made);
    volume_free(&image);
    close_fake(&network);
  }
}

/* The same bits: with sums in memory or in a file, on any number of threads, in any batches. */
static void a_memory_budget_threads_and_batches_change_no_bit(void **state) {
  (void)state;
  static const int64_t sizes[3][3] = {{21, 17, 13}, {9, 31, 13}, {9, 8, 27}};
  const int64_t target[3] = {25, 20, 22};
  for (int axis = 0; axis < 3; axis++) {
    volume image = {0}, kept = {0};
    labels first = {0}, copied = {0};
    make_image(sizes[axis], &image);
    size_t voxels = (size_t)(image.size[0] * image.size[1] * image.size[2]);
    for (int k = 0; k < 8; k++) {
      const window_spec windows = {.size = {8, 6, 7},
                                   .overlap = 0.5,
                                   .blend = BLEND_GAUSSIAN,
                                   .sigma_scale = 0.125,
                                   .batch = k < 4 ? 1 : 5,
                                   .mirror = {true, false, true},
                                   .memory_bytes = k & 2 ? 5000 : 0};
      fake_network network = {.channels = 1};
      inferer f = open_fake(&network, &windows);
      f.members = 2;
      if (k % 2) assert_ok(pool_create(3, &f.pool));
      volume made = {0};
      labels exported = {0}, straight = {0};
      assert_ok(whole_probabilities(&f, &image, &made));
      assert_ok(segment(&f, &image, target, finer, &exported));
      assert_ok(segment(&f, &image, image.size, (const double(*)[4])image.affine, &straight));
      if (k > 0) {
        assert_memory_equal(made.data, kept.data, voxels * 3 * sizeof(float));
        assert_memory_equal(exported.data, first.data, (size_t)(25 * 20 * 22));
        assert_memory_equal(straight.data, copied.data, voxels);
        volume_free(&made);
        labels_free(&exported);
        labels_free(&straight);
      } else {
        first = exported;
        copied = straight;
        kept = made;
      }
      pool_destroy(f.pool);
      close_fake(&network);
    }
    labels_free(&first);
    labels_free(&copied);
    volume_free(&kept);
    volume_free(&image);
  }
}

static status watch_band(void *context, score_band *b, int64_t from, int64_t to) {
  (void)from;
  (void)to;
  *(size_t *)context = b->memory.bytes;
  return OK;
}

/* What is held for a volume ten times as long, along any axis. */
static void sums_grow_with_a_window_and_not_with_the_volume(void **state) {
  (void)state;
  for (int axis = 0; axis < 3; axis++) {
    size_t bytes[2];
    for (int k = 0; k < 2; k++) {
      int64_t size[3] = {9, 9, 9};
      size[axis] = k ? 200 : 20;
      const window_spec windows = {.size = {8, 6, 7}, .overlap = 0.5, .batch = 1};
      fake_network network = {.channels = 1};
      inferer f = open_fake(&network, &windows);
      volume image = {0};
      make_image(size, &image);
      score_reader reader = {.planes = watch_band, .context = &bytes[k]};
      assert_ok(sliding_window(&f, &image, &reader));
      assert_true(bytes[k] <= (size_t)((windows.size[axis] + 1) * 81 * 4) * sizeof(float));
      volume_free(&image);
      close_fake(&network);
    }
    assert_int_equal(bytes[0], bytes[1]);
  }
}

static void a_network_that_diverged_or_failed_is_an_error(void **state) {
  (void)state;
  volume image = {0};
  assert_ok(volume_allocate(&image, (const int64_t[3]){6, 5, 4}, 1));
  for (int probabilities = 0; probabilities < 2; probabilities++) {
    const window_spec windows = {
        .size = {4, 4, 4}, .overlap = 0.5, .batch = 1, .average_probabilities = probabilities};
    fake_network network = {.channels = 1, .poison = NAN};
    inferer f = open_fake(&network, &windows);
    volume made = {0};
    status error = whole_probabilities(&f, &image, &made);
    assert_int_equal(error_code_of(error), ERROR_NUMERIC);
    assert_non_null(strstr(error_message(error), "(0, 0, 0)"));
    error_free(error);
    volume_free(&made);
    network.poison = 0;
    network.runs = 0;
    network.fail_at = 2;
    error = whole_probabilities(&f, &image, &made);
    assert_int_equal(error_code_of(error), ERROR_INTERRUPTED);
    assert_int_equal(network.runs, 2);
    error_free(error);
    volume_free(&made);
    close_fake(&network);
  }
  volume_free(&image);
}

/* ---- export ---- */

static void multiply(const double a[4][4], const double b[4][4], double out[4][4]) {
  for (int r = 0; r < 4; r++)
    for (int c = 0; c < 4; c++) {
      out[r][c] = 0;
      for (int k = 0; k < 4; k++) out[r][c] += a[r][k] * b[k][c];
    }
}

static uint32_t random_state = 1;

static float random_float(void) {
  random_state = random_state * 1664525u + 1013904223u;
  return (float)(random_state >> 8) / 16777216.0f;
}

static void make_probabilities(const int64_t size[3], int64_t classes, volume *out) {
  assert_ok(volume_allocate(out, size, classes));
  for (int64_t v = 0; v < size[0] * size[1] * size[2] * classes; v++) out->data[v] = random_float();
  /* Oblique, anisotropic: what an export has to see through. */
  const double affine[4][4] = {
      {-0.68, 0.21, 0.9, 101.5}, {0.17, 0.7, -1.7, -80.25}, {-0.1, 0.11, 4.6, 12.0}, {0, 0, 0, 1}};
  memcpy(out->affine, affine, sizeof affine);
}

/* Other than trilinear probabilities of classes. */
typedef struct manner {
  window_spec windows;
  const uint8_t *region_labels;
} manner;

/* Planes `count` at a time across an axis, in a band of `depth` planes, exported; with the
 * probabilities, if they are wanted. */
static status export_in_manner(const volume *p, const manner *how, int axis, int64_t count,
                               int64_t depth, const int64_t size[3], const double affine[4][4],
                               labels *out, nifti_values *probabilities) {
  label_export e;
  score_band b;
  importance equal;
  TRY(export_open(p, p->channels, size, affine, NULL, out, &e));
  export_like(&e, p, &how->windows);
  if (probabilities) export_keep_probabilities(&e, how->region_labels, probabilities);
  int64_t widest = p->size[0] > p->size[1] ? p->size[0] : p->size[1];
  if (p->size[2] > widest) widest = p->size[2];
  window_spec any = {.size = {widest, widest, widest}, .blend = BLEND_CONSTANT};
  assert_ok(importance_open(&any, p->channels, &equal));
  float *slab = malloc((size_t)(p->size[0] * p->size[1] * p->size[2] * p->channels) * sizeof *slab);
  score_reader reader = export_reader(&e);
  band_scores kind = reader.logits ? BAND_LOGITS : BAND_MEANS;
  assert_ok(band_open(p->size, p->channels, kind, axis, depth, SIZE_MAX, &b));
  b.region_labels = how->region_labels;
  for (int64_t from = 0, to; from < p->size[axis]; from = to) {
    to = from + count < p->size[axis] ? from + count : p->size[axis];
    int64_t low[3] = {0}, high[3] = {p->size[0], p->size[1], p->size[2]};
    low[axis] = from;
    high[axis] = to;
    float *score = slab;
    for (int64_t x = low[0]; x < high[0]; x++)
      for (int64_t y = low[1]; y < high[1]; y++)
        for (int64_t z = low[2]; z < high[2]; z++, score += p->channels)
          memcpy(score, p->data + ((x * p->size[1] + y) * p->size[2] + z) * p->channels,
                 (size_t)p->channels * sizeof *score);
    int64_t extent[3] = {high[0] - low[0], high[1] - low[1], high[2] - low[2]};
    band_window w = {.size = extent,
                     .to = extent[0],
                     .start = {low[0], low[1], low[2]},
                     .last = {p->size[0], p->size[1], p->size[2]},
                     .scores = slab,
                     .importance = &equal};
    band_add(&b, NULL, &w);
    assert_ok(band_check(&b, from, to));
    assert_ok(reader.planes(reader.context, &b, from, to));
  }
  band_close(&b);
  importance_close(&equal);
  free(slab);
  return OK;
}

static status export_by_planes(const volume *p, int axis, int64_t count, int64_t depth,
                               const int64_t size[3], const double affine[4][4], labels *out,
                               nifti_values *probabilities) {
  static const manner usual = {0};
  return export_in_manner(p, &usual, axis, count, depth, size, affine, out, probabilities);
}

static nifti_values make_values(const int64_t size[3], int64_t channels) {
  nifti_values v = {.size = {size[0], size[1], size[2]}, .channels = channels};
  assert_ok(spill_open((size_t)(size[0] * size[1] * size[2] * channels) * sizeof(float), SIZE_MAX,
                       &v.memory));
  v.data = v.memory.data;
  return v;
}

/* Every label is the class of the largest probability, but for where two are nearly equal. */
static void labels_follow_probabilities(const labels *l, const nifti_values *v) {
  const int64_t *n = v->size, voxels = n[0] * n[1] * n[2];
  for (int64_t x = 0; x < n[0]; x++)
    for (int64_t y = 0; y < n[1]; y++)
      for (int64_t z = 0; z < n[2]; z++) {
        const float *p = v->data + (z * n[1] + y) * n[0] + x;
        uint8_t label = l->data[(x * n[1] + y) * n[2] + z];
        for (int64_t c = 0; c < v->channels; c++)
          assert_true(p[c * voxels] <= p[label * voxels] + 1e-6f);
      }
}

/* In every way, which must not matter. */
static status export_labels(const volume *p, const int64_t size[3], const double affine[4][4],
                            labels *out) {
  TRY(export_by_planes(p, 0, p->size[0], p->size[0], size, affine, out, NULL));
  nifti_values whole = make_values(size, p->channels);
  for (int axis = 0; axis < 3; axis++)
    for (int64_t count = 1; count <= 4; count += 3) {
      labels same = {0};
      nifti_values v = make_values(size, p->channels);
      bool is_first = axis == 0 && count == 1;
      assert_ok(
          export_by_planes(p, axis, count, count + 1, size, affine, &same, is_first ? &whole : &v));
      assert_memory_equal(same.data, out->data, (size_t)(size[0] * size[1] * size[2]));
      if (!is_first) assert_memory_equal(v.data, whole.data, v.memory.bytes);
      nifti_values_close(&v);
      labels_free(&same);
    }
  labels_follow_probabilities(out, &whole);
  nifti_values_close(&whole);
  return OK;
}

static int32_t class_at(const volume *p, int64_t x, int64_t y, int64_t z) {
  if (x < 0 || x >= p->size[0] || y < 0 || y >= p->size[1] || z < 0 || z >= p->size[2]) return 0;
  const float *values = p->data + ((x * p->size[1] + y) * p->size[2] + z) * p->channels;
  int32_t best = 0;
  for (int32_t c = 1; c < p->channels; c++)
    if (values[c] > values[best]) best = c;
  return best;
}

static void every_signed_axis_permutation_is_an_exact_copy(void **state) {
  (void)state;
  static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                   {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
  static const int64_t offsets[3][3] = {{0, 0, 0}, {2, -1, 3}, {-4, 40, 0}};
  const int64_t size[3] = {5, 6, 7}, target_size[3] = {9, 8, 6};
  volume p = {0};
  make_probabilities(size, 4, &p);
  for (int k = 0; k < 48 * 3; k++) {
    const int *order = orders[k % 6];
    const int64_t *offset = offsets[k / 48];
    int64_t sign[3], shift[3];
    double to_prepared[4][4] = {{0}}, affine[4][4];
    for (int r = 0; r < 3; r++) {
      bool flip = k % 48 / 6 >> r & 1;
      sign[r] = flip ? -1 : 1;
      shift[r] = offset[r] + (flip ? size[r] - 1 : 0);
      to_prepared[r][order[r]] = (double)sign[r];
      to_prepared[r][3] = (double)shift[r];
    }
    to_prepared[3][3] = 1;
    multiply(p.affine, to_prepared, affine);
    for (int r = 0; r < 3; r++)
      for (int c = 0; c < 4; c++)
        affine[r][c] = (double)(float)affine[r][c]; /* as a header has it */
    labels made = {0};
    assert_ok(export_labels(&p, target_size, affine, &made));
    assert_memory_equal(made.size, target_size, sizeof made.size);
    assert_memory_equal(made.affine, affine, sizeof made.affine);
    int64_t t[3];
    const uint8_t *label = made.data;
    for (t[0] = 0; t[0] < target_size[0]; t[0]++)
      for (t[1] = 0; t[1] < target_size[1]; t[1]++)
        for (t[2] = 0; t[2] < target_size[2]; t[2]++)
          assert_int_equal(*label++, class_at(&p, sign[0] * t[order[0]] + shift[0],
                                              sign[1] * t[order[1]] + shift[1],
                                              sign[2] * t[order[2]] + shift[2]));
    labels_free(&made);
  }
  volume_free(&p);
}

static void resampled_probabilities_equal_scipy(void **state) {
  (void)state;
  json_t *c = json_object_get(fixture, "export"), *target;
  volume p = {0};
  read_volume(c, "probabilities", 3, &p);
  read_affine(c, p.affine);
  size_t i;
  json_array_foreach(json_object_get(c, "targets"), i, target) {
    int64_t size[3];
    double affine[4][4];
    labels made = {0};
    read_size(target, "size", size);
    read_affine(target, affine);
    assert_ok(export_labels(&p, size, affine, &made));
    const json_t *expected = json_object_get(target, "label");
    for (size_t v = 0; v < json_array_size(expected); v++) {
      int32_t wanted = (int32_t)number_at(expected, v);
      if (wanted >= 0 && made.data[v] != wanted)
        fail_msg("%s: voxel %zu is %d, expected %d",
                 json_string_value(json_object_get(target, "name")), v, (int)made.data[v],
                 (int)wanted);
    }
    labels_free(&made);
  }
  volume_free(&p);
}

static void outside_of_the_prepared_grid_is_background_and_no_region(void **state) {
  (void)state;
  enum { VOXELS = 6, C = 2 };
  const int64_t size[3] = {1, 2, 3};
  for (int are_regions = 0; are_regions < 2; are_regions++) {
    nifti_values v = make_values(size, C);
    label_export e = {0};
    export_keep_probabilities(&e, are_regions, &v);
    for (int64_t i = 0; i < VOXELS * C; i++)
      assert_float_equal(v.data[i], !are_regions && i < VOXELS ? 1 : 0, 0);
    nifti_values_close(&v);
  }
}

/* A grid between the voxels, beyond the edges of the prepared one at the end of x. */
static void kept_probabilities_are_copied_or_interpolated(void **state) {
  (void)state;
  enum { X = 4, Y = 3, Z = 5, C = 3 };
  const int64_t size[3] = {X, Y, Z};
  volume p = {0};
  make_probabilities(size, C, &p);
  for (int k = 0; k < 2; k++) {
    double shift[4][4] = {{1, 0, 0, 0.25 * k}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}, to[4][4];
    multiply(p.affine, shift, to);
    const int64_t wider[3] = {X + 2, Y, Z};
    labels made = {0};
    nifti_values v = make_values(wider, C);
    assert_ok(export_by_planes(&p, 0, X, X, wider, to, &made, &v));
    for (int64_t x = 0; x < X + 2; x++)
      for (int64_t y = 0; y < Y; y++)
        for (int64_t z = 0; z < Z; z++)
          for (int64_t c = 0; c < C; c++) {
            double wanted = c == 0; /* outside */
            int64_t next = x + k < X ? x + k : X - 1;
            if (x < X)
              wanted = (1 - 0.25 * k) * (double)p.data[((x * Y + y) * Z + z) * C + c] +
                       0.25 * k * (double)p.data[((next * Y + y) * Z + z) * C + c];
            assert_float_equal(v.data[((c * Z + z) * Y + y) * (X + 2) + x], wanted, 1e-4 * k);
          }
    nifti_values_close(&v);
    labels_free(&made);
  }
  volume_free(&p);
}

enum { WIDE = 5, HIGH = 6, SLICES = 4, WIDER = 7, HIGHER = 4, MORE = 6, SAID = 3 };

/* Between voxels along x and y, and of two equally near slices the later. */
static void interpolate(const volume *p, int64_t x, int64_t y, int64_t z, double out[SAID]) {
  const double of[2] = {(double)WIDE, (double)HIGH}, to[2] = {(double)WIDER, (double)HIGHER};
  const int64_t at[2] = {x, y};
  int64_t low[2], high[2], slice = (int64_t)floor((z + 0.5) * SLICES / MORE);
  double fraction[2];
  for (int a = 0; a < 2; a++) {
    double s = fmin(fmax((at[a] + 0.5) * of[a] / to[a] - 0.5, 0), of[a] - 1);
    low[a] = (int64_t)s;
    high[a] = low[a] + 1 < (int64_t)of[a] ? low[a] + 1 : low[a];
    fraction[a] = s - (double)low[a];
  }
  for (int c = 0; c < SAID; c++) {
    out[c] = 0;
    for (int k = 0; k < 4; k++)
      out[c] +=
          (k & 1 ? fraction[0] : 1 - fraction[0]) * (k & 2 ? fraction[1] : 1 - fraction[1]) *
          (double)p
              ->data[(((k & 1 ? high : low)[0] * HIGH + (k & 2 ? high : low)[1]) * SLICES + slice) *
                         SAID +
                     c];
  }
}

/* nnU-Net's way, of thick slices. */
static void logits_are_resampled_within_slices(void **state) {
  (void)state;
  static const uint8_t regions[SAID] = {3, 1, 2};
  const int64_t size[3] = {WIDE, HIGH, SLICES}, wanted[3] = {WIDER, HIGHER, MORE};
  const double mm[3] = {1, 1, 9};
  for (int is_region = 0; is_region < 2; is_region++) {
    manner how = {.windows = {.resample_logits = true, .separates_axis = true},
                  .region_labels = is_region ? regions : NULL};
    volume p = {0};
    make_probabilities(size, SAID, &p);
    for (int64_t i = 0; i < WIDE * HIGH * SLICES * SAID; i++) p.data[i] = 8 * p.data[i] - 5;
    double affine[4][4] = {{0}};
    memset(p.affine, 0, sizeof p.affine);
    affine[3][3] = p.affine[3][3] = 1;
    for (int a = 0; a < 3; a++) {
      double step = (double)size[a] / (double)wanted[a];
      p.affine[a][a] = mm[a];
      affine[a][a] = mm[a] * step;
      affine[a][3] = mm[a] * (step - 1) / 2;
    }
    for (int axis = 0; axis < 3; axis++) {
      labels made = {0};
      nifti_values v = make_values(wanted, SAID);
      assert_ok(export_in_manner(&p, &how, axis, 1, 2, wanted, affine, &made, &v));
      for (int64_t i = 0; i < WIDER * HIGHER * MORE; i++) {
        int64_t x = i / (HIGHER * MORE), y = i / MORE % HIGHER, z = i % MORE;
        double logit[SAID], sum = 0;
        int best = 0, region = 0;
        interpolate(&p, x, y, z, logit);
        for (int c = 0; c < SAID; c++) {
          sum += exp(logit[c]);
          if (logit[c] > logit[best]) best = c;
          if (logit[c] > 0) region = regions[c];
        }
        assert_int_equal(made.data[i], is_region ? region : best);
        for (int c = 0; c < SAID; c++)
          assert_float_equal(v.data[((c * MORE + z) * HIGHER + y) * WIDER + x],
                             is_region ? 1 / (1 + exp(-logit[c])) : exp(logit[c]) / sum, 1e-5);
      }
      nifti_values_close(&v);
      labels_free(&made);
    }
    volume_free(&p);
  }
}

static void equal_probabilities_give_the_lowest_class(void **state) {
  (void)state;
  volume p = {0};
  labels made = {0};
  make_probabilities((const int64_t[3]){3, 3, 3}, 4, &p);
  for (int v = 0; v < 27; v++)
    memcpy(p.data + (ptrdiff_t)v * 4, (const float[4]){0.1f, 0.4f, 0.1f, 0.4f}, 4 * sizeof(float));
  double half[4][4] = {{0.5, 0, 0, 0.1}, {0, 0.5, 0, 0}, {0, 0, 0.5, 0}, {0, 0, 0, 1}},
         affine[4][4];
  multiply(p.affine, half, affine);
  assert_ok(export_labels(&p, (const int64_t[3]){5, 5, 5}, affine, &made));
  for (int v = 0; v < 125; v++) assert_int_equal(made.data[v], 1);
  labels_free(&made);
  assert_ok(export_labels(&p, p.size, p.affine, &made));
  for (int v = 0; v < 27; v++) assert_int_equal(made.data[v], 1);
  labels_free(&made);
  volume_free(&p);
}

static void a_grid_far_away_is_background(void **state) {
  (void)state;
  volume p = {0};
  labels made = {0};
  make_probabilities((const int64_t[3]){3, 3, 3}, 2, &p);
  double affine[4][4];
  memcpy(affine, p.affine, sizeof affine);
  affine[0][3] = 9e8; /* mm */
  affine[0][0] *= 1.1;
  assert_ok(export_labels(&p, (const int64_t[3]){4, 4, 4}, affine, &made));
  for (int v = 0; v < 64; v++) assert_int_equal(made.data[v], 0);
  labels_free(&made);
  volume_free(&p);
}

static void a_singular_affine_and_too_many_classes_are_errors(void **state) {
  (void)state;
  volume p = {0};
  labels made = {0};
  make_probabilities((const int64_t[3]){2, 2, 2}, 2, &p);
  double flat[4][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 1}};
  status error = export_labels(&p, p.size, flat, &made);
  assert_int_equal(error_code_of(error), ERROR_DATA);
  assert_non_null(strstr(error_message(error), "target"));
  error_free(error);
  p.channels = 300;
  error = export_labels(&p, p.size, p.affine, &made);
  assert_int_equal(error_code_of(error), ERROR_DATA);
  error_free(error);
  assert_null(made.data);
  volume_free(&p);
}

/* ---- the file of a spill ---- */

static void a_spill_without_room_is_an_error(void **state) {
  (void)state;
  spill s;
  setenv("TMPDIR", "/nowhere/at/all", 1);
  status error = spill_open(1 << 20, 1000, &s);
  unsetenv("TMPDIR");
  assert_int_equal(error_code_of(error), ERROR_IO);
  assert_non_null(strstr(error_message(error), "/nowhere/at/all"));
  assert_non_null(strstr(error_message(error), "1.00 MiB"));
  error_free(error);
  struct rlimit old, small = {1 << 16, 1 << 16};
  getrlimit(RLIMIT_FSIZE, &old);
  small.rlim_max = old.rlim_max;
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  error = spill_open(1 << 20, 1000, &s);
  setrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, SIG_DFL);
  assert_int_equal(error_code_of(error), ERROR_IO);
  assert_non_null(strstr(error_message(error), "TMPDIR"));
  error_free(error);
}

static void a_spilled_array_leaves_no_file_and_keeps_its_content(void **state) {
  (void)state;
  char folder[] = "/tmp/spill-XXXXXX";
  assert_non_null(mkdtemp(folder));
  setenv("TMPDIR", folder, 1);
  spill s;
  assert_ok(spill_open(3 << 20, 1 << 20, &s));
  unsetenv("TMPDIR");
  assert_int_equal(rmdir(folder), 0); /* empty already */
  unsigned char *bytes = s.data;
  for (size_t i = 0; i < s.bytes; i += 1 << 16) {
    spill_touch(&s, 1, 1 << 16);
    assert_true(s.touched <= 1 << 20);
    assert_int_equal(bytes[i], 0);
    bytes[i] = (unsigned char)(i >> 16);
  }
  for (size_t i = 0; i < s.bytes; i += 1 << 16) assert_int_equal(bytes[i], i >> 16 & 255);
  spill_close(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(window_positions_are_those_of_monai),
      cmocka_unit_test(positions_beyond_the_limit_are_counted_but_not_written),
      cmocka_unit_test(a_window_larger_than_the_volume_has_one_position),
      cmocka_unit_test(even_positions_are_those_of_nnunet),
      cmocka_unit_test(gaussian_importance_is_that_of_monai),
      cmocka_unit_test(cut_gaussian_importance_is_that_of_nnunet),
      cmocka_unit_test(blended_windows_equal_monai),
      cmocka_unit_test(mirrored_batched_and_averaged_windows_equal_monai_and_nnunet),
      cmocka_unit_test(a_memory_budget_threads_and_batches_change_no_bit),
      cmocka_unit_test(sums_grow_with_a_window_and_not_with_the_volume),
      cmocka_unit_test(a_network_that_diverged_or_failed_is_an_error),
      cmocka_unit_test(every_signed_axis_permutation_is_an_exact_copy),
      cmocka_unit_test(the_last_probable_region_gives_the_label),
      cmocka_unit_test(resampled_probabilities_equal_scipy),
      cmocka_unit_test(kept_probabilities_are_copied_or_interpolated),
      cmocka_unit_test(logits_are_resampled_within_slices),
      cmocka_unit_test(outside_of_the_prepared_grid_is_background_and_no_region),
      cmocka_unit_test(equal_probabilities_give_the_lowest_class),
      cmocka_unit_test(a_grid_far_away_is_background),
      cmocka_unit_test(a_singular_affine_and_too_many_classes_are_errors),
      cmocka_unit_test(a_spill_without_room_is_an_error),
      cmocka_unit_test(a_spilled_array_leaves_no_file_and_keeps_its_content),
  };
  return cmocka_run_group_tests(tests, load_fixture, free_fixture);
}
