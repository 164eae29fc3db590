/* Shapes that do not fit are refused with a sentence that says what to change. */
#include "operators.h"

/* Builds `name` with attributes "key: value" on zeros of the given shape and expects an error. */
static void refused(const char *name, shape x, const char *const *attributes, const char *words) {
  bench t;
  bench_open(&t, 1);
  const op *o = op_find(name);
  assert_non_null(o);
  arena memory = {0};
  void *attrs = arena_alloc(&memory, o->attrs_bytes + 1);
  op_defaults(o, attrs);
  for (int i = 0; attributes[i]; i += 2)
    set_attr(o, attrs, attributes[i], attributes[i + 1], &memory);
  value_id in = build_input(&t.b, "x", DTYPE_F32, x), out[16];
  must_fail(build_node(&t.b, name, attrs, &in, 1, out), words);
  arena_free(&memory);
  bench_close(&t);
}

#define REFUSED(name, x, words, ...)                                                               \
  refused(name, x, (const char *const[]){__VA_ARGS__, NULL}, words)

static void one_axis_is_checked(void **state) {
  (void)state;
  shape volume = SHAPE(1, 4, 5, 6, 3), tokens = SHAPE(1, 7, 3);
  REFUSED("slice", volume, "has only 3 there", "start", "2", "size", "2");
  REFUSED("slice", volume, "only a sequence", "axis", "token", "size", "1");
  REFUSED("slice", tokens, "only a volume", "axis", "y", "size", "1");
  REFUSED("slice", tokens, "its axes after the batch are 1 to 2", "axis", "5", "size", "1");
  REFUSED("concat", SHAPE(4), "its axes after the batch", "axis", "1");
}

static void boxes_lie_in_their_volume(void **state) {
  (void)state;
  shape volume = SHAPE(1, 4, 5, 6, 3);
  REFUSED("roll", SHAPE(1, 7, 3), "must be a volume", "shift", "1");
  REFUSED("crop_volume", volume, "does not lie in the volume's 4", "size", "5");
  REFUSED("crop_volume", volume, "does not lie in the volume's 5", "size", "3", "start",
          "[0, 3, 0]");
  REFUSED("pad_volume", volume, "use mode replicate", "before", "[4, 0, 0]", "mode", "reflect");
  REFUSED("pad_volume", volume, "can add at most 6", "after", "[0, 0, 7]", "mode", "circular");
}

/* Long enough to be reduced in parts, by each of the two ways through memory: channels stay or go. */
static void the_largest_of_many_shares_its_gradient(void **state) {
  (void)state;
  enum { LENGTH = 40000 };
  for (int channels = 1; channels <= 3; channels += 2) {
    bench t;
    bench_open(&t, 2);
    const op *o = op_find("reduce");
    arena memory = {0};
    void *attrs = arena_alloc(&memory, o->attrs_bytes);
    op_defaults(o, attrs);
    set_attr(o, attrs, "mode", "max", &memory);
    set_attr(o, attrs, "axes", "[1]", &memory);
    float *x = malloc((size_t)(LENGTH * channels) * sizeof *x);
    for (int i = 0; i < LENGTH * channels; i++) x[i] = (float)(i % 1000);
    /* Four largest values, far apart, in channel 0. */
    const int at[4] = {0, 16384, 17000, LENGTH - 1};
    for (int k = 0; k < 4; k++) x[at[k] * channels] = 2000;
    value_id in = bench_input(&t, "x", DTYPE_F32, SHAPE(1, LENGTH, channels), x), out[16], dx[32];
    must(build_node(&t.b, "reduce", attrs, &in, 1, out));
    must(bench_run(&t));
    assert_true(*(float *)t.data[out[0]] == 2000);
    float dy[3] = {8, 0, 0};
    bench_grad(&t, bench_input(&t, "dy", DTYPE_F32, SHAPE(1, 1, channels), dy), dx);
    const float *gradient = t.data[dx[0]];
    double sum = 0;
    for (int i = 0; i < LENGTH * channels; i++) sum += (double)gradient[i];
    for (int k = 0; k < 4; k++) assert_true(gradient[at[k] * channels] == 2);
    assert_true(sum == 8);
    free(x);
    arena_free(&memory);
    bench_close(&t);
  }
}

static void grids_to_interpolate_are_checked(void **state) {
  (void)state;
  shape volume = SHAPE(1, 4, 5, 6, 3);
  REFUSED("interpolate", SHAPE(1, 7, 3), "must be a volume", "scale", "2");
  REFUSED("interpolate", volume, "either scale or size", "mode", "trilinear");
  REFUSED("interpolate", volume, "either scale or size", "scale", "2", "size", "8");
  REFUSED("interpolate", volume, "for all three axes", "size", "[8, 0, 8]");
  REFUSED("interpolate", volume, "leaves nothing", "scale", "0.2");
}

static void axes_to_reduce_and_windows_are_checked(void **state) {
  (void)state;
  shape volume = SHAPE(1, 4, 5, 6, 3);
  REFUSED("reduce", volume, "has no axis 5", "axes", "[5]");
  REFUSED("reduce", volume, "axis 4 is named twice", "axes", "[4, -1]");
  for (int i = 0; i < 2; i++) {
    const char *pool = i ? "max_pool3d" : "avg_pool3d";
    REFUSED(pool, SHAPE(1, 7, 3), "must be a volume", "kernel", "2");
    REFUSED(pool, volume, "use a smaller one", "kernel", "5");
    REFUSED(pool, volume, "more than half the window", "kernel", "2", "padding", "2");
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(one_axis_is_checked),
      cmocka_unit_test(boxes_lie_in_their_volume),
      cmocka_unit_test(the_largest_of_many_shares_its_gradient),
      cmocka_unit_test(grids_to_interpolate_are_checked),
      cmocka_unit_test(axes_to_reduce_and_windows_are_checked),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
