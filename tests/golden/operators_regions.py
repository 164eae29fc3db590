"""Fixtures of the losses with sets of regions as the target, a bit for each; see make_operators.py for the
format. A channel has a sigmoid of its own, as MONAI's losses with sigmoid=True and nnU-Net's region-based
training have it. Where regions are unknown (−1), the oracle sees the known voxels alone."""
import os

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss, FocalLoss, GeneralizedDiceLoss, TverskyLoss

from make_operators import HERE, case, classes, normal
from operators_unknown import UNKNOWN, of_known

NNUNET = dict(batch=True, smooth_nr=1e-5, smooth_dr=1e-5)
NNUNET_ATTRS = {"squared": "false", "batch": "true", "smooth_numerator": "1e-5", "smooth_denominator": "1e-5"}
UNETR = dict(squared_pred=True, smooth_nr=0.0, smooth_dr=1e-6)


def sets(channels, *shape, unknown=False):
    t = classes(2 ** channels, *shape)
    if unknown:
        t[classes(3, *shape) == 0] = UNKNOWN
    return t.view("uint32")


def volumes(channels, unknown=False):
    return [normal(2, 3, 5, 5, channels, scale=2), sets(channels, 2, 3, 5, 5, unknown=unknown)]


def hot(t, channels):
    return (t.unsqueeze(-1) >> torch.arange(channels) & 1).double()


def monai(loss):
    return lambda x, t: loss(x.movedim(-1, 1), hot(t, x.shape[-1]).movedim(-1, 1))


def cross_entropy(x, t, weight=None):
    known = t != UNKNOWN
    return F.binary_cross_entropy_with_logits(x[known], hot(t, x.shape[-1])[known], weight=weight)


def focal(gamma, alpha=None, weight=None):
    """MONAI computes in single precision; the same in double, compared with it."""
    def loss(x, t):
        known = t != UNKNOWN
        x, y = x[known], hot(t, x.shape[-1])[known]
        s = x * (2 * y - 1)
        terms = -F.logsigmoid(s) * torch.exp(gamma * F.logsigmoid(-s))
        if alpha is not None:
            terms = terms * (alpha * y + (1 - alpha) * (1 - y))
        if weight is not None:
            terms = terms * torch.tensor(weight).double()
        theirs = FocalLoss(gamma=gamma, alpha=alpha, weight=weight)(x, y)
        assert abs(theirs.item() / terms.mean().item() - 1) < 1e-5
        return terms.mean()
    return loss


def of_voxels():
    def with_accuracy(x, t, weight=None):
        known = t != UNKNOWN
        right = ((x > 0) == hot(t, x.shape[-1]).bool()).all(-1) & known
        return cross_entropy(x, t, weight), right.sum().double() / known.sum()

    case("cross_entropy_regions", "cross_entropy", {}, volumes(3), with_accuracy)
    case("cross_entropy_regions_one", "cross_entropy", {}, volumes(1, unknown=True), with_accuracy)
    weights = [0.5, 2.0, 1.0, 0.25]
    case("cross_entropy_regions_weights", "cross_entropy", {"class_weights": weights}, volumes(4, unknown=True),
         lambda x, t: with_accuracy(x, t, torch.tensor(weights).double()))
    case("focal_regions", "focal", {}, volumes(3), focal(2.0))
    case("focal_regions_options", "focal", {"gamma": 1.5, "alpha": 0.25, "class_weights": weights},
         volumes(4, unknown=True), focal(1.5, 0.25, weights))


def of_overlaps():
    for unknown in (False, True):
        name = "_unknown" if unknown else ""
        for kind, attrs, options in (("unetr", {}, UNETR), ("nnunet", NNUNET_ATTRS, NNUNET)):
            dice = of_known(monai(DiceLoss(sigmoid=True, **options)), per_sample="batch" not in options)
            case(f"dice_regions_{kind}{name}", "dice", attrs, volumes(3, unknown), dice)

            def both(x, t):
                soft, ce = dice(x, t), cross_entropy(x, t)
                return soft + ce, soft, ce
            case(f"dice_ce_regions_{kind}{name}", "dice_ce", attrs, volumes(3, unknown), both)
        case(f"tversky_regions{name}", "tversky", {"alpha": 0.3, "beta": 0.7}, volumes(3, unknown),
             of_known(monai(TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7))))
        case(f"generalized_dice_regions{name}", "generalized_dice", {}, volumes(3, unknown),
             of_known(monai(GeneralizedDiceLoss(sigmoid=True))))

    def dice_focal(x, t):
        soft, voxels = of_known(monai(DiceLoss(sigmoid=True)))(x, t), focal(2.0)(x, t)
        return soft + voxels, soft, voxels
    case("dice_focal_regions", "dice_focal", {}, volumes(3, unknown=True), dice_focal)


def supervision():
    sizes = [(4, 6, 8), (2, 3, 4), (1, 3, 2)]
    dice = of_known(monai(DiceLoss(sigmoid=True, **NNUNET)), per_sample=False)

    def total(label, *outputs):
        labels = [F.interpolate(label.unsqueeze(1).double(), size, mode="nearest").squeeze(1).long()
                  for size in sizes]
        ce = [cross_entropy(x, t) for x, t in zip(outputs, labels)]
        soft = [dice(x, t) for x, t in zip(outputs, labels)]
        loss = sum(w * (d + c) for w, d, c in zip((4 / 7, 2 / 7, 1 / 7), soft, ce))
        return loss, torch.stack(soft), torch.stack(ce)

    case("deep_supervision_regions", "deep_supervision", NNUNET_ATTRS,
         [sets(3, 2, *sizes[0], unknown=True)] + [normal(2, *size, 3, scale=2) for size in sizes], total)


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    torch.set_num_threads(1)
    for make in (of_voxels, of_overlaps, supervision):
        make()
