/* Every network of the fixtures in networks/ against its public PyTorch module: names and shapes,
 * outputs, the gradient of every parameter, running statistics, fresh weights, and the number of
 * parameters in the published size (networks/README.md says what the files hold).
 *
 *     test_networks             every configuration
 *     test_networks unetr       those whose name contains "unetr"
 *     test_networks --table FILE   also writes the table of docs/parity.md
 */
#include "base/text.h"
#include "infer/standalone.h"
#include "run/weights.h"

#include <glob.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CONFIGURATIONS_MAX = 64, OUTPUT_SAMPLES = 62, GRADIENT_SAMPLES = 6, DIGEST_HEAD = 2 };
static const double TOLERANCE = 1e-4;
/* When the factors of all products are rounded to bf16, layer after layer: of outputs, and of the
 * gradients of straight networks all together. (Where outputs are off by some hundredths, as many
 * values in a hundred are beyond a kink.) Most are within 3e-2; norms over the few voxels at the bottom
 * of a small crop make more of it. */
static const double BF16_TOLERANCE = 7e-2, BF16_GRADIENT_TOLERANCE = 0.2;
/* Rounding decides on which side of a leaky ReLU's kink a value next to zero falls, and one such value
 * deep in the network changes the gradients around it by some hundredths, whoever computes them. What
 * gradients must be exactly is tested with straight leaky ReLUs. */
static const double BENT_TOLERANCE = 0.1;
/* Gradients are measured against their own size, and small ones against the network's largest (root
 * mean squares). Those below ZERO of it are zero but for rounding (a scale before a norm): they only
 * have to stay small. */
static const double FLOOR = 1e-3, ZERO = 1e-4;

#if defined(__SANITIZE_ADDRESS__)
/* A sanitizer makes the large crops take minutes. */
static const int64_t VOXELS_MAX = 2 * 64 * 64 * 32, BF16_VOXELS_MAX = 2 * 32 * 16 * 32;
#else
/* The small crops say enough of bf16. */
static const int64_t VOXELS_MAX = INT64_MAX, BF16_VOXELS_MAX = 2 * 64 * 32 * 32;
#endif

typedef struct configuration {
  char name[64];
  weights file;
  json_t *head;
  device *device;
  int64_t parameters, published;
  double worst_output, worst_gradient; /* relative */
  double worst_bf16, worst_bf16_gradient;
  double worst_bent_gradient; /* of the cases in which rounding may decide gradients */
  int cases, skipped;
} configuration;

static configuration list[CONFIGURATIONS_MAX];
static int list_count;

static void must(status error) {
  if (!error) return;
  error_print(stderr, error);
  error_free(error);
  fail();
}

/* ---- the formula of weights and images (networks.py: uniform, waves, value) ------------------------- */

static uint64_t name_state(const char *name) {
  uint64_t state = 0xCBF29CE484222325u;
  for (; *name; name++) state = (state ^ (uint8_t)*name) * 0x100000001B3u;
  return state;
}

static double uniform_at(uint64_t state, int64_t i) {
  uint64_t z = state + (uint64_t)(i + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return (double)(z >> 40) * 0x1p-23 - 1;
}

static bool ends_with_any(const char *name, const char *const *endings) {
  for (; *endings; endings++)
    if (text_ends_with(name, *endings)) return true;
  return false;
}

static void fill_parameter(const parameter *p, float *to) {
  static const char *const shifts[] = {"bias", "running_mean", NULL};
  static const char *const tables[] = {"bias_table", "position_embeddings", "pos_embed",
                                       "absolute_pos_embed", NULL};
  double mean = 0, size;
  if (text_ends_with(p->name, "running_var")) {
    mean = 1;
    size = 0.3;
  } else if (ends_with_any(p->name, shifts)) {
    size = 0.2;
  } else if (ends_with_any(p->name, tables)) {
    size = 0.5;
  } else if (p->shape.rank < 2) {
    mean = 1;
    size = 0.2;
  } else {
    int64_t fan_in = 1;
    for (int d = 1; d < p->shape.rank; d++) fan_in *= p->shape.dim[d];
    size = sqrt(3 / (double)fan_in);
  }
  uint64_t state = name_state(p->name);
  for (int64_t i = 0; i < shape_elements(&p->shape); i++)
    to[i] = (float)(mean + uniform_at(state, i) * size);
}

/* ---- digests --------------------------------------------------------------------------------- */

/* What differs between numbers and the digest of those expected, relative to their size, which is
 * at least `floor` (a root mean square). */
static double digest_gap(const float *x, int64_t n, const float *expected, int samples,
                         double floor) {
  double norm = 0, product = 0, largest = 0, gap = 0;
  uint64_t state = name_state("digest");
  for (int64_t i = 0; i < n; i++) {
    norm += (double)x[i] * (double)x[i];
    product += (double)x[i] * uniform_at(state, i);
  }
  double size = fmax((double)expected[0], floor * sqrt((double)n));
  gap = fmax(fabs(sqrt(norm) - (double)expected[0]), fabs(product - (double)expected[1])) / size;
  int64_t stride = n / samples > 1 ? n / samples : 1, count = n < samples ? n : samples;
  for (int64_t i = 0; i < count; i++)
    largest = fmax(largest, fabs((double)expected[DIGEST_HEAD + i]));
  largest = fmax(largest, size / sqrt((double)n));
  for (int64_t i = 0; i < count; i++)
    gap = fmax(gap, fabs((double)x[i * stride] - (double)expected[DIGEST_HEAD + i]) /
                        fmax(largest, 1e-30));
  return isfinite(gap) ? gap : INFINITY;
}

/* ---- opening --------------------------------------------------------------------------------- */

static json_t *get(const json_t *object, const char *key) {
  json_t *value = json_object_get(object, key);
  if (!value) fail_msg("the fixture has no \"%s\"", key);
  return value;
}

static const float *find_data(const configuration *c, int index, const char *what, int64_t *rows) {
  char name[256];
  snprintf(name, sizeof name, "%d/%s", index, what);
  const named_tensor *t = weights_find(&c->file, name);
  if (!t) return NULL;
  *rows = t->tensor.shape.dim[0];
  return t->tensor.data;
}

/* Arguments of a model, as `--set` would give them. */
typedef struct arguments {
  override list[64];
  char *texts[64];
  int count;
} arguments;

static void read_arguments(const json_t *map, arguments *out) {
  const char *key;
  json_t *value;
  out->count = 0;
  json_object_foreach((json_t *)map, key, value) {
    char *text = json_dumps(value, JSON_ENCODE_ANY);
    assert_non_null(text);
    out->texts[out->count] = text;
    out->list[out->count++] = (override){key, text};
  }
}

static void free_arguments(arguments *a) {
  for (int i = 0; i < a->count; i++) free(a->texts[i]);
}

static expand_options input_of(const json_t *of, int64_t batch, bool training) {
  expand_options o = {
      .batch = batch, .channels = json_integer_value(get(of, "channels")), .training = training};
  for (size_t d = 0; d < 3; d++)
    o.size[d] = json_integer_value(json_array_get(get(of, "image"), d));
  return o;
}

static void open_case(const configuration *c, const json_t *of, int64_t batch, precision precision,
                      standalone *out) {
  arguments a;
  read_arguments(get(c->head, "arguments"), &a);
  standalone_options o = {.path = json_string_value(get(c->head, "yaml")),
                          .overrides = a.list,
                          .override_count = a.count,
                          .input = input_of(of, batch, json_is_true(get(of, "train"))),
                          .loss = MODEL_LOSS_SEEDS};
  o.input.precision = precision;
  must(standalone_open(&o, c->device, out));
  free_arguments(&a);
}

/* The names and shapes of PyTorch's state dict, no more and no less. */
static void check_names(const configuration *c, const json_t *of, const standalone *s) {
  json_t *all = get(c->head, "parameters"), *own = get(of, "shapes");
  const char *key;
  json_t *dims;
  json_object_foreach(all, key, dims) {
    json_t *replaced = json_object_get(own, key);
    if (replaced) dims = replaced;
    const parameter *p = parameters_find(&s->parameters, key);
    if (!p) fail_msg("%s: the YAML has no %s", c->name, key);
    shape want = {.rank = (int)json_array_size(dims)};
    for (int d = 0; d < want.rank; d++)
      want.dim[d] = json_integer_value(json_array_get(dims, (size_t)d));
    char a[96], b[96];
    if (!shape_equal(&want, &p->shape))
      fail_msg("%s: %s is %s, in PyTorch %s", c->name, key, shape_format(a, &p->shape),
               shape_format(b, &want));
  }
  for (int i = 0; i < s->parameters.count; i++)
    if (!json_object_get(all, s->parameters.list[i].name))
      fail_msg("%s: PyTorch has no %s", c->name, s->parameters.list[i].name);
}

/* ---- one case ---------------------------------------------------------------------------------- */

/* STRATA_TEST_DEVICE=cuda: the same on a GPU. */
static const char *test_device(void) {
  const char *name = getenv("STRATA_TEST_DEVICE");
  return name && *name ? name : "cpu";
}

/* `n` numbers of the device's; the caller frees them. */
static float *host_copy(const standalone *s, const float *from, int64_t n) {
  device *d = s->program.device;
  float *copy = malloc((size_t)n * sizeof *copy + 1);
  assert_non_null(copy);
  must(d->download(d, copy, from, (size_t)n * sizeof *copy));
  return copy;
}

/* Mean and spread agree with PyTorch's within what chance allows for so many numbers; the extremes
 * stay within the distribution's. */
static void check_fresh(const configuration *c, const standalone *s, const float *rows) {
  const char *key;
  json_t *dims;
  json_object_foreach(get(c->head, "parameters"), key, dims) {
    const float *want = rows;
    rows += 4;
    const parameter *p = parameters_find(&s->parameters, key);
    int64_t n = shape_elements(&p->shape);
    float *x = host_copy(s, s->parameters.data + p->offset, n);
    double mean = 0, variance = 0, reach = 0;
    for (int64_t i = 0; i < n; i++) mean += (double)x[i] / (double)n;
    for (int64_t i = 0; i < n; i++) {
      variance += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n;
      reach = fmax(reach, fabs((double)x[i]));
    }
    free(x);
    double sd = sqrt(variance), want_mean = (double)want[0], want_sd = (double)want[1];
    if (want_sd < 1e-12) {
      if (sd > 1e-6 || fabs(mean - want_mean) > 1e-6)
        fail_msg("%s: fresh %s should be %.3g everywhere, but has mean %.3g, sd %.3g", c->name, key,
                 want_mean, mean, sd);
      continue;
    }
    if (n < 32) continue;
    double chance = 8 / sqrt((double)n);
    if (fabs(sd / want_sd - 1) > chance || fabs(mean - want_mean) > chance * want_sd)
      fail_msg("%s: fresh %s has mean %.3g sd %.3g, in PyTorch %.3g %.3g", c->name, key, mean, sd,
               want_mean, want_sd);
    if (n < 256) continue; /* the largest of a few normal numbers is anything */
    double want_reach = fmax(fabs((double)want[2]), fabs((double)want[3]));
    if (reach > 1.6 * want_reach || want_reach > 1.6 * reach)
      fail_msg("%s: fresh %s reaches %.3g, in PyTorch %.3g", c->name, key, reach, want_reach);
  }
}

/* networks.py: waves. `s` is the shape in PyTorch. */
static void fill_waves(const char *name, const shape *s, float *to) {
  char wave_name[80];
  snprintf(wave_name, sizeof wave_name, "%s.waves", name);
  uint64_t noise = name_state(name), wave = name_state(wave_name);
  int64_t total = shape_elements(s);
  if (s->rank != 5) {
    for (int64_t i = 0; i < total; i++) to[i] = (float)uniform_at(noise, i);
    return;
  }
  const int64_t *d = s->dim;
  int64_t i = 0;
  for (int64_t k = 0; k < d[0] * d[1]; k++)
    for (int64_t x = 0; x < d[2]; x++)
      for (int64_t y = 0; y < d[3]; y++)
        for (int64_t z = 0; z < d[4]; z++, i++) {
          double v = 0.1 * uniform_at(noise, i);
          for (int w = 0; w < 3; w++) {
            int64_t at = (k * 3 + w) * 4;
            v += cos(2 * M_PI *
                     (3 * uniform_at(wave, at) * ((double)x / (double)d[2]) +
                      3 * uniform_at(wave, at + 1) * ((double)y / (double)d[3]) +
                      3 * uniform_at(wave, at + 2) * ((double)z / (double)d[4]) +
                      uniform_at(wave, at + 3)));
          }
          to[i] = (float)v;
        }
}

static void feed_value(standalone *s, value_id v, const char *name, bool mean) {
  tensor t = s->graph.g->values[v].type;
  float *torch = malloc(tensor_bytes(&t)), *ours = malloc(tensor_bytes(&t));
  shape in_torch = shape_in_torch(&t.shape);
  fill_waves(name, &in_torch, torch);
  float factor = mean ? 1 / (float)shape_elements(&t.shape) : 1;
  for (int64_t i = 0; i < shape_elements(&t.shape); i++) torch[i] *= factor;
  tensor_from_torch(&t.shape, torch, ours);
  must(program_write(&s->program, v, ours));
  free(torch);
  free(ours);
}

static bool is_straight(const json_t *of) {
  return json_is_true(json_object_get(of, "straight"));
}

/* networks.py: straighten. */
static void straighten(standalone *s) {
  for (int i = 0; i < s->graph.g->node_count; i++) {
    node *n = &s->graph.g->nodes[i];
    double *slope = attr_number(n->op, n->attrs, "slope");
    if (slope) *slope = 1;
  }
}

static void feed(standalone *s) {
  feed_value(s, s->graph.image, "image", false);
  for (int i = 0; i < s->graph.names.count; i++)
    if (text_starts_with(s->graph.names.list[i].name, "seed."))
      feed_value(s, s->graph.names.list[i].values[0], s->graph.names.list[i].name, true);
  device *d = s->program.device;
  for (int i = 0; i < s->parameters.count; i++) {
    const parameter *p = &s->parameters.list[i];
    size_t bytes = (size_t)shape_elements(&p->shape) * sizeof(float);
    float *values = malloc(bytes + 1);
    assert_non_null(values);
    fill_parameter(p, values);
    must(d->upload(d, s->parameters.data + p->offset, values, bytes));
    free(values);
  }
}

static bool is_listed(const json_t *names, const char *name) {
  for (size_t i = 0; i < json_array_size(names); i++)
    if (strcmp(json_string_value(json_array_get(names, i)), name) == 0) return true;
  return false;
}

static void check_outputs(configuration *c, int index, const json_t *of, standalone *s,
                          double tolerance, double *worst) {
  json_t *names = get(of, "outputs");
  for (int i = 0; i < s->graph.names.count; i++)
    if (!text_starts_with(s->graph.names.list[i].name, "seed.") &&
        !is_listed(names, s->graph.names.list[i].name))
      fail_msg("%s: the fixture lacks the output %s", c->name, s->graph.names.list[i].name);
  for (size_t i = 0; i < json_array_size(names); i++) {
    const char *name = json_string_value(json_array_get(names, i));
    const graph_name *found = stage_graph_find(&s->graph, name);
    if (!found) fail_msg("%s: the YAML has no output %s", c->name, name);
    const tensor *t = &s->graph.g->values[found->values[0]].type;
    float *ours = malloc(tensor_bytes(t)), *torch = malloc(tensor_bytes(t));
    must(program_read(&s->program, found->values[0], ours));
    tensor_to_torch(&t->shape, ours, torch);
    int64_t rows;
    const float *expected = find_data(c, index, name, &rows);
    assert_non_null(expected);
    double gap = digest_gap(torch, shape_elements(&t->shape), expected, OUTPUT_SAMPLES, 0);
    *worst = fmax(*worst, gap);
    if (gap > tolerance) fail_msg("%s: output %s is off by %.3g", c->name, name, gap);
    free(ours);
    free(torch);
  }
}

/* Row after row in the order of the parameters: gradients, or what training made of a state. */
static void check_gradients(configuration *c, int index, const json_t *of, const standalone *s) {
  int64_t rows;
  const float *table = find_data(c, index, "gradients", &rows);
  assert_non_null(table);
  assert_int_equal(rows, json_object_size(get(c->head, "parameters")));
  bool bent = json_is_true(json_object_get(of, "bent"));
  /* Straight networks are nearly indifferent to the scales in front of their norms, and what is left of
   * such a gradient is small beside the terms that cancel: PyTorch's loss to rounding says how small. */
  double rounding = json_real_value(json_object_get(of, "rounding")), largest = 0;
  double tolerance = bent ? BENT_TOLERANCE : fmax(TOLERANCE, 5 * rounding);
  double *worst = bent ? &c->worst_bent_gradient : &c->worst_gradient;
  const char *key;
  json_t *dims;
  const float *row = table;
  enum { WIDTH = GRADIENT_SAMPLES + DIGEST_HEAD };
  json_object_foreach(get(c->head, "parameters"), key, dims) {
    const parameter *p = parameters_find(&s->parameters, key);
    if (isfinite(row[0]) && standalone_gradient(s, p))
      largest = fmax(largest, (double)row[0] / sqrt((double)shape_elements(&p->shape)));
    row += WIDTH;
  }
  row = table;
  json_object_foreach(get(c->head, "parameters"), key, dims) {
    const parameter *p = parameters_find(&s->parameters, key);
    const float *gradient = standalone_gradient(s, p);
    const char *what = gradient ? "the gradient of" : "after the step,";
    int64_t n = shape_elements(&p->shape);
    if (isfinite(row[0])) {
      float *x = host_copy(s, gradient ? gradient : s->parameters.data + p->offset, n);
      double gap = digest_gap(x, n, row, GRADIENT_SAMPLES, FLOOR * largest);
      free(x);
      if ((double)row[0] < ZERO * largest * sqrt((double)n)) {
        if (gap > 1) fail_msg("%s: %s %s should vanish", c->name, what, key);
        row += WIDTH;
        continue;
      }
      *worst = fmax(*worst, gap);
      if (gap > tolerance) fail_msg("%s: %s %s is off by %.3g", c->name, what, key, gap);
    } else if (gradient) {
      fail_msg("%s: PyTorch's loss does not depend on %s, ours does", c->name, key);
    }
    row += WIDTH;
  }
}

/* Distance of all gradients from those of f32, over their length. */
static double gradient_distance(const standalone *f32, const standalone *bf16) {
  double difference = 0, length = 0;
  for (int i = 0; i < f32->parameters.count; i++) {
    const parameter *p = &f32->parameters.list[i];
    const float *a = standalone_gradient(f32, p);
    const float *b = standalone_gradient(bf16, parameters_find(&bf16->parameters, p->name));
    for (int64_t k = 0; a && k < shape_elements(&p->shape); k++) {
      difference += ((double)b[k] - (double)a[k]) * ((double)b[k] - (double)a[k]);
      length += (double)a[k] * (double)a[k];
    }
  }
  return sqrt(difference / length);
}

static void run_in_bf16(configuration *c, int index, const json_t *of, const standalone *f32) {
  standalone s;
  open_case(c, of, json_integer_value(get(of, "batch")), PRECISION_BF16, &s);
  if (!s.program.device->is_host) return standalone_close(&s);
  if (is_straight(of)) straighten(&s);
  feed(&s);
  must(standalone_run(&s, 0));
  check_outputs(c, index, of, &s, BF16_TOLERANCE, &c->worst_bf16);
  if (!json_is_true(json_object_get(of, "bent"))) {
    double distance = gradient_distance(f32, &s);
    c->worst_bf16_gradient = fmax(c->worst_bf16_gradient, distance);
    if (!(distance <= BF16_GRADIENT_TOLERANCE))
      fail_msg("%s: gradients in bf16 are off by %.3g", c->name, distance);
  }
  standalone_close(&s);
}

static void run_case(configuration *c, int index, const json_t *of) {
  int64_t batch = json_integer_value(get(of, "batch")), voxels = batch;
  for (size_t d = 0; d < 3; d++) voxels *= json_integer_value(json_array_get(get(of, "image"), d));
  if (voxels > VOXELS_MAX) {
    c->skipped++;
    return;
  }
  standalone s;
  open_case(c, of, batch, PRECISION_F32, &s);
  check_names(c, of, &s);
  int64_t rows;
  const float *fresh = find_data(c, index, "initial", &rows);
  if (fresh) check_fresh(c, &s, fresh);
  if (is_straight(of)) straighten(&s);
  feed(&s);
  must(standalone_run(&s, 0));
  check_outputs(c, index, of, &s, TOLERANCE, &c->worst_output);
  check_gradients(c, index, of, &s);
  c->cases++;
  if (voxels <= BF16_VOXELS_MAX) run_in_bf16(c, index, of, &s);
  standalone_close(&s);
}

static void check_published(configuration *c) {
  json_t *published = json_object_get(c->head, "published");
  if (!published) return;
  arguments a;
  read_arguments(get(published, "arguments"), &a);
  expand_options input = input_of(published, 1, true);
  pipeline *p;
  stage_graph graph;
  must(pipeline_load_model(json_string_value(get(c->head, "yaml")), a.list, a.count, &p));
  must(model_expand(p, &input, MODEL_LOSS_SEEDS, &graph));
  c->published = json_integer_value(get(published, "parameters"));
  /* PyTorch counts what is trained; running statistics are buffers there. */
  for (int v = 0; v < graph.g->value_count; v++)
    if (graph.g->values[v].kind == VALUE_PARAM && graph.g->values[v].gradient != VALUE_NONE)
      c->parameters += shape_elements(&graph.g->values[v].type.shape);
  assert_int_equal(c->parameters, c->published);
  stage_graph_free(&graph);
  pipeline_free(p);
  free_arguments(&a);
}

static void network_equals_pytorch(void **state) {
  configuration *c = *state;
  must(device_open(test_device(), 2, &c->device, NULL));
  json_t *cases = get(c->head, "cases");
  for (size_t i = 0; i < json_array_size(cases); i++) run_case(c, (int)i, json_array_get(cases, i));
  check_published(c);
  print_message(
      "%s: %d cases%s, outputs within %.1e, gradients within %.1e, in bf16 %.1e and %.1e\n",
      c->name, c->cases, c->skipped ? " (large crops only without sanitizers)" : "",
      c->worst_output, c->worst_gradient, c->worst_bf16, c->worst_bf16_gradient);
  assert_true(c->cases > 0);
  device_close(c->device);
}

/* ---- the list of configurations -------------------------------------------------------------- */

static const char *metadata_of(const weights *w, const char *key) {
  for (const char *const *m = w->metadata; m && m[0]; m += 2)
    if (strcmp(m[0], key) == 0) return m[1];
  return NULL;
}

static bool open_configuration(const char *path, configuration *c) {
  const char *slash = strrchr(path, '/');
  snprintf(c->name, sizeof c->name, "%.*s", (int)strcspn(slash + 1, "."), slash + 1);
  status error = weights_read(path, &c->file);
  if (error) {
    error_print(stderr, error);
    error_free(error);
    return false;
  }
  const char *head = metadata_of(&c->file, "network");
  c->head = head ? json_loads(head, 0, NULL) : NULL;
  if (!c->head) fprintf(stderr, "%s has no description of its network\n", path);
  return c->head != NULL;
}

static void print_table(FILE *out) {
  fprintf(
      out,
      "# Parity\n\n"
      "Each network of `pipelines/models/` beside its public PyTorch module, on the same weights and\n"
      "inputs: parameters in the published size, and over the sizes and modes of the golden cases\n"
      "(train and eval) the largest relative error of any output and of any parameter's gradient in\n"
      "f32, PyTorch computing in double precision.\n\n"
      "Rounding decides on which side of a leaky ReLU's kink a value next to zero falls, and with it\n"
      "its gradient; PyTorch's own gradients differ by as much in single precision. So networks that\n"
      "have ReLUs or leaky ones are compared twice: with straight ones (column \"gradients\", where\n"
      "nothing is left to chance) and as they are (\"with kinks\"). PReLUs and maximum pooling cannot\n"
      "be straightened. Gradients above 1e-4 in the first column are\n"
      "those that nearly cancel, where PyTorch in single precision is off by as much. Made by\n\n"
      "    build/tests/test_networks --table docs/parity.md\n\n"
      "from the fixtures of `tests/golden/networks/`, whose README says how errors are measured.\n\n"
      "| configuration | model file | cases | parameters here | in PyTorch | outputs | gradients | "
      "with kinks |\n|---|---|---|---|---|---|---|---|\n");
  for (int i = 0; i < list_count; i++) {
    const configuration *c = &list[i];
    char counts[64] = " | ", straight[16] = "", bent[16] = "";
    if (c->published)
      snprintf(counts, sizeof counts, "%lld | %lld", (long long)c->parameters,
               (long long)c->published);
    if (c->worst_gradient > 0) snprintf(straight, sizeof straight, "%.1e", c->worst_gradient);
    if (c->worst_bent_gradient > 0) snprintf(bent, sizeof bent, "%.1e", c->worst_bent_gradient);
    fprintf(out, "| %s | `%s` | %d | %s | %.1e | %s | %s |\n", c->name,
            json_string_value(json_object_get(c->head, "yaml")), c->cases, counts, c->worst_output,
            straight, bent);
  }
}

int main(int argc, char **argv) {
  bool table = argc > 2 && strcmp(argv[1], "--table") == 0;
  const char *filter = argc > 1 && !table ? argv[1] : "";
  /* The build folder's machine need not be the one that runs the test. */
  const char *fixtures = getenv("STRATA_TEST_FIXTURES");
  char pattern[4096];
  snprintf(pattern, sizeof pattern, "%s/golden/networks/*.safetensors",
           fixtures && *fixtures ? fixtures : TEST_DATA);
  glob_t found;
  if (glob(pattern, 0, NULL, &found) != 0) {
    fprintf(stderr, "no fixtures: %s\n", pattern);
    return 1;
  }
  struct CMUnitTest tests[CONFIGURATIONS_MAX];
  for (size_t i = 0; i < found.gl_pathc && list_count < CONFIGURATIONS_MAX; i++) {
    configuration *c = &list[list_count];
    if (!strstr(strrchr(found.gl_pathv[i], '/'), filter)) continue;
    if (!open_configuration(found.gl_pathv[i], c)) return 1;
    tests[list_count++] = (struct CMUnitTest){
        .name = c->name, .test_func = network_equals_pytorch, .initial_state = c};
  }
  globfree(&found);
  if (list_count == 0) {
    fprintf(stderr, "no configuration's name contains \"%s\"\n", filter);
    return 1;
  }
  int failed = _cmocka_run_group_tests("networks", tests, (size_t)list_count, NULL, NULL);
  FILE *out = table ? fopen(argv[2], "w") : NULL;
  if (out) print_table(out);
  if (table && (!out || fclose(out) != 0)) {
    perror(argv[2]);
    failed = 1;
  }
  for (int i = 0; i < list_count; i++) {
    json_decref(list[i].head);
    weights_close(&list[i].file);
  }
  return failed;
}
