"""Fixture of test_postprocess: segmentations before and after each operator. Where MONAI 1.6.1 has it, MONAI made
it (with scikit-image 0.25; with 0.26 it removes what is as large as the bound, too); the rest follows the
operators' definitions with SciPy's labelling.

Run from the repository root:  python3 tests/golden/make_postprocess.py
"""
import json
import pathlib

import numpy as np
import scipy.ndimage as ndi
import torch
from monai.transforms import FillHoles, KeepLargestConnectedComponent, RemoveSmallObjects

OUT = pathlib.Path(__file__).parent / "postprocess" / "cases.json"
CORNERS, FACES = np.ones((3, 3, 3)), ndi.generate_binary_structure(3, 1)
SPACING = (0.5, 1.0, 2.0)  # mm: a voxel is 1 mm³
random = np.random.default_rng(5)
cases = []


def scattered(size, density):
    label = np.zeros(size, int)
    for c in (1, 2, 3):
        label[random.random(size) < density] = c
    return label


def boxes(size, count, classes):
    """Hollow boxes of some classes, so that there are holes."""
    label = np.zeros(size, int)
    for _ in range(count):
        low = [random.integers(0, n - 3) for n in size]
        high = [random.integers(a + 3, n + 1) for a, n in zip(low, size)]
        label[tuple(slice(a, b) for a, b in zip(low, high))] = random.choice(classes)
        label[tuple(slice(a + 1, b - 1) for a, b in zip(low, high))] = 0
        if random.random() < 0.3:  # open a side, or another class in the wall
            label[tuple(random.integers(a, b) for a, b in zip(low, high))] = random.choice([0, 0, *classes])
    return label


def add(operator, attributes, before, after):
    cases.append({"operator": operator, "attributes": attributes, "size": list(before.shape),
                  "before": "".join(map(str, before.ravel())), "after": "".join(map(str, after.ravel().astype(int)))})


def by_monai(transform, label):
    return np.asarray(transform(torch.from_numpy(label[None].copy())))[0]


def is_a_tie(label, classes, together, kept):
    """Does the order of equally large components decide? MONAI's is another one."""
    for group in [classes] if together else [[c] for c in classes]:
        parts, n = ndi.label(np.isin(label, group), CORNERS)
        sizes = sorted(np.bincount(parts.ravel())[1:], reverse=True)
        if n > kept and sizes[kept - 1] == sizes[kept]:
            return True
    return False


def remove_small(label, classes, below_mm3, total, together, replace):
    out = label.copy()
    groups = [classes] if together else [[c] for c in classes]
    for group in groups:
        mask = np.isin(label, group)
        parts, n = ndi.label(mask, CORNERS)
        for part in range(1, n + 1):
            if (mask.sum() if total else (parts == part).sum()) < below_mm3:
                out[parts == part] = replace
    return out


def fill_holes(label, classes, together):
    out = label.copy()
    parts, n = ndi.label(label == 0, FACES)
    edge = np.ones_like(label, bool)
    edge[1:-1, 1:-1, 1:-1] = False
    for part in range(1, n + 1):
        hole = parts == part
        around = np.unique(label[ndi.binary_dilation(hole, FACES) & ~hole])
        if not (hole & edge).any() and np.isin(around, classes).all() and (together or len(around) == 1):
            out[hole] = around.min()
    return out


every = [1, 2, 3]
for size, density, classes, together, components in [
        ((9, 8, 7), 0.10, [], False, 1), ((9, 8, 7), 0.2, [2], False, 1), ((6, 10, 12), 0.05, [1, 3], False, 3),
        ((1, 9, 9), 0.25, [], False, 2), ((7, 1, 20), 0.3, [1], False, 1), ((8, 9, 10), 0.06, [], True, 1),
        ((8, 9, 10), 0.05, [2, 3], True, 2)]:
    label = scattered(size, density)
    while is_a_tie(label, classes or every, together, components):
        label = scattered(size, density)
    after = by_monai(KeepLargestConnectedComponent(classes or every, is_onehot=False, independent=not together,
                                                   connectivity=3, num_components=components), label)
    add("keep_largest", {"classes": classes, "together": together, "components": components}, label, after)

for size, density, below in [((9, 8, 7), 0.08, 4), ((12, 9, 1), 0.2, 3), ((6, 6, 6), 0.02, 2)]:
    label = scattered(size, density)
    for together in (False, True):
        monai = RemoveSmallObjects(min_size=below, connectivity=3, by_measure=True, pixdim=SPACING,
                                   independent_channels=not together)
        # Of a map of several classes scikit-image takes all voxels of a class for one object.
        after = by_monai(monai, label) if together else sum(c * by_monai(monai, (label == c) * 1) for c in every)
        add("remove_small", {"below": below / 1000, "together": together}, label, after)
for classes, below, total, together, replace in [([3], 5, False, False, 2), ([1, 2], 60, True, False, 3),
                                                 ([1, 2], 60, True, True, 0), ([2, 3], 8, False, True, 1)]:
    label = scattered((9, 8, 7), 0.1)
    label[label == 2] *= random.random((label == 2).sum()) < 0.5
    add("remove_small", {"classes": classes, "below": below / 1000, "total": total, "together": together,
                         "replace": replace}, label, remove_small(label, classes, below, total, together, replace))

for size in [(9, 8, 10), (4, 4, 9), (12, 6, 7)]:
    label = boxes(size, 4, [1])
    label[random.random(size) < 0.1] = 1
    after = by_monai(FillHoles(applied_labels=[1], connectivity=1), label)
    assert (after == fill_holes(label, [1], False)).all()
    add("fill_holes", {}, label, after)
for classes, together in [([], False), ([], True), ([1, 2], True), ([2], False)]:
    label = after = np.zeros(1)
    while (after == label).all():
        label = boxes((14, 13, 12), 9, every)
        after = fill_holes(label, classes or every, together)
    add("fill_holes", {"classes": classes, "together": together}, label, after)

OUT.parent.mkdir(exist_ok=True)
OUT.write_text(json.dumps(cases, separators=(",", ":")).replace('},{"', '},\n{"') + "\n")
