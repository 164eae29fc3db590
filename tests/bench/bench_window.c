/* Time of sliding-window inference, for compare_data.py: how much of it is the network's.
 *
 *     bench_window PIPELINE ROOT THREADS X Y Z
 *
 * The network of the last stage, with fresh weights, twice over a volume of X × Y × Z random voxels, to
 * class numbers. Prints a line of JSON for each: the second is what a folder of cases costs, whose
 * memory the system has given before. */
#include "bench.h"

#include "base/clock.h"
#include "data/dataset.h"
#include "infer/network.h"

#include <stdlib.h>
#include <sys/resource.h>

/* Stands between the sliding window and the network, which gives its scores a few planes at a time:
 * what is spent on taking them is not the network's. */
typedef struct watched {
  inferer network;
  scores_fn take;
  void *taker;
  double seconds;
  int64_t calls;
} watched;

static status take_watched(void *context, int64_t n, int64_t from, int64_t to,
                           const float *scores) {
  watched *w = context;
  double started = clock_now_s();
  status error = w->take(w->taker, n, from, to, scores);
  w->seconds -= clock_now_s() - started;
  return error;
}

static status run_watched(void *context, scores_fn take, void *taker) {
  watched *w = context;
  w->take = take;
  w->taker = taker;
  double started = clock_now_s();
  status error = w->network.run(w->network.context, take_watched, w);
  w->seconds += clock_now_s() - started;
  w->calls++;
  return error;
}

static status random_volume(char **extents, int64_t channels, volume *out) {
  int64_t size[3] = {atoll(extents[0]), atoll(extents[1]), atoll(extents[2])};
  TRY(volume_allocate(out, size, channels));
  rng random = rng_open(rng_key_of(1, "bench", 0, "", 0), 0);
  for (int64_t i = 0; i < size[0] * size[1] * size[2] * channels; i++)
    out->data[i] = (float)rng_range(&random, 0, 1);
  for (int a = 0; a < 4; a++) out->affine[a][a] = 1;
  return OK;
}

static status segment(const network *n, const volume *image) {
  labels made;
  label_export e;
  watched w = {.network = n->inferer};
  inferer i = n->inferer;
  i.run = run_watched;
  i.context = &w;
  double started = clock_now_s();
  TRY(export_open(image, i.classes, image->size, image->affine, i.pool, &made, &e));
  score_reader reader = export_reader(&e);
  TRY(sliding_window(&i, image, &reader));
  double seconds = clock_now_s() - started;
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  printf("{\"seconds\": %.5f, \"network_s\": %.5f, \"calls\": %lld, \"peak_rss_bytes\": %lld}\n",
         seconds, w.seconds, (long long)w.calls, (long long)usage.ru_maxrss * 1024);
  labels_free(&made);
  return OK;
}

static status measure(char **argv) {
  override root = {.key = "data.root", .value = argv[2]};
  pipeline *p = NULL;
  dataset *data = NULL;
  device *d = NULL;
  network n;
  volume image = {0};
  TRY(pipeline_load(argv[1], &root, 1, &p));
  TRY(dataset_open(&p->data, p->seed, &data));
  TRY(device_open("cpu", atoi(argv[3]), &d, NULL));
  TRY(network_open(p, &p->stages[p->stage_count - 1], p->evaluate.output, data->channels,
                   data->class_count, d, NULL, &n));
  TRY(parameters_initialize(&n.own, 1));
  TRY(random_volume(argv + 4, data->channels, &image));
  for (int pass = 0; pass < 2; pass++) TRY(segment(&n, &image));
  volume_free(&image);
  network_close(&n);
  device_close(d);
  dataset_free(data);
  pipeline_free(p);
  return OK;
}

int main(int argc, char **argv) {
  return bench_main(argc, argv, 7, "bench_window PIPELINE ROOT THREADS X Y Z", measure);
}
