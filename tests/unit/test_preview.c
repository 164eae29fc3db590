/* A preview shows what training draws: the loader's samples and the step's values, to the bit. */
#include "data_fixture.h"

#include "base/text.h"
#include "data/phantom.h"
#include "execute/program.h"
#include "graph/expand.h"
#include "preview/picture.h"
#include "preview/trace.h"

enum { EPOCH = 1, CROPS = 2, KEPT = 64 };

typedef struct kept {
  preview_graph graph;
  char name[64], note[128];
  int crop;
  bool is_unchanged;
  medical_case c;
} kept;

typedef struct opened {
  pipeline *p;
  dataset *data;
  device *device;
  kept edges[KEPT];
  int count;
} opened;

static char *root;

static void open_tiny(opened *o, const char *const *more) {
  *o = (opened){0};
  override overrides[8] = {{"data.root", root}};
  int count = 1;
  for (; more && more[0]; more += 2) overrides[count++] = (override){more[0], more[1]};
  expect_ok(pipeline_load(TEST_DATA "/pipelines/tiny.yaml", overrides, count, &o->p));
  expect_ok(dataset_open(&o->p->data, o->p->seed, &o->data));
  expect_ok(stages_infer_crops(o->p, o->data->channels));
  expect_ok(device_open("cpu", 2, &o->device, NULL));
}

static void forget(opened *o) {
  for (int i = 0; i < o->count; i++) case_free(&o->edges[i].c);
  o->count = 0;
}

static void close_tiny(opened *o) {
  forget(o);
  device_close(o->device);
  dataset_free(o->data);
  pipeline_free(o->p);
}

static status keep(void *context, const preview_edge *edge) {
  opened *o = context;
  assert_true(o->count < KEPT);
  kept *k = &o->edges[o->count++];
  *k = (kept){.graph = edge->graph, .crop = edge->crop, .is_unchanged = edge->is_unchanged};
  snprintf(k->name, sizeof k->name, "%s", edge->name);
  snprintf(k->note, sizeof k->note, "%s", edge->note ? edge->note : "");
  return edge->c ? case_copy(edge->c, &k->c) : OK;
}

static void trace(opened *o, const case_entry *entry, const char *stage, int64_t epoch) {
  forget(o);
  preview_options options = {.p = o->p,
                             .data = o->data,
                             .device = o->device,
                             .entry = entry,
                             .stage = pipeline_stage(o->p, stage),
                             .epoch = epoch,
                             .crops = CROPS,
                             .visit = keep,
                             .context = o};
  expect_ok(preview_trace(&options));
}

static const kept *edge_of(const opened *o, preview_graph g, const char *name, int crop) {
  for (int i = 0; i < o->count; i++)
    if (o->edges[i].graph == g && o->edges[i].crop == crop && strcmp(o->edges[i].name, name) == 0)
      return &o->edges[i];
  fail_msg("the preview has no %s, crop %d", name, crop);
  return NULL;
}

static const case_entry *entry_named(const opened *o, const char *name) {
  for (int i = 0; i < o->data->case_count; i++)
    if (strcmp(o->data->cases[i].name, name) == 0) return &o->data->cases[i];
  fail_msg("no case %s", name);
  return NULL;
}

static size_t values_of(const volume *v) {
  return (size_t)(v->size[0] * v->size[1] * v->size[2] * v->channels);
}

static void expect_same(const volume *v, const float *data) {
  assert_memory_equal(v->data, data, values_of(v) * sizeof *data);
}

static loader *open_loader(const opened *o, const stage_spec *s, bool label_free) {
  loader_options options = {.spec = &o->p->data,
                            .data = o->data,
                            .seed = o->p->seed,
                            .stage = s->name,
                            .role = ROLE_TRAIN,
                            .shuffle = true,
                            .label_free = label_free,
                            .batch = s->batch,
                            .steps_per_epoch = 8, /* every case at least twice */
                            .first_epoch = EPOCH,
                            .epochs = EPOCH + 1,
                            .size = {s->crop[0], s->crop[1], s->crop[2]},
                            .channels = o->data->channels,
                            .world = 1};
  loader *l;
  expect_ok(loader_open(&options, &l));
  return l;
}

/* Which draw of its case a row is: its keys say so. */
static int crop_of(const opened *o, const stage_spec *s, const batch *b, int64_t row) {
  for (int crop = 0; crop < CROPS; crop++) {
    rng_key key = rng_key_of(o->p->seed, s->name, EPOCH, b->case_names[row], crop);
    if (memcmp(&key, &b->keys[row], sizeof key) == 0) return crop;
  }
  return -1;
}

static void crops_are_those_of_the_loader(void **state) {
  (void)state;
  opened o;
  static const char *const stages[] = {"pretrain", "segment"};
  open_tiny(&o, NULL);
  for (int i = 0; i < 2; i++) {
    const stage_spec *s = pipeline_stage(o.p, stages[i]);
    loader *l = open_loader(&o, s, i == 0);
    batch *b;
    int compared = 0;
    for (expect_ok(loader_next(l, &b)); b; expect_ok(loader_next(l, &b)))
      for (int64_t row = 0; row < s->batch; row++) {
        int crop = crop_of(&o, s, b, row);
        if (crop < 0) continue;
        trace(&o, entry_named(&o, b->case_names[row]), s->name, EPOCH);
        const kept *last = edge_of(&o, PREVIEW_SAMPLE, "random_noise", crop);
        size_t values = values_of(&last->c.image);
        expect_same(&last->c.image, b->image + (size_t)row * values);
        assert_int_equal(last->c.label.data != NULL, i == 1);
        if (i == 1)
          assert_memory_equal(last->c.label.data, b->label + (size_t)row * values, values);
        compared++;
      }
    assert_true(compared >= 8);
    loader_close(l);
  }
  close_tiny(&o);
}

static void the_last_prepared_edge_is_the_prepared_case(void **state) {
  (void)state;
  opened o;
  open_tiny(&o, NULL);
  const case_entry *entry = &o.data->cases[0];
  medical_case file, prepared;
  data_spec raw = o.p->data;
  raw.prepare_count = 0;
  trace(&o, entry, "segment", 0);
  expect_ok(case_prepare(&raw, entry, NULL, &file));
  expect_ok(case_prepare(&o.p->data, entry, NULL, &prepared));
  const kept *first = edge_of(&o, PREVIEW_PREPARE, "the file", 0);
  const kept *last = edge_of(&o, PREVIEW_PREPARE, "scale_range", 0);
  expect_same(&file.image, first->c.image.data);
  expect_same(&prepared.image, last->c.image.data);
  assert_memory_equal(prepared.image.affine, last->c.image.affine, sizeof prepared.image.affine);
  assert_memory_equal(prepared.label.data, last->c.label.data, values_of(&prepared.image));
  case_free(&file);
  case_free(&prepared);
  close_tiny(&o);
}

/* The whole training program of the stage, which also learns, keeping two values more. */
static void run_training(const opened *o, const stage_spec *s, const batch *b, float *shuffled,
                         float *masked) {
  expand_options options = {.batch = s->batch,
                            .size = {s->crop[0], s->crop[1], s->crop[2]},
                            .channels = o->data->channels,
                            .classes = o->data->class_count,
                            .training = true};
  stage_graph g;
  parameters weights;
  program p;
  expect_ok(stage_expand(o->p, s, &options, &g));
  value_id values[32], made[] = {stage_graph_find(&g, "shuffled")->values[0],
                                 stage_graph_find(&g, "masked")->values[0]};
  int count = g.keep_count;
  memcpy(values, g.keep, (size_t)count * sizeof *values);
  for (int i = 0; i < 2; i++) values[count++] = made[i];
  optimizer_use optimizer = {.op = s->optimizer.op, .attrs = s->optimizer.attrs};
  expect_ok(parameters_create(g.g, o->device, &weights));
  expect_ok(parameters_initialize(&weights, o->p->seed));
  expect_ok(program_create(g.g, o->device, &weights, values, count, s->batch, &optimizer, &p));
  expect_ok(program_write(&p, g.image, b->image));
  expect_ok(program_set_keys(&p, b->keys));
  expect_ok(program_run(&p));
  expect_ok(program_read(&p, made[0], shuffled));
  expect_ok(program_read(&p, made[1], masked));
  program_free(&p);
  parameters_free(&weights);
  stage_graph_free(&g);
}

static void the_transformation_module_is_that_of_the_step(void **state) {
  (void)state;
  opened o;
  open_tiny(&o, NULL);
  const stage_spec *s = pipeline_stage(o.p, "pretrain");
  size_t voxels = (size_t)(s->crop[0] * s->crop[1] * s->crop[2]);
  float *shuffled = calloc(voxels * (size_t)s->batch, sizeof *shuffled);
  float *masked = calloc(voxels * (size_t)s->batch, sizeof *masked);
  loader *l = open_loader(&o, s, true);
  batch *b;
  int compared = 0;
  for (expect_ok(loader_next(l, &b)); b && compared < 4; expect_ok(loader_next(l, &b))) {
    run_training(&o, s, b, shuffled, masked);
    for (int64_t row = 0; row < s->batch; row++) {
      int crop = crop_of(&o, s, b, row);
      if (crop < 0) continue;
      trace(&o, entry_named(&o, b->case_names[row]), "pretrain", EPOCH);
      expect_same(&edge_of(&o, PREVIEW_STEP, "shuffled", crop)->c.image,
                  shuffled + (size_t)row * voxels);
      expect_same(&edge_of(&o, PREVIEW_STEP, "masked", crop)->c.image,
                  masked + (size_t)row * voxels);
      compared++;
    }
  }
  assert_true(compared >= 4);
  assert_true(strlen(edge_of(&o, PREVIEW_STEP, "shuffled.order", 0)->note) == strlen("1 0"));
  loader_close(l);
  free(shuffled);
  free(masked);
  close_tiny(&o);
}

static bool same_edges(const opened *a, const opened *b) {
  if (a->count != b->count) return false;
  for (int i = 0; i < a->count; i++) {
    const volume *x = &a->edges[i].c.image, *y = &b->edges[i].c.image;
    if (strcmp(a->edges[i].note, b->edges[i].note) != 0) return false;
    if (x->data && memcmp(x->data, y->data, values_of(x) * sizeof *x->data) != 0) return false;
  }
  return true;
}

static void draws_follow_seed_stage_epoch_and_case(void **state) {
  (void)state;
  opened one, other;
  static const char *const another_seed[] = {"seed", "6", "data.split_seed", "5", NULL};
  open_tiny(&one, NULL);
  open_tiny(&other, NULL);
  const case_entry *entry = entry_named(&one, one.data->cases[1].name);
  trace(&one, entry, "pretrain", 0);
  trace(&other, entry, "pretrain", 0);
  assert_true(same_edges(&one, &other));
  trace(&other, entry, "pretrain", 1);
  assert_false(same_edges(&one, &other));
  close_tiny(&other);
  open_tiny(&other, another_seed);
  trace(&other, entry, "pretrain", 0);
  assert_false(same_edges(&one, &other));
  close_tiny(&other);
  close_tiny(&one);
}

static void what_did_not_happen_is_called_unchanged(void **state) {
  (void)state;
  opened o;
  static const char *const never[] = {"data.sample.random_flip.probability", "0",
                                      "data.sample.random_noise.probability", "1", NULL};
  open_tiny(&o, never);
  trace(&o, &o.data->cases[0], "segment", 0);
  for (int crop = 0; crop < CROPS; crop++) {
    assert_true(edge_of(&o, PREVIEW_SAMPLE, "random_flip", crop)->is_unchanged);
    assert_false(edge_of(&o, PREVIEW_SAMPLE, "random_noise", crop)->is_unchanged);
  }
  close_tiny(&o);
}

/* A scheduled number has the value of the epoch's first step. */
static void schedules_are_followed(void **state) {
  (void)state;
  opened o;
  static const char *const half[] = {"stages.pretrain.schedules",
                                     "{masked.ratio: {lua: poly, power: 1}}",
                                     "stages.pretrain.graph.masked.ratio",
                                     "0.9",
                                     "stages.pretrain.epochs",
                                     "9",
                                     NULL};
  int masked[2];
  open_tiny(&o, half);
  for (int i = 0; i < 2; i++) {
    trace(&o, &o.data->cases[0], "pretrain", i * 8);
    const volume *v = &edge_of(&o, PREVIEW_STEP, "masked", 0)->c.image;
    const volume *before = &edge_of(&o, PREVIEW_STEP, "shuffled", 0)->c.image;
    masked[i] = 0;
    for (size_t k = 0; k < values_of(v); k++) masked[i] += v->data[k] != before->data[k];
  }
  assert_true(masked[0] > masked[1]);
  close_tiny(&o);
}

/* So have those of sample operators, in whatever order epochs are looked at. */
static void schedules_of_samples_are_followed(void **state) {
  (void)state;
  opened o;
  static const char *const fading[] = {"stages.pretrain.schedules",
                                       "{sample.random_noise.probability: {lua: poly, power: 1}}",
                                       "data.sample.random_noise.probability",
                                       "1",
                                       "stages.pretrain.epochs",
                                       "9",
                                       NULL};
  open_tiny(&o, fading);
  for (int i = 0; i < 3; i++) {
    int changed = 0;
    trace(&o, &o.data->cases[0], "pretrain", i == 1 ? 8 : 0);
    for (int crop = 0; crop < CROPS; crop++)
      changed += !edge_of(&o, PREVIEW_SAMPLE, "random_noise", crop)->is_unchanged;
    if (i == 1)
      assert_true(changed < CROPS);
    else
      assert_int_equal(changed, CROPS);
  }
  close_tiny(&o);
}

static void a_sheet_and_a_page_show_every_edge(void **state) {
  (void)state;
  opened o;
  open_tiny(&o, NULL);
  preview_album album = {.class_names = (const char *const *)o.data->class_names,
                         .class_count = o.data->class_count};
  preview_options options = {.p = o.p,
                             .data = o.data,
                             .device = o.device,
                             .entry = &o.data->cases[0],
                             .stage = pipeline_stage(o.p, "pretrain"),
                             .crops = CROPS,
                             .visit = preview_add,
                             .context = &album};
  expect_ok(preview_trace(&options));
  /* The file, two prepare operators; three sample operators; four results of the stage. */
  assert_int_equal(album.count, 3 + CROPS * (3 + 4));
  image sheet;
  text_buffer page = {0};
  expect_ok(preview_sheet(&album, "a <title>", &sheet));
  expect_ok(preview_page(&album, "a <title>", &page));
  assert_true(sheet.width > 500 && sheet.height > 1000);
  assert_non_null(strstr(page.data, "<h1>a &lt;title&gt;</h1>"));
  assert_non_null(strstr(page.data, "masked = mask_patches {size: 16, ratio: 0.4}"));
  int pictures = 0, figures = 0;
  for (const char *at = page.data; (at = strstr(at, "data:image/png")); at++) pictures++;
  for (const char *at = page.data; (at = strstr(at, "<figure>")); at++) figures++;
  assert_int_equal(figures, album.count);
  assert_int_equal(pictures, album.count - 2 * CROPS); /* order and mask are numbers */
  image_free(&sheet);
  text_free(&page);
  preview_free(&album);
  close_tiny(&o);
}

static int set_up(void **state) {
  (void)state;
  char *folder = temporary_folder();
  phantom_options options = {.size = {48, 48, 48}, .organs = 2};
  expect_ok(phantom_write(folder, 8, 1, &options));
  root = realpath(folder, NULL);
  free(folder);
  return root == NULL;
}

static int tear_down(void **state) {
  (void)state;
  remove_folder(root);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(crops_are_those_of_the_loader),
      cmocka_unit_test(the_last_prepared_edge_is_the_prepared_case),
      cmocka_unit_test(the_transformation_module_is_that_of_the_step),
      cmocka_unit_test(draws_follow_seed_stage_epoch_and_case),
      cmocka_unit_test(what_did_not_happen_is_called_unchanged),
      cmocka_unit_test(schedules_are_followed),
      cmocka_unit_test(schedules_of_samples_are_followed),
      cmocka_unit_test(a_sheet_and_a_page_show_every_edge),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
