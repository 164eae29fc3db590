/* The elementary functions against libm in double, over their whole range; and numerics that golden
 * files are too small to show. */
#include "operators.h"

#include "ops/arithmetic/vector_math.h"

static double error_in_ulp(float have, double want) {
  float size = fabsf((float)want);
  return fabs((double)have - want) / ((double)nextafterf(size, INFINITY) - (double)size);
}

#define WORST_OVER(function, reference, low, high) worst_of(function##_of, reference, low, high)

static float exp_of(float x) {
  return vector_exp(x);
}
static float expm1_of(float x) {
  return vector_expm1(x);
}
static float exp_normal_of(float x) {
  return vector_exp_normal(x);
}
static float log_of(float x) {
  return vector_log(x);
}
static float erf_of(float x) {
  return vector_erf(x);
}
static float tanh_of(float x) {
  return vector_tanh(x);
}

static double worst_of(float (*have)(float), double (*want)(double), double low, double high) {
  double worst = 0;
  enum { POINTS = 200000 };
  for (int i = 0; i <= POINTS; i++) {
    float x = (float)(low + (high - low) * i / POINTS);
    worst = fmax(worst, error_in_ulp(have(x), want((double)x)));
  }
  return worst;
}

static void elementary_functions_are_accurate(void **state) {
  (void)state;
  assert_true(WORST_OVER(exp, exp, -87, 88.7) < 1.1);
  assert_true(WORST_OVER(expm1, expm1, -30, 88) < 3.5);
  assert_true(WORST_OVER(expm1, expm1, -0.5, 0.5) < 3.5);
  assert_true(WORST_OVER(expm1, expm1, -1e-6, 1e-6) < 1);
  assert_true(WORST_OVER(exp_normal, exp, -87, 88) < 1.1);
  assert_true(WORST_OVER(log, log, 1e-3, 1e3) < 1.1);
  assert_true(WORST_OVER(log, log, 0.9, 1.1) < 1.1);
  assert_true(WORST_OVER(erf, erf, -5, 5) < 2);
  assert_true(WORST_OVER(erf, erf, -1e-6, 1e-6) < 2);
  assert_true(WORST_OVER(tanh, tanh, -10, 10) < 2);
  assert_true(WORST_OVER(tanh, tanh, -1e-6, 1e-6) < 2);
  assert_true(vector_exp(-INFINITY) == 0 && isinf(vector_exp(INFINITY)) && isnan(vector_exp(NAN)));
  assert_true(vector_expm1(-INFINITY) == -1 && isnan(vector_expm1(NAN)));
  assert_true(vector_exp_normal(-INFINITY) == 0 && isnan(vector_exp_normal(NAN)));
  assert_true(isnan(vector_erf(NAN)) && isnan(vector_tanh(NAN)));
  assert_true(vector_erf(INFINITY) == 1 && vector_tanh(-INFINITY) == -1);
}

/* Mean 1000 and standard deviation 0.1, as a CT background has before windowing: a one-pass sum of
 * squares would have lost every digit. */
static void instance_norm_survives_a_large_offset(void **state) {
  (void)state;
  bench t;
  bench_open(&t, 2);
  enum { V = 40 * 40 * 40 };
  float *x = malloc(V * sizeof *x);
  rng r = rng_open(rng_key_of(1, "offset", 0, "", 0), 1);
  double mean = 0, variance = 0;
  for (int i = 0; i < V; i++) x[i] = 1000 + 0.1f * rng_normal(&r);
  for (int i = 0; i < V; i++) mean += (double)x[i] / V;
  for (int i = 0; i < V; i++) variance += ((double)x[i] - mean) * ((double)x[i] - mean) / V;
  value_id in[4] = {bench_input(&t, "x", DTYPE_F32, SHAPE(1, 40, 40, 40, 1), x), VALUE_NONE,
                    VALUE_NONE, VALUE_NONE};
  value_id out[3];
  must(build_node(&t.b, "instance_norm", NULL, in, 4, out));
  must(bench_run(&t));
  double rstd = 1 / sqrt(variance + 1e-5);
  assert_true(fabs((double)*(float *)t.data[out[2]] / rstd - 1) < 1e-5);
  free(x);
  bench_close(&t);
}

static void attention_is_exact_for_extreme_scores(void **state) {
  (void)state;
  bench t;
  bench_open(&t, 2);
  enum { T = 200, C = 4 };
  static float qkv[T * 3 * C];
  rng r = rng_open(rng_key_of(2, "attention", 0, "", 0), 1);
  for (int i = 0; i < T * 3 * C; i++) qkv[i] = 100 * rng_normal(&r);
  value_id in[4] = {bench_input(&t, "qkv", DTYPE_F32, SHAPE(1, T, 3 * C), qkv), VALUE_NONE,
                    VALUE_NONE, VALUE_NONE};
  value_id out[2];
  arena memory = {0};
  const op *o = op_find("self_attention");
  void *attrs = arena_alloc(&memory, o->attrs_bytes);
  op_defaults(o, attrs);
  set_attr(o, attrs, "heads", "1", &memory);
  must(build_node(&t.b, "self_attention", attrs, in, 4, out));
  arena_free(&memory);
  must(bench_run(&t));
  const float *y = t.data[out[0]];
  for (int q = 0; q < T; q++) {
    double scores[T], largest = -INFINITY, sum = 0, want[C] = {0};
    for (int k = 0; k < T; k++) {
      scores[k] = 0;
      for (int d = 0; d < C; d++)
        scores[k] += 0.5 * (double)qkv[q * 3 * C + d] * (double)qkv[k * 3 * C + C + d];
      largest = fmax(largest, scores[k]);
    }
    for (int k = 0; k < T; k++) sum += exp(scores[k] - largest);
    for (int k = 0; k < T; k++)
      for (int d = 0; d < C; d++)
        want[d] += exp(scores[k] - largest) / sum * (double)qkv[k * 3 * C + 2 * C + d];
    for (int d = 0; d < C; d++) assert_true(fabs((double)y[q * C + d] - want[d]) < 1);
  }
  bench_close(&t);
}

/* The planner may give a result the memory of the first input. */
static void operators_work_in_place(void **state) {
  (void)state;
  enum { N = 2 * 3 * 3 * 4 * 5 };
  shape s = SHAPE(2, 3, 3, 4, 5);
  for (int k = 0; k < op_count(); k++) {
    const op *o = op_at(k);
    if (!(o->traits & OP_IN_PLACE) || !o->cpu) continue;
    if (strcmp(o->name, "position_embedding") == 0) s = SHAPE(2, 9, 20);
    float start[N], apart[N], shared[N], other[N], moments[2 * 2 * 5];
    int32_t workspace[4096];
    rng_key keys[2] = {rng_key_of(1, "a", 0, "b", 0), rng_key_of(1, "a", 0, "b", 1)};
    for (int i = 0; i < N; i++) start[i] = shared[i] = sinf((float)i), other[i] = cosf((float)i);
    for (int i = 0; i < 2 * 2 * 5; i++) moments[i] = (float)(i + 1);
    arena memory = {0};
    void *attrs = arena_alloc(&memory, o->attrs_bytes + 1);
    op_defaults(o, attrs);
    for (const attr *a = o->attrs; a && a->name; a++) {
      if (!a->fallback)
        must(bind_attr_text(a, a->kind == ATTR_FLOAT ? "0.5" : "1", &memory, attrs));
      if (strcmp(a->name, "margin") == 0) must(bind_attr_text(a, "0", &memory, attrs));
    }
    int ports = port_count(o->inputs);
    tensor in[8], out[3];
    param_spec specs[8];
    in[0] = (tensor){DTYPE_F32, s, start};
    if (o->params) must(o->params(attrs, in, 1, specs));
    for (int i = 1, next = 0; i < ports; i++) {
      bool learned = (o->inputs[i].flags & PORT_PARAM) != 0;
      bool absent = (o->inputs[i].flags & PORT_OPTIONAL) != 0;
      in[i] = (tensor){DTYPE_F32, learned ? specs[next++].shape : s, other};
      if (absent) in[i] = (tensor){DTYPE_F32, {.rank = -1}, NULL};
      if (strcmp(o->inputs[i].name, "moments") == 0)
        in[i] = (tensor){DTYPE_F32, SHAPE(2, 2, 5), moments};
    }
    infer rule = {.attrs = attrs, .in = in, .in_count = ports, .out = out};
    memset(out, 0, sizeof out);
    must(o->infer(&rule));
    assert_true(port_count(o->outputs) < 2 || shape_elements(&out[1].shape) <= 360);
    float extra[2][N];
    for (int i = 0; i < 2; i++) out[1 + i].data = extra[i];
    out[0].data = apart;
    call c = {attrs, in, out, ports, port_count(o->outputs), workspace, NULL, keys, 7, NULL};
    must(o->cpu(&c));
    in[0].data = out[0].data = shared;
    must(o->cpu(&c));
    if (memcmp(apart, shared, sizeof apart) != 0) fail_msg("%s differs in place", o->name);
    s = SHAPE(2, 3, 3, 4, 5);
    arena_free(&memory);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(elementary_functions_are_accurate),
      cmocka_unit_test(instance_norm_survives_a_large_offset),
      cmocka_unit_test(attention_is_exact_for_extreme_scores),
      cmocka_unit_test(operators_work_in_place),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
