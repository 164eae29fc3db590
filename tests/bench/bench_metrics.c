/* Time of HD95 and ASSD of two label maps in memory, for compare_metrics.py.
 *
 *     bench_metrics PREDICTION REFERENCE CLASSES THREADS REPEATS
 *
 * Prints a line of milliseconds, then a line `class hd95_mm assd_mm` for each foreground class. */
#include "bench.h"

#include "evaluate/metrics.h"

#include <stdlib.h>
#include <time.h>

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static status measure(char **argv) {
  labels prediction = {0}, reference = {0};
  thread_pool *pool = NULL;
  int classes = atoi(argv[3]), repeats = atoi(argv[5]);
  evaluate_spec spec = {.metrics = METRIC_BIT(METRIC_HD95) | METRIC_BIT(METRIC_ASSD)};
  case_score score = {0};
  status error = nifti_read_labels(argv[1], &prediction);
  if (!error) error = nifti_read_labels(argv[2], &reference);
  if (!error) error = pool_create(atoi(argv[4]), &pool);
  for (int i = 0; i < repeats && !error; i++) {
    case_score_free(&score);
    double started = now_ms();
    error = score_case(&prediction, &reference, classes, &spec, argv[1], pool, &score);
    printf("%.3f ", now_ms() - started);
  }
  printf("\n");
  for (int c = 1; c < classes && !error; c++)
    printf("%d %.9g %.9g\n", c, score.classes[c].value[METRIC_HD95],
           score.classes[c].value[METRIC_ASSD]);
  case_score_free(&score);
  pool_destroy(pool);
  labels_free(&prediction);
  labels_free(&reference);
  return error;
}

int main(int argc, char **argv) {
  return bench_main(argc, argv, 6, "bench_metrics PREDICTION REFERENCE CLASSES THREADS REPEATS",
                    measure);
}
