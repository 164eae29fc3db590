/* Peak memory and time of sliding-window inference around a network that costs next to nothing, so
 * that what is left is the bookkeeping.
 *
 *     bench_inference X Y Z CLASSES MEMORY TARGET_SCALE THREADS
 *
 * X × Y × Z voxels of 1.5 mm, windows of 96, overlap 0.5; MEMORY is the budget, such as 512MiB. The
 * result is exported to the grid itself (TARGET_SCALE 1) or to one with so many times the voxels along
 * every axis. Prints seconds and, after each step, the largest memory so far. */
#include "infer/infer.h"

#include "base/clock.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { WINDOW = 96 };

static double network_s;

typedef struct tiny_network {
  int classes;
  float *image, *logits;
} tiny_network;

/* One convolution of 1³ and one channel. */
static status run_tiny(void *context, scores_fn take, void *taker) {
  const tiny_network *n = context;
  const float *image = n->image;
  float *logits = n->logits;
  int classes = n->classes;
  double started = clock_now_s();
  for (int64_t v = 0; v < (int64_t)WINDOW * WINDOW * WINDOW; v++)
    for (int c = 0; c < classes; c++)
      logits[v * classes + c] = image[v] * (float)(c - 3) - 0.1f * (float)(c * c);
  network_s += clock_now_s() - started;
  return take(taker, 0, 0, WINDOW, logits);
}

static void report(const char *what, double *started) {
  struct rusage use;
  char peak[24];
  getrusage(RUSAGE_SELF, &use);
  printf("%-10s %8.2f s   largest memory %s\n", what, clock_now_s() - *started,
         format_bytes(peak, (double)use.ru_maxrss * 1024));
  *started = clock_now_s();
}

static status measure(char **argv) {
  int64_t size[3] = {atoll(argv[1]), atoll(argv[2]), atoll(argv[3])}, target[3];
  int classes = atoi(argv[4]);
  double scale = atof(argv[6]), started = clock_now_s(), affine[4][4] = {{0}};
  inferer f = {.windows = {.size = {WINDOW, WINDOW, WINDOW},
                           .overlap = 0.5,
                           .blend = BLEND_GAUSSIAN,
                           .sigma_scale = 0.125,
                           .batch = 1},
               .classes = classes,
               .run = run_tiny};
  if (!parse_bytes(argv[5], &f.windows.memory_bytes) || !(scale > 0))
    return error_new(ERROR_USAGE, NOWHERE, "MEMORY is a size such as 512MiB, TARGET_SCALE above 0");
  volume image = {0};
  labels out = {0};
  label_export e;
  size_t voxels = (size_t)WINDOW * WINDOW * WINDOW;
  tiny_network network = {.classes = classes,
                          .image = malloc(voxels * sizeof(float)),
                          .logits = malloc(voxels * (size_t)classes * sizeof(float))};
  if (!network.image || !network.logits) return error_out_of_memory(voxels * sizeof(float));
  f.image = network.image;
  f.context = &network;
  TRY(pool_create(atoi(argv[7]), &f.pool));
  status error = volume_allocate(&image, size, 1);
  for (int64_t v = 0; !error && v < size[0] * size[1] * size[2]; v++)
    image.data[v] = (float)(v * 2654435761 % 1000) / 250 - 2;
  for (int a = 0; a < 3; a++) {
    image.affine[a][a] = 1.5;
    affine[a][a] = 1.5 / scale;
    target[a] = (int64_t)((double)size[a] * scale);
  }
  image.affine[3][3] = affine[3][3] = 1;
  report("image", &started);
  if (!error)
    error = export_open(&image, classes, target, (const double(*)[4])affine, f.pool, &out, &e);
  score_reader reader = export_reader(&e);
  if (!error) error = sliding_window(&f, &image, &reader);
  printf("%.2f s are the network's\n", network_s);
  report("segment", &started);
  int64_t labelled = 0;
  for (int64_t v = 0; !error && v < target[0] * target[1] * target[2]; v++)
    labelled += out.data[v] > 0;
  if (!error) printf("%lld voxels labelled\n", (long long)labelled);
  labels_free(&out);
  volume_free(&image);
  free(network.image);
  free(network.logits);
  pool_destroy(f.pool);
  return error;
}

int main(int argc, char **argv) {
  if (argc != 8) {
    fprintf(stderr, "usage: bench_inference X Y Z CLASSES MEMORY TARGET_SCALE THREADS\n");
    return 2;
  }
  status error = measure(argv);
  if (error) {
    error_print(stderr, error);
    error_free(error);
    return 1;
  }
  return 0;
}
