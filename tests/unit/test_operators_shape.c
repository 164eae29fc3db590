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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(one_axis_is_checked),
      cmocka_unit_test(boxes_lie_in_their_volume),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
