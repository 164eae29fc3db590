/* Dropout of attention weights, and what the windows of Swin transformers promise beyond their
 * gradients. */
#include "operators.h"

#include "ops/kernels/attention.h"
#include "ops/kernels/bf16.h"
#include "ops/kernels/gemm.h"

enum { T = 64, HEADS = 2, WINDOWS = 3, SAMPLES = 2, C = HEADS * T };

/* Queries and keys of 0 make every weight 1/T, and values that are a unit matrix show the weights
 * themselves: row q, channel k of a head is the weight of key k. */
static value_id unit_values(bench *t) {
  shape s = SHAPE(SAMPLES, WINDOWS, T, 3 * C);
  float *qkv = calloc((size_t)shape_elements(&s), sizeof *qkv);
  for (int64_t row = 0; row < SAMPLES * WINDOWS * T; row++)
    for (int h = 0; h < HEADS; h++) qkv[row * 3 * C + 2 * C + h * T + row % T] = 1;
  value_id v = bench_input(t, "qkv", DTYPE_F32, s, qkv);
  free(qkv);
  return v;
}

static void *attention_attrs(arena *memory, const char *dropout) {
  const op *o = op_find("self_attention");
  void *attrs = arena_alloc(memory, o->attrs_bytes);
  op_defaults(o, attrs);
  set_attr(o, attrs, "heads", "2", memory);
  set_attr(o, attrs, "dropout", dropout, memory);
  return attrs;
}

static void attention_drops_its_share_of_weights(void **state) {
  (void)state;
  const double rate = 0.3;
  arena memory = {0};
  bench t;
  bench_open(&t, 2);
  value_id in[4] = {unit_values(&t), VALUE_NONE, VALUE_NONE, VALUE_NONE}, out[2], dx[32];
  must(build_node(&t.b, "self_attention", attention_attrs(&memory, "0.3"), in, 4, out));
  must(bench_run(&t));
  const float *y = t.data[out[0]];
  enum { PLANES = SAMPLES * WINDOWS * HEADS, WEIGHTS = T * T };
  static bool dropped[PLANES][WEIGHTS];
  int total = 0, by_query[T] = {0}, by_key[T] = {0};
  for (int plane = 0; plane < PLANES; plane++)
    for (int q = 0; q < T; q++)
      for (int k = 0; k < T; k++) {
        float weight = y[(plane / HEADS * T + q) * C + plane % HEADS * T + k];
        bool drop = weight == 0;
        if (!drop) assert_true(fabs((double)weight * T * (1 - rate) - 1) < 1e-5);
        dropped[plane][q * T + k] = drop;
        total += drop;
        by_query[q] += drop;
        by_key[k] += drop;
      }
  /* Four standard deviations of a binomial count, five where the largest of many is looked at. */
  double n = (double)PLANES * WEIGHTS, variance = rate * (1 - rate);
  assert_true(fabs(total - rate * n) < 4 * sqrt(variance * n));
  for (int i = 0; i < T; i++) {
    assert_true(fabs(by_query[i] - rate * n / T) < 5 * sqrt(variance * n / T));
    assert_true(fabs(by_key[i] - rate * n / T) < 5 * sqrt(variance * n / T));
  }
  /* Samples, windows and heads draw for themselves. */
  double together = rate * rate + (1 - rate) * (1 - rate);
  for (int a = 0; a < PLANES; a++)
    for (int b = 0; b < a; b++) {
      int same = 0;
      for (int i = 0; i < WEIGHTS; i++) same += dropped[a][i] == dropped[b][i];
      assert_true(fabs(same - together * WEIGHTS) < 5 * sqrt(together * (1 - together) * WEIGHTS));
    }
  /* With dy the unit matrix, too, the gradient of value k, channel q is the weight again. */
  shape s = SHAPE(SAMPLES, WINDOWS, T, C);
  float *dy = calloc((size_t)shape_elements(&s), sizeof *dy);
  for (int64_t row = 0; row < SAMPLES * WINDOWS * T; row++)
    for (int h = 0; h < HEADS; h++) dy[row * C + h * T + row % T] = 1;
  value_id seed = bench_input(&t, "dy", DTYPE_F32, s, dy);
  free(dy);
  bench_grad(&t, seed, dx);
  const float *back = t.data[dx[0]];
  for (int plane = 0; plane < PLANES; plane++)
    for (int q = 0; q < T; q++)
      for (int k = 0; k < T; k++) {
        float weight = back[(plane / HEADS * T + k) * 3 * C + 2 * C + plane % HEADS * T + q];
        assert_true((weight == 0) == dropped[plane][q * T + k]);
      }
  bench_close(&t);
  arena_free(&memory);
}

static void attention_drops_nothing_outside_training(void **state) {
  (void)state;
  arena memory = {0};
  bench t;
  bench_open(&t, 1);
  t.g->training = false;
  value_id in[4] = {unit_values(&t), VALUE_NONE, VALUE_NONE, VALUE_NONE}, out[2];
  must(build_node(&t.b, "self_attention", attention_attrs(&memory, "0.9"), in, 4, out));
  must(bench_run(&t));
  const float *y = t.data[out[0]];
  for (int i = 0; i < SAMPLES * WINDOWS * T * C; i++)
    assert_true(fabs((double)y[i] * T - 1) < 1e-5);
  bench_close(&t);
  arena_free(&memory);
}

static void a_mask_cannot_be_learned(void **state) {
  (void)state;
  arena memory = {0};
  bench t;
  bench_open(&t, 1);
  value_id in[4] = {unit_values(&t), VALUE_NONE,
                    build_input(&t.b, "mask", DTYPE_F32, SHAPE(1, T, T)), VALUE_NONE};
  value_id out[2], dx[4];
  must(build_node(&t.b, "self_attention", attention_attrs(&memory, "0"), in, 4, out));
  const node *n = &t.g->nodes[t.g->node_count - 1];
  grad rule = {&t.b,
               n->attrs,
               n->in,
               n->out,
               4,
               2,
               (value_id[]){out[0], VALUE_NONE},
               (bool[]){true, false, true, false},
               dx};
  must_fail(n->op->grad(&rule), "give what is to be learned as bias");
  bench_close(&t);
  arena_free(&memory);
}

static void inputs_in_front_may_be_left_out_where_they_are_optional(void **state) {
  (void)state;
  arena memory = {0};
  bench t;
  bench_open(&t, 1);
  const op *o = op_find("self_attention");
  value_id mask = build_input(&t.b, "mask", DTYPE_F32, SHAPE(1, T, T)), out[2];
  value_id in[3] = {unit_values(&t), VALUE_NONE, mask};
  void *attrs = attention_attrs(&memory, "0");
  must(build_apply(&t.b, "attn", o, attrs, in, 3, out));
  assert_int_equal(t.g->nodes[0].in[1], VALUE_NONE);
  assert_int_equal(t.g->nodes[0].in[2], mask);
  in[0] = VALUE_NONE;
  must_fail(build_apply(&t.b, "attn", o, attrs, in, 3, out), "input 1 is missing");
  bench_close(&t);
  arena_free(&memory);
}

static void a_shift_is_less_than_the_window(void **state) {
  (void)state;
  const char *names[] = {"window_partition", "window_merge", "window_regions"};
  for (int i = 0; i < 3; i++) {
    arena memory = {0};
    bench t;
    bench_open(&t, 1);
    const op *o = op_find(names[i]);
    void *attrs = arena_alloc(&memory, o->attrs_bytes);
    op_defaults(o, attrs);
    set_attr(o, attrs, "window", "[4, 4, 3]", &memory);
    set_attr(o, attrs, "shift", "[2, 2, 3]", &memory);
    if (i > 0) set_attr(o, attrs, "size", "8", &memory);
    value_id x = build_input(&t.b, "x", DTYPE_F32, SHAPE(1, 8, 8, 8, 2)), out;
    must_fail(build_node(&t.b, names[i], attrs, &x, i < 2, &out), "along z it is 3 of 3");
    if (i == 1) {
      set_attr(o, attrs, "shift", "0", &memory);
      must_fail(build_node(&t.b, names[i], attrs, &x, 1, &out), "12 windows of 48 tokens");
    }
    bench_close(&t);
    arena_free(&memory);
  }
}

/* ---- every set of kernels against the definition ----------------------------------------------
 */

enum { TOKENS = 150, DIM = 19, WIDTH = 2 * DIM /* two heads */ };

typedef struct attended {
  float y[TOKENS * WIDTH], dq[TOKENS * WIDTH], dk[TOKENS * WIDTH], dv[TOKENS * WIDTH];
  float d_bias[2 * TOKENS * TOKENS];
} attended;

static double factor(const attention_problem *p, double x) {
  return p->bf16 ? (double)bf16_round((float)x) : x;
}

/* By the definition, in double, factors rounded where the kernel rounds them. */
static void attend(const attention_problem *p, const float *dy, attended *out) {
  int64_t tokens = p->keys;
  for (int head = 0; head < 2; head++) {
    const float *q = p->q + head * DIM, *k = p->k + head * DIM, *v = p->v + head * DIM;
    const float *g = dy + head * DIM;
    static double dk[TOKENS][DIM], dv[TOKENS][DIM];
    memset(dk, 0, sizeof dk);
    memset(dv, 0, sizeof dv);
    for (int64_t i = 0; i < tokens; i++) {
      double scores[TOKENS], largest = -1e30, sum = 0, y[DIM] = {0}, dq[DIM] = {0}, dot = 0;
      for (int64_t j = 0; j < tokens; j++) {
        scores[j] = p->bias ? p->bias[(head * tokens + i) * tokens + j] : 0;
        if (p->regions && p->regions[i] != p->regions[j]) scores[j] += ATTENTION_APART;
        for (int d = 0; d < DIM; d++)
          scores[j] += factor(p, q[i * WIDTH + d] * p->scale) * factor(p, k[j * WIDTH + d]);
        largest = fmax(largest, scores[j]);
      }
      for (int64_t j = 0; j < tokens; j++) sum += exp(scores[j] - largest);
      for (int64_t j = 0; j < tokens; j++)
        for (int d = 0; d < DIM; d++)
          y[d] += factor(p, exp(scores[j] - largest)) * factor(p, v[j * WIDTH + d]);
      for (int d = 0; d < DIM; d++) {
        y[d] /= sum;
        dot += y[d] * g[i * WIDTH + d];
        out->y[i * WIDTH + head * DIM + d] = (float)y[d];
      }
      for (int64_t j = 0; j < tokens; j++) {
        double weight = exp(scores[j] - largest) / sum, d_weight = 0;
        for (int d = 0; d < DIM; d++)
          d_weight += factor(p, g[i * WIDTH + d]) * factor(p, v[j * WIDTH + d]);
        out->d_bias[(head * tokens + i) * tokens + j] = (float)(weight * (d_weight - dot));
        double d_score = factor(p, weight * (d_weight - dot) * p->scale);
        for (int d = 0; d < DIM; d++) {
          dv[j][d] += factor(p, weight) * factor(p, g[i * WIDTH + d]);
          dk[j][d] += d_score * factor(p, q[i * WIDTH + d]);
          dq[d] += d_score * factor(p, k[j * WIDTH + d]);
        }
      }
      for (int d = 0; d < DIM; d++) out->dq[i * WIDTH + head * DIM + d] = (float)dq[d];
    }
    for (int64_t j = 0; j < tokens; j++)
      for (int d = 0; d < DIM; d++) {
        out->dk[j * WIDTH + head * DIM + d] = (float)dk[j][d];
        out->dv[j * WIDTH + head * DIM + d] = (float)dv[j][d];
      }
  }
}

static void assert_near(const char *what, const char *set, const float *expected, const float *got,
                        int64_t count, double most) {
  double difference = 0, length = 0;
  for (int64_t i = 0; i < count; i++) {
    difference += ((double)got[i] - expected[i]) * ((double)got[i] - expected[i]);
    length += (double)expected[i] * expected[i];
  }
  if (!(sqrt(difference / length) < most))
    fail_msg("%s with %s kernels is %g from the definition", what, set, sqrt(difference / length));
}

/* One sequence of two heads with random queries, keys and values; their memory is static. */
static attention_problem random_problem(int64_t tokens, const float **dy) {
  static float x[4][TOKENS * WIDTH];
  rng r = rng_open(rng_key_of(3, "attention", 0, "sets", 0), 1);
  for (int k = 0; k < 4; k++)
    for (int64_t i = 0; i < tokens * WIDTH; i++) x[k][i] = rng_normal(&r);
  *dy = x[3];
  return (attention_problem){.samples = 1,
                             .windows = 1,
                             .heads = 2,
                             .dim = DIM,
                             .queries = tokens,
                             .keys = tokens,
                             .q_row = WIDTH,
                             .k_row = WIDTH,
                             .v_row = WIDTH,
                             .q = x[0],
                             .k = x[1],
                             .v = x[2],
                             .scale = 0.3f};
}

static void every_set_agrees(const attention_problem *p, const float *dy,
                             const gemm_kernels *const *sets, int count, double most) {
  static attended expected, got;
  static float lse[2 * TOKENS];
  int64_t numbers = p->keys * WIDTH;
  attend(p, dy, &expected);
  void *workspace = malloc(attention_backward_workspace(p) + 1);
  for (int i = 0; i < count; i++) {
    const char *set = sets[i]->name;
    gemm_choose(sets[i]);
    attention_forward(p, got.y, lse, workspace, NULL);
    attention_gradients d = {got.dq, got.dk, got.dv, p->bias ? got.d_bias : NULL};
    attention_backward(p, got.y, lse, dy, &d, workspace, NULL);
    assert_near("the result", set, expected.y, got.y, numbers, most);
    assert_near("the gradient of q", set, expected.dq, got.dq, numbers, most);
    assert_near("the gradient of k", set, expected.dk, got.dk, numbers, most);
    assert_near("the gradient of v", set, expected.dv, got.dv, numbers, most);
    if (p->bias)
      assert_near("the gradient of the bias", set, expected.d_bias, got.d_bias,
                  2 * p->queries * p->keys, most);
  }
  gemm_choose(NULL);
  free(workspace);
}

/* The keys are one block of the kernel, so that it is known what is rounded. Where double and f32
 * fall on two sides of a tie, one factor differs by an eighth bit; f32 factors would be ten times
 * further off. */
static void in_bf16_the_factors_of_products_are_rounded(void **state) {
  (void)state;
  const float *dy;
  attention_problem p = random_problem(41, &dy);
  p.bf16 = true;
  const gemm_kernels *sets[2 * GEMM_MAX_SETS];
  int count = gemm_available(sets);
  count += gemm_available_bf16(sets + count);
  every_set_agrees(&p, dy, sets, count, 2e-4);
}

static void every_set_of_kernels_attends_with_bias_and_regions(void **state) {
  (void)state;
  static float bias[2 * TOKENS * TOKENS];
  static int32_t regions[TOKENS];
  const float *dy;
  attention_problem p = random_problem(TOKENS, &dy);
  rng r = rng_open(rng_key_of(3, "attention", 0, "bias", 0), 1);
  for (int i = 0; i < 2 * TOKENS * TOKENS; i++) bias[i] = 2 * rng_normal(&r);
  for (int i = 0; i < TOKENS; i++) regions[i] = i / 7 % 3;
  const gemm_kernels *sets[GEMM_MAX_SETS];
  int count = gemm_available(sets);
  every_set_agrees(&p, dy, sets, count, 1e-6);
  p.bias = bias;
  every_set_agrees(&p, dy, sets, count, 1e-6);
  p.regions = regions;
  p.region_windows = 1;
  every_set_agrees(&p, dy, sets, count, 1e-6);
  p.bias = NULL;
  every_set_agrees(&p, dy, sets, count, 1e-6);
}

/* Queries do not know of each other, so the gradients of keys are the sums of those that parts of the
 * queries give. So many queries are cut into slabs. */
static void gradients_of_long_sequences_are_the_sums_of_parts(void **state) {
  (void)state;
  enum { PARTS = 17, PART = 150, LONG = PARTS * PART, FEW = 70 };
  static float q[SAMPLES * LONG * WIDTH], dy[SAMPLES * LONG * WIDTH], y[SAMPLES * LONG * WIDTH];
  static float k[SAMPLES * FEW * WIDTH], v[SAMPLES * FEW * WIDTH], lse[SAMPLES * 2 * LONG];
  static float dq[2][SAMPLES * LONG * WIDTH], dk[2][SAMPLES * FEW * WIDTH];
  static float dv[2][SAMPLES * FEW * WIDTH], part_dq[PART * WIDTH], part_dk[FEW * WIDTH];
  static float part_dv[FEW * WIDTH], sum_dk[FEW * WIDTH], sum_dv[FEW * WIDTH];
  rng r = rng_open(rng_key_of(3, "attention", 0, "long", 0), 1);
  for (int i = 0; i < SAMPLES * LONG * WIDTH; i++) q[i] = rng_normal(&r), dy[i] = rng_normal(&r);
  for (int i = 0; i < SAMPLES * FEW * WIDTH; i++) k[i] = rng_normal(&r), v[i] = rng_normal(&r);
  attention_problem p = {.samples = SAMPLES,
                         .windows = 1,
                         .heads = 2,
                         .dim = DIM,
                         .queries = LONG,
                         .keys = FEW,
                         .q_row = WIDTH,
                         .k_row = WIDTH,
                         .v_row = WIDTH,
                         .q = q,
                         .k = k,
                         .v = v,
                         .scale = 0.3f};
  void *workspace = malloc(attention_backward_workspace(&p) + 1);
  thread_pool *pool;
  must(pool_create(3, &pool));
  const gemm_kernels *sets[GEMM_MAX_SETS];
  int count = gemm_available(sets);
  for (int set = 0; set < count; set++) {
    const char *name = sets[set]->name;
    gemm_choose(sets[set]);
    attention_forward(&p, y, lse, workspace, pool);
    for (int t = 0; t < 2; t++)
      attention_backward(&p, y, lse, dy, &(attention_gradients){dq[t], dk[t], dv[t], NULL},
                         workspace, t ? pool : NULL);
    assert_memory_equal(dq[0], dq[1], sizeof dq[0]);
    assert_memory_equal(dk[0], dk[1], sizeof dk[0]);
    assert_memory_equal(dv[0], dv[1], sizeof dv[0]);
    for (int n = 0; n < SAMPLES; n++) {
      memset(sum_dk, 0, sizeof sum_dk);
      memset(sum_dv, 0, sizeof sum_dv);
      for (int part = 0; part < PARTS; part++) {
        int64_t first = (int64_t)(n * LONG + part * PART) * WIDTH;
        attention_problem own = p;
        own.samples = 1;
        own.queries = PART;
        own.q = q + first;
        own.k = k + n * FEW * WIDTH;
        own.v = v + n * FEW * WIDTH;
        attention_forward(&own, y, lse, workspace, pool);
        attention_backward(&own, y, lse, dy + first,
                           &(attention_gradients){part_dq, part_dk, part_dv, NULL}, workspace,
                           pool);
        assert_near("the gradient of q", name, part_dq, dq[0] + first, PART * WIDTH, 1e-6);
        for (int i = 0; i < FEW * WIDTH; i++) sum_dk[i] += part_dk[i], sum_dv[i] += part_dv[i];
      }
      assert_near("the gradient of k", name, sum_dk, dk[0] + n * FEW * WIDTH, FEW * WIDTH, 1e-6);
      assert_near("the gradient of v", name, sum_dv, dv[0] + n * FEW * WIDTH, FEW * WIDTH, 1e-6);
    }
  }
  gemm_choose(NULL);
  pool_destroy(pool);
  free(workspace);
}

/* Weights that are too small for a normal number are none, those of −∞ among them; what is no number
 * makes its own query's result none, and no other's. */
static void far_keys_have_no_weight_and_no_number_is_hidden(void **state) {
  (void)state;
  static float mask[TOKENS * TOKENS], y[TOKENS * WIDTH], lse[2 * TOKENS], v[TOKENS * WIDTH];
  const float *dy;
  attention_problem p = random_problem(TOKENS, &dy);
  for (int i = 0; i < TOKENS; i++)
    for (int j = 0; j < TOKENS; j++) {
      mask[i * TOKENS + j] = j == i ? 0 : j % 2 ? -INFINITY : -200;
      if (i == 7 && j == 100) mask[i * TOKENS + j] = NAN;
    }
  for (int i = 0; i < TOKENS * WIDTH; i++) v[i] = i / WIDTH % 2 ? 3e38f : 1;
  p.v = v;
  p.mask = mask;
  p.mask_windows = 1;
  const gemm_kernels *sets[GEMM_MAX_SETS];
  int count = gemm_available(sets);
  for (int set = 0; set < count; set++) {
    gemm_choose(sets[set]);
    attention_forward(&p, y, lse, NULL, NULL);
    for (int i = 0; i < TOKENS; i++)
      for (int c = 0; c < WIDTH; c++)
        if (i == 7)
          assert_true(isnan(y[i * WIDTH + c]) && isnan(lse[i]));
        else
          assert_true(fabsf(y[i * WIDTH + c] / v[i * WIDTH] - 1) < 1e-5f && isfinite(lse[i]));
  }
  gemm_choose(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(attention_drops_its_share_of_weights),
      cmocka_unit_test(attention_drops_nothing_outside_training),
      cmocka_unit_test(in_bf16_the_factors_of_products_are_rounded),
      cmocka_unit_test(every_set_of_kernels_attends_with_bias_and_regions),
      cmocka_unit_test(gradients_of_long_sequences_are_the_sums_of_parts),
      cmocka_unit_test(far_keys_have_no_weight_and_no_number_is_hidden),
      cmocka_unit_test(a_mask_cannot_be_learned),
      cmocka_unit_test(inputs_in_front_may_be_left_out_where_they_are_optional),
      cmocka_unit_test(a_shift_is_less_than_the_window),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
