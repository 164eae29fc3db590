/* cross_entropy: −log of the softmax probability of the true class, averaged over voxels; of sets of regions
 * the binary cross-entropy, averaged over voxels and channels. */
#include "ops/loss/segmentation.h"

typedef struct cross_entropy_attrs {
  float_list class_weights;
  int64_t ignore_index;
  double label_smoothing;
} cross_entropy_attrs;

static const attr cross_entropy_attr_list[] = {
    {"class_weights", ATTR_FLOATS, offsetof(cross_entropy_attrs, class_weights), "[]", 0, 1e6, NULL,
     0, "one factor per class; the mean is weighted too, but not over regions; empty: all 1"},
    {"ignore_index", ATTR_INT, offsetof(cross_entropy_attrs, ignore_index), "-100", 0, 0, NULL, 0,
     "a class whose voxels do not count in this loss (for unknown classes: data: ignore_label)"},
    {"label_smoothing", ATTR_FLOAT, offsetof(cross_entropy_attrs, label_smoothing), "0", 0, 1, NULL,
     0, "share of the target spread evenly over all classes"},
    {0},
};

enum { OUT_LOSS, OUT_ACCURACY, OUT_WEIGHT };
enum { BACK_LOGITS, BACK_TARGET, BACK_WEIGHT, BACK_DY };

static segmentation_terms terms_of(const cross_entropy_attrs *attrs) {
  return (segmentation_terms){.cross_entropy = true,
                              .accuracy = true,
                              .cross_entropy_weight = 1,
                              .class_weights = &attrs->class_weights,
                              .ignores = true,
                              .ignore_index = attrs->ignore_index,
                              .label_smoothing = attrs->label_smoothing};
}

static status cross_entropy_infer(infer *rule) {
  segmentation_terms terms = terms_of(rule->attrs);
  return segmentation_check(rule, &terms);
}

static status cross_entropy_grad(grad *rule) {
  value_id in[] = {rule->in[0], rule->in[1], rule->out[OUT_WEIGHT], rule->dy[OUT_LOSS]};
  if (rule->dy[OUT_LOSS] == VALUE_NONE || !rule->wanted[0]) return OK;
  return build_node(rule->b, "cross_entropy_backward", rule->attrs, in, 4, &rule->dx[0]);
}

static status cross_entropy_cpu(const call *c) {
  segmentation_terms terms = terms_of(c->attrs);
  segmentation_result result;
  TRY(segmentation_forward(c, &terms, NULL, &result));
  *(float *)c->out[OUT_LOSS].data = (float)result.cross_entropy;
  *(float *)c->out[OUT_ACCURACY].data = (float)result.accuracy;
  *(float *)c->out[OUT_WEIGHT].data = (float)result.weight;
  return OK;
}

static status cross_entropy_backward_cpu(const call *c) {
  segmentation_terms terms = terms_of(c->attrs);
  segmentation_backward(c, &terms, NULL, (double)*(const float *)c->in[BACK_WEIGHT].data,
                        (double)*(const float *)c->in[BACK_DY].data, c->out[0].data);
  return OK;
}

const op op_cross_entropy = {
    .name = "cross_entropy",
    .family = "loss",
    .summary = "Cross-entropy: softmax against class numbers, sigmoids against sets of regions.",
    .doc =
        "loss = Σ w[t]·(log Σ e^x − x[t]) / Σ w[t] over the voxels whose label t is known and "
        "not ignore_index. `accuracy` is the share of those voxels whose largest logit is the true "
        "class. With sets of regions as the target, loss = mean over voxels and channels of "
        "w[c]·(log(1 + e^x[c]) − t[c]·x[c]), t 1 within the region, and `accuracy` is the share of "
        "voxels whose logits are above 0 in the channels of their regions and in no other.",
    .torch =
        "torch.nn.functional.cross_entropy(logits.movedim(-1, 1), target.long(), "
        "weight=class_weights, ignore_index=ignore_index, label_smoothing=label_smoothing); "
        "for sets of regions torch.nn.BCEWithLogitsLoss(weight=class_weights)(logits, regions)",
    .version = 2,
    .traits = OP_LOSS,
    .inputs = (const port[]){SEGMENTATION_LOGITS, SEGMENTATION_TARGET, {0}},
    .outputs = (const port[]){{"loss", "scalar", DTYPE_F32, 0, "mean cross-entropy"},
                              {"accuracy", "scalar", DTYPE_F32, 0, "share of correct voxels"},
                              {"weight", "scalar", DTYPE_F32, PORT_SAVED, "Σ of the class weights"},
                              {0}},
    .attrs = cross_entropy_attr_list,
    .attrs_bytes = sizeof(cross_entropy_attrs),
    .infer = cross_entropy_infer,
    .grad = cross_entropy_grad,
    .cost = segmentation_cost,
    .workspace_bytes = segmentation_workspace,
    .cpu = cross_entropy_cpu,
    .cases =
        (const op_case[]){
            {"{}", "[n=1..2, x=1..4, y=1..4, z=1..5, 3]; [n, x, y, z] in 0..2", 0},
            {"{ignore_index: 1, label_smoothing: 0.1}", "[n=1..3, b=2..9, 4]; [n, b] in 0..3", 0},
            {"{class_weights: [0.5, 2, 1]}", "[2, v=3..70, 3]; [2, v] in 0..2", 0},
            {"{label_smoothing: 0|0.1}", "[2, v=3..70, 3]; [2, v] in -1..2", 0},
            {"{}", "[2, v=3..70, 3]; [2, v] in -1..-1", 0},
            {"{class_weights: []|[0.5, 2, 1]}",
             "[n=1..2, x=1..4, y=1..4, z=1..5, 3]; [n, x, y, z] in -1..7 sets", 0},
            {"{}", "[2, v=60..140, 1]; [2, v] in -1..1 sets", 0},
            {"{}", "[2, v=3..70, 3]; [2, v] in -1..-1 sets", 0},
            {0}},
};

const op op_cross_entropy_backward = {
    .name = "cross_entropy_backward",
    .family = "loss",
    .summary = "Gradient of cross_entropy.",
    .version = 2,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){SEGMENTATION_LOGITS,
                             SEGMENTATION_TARGET,
                             {"weight", "scalar", DTYPE_F32, 0, "saved Σ of the class weights"},
                             {"dy", "scalar", DTYPE_F32, 0, "gradient of the loss"},
                             {0}},
    .outputs = (const port[]){{"dlogits", "N … C", DTYPE_F32, 0, "gradient of the logits"}, {0}},
    .attrs = cross_entropy_attr_list,
    .attrs_bytes = sizeof(cross_entropy_attrs),
    .infer = segmentation_backward_infer,
    .cost = segmentation_cost,
    .cpu = cross_entropy_backward_cpu,
};
