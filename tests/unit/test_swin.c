/* What is random in Swin UNETR, and the sizes it takes; its results are compared with MONAI's in
 * golden/test_networks.c. */
#include "base/text.h"
#include "infer/standalone.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static status open_swin(device *d, int64_t side, bool training, standalone *s) {
  static const override with[] = {{"outputs", "2"},     {"features", "12"},
                                  {"dropout", "0.2"},   {"attention_dropout", "0.4"},
                                  {"drop_path", "0.3"}, {"depths", "[2, 1, 3, 2]"}};
  standalone_options o = {
      .path = "models/swin_unetr.yaml",
      .overrides = with,
      .override_count = sizeof with / sizeof *with,
      .input = {.batch = 1, .channels = 1, .size = {side, 32, 64}, .training = training},
      .loss = training ? MODEL_LOSS_SQUARE : MODEL_LOSS_NONE};
  return standalone_open(&o, d, s);
}

static device *open_device(void) {
  device *d;
  assert_null(device_open("cpu", 1, &d, NULL));
  return d;
}

/* From 0 at the first layer to `drop_path` at the last: torch.linspace(0, 0.3, 8). */
static void drop_path_grows_from_layer_to_layer(void **state) {
  (void)state;
  static const char *const layers[] = {
      "layers1.0.blocks.0", "layers1.0.blocks.1", "layers2.0.blocks.0", "layers3.0.blocks.0",
      "layers3.0.blocks.1", "layers3.0.blocks.2", "layers4.0.blocks.0", "layers4.0.blocks.1"};
  device *d = open_device();
  standalone s;
  assert_null(open_swin(d, 32, true, &s));
  int branches = 0;
  for (int i = 0; i < s.graph.g->node_count; i++) {
    const node *n = &s.graph.g->nodes[i];
    if (n->backward || strcmp(n->op->name, "stochastic_depth") != 0) continue;
    branches++;
    int layer = 0;
    while (layer < 8 && !strstr(n->name, layers[layer])) layer++;
    assert_in_range(layer, 1, 7); /* the first drops nothing and is left out */
    assert_true(fabs(*attr_number(n->op, n->attrs, "rate") - 0.3 * layer / 7) < 1e-12);
  }
  assert_int_equal(branches, 7 * 2);
  standalone_close(&s);
  device_close(d);
}

static void nothing_is_dropped_outside_training(void **state) {
  (void)state;
  device *d = open_device();
  for (int training = 0; training < 2; training++) {
    standalone s;
    assert_null(open_swin(d, 32, training, &s));
    int dropouts = 0, attentions = 0;
    for (int i = 0; i < s.graph.g->node_count; i++) {
      const node *n = &s.graph.g->nodes[i];
      if (n->backward) continue;
      dropouts += strcmp(n->op->name, "dropout") == 0;
      assert_true(training || strcmp(n->op->name, "stochastic_depth") != 0);
      if (strcmp(n->op->name, "self_attention") != 0) continue;
      attentions++;
      assert_true(*attr_number(n->op, n->attrs, "dropout") == (training ? 0.4 : 0));
    }
    assert_int_equal(attentions, 8);
    assert_int_equal(dropouts, training ? 1 + 8 * 3 : 0);
    standalone_close(&s);
  }
  device_close(d);
}

static void a_side_that_is_no_multiple_of_32_is_an_error(void **state) {
  (void)state;
  device *d = open_device();
  standalone s;
  status error = open_swin(d, 48, false, &s);
  assert_non_null(error);
  assert_non_null(strstr(error_message(error), "input 1 is 1×4×2×4×96 and input 2 is 1×3×2×4×96"));
  error_free(error);
  device_close(d);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(drop_path_grows_from_layer_to_layer),
      cmocka_unit_test(nothing_is_dropped_outside_training),
      cmocka_unit_test(a_side_that_is_no_multiple_of_32_is_an_error),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
