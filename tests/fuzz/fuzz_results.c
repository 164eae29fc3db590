/* evaluation.json, and the comparison of what it holds with the opposite of it. */
#include "fuzz.h"

#include "statistics/compare.h"

#include <math.h>

static void compare(const results *r, const results *other) {
  static FILE *sink;
  if (!sink && !(sink = fopen("/dev/null", "w"))) abort();
  const arm arms[] = {{"a", r, 1}, {"b", other, 1}};
  const compare_options options = {.resamples = 20};
  comparison c;
  status error = compare_arms(arms, 2, &options, &c);
  if (!error) {
    comparison_print(&c, sink);
    comparison_print_markdown(&c, sink);
    for (int i = 0; i < c.contrast_count; i++) {
      const contrast *k = &c.contrasts[i];
      FUZZ_REQUIRE(k->wins + k->losses + k->ties == k->pairs);
      FUZZ_REQUIRE(!(k->wilcoxon_holm < 0) && !(k->wilcoxon_holm > 1));
      FUZZ_REQUIRE(!(k->t_holm < 0) && !(k->t_holm > 1));
    }
    comparison_free(&c);
  }
  fuzz_refused(error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *path = fuzz_file(data, size);
  results r, opposite;
  status error = results_read(path, &r);
  if (!error) {
    FUZZ_REQUIRE(!results_read(path, &opposite));
    for (int i = 0; i < r.case_count; i++) FUZZ_REQUIRE(results_case_index(&r, r.cases[i]) == i);
    for (int i = 0; i < r.case_count * r.metric_count * r.class_count; i++) {
      FUZZ_REQUIRE(!isinf(r.values[i]));
      opposite.values[i] = -r.values[i];
    }
    compare(&r, &opposite);
    results_free(&r);
    results_free(&opposite);
  }
  fuzz_refused(error);
  return 0;
}
