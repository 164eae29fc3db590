/* pipelines/models/unetr.yaml against MONAI's UNETR: names, shapes, fresh values, outputs, losses
 * and the gradient of every parameter (fixtures: unetr/README.md). */
#include "base/files.h"
#include "base/text.h"
#include "execute/program.h"
#include "graph/expand.h"
#include "run/weights.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FIXTURES TEST_DATA "/golden/unetr"

static void must(status error) {
  if (!error) return;
  error_print(stderr, error);
  error_free(error);
  fail();
}

/* A segmentation stage around the model, with the given `with:` and precision. */
static pipeline *load_pipeline(const char *with, const char *precision) {
  char folder[] = "/tmp/strata-unetr-XXXXXX";
  assert_non_null(mkdtemp(folder));
  char yaml[512], json[512];
  snprintf(yaml, sizeof yaml, "%s/pipeline.yaml", folder);
  snprintf(json, sizeof json, "%s/dataset.json", folder);
  must(file_write_atomic(json, "{}", 2));
  text_buffer text = {0};
  text_add(&text,
           "strata: 1\nname: golden\n"
           "data: {dataset: {decathlon: dataset.json}, split: {train: 1},\n"
           "  sample: [{centre_crop: {size: 16}}]}\n"
           "model: {use: %s/pipelines/models/unetr.yaml, with: %s}\n"
           "stages:\n  - segment:\n      epochs: 1\n      precision: %s\n"
           "      graph:\n        - net: {model: image, outputs: \"${classes}\"}\n"
           "        - loss: {dice_ce: [net.out, label]}\n"
           "      optimizer: {adamw: {lr: 1.0e-6}}\n",
           SOURCE_DIR, with, precision);
  must(file_write_atomic(yaml, text.data, text.length));
  text_free(&text);
  pipeline *p;
  must(pipeline_load(yaml, NULL, 0, &p));
  remove(yaml);
  remove(json);
  rmdir(folder);
  return p;
}

typedef struct golden {
  const char *folder, *with;
  int64_t batch, size[3], channels, classes;
  double thresholds[2];
} golden;

static const golden residual = {
    "residual",  "{features: 3, hidden: 24, mlp: 48, heads: 3}", 2, {32, 16, 48}, 1, 3,
    {-0.25, 0.5}};
static const golden plain = {"plain",
                             "{features: 2, hidden: 12, mlp: 20, heads: 2, embedding: conv, "
                             "res_block: false, conv_block: false, qkv_bias: true}",
                             1,
                             {16, 32, 32},
                             2,
                             2,
                             {0, INFINITY}};

typedef struct built {
  pipeline *p;
  device *device;
  stage_graph graph;
  parameters parameters;
  program program;
  value_id *keep;
} built;

static void open_golden(const golden *c, const char *precision, built *b) {
  b->p = load_pipeline(c->with, precision);
  expand_options options = {.batch = c->batch,
                            .size = {c->size[0], c->size[1], c->size[2]},
                            .channels = c->channels,
                            .classes = c->classes,
                            .training = true};
  must(stage_expand(b->p, &b->p->stages[0], &options, &b->graph));
  must(device_open("cpu", 2, &b->device, NULL));
  must(parameters_create(b->graph.g, b->device, &b->parameters));
  /* Besides the losses, the logits and the four levels are read. */
  const graph_name *out = stage_graph_find(&b->graph, "net.out");
  const graph_name *levels = stage_graph_find(&b->graph, "net.levels");
  assert_non_null(out);
  assert_int_equal(levels->count, 4);
  int count = b->graph.keep_count;
  b->keep = calloc((size_t)count + 5, sizeof *b->keep);
  memcpy(b->keep, b->graph.keep, (size_t)count * sizeof *b->keep);
  b->keep[count++] = out->values[0];
  for (int i = 0; i < 4; i++) b->keep[count++] = levels->values[i];
  optimizer_use optimizer = {.op = b->p->stages[0].optimizer.op,
                             .attrs = b->p->stages[0].optimizer.attrs};
  must(program_create(b->graph.g, b->device, &b->parameters, b->keep, count, c->batch, &optimizer,
                      &b->program));
}

static void close_golden(built *b) {
  program_free(&b->program);
  parameters_free(&b->parameters);
  stage_graph_free(&b->graph);
  device_close(b->device);
  pipeline_free(b->p);
  free(b->keep);
}

/* Element i of an (N, X, Y, Z, C) tensor, i counted in PyTorch's N C X Y Z order. */
static float torch_element(const tensor *t, int64_t i) {
  const int64_t *d = t->shape.dim;
  int64_t voxels = d[1] * d[2] * d[3], v = i % voxels, c = i / voxels % d[4], n = i / voxels / d[4];
  return ((const float *)t->data)[(n * voxels + v) * d[4] + c];
}

static void load_inputs(const golden *c, built *b, const weights *expected) {
  const named_tensor *image = weights_find(expected, "image");
  assert_non_null(image);
  int64_t voxels = c->size[0] * c->size[1] * c->size[2];
  const float *from = image->tensor.data;
  float *to = program_data(&b->program, b->graph.image);
  int32_t *label = program_data(&b->program, b->graph.label);
  for (int64_t n = 0; n < c->batch; n++)
    for (int64_t v = 0; v < voxels; v++) {
      for (int64_t k = 0; k < c->channels; k++)
        to[(n * voxels + v) * c->channels + k] = from[(n * c->channels + k) * voxels + v];
      double first = (double)from[n * c->channels * voxels + v];
      label[n * voxels + v] = (first >= c->thresholds[0]) + (first >= c->thresholds[1]);
    }
}

static void load_weights_from(const char *path, built *b) {
  weights w;
  must(weights_read(path, &w));
  assert_int_equal(w.count, b->parameters.count);
  for (int i = 0; i < w.count; i++) {
    const parameter *p = parameters_find(&b->parameters, w.list[i].name);
    if (!p) fail_msg("MONAI has %s, the YAML has not", w.list[i].name);
    if (!shape_equal(&p->shape, &w.list[i].tensor.shape)) fail_msg("shape of %s", p->name);
    memcpy(b->parameters.data + p->offset, w.list[i].tensor.data, tensor_bytes(&w.list[i].tensor));
  }
  weights_close(&w);
}

static void load_weights(const golden *c, built *b) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s/weights.safetensors", FIXTURES, c->folder);
  load_weights_from(path, b);
}

/* Largest difference over a list, relative to the largest expected magnitude. */
typedef struct gap {
  double difference, size;
} gap;

static void gap_add(gap *g, double got, double expected) {
  g->difference = fmax(g->difference, fabs(got - expected));
  g->size = fmax(g->size, fabs(expected));
}

/* A sample: the norm, then every s-th element (unetr/README.md). */
static void compare_sample(gap *g, const tensor *sample, int64_t n,
                           float (*element)(const void *, int64_t), const void *context) {
  const float *expected = sample->data;
  double norm = 0;
  for (int64_t i = 0; i < n; i++) norm += (double)element(context, i) * (double)element(context, i);
  gap_add(g, sqrt(norm), (double)expected[0]);
  int64_t stride = n / 16 > 1 ? n / 16 : 1;
  for (int64_t k = 1; k < shape_elements(&sample->shape); k++)
    gap_add(g, (double)element(context, (k - 1) * stride), (double)expected[k]);
}

static float flat_element(const void *context, int64_t i) {
  return ((const float *)context)[i];
}

static float grid_element(const void *context, int64_t i) {
  return torch_element(context, i);
}

static tensor kept_tensor(built *b, value_id v) {
  tensor t = b->graph.g->values[v].type;
  t.data = program_data(&b->program, v);
  return t;
}

static void check_outputs(built *b, const weights *expected, double tolerance) {
  tensor out = kept_tensor(b, stage_graph_find(&b->graph, "net.out")->values[0]);
  const tensor *want = &weights_find(expected, "out")->tensor;
  gap logits = {0};
  for (int64_t i = 0; i < shape_elements(&want->shape); i++)
    gap_add(&logits, (double)torch_element(&out, i * 13), (double)((const float *)want->data)[i]);
  print_message("logits: %.2g of the largest\n", logits.difference / logits.size);
  assert_true(logits.difference <= tolerance * logits.size);
  for (int k = 0; k < 4; k++) {
    char name[16];
    snprintf(name, sizeof name, "levels.%d", k);
    tensor level = kept_tensor(b, stage_graph_find(&b->graph, "net.levels")->values[k]);
    gap g = {0};
    compare_sample(&g, &weights_find(expected, name)->tensor, shape_elements(&level.shape),
                   grid_element, &level);
    assert_true(g.difference <= tolerance * g.size);
  }
  float loss;
  must(program_read(&b->program, b->graph.loss, &loss));
  double total = (double)((const float *)weights_find(expected, "losses")->tensor.data)[0];
  print_message("loss: %.7g, MONAI %.7g\n", (double)loss, total);
  assert_true(fabs((double)loss - total) <= tolerance * total);
}

static void check_gradients(const golden *c, built *b) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s/gradients.safetensors", FIXTURES, c->folder);
  weights w;
  must(weights_read(path, &w));
  double largest = 0, worst = 0;
  for (int i = 0; i < w.count; i++)
    largest = fmax(largest, (double)((const float *)w.list[i].tensor.data)[0]);
  for (int i = 0; i < w.count; i++) {
    const parameter *p = parameters_find(&b->parameters, w.list[i].name);
    assert_non_null(p);
    gap g = {0};
    compare_sample(&g, &w.list[i].tensor, shape_elements(&p->shape), flat_element,
                   b->program.gradients + p->offset);
    /* One gradient is zero but for an epsilon: measured against the network's largest too. */
    double relative = g.difference / fmax(g.size, 1e-3 * largest);
    if (relative > worst) worst = relative;
    if (relative > 1e-4) fail_msg("gradient of %s: relative error %.3g", p->name, relative);
  }
  print_message("gradients of %d parameters: worst relative error %.2g\n", w.count, worst);
  weights_close(&w);
}

/* A training step on the fixture's weights and inputs. */
static void run_golden(const golden *c, const char *precision, built *b, weights *expected) {
  open_golden(c, precision, b);
  char path[512];
  snprintf(path, sizeof path, "%s/%s/expected.safetensors", FIXTURES, c->folder);
  must(weights_read(path, expected));
  load_weights(c, b);
  load_inputs(c, b, expected);
  must(program_run(&b->program));
}

static void compare(const golden *c) {
  built b = {0};
  weights expected;
  run_golden(c, "f32", &b, &expected);
  check_outputs(&b, &expected, 1e-4);
  check_gradients(c, &b);
  weights_close(&expected);
  close_golden(&b);
}

/* Gradients in bf16 are test_networks'. */
static void compare_bf16(const golden *c) {
  built b = {0};
  weights expected;
  run_golden(c, "bf16", &b, &expected);
  check_outputs(&b, &expected, 3e-2);
  weights_close(&expected);
  close_golden(&b);
}

static void residual_unetr_equals_monai(void **state) {
  (void)state;
  compare(&residual);
}

static void plain_unetr_with_convolution_embedding_equals_monai(void **state) {
  (void)state;
  compare(&plain);
}

static void in_bf16_unetr_is_near_monai(void **state) {
  (void)state;
  compare_bf16(&residual);
  compare_bf16(&plain);
}

static void expand_size(const char *with, const int64_t size[3], int64_t classes, bool training,
                        built *b) {
  b->p = load_pipeline(with, "f32");
  expand_options options = {.batch = 1,
                            .size = {size[0], size[1], size[2]},
                            .channels = 1,
                            .classes = classes,
                            .training = training};
  must(stage_expand(b->p, &b->p->stages[0], &options, &b->graph));
}

/* The published network itself, 96³ voxels and 92.8 million parameters. The fixture is too large to
 * ship: `make_unetr.py --full FOLDER` makes it, and STRATA_UNETR_FULL=FOLDER names it. */
static void published_forward_equals_monai(void **state) {
  (void)state;
  const char *folder = getenv("STRATA_UNETR_FULL");
  if (!folder) skip();
  char path[512];
  built b = {.p = load_pipeline("{}", "f32")};
  expand_options options = {
      .batch = 1, .size = {96, 96, 96}, .channels = 1, .classes = 14, .only = "net.out"};
  must(stage_expand(b.p, &b.p->stages[0], &options, &b.graph));
  must(device_open("cpu", 0, &b.device, NULL));
  must(parameters_create(b.graph.g, b.device, &b.parameters));
  must(program_create(b.graph.g, b.device, &b.parameters, b.graph.keep, b.graph.keep_count, 1, NULL,
                      &b.program));
  snprintf(path, sizeof path, "%s/weights.safetensors", folder);
  load_weights_from(path, &b);
  weights expected;
  snprintf(path, sizeof path, "%s/expected.safetensors", folder);
  must(weights_read(path, &expected));
  must(program_write(&b.program, b.graph.image, weights_find(&expected, "image")->tensor.data));
  must(program_run(&b.program));
  tensor out = kept_tensor(&b, b.graph.keep[0]);
  const tensor *want = &weights_find(&expected, "out")->tensor;
  gap logits = {0};
  for (int64_t i = 0; i < shape_elements(&want->shape); i++)
    gap_add(&logits, (double)torch_element(&out, i), (double)((const float *)want->data)[i]);
  print_message("96^3 logits: %.2g of the largest\n", logits.difference / logits.size);
  assert_true(logits.difference <= 1e-4 * logits.size);
  weights_close(&expected);
  close_golden(&b);
}

static void published_size_has_monais_parameters(void **state) {
  (void)state;
  built b = {0};
  expand_size("{}", (int64_t[]){96, 96, 96}, 14, false, &b);
  assert_int_equal(graph_param_elements(b.graph.g), 92784046);
  char *text;
  size_t length;
  must(file_read(FIXTURES "/parameters.json", 1 << 20, &text, &length));
  json_t *root = json_loadb(text, length, 0, NULL);
  const json_t *list = json_object_get(json_object_get(root, "published"), "parameters");
  size_t count = 0;
  for (int v = 0; v < b.graph.g->value_count; v++) {
    const value *p = &b.graph.g->values[v];
    if (p->kind != VALUE_PARAM) continue;
    const json_t *dims = json_object_get(list, p->name);
    if (!dims) fail_msg("MONAI has no %s", p->name);
    assert_int_equal(json_array_size(dims), p->type.shape.rank);
    for (int i = 0; i < p->type.shape.rank; i++)
      assert_int_equal(json_integer_value(json_array_get(dims, (size_t)i)), p->type.shape.dim[i]);
    count++;
  }
  assert_int_equal(count, json_object_size(list));
  json_decref(root);
  free(text);
  stage_graph_free(&b.graph);
  pipeline_free(b.p);
}

/* Mean and spread of every fresh parameter agree with a fresh MONAI network's, within what chance
 * allows for so many numbers; the extremes stay within the distribution's. */
static void fresh_weights_are_distributed_as_monais(void **state) {
  (void)state;
  built b = {0};
  expand_size("{features: 16, hidden: 192, mlp: 768, heads: 4}", (int64_t[]){48, 64, 48}, 3, true,
              &b);
  must(device_open("cpu", 1, &b.device, NULL));
  must(parameters_create(b.graph.g, b.device, &b.parameters));
  must(parameters_initialize(&b.parameters, 1));
  weights w;
  must(weights_read(FIXTURES "/initial.safetensors", &w));
  for (int i = 0; i < b.parameters.count; i++) {
    const parameter *p = &b.parameters.list[i];
    const named_tensor *t = weights_find(&w, p->name);
    assert_non_null(t);
    const float *want = t->tensor.data, *x = b.parameters.data + p->offset;
    int64_t n = shape_elements(&p->shape);
    double mean = 0, variance = 0, low = INFINITY, high = -INFINITY;
    for (int64_t k = 0; k < n; k++) {
      mean += (double)x[k] / (double)n;
      low = fmin(low, (double)x[k]);
      high = fmax(high, (double)x[k]);
    }
    for (int64_t k = 0; k < n; k++)
      variance += ((double)x[k] - mean) * ((double)x[k] - mean) / (double)n;
    double sd = sqrt(variance), expected_sd = (double)want[1];
    if (expected_sd == 0) {
      if (sd > 1e-6 || fabs(mean - (double)want[0]) > 1e-6)
        fail_msg("%s should be constant", p->name);
      continue;
    }
    double chance = 8 / sqrt((double)n);
    if (n >= 64 && (fabs(sd / expected_sd - 1) > chance ||
                    fabs(mean - (double)want[0]) > chance * expected_sd))
      fail_msg("%s: mean %.3g sd %.3g, MONAI %.3g %.3g", p->name, mean, sd, (double)want[0],
               expected_sd);
    double reach = fmax(fabs((double)want[2]), fabs((double)want[3]));
    if (n >= 64 && fmax(fabs(low), fabs(high)) > 1.6 * reach)
      fail_msg("%s reaches %.3g, MONAI %.3g", p->name, fmax(fabs(low), fabs(high)), reach);
  }
  weights_close(&w);
  parameters_free(&b.parameters);
  device_close(b.device);
  stage_graph_free(&b.graph);
  pipeline_free(b.p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(residual_unetr_equals_monai),
      cmocka_unit_test(plain_unetr_with_convolution_embedding_equals_monai),
      cmocka_unit_test(in_bf16_unetr_is_near_monai),
      cmocka_unit_test(published_forward_equals_monai),
      cmocka_unit_test(published_size_has_monais_parameters),
      cmocka_unit_test(fresh_weights_are_distributed_as_monais),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
