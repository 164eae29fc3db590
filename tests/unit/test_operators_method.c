/* What the operators of the method promise beyond their gradients: the right slabs, the right share
 * of patches, one draw per sample, the same numbers on any number of threads, and errors that say
 * what to change. */
#include "operators.h"

static void shuffled_slabs_come_from_where_the_order_says(void **state) {
  (void)state;
  const char *axes[] = {"x", "y", "z"};
  for (int axis = 0; axis < 3; axis++) {
    arena memory = {0};
    bench t;
    bench_open(&t, 2);
    shape s = SHAPE(3, 6, 12, 6, 2);
    value_id image = ramp(&t, s), out[2];
    void *attrs = ATTRS("shuffle_slabs", &memory, {"slabs", "3"}, {"axis", axes[axis]});
    must(build_node(&t.b, "shuffle_slabs", attrs, &image, 1, out));
    must(bench_run(&t));
    const float *x = t.data[image], *y = t.data[out[0]];
    const int32_t *order = t.data[out[1]];
    int64_t length = s.dim[axis + 1] / 3;
    bool differ = false;
    for (int n = 0; n < 3; n++) {
      int seen = 0;
      for (int b = 0; b < 3; b++) seen |= 1 << order[n * 3 + b];
      assert_int_equal(seen, 7);
      differ |= memcmp(order, order + n * 3, 3 * sizeof *order) != 0;
    }
    assert_true(differ); /* one permutation per sample */
    int64_t at = 0;
    for (int64_t n = 0; n < s.dim[0]; n++)
      for (int64_t i = 0; i < s.dim[1]; i++)
        for (int64_t j = 0; j < s.dim[2]; j++)
          for (int64_t k = 0; k < s.dim[3]; k++)
            for (int64_t c = 0; c < s.dim[4]; c++, at++) {
              int64_t from[3] = {i, j, k};
              int64_t slab = from[axis] / length;
              from[axis] = order[n * 3 + slab] * length + from[axis] % length;
              int64_t source =
                  (((n * s.dim[1] + from[0]) * s.dim[2] + from[1]) * s.dim[3] + from[2]) *
                      s.dim[4] +
                  c;
              assert_true(y[at] == x[source]);
            }
    bench_close(&t);
    arena_free(&memory);
  }
}

static void masks_hide_exactly_their_share_of_patches(void **state) {
  (void)state;
  const struct {
    const char *ratio;
    int masked;
  } cases[] = {{"0", 0}, {"0.4", 10}, {"0.5", 13}, {"1", 27}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    arena memory = {0};
    bench t;
    bench_open(&t, 2);
    shape s = SHAPE(2, 6, 9, 12, 2);
    value_id image = ramp(&t, s), out[2];
    void *attrs = ATTRS("mask_patches", &memory, {"size", "[2, 3, 4]"}, {"ratio", cases[i].ratio});
    must(build_node(&t.b, "mask_patches", attrs, &image, 1, out));
    must(bench_run(&t));
    const float *x = t.data[image], *y = t.data[out[0]], *mask = t.data[out[1]];
    for (int n = 0; n < 2; n++) {
      int masked = 0;
      for (int p = 0; p < 27; p++) masked += mask[n * 27 + p] == 1.0f;
      assert_int_equal(masked, cases[i].masked);
    }
    if (cases[i].masked == 10) assert_memory_not_equal(mask, mask + 27, 27 * sizeof *mask);
    int64_t at = 0;
    for (int n = 0; n < 2; n++)
      for (int a = 0; a < 6; a++)
        for (int b = 0; b < 9; b++)
          for (int c = 0; c < 12; c++)
            for (int channel = 0; channel < 2; channel++, at++) {
              bool hidden = mask[((n * 3 + a / 2) * 3 + b / 3) * 3 + c / 4] != 0;
              assert_true(y[at] == (hidden ? 0.0f : x[at]));
            }
    bench_close(&t);
    arena_free(&memory);
  }
}

/* The whole structural objective, its gradient included, with heads as parameters. */
static void slab_order_loss_has_a_head_for_each_level(void **state) {
  (void)state;
  arena memory = {0};
  bench t;
  bench_open(&t, 2);
  int32_t order[] = {2, 0, 1, 1, 2, 0};
  value_id in[3] = {bench_input(&t, "order", DTYPE_I32, SHAPE(2, 3), order),
                    ramp(&t, SHAPE(2, 2, 2, 6, 4)), ramp(&t, SHAPE(2, 1, 1, 3, 8))};
  value_id out[2];
  void *attrs = ATTRS("slab_order_loss", &memory, {"slabs", "3"});
  must(build_node(&t.b, "slab_order_loss", attrs, in, 3, out));
  const char *names[] = {"node.heads.0.weight", "node.heads.0.bias", "node.heads.1.weight",
                         "node.heads.1.bias"};
  int found = 0;
  for (int v = 0; v < t.g->value_count; v++) {
    if (t.g->values[v].kind != VALUE_PARAM) continue;
    assert_string_equal(t.g->values[v].name, names[found++]);
    memset(bench_make(&t, v), 0, tensor_bytes(&t.g->values[v].type));
  }
  assert_int_equal(found, 4);
  must(bench_run(&t));
  /* Heads of zeros know nothing: log 3 at each of the two levels. */
  assert_true(fabs((double)*(float *)t.data[out[0]] - 2 * log(3)) < 1e-6);
  const float *accuracy = t.data[out[1]];
  assert_int_equal(value_type(&t.b, out[1])->shape.dim[0], 2);
  for (int i = 0; i < 2; i++) assert_true(fabs((double)accuracy[i] - 1.0 / 3) < 1e-6);
  bench_close(&t);
  arena_free(&memory);
}

/* Drawn afresh for every key, the same again for the same key, and backward drops what forward did.
 */
static void dropout_draws_the_same_mask_in_both_directions(void **state) {
  (void)state;
  arena memory = {0};
  bench t;
  bench_open(&t, 2);
  enum { N = 40001 };
  shape s = SHAPE(2, N);
  value_id x = ramp(&t, s), y, dx[32];
  void *attrs = ATTRS("dropout", &memory, {"rate", "0.3"});
  must(build_node(&t.b, "dropout", attrs, &x, 1, &y));
  must(bench_run(&t));
  bench_grad(&t, x, dx);
  const float *forward = t.data[y], *backward = t.data[dx[0]], *in = t.data[x];
  int dropped = 0, same = 0;
  /* The numbers are those of the named stream, taken in order. */
  rng stream = rng_open(t.keys[1], text_hash("node"));
  for (int i = 0; i < N; i++) {
    bool drop = (double)rng_u32(&stream) < 0.3 * 0x1p32;
    assert_true((forward[N + i] == 0) == drop);
  }
  for (int i = 0; i < 2 * N; i++) {
    assert_true(forward[i] == backward[i]);
    if (forward[i] != 0) assert_true(fabs((double)forward[i] / (double)in[i] - 1 / 0.7) < 1e-6);
    dropped += forward[i] == 0;
    if (i < N) same += (forward[i] == 0) == (forward[N + i] == 0);
  }
  assert_true(abs(dropped - (int)(0.3 * 2 * N)) < 4 * sqrt(0.21 * 2 * N));
  assert_true(same < 0.62 * N); /* 0.58 for independent samples */
  bench_close(&t);
  arena_free(&memory);
}

static void a_label_without_an_output_is_an_error(void **state) {
  (void)state;
  const char *names[] = {"cross_entropy", "dice", "dice_ce"};
  for (int i = 0; i < 3; i++)
    for (int32_t bad = -2; bad <= 3; bad += 5) {
      bench t;
      bench_open(&t, 1);
      int32_t labels[] = {0, 1, bad, 2};
      value_id in[2] = {ramp(&t, SHAPE(1, 4, 3)),
                        bench_input(&t, "label", DTYPE_I32, SHAPE(1, 4, 1), labels)};
      value_id out[8];
      must(build_node(&t.b, names[i], NULL, in, 2, out));
      must_fail(bench_run(&t), bad < 0 ? "a label is -2" : "a label is 3");
      bench_close(&t);
    }
}

static void a_region_without_an_output_is_an_error(void **state) {
  (void)state;
  const char *names[] = {"cross_entropy", "dice", "dice_ce", "focal"};
  for (int i = 0; i < 4; i++)
    for (int channels = 1; channels <= 31; channels += 15) {
      bench t;
      bench_open(&t, 1);
      int32_t sets[] = {0, 1, INT32_MAX, -1};
      value_id in[2] = {ramp(&t, SHAPE(1, 4, channels)),
                        bench_input(&t, "sets", DTYPE_REGIONS, SHAPE(1, 4), sets)};
      value_id out[8];
      char words[96];
      must(build_node(&t.b, names[i], NULL, in, 2, out));
      snprintf(words, sizeof words,
               "lies in region 31 of data: regions, but the network's outputs "
               "end at region %d",
               channels);
      if (channels == 31)
        must(bench_run(&t));
      else
        must_fail(bench_run(&t), words);
      bench_close(&t);
    }
}

static void what_makes_no_sense_of_regions_is_refused(void **state) {
  (void)state;
  static const struct {
    const char *op, *attr, *value;
    int64_t channels;
    const char *words;
  } cases[] = {
      {"dice", "include_background", "false", 3, "none of which is the background"},
      {"tversky", "include_background", "false", 3, "none of which is the background"},
      {"generalized_dice", "include_background", "false", 3, "none of which is the background"},
      {"dice_ce", "include_background", "false", 3, "none of which is the background"},
      {"focal", "include_background", "false", 3, "none of which is the background"},
      {"dice_focal", "include_background", "false", 3, "none of which is the background"},
      {"focal", "sigmoid", "false", 3, "each has a sigmoid of its own"},
      {"dice_focal", "sigmoid", "false", 3, "each has a sigmoid of its own"},
      {"cross_entropy", "label_smoothing", "0.1", 3, "label_smoothing spreads a class"},
      {"cross_entropy", "ignore_index", "1", 3, "ignore_index is a class"},
      {"cross_entropy", "class_weights", "[1, 2]", 3, "2 numbers, but the logits have 3 channels"},
      {"dice_ce", NULL, NULL, 32, "32 channels; with sets of regions as the target, 1 to 31"},
      {"boundary", NULL, NULL, 3, "must hold class numbers (i32), but sets holds sets of regions"},
      {"hausdorff_loss", NULL, NULL, 3, "must hold class numbers (i32)"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const op *o = op_find(cases[i].op);
    arena memory = {0};
    bench t;
    bench_open(&t, 1);
    void *attrs = arena_alloc(&memory, o->attrs_bytes);
    op_defaults(o, attrs);
    if (cases[i].attr) set_attr(o, attrs, cases[i].attr, cases[i].value, &memory);
    value_id in[2] = {build_input(&t.b, "logits", DTYPE_F32, SHAPE(1, 4, 4, 4, cases[i].channels)),
                      build_input(&t.b, "sets", DTYPE_REGIONS, SHAPE(1, 4, 4, 4))};
    value_id out[8];
    must_fail(build_node(&t.b, o->name, attrs, in, 2, out), cases[i].words);
    bench_close(&t);
    arena_free(&memory);
  }
}

static void gradients_are_clipped_by_their_joint_norm(void **state) {
  (void)state;
  enum { N = 40000 };
  static float g[N];
  static double partials[N / 1000];
  float norm = 0;
  tensor in = {DTYPE_F32, SHAPE(N), g}, out = {DTYPE_F32, {.rank = 0}, &norm};
  const op *o = op_find("gradient_clip");
  for (int i = 0; i < N; i++) g[i] = i % 2 ? 3.0f : -4.0f;
  double max_norm = 1, whole = sqrt(N / 2.0 * 25);
  assert_true(o->workspace_bytes(&max_norm, &in, 1, &out, 1) <= sizeof partials);
  call c = {.attrs = &max_norm,
            .in = &in,
            .out = &out,
            .in_count = 1,
            .out_count = 1,
            .workspace = partials};
  must(o->cpu(&c));
  assert_true(fabs((double)norm - whole) < 1e-3);
  assert_true(fabs((double)g[1] - 3 / whole) < 1e-8);
  must(o->cpu(&c)); /* already at the limit: unchanged */
  assert_true(fabs((double)norm - 1) < 1e-5);
  assert_true(fabs((double)g[1] - 3 / whole) < 1e-7);
}

static void mistakes_are_explained(void **state) {
  (void)state;
  const struct {
    const char *op, *attr, *value;
    shape shapes[3]; /* rank 0: no more */
    bool labels;     /* the last input holds class numbers */
    const char *words;
  } cases[] = {
      {"shuffle_slabs", "slabs", "5", {SHAPE(1, 6, 6, 6, 1)}, false, "do not divide z = 6"},
      {"shuffle_slabs", "axis", "[x, y]", {SHAPE(1, 6, 6, 6, 1)}, false, "one of x, y and z"},
      {"shuffle_slabs", "slabs", "2", {SHAPE(1, 6, 6)}, false, "must be a volume"},
      {"mask_patches", "size", "[2, 4, 2]", {SHAPE(1, 6, 6, 6, 1)}, false, "do not divide y = 6"},
      {"slab_pool", "slabs", "4", {SHAPE(1, 6, 6, 6, 8)}, false, "leaves a multiple of 4"},
      {"slab_pool", "slabs", "4", {SHAPE(1, 216, 8)}, false, "tokens_to_grid"},
      {"patchify", "size", "4", {SHAPE(1, 6, 8, 8, 1)}, false, "do not divide x = 6"},
      {"tokens_to_grid", "grid", "[2, 2, 2]", {SHAPE(1, 9, 4)}, false, "has 8 places"},
      {"reshape", "shape", "[5, -1]", {SHAPE(1, 9, 4)}, false, "does not divide"},
      {"reshape", "shape", "[-1, -1]", {SHAPE(1, 9, 4)}, false, "only one dimension"},
      {"self_attention", "heads", "5", {SHAPE(1, 9, 36)}, false, "5 heads do not divide"},
      {"self_attention", "heads", "1", {SHAPE(1, 9, 3 * 129)}, false, "use more heads"},
      {"self_attention", "heads", "2", {SHAPE(2, 9, 36), SHAPE(1, 9, 9)}, false, "2×9×9, but is"},
      {"cross_attention",
       "heads",
       "2",
       {SHAPE(2, 9, 6), SHAPE(2, 9, 6)},
       false,
       "twice the channels"},
      {"attention",
       "heads",
       "2",
       {SHAPE(2, 3, 9, 6), SHAPE(2, 9, 9, 6), SHAPE(2, 3, 9, 6)},
       false,
       "same samples and windows"},
      {"window_partition", "window", "7", {SHAPE(1, 9, 36)}, false, "must be a feature map"},
      {"space_to_channels", "order", "[0, 8]", {SHAPE(1, 4, 4, 4, 1)}, false, "voxels 0 to 7"},
      {"concat", NULL, NULL, {SHAPE(1, 9, 4), SHAPE(1, 8, 4)}, false, "all but the channels"},
      {"add", NULL, NULL, {SHAPE(1, 9, 4), SHAPE(1, 9, 5)}, false, "must have one shape"},
      {"add", "broadcast", "true", {SHAPE(1, 9, 4), SHAPE(9, 5)}, false, "only axes of extent 1"},
      {"add", NULL, NULL, {SHAPE(1, 9, 4), SHAPE(1, 9, 1)}, false, "broadcast: true repeats"},
      {"multiply", NULL, NULL, {SHAPE(1, 9, 4), SHAPE(4)}, false, "broadcast: true repeats"},
      {"matmul", NULL, NULL, {SHAPE(2, 9, 4), SHAPE(3, 4, 5)}, false, "before the last two"},
      {"matmul", NULL, NULL, {SHAPE(9), SHAPE(9, 4)}, false, "before the last two"},
      {"matmul",
       "interleaved",
       "true",
       {SHAPE(2, 9, 3, 4), SHAPE(2, 9, 3, 4)},
       false,
       "before the last three"},
      {"matmul", "interleaved", "true", {SHAPE(9, 4), SHAPE(9, 4)}, false, "before the last three"},
      {"l2_normalize", "axis", "token", {SHAPE(1, 2, 2, 2, 4)}, false, "only a sequence"},
      {"slice", "size", "5", {SHAPE(1, 9, 4)}, false, "has only 4 there"},
      {"permute", "axes", "[1, 1]", {SHAPE(1, 9, 4)}, false, "named once"},
      {"dice_ce",
       NULL,
       NULL,
       {SHAPE(1, 9, 9, 9, 3), SHAPE(1, 9, 9, 8)},
       true,
       "without the classes"},
      {"dice", NULL, NULL, {SHAPE(1, 9, 1), SHAPE(1, 9)}, true, "a binary task has 2"},
      {"cross_entropy",
       "class_weights",
       "[1, 2]",
       {SHAPE(1, 9, 3), SHAPE(1, 9)},
       true,
       "2 numbers"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const op *o = op_find(cases[i].op);
    arena memory = {0};
    bench t;
    bench_open(&t, 1);
    void *attrs = arena_alloc(&memory, o->attrs_bytes + 1);
    op_defaults(o, attrs);
    if (strcmp(o->family, "method") == 0 && strstr(o->name, "sla"))
      set_attr(o, attrs, "slabs", "2", &memory);
    if (cases[i].attr) set_attr(o, attrs, cases[i].attr, cases[i].value, &memory);
    value_id in[8], out[8];
    int count = 0;
    for (; count < 3 && cases[i].shapes[count].rank; count++) {
      bool last = count == 2 || !cases[i].shapes[count + 1].rank;
      in[count] = build_input(&t.b, "in", cases[i].labels && last ? DTYPE_I32 : DTYPE_F32,
                              cases[i].shapes[count]);
    }
    while (count < port_count(o->inputs) && (o->inputs[count].flags & PORT_OPTIONAL))
      in[count++] = VALUE_NONE;
    must_fail(build_node(&t.b, o->name, attrs, in, count, out), cases[i].words);
    bench_close(&t);
    arena_free(&memory);
  }
}

static void downsampled_labels_are_the_first_of_each_block(void **state) {
  (void)state;
  arena memory = {0};
  bench t;
  bench_open(&t, 2);
  int32_t labels[2 * 4 * 3 * 6];
  for (int i = 0; i < 144; i++) labels[i] = i;
  value_id label = bench_input(&t, "label", DTYPE_I32, SHAPE(2, 4, 3, 6), labels), out;
  void *attrs = ATTRS("downsample_label", &memory, {"factor", "[2, 1, 3]"});
  must(build_node(&t.b, "downsample_label", attrs, &label, 1, &out));
  must(bench_run(&t));
  const int32_t *y = t.data[out];
  for (int n = 0; n < 2; n++)
    for (int i = 0; i < 2; i++)
      for (int j = 0; j < 3; j++)
        for (int k = 0; k < 2; k++) assert_int_equal(*y++, ((n * 4 + 2 * i) * 3 + j) * 6 + 3 * k);
  bench_close(&t);
  arena_free(&memory);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(shuffled_slabs_come_from_where_the_order_says),
      cmocka_unit_test(masks_hide_exactly_their_share_of_patches),
      cmocka_unit_test(slab_order_loss_has_a_head_for_each_level),
      cmocka_unit_test(dropout_draws_the_same_mask_in_both_directions),
      cmocka_unit_test(a_label_without_an_output_is_an_error),
      cmocka_unit_test(a_region_without_an_output_is_an_error),
      cmocka_unit_test(what_makes_no_sense_of_regions_is_refused),
      cmocka_unit_test(gradients_are_clipped_by_their_joint_norm),
      cmocka_unit_test(downsampled_labels_are_the_first_of_each_block),
      cmocka_unit_test(mistakes_are_explained),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
