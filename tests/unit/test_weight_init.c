/* Fresh parameters have the distribution that the attributes ask for: its standard deviation, its
 * ends and its shape, for the fans of torch.nn.init. */
#include "step_fixture.h"

enum { CHANNELS = 12, FEATURES = 24 };

typedef struct moments {
  double mean, sd, largest;
  double outer; /* share beyond one standard deviation: 0.317 normal, 0.423 uniform */
} moments;

static moments moments_of(const float *x, int64_t n) {
  double sum = 0, squares = 0;
  moments m = {0};
  for (int64_t i = 0; i < n; i++) sum += (double)x[i];
  m.mean = sum / (double)n;
  for (int64_t i = 0; i < n; i++) {
    double d = (double)x[i] - m.mean;
    squares += d * d;
    m.largest = fmax(m.largest, fabs((double)x[i]));
  }
  m.sd = sqrt(squares / (double)n);
  for (int64_t i = 0; i < n; i++) m.outer += fabs((double)x[i] - m.mean) > m.sd;
  m.outer /= (double)n;
  return m;
}

typedef struct layer {
  arena memory;
  graph *g;
  device *device;
  parameters parameters;
} layer;

/* One layer on its own with the attributes written as YAML lists of name and value. */
static void layer_open(layer *l, const char *op_name, const char *const *attributes) {
  *l = (layer){.g = graph_new(false)};
  builder b = {.g = l->g, .prefix = ""};
  const op *o = op_find(op_name);
  assert_non_null(o);
  void *attrs = arena_alloc(&l->memory, o->attrs_bytes);
  op_defaults(o, attrs);
  for (; attributes[0]; attributes += 2) {
    const attr *a = o->attrs;
    while (a->name && strcmp(a->name, attributes[0]) != 0) a++;
    assert_non_null(a->name);
    must(bind_attr_text(a, attributes[1], &l->memory, attrs));
  }
  bool rows = strcmp(op_name, "linear") == 0;
  value_id x =
      build_input(&b, "x", DTYPE_F32, rows ? SHAPE(2, CHANNELS) : SHAPE(1, 4, 4, 4, CHANNELS));
  value_id out[FIXTURE_VALUES];
  must(build_apply(&b, "layer", o, attrs, &x, 1, out));
  must(device_open("cpu", 1, &l->device, NULL));
  must(parameters_create(l->g, l->device, &l->parameters));
  must(parameters_initialize(&l->parameters, 11));
}

static void layer_close(layer *l) {
  parameters_free(&l->parameters);
  device_close(l->device);
  graph_free(l->g);
  arena_free(&l->memory);
}

static moments layer_moments(const layer *l, const char *name) {
  const parameter *p = parameters_find(&l->parameters, name);
  assert_non_null(p);
  return moments_of(l->parameters.data + p->offset, shape_elements(&p->shape));
}

typedef enum form { UNIFORM, NORMAL } form;

typedef struct expectation {
  const char *op;
  const char *attributes[12];
  form form;
  double sd, bias_bound; /* bias_bound 0: the bias is zero */
} expectation;

/* √(variance) of torch.nn.init for 12 → 24 channels; 3 × 3 × 3 taps in the convolutions. */
static const expectation expectations[] = {
    {"conv3d", {"features", "24", "kernel", "3"}, UNIFORM, 0.03207501, 0.0555556},
    {"linear", {"features", "24"}, UNIFORM, 0.16666667, 0.2886751},
    {"conv_transpose3d",
     {"features", "24", "kernel", "3", "bias", "true"},
     UNIFORM,
     0.02268046,
     0.0392837},
    {"conv3d", {"features", "24", "kernel", "3", "init", "xavier_uniform"}, UNIFORM, 0.04536092, 0},
    {"conv3d", {"features", "24", "kernel", "3", "init", "xavier_normal"}, NORMAL, 0.04536092, 0},
    {"linear", {"features", "24", "init", "xavier_uniform"}, UNIFORM, 0.23570226, 0},
    {"conv3d", {"features", "24", "kernel", "3", "init", "kaiming_normal"}, NORMAL, 0.07855282, 0},
    {"conv3d",
     {"features", "24", "kernel", "3", "init", "kaiming_uniform", "init_slope", "0.2"},
     UNIFORM,
     0.07703764,
     0},
    {"conv3d",
     {"features", "24", "kernel", "3", "init", "kaiming_normal", "init_slope", "0", "init_fan",
      "out"},
     NORMAL,
     0.05555556,
     0},
    {"conv_transpose3d",
     {"features", "24", "kernel", "3", "init", "kaiming_normal", "bias", "true"},
     NORMAL,
     0.05554523,
     0},
    {"linear",
     {"features", "24", "init", "normal", "init_std", "0.3", "bias_init", "torch"},
     NORMAL,
     0.3,
     0.2886751},
    {"conv3d", {"features", "24", "kernel", "3", "init", "truncated_normal"}, NORMAL, 0.02, 0},
    {"conv3d", {"features", "24", "kernel", "3", "bias_init", "zeros"}, UNIFORM, 0.03207501, 0},
    {"conv3d",
     {"features", "24", "kernel", "3", "groups", "12", "init", "kaiming_normal"},
     NORMAL,
     0.27211498,
     0},
};

static void weights_have_the_distribution_of_torch(void **unused) {
  (void)unused;
  for (size_t i = 0; i < sizeof expectations / sizeof *expectations; i++) {
    const expectation *e = &expectations[i];
    layer l;
    layer_open(&l, e->op, e->attributes);
    moments weight = layer_moments(&l, "layer.weight"), bias = layer_moments(&l, "layer.bias");
    int64_t n = shape_elements(&parameters_find(&l.parameters, "layer.weight")->shape);
    double error = 4 / sqrt((double)n); /* four standard errors and more */
    if (fabs(weight.sd / e->sd - 1) > error)
      fail_msg("case %zu, %s: standard deviation %g, not %g", i, e->op, weight.sd, e->sd);
    assert_true(fabs(weight.mean) < error * e->sd);
    assert_true(fabs(weight.outer - (e->form == UNIFORM ? 0.4226 : 0.3173)) < 0.6 * error + 0.01);
    if (e->form == UNIFORM) {
      assert_true(weight.largest <= e->sd * sqrt(3.0) * 1.00001);
      assert_true(weight.largest > e->sd * sqrt(3.0) * 0.95);
    }
    if (e->bias_bound > 0) {
      assert_true(bias.largest <= e->bias_bound * 1.00001 && bias.largest > e->bias_bound * 0.7);
      assert_true(fabs(bias.sd * sqrt(3.0) / e->bias_bound - 1) < 0.4);
    } else {
      assert_true(bias.largest == 0);
    }
    layer_close(&l);
  }
}

static void truncated_normal_is_cut_at_two(void **unused) {
  (void)unused;
  layer l;
  layer_open(
      &l, "linear",
      (const char *const[]){"features", "400", "init", "truncated_normal", "init_std", "2", NULL});
  moments m = layer_moments(&l, "layer.weight");
  assert_true(m.largest <= 2 && m.largest > 1.99);
  /* A normal with σ = 2 cut at ±σ has the standard deviation 2 · 0.5395. */
  assert_true(fabs(m.sd / 1.0790 - 1) < 0.02);
  layer_close(&l);
}

static void constants_are_constant(void **unused) {
  (void)unused;
  layer l;
  layer_open(&l, "conv3d",
             (const char *const[]){"features", "3", "kernel", "1", "init", "constant", "init_value",
                                   "-0.25", NULL});
  moments m = layer_moments(&l, "layer.weight");
  assert_true(m.mean == -0.25 && m.sd == 0);
  layer_close(&l);
  layer_open(&l, "conv3d",
             (const char *const[]){"features", "3", "kernel", "1", "init", "zeros", NULL});
  assert_true(layer_moments(&l, "layer.weight").largest == 0);
  layer_close(&l);
}

static void norms_start_with_the_scale_they_are_told(void **unused) {
  (void)unused;
  for (int i = 0; i < 2; i++) {
    const char *name = i ? "layer_norm" : "instance_norm";
    layer l;
    layer_open(&l, name, (const char *const[]){"affine", "true", NULL});
    assert_true(layer_moments(&l, "layer.weight").mean == 1);
    assert_true(layer_moments(&l, "layer.bias").largest == 0);
    layer_close(&l);
    layer_open(&l, name, (const char *const[]){"affine", "true", "init_weight", "0", NULL});
    assert_true(layer_moments(&l, "layer.weight").largest == 0);
    layer_close(&l);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(weights_have_the_distribution_of_torch),
      cmocka_unit_test(truncated_normal_is_cut_at_two),
      cmocka_unit_test(constants_are_constant),
      cmocka_unit_test(norms_start_with_the_scale_they_are_told),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
