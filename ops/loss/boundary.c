/* boundary: probabilities weighted by the signed distance to the true boundary (Kervadec et al.,
 * arXiv 1812.07032). */
#include "ops/loss/distance_loss.h"
#include "ops/loss/segmentation.h"

static status boundary_lower(lower *rule) {
  return distance_loss_lower(rule, "boundary_error");
}

const op op_boundary = {
    .name = "boundary",
    .family = "loss",
    .summary = "Boundary loss: probability mass by its signed distance to the true region.",
    .doc =
        "loss = mean over voxels and classes of p · φ, p the softmax of the logits and φ the "
        "signed distance to the true region in voxels: outside, the distance to its nearest "
        "voxel; inside, 1 minus the distance to the nearest voxel outside; 0 where the class is "
        "absent or fills the crop (Kervadec et al., arXiv 1812.07032). It can be negative and has "
        "no force on its own where a region is missed: add it to a Dice loss with a small, "
        "growing weight. Labels with unknown voxels are refused: it needs whole structures.",
    .version = 1,
    .traits = OP_LOSS,
    .inputs = (const port[]){SEGMENTATION_LOGITS, SEGMENTATION_KNOWN_TARGET, {0}},
    .outputs = (const port[]){{"loss", "scalar", DTYPE_F32, 0, "mean of p · φ"}, {0}},
    .attrs = (const attr[]){DISTANCE_BACKGROUND_ATTR, {0}},
    .attrs_bytes = sizeof(distance_loss_attrs),
    .lower = boundary_lower,
    .cases =
        (const op_case[]){
            {"{}", "[n=1..2, x=2..4, y=2..4, z=2..5, 3]; [n, x, y, z] in 0..2", 0},
            {"{include_background: true}", "[1, x=2..5, y=2..4, 3, 5]; [1, x, y, 3] in 0..4", 0},
            {0}},
};
