/* What the operators of self-supervised pretexts promise beyond their gradients: valid draws of
 * their own for every sample, the published definitions, and errors that say what to change. */
#include "operators.h"

/* A bench of its own for each run, so that runs can be compared. */
typedef struct drawn {
  bench t;
  value_id image, out[8];
  int outputs;
} drawn;

/* Runs a random operator on a volume that counts 1, 2, 3 … per sample, divided by `scale`; sample n
 * has the key of crop `first` + n of that epoch. */
static void draw_scaled(drawn *d, const char *name, void *attrs, shape s, int threads, int epoch,
                        int first, float scale) {
  bench_open(&d->t, threads);
  for (int n = 0; n < 16; n++) d->t.keys[n] = rng_key_of(17, "test", epoch, "case", first + n);
  int64_t elements = shape_elements(&s), own = elements / s.dim[0];
  float *data = malloc((size_t)elements * sizeof *data);
  for (int64_t i = 0; i < elements; i++) data[i] = (float)(i % own + 1) / scale;
  d->image = bench_input(&d->t, "image", DTYPE_F32, s, data);
  free(data);
  must(build_node(&d->t.b, name, attrs, &d->image, 1, d->out));
  must(bench_run(&d->t));
  d->outputs = port_count(op_find(name)->outputs);
}

static void draw(drawn *d, const char *name, void *attrs, shape s, int threads, int epoch,
                 int first) {
  draw_scaled(d, name, attrs, s, threads, epoch, first, 1);
}

static void drawn_close(drawn *d) {
  bench_close(&d->t);
}

static size_t sample_bytes(const drawn *d, int output) {
  const tensor *t = value_type(&d->t.b, d->out[output]);
  return tensor_bytes(t) / (size_t)t->shape.dim[0];
}

static void every_sample_has_a_draw_of_its_own(void **state) {
  (void)state;
  arena memory = {0};
  const struct {
    const char *op;
    void *attrs;
  } cases[] = {
      {"shuffle_cells", ATTRS("shuffle_cells", &memory, {"cells", "[2, 3, 2]"})},
      {"mask_patches",
       ATTRS("mask_patches", &memory, {"size", "4"}, {"fill", "noise"}, {"ratio", "0.5"})},
      {"mask_patches", ATTRS("mask_patches", &memory, {"size", "4"}, {"fill", "mean"})},
      {"cutout", ATTRS("cutout", &memory, {"inner", "0.5"}, {"outer", "0.5"}, {"margin", "1"},
                       {"fill", "noise"})},
      {"random_curve", ATTRS("random_curve", &memory, {"probability", "1"})},
      {"shuffle_voxels",
       ATTRS("shuffle_voxels", &memory, {"probability", "1"}, {"boxes", "50"}, {"size", "0.3"})},
  };
  shape s = SHAPE(3, 12, 12, 12, 2);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    drawn one, three, later, alone;
    draw_scaled(&one, cases[i].op, cases[i].attrs, s, 1, 0, 0, 4000);
    draw_scaled(&three, cases[i].op, cases[i].attrs, s, 3, 0, 0, 4000);
    draw_scaled(&later, cases[i].op, cases[i].attrs, s, 1, 1, 0, 4000);
    shape single = s;
    single.dim[0] = 1;
    draw_scaled(&alone, cases[i].op, cases[i].attrs, single, 2, 0, 2, 4000);
    for (int k = 0; k < one.outputs; k++) {
      const char *a = one.t.data[one.out[k]], *b = three.t.data[three.out[k]];
      const char *c = later.t.data[later.out[k]], *d = alone.t.data[alone.out[k]];
      size_t bytes = sample_bytes(&one, k);
      assert_memory_equal(a, b, 3 * bytes);         /* on any number of threads */
      assert_memory_not_equal(a, a + bytes, bytes); /* another sample */
      assert_memory_not_equal(a, c, bytes);         /* another step */
      assert_memory_equal(a + 2 * bytes, d, bytes); /* whatever the batch */
    }
    drawn_close(&one);
    drawn_close(&three);
    drawn_close(&later);
    drawn_close(&alone);
  }
  arena_free(&memory);
}

static void a_jigsaw_puzzle_can_be_put_together_again(void **state) {
  (void)state;
  arena memory = {0};
  drawn d;
  shape s = SHAPE(2, 4, 6, 10, 2);
  enum { GX = 2, GY = 3, GZ = 5, CELLS = GX * GY * GZ };
  draw(&d, "shuffle_cells", ATTRS("shuffle_cells", &memory, {"cells", "[2, 3, 5]"}), s, 2, 0, 0);
  const float *image = d.t.data[d.image], *out = d.t.data[d.out[0]];
  const int32_t *order = d.t.data[d.out[1]];
  int64_t own = shape_elements(&s) / 2;
  for (int n = 0; n < 2; n++) {
    bool seen[CELLS] = {false};
    for (int k = 0; k < CELLS; k++) {
      int from = order[n * CELLS + k];
      assert_in_range(from, 0, CELLS - 1);
      assert_false(seen[from]);
      seen[from] = true;
      int to_at[3] = {k / (GY * GZ) * 2, k / GZ % GY * 2, k % GZ * 2};
      int from_at[3] = {from / (GY * GZ) * 2, from / GZ % GY * 2, from % GZ * 2};
      for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
          for (int l = 0; l < 2; l++)
            for (int c = 0; c < 2; c++) {
              int64_t to = (((to_at[0] + i) * 6 + to_at[1] + j) * 10 + to_at[2] + l) * 2 + c;
              int64_t at = (((from_at[0] + i) * 6 + from_at[1] + j) * 10 + from_at[2] + l) * 2 + c;
              assert_true(out[n * own + to] == image[n * own + at]);
            }
    }
  }
  drawn_close(&d);
  arena_free(&memory);
}

/* Slabs are cells along one axis: the same numbers are drawn. */
static void slabs_are_cells_along_one_axis(void **state) {
  (void)state;
  arena memory = {0};
  drawn slabs, cells;
  shape s = SHAPE(2, 3, 8, 5, 1);
  draw(&slabs, "shuffle_slabs", ATTRS("shuffle_slabs", &memory, {"slabs", "4"}, {"axis", "y"}), s,
       1, 0, 0);
  draw(&cells, "shuffle_cells", ATTRS("shuffle_cells", &memory, {"cells", "[1, 4, 1]"}), s, 1, 0,
       0);
  for (int k = 0; k < 2; k++)
    assert_memory_equal(slabs.t.data[slabs.out[k]], cells.t.data[cells.out[k]],
                        2 * sample_bytes(&slabs, k));
  drawn_close(&slabs);
  drawn_close(&cells);
  arena_free(&memory);
}

/* Where the turn takes the three axes, from where it takes the voxels next to the centre. */
static void matrix_of(const float *image, const float *out, int r[3][3]) {
  const int strides[3] = {9, 3, 1};
  assert_true(out[13] == image[13]);
  for (int a = 0; a < 3; a++) {
    int at = -1;
    for (int i = 0; i < 27; i++)
      if (out[i] == image[13 + strides[a]]) at = i;
    assert_true(at >= 0);
    int to[3] = {at / 9 - 1, at / 3 % 3 - 1, at % 3 - 1};
    for (int b = 0; b < 3; b++) r[b][a] = to[b];
  }
}

static int determinant(int r[3][3]) {
  int d = 0;
  for (int i = 0; i < 3; i++)
    d += r[0][i] * (r[1][(i + 1) % 3] * r[2][(i + 2) % 3] - r[1][(i + 2) % 3] * r[2][(i + 1) % 3]);
  return d;
}

static void turns_are_the_rotations_of_a_cube(void **state) {
  (void)state;
  arena memory = {0};
  static int known[24][3][3];
  int seen[24] = {0};
  enum { N = 16, STEPS = 60 };
  void *attrs = ATTRS("random_turn", &memory, {"turns", "24"});
  for (int epoch = 0; epoch < STEPS; epoch++) {
    drawn d;
    draw(&d, "random_turn", attrs, SHAPE(N, 3, 3, 3, 1), 2, epoch, 0);
    const float *image = d.t.data[d.image], *out = d.t.data[d.out[0]];
    const int32_t *turn = d.t.data[d.out[1]];
    for (int n = 0; n < N; n++) {
      int r[3][3];
      matrix_of(image + n * 27, out + n * 27, r);
      assert_int_equal(determinant(r), 1);
      assert_in_range(turn[n], 0, 23);
      if (seen[turn[n]]) assert_memory_equal(r, known[turn[n]], sizeof r);
      memcpy(known[turn[n]], r, sizeof r);
      seen[turn[n]]++;
    }
    drawn_close(&d);
  }
  for (int i = 0; i < 24; i++) {
    assert_in_range(seen[i], 16, 68); /* 40 expected, 4.5 standard deviations */
    for (int k = 0; k < i; k++) assert_memory_not_equal(known[i], known[k], sizeof known[i]);
    int trace = known[i][0][0] + known[i][1][1] + known[i][2][2];
    /* Turn 0 does nothing; 1 … 9 fix an axis: z, x, y. */
    if (i == 0) assert_int_equal(trace, 3);
    if (i > 0 && i < 10) {
      int axis = i <= 3 ? 2 : i <= 6 ? 0 : 1;
      assert_int_equal(known[i][axis][axis], 1);
      assert_int_equal(trace, i % 3 == 2 ? -1 : 1);
    }
  }
  arena_free(&memory);
}

static void a_turn_about_z_needs_no_cube_and_keeps_channels(void **state) {
  (void)state;
  arena memory = {0};
  drawn d;
  enum { N = 16, S = 4, Z = 3, C = 2 };
  draw(&d, "random_turn", ATTRS("random_turn", &memory, {"turns", "4"}), SHAPE(N, S, S, Z, C), 3, 1,
       0);
  const float *image = d.t.data[d.image], *out = d.t.data[d.out[0]];
  const int32_t *turn = d.t.data[d.out[1]];
  int different = 0;
  for (int n = 0; n < N; n++, image += S * S * Z * C) {
    different |= 1 << turn[n];
    for (int x = 0; x < S; x++)
      for (int y = 0; y < S; y++)
        for (int z = 0; z < Z; z++)
          for (int c = 0; c < C; c++, out++) {
            int from[2] = {x, y};
            for (int k = 0; k < turn[n]; k++) { /* undo a quarter turn from x to y */
              int old = from[0];
              from[0] = from[1];
              from[1] = S - 1 - old;
            }
            assert_true(*out == image[((from[0] * S + from[1]) * Z + z) * C + c]);
          }
  }
  assert_int_equal(different, 15);
  drawn_close(&d);
  arena_free(&memory);
}

static void hidden_patches_hold_the_mean_or_noise(void **state) {
  (void)state;
  arena memory = {0};
  drawn d;
  shape s = SHAPE(2, 4, 4, 4, 2);
  draw(&d, "mask_patches", ATTRS("mask_patches", &memory, {"size", "2"}, {"fill", "mean"}), s, 2, 0,
       0);
  const float *image = d.t.data[d.image], *out = d.t.data[d.out[0]], *mask = d.t.data[d.out[1]];
  for (int i = 0; i < 256; i++) {
    int voxel = i / 2, z = voxel % 4, y = voxel / 4 % 4, x = voxel / 16 % 4, n = voxel / 64;
    bool hidden = mask[((n * 2 + x / 2) * 2 + y / 2) * 2 + z / 2] != 0;
    /* Channel c counts c + 1, c + 3 … c + 127. */
    assert_true(out[i] == (hidden ? 64.0f + (float)(i % 2) : image[i]));
  }
  drawn_close(&d);
  draw(&d, "mask_patches",
       ATTRS("mask_patches", &memory, {"size", "2"}, {"ratio", "1"}, {"fill", "noise"},
             {"noise", "[-3, 1]"}),
       SHAPE(2, 10, 10, 10, 2), 2, 0, 0);
  out = d.t.data[d.out[0]];
  double sum = 0, squares = 0;
  for (int i = 0; i < 4000; i++) {
    assert_true(out[i] >= -3 && out[i] < 1);
    sum += (double)out[i];
    squares += (double)out[i] * (double)out[i];
  }
  double mean = sum / 4000, variance = squares / 4000 - mean * mean;
  assert_true(fabs(mean + 1) < 4 * sqrt(16.0 / 12 / 4000));
  assert_true(fabs(variance - 16.0 / 12) < 0.08);
  drawn_close(&d);
  arena_free(&memory);
}

/* Bounds of the voxels whose mask is `value`; the share of the bounding box that has it. */
static double bounds_of(const float *mask, const int side[3], float value, int low[3],
                        int high[3]) {
  int count = 0, volume = 1;
  for (int a = 0; a < 3; a++) low[a] = side[a], high[a] = -1;
  for (int i = 0; i < side[0] * side[1] * side[2]; i++) {
    if (mask[i] != value) continue;
    int at[3] = {i / (side[1] * side[2]), i / side[2] % side[1], i % side[2]};
    for (int a = 0; a < 3; a++) {
      if (at[a] < low[a]) low[a] = at[a];
      if (at[a] > high[a]) high[a] = at[a];
    }
    count++;
  }
  for (int a = 0; a < 3; a++) volume *= high[a] - low[a] + 1;
  return count == 0 ? 0 : (double)count / volume;
}

static void cutouts_are_boxes_within_their_bounds(void **state) {
  (void)state;
  arena memory = {0};
  const int side[3] = {12, 18, 24}, voxels = 12 * 18 * 24;
  const struct {
    const char *inner, *outer;
    int least[3], most[3];
  } cases[] = {{"1", "0", {2, 3, 4}, {4, 6, 8}}, {"0", "1", {5, 7, 10}, {6, 10, 13}}};
  for (int k = 0; k < 2; k++) {
    void *attrs = ATTRS("cutout", &memory, {"inner", cases[k].inner}, {"outer", cases[k].outer},
                        {"boxes", "1"}, {"another", "1"}, {"margin", "[1, 2, 3]"});
    int low_seen[3] = {99, 99, 99}, high_seen[3] = {0, 0, 0};
    for (int epoch = 0; epoch < 20; epoch++) {
      drawn d;
      draw(&d, "cutout", attrs, SHAPE(8, 12, 18, 24, 1), 2, epoch, 0);
      const float *image = d.t.data[d.image], *out = d.t.data[d.out[0]];
      const float *mask = d.t.data[d.out[1]];
      for (int i = 0; i < 8 * voxels; i++) assert_true(out[i] == (mask[i] != 0 ? 0 : image[i]));
      for (int n = 0; n < 8; n++) {
        int low[3], high[3];
        double share = bounds_of(mask + n * voxels, side, k == 0 ? 1.0f : 0.0f, low, high);
        assert_true(share == 1); /* all of a box */
        for (int a = 0; a < 3; a++) {
          int extent = high[a] - low[a] + 1;
          assert_in_range(extent, cases[k].least[a], cases[k].most[a]);
          assert_true(low[a] >= a + 1 && high[a] < side[a] - a - 1);
          if (extent < low_seen[a]) low_seen[a] = extent;
          if (extent > high_seen[a]) high_seen[a] = extent;
        }
      }
      drawn_close(&d);
    }
    assert_memory_equal(low_seen, cases[k].least, sizeof low_seen);
    assert_memory_equal(high_seen, cases[k].most, sizeof high_seen);
  }
  arena_free(&memory);
}

static void cutouts_come_with_their_probabilities(void **state) {
  (void)state;
  arena memory = {0};
  void *attrs = ATTRS("cutout", &memory, {"inner", "0.18"}, {"outer", "0.72"}, {"margin", "1"});
  int untouched = 0, around = 0, total = 0;
  for (int epoch = 0; epoch < 100; epoch++) {
    drawn d;
    draw(&d, "cutout", attrs, SHAPE(16, 9, 9, 9, 1), 1, epoch, 0);
    const float *mask = d.t.data[d.out[1]];
    for (int n = 0; n < 16; n++, total++, mask += 729) {
      int hidden = 0;
      for (int i = 0; i < 729; i++) hidden += mask[i] != 0;
      untouched += hidden == 0;
      around += mask[0] != 0; /* the margin keeps boxes from the corner */
      assert_true(hidden < 729);
    }
    drawn_close(&d);
  }
  /* A first inner box is missing once in twenty times. */
  double p = 0.1 + 0.18 * 0.05, q = 0.72;
  assert_true(fabs(untouched - p * total) < 4 * sqrt(p * (1 - p) * total));
  assert_true(fabs(around - q * total) < 4 * sqrt(q * (1 - q) * total));
  arena_free(&memory);
}

static void curves_are_those_of_bezier(void **state) {
  (void)state;
  arena memory = {0};
  enum { N = 8, V = 4000 };
  for (int inverted = 0; inverted < 2; inverted++) {
    drawn d;
    void *attrs = ATTRS("random_curve", &memory, {"probability", "1"},
                        {"invert", inverted ? "1" : "0"}, {"range", "[-1, 1]"});
    /* Counts 1 … 4000, divided by 2000: half of it lies above the range. */
    draw_scaled(&d, "random_curve", attrs, SHAPE(N, V), 2, 0, 0, 2000);
    const float *x = d.t.data[d.image], *y = d.t.data[d.out[0]];
    for (int n = 0; n < N; n++, x += V, y += V) {
      for (int i = 1; i < V; i++) assert_true(inverted ? y[i] <= y[i - 1] : y[i] >= y[i - 1]);
      for (int i = 1999; i < V; i++) assert_true(y[i] == (inverted ? -1.0f : 1.0f));
      rng stream = rng_open(d.t.keys[n], text_hash("node"));
      rng_uniform(&stream);
      double p[4];
      for (int k = 0; k < 4; k++) p[k] = rng_range(&stream, 0, 1);
      for (double t = 0.01; t < 1; t += 0.01) {
        double s = 1 - t, b1 = 3 * s * s * t, b2 = 3 * s * t * t, b3 = t * t * t;
        double at = b1 * p[0] + b2 * p[2] + b3, value = b1 * p[1] + b2 * p[3] + b3;
        if (inverted) at = 1 - at; /* read backwards */
        int i = (int)lround((2 * at - 1) * 2000) - 1;
        if (i < 1 || i + 1 >= V) continue;
        double low = fmin((double)y[i - 1], (double)y[i + 1]);
        double high = fmax((double)y[i - 1], (double)y[i + 1]);
        assert_true(2 * value - 1 > low - 3e-3 && 2 * value - 1 < high + 3e-3);
      }
    }
    drawn_close(&d);
  }
  drawn d;
  draw(&d, "random_curve", ATTRS("random_curve", &memory, {"probability", "0"}), SHAPE(2, 50), 1, 0,
       0);
  assert_memory_equal(d.t.data[d.out[0]], d.t.data[d.image], 100 * sizeof(float));
  drawn_close(&d);
  arena_free(&memory);
}

static int by_value(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

static void one_box_of_voxels_is_permuted(void **state) {
  (void)state;
  arena memory = {0};
  enum { N = 8, OWN = 8 * 9 * 10 * 2 };
  drawn d;
  void *attrs =
      ATTRS("shuffle_voxels", &memory, {"probability", "1"}, {"boxes", "1"}, {"size", "0.5"});
  draw(&d, "shuffle_voxels", attrs, SHAPE(N, 8, 9, 10, 2), 3, 0, 0);
  const float *image = d.t.data[d.image], *out = d.t.data[d.out[0]];
  int moved = 0;
  for (int n = 0; n < N; n++, image += OWN, out += OWN) {
    float changed[OWN / 2], sorted[OWN];
    const int side[3] = {8, 9, 10};
    int low[3], high[3];
    for (int v = 0; v < OWN / 2; v++) {
      changed[v] = out[2 * v] != image[2 * v];
      moved += changed[v] != 0;
      assert_true(out[2 * v + 1] == out[2 * v] + 1); /* channels stay together */
    }
    bounds_of(changed, side, 1, low, high);
    for (int a = 0; a < 3; a++) assert_true(high[a] - low[a] < side[a] / 2);
    memcpy(sorted, out, sizeof sorted);
    qsort(sorted, OWN, sizeof *sorted, by_value);
    assert_memory_equal(sorted, image, sizeof sorted); /* nothing lost, nothing doubled */
  }
  assert_true(moved > 0);
  drawn_close(&d);
  draw(&d, "shuffle_voxels", ATTRS("shuffle_voxels", &memory, {"probability", "0"}),
       SHAPE(2, 3, 4, 5, 1), 1, 0, 0);
  assert_memory_equal(d.t.data[d.out[0]], d.t.data[d.image], 120 * sizeof(float));
  drawn_close(&d);
  arena_free(&memory);
}

static void views_find_their_partners(void **state) {
  (void)state;
  bench t;
  bench_open(&t, 2);
  const float a[] = {1, 0, 0, 0, 2, 0, 0, 0, 3};
  const float swapped[] = {0, 1, 0, 1, 0, 0, 0, 0, 1};
  value_id in[2] = {bench_input(&t, "a", DTYPE_F32, SHAPE(3, 3), a),
                    bench_input(&t, "b", DTYPE_F32, SHAPE(3, 3), a)};
  value_id out[5];
  double temperature = 0.5;
  must(build_node(&t.b, "nt_xent", &temperature, in, 2, out));
  must(bench_run(&t));
  /* The partner at cosine 1, the four others at 0. */
  assert_true(fabs((double)*(float *)t.data[out[0]] - log(1 + 4 * exp(-2))) < 1e-6);
  assert_true(*(float *)t.data[out[1]] == 1);
  in[1] = bench_input(&t, "b", DTYPE_F32, SHAPE(3, 3), swapped);
  must(build_node(&t.b, "nt_xent", &temperature, in, 2, out));
  must(bench_run(&t));
  assert_true(fabs((double)*(float *)t.data[out[1]] - 1.0 / 3) < 1e-6);
  bench_close(&t);
}

static void both_views_go_through_one_projection(void **state) {
  (void)state;
  arena memory = {0};
  bench t;
  bench_open(&t, 1);
  value_id in[4] = {ramp(&t, SHAPE(2, 2, 2, 2, 3)), ramp(&t, SHAPE(2, 1, 1, 1, 4)),
                    ramp(&t, SHAPE(2, 2, 2, 2, 3)), ramp(&t, SHAPE(2, 1, 1, 1, 4))};
  value_id out[2];
  void *attrs = ATTRS("contrastive_loss", &memory, {"hidden", "6"}, {"features", "5"});
  must(build_node(&t.b, "contrastive_loss", attrs, in, 4, out));
  const char *names[] = {"node.projection.0.weight", "node.projection.0.bias",
                         "node.projection.2.weight", "node.projection.2.bias"};
  const shape shapes[] = {SHAPE(6, 7), SHAPE(6), SHAPE(5, 6), SHAPE(5)};
  int found = 0;
  for (int v = 0; v < t.g->value_count; v++) {
    if (t.g->values[v].kind != VALUE_PARAM) continue;
    assert_true(found < 4);
    assert_string_equal(t.g->values[v].name, names[found]);
    assert_true(shape_equal(&t.g->values[v].type.shape, &shapes[found++]));
  }
  assert_int_equal(found, 4);
  bench_close(&t);
  arena_free(&memory);
}

static void mistakes_are_explained(void **state) {
  (void)state;
  shape cube = SHAPE(2, 6, 6, 6, 1), flat = SHAPE(2, 6, 6, 4, 1), odd = SHAPE(2, 6, 4, 6, 1);
  const struct {
    const char *op, *attrs[3][2];
    shape shapes[3]; /* rank 0: no more */
    bool labels;     /* the first input holds class numbers */
    const char *words;
  } cases[] = {
      {"shuffle_cells", {{"cells", "[1, 4, 1]"}}, {cube}, false, "4 parts do not divide y = 6"},
      {"shuffle_cells", {{"cells", "1"}}, {cube}, false, "from 2 to 256 cells"},
      {"shuffle_cells", {{"cells", "[3, 3, 2]"}}, {SHAPE(2, 6, 6)}, false, "must be a volume"},
      {"cell_pool", {{"cells", "[1, 1, 4]"}}, {cube}, false, "leaves a multiple of 4"},
      {"cell_order_loss",
       {{"cells", "2"}},
       {SHAPE(2, 4), cube},
       true,
       "there are 8 cells, but the order is 2×4"},
      {"slab_order_loss",
       {{"slabs", "3"}},
       {SHAPE(2, 4), cube},
       true,
       "slab_order_loss): there are 3 slabs"},
      {"classify_loss", {{"classes", "4"}}, {SHAPE(2, 3), cube}, true, "one class for each sample"},
      {"random_turn", {{"turns", "5"}}, {cube}, false, "turns must be 4"},
      {"random_turn", {{"turns", "4"}}, {odd}, false, "as many voxels along x as along y"},
      {"random_turn", {{"turns", "24"}}, {flat}, false, "24 turns need a cube"},
      {"random_turn", {{NULL, NULL}}, {SHAPE(2, 6, 6)}, false, "must be a volume"},
      {"cutout", {{"margin", "3"}}, {cube}, false, "does not fit into x = 6"},
      {"cutout", {{"inner", "0.5"}, {"outer", "0.6"}}, {cube}, false, "add up to 1.1"},
      {"cutout", {{NULL, NULL}}, {SHAPE(2, 6, 6)}, false, "must be a volume"},
      {"mask_patches", {{"size", "[2, 4, 2]"}}, {cube}, false, "do not divide y = 6"},
      {"random_curve", {{"range", "[1, 1]"}}, {cube}, false, "lowest < highest"},
      {"shuffle_voxels", {{NULL, NULL}}, {SHAPE(2, 6, 6)}, false, "must be a volume"},
      {"normalize_patches", {{"size", "[2, 2, 4]"}}, {cube}, false, "do not divide z = 6"},
      {"normalize_patches", {{"size", "1"}}, {cube}, false, "at least two values"},
      {"nt_xent", {{NULL, NULL}}, {SHAPE(1, 8), SHAPE(1, 8)}, false, "\"batch\" to 2 or more"},
      {"nt_xent", {{NULL, NULL}}, {SHAPE(2, 8), SHAPE(2, 7)}, false, "2×8 and 2×7"},
      {"contrastive_loss", {{NULL, NULL}}, {cube, cube, cube}, false, "as many of the other"},
      {"contrastive_loss",
       {{NULL, NULL}},
       {SHAPE(1, 6, 6, 6, 1), SHAPE(1, 6, 6, 6, 1)},
       false,
       "\"batch\" to 2 or more"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const op *o = op_find(cases[i].op);
    arena memory = {0};
    bench t;
    bench_open(&t, 1);
    void *attrs = arena_alloc(&memory, o->attrs_bytes + 1);
    op_defaults(o, attrs);
    for (int k = 0; k < 3 && cases[i].attrs[k][0]; k++)
      set_attr(o, attrs, cases[i].attrs[k][0], cases[i].attrs[k][1], &memory);
    value_id in[4], out[8];
    int count = 0;
    for (; count < 3 && cases[i].shapes[count].rank; count++)
      in[count] = build_input(&t.b, "in", cases[i].labels && count == 0 ? DTYPE_I32 : DTYPE_F32,
                              cases[i].shapes[count]);
    must_fail(build_node(&t.b, o->name, attrs, in, count, out), cases[i].words);
    bench_close(&t);
    arena_free(&memory);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_sample_has_a_draw_of_its_own),
      cmocka_unit_test(a_jigsaw_puzzle_can_be_put_together_again),
      cmocka_unit_test(slabs_are_cells_along_one_axis),
      cmocka_unit_test(turns_are_the_rotations_of_a_cube),
      cmocka_unit_test(a_turn_about_z_needs_no_cube_and_keeps_channels),
      cmocka_unit_test(hidden_patches_hold_the_mean_or_noise),
      cmocka_unit_test(cutouts_are_boxes_within_their_bounds),
      cmocka_unit_test(cutouts_come_with_their_probabilities),
      cmocka_unit_test(curves_are_those_of_bezier),
      cmocka_unit_test(one_box_of_voxels_is_permuted),
      cmocka_unit_test(views_find_their_partners),
      cmocka_unit_test(both_views_go_through_one_projection),
      cmocka_unit_test(mistakes_are_explained),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
