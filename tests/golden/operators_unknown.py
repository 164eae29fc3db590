"""Fixtures of the losses with voxels whose class is unknown (target −1); see make_operators.py for the
format. Cross-entropy is PyTorch's with ignore_index, Dice a masked one written down here; the others are
MONAI's on the known voxels alone."""
import os

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss, GeneralizedDiceLoss, TverskyLoss

from make_operators import HERE, case, classes, normal
from operators_train import SOFTMAX, focal_double

UNKNOWN = -1


def volumes(channels, labels, empty=()):
    """Logits, and labels of which two thirds are known; none of the samples in `empty`."""
    x, t = normal(2, 3, 5, 5, channels, scale=2), classes(labels, 2, 3, 5, 5)
    t[classes(3, *t.shape) == 0] = UNKNOWN
    for sample in empty:
        t[sample] = UNKNOWN
    return [x, t]


def cross_entropy(x, t, **options):
    return F.cross_entropy(x.movedim(-1, 1), t, ignore_index=UNKNOWN, **options)


def masked_dice(x, t, squared=True, background=True, batch=False, nr=0.0, dr=1e-6):
    """1 − (2 Σ m p t + nr) / (Σ m pᵉ + Σ m t + dr), m 1 where the class is known; the mean runs over
    classes and the samples in which m is 1 somewhere."""
    p, m = x.softmax(-1), (t != UNKNOWN).double().unsqueeze(-1)
    hot = F.one_hot(t.clamp(min=0), x.shape[-1]).double() * m
    axes = tuple(range(0 if batch else 1, t.dim()))
    overlap, actual = (p * hot).sum(axes), hot.sum(axes)
    predicted = ((p * p if squared else p) * m).sum(axes)
    loss = 1 - (2 * overlap + nr) / (predicted + actual + dr)
    loss = loss[..., 0 if background else 1:].mean(-1)
    return loss if batch else loss[m.flatten(1).sum(1) > 0].mean()


def of_known(loss, per_sample=True):
    """A loss on logits (1, n, C) and classes (1, n) of the known voxels, sample by sample or of all."""
    def total(x, t):
        samples = [(x[i], t[i]) for i in range(len(t)) if (t[i] != UNKNOWN).any()] if per_sample else [(x, t)]
        values = [loss(x[t != UNKNOWN].unsqueeze(0), t[t != UNKNOWN].unsqueeze(0)) for x, t in samples]
        return torch.stack(values).mean()
    return total


def monai(loss):
    return lambda x, t: loss(x.movedim(-1, 1), t.unsqueeze(1))


def of_voxels():
    def with_accuracy(x, t, **options):
        known = t != UNKNOWN
        return cross_entropy(x, t, **options), ((x.argmax(-1) == t) & known).sum().double() / known.sum()

    case("cross_entropy_unknown", "cross_entropy", {}, volumes(3, 3), with_accuracy)
    weights = [0.5, 2.0, 1.0, 0.25]
    case("cross_entropy_unknown_options", "cross_entropy",
         {"class_weights": weights, "label_smoothing": 0.1}, volumes(4, 4, empty=[1]),
         lambda x, t: with_accuracy(x, t, weight=torch.tensor(weights).double(), label_smoothing=0.1))
    for sigmoid in (True, False):
        def focal(x, t):  # its oracle wants three axes of space
            return focal_double(x.unsqueeze(1).unsqueeze(1), t.unsqueeze(1).unsqueeze(1), sigmoid, 1.5, 0.25)
        case(f"focal_{'sigmoid' if sigmoid else 'softmax'}_unknown", "focal",
             {"sigmoid": str(sigmoid).lower(), "gamma": 1.5, "alpha": 0.25}, volumes(3, 3),
             of_known(focal, per_sample=False))


def of_regions():
    nnunet = dict(squared=False, background=False, batch=True, nr=1e-5, dr=1e-5)
    nnunet_attrs = {"squared": "false", "include_background": "false", "batch": "true",
                    "smooth_numerator": "1e-5", "smooth_denominator": "1e-5"}
    # The last label is absent; where a sample is empty, the other one alone counts.
    for name, attrs, options, empty in (("unetr", {}, {}, []), ("nnunet", nnunet_attrs, nnunet, []),
                                        ("empty_sample", {}, {}, [0])):
        case(f"dice_unknown_{name}", "dice", attrs, volumes(4, 3, empty), lambda x, t: masked_dice(x, t, **options))

        def both(x, t):
            dice, ce = masked_dice(x, t, **options), cross_entropy(x, t)
            return dice + ce, dice, ce
        case(f"dice_ce_unknown_{name}", "dice_ce", attrs, volumes(4, 3, empty), both)
    x, t = (torch.from_numpy(a) for a in volumes(4, 3))
    theirs = of_known(monai(DiceLoss(**SOFTMAX, squared_pred=True, smooth_nr=0, smooth_dr=1e-6)))
    assert abs(theirs(x.double(), t.long()) - masked_dice(x.double(), t.long())) < 1e-7  # MONAI adds in single precision here and there

    case("tversky_unknown", "tversky", {"alpha": 0.3, "beta": 0.7}, volumes(4, 3, empty=[1]),
         of_known(monai(TverskyLoss(**SOFTMAX, alpha=0.3, beta=0.7))))
    for batch in (True, False):
        case(f"generalized_dice_unknown_{'batch' if batch else 'sample'}", "generalized_dice",
             {"batch": str(batch).lower()}, volumes(4, 3),
             of_known(monai(GeneralizedDiceLoss(**SOFTMAX)), per_sample=not batch))

    def dice_focal(x, t):
        dice = masked_dice(x, t, squared=False, nr=1e-5, dr=1e-5)
        focal = of_known(lambda x, t: focal_double(x.unsqueeze(1).unsqueeze(1), t.unsqueeze(1).unsqueeze(1), True,
                                                   2.0), per_sample=False)(x, t)
        return dice + focal, dice, focal
    case("dice_focal_unknown", "dice_focal", {}, volumes(4, 3), dice_focal)


def supervision():
    """nnU-Net's, whose inner levels see the nearest label of the block, unknown or not."""
    sizes = [(4, 6, 8), (2, 3, 4), (1, 3, 2)]

    def total(label, *outputs):
        labels = [F.interpolate(label.unsqueeze(1).double(), size, mode="nearest").squeeze(1).long()
                  for size in sizes]
        ce = [cross_entropy(x, t) for x, t in zip(outputs, labels)]
        soft = [masked_dice(x, t, False, False, True, 1e-5, 1e-5) for x, t in zip(outputs, labels)]
        loss = sum(w * (d + c) for w, d, c in zip((4 / 7, 2 / 7, 1 / 7), soft, ce))
        return loss, torch.stack(soft), torch.stack(ce)

    label = classes(3, 2, *sizes[0])
    label[classes(3, *label.shape) == 0] = UNKNOWN
    attrs = {"squared": "false", "batch": "true", "include_background": "false",
             "smooth_numerator": "1e-5", "smooth_denominator": "1e-5"}
    case("deep_supervision_unknown", "deep_supervision", attrs,
         [label] + [normal(2, *size, 3, scale=2) for size in sizes], total)


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    torch.set_num_threads(1)
    for make in (of_voxels, of_regions, supervision):
        make()
