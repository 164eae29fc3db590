/* Time of the data path, for compare_data.py.
 *
 *     bench_data cold|disk|memory PIPELINE ROOT THREADS ROUNDS PASSES
 *
 * A round takes every case of the data set in ROOT, PASSES times over without a stop between, a case a
 * thread, and draws crops_per_case samples from it into a batch. Seconds are those of a pass. cold: from the source files, without a cache. disk: from the prepare cache, which
 * is filled before the first round. memory: the prepared cases stay in memory, as the loader keeps
 * them. Prints a line of JSON. */
#include "bench.h"

#include "base/clock.h"
#include "base/parallel.h"
#include "data/dataset.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

typedef struct bench {
  const char *mode;
  const data_spec *spec;
  const dataset *data;
  const char *cache;         /* NULL: none */
  medical_case *kept;        /* memory: a prepared case each */
  batch *batches;            /* one a thread */
  atomic_flag *is_taken;     /* of each batch */
  int64_t size[3], channels; /* of a sample */
  int64_t passes, round;
  status *errors; /* one a case and pass */
} bench;

static int64_t sample_voxels(const bench *b) {
  return b->size[0] * b->size[1] * b->size[2];
}

static status draw_samples(const bench *b, const medical_case *from, int64_t pass, batch *to) {
  const int64_t voxels = sample_voxels(b);
  for (int64_t k = 0; k < b->spec->crops_per_case; k++) {
    medical_case room = {
        .image = {.channels = b->channels, .data = to->image + k * voxels * b->channels},
        .label = {.data = to->label + k * voxels}};
    memcpy(room.image.size, b->size, sizeof room.image.size);
    TRY(case_sample_into(b->spec, from, rng_key_of(1, "bench", pass, from->name, k), &room));
  }
  return OK;
}

static status make_batches(bench *b, int threads) {
  size_t cases = (size_t)b->data->case_count * (size_t)b->passes;
  size_t voxels = (size_t)(sample_voxels(b) * b->spec->crops_per_case);
  b->errors = calloc(cases, sizeof *b->errors);
  b->batches = calloc((size_t)threads, sizeof *b->batches);
  b->is_taken = calloc((size_t)threads, sizeof *b->is_taken);
  if (!b->errors || !b->batches || !b->is_taken)
    return error_out_of_memory(cases * sizeof *b->errors);
  for (int i = 0; i < threads; i++) {
    atomic_flag_clear(&b->is_taken[i]);
    b->batches[i].image = calloc(voxels * (size_t)b->channels, sizeof(float));
    b->batches[i].label = calloc(voxels, 1);
    if (!b->batches[i].image || !b->batches[i].label) return error_out_of_memory(voxels * 5);
    memory_want_huge_pages(b->batches[i].image, voxels * (size_t)b->channels * sizeof(float));
    memory_want_huge_pages(b->batches[i].label, voxels);
  }
  return OK;
}

static void one_case(void *context, int64_t task) {
  bench *b = context;
  const int64_t i = task % b->data->case_count;
  const int64_t pass = b->round * b->passes + task / b->data->case_count;
  int own = 0; /* there are as many as threads, so one is free */
  while (atomic_flag_test_and_set(&b->is_taken[own])) own++;
  medical_case made = {0};
  status error = OK;
  if (b->kept) {
    error = draw_samples(b, &b->kept[i], pass, &b->batches[own]);
  } else {
    error = case_prepare(b->spec, &b->data->cases[i], b->cache, &made);
    if (!error) error = labels_count(&made.label);
    if (!error) error = draw_samples(b, &made, pass, &b->batches[own]);
    case_free(&made);
  }
  b->errors[task] = error;
  atomic_flag_clear(&b->is_taken[own]);
}

static status run_round(bench *b, thread_pool *pool) {
  const int64_t tasks = b->data->case_count * b->passes;
  parallel_for(pool, tasks, one_case, b);
  status error = OK;
  for (int64_t i = 0; i < tasks; i++) {
    if (error)
      error_free(b->errors[i]);
    else
      error = b->errors[i];
    b->errors[i] = OK;
  }
  return error;
}

static status prepare_mode(bench *b, const char *root) {
  static char folder[4096];
  if (strcmp(b->mode, "cold") == 0) return OK;
  snprintf(folder, sizeof folder, "%s/cache", root);
  b->cache = folder;
  medical_case *kept = calloc((size_t)b->data->case_count, sizeof *kept);
  if (!kept) return error_out_of_memory((size_t)b->data->case_count * sizeof *kept);
  status error = OK;
  for (int i = 0; i < b->data->case_count && !error; i++) {
    error = case_prepare(b->spec, &b->data->cases[i], b->cache, &kept[i]);
    if (!error) error = labels_count(&kept[i].label);
    if (strcmp(b->mode, "disk") == 0) case_free(&kept[i]);
  }
  if (!error) error = cache_problem_take();
  if (!error && strcmp(b->mode, "memory") == 0)
    b->kept = kept;
  else
    free(kept);
  return error;
}

static double cpu_seconds(const struct rusage *usage) {
  return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) +
         1e-6 * (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec);
}

static status measure(char **argv) {
  override root = {.key = "data.root", .value = argv[3]};
  pipeline *p = NULL;
  dataset *data = NULL;
  thread_pool *pool = NULL;
  int threads = atoi(argv[4]), rounds = atoi(argv[5]);
  TRY(pipeline_load(argv[2], &root, 1, &p));
  TRY(dataset_open(&p->data, p->seed, &data));
  TRY(pool_create(threads, &pool));
  bench b = {.mode = argv[1], .spec = &p->data, .data = data, .passes = atoi(argv[6])};
  b.channels = data->channels;
  TRY(sample_infer(&p->data, b.channels, b.size));
  TRY(make_batches(&b, threads));
  TRY(prepare_mode(&b, argv[3]));
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  printf("{\"seconds\": [");
  for (int i = 0; i < rounds; i++, b.round++) {
    double started = clock_now_s();
    TRY(run_round(&b, pool));
    printf("%s%.5f", i ? ", " : "", (clock_now_s() - started) / (double)b.passes);
  }
  getrusage(RUSAGE_SELF, &after);
  printf("], \"cases\": %d, \"crops\": %lld, \"cpu_s\": %.4f, \"peak_rss_bytes\": %lld}\n",
         data->case_count, (long long)(data->case_count * p->data.crops_per_case),
         (cpu_seconds(&after) - cpu_seconds(&before)) / (rounds * (double)b.passes),
         (long long)after.ru_maxrss * 1024);
  for (int i = 0; i < data->case_count; i++) {
    if (b.kept) case_free(&b.kept[i]);
  }
  for (int i = 0; i < threads; i++) {
    free(b.batches[i].image);
    free(b.batches[i].label);
  }
  free(b.is_taken);
  free(b.kept);
  free(b.batches);
  free(b.errors);
  pool_destroy(pool);
  dataset_free(data);
  pipeline_free(p);
  return OK;
}

int main(int argc, char **argv) {
  return bench_main(argc, argv, 7,
                    "bench_data cold|disk|memory PIPELINE ROOT THREADS ROUNDS PASSES", measure);
}
