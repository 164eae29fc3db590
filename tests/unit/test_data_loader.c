/* Data sets, the prepare cache and the loader. */
#include "data_fixture.h"

#include "base/text.h"
#include "data/phantom.h"

#include <dirent.h>
#include <sys/stat.h>

enum { CASES = 7 };

/* One small dataset for all tests. */
typedef struct fixture {
  char *folder, json[300], cache[300];
  arena memory;
  op_use prepare[2], sample[3];
  data_spec spec;
} fixture;

static int make_dataset(void **state) {
  fixture *f = calloc(1, sizeof *f);
  f->folder = temporary_folder();
  snprintf(f->json, sizeof f->json, "%s/dataset.json", f->folder);
  snprintf(f->cache, sizeof f->cache, "%s/cache", f->folder);
  phantom_options options = {.size = {20, 18, 16}, .organs = 4};
  expect_ok(phantom_write(f->folder, CASES, 5, &options));
  f->prepare[0] = USE(&f->memory, "orient", "axes", "RAS");
  f->prepare[1] = USE(&f->memory, "scale_range", "from", "[-175, 250]");
  f->sample[0] = USE(&f->memory, "random_crop", "size", "[8, 8, 4]");
  f->sample[1] = USE(&f->memory, "random_flip", "probability", "0.5");
  f->sample[2] = USE(&f->memory, "random_noise", "probability", "0.5");
  f->spec = (data_spec){.dataset = f->json,
                        .split = {0.6, 0.2, 0.2},
                        .prepare = f->prepare,
                        .prepare_count = 2,
                        .sample = f->sample,
                        .sample_count = 3,
                        .crops_per_case = 2,
                        .loader_threads = 2,
                        .queue = 2};
  *state = f;
  return 0;
}

static int remove_dataset(void **state) {
  fixture *f = *state;
  remove_folder(f->folder);
  arena_free(&f->memory);
  free(f);
  return 0;
}

/* ---- dataset ---- */

static void every_case_has_one_role_by_the_seed(void **state) {
  fixture *f = *state;
  dataset *a, *b, *c;
  expect_ok(dataset_open(&f->spec, 3, &a));
  expect_ok(dataset_open(&f->spec, 3, &b));
  expect_ok(dataset_open(&f->spec, 4, &c));
  assert_int_equal(a->case_count, CASES);
  assert_int_equal(a->class_count, 5);
  assert_string_equal(a->class_names[4], "liver");
  assert_int_equal(a->channels, 1);
  assert_true(a->identity == b->identity);
  assert_true(a->identity != c->identity);
  int index[CASES], total = 0;
  for (int r = 0; r < 3; r++) {
    int count = dataset_role(a, (role)r, index);
    assert_true(count >= 1);
    total += count;
    for (int i = 1; i < count; i++)
      assert_true(strcmp(a->cases[index[i - 1]].name, a->cases[index[i]].name) < 0);
  }
  assert_int_equal(total, CASES);
  for (int i = 0; i < CASES; i++) assert_int_equal(a->cases[i].role, b->cases[i].role);
  dataset_free(a);
  dataset_free(b);
  dataset_free(c);
}

static void roles_follow_the_fractions(void **state) {
  fixture *f = *state;
  static const struct {
    double split[3];
    int count[3];
  } rows[] = {{{1, 0, 0}, {7, 0, 0}},
              {{0, 0, 1}, {0, 0, 7}},
              {{0.7, 0.3, 0}, {5, 2, 0}},
              {{0.98, 0.01, 0.01}, {5, 1, 1}},
              {{0.1 + 0.2, 0.7, 0}, {2, 5, 0}}};
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    data_spec spec = f->spec;
    memcpy(spec.split, rows[i].split, sizeof spec.split);
    dataset *d;
    expect_ok(dataset_open(&spec, 3, &d));
    int index[CASES];
    for (int r = 0; r < 3; r++) assert_int_equal(dataset_role(d, (role)r, index), rows[i].count[r]);
    dataset_free(d);
  }
}

static void bad_descriptions_are_refused(void **state) {
  fixture *f = *state;
  static const struct {
    const char *text, *word;
  } rows[] = {
      {"", "line"},
      {"[]", "mapping"},
      {"{\"labels\": {\"0\": \"a\", \"1\": \"b\"}, \"labels\": {}}", "duplicate"},
      {"{\"training\": []}", "labels"},
      {"{\"labels\": {\"0\": \"background\"}}", "no class"},
      {"{\"labels\": {\"0\": \"a\", \"256\": \"b\"}}", "0 to 254"},
      {"{\"labels\": {\"-1\": \"a\"}}", "0 to 254"},
      {"{\"labels\": {\"a\": 1, \"b\": 1}}", "named twice"},
      {"{\"labels\": {\"0\": \"a\", \"1\": \"b\"}, \"modality\": {\"1\": \"CT\"}}", "channel"},
      {"{\"labels\": {\"0\": \"a\", \"1\": \"b\"}}", "training"},
      {"{\"labels\": {\"0\": \"a\", \"1\": \"b\"}, \"training\": [3]}", "[0]"},
      {"{\"labels\": {\"0\": \"a\", \"1\": \"b\"}, \"training\": [{\"image\": \"x.png\"}]}",
       "x.png"},
      {"{\"labels\": {\"0\": \"a\", \"1\": \"b\"}, \"training\": [{\"image\": \"../.nii\"}]}",
       "no name"},
      {"{\"labels\": {\"0\": \"a\", \"1\": \"b\"}, \"training\": [{\"image\": "
       "\"imagesTr\\n.nii\"}]}",
       "not the path"},
      {"{\"labels\": {\"0\": \"a\", \"1\": \"b\"}, \"training\": [{\"image\": "
       "\"imagesTr/phantom_001.nii.gz\"}, {\"image\": \"./imagesTr/phantom_001.nii.gz\"}]}",
       "two cases"},
  };
  char path[300];
  snprintf(path, sizeof path, "%s/bad.json", f->folder);
  data_spec spec = f->spec;
  spec.dataset = path;
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    write_text(path, rows[i].text);
    dataset *d;
    expect_error(dataset_open(&spec, 1, &d), rows[i].word);
    assert_null(d);
  }
  spec.dataset = "no/dataset.json";
  dataset *d;
  expect_error(dataset_open(&spec, 1, &d), "no/dataset.json");
}

static void all_missing_files_are_named_at_once(void **state) {
  fixture *f = *state;
  char path[300];
  snprintf(path, sizeof path, "%s/missing.json", f->folder);
  write_text(path, "{\"labels\": {\"background\": 0, \"b\": 1}, \"training\": ["
                   "{\"image\": \"imagesTr/gone_1.nii.gz\"}, {\"image\": \"gone_2.nii\"},"
                   "{\"image\": \"imagesTr/phantom_002.nii.gz\", \"label\": \"gone_3.nii\"}]}");
  data_spec spec = f->spec;
  spec.dataset = path;
  dataset *d;
  status error = dataset_open(&spec, 1, &d);
  assert_int_equal(error_count(error), 3);
  error_free(error);
}

/* ---- cache ---- */

static int count_entries(const char *folder, char last[600]) {
  DIR *dir = opendir(folder);
  int count = 0;
  for (struct dirent *e; dir && (e = readdir(dir));)
    if (e->d_name[0] != '.') {
      count++;
      snprintf(last, 600, "%s/%.255s", folder, e->d_name);
    }
  if (dir) closedir(dir);
  return count;
}

static void expect_equal_cases(const medical_case *a, const medical_case *b) {
  assert_memory_equal(a->image.size, b->image.size, sizeof a->image.size);
  size_t n = (size_t)(a->image.size[0] * a->image.size[1] * a->image.size[2]);
  assert_memory_equal(a->image.data, b->image.data, n * sizeof(float));
  assert_memory_equal(a->label.data, b->label.data, n);
  assert_memory_equal(a->image.affine, b->image.affine, sizeof a->image.affine);
  assert_memory_equal(a->label.affine, b->label.affine, sizeof a->label.affine);
}

static void the_cache_gives_what_preparing_gives(void **state) {
  fixture *f = *state;
  dataset *d;
  expect_ok(dataset_open(&f->spec, 3, &d));
  char cache[300], entry[600];
  snprintf(cache, sizeof cache, "%s/cache_a", f->folder);
  medical_case plain, made, read;
  expect_ok(case_prepare(&f->spec, &d->cases[0], NULL, &plain));
  expect_ok(case_prepare(&f->spec, &d->cases[0], cache, &made));
  assert_int_equal(count_entries(cache, entry), 1);
  struct stat before, after;
  assert_int_equal(stat(entry, &before), 0);
  expect_ok(case_prepare(&f->spec, &d->cases[0], cache, &read));
  assert_int_equal(stat(entry, &after), 0);
  assert_true(before.st_ino == after.st_ino); /* not written again */
  assert_string_equal(read.name, d->cases[0].name);
  expect_equal_cases(&plain, &made);
  expect_equal_cases(&plain, &read);
  case_free(&made);
  case_free(&read);

  /* Any damaged byte, and any cut, is found and made good. */
  char *bytes;
  size_t length;
  expect_ok(file_read(entry, 1 << 24, &bytes, &length));
  for (size_t at = 0; at < length; at += at < 400 ? 7 : length / 5) {
    bytes[at] ^= 1;
    expect_ok(file_write_atomic(entry, bytes, length));
    bytes[at] ^= 1;
    expect_ok(case_prepare(&f->spec, &d->cases[0], cache, &read));
    expect_equal_cases(&plain, &read);
    case_free(&read);
  }
  expect_ok(file_write_atomic(entry, bytes, length / 2));
  expect_ok(case_prepare(&f->spec, &d->cases[0], cache, &read));
  expect_equal_cases(&plain, &read);
  case_free(&read);
  free(bytes);
  expect_ok(file_read(entry, 1 << 24, &bytes, &length));
  free(bytes);
  case_free(&plain);
  dataset_free(d);
}

static void a_stale_entry_is_not_used(void **state) {
  fixture *f = *state;
  char cache[300], entry[600], image[300], label[300];
  snprintf(cache, sizeof cache, "%s/cache_b", f->folder);
  snprintf(image, sizeof image, "%s/image.nii.gz", f->folder);
  snprintf(label, sizeof label, "%s/label.nii.gz", f->folder);
  known_files known = {.prepare = 0};
  case_entry e = {.name = "case", .image = image, .label = label, .known = &known};
  volume v = numbered_volume(4, 5, 6, 1);
  labels l = {.size = {4, 5, 6}};
  expect_ok(labels_allocate(&l, l.size));
  memcpy(l.affine, v.affine, sizeof v.affine);
  for (int change = 0; change < 4; change++) {
    if (change == 1) v.data[7] += 1;
    if (change == 2) l.data[7] = 3;
    expect_ok(nifti_write_volume(image, &v));
    expect_ok(nifti_write_labels(label, &l, image));
    data_spec spec = f->spec;
    op_use use[2] = {f->prepare[0], USE(&f->memory, "scale_range", "from", "[-175, 250.0000001]")};
    if (change == 3) spec.prepare = use;
    medical_case c;
    expect_ok(case_prepare(&spec, &e, cache, &c));
    assert_int_equal(count_entries(cache, entry), change + 1);
    case_free(&c);
  }
  volume_free(&v);
  labels_free(&l);
}

static void files_that_did_not_change_are_not_read_again(void **state) {
  fixture *f = *state;
  char cache[300], entry[600], image[300];
  snprintf(cache, sizeof cache, "%s/cache_known", f->folder);
  snprintf(image, sizeof image, "%s/image_known.nii", f->folder);
  known_files known = {.prepare = 0};
  case_entry e = {.name = "case", .image = image, .known = &known};
  volume v = numbered_volume(4, 5, 6, 1);
  medical_case first, again;
  expect_ok(nifti_write_volume(image, &v));
  expect_ok(case_prepare(&f->spec, &e, cache, &first));
  assert_true(known.stamp[0] == 0 && known.stamp[1] == 0); /* too young to be sure of its times */
  sleep(4);
  case_free(&first);
  expect_ok(case_prepare(&f->spec, &e, cache, &first));
  assert_false(known.stamp[0] == 0 && known.stamp[1] == 0);
  /* With a wrong key the entry is not found; the files are, and the key is put right. */
  known_files right = known;
  known.key.part[0] ^= 1;
  expect_ok(case_prepare(&f->spec, &e, cache, &again));
  assert_memory_equal(&known, &right, sizeof known);
  case_free(&again);
  expect_ok(case_prepare(&f->spec, &e, cache, &again));
  assert_int_equal(count_entries(cache, entry), 1);
  assert_memory_equal(first.image.data, again.image.data, 4 * 5 * 6 * sizeof(float));
  case_free(&first);
  case_free(&again);
  /* The same number of bytes, in place. */
  v.data[7] += 1;
  expect_ok(nifti_write_volume(image, &v));
  expect_ok(case_prepare(&f->spec, &e, cache, &again));
  assert_int_equal(count_entries(cache, entry), 2);
  case_free(&again);
  volume_free(&v);
}

static void a_cache_that_cannot_be_written_loses_nothing(void **state) {
  fixture *f = *state;
  dataset *d;
  expect_ok(dataset_open(&f->spec, 3, &d));
  medical_case c;
  expect_ok(cache_problem_take());
  expect_ok(case_prepare(&f->spec, &d->cases[0], f->json, &c)); /* a file, not a folder */
  case_free(&c);
  expect_ok(case_prepare(&f->spec, &d->cases[1], f->json, &c));
  case_free(&c);
  expect_error(cache_problem_take(), "dataset.json");
  expect_ok(case_prepare(&f->spec, &d->cases[2], f->json, &c));
  case_free(&c);
  expect_ok(cache_problem_take()); /* it has been said */
  dataset_free(d);
}

static void image_and_label_must_share_a_grid(void **state) {
  fixture *f = *state;
  char image[300], label[300];
  snprintf(image, sizeof image, "%s/grid.nii", f->folder);
  snprintf(label, sizeof label, "%s/grid_label.nii", f->folder);
  case_entry e = {.name = "case_9", .image = image, .label = label};
  volume v = numbered_volume(4, 5, 6, 1);
  labels l = {0};
  medical_case c;
  expect_ok(nifti_write_volume(image, &v));
  expect_ok(labels_allocate(&l, (int64_t[]){4, 5, 5}));
  memcpy(l.affine, v.affine, sizeof v.affine);
  expect_ok(nifti_write_labels(label, &l, NULL));
  expect_error(case_prepare(&f->spec, &e, NULL, &c), "case_9: the label");
  labels_free(&l);
  expect_ok(labels_allocate(&l, v.size));
  memcpy(l.affine, v.affine, sizeof v.affine);
  l.affine[2][3] += 0.5;
  expect_ok(nifti_write_labels(label, &l, NULL));
  expect_error(case_prepare(&f->spec, &e, NULL, &c), "apart");
  labels_free(&l);
  volume_free(&v);
}

static void classes_without_a_name_are_refused(void **state) {
  fixture *f = *state;
  dataset *d;
  expect_ok(dataset_open(&f->spec, 3, &d));
  medical_case c;
  expect_ok(case_prepare(&f->spec, &d->cases[0], f->cache, &c));
  case_free(&c);
  d->cases[0].class_count = 4; /* the phantom has classes 0 to 4 */
  expect_error(case_prepare(&f->spec, &d->cases[0], f->cache, &c), "class 4"); /* cached */
  expect_error(case_prepare(&f->spec, &d->cases[0], NULL, &c),
               "if it marks voxels whose class nobody knows, say data: {ignore_label: 4}");
  dataset_free(d);
}

/* ---- loader ---- */

static loader_options options_of(fixture *f, const dataset *d) {
  return (loader_options){.spec = &f->spec,
                          .data = d,
                          .cache = f->cache,
                          .seed = 11,
                          .stage = "segment",
                          .role = ROLE_TRAIN,
                          .shuffle = true,
                          .batch = 3,
                          .epochs = 3,
                          .size = {8, 8, 4},
                          .channels = 1};
}

enum { DIGESTS_MAX = 256 };

/* A hash of every sample, in order: image, label, key and name. */
static int digest_run(const loader_options *o, uint64_t digest[DIGESTS_MAX]) {
  loader *l;
  expect_ok(loader_open(o, &l));
  int count = 0;
  for (;;) {
    batch *b;
    expect_ok(loader_next(l, &b));
    if (!b) break;
    for (int64_t n = 0; n < o->batch; n++) {
      int64_t voxels = o->size[0] * o->size[1] * o->size[2];
      uint64_t h = bytes_hash(b->image + n * voxels, (size_t)voxels * sizeof(float));
      h = hash_mix(h, bytes_hash(b->label + n * voxels, (size_t)voxels));
      h = hash_mix(h, b->keys[n].run ^ b->keys[n].sample);
      h = hash_mix(h, text_hash(b->case_names[n]) ^ (uint64_t)(b->epoch * 1000 + b->step));
      assert_true(count < DIGESTS_MAX);
      digest[count++] = h;
    }
  }
  loader_close(l);
  return count;
}

static void batches_do_not_depend_on_threads_queue_or_memory(void **state) {
  fixture *f = *state;
  dataset *d;
  expect_ok(dataset_open(&f->spec, 3, &d));
  uint64_t want[DIGESTS_MAX], got[DIGESTS_MAX];
  loader_options o = options_of(f, d);
  f->spec.loader_threads = 1;
  int count = digest_run(&o, want);
  assert_int_equal(count, 3 * 3 * 3); /* 4 cases, 2 crops, batches of 3: 3 steps */
  static const int threads[] = {2, 5, 9, 3};
  for (int i = 0; i < 4; i++) {
    f->spec.loader_threads = threads[i];
    f->spec.queue = 1 + i * 2;
    o.memory_budget_bytes = i % 2 ? 1 : 0; /* 1: nothing is kept */
    o.cache = i == 3 ? NULL : f->cache;
    assert_int_equal(digest_run(&o, got), count);
    assert_memory_equal(got, want, (size_t)count * sizeof *got);
  }
  f->spec.loader_threads = 2;
  f->spec.queue = 2;
  dataset_free(d);
}

/* Makes what the loader has only drawn, from the case that it keeps for that. */
static int make_drawn(const loader_options *o, batch *b) {
  const int64_t voxels = o->size[0] * o->size[1] * o->size[2];
  int made = 0;
  for (int64_t n = 0; n < o->batch; n++) {
    if (!b->drawn[n].from) continue;
    medical_case room = {.image = {.channels = 1, .data = b->image + n * voxels},
                         .label = {.data = b->label + n * voxels}};
    memcpy(room.image.size, o->size, sizeof room.image.size);
    assert_string_equal(b->drawn[n].from->name, b->case_names[n]);
    assert_true(b->drawn[n].recipe.count > 0);
    expect_ok(case_sample_into(o->spec, b->drawn[n].from, b->keys[n], &room));
    made++;
  }
  return made;
}

static void drawn_samples_are_those_that_would_be_made(void **state) {
  fixture *f = *state;
  dataset *d;
  expect_ok(dataset_open(&f->spec, 3, &d));
  loader_options plain = options_of(f, d), drawing = options_of(f, d);
  drawing.memory_budget_bytes = 1;              /* only what a waiting batch needs is kept */
  static const size_t bounds[] = {SIZE_MAX, 1}; /* of which no case is as small as the second */
  for (int k = 0; k < 2; k++) {
    loader *l, *m;
    drawing.drawn_case_bytes = bounds[k];
    expect_ok(loader_open(&plain, &l));
    expect_ok(loader_open(&drawing, &m));
    for (int step = 0; step < 3 * 3; step++) {
      batch *want, *got;
      expect_ok(loader_next(l, &want));
      expect_ok(loader_next(m, &got));
      assert_null(want->drawn);
      assert_int_equal(make_drawn(&drawing, got), k == 0 ? 3 : 0);
      assert_memory_equal(got->image, want->image, 3 * 8 * 8 * 4 * sizeof(float));
      assert_memory_equal(got->label, want->label, 3 * 8 * 8 * 4);
      assert_memory_equal(got->keys, want->keys, 3 * sizeof *got->keys);
    }
    loader_close(l);
    loader_close(m); /* the last batch is still with its consumer */
  }
  dataset_free(d);
}

static void a_resumed_run_continues_the_same_sequence(void **state) {
  fixture *f = *state;
  dataset *d;
  expect_ok(dataset_open(&f->spec, 3, &d));
  uint64_t want[DIGESTS_MAX], got[DIGESTS_MAX];
  loader_options o = options_of(f, d);
  int count = digest_run(&o, want);
  for (int epoch = 0; epoch < 3; epoch++)
    for (int step = 0; step < 3; step++) {
      o.first_epoch = epoch;
      o.first_step = step;
      int skipped = (epoch * 3 + step) * 3;
      assert_int_equal(digest_run(&o, got), count - skipped);
      assert_memory_equal(got, want + skipped, (size_t)(count - skipped) * sizeof *got);
    }
  o.first_epoch = 3;
  o.first_step = 0;
  assert_int_equal(digest_run(&o, got), 0);
  dataset_free(d);
}

static void ranks_share_the_samples_of_one_process(void **state) {
  fixture *f = *state;
  dataset *d;
  expect_ok(dataset_open(&f->spec, 3, &d));
  uint64_t want[DIGESTS_MAX], got[DIGESTS_MAX];
  loader_options o = options_of(f, d);
  o.batch = 6;
  int count = digest_run(&o, want);
  o.batch = 2;
  o.world = 3;
  for (int rank = 0; rank < 3; rank++) {
    o.rank = rank;
    assert_int_equal(digest_run(&o, got) * 3, count);
    for (int i = 0; i < count / 3; i++) assert_true(got[i] == want[i * 3 + rank]);
  }
  dataset_free(d);
}

static void an_epoch_visits_every_case_equally(void **state) {
  fixture *f = *state;
  dataset *d;
  expect_ok(dataset_open(&f->spec, 3, &d));
  loader_options o = options_of(f, d);
  o.batch = 2; /* 4 cases × 2 crops = 4 steps */
  loader *l;
  expect_ok(loader_open(&o, &l));
  assert_int_equal(loader_steps_per_epoch(l), 4);
  char order[3][256] = {{0}};
  for (int epoch = 0; epoch < 3; epoch++) {
    int seen[CASES] = {0};
    for (int step = 0; step < 4; step++) {
      batch *b;
      expect_ok(loader_next(l, &b));
      assert_int_equal(b->epoch, epoch);
      assert_int_equal(b->step, step);
      for (int n = 0; n < 2; n++) {
        strcat(order[epoch], b->case_names[n]);
        for (int i = 0; i < CASES; i++) seen[i] += strcmp(d->cases[i].name, b->case_names[n]) == 0;
      }
      if (step % 2 == 1) /* after each pass over the cases */
        for (int i = 0; i < CASES; i++)
          assert_int_equal(seen[i], d->cases[i].role == ROLE_TRAIN ? (step + 1) / 2 : 0);
    }
  }
  assert_string_not_equal(order[0], order[1]);
  assert_string_not_equal(order[1], order[2]);
  loader_close(l);
  dataset_free(d);
}

/* The training cases weigh 0, 1, 2 and 3. */
static void weigh(const dataset *d, double weights[CASES]) {
  int index[CASES], count = dataset_role(d, ROLE_TRAIN, index);
  memset(weights, 0, CASES * sizeof *weights);
  for (int i = 0; i < count; i++) weights[index[i]] = i;
}

static void cases_are_drawn_by_their_weights(void **state) {
  fixture *f = *state;
  dataset *d;
  expect_ok(dataset_open(&f->spec, 3, &d));
  double weights[CASES];
  weigh(d, weights);
  loader_options o = options_of(f, d);
  o.weights = weights;
  o.batch = 8;
  o.epochs = 300; /* of 8 draws */
  loader *l;
  expect_ok(loader_open(&o, &l));
  int drawn[CASES] = {0}, twins = 0;
  for (batch *b;;) {
    expect_ok(loader_next(l, &b));
    if (!b) break;
    for (int n = 0; n < 8; n++) {
      for (int i = 0; i < CASES; i++) drawn[i] += strcmp(d->cases[i].name, b->case_names[n]) == 0;
      for (int m = 0; m < n; m++) twins += b->keys[m].sample == b->keys[n].sample;
    }
  }
  loader_close(l);
  assert_int_equal(twins, 0); /* a case drawn twice gives two crops */
  /* Of 2400 draws a case with the share p gets 2400·p, give or take four standard deviations. */
  for (int i = 0; i < CASES; i++) {
    double expected = 2400 * weights[i] / 6;
    assert_true(fabs(drawn[i] - expected) <= 4 * sqrt(expected * (1 - weights[i] / 6)));
  }
  dataset_free(d);
}

static void weighted_draws_do_not_depend_on_threads_ranks_or_a_resume(void **state) {
  fixture *f = *state;
  dataset *d;
  expect_ok(dataset_open(&f->spec, 3, &d));
  uint64_t want[DIGESTS_MAX], got[DIGESTS_MAX];
  double weights[CASES];
  weigh(d, weights);
  loader_options o = options_of(f, d);
  o.weights = weights;
  o.batch = 4; /* 4 cases, 2 crops: 2 steps of 3 epochs */
  f->spec.loader_threads = 1;
  int count = digest_run(&o, want);
  assert_int_equal(count, 3 * 2 * 4);
  f->spec.loader_threads = 5;
  assert_int_equal(digest_run(&o, got), count);
  assert_memory_equal(got, want, (size_t)count * sizeof *got);
  f->spec.loader_threads = 2;
  o.first_epoch = 1;
  o.first_step = 1;
  assert_int_equal(digest_run(&o, got), count - 12);
  assert_memory_equal(got, want + 12, (size_t)(count - 12) * sizeof *got);
  o.first_epoch = o.first_step = 0;
  o.batch = 2;
  o.world = 2;
  for (int rank = 0; rank < 2; rank++) {
    o.rank = rank;
    assert_int_equal(digest_run(&o, got) * 2, count);
    for (int i = 0; i < count / 2; i++) assert_true(got[i] == want[i * 2 + rank]);
  }
  dataset_free(d);
}

static void a_label_free_stage_sees_no_label(void **state) {
  fixture *f = *state;
  dataset *d;
  expect_ok(dataset_open(&f->spec, 3, &d));
  loader_options o = options_of(f, d);
  o.label_free = true;
  uint64_t free_of_labels[DIGESTS_MAX], without_files[DIGESTS_MAX];
  int count = digest_run(&o, free_of_labels);
  const char *kept[CASES];
  for (int i = 0; i < CASES; i++) {
    kept[i] = d->cases[i].label;
    d->cases[i].label = NULL;
  }
  assert_int_equal(digest_run(&o, without_files), count);
  assert_memory_equal(free_of_labels, without_files, (size_t)count * sizeof(uint64_t));
  o.label_free = false;
  loader *l;
  expect_error(loader_open(&o, &l), "the split leaves no training case with a label");
  /* Those that have one are learned from, and no other. */
  int index[CASES], training = dataset_role(d, ROLE_TRAIN, index);
  d->cases[index[1]].label = kept[index[1]];
  assert_int_equal(dataset_role_usable(d, ROLE_TRAIN, false), 1);
  assert_int_equal(dataset_role_usable(d, ROLE_TRAIN, true), training);
  expect_ok(loader_open(&o, &l));
  batch *b;
  int drawn = 0;
  for (;; drawn++) {
    expect_ok(loader_next(l, &b));
    if (!b) break;
    for (int i = 0; i < o.batch; i++)
      assert_string_equal(b->case_names[i], d->cases[index[1]].name);
  }
  assert_true(drawn > 0);
  loader_close(l);
  for (int i = 0; i < CASES; i++) d->cases[i].label = kept[i];
  dataset_free(d);
}

static void a_failing_case_is_named_after_the_batches_before_it(void **state) {
  fixture *f = *state;
  dataset *d;
  expect_ok(dataset_open(&f->spec, 3, &d));
  char bad[300];
  snprintf(bad, sizeof bad, "%s/bad.nii.gz", f->folder);
  write_text(bad, "no volume");
  int index[CASES];
  assert_int_equal(dataset_role(d, ROLE_TRAIN, index), 4);
  const char *kept = d->cases[index[2]].image;
  loader_options o = options_of(f, d);
  o.batch = 1;
  o.epochs = 50;
  int good[2];
  for (int run = 0; run < 2; run++) {
    f->spec.loader_threads = run ? 6 : 1;
    d->cases[index[2]].image = bad;
    loader *l;
    expect_ok(loader_open(&o, &l));
    batch *b = NULL;
    good[run] = -1;
    status error;
    do {
      error = loader_next(l, &b);
      good[run]++;
    } while (!error);
    expect_error(error, d->cases[index[2]].name);
    expect_ok(loader_next(l, &b));
    assert_null(b);
    loader_close(l);
    d->cases[index[2]].image = kept;
  }
  assert_int_equal(good[0], good[1]);

  /* An operator that fails is named too, and a loader may be closed at any time. */
  op_use impossible = USE(&f->memory, "crop_foreground", "above", "1e9");
  data_spec spec = f->spec;
  spec.prepare = &impossible;
  spec.prepare_count = 1;
  o.spec = &spec;
  loader *l;
  batch *b;
  expect_ok(loader_open(&o, &l));
  expect_error(loader_next(l, &b), "crop_foreground");
  loader_close(l);
  o.spec = &f->spec;
  for (int i = 0; i < 20; i++) {
    expect_ok(loader_open(&o, &l));
    if (i % 2) expect_ok(loader_next(l, &b));
    loader_close(l);
  }
  f->spec.loader_threads = 2;
  dataset_free(d);
}

/* ---- phantom ---- */

static void a_phantom_depends_on_its_seed_alone(void **state) {
  (void)state;
  char *folder = temporary_folder();
  uint64_t hash[3][2] = {{0}};
  for (int run = 0; run < 3; run++) {
    phantom_options options = {.size = {40, 40, 24}};
    /* The second run makes one case more: earlier cases are not touched by it. */
    expect_ok(phantom_write(folder, run == 1 ? 3 : 2, run == 2 ? 9 : 8, &options));
    for (int part = 0; part < 2; part++) {
      char path[300], *bytes;
      size_t length;
      snprintf(path, sizeof path, "%s/%s/phantom_002.nii.gz", folder,
               part ? "labelsTr" : "imagesTr");
      expect_ok(file_read(path, 1 << 24, &bytes, &length));
      hash[run][part] = bytes_hash(bytes, length);
      free(bytes);
    }
  }
  assert_memory_equal(hash[0], hash[1], sizeof hash[0]);
  assert_true(hash[0][0] != hash[2][0] && hash[0][1] != hash[2][1]);
  remove_folder(folder);
}

static void a_phantom_has_all_organs_where_they_belong(void **state) {
  (void)state;
  char *folder = temporary_folder(), path[300];
  phantom_options options = {.size = {80, 80, 60}};
  expect_ok(phantom_write(folder, 3, 2, &options));
  for (int i = 1; i <= 3; i++) {
    labels l, turned;
    snprintf(path, sizeof path, "%s/labelsTr/phantom_%03d.nii.gz", folder, i);
    expect_ok(nifti_read_labels(path, &l));
    grid_map map = grid_to_axes((const double(*)[4])l.affine, l.size, "RAS");
    expect_ok(labels_regrid(&l, &map, &turned));
    double x[14] = {0};
    int64_t count[14] = {0}, n = turned.size[0] * turned.size[1] * turned.size[2];
    for (int64_t k = 0; k < n; k++) {
      assert_in_range(turned.data[k], 0, 13);
      count[turned.data[k]]++;
      x[turned.data[k]] += (double)(k / (turned.size[1] * turned.size[2]));
    }
    for (int organ = 1; organ < 14; organ++) {
      if (count[organ] < 5) fail_msg("phantom %d lacks organ %d", i, organ);
      x[organ] = x[organ] / (double)count[organ] / (double)turned.size[0] - 0.5;
    }
    assert_true(x[6] > 0.05 &&
                x[1] < -0.05); /* the liver is on the right, the spleen on the left */
    assert_true(x[2] > 0.05 && x[3] < -0.05); /* and so are the kidneys by name */
    labels_free(&l);
    labels_free(&turned);
  }
  remove_folder(folder);
}

/* Mean of a channel over the voxels of a class, as a multiple of that over the rest of the brain. */
static double brightness(const volume *v, const labels *l, int channel, uint8_t class) {
  double sum[2] = {0}, count[2] = {0};
  for (int64_t k = 0; k < v->size[0] * v->size[1] * v->size[2]; k++) {
    float value = v->data[k * v->channels + channel];
    if (value == 0 || (l->data[k] != 0 && l->data[k] != class)) continue;
    sum[l->data[k] == class] += value;
    count[l->data[k] == class]++;
  }
  return sum[1] / count[1] / (sum[0] / count[0]);
}

static void a_phantom_of_a_brain_shows_each_part_of_a_glioma_where_mri_does(void **state) {
  (void)state;
  enum { BRAINS = 16, FLAIR = 0, T1, T1_GADOLINIUM, T2 };
  char *folder = temporary_folder(), path[300];
  phantom_options options = {.layout = PHANTOM_BRATS, .size = {64, 64, 41}};
  expect_ok(phantom_write(folder, BRAINS, 1, &options));
  int enhancing = 0;
  for (int i = 1; i <= BRAINS; i++) {
    volume v = {0};
    labels l = {0};
    snprintf(path, sizeof path, "%s/imagesTr/BRATS_%03d.nii.gz", folder, i);
    expect_ok(nifti_read_volume(path, &v));
    snprintf(path, sizeof path, "%s/labelsTr/BRATS_%03d.nii.gz", folder, i);
    expect_ok(nifti_read_labels(path, &l));
    assert_int_equal(v.channels, 4);
    int64_t count[4] = {0}, outside = 0, n = v.size[0] * v.size[1] * v.size[2];
    for (int64_t k = 0; k < n; k++) {
      const float *voxel = v.data + 4 * k;
      assert_in_range(l.data[k], 0, 3);
      count[l.data[k]]++;
      outside += voxel[0] == 0;
      for (int c = 0; c < 4; c++) assert_true((voxel[c] > 0) == (voxel[0] > 0));
      assert_true(l.data[k] == 0 || voxel[0] > 0);
    }
    assert_true(outside > n / 2 && outside < n * 19 / 20);
    assert_true(count[1] > count[2] && count[2] > 0);
    assert_true(brightness(&v, &l, FLAIR, 1) > 1.3 && brightness(&v, &l, T2, 1) > 1.2);
    assert_true(brightness(&v, &l, FLAIR, 2) < brightness(&v, &l, FLAIR, 1));
    if (count[3] > 0) {
      enhancing++;
      assert_true(brightness(&v, &l, T1_GADOLINIUM, 3) > 1.2 * brightness(&v, &l, T1, 3));
    }
    volume_free(&v);
    labels_free(&l);
  }
  assert_true(enhancing >= BRAINS / 2 && enhancing < BRAINS);
  remove_folder(folder);
}

static void a_phantom_does_not_overwrite_a_dataset(void **state) {
  (void)state;
  char *folder = temporary_folder(), path[300];
  snprintf(path, sizeof path, "%s/dataset.json", folder);
  write_text(path, "{\"name\": \"Hippocampus\"}");
  expect_error(phantom_write(folder, 1, 1, NULL), "another dataset");
  expect_error(phantom_write(folder, -1, 1, NULL), "cases");
  expect_error(phantom_write(folder, 1, 1, &(phantom_options){.organs = 14}), "organs");
  expect_error(phantom_write(folder, 1, 1, &(phantom_options){.size = {4, 0, 0}}), "voxels");
  remove_folder(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_case_has_one_role_by_the_seed),
      cmocka_unit_test(roles_follow_the_fractions),
      cmocka_unit_test(bad_descriptions_are_refused),
      cmocka_unit_test(all_missing_files_are_named_at_once),
      cmocka_unit_test(the_cache_gives_what_preparing_gives),
      cmocka_unit_test(files_that_did_not_change_are_not_read_again),
      cmocka_unit_test(a_stale_entry_is_not_used),
      cmocka_unit_test(a_cache_that_cannot_be_written_loses_nothing),
      cmocka_unit_test(image_and_label_must_share_a_grid),
      cmocka_unit_test(classes_without_a_name_are_refused),
      cmocka_unit_test(batches_do_not_depend_on_threads_queue_or_memory),
      cmocka_unit_test(drawn_samples_are_those_that_would_be_made),
      cmocka_unit_test(a_resumed_run_continues_the_same_sequence),
      cmocka_unit_test(ranks_share_the_samples_of_one_process),
      cmocka_unit_test(an_epoch_visits_every_case_equally),
      cmocka_unit_test(cases_are_drawn_by_their_weights),
      cmocka_unit_test(weighted_draws_do_not_depend_on_threads_ranks_or_a_resume),
      cmocka_unit_test(a_label_free_stage_sees_no_label),
      cmocka_unit_test(a_failing_case_is_named_after_the_batches_before_it),
      cmocka_unit_test(a_phantom_depends_on_its_seed_alone),
      cmocka_unit_test(a_phantom_has_all_organs_where_they_belong),
      cmocka_unit_test(a_phantom_of_a_brain_shows_each_part_of_a_glioma_where_mri_does),
      cmocka_unit_test(a_phantom_does_not_overwrite_a_dataset),
  };
  return cmocka_run_group_tests(tests, make_dataset, remove_dataset);
}
