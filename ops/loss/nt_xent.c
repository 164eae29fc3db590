/* nt_xent: normalized temperature-scaled cross-entropy between two views of each sample (Chen et
 * al., "A simple framework for contrastive learning of visual representations", ICML 2020).
 *
 * The 2N embeddings z, a's before b's, have length 1, and s[i][k] = z[i] · z[k] / temperature. Row
 * i is a classification of its partner i ± N among the 2N − 1 others:
 *   loss = 1/2N Σ_i (log Σ_{k ≠ i} e^s[i][k] − s[i][partner(i)])
 * With P the softmax of the rows (0 on the diagonal) and G = (P − partner) / 2N, the gradient of
 * z[i] is Σ_k (G[i][k] + G[k][i]) z[k] / temperature, and that of x[i] = |x[i]| z[i] its part
 * across z[i], divided by |x[i]|. */
#include "ops/arithmetic/vector_math.h"
#include "ops/shape/view.h"

#include <math.h>

typedef struct nt_xent_attrs {
  double temperature;
} nt_xent_attrs;

static const attr nt_xent_attr_list[] = {
    {"temperature", ATTR_FLOAT, offsetof(nt_xent_attrs, temperature), "0.1", 1e-3, 100, NULL,
     ATTR_SCHEDULABLE, "divides the cosines; the smaller, the more the nearest negatives count"},
    {0},
};

enum { IN_A, IN_B };
enum { OUT_LOSS, OUT_ACCURACY, OUT_UNIT, OUT_NORM, OUT_SOFTMAX };
enum { BACK_UNIT, BACK_NORM, BACK_SOFTMAX, BACK_DY };

/* As torch.nn.functional.normalize. */
static const double LEAST_NORM = 1e-12;

static status nt_xent_infer(infer *rule) {
  const shape *a = &rule->in[IN_A].shape, *b = &rule->in[IN_B].shape;
  char first[96], second[96];
  if (a->rank < 2 || !shape_equal(a, b))
    return shape_error("the two views must have embeddings of one shape (N × D), but are %s and %s",
                       shape_format(first, a), shape_format(second, b));
  if (rule->training && a->dim[0] < 2)
    return shape_error("the other samples of the batch are what a sample is told apart from, but "
                       "there are none; set the stage's \"batch\" to 2 or more");
  int64_t views = 2 * a->dim[0];
  rule->out[OUT_LOSS].shape = rule->out[OUT_ACCURACY].shape = (shape){.rank = 0};
  rule->out[OUT_UNIT].shape = SHAPE(views, shape_elements(a) / a->dim[0]);
  rule->out[OUT_NORM].shape = SHAPE(views);
  rule->out[OUT_SOFTMAX].shape = SHAPE(views, views);
  return OK;
}

static status nt_xent_grad(grad *rule) {
  if (rule->dy[OUT_LOSS] == VALUE_NONE) return OK;
  value_id in[] = {rule->out[OUT_UNIT], rule->out[OUT_NORM], rule->out[OUT_SOFTMAX],
                   rule->dy[OUT_LOSS]};
  value_id out[2];
  shape a = value_type(rule->b, rule->in[IN_A])->shape;
  TRY(build_node(rule->b, "nt_xent_backward", rule->attrs, in, 4, out));
  for (int i = 0; i < 2; i++) {
    if (!rule->wanted[i]) continue;
    if (a.rank == 2)
      rule->dx[i] = out[i];
    else
      TRY(build_view(rule->b, out[i], a, &rule->dx[i]));
  }
  return OK;
}

static cost nt_xent_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return (cost){.flops = 8 * (double)in[0].shape.dim[0] * (double)shape_elements(&in[0].shape)};
}

typedef struct row_result {
  double loss, hit;
} row_result;

static size_t nt_xent_workspace(const void *attrs, const tensor *in, int in_count,
                                const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)out, (void)threads;
  return (size_t)(2 * in[IN_A].shape.dim[0]) * sizeof(row_result);
}

FOR_EACH_ISA static double dot(const float *x, const float *y, int64_t count) {
  float lanes[LANES] = {0};
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int l = 0; l < LANES; l++) lanes[l] += x[i + l] * y[i + l];
  for (int l = 0; i < count; i++, l++) lanes[l] += x[i] * y[i];
  return lanes_total(lanes);
}

FOR_EACH_ISA static void add_scaled(float *restrict y, const float *restrict x, float factor,
                                    int64_t count) {
  for (int64_t i = 0; i < count; i++) y[i] += factor * x[i];
}

static void unit_task(void *context, int64_t i) {
  const call *c = context;
  int64_t samples = c->in[IN_A].shape.dim[0], width = c->out[OUT_UNIT].shape.dim[1];
  const float *x = (const float *)c->in[i < samples ? IN_A : IN_B].data + i % samples * width;
  float *unit = (float *)c->out[OUT_UNIT].data + i * width;
  double norm = sqrt(dot(x, x, width));
  float factor = (float)(1 / fmax(norm, LEAST_NORM));
  for (int64_t k = 0; k < width; k++) unit[k] = x[k] * factor;
  ((float *)c->out[OUT_NORM].data)[i] = (float)norm;
}

static void row_task(void *context, int64_t i) {
  const call *c = context;
  double temperature = ((const nt_xent_attrs *)c->attrs)->temperature;
  int64_t samples = c->in[IN_A].shape.dim[0], views = 2 * samples;
  int64_t width = c->out[OUT_UNIT].shape.dim[1], partner = (i + samples) % views, best = -1;
  const float *unit = c->out[OUT_UNIT].data;
  float *row = (float *)c->out[OUT_SOFTMAX].data + i * views;
  for (int64_t k = 0; k < views; k++) {
    row[k] = k == i ? 0 : (float)(dot(unit + i * width, unit + k * width, width) / temperature);
    if (k != i && (best < 0 || row[k] > row[best])) best = k;
  }
  double total = 0, largest = (double)row[best], own = (double)row[partner] - largest;
  for (int64_t k = 0; k < views; k++)
    if (k != i) total += exp((double)row[k] - largest);
  for (int64_t k = 0; k < views; k++)
    row[k] = k == i ? 0 : (float)(exp((double)row[k] - largest) / total);
  ((row_result *)c->workspace)[i] = (row_result){log(total) - own, best == partner};
}

static status nt_xent_cpu(const call *c) {
  int64_t views = 2 * c->in[IN_A].shape.dim[0];
  parallel_for(c->pool, views, unit_task, (void *)c);
  parallel_for(c->pool, views, row_task, (void *)c);
  double loss = 0, hits = 0;
  for (int64_t i = 0; i < views; i++) {
    loss += ((const row_result *)c->workspace)[i].loss;
    hits += ((const row_result *)c->workspace)[i].hit;
  }
  *(float *)c->out[OUT_LOSS].data = (float)(loss / (double)views);
  *(float *)c->out[OUT_ACCURACY].data = (float)(hits / (double)views);
  return OK;
}

static status nt_xent_backward_infer(infer *rule) {
  const shape *unit = &rule->in[BACK_UNIT].shape;
  rule->out[0].shape = rule->out[1].shape = SHAPE(unit->dim[0] / 2, unit->dim[1]);
  return OK;
}

static void backward_task(void *context, int64_t i) {
  const call *c = context;
  double temperature = ((const nt_xent_attrs *)c->attrs)->temperature;
  int64_t views = c->in[BACK_UNIT].shape.dim[0], width = c->in[BACK_UNIT].shape.dim[1];
  int64_t samples = views / 2, partner = (i + samples) % views;
  const float *unit = c->in[BACK_UNIT].data, *softmax = c->in[BACK_SOFTMAX].data;
  double norm = (double)((const float *)c->in[BACK_NORM].data)[i];
  double scale = (double)*(const float *)c->in[BACK_DY].data / ((double)views * temperature);
  float *dx = (float *)c->out[i < samples ? IN_A : IN_B].data + i % samples * width;
  for (int64_t k = 0; k < width; k++) dx[k] = 0;
  for (int64_t k = 0; k < views; k++) {
    double weight = (double)softmax[i * views + k] + (double)softmax[k * views + i];
    add_scaled(dx, unit + k * width, (float)(scale * (weight - (k == partner ? 2 : 0))), width);
  }
  const float *own = unit + i * width;
  if (norm > LEAST_NORM) add_scaled(dx, own, (float)-dot(dx, own, width), width);
  float factor = (float)(1 / fmax(norm, LEAST_NORM));
  for (int64_t k = 0; k < width; k++) dx[k] *= factor;
}

static status nt_xent_backward_cpu(const call *c) {
  parallel_for(c->pool, c->in[BACK_UNIT].shape.dim[0], backward_task, (void *)c);
  return OK;
}

const op op_nt_xent = {
    .name = "nt_xent",
    .family = "loss",
    .summary = "Contrastive loss between two views of each sample.",
    .doc = "Embeddings are scaled to length 1. For each of the 2N views, the cosine to its partner "
           "is the logit of the true class and the cosines to the 2N − 2 others are those of the "
           "wrong ones, all divided by the temperature; loss is the mean cross-entropy (NT-Xent; "
           "Chen et al., ICML 2020). `accuracy` is the share of views whose partner is nearest; "
           "1 / (2N − 1) is chance.",
    .torch =
        "z = F.normalize(torch.cat([a, b])); s = (z @ z.T / temperature).fill_diagonal_(-inf); "
        "F.cross_entropy(s, (torch.arange(2 * N) + N) % (2 * N))",
    .version = 2,
    .traits = OP_LOSS | OP_ACROSS_SAMPLES,
    .inputs = (const port[]){{"a", "N …", DTYPE_F32, 0, "embeddings of the first views"},
                             {"b", "N …", DTYPE_F32, 0, "embeddings of the second views"},
                             {0}},
    .outputs =
        (const port[]){
            {"loss", "scalar", DTYPE_F32, 0, "mean cross-entropy"},
            {"accuracy", "scalar", DTYPE_F32, 0, "share of views that find their partner"},
            {"unit", "2N D", DTYPE_F32, PORT_SAVED, "embeddings of length 1"},
            {"norm", "2N", DTYPE_F32, PORT_SAVED, "length they had"},
            {"softmax", "2N 2N", DTYPE_F32, PORT_SAVED, "probability of each partner"},
            {0}},
    .attrs = nt_xent_attr_list,
    .attrs_bytes = sizeof(nt_xent_attrs),
    .infer = nt_xent_infer,
    .grad = nt_xent_grad,
    .cost = nt_xent_cost,
    .workspace_bytes = nt_xent_workspace,
    .cpu = nt_xent_cpu,
    .cases = (const op_case[]){{"{temperature: 0.5}", "[n=2..5, d=2..9]; [n, d]", 0},
                               {"{temperature: 0.3}", "[3, 1, d=30..70]; [3, 1, d]", 0},
                               {0}},
};

const op op_nt_xent_backward = {
    .name = "nt_xent_backward",
    .family = "loss",
    .summary = "Gradient of nt_xent.",
    .version = 2,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"unit", "2N D", DTYPE_F32, 0, "saved embeddings of length 1"},
                             {"norm", "2N", DTYPE_F32, 0, "saved lengths"},
                             {"softmax", "2N 2N", DTYPE_F32, 0, "saved probabilities"},
                             {"dy", "scalar", DTYPE_F32, 0, "gradient of the loss"},
                             {0}},
    .outputs = (const port[]){{"da", "N D", DTYPE_F32, 0, "gradient of the first views"},
                              {"db", "N D", DTYPE_F32, 0, "gradient of the second views"},
                              {0}},
    .attrs = nt_xent_attr_list,
    .attrs_bytes = sizeof(nt_xent_attrs),
    .infer = nt_xent_backward_infer,
    .cost = nt_xent_cost,
    .cpu = nt_xent_backward_cpu,
};
