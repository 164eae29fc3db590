/* hausdorff_loss: squared errors that count the more the further they are from the boundaries
 * (Karimi and Salcudean, arXiv 1904.10030, by distance transforms). */
#include "ops/loss/distance_loss.h"
#include "ops/loss/segmentation.h"

static status hausdorff_loss_lower(lower *rule) {
  return distance_loss_lower(rule, "hausdorff_error");
}

const op op_hausdorff_loss = {
    .name = "hausdorff_loss",
    .family = "loss",
    .summary = "Hausdorff-distance loss by distance transforms.",
    .doc =
        "loss = mean over voxels and classes of (p − t)² · (d_pᵅ + d_tᵅ), p the softmax of the "
        "logits, t the one-hot target, and d_p, d_t a voxel's distance in voxels to the nearest "
        "one on the other side of the boundary of the predicted region (p > 0.5) and of the true "
        "one; a region that is empty or fills the crop adds nothing. No gradient flows through "
        "the distances (Karimi and Salcudean, arXiv 1904.10030). Usually added to a Dice loss. "
        "Labels with unknown voxels are refused: it needs whole structures.",
    .torch = "monai.losses.HausdorffDTLoss(to_onehot_y=True, softmax=True, alpha=alpha, "
             "include_background=include_background)(logits.movedim(-1, 1), target.unsqueeze(1))",
    .version = 1,
    .traits = OP_LOSS,
    .inputs = (const port[]){SEGMENTATION_LOGITS, SEGMENTATION_KNOWN_TARGET, {0}},
    .outputs = (const port[]){{"loss", "scalar", DTYPE_F32, 0, "mean of the weighted errors"}, {0}},
    .attrs = (const attr[]){DISTANCE_BACKGROUND_ATTR,
                            {"alpha", ATTR_FLOAT, offsetof(distance_loss_attrs, alpha), "2", 0.1,
                             10, NULL, 0, "exponent of the distances"},
                            {0}},
    .attrs_bytes = sizeof(distance_loss_attrs),
    .lower = hausdorff_loss_lower,
    /* Wide tolerance: distances jump where a probability passes 0.5. */
    .cases =
        (const op_case[]){{"{}", "[n=1..2, x=2..4, y=2..4, z=2..5, 3]; [n, x, y, z] in 0..2", 0.3},
                          {"{alpha: 1|1.5, include_background: true}",
                           "[1, x=2..5, y=2..4, 3, 5]; [1, x, y, 3] in 0..4", 0.3},
                          {0}},
};
