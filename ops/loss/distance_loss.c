#include "ops/loss/distance_loss.h"

#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"
#include "ops/kernels/distance_transform.h"
#include "ops/loss/segmentation.h"

#include <math.h>

extern const op op_hausdorff_error, op_boundary_error;

enum { IN_P, IN_TARGET };
enum { OUT_LOSS, OUT_MAP };
enum { BACK_P, BACK_TARGET, BACK_MAP, BACK_DY };

status distance_loss_lower(lower *rule, const char *error_op) {
  value_id p, out[2];
  const shape *logits = &value_type(rule->b, rule->in[0])->shape;
  char have[96];
  if (logits->rank != 5)
    return shape_error("distances need volumes (N × X × Y × Z × C), but the logits are %s",
                       shape_format(have, logits));
  TRY(build_node(rule->b, "softmax", NULL, rule->in, 1, &p));
  value_id in[] = {p, rule->in[1]};
  TRY(build_node(rule->b, error_op, rule->attrs, in, 2, out));
  rule->out[OUT_LOSS] = out[OUT_LOSS];
  return OK;
}

bool distance_loss_is(const op *o) {
  return o == &op_hausdorff_error || o == &op_boundary_error;
}

status distance_loss_refuse(source_pos at) {
  return error_new(ERROR_DATA, at,
                   "the labels have voxels whose class is unknown (ignore_label), and distances to "
                   "the boundary of a structure that is known in part are not defined: take a loss "
                   "of overlaps and voxels, such as dice_ce, in place of boundary and "
                   "hausdorff_loss");
}

static status distance_error_infer(infer *rule) {
  TRY(segmentation_check(rule, NULL));
  rule->out[OUT_LOSS].shape = (shape){.rank = 0};
  rule->out[OUT_MAP].shape = rule->in[IN_P].shape;
  return OK;
}

static int64_t voxels_of(const tensor *p) {
  return p->shape.dim[1] * p->shape.dim[2] * p->shape.dim[3];
}

/* Terms over which the mean is taken. */
static double term_count(const distance_loss_attrs *attrs, const tensor *p) {
  double voxels = (double)(p->shape.dim[0] * voxels_of(p));
  return voxels * (double)(last_extent(p) - !attrs->include_background);
}

/* A task is a class of a sample: a plane of distances, the transform's lines, and its results. */
typedef struct task_result {
  double sum;
  int32_t bad_label;
  bool is_bad;
} task_result;

static size_t align(size_t bytes) {
  return (bytes + 63) & ~(size_t)63;
}

static size_t task_bytes(const tensor *p) {
  return align(sizeof(task_result)) + align((size_t)voxels_of(p) * sizeof(float)) +
         align(distance_transform_scratch(p->shape.dim + 1));
}

static size_t distance_error_workspace(const void *attrs, const tensor *in, int in_count,
                                       const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)out, (void)threads;
  return (size_t)(in[IN_P].shape.dim[0] * last_extent(&in[IN_P])) * task_bytes(&in[IN_P]);
}

static cost distance_error_cost(const void *attrs, const tensor *in, int in_count,
                                const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return (cost){.flops = 100.0 * (double)shape_elements(&in[IN_P].shape)};
}

typedef struct region_view { /* one class of one sample */
  const float *p;            /* strided by `classes`, as is the map */
  const int32_t *target;
  float *map, *plane;
  void *lines;
  int64_t voxels, classes, class;
  const int64_t *size;
} region_view;

static bool is_inside(const region_view *r, int64_t v, bool predicted) {
  return predicted ? r->p[v * r->classes] > 0.5f : r->target[v] == r->class;
}

/* Squared distances in voxels, in the plane: of the voxels on one side to the nearest on the
 * other. */
static void distances_of(const region_view *r, bool predicted, bool inside) {
  static const double voxel[3] = {1, 1, 1};
  for (int64_t v = 0; v < r->voxels; v++)
    r->plane[v] = is_inside(r, v, predicted) == inside ? INFINITY : 0.0f;
  distance_transform(r->plane, r->size, voxel, r->lines);
}

/* A region that is empty, or all there is, has no boundary. */
static bool has_boundary(const region_view *r, bool predicted) {
  int64_t inside = 0;
  for (int64_t v = 0; v < r->voxels; v++) inside += is_inside(r, v, predicted);
  return inside > 0 && inside < r->voxels;
}

/* Adds dᵅ, d the distance to the boundary of the predicted or the true region. */
static void add_distances(const region_view *r, bool predicted, double alpha) {
  if (!has_boundary(r, predicted)) return;
  for (int side = 0; side < 2; side++) {
    distances_of(r, predicted, side == 1);
    for (int64_t v = 0; v < r->voxels; v++) {
      if (r->plane[v] == 0.0f) continue;
      double d = alpha == 2 ? (double)r->plane[v] : pow((double)r->plane[v], alpha / 2);
      r->map[v * r->classes] += (float)d;
    }
  }
}

/* The signed distance to the true region: positive outside, and 0 in the voxels just inside. */
static void add_signed_distances(const region_view *r) {
  if (!has_boundary(r, false)) return;
  for (int side = 0; side < 2; side++) {
    distances_of(r, false, side == 1);
    for (int64_t v = 0; v < r->voxels; v++) {
      if (r->plane[v] == 0.0f) continue;
      float d = sqrtf(r->plane[v]);
      r->map[v * r->classes] = side == 1 ? 1.0f - d : d;
    }
  }
}

typedef struct job {
  const call *c;
  bool hausdorff;
} job;

static void error_task(void *context, int64_t task) {
  const job *j = context;
  const tensor *p = &j->c->in[IN_P];
  const distance_loss_attrs *attrs = j->c->attrs;
  int64_t classes = last_extent(p), voxels = voxels_of(p), sample = task / classes;
  char *memory = (char *)j->c->workspace + (size_t)task * task_bytes(p);
  task_result *result = (task_result *)memory;
  float *plane = (float *)(memory + align(sizeof *result));
  int64_t first = sample * voxels;
  region_view r = {.p = (const float *)p->data + first * classes + task % classes,
                   .target = (const int32_t *)j->c->in[IN_TARGET].data + first,
                   .map = (float *)j->c->out[OUT_MAP].data + first * classes + task % classes,
                   .plane = plane,
                   .lines = (char *)plane + align((size_t)voxels * sizeof *plane),
                   .voxels = voxels,
                   .classes = classes,
                   .class = task % classes,
                   .size = p->shape.dim + 1};
  *result = (task_result){0};
  for (int64_t v = 0; v < voxels; v++) {
    r.map[v * classes] = 0;
    if (r.target[v] >= 0 && r.target[v] < classes) continue;
    result->is_bad = true;
    result->bad_label = r.target[v];
  }
  if (r.class == 0 && !attrs->include_background) return;
  if (j->hausdorff) {
    add_distances(&r, true, attrs->alpha);
    add_distances(&r, false, attrs->alpha);
  } else {
    add_signed_distances(&r);
  }
  for (int64_t v = 0; v < voxels; v++) {
    double q = (double)r.p[v * classes], weight = (double)r.map[v * classes];
    double d = q - (r.target[v] == r.class);
    result->sum += weight * (j->hausdorff ? d * d : q);
  }
}

static status bad_target(int32_t target, int64_t classes) {
  return target == TARGET_UNKNOWN ? distance_loss_refuse(NOWHERE) : label_error(target, classes);
}

static status distance_error(const call *c, bool hausdorff) {
  job j = {c, hausdorff};
  const tensor *p = &c->in[IN_P];
  int64_t tasks = p->shape.dim[0] * last_extent(p);
  double sum = 0;
  parallel_for(c->pool, tasks, error_task, &j);
  for (int64_t k = 0; k < tasks; k++) {
    const task_result *r =
        (const task_result *)((const char *)c->workspace + (size_t)k * task_bytes(p));
    if (r->is_bad) return bad_target(r->bad_label, last_extent(p));
    sum += r->sum;
  }
  *(float *)c->out[OUT_LOSS].data = (float)(sum / term_count(c->attrs, p));
  return OK;
}

static status hausdorff_error_cpu(const call *c) {
  return distance_error(c, true);
}

static status boundary_error_cpu(const call *c) {
  return distance_error(c, false);
}

static status grad_of(grad *rule, const char *backward_op) {
  value_id in[] = {rule->in[IN_P], rule->in[IN_TARGET], rule->out[OUT_MAP], rule->dy[OUT_LOSS]};
  return rule->wanted[IN_P] ? build_node(rule->b, backward_op, rule->attrs, in, 4, &rule->dx[IN_P])
                            : OK;
}

static status hausdorff_error_grad(grad *rule) {
  return grad_of(rule, "hausdorff_error_backward");
}

static status boundary_error_grad(grad *rule) {
  return grad_of(rule, "boundary_error_backward");
}

static status distance_backward_infer(infer *rule) {
  rule->out[0].shape = rule->in[BACK_P].shape;
  return OK;
}

static cost distance_backward_cost(const void *attrs, const tensor *in, int in_count,
                                   const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return (cost){.flops = 4.0 * (double)shape_elements(&in[BACK_P].shape)};
}

static float backward_factor(const call *c) {
  return (float)((double)*(const float *)c->in[BACK_DY].data /
                 term_count(c->attrs, &c->in[BACK_P]));
}

/* The weights are 0 in classes that do not count. */
FOR_EACH_ISA static void square_rows(float *restrict dp, const float *restrict p,
                                     const float *restrict map, const int32_t *restrict target,
                                     float factor, int64_t rows, int64_t classes) {
  for (int64_t r = 0; r < rows; r++, dp += classes, p += classes, map += classes)
    for (int64_t c = 0; c < classes; c++)
      dp[c] = 2.0f * factor * map[c] * (p[c] - (target[r] == c ? 1.0f : 0.0f));
}

FOR_EACH_ISA static void linear_chunk(float *restrict dp, const float *restrict map, float factor,
                                      int64_t count) {
  for (int64_t i = 0; i < count; i++) dp[i] = factor * map[i];
}

static void hausdorff_backward_task(void *context, int64_t task) {
  const call *c = context;
  int64_t classes = last_extent(&c->in[BACK_P]);
  int64_t rows = shape_elements(&c->in[BACK_P].shape) / classes;
  span part = piece_of(rows, rows_per_task(classes), task);
  int64_t at = part.first * classes;
  square_rows((float *)c->out[0].data + at, (const float *)c->in[BACK_P].data + at,
              (const float *)c->in[BACK_MAP].data + at,
              (const int32_t *)c->in[BACK_TARGET].data + part.first, backward_factor(c), part.count,
              classes);
}

static status hausdorff_error_backward_cpu(const call *c) {
  int64_t classes = last_extent(&c->in[BACK_P]);
  int64_t rows = shape_elements(&c->in[BACK_P].shape) / classes;
  parallel_for(c->pool, divide_up(rows, rows_per_task(classes)), hausdorff_backward_task,
               (void *)c);
  return OK;
}

static void boundary_backward_task(void *context, int64_t task) {
  const call *c = context;
  span part = chunk_of(shape_elements(&c->in[BACK_P].shape), task);
  linear_chunk((float *)c->out[0].data + part.first,
               (const float *)c->in[BACK_MAP].data + part.first, backward_factor(c), part.count);
}

static status boundary_error_backward_cpu(const call *c) {
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[BACK_P].shape)), boundary_backward_task,
               (void *)c);
  return OK;
}

static const attr distance_loss_attr_list[] = {
    DISTANCE_BACKGROUND_ATTR,
    {"alpha", ATTR_FLOAT, offsetof(distance_loss_attrs, alpha), "2", 0.1, 10, NULL, 0,
     "exponent of the distances"},
    {0},
};

static const port error_inputs[] = {{"p", "N X Y Z C", DTYPE_F32, 0, "probabilities"},
                                    {"target", "N X Y Z", DTYPE_I32, 0, "class numbers"},
                                    {0}};
static const port error_outputs[] = {
    {"loss", "scalar", DTYPE_F32, 0, "mean of the weighted terms"},
    {"map", "N X Y Z C", DTYPE_F32, PORT_SAVED, "weights made of distances"},
    {0}};
static const port backward_inputs[] = {{"p", "N X Y Z C", DTYPE_F32, 0, "probabilities"},
                                       {"target", "N X Y Z", DTYPE_I32, 0, "class numbers"},
                                       {"map", "N X Y Z C", DTYPE_F32, 0, "saved weights"},
                                       {"dy", "scalar", DTYPE_F32, 0, "gradient of the loss"},
                                       {0}};
static const port backward_outputs[] = {
    {"dp", "N X Y Z C", DTYPE_F32, 0, "gradient of the probabilities"}, {0}};

const op op_hausdorff_error = {
    .name = "hausdorff_error",
    .family = "loss",
    .summary = "Squared errors of probabilities, weighted by distances to both boundaries.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = error_inputs,
    .outputs = error_outputs,
    .attrs = distance_loss_attr_list,
    .attrs_bytes = sizeof(distance_loss_attrs),
    .infer = distance_error_infer,
    .grad = hausdorff_error_grad,
    .cost = distance_error_cost,
    .workspace_bytes = distance_error_workspace,
    .cpu = hausdorff_error_cpu,
};

const op op_boundary_error = {
    .name = "boundary_error",
    .family = "loss",
    .summary = "Probabilities weighted by signed distances to the true boundary.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = error_inputs,
    .outputs = error_outputs,
    .attrs = distance_loss_attr_list,
    .attrs_bytes = sizeof(distance_loss_attrs),
    .infer = distance_error_infer,
    .grad = boundary_error_grad,
    .cost = distance_error_cost,
    .workspace_bytes = distance_error_workspace,
    .cpu = boundary_error_cpu,
};

const op op_hausdorff_error_backward = {
    .name = "hausdorff_error_backward",
    .family = "loss",
    .summary = "Gradient of hausdorff_error.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = backward_inputs,
    .outputs = backward_outputs,
    .attrs = distance_loss_attr_list,
    .attrs_bytes = sizeof(distance_loss_attrs),
    .infer = distance_backward_infer,
    .cost = distance_backward_cost,
    .cpu = hausdorff_error_backward_cpu,
};

const op op_boundary_error_backward = {
    .name = "boundary_error_backward",
    .family = "loss",
    .summary = "Gradient of boundary_error.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = backward_inputs,
    .outputs = backward_outputs,
    .attrs = distance_loss_attr_list,
    .attrs_bytes = sizeof(distance_loss_attrs),
    .infer = distance_backward_infer,
    .cost = distance_backward_cost,
    .cpu = boundary_error_backward_cpu,
};
