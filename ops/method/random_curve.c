/* random_curve: sends the intensities of each volume through a random monotone curve (Models
 * Genesis, Zhou et al., MICCAI 2019, arXiv 1908.06912: non-linear transformation).
 *
 * The curve is a cubic Bézier curve from (0, 0) to (1, 1) whose inner control points are uniform in
 * the unit square. Both its coordinates then never decrease: 3(1−t)²a + 6t(1−t)(b−a) + 3t²(1−b) is
 * linear in a and b, and at the corners of the square it is 3t², 6t(1−t), 3(1−t)² and 3(1−2t)². So
 * it is a function, here tabulated and interpolated. */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/vector_math.h"

#include <string.h>

typedef struct random_curve_attrs {
  double probability, invert;
  double range[2];
} random_curve_attrs;

enum { STEPS = 1024, BISECTIONS = 40 };

typedef struct curve {
  float applies; /* 0: the sample stays as it is */
  float y[STEPS + 1];
} curve;

static status random_curve_infer(infer *rule) {
  const random_curve_attrs *attrs = rule->attrs;
  if (rule->in[0].shape.rank < 2) return shape_error("image must have samples as its first axis");
  if (!(attrs->range[0] < attrs->range[1]))
    return shape_error("range must be [lowest, highest] intensity with lowest < highest");
  return infer_same_shape(rule);
}

static cost random_curve_cost(const void *attrs, const tensor *in, int in_count,
                              const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 6);
}

static size_t random_curve_workspace(const void *attrs, const tensor *in, int in_count,
                                     const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)out, (void)threads;
  return (size_t)in[0].shape.dim[0] * sizeof(curve);
}

static double bezier(double a, double b, double t) {
  double s = 1 - t;
  return 3 * s * s * t * a + 3 * s * t * t * b + t * t * t;
}

static void draw_task(void *context, int64_t n) {
  const call *c = context;
  const random_curve_attrs *attrs = c->attrs;
  curve *out = (curve *)c->workspace + n;
  rng stream = rng_open(c->rng_keys[n], c->node_id);
  out->applies = (double)rng_uniform(&stream) < attrs->probability;
  double ax = rng_range(&stream, 0, 1), ay = rng_range(&stream, 0, 1);
  double bx = rng_range(&stream, 0, 1), by = rng_range(&stream, 0, 1);
  bool invert = (double)rng_uniform(&stream) < attrs->invert;
  for (int k = 0; k <= STEPS; k++) {
    double x = (double)k / STEPS, low = 0, high = 1;
    for (int i = 0; i < BISECTIONS; i++) {
      double t = (low + high) / 2;
      if (bezier(ax, bx, t) < x)
        low = t;
      else
        high = t;
    }
    double y = k == STEPS ? 1 : bezier(ay, by, k == 0 ? 0 : high);
    out->y[invert ? STEPS - k : k] = (float)y;
  }
}

/* x and y may be the same memory. What lies outside of the range takes the value of its end. */
FOR_EACH_ISA static void look_up(float *y, const float *x, const float *table, float low,
                                 float width, int64_t count) {
  float factor = (float)STEPS / width;
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) {
    float at = (x[i] - low) * factor;
    at = at > 0.0f ? at : 0.0f;
    at = at < (float)STEPS ? at : (float)STEPS;
    int32_t k = (int32_t)at;
    k = k < STEPS ? k : STEPS - 1;
    y[i] = low + width * (table[k] + (at - (float)k) * (table[k + 1] - table[k]));
  }
}

static void curve_task(void *context, int64_t task) {
  const call *c = context;
  const random_curve_attrs *attrs = c->attrs;
  int64_t length = shape_elements(&c->in[0].shape) / c->in[0].shape.dim[0];
  int64_t chunks = chunk_count(length), n = task / chunks;
  span part = chunk_of(length, task % chunks);
  const curve *own = (const curve *)c->workspace + n;
  const float *x = (const float *)c->in[0].data + n * length + part.first;
  float *y = (float *)c->out[0].data + n * length + part.first;
  if (own->applies != 0)
    look_up(y, x, own->y, (float)attrs->range[0], (float)(attrs->range[1] - attrs->range[0]),
            part.count);
  else if (y != x)
    copy_row(y, x, part.count);
}

static status random_curve_cpu(const call *c) {
  int64_t samples = c->in[0].shape.dim[0];
  parallel_for(c->pool, samples, draw_task, (void *)c);
  parallel_for(c->pool, samples * chunk_count(shape_elements(&c->in[0].shape) / samples),
               curve_task, (void *)c);
  return OK;
}

const op op_random_curve = {
    .name = "random_curve",
    .family = "method",
    .summary = "Sends the intensities of each volume through a random monotone curve.",
    .doc = "The curve is a cubic Bézier curve from (0, 0) to (1, 1) with two inner control points "
           "uniform in the unit square, drawn for each sample and stretched to `range`; it never "
           "decreases. With probability `invert` it is read backwards, so that bright becomes "
           "dark. Intensities outside of the range take the value of its end. Restoring the "
           "volume teaches appearance (Models Genesis, Zhou et al., arXiv 1908.06912, whose "
           "probabilities are the defaults).",
    .version = 1,
    .traits = OP_IN_PLACE | OP_RANDOM,
    .inputs = (const port[]){{"image", "N …", DTYPE_F32, 0, "volumes"}, {0}},
    .outputs = (const port[]){{"out", "as image", DTYPE_F32, 0, "volumes of other contrast"}, {0}},
    .attrs =
        (const attr[]){{"probability", ATTR_FLOAT, offsetof(random_curve_attrs, probability), "0.9",
                        0, 1, NULL, ATTR_SCHEDULABLE, "share of the samples changed"},
                       {"invert", ATTR_FLOAT, offsetof(random_curve_attrs, invert), "0.5", 0, 1,
                        NULL, ATTR_SCHEDULABLE, "share of the changed samples that are inverted"},
                       {"range", ATTR_RANGE, offsetof(random_curve_attrs, range), "[0, 1]", 0, 0,
                        NULL, 0, "lowest and highest intensity of the curve"},
                       {0}},
    .attrs_bytes = sizeof(random_curve_attrs),
    .infer = random_curve_infer,
    .cost = random_curve_cost,
    .workspace_bytes = random_curve_workspace,
    .cpu = random_curve_cpu,
    .cases =
        (const op_case[]){{"{probability: 0.8, range: [-2, 3]}", "[1..4, 2..5, 3, 4, 1..3]", 0},
                          {0}},
};
