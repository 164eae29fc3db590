"""Fixtures of the losses beyond the first ones and of Adam; see make_operators.py for the format."""
import os

import numpy as np
import torch
import torch.nn.functional as F
from monai.losses import (DiceCELoss, DiceFocalLoss, DiceLoss, FocalLoss, GeneralizedDiceLoss,
                          HausdorffDTLoss, TverskyLoss)
from scipy.ndimage import distance_transform_edt

from make_operators import HERE, case, classes, normal, optimizer_case

SOFTMAX = dict(to_onehot_y=True, softmax=True)


def on_volumes(loss):
    """A loss of MONAI on channels-last logits and class numbers."""
    return lambda x, t: loss(x.movedim(-1, 1), t.unsqueeze(1))


def volumes(channels, labels, scale=2.0):
    return [normal(2, 3, 5, 5, channels, scale=scale), classes(labels, 2, 3, 5, 5)]


def optimizers():
    optimizer_case("adam", "adam", {"lr": 0.01}, lambda p: torch.optim.Adam(p, 0.01))
    optimizer_case("adam_decay", "adam",
                   {"lr": 0.003, "beta1": 0.8, "beta2": 0.95, "eps": "1e-3", "weight_decay": 0.1},
                   lambda p: torch.optim.Adam(p, 0.003, (0.8, 0.95), 1e-3, weight_decay=0.1))


def regressions():
    for beta in (1.0, 0.25):
        case(f"smooth_l1_{beta:g}", "smooth_l1", {"beta": beta},
             [normal(2, 3, 4, 5, 2), normal(2, 3, 4, 5, 2), None],
             lambda p, t, m: F.smooth_l1_loss(p, t, beta=beta))


def regions():
    # MONAI's Dice with every option of ours turned.
    case("dice_plain", "dice", {"squared": "false", "smooth_numerator": "1e-5", "smooth_denominator": "1e-5"},
         volumes(4, 3), on_volumes(DiceLoss(**SOFTMAX)))
    case("dice_squared_batch", "dice",
         {"batch": "true", "include_background": "false", "smooth_numerator": 0.1, "smooth_denominator": 0.5},
         volumes(4, 4), on_volumes(DiceLoss(**SOFTMAX, squared_pred=True, batch=True,
                                            include_background=False, smooth_nr=0.1, smooth_dr=0.5)))
    weighted = on_volumes(DiceCELoss(**SOFTMAX, lambda_dice=0.3, lambda_ce=2.0))
    case("dice_ce_weights", "dice_ce",
         {"squared": "false", "smooth_numerator": "1e-5", "smooth_denominator": "1e-5",
          "dice_weight": 0.3, "ce_weight": 2.0}, volumes(3, 3), weighted)
    case("tversky", "tversky", {}, volumes(4, 3), on_volumes(TverskyLoss(**SOFTMAX)))
    case("tversky_unequal", "tversky",
         {"alpha": 0.3, "beta": 0.7, "include_background": "false", "batch": "true",
          "smooth_numerator": 0.1, "smooth_denominator": 0.2}, volumes(3, 3),
         on_volumes(TverskyLoss(**SOFTMAX, alpha=0.3, beta=0.7, include_background=False, batch=True,
                                smooth_nr=0.1, smooth_dr=0.2)))
    # Four classes of which the target holds three, as it is with small organs.
    for kind in ("square", "simple", "uniform"):
        case(f"generalized_dice_{kind}", "generalized_dice", {"weights": kind}, volumes(4, 3),
             on_volumes(GeneralizedDiceLoss(**SOFTMAX, w_type=kind)))
    case("generalized_dice_batch", "generalized_dice", {"batch": "true", "include_background": "false"},
         volumes(4, 3), on_volumes(GeneralizedDiceLoss(**SOFTMAX, batch=True, include_background=False)))
    empty = volumes(3, 3)
    empty[1] *= 0  # nothing but background, which does not count
    case("generalized_dice_empty", "generalized_dice", {"include_background": "false"}, empty,
         on_volumes(GeneralizedDiceLoss(**SOFTMAX, include_background=False)))


def focal_double(x, t, sigmoid, gamma, alpha=None, weight=None):
    """MONAI computes in single precision; the same in double, compared with it."""
    x = x.movedim(-1, 1)
    hot = F.one_hot(t, x.shape[1]).movedim(-1, 1).double()
    if sigmoid:
        s = x * (2 * hot - 1)
        loss = -F.logsigmoid(s) * torch.exp(gamma * F.logsigmoid(-s))
        if alpha is not None:
            loss = loss * (alpha * hot + (1 - alpha) * (1 - hot))
    else:
        log_p = x.log_softmax(1)
        loss = -(1 - log_p.exp()) ** gamma * log_p * hot
        if alpha is not None:
            factor = torch.tensor([1 - alpha] + [alpha] * (x.shape[1] - 1)).double()
            loss = loss * factor.view(-1, 1, 1, 1)
    if weight is not None:
        loss = loss * torch.tensor(weight).double().view(-1, 1, 1, 1)
    loss = loss.mean()
    monai = FocalLoss(to_onehot_y=True, use_softmax=not sigmoid, gamma=gamma, alpha=alpha, weight=weight)
    assert abs(monai(x, t.unsqueeze(1)).item() / loss.item() - 1) < 1e-5
    return loss


def focals():
    for sigmoid in (True, False):
        kind = "sigmoid" if sigmoid else "softmax"
        attrs = {"sigmoid": str(sigmoid).lower()}
        case(f"focal_{kind}", "focal", attrs, volumes(4, 4, 3.0),
             lambda x, t: focal_double(x, t, sigmoid, 2.0))
        case(f"focal_{kind}_options", "focal",
             {**attrs, "gamma": 1.5, "alpha": 0.25, "class_weights": [0.5, 2.0, 1.0]}, volumes(3, 3),
             lambda x, t: focal_double(x, t, sigmoid, 1.5, 0.25, [0.5, 2.0, 1.0]))

    def dice_focal(x, t):
        dice = on_volumes(DiceLoss(**SOFTMAX))(x, t)
        focal = focal_double(x, t, True, 2.0)
        both = 0.7 * dice + 3.0 * focal
        monai = on_volumes(DiceFocalLoss(**SOFTMAX, lambda_dice=0.7, lambda_focal=3.0))(x, t)
        assert abs(monai.item() / both.item() - 1) < 1e-5
        return both, dice, focal

    case("dice_focal", "dice_focal", {"dice_weight": 0.7, "focal_weight": 3.0}, volumes(4, 3), dice_focal)


def blobs(channels, labels, size=(7, 6, 5)):
    """Logits and labels with regions of some thickness; the last labels are absent."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
    label = np.zeros((2, *size), np.int32)
    for n in range(2):
        label[n][(x - 2) ** 2 + (y - 3 + n) ** 2 + (z - 2) ** 2 < 6] = 1
        label[n][x > 4 + n] = labels - 1
    logits = normal(2, *size, channels) + 4 * np.eye(channels, dtype=np.float32)[np.roll(label, 1, 2)]
    return [logits, label]


def signed_distance(label, channels, first):
    """Kervadec's one_hot2dist."""
    maps = np.zeros((*label.shape, channels))
    for n in range(len(label)):
        for c in range(first, channels):
            inside = label[n] == c
            if inside.any() and not inside.all():
                maps[n, ..., c] = (distance_transform_edt(~inside) * ~inside
                                   - (distance_transform_edt(inside) - 1) * inside)
    return torch.from_numpy(maps)


def distances():
    for alpha, background in ((2.0, False), (1.5, True)):
        case(f"hausdorff_loss_{alpha:g}", "hausdorff_loss",
             {"alpha": alpha, "include_background": str(background).lower()}, blobs(4, 3),
             on_volumes(HausdorffDTLoss(**SOFTMAX, alpha=alpha, include_background=background)))
    for background in (False, True):
        def boundary(x, t):
            first = 0 if background else 1
            p = x.softmax(-1)[..., first:]
            return (p * signed_distance(t.numpy(), x.shape[-1], first)[..., first:]).mean()

        case(f"boundary_{'all' if background else 'foreground'}", "boundary",
             {"include_background": str(background).lower()}, blobs(4, 3), boundary)


def supervision():
    """Labels on coarser grids by nearest interpolation, weights halved from output to output."""
    dice = on_volumes(DiceLoss(**SOFTMAX, batch=True, include_background=False))
    sizes = ((8, 4, 6), (4, 4, 3), (2, 2, 3))

    def total(label, *outputs):
        labels = [F.interpolate(label.unsqueeze(1).double(), size, mode="nearest").squeeze(1).long()
                  for size in sizes]
        ce = [F.cross_entropy(x.movedim(-1, 1), t) for x, t in zip(outputs, labels)]
        soft = [dice(x, t) for x, t in zip(outputs, labels)]
        loss = sum(w * (d + c) for w, d, c in zip((4 / 7, 2 / 7, 1 / 7), soft, ce))
        return loss, torch.stack(soft), torch.stack(ce)

    attrs = {"squared": "false", "batch": "true", "include_background": "false",
             "smooth_numerator": "1e-5", "smooth_denominator": "1e-5"}
    case("deep_supervision", "deep_supervision", attrs,
         [classes(3, 2, *sizes[0])] + [normal(2, *size, 3, scale=2) for size in sizes], total)


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    torch.set_num_threads(1)
    for make in (optimizers, regressions, regions, focals, distances, supervision):
        make()
