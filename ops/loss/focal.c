/* focal: cross-entropy in which voxels that are right already count little (Lin et al., arXiv
 * 1708.02002). */
#include "ops/loss/focal.h"

enum { OUT_LOSS, OUT_WEIGHT };
enum { BACK_LOGITS, BACK_TARGET, BACK_WEIGHT, BACK_DY };

static const attr focal_attr_list[] = {FOCAL_ATTRS(focal_attrs, ), {0}};

static segmentation_terms terms_of(const focal_attrs *attrs) {
  segmentation_terms t = {0};
  focal_terms(attrs, 1, &t);
  return t;
}

static status focal_infer(infer *rule) {
  segmentation_terms terms = terms_of(rule->attrs);
  return segmentation_check(rule, &terms);
}

static status focal_grad(grad *rule) {
  value_id in[] = {rule->in[0], rule->in[1], rule->out[OUT_WEIGHT], rule->dy[OUT_LOSS]};
  return rule->wanted[0] ? build_node(rule->b, "focal_backward", rule->attrs, in, 4, &rule->dx[0])
                         : OK;
}

static status focal_cpu(const call *c) {
  segmentation_terms terms = terms_of(c->attrs);
  segmentation_result result;
  TRY(segmentation_forward(c, &terms, NULL, &result));
  *(float *)c->out[OUT_LOSS].data = (float)result.cross_entropy;
  *(float *)c->out[OUT_WEIGHT].data = (float)result.weight;
  return OK;
}

static status focal_backward_cpu(const call *c) {
  segmentation_terms terms = terms_of(c->attrs);
  segmentation_backward(c, &terms, NULL, (double)*(const float *)c->in[BACK_WEIGHT].data,
                        (double)*(const float *)c->in[BACK_DY].data, c->out[0].data);
  return OK;
}

const op op_focal = {
    .name = "focal",
    .family = "loss",
    .summary = "Focal loss: cross-entropy of what is still wrong.",
    .doc =
        "loss = mean over voxels and classes of −w · (1 − q)^gamma · log q. With sigmoid, q is "
        "σ(x) within the class's region and 1 − σ(x) outside; with softmax, q is the "
        "probability of the true class and the other classes add 0 to the mean. w: "
        "class_weights and alpha. Without include_background the terms of class 0 are left out "
        "(Lin et al., arXiv 1708.02002). With sets of regions as the target, each channel has the "
        "sigmoid's term of its own region.",
    .torch =
        "monai.losses.FocalLoss(to_onehot_y=True, use_softmax=not sigmoid, gamma=gamma, "
        "alpha=None if alpha < 0 else alpha, weight=class_weights or None)"
        "(logits.movedim(-1, 1), target.unsqueeze(1)); for sets of regions without to_onehot_y",
    .version = 2,
    .traits = OP_LOSS,
    .inputs = (const port[]){SEGMENTATION_LOGITS, SEGMENTATION_TARGET, {0}},
    .outputs = (const port[]){{"loss", "scalar", DTYPE_F32, 0, "mean focal loss"},
                              SEGMENTATION_COUNT(PORT_SAVED),
                              {0}},
    .attrs = focal_attr_list,
    .attrs_bytes = sizeof(focal_attrs),
    .infer = focal_infer,
    .grad = focal_grad,
    .cost = segmentation_cost,
    .workspace_bytes = segmentation_workspace,
    .cpu = focal_cpu,
    .cases =
        (const op_case[]){
            {"{sigmoid: true|false}", "[n=1..2, x=1..4, y=1..4, z=1..5, 3]; [n, x, y, z] in 0..2",
             0},
            {"{sigmoid: true|false, gamma: 0|0.5|1|3, alpha: 0.25, include_background: false}",
             "[n=1..3, v=20..99, 4]; [n, v] in 0..3", 0},
            {"{sigmoid: true|false, class_weights: [0.5, 2, 1]}", "[2, v=3..70, 3]; [2, v] in 0..2",
             0},
            {"{sigmoid: true|false}", "[2, v=3..70, 3]; [2, v] in -1..2", 0},
            {"{sigmoid: true|false}", "[2, v=3..70, 3]; [2, v] in -1..-1", 0},
            {"{gamma: 0|0.5|2, alpha: -1|0.25}", "[2, v=3..70, 3]; [2, v] in -1..7 sets", 0},
            {"{class_weights: [0.5]}", "[2, v=3..70, 1]; [2, v] in -1..1 sets", 0},
            {0}},
};

const op op_focal_backward = {
    .name = "focal_backward",
    .family = "loss",
    .summary = "Gradient of focal.",
    .version = 2,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){SEGMENTATION_LOGITS,
                             SEGMENTATION_TARGET,
                             SEGMENTATION_COUNT(0),
                             {"dy", "scalar", DTYPE_F32, 0, "gradient of the loss"},
                             {0}},
    .outputs = (const port[]){{"dlogits", "N … C", DTYPE_F32, 0, "gradient of the logits"}, {0}},
    .attrs = focal_attr_list,
    .attrs_bytes = sizeof(focal_attrs),
    .infer = segmentation_backward_infer,
    .cost = segmentation_cost,
    .cpu = focal_backward_cpu,
};
