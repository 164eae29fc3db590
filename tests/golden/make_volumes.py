"""Writes tests/golden/volumes: what MONAI, nibabel and SciPy make of whole volumes, as samples.

    python tests/golden/make_volumes.py [FOLDER OF REAL VOLUMES]

real.json is of volumes that may not be in the repository: it names them and keeps, of every result,
size, affine, a few hundred voxels at a fixed stride, means over all of them, and for label maps the
voxels of every class. phantom.json is the same, with more samples, of a phantom beside it (case 2 of
`strata phantom DIR --cases 6 --organs 4 --size 40`; its axes are not oblique, because MONAI moves the
first voxel of some oblique volumes). tests/golden/test_volumes.c reads both.

Needs monai, torch, nibabel, scipy. The oracle is

  orient    MONAI's Orientation, checked against nibabel's as_closest_canonical for RAS
  linear    MONAI's Spacing (computed in double, kept in single precision), checked against scipy.ndimage.map_coordinates
  cubic     scipy.ndimage.zoom(order 3, grid_mode), which is what nnU-Net's resampling of an image
            calls, by slices where one axis is separate
  vote      the class whose linearly zoomed mask is largest
  metrics   double-precision distances of scipy.ndimage, checked against MONAI's in single
"""

import json
import os
import sys
from pathlib import Path

import monai.transforms as mt
import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage

import make_metrics

HERE = Path(__file__).parent / "volumes"
DATA = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "../shared/data")
RAS = (("L", "R"), ("P", "A"), ("I", "S"))

# Of these spacings no new voxel lies in the middle between two, where rounding would choose the nearest.
REAL = [
    ("Task04_Hippocampus/imagesTr/hippocampus_001.nii.gz", "Task04_Hippocampus/labelsTr/hippocampus_001.nii.gz",
     {"finer": (0.71, 0.83, 0.93), "coarser": (1.47, 1.31, 2.13), "separate": (0.8, 2.9, 0.9)}),
    ("LeftAtrium/imagesTr/la_06sr5rbr.nii.gz", "LeftAtrium/labelsTr/la_06sr5rbr.nii.gz",
     {"finer": (0.6, 0.55, 0.7), "coarser": (1.25, 1.0, 1.4), "separate": (0.7, 0.8, 2.5)}),
    ("AbdomenCT_example/example_ct_sm.nii.gz", "AbdomenCT_example/example_seg.nii.gz",
     {"finer": (2.0, 2.0, 2.6), "coarser": (4.0, 3.4, 5.0), "separate": (2.5, 2.2, 7.0)}),
]
PHANTOM = [("phantom_image.nii.gz", "phantom_label.nii.gz",
            {"finer": (3.0, 3.5, 4.0), "coarser": (9.0, 7.5, 8.0), "separate": (4.0, 3.9, 14.0)})]


# ---- what is kept of a result ----

def stride_of(count, samples):
    """Prime to most sizes: samples wander over all axes."""
    step = max(1, count // samples)
    while any(step % p == 0 for p in (2, 3, 5, 7)) and step > 1:
        step += 1
    return step


def kept(values, affine, label, samples):
    flat = np.ascontiguousarray(values).ravel()  # z fastest
    step = stride_of(flat.size, samples)
    out = {"size": list(values.shape), "affine": [float(f"{v:.9g}") for v in np.asarray(affine)[:3].ravel()],
           "stride": step}
    if label:
        counts = np.bincount(flat.astype(int))
        out["samples"] = [int(v) for v in flat[::step]]
        out["voxels"] = {str(c): int(n) for c, n in enumerate(counts) if n}
    else:
        wide = flat.astype(np.float64)
        out["samples"] = [float(f"{v:.9g}") for v in wide[::step]]
        out["mean"], out["mean_square"] = float(wide.mean()), float((wide**2).mean())
    return out


# ---- oracles ----

def monai(transform, values, affine):
    y = transform(MetaTensor(torch.tensor(values[None].astype(np.float64)), affine=torch.tensor(affine)))
    return y[0].numpy(), np.asarray(y.affine)


def oriented(values, affine, axes):
    y, moved = monai(mt.Orientation(axcodes=axes, labels=RAS), values, affine)
    if axes == "RAS":
        canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(values.astype(np.float64), affine))
        assert np.array_equal(y, canonical.get_fdata()) and np.allclose(moved, canonical.affine)
    return y, moved


def spaced(values, affine, spacing, mode):
    y, moved = monai(mt.Spacing(spacing, mode=mode, padding_mode="border", dtype=torch.float64), values, affine)
    if mode == "bilinear":
        old = np.sqrt((affine[:3, :3] ** 2).sum(0))
        places = [np.clip(np.arange(m) * new / o, 0, n - 1)
                  for m, n, o, new in zip(y.shape, values.shape, old, spacing)]
        z = ndimage.map_coordinates(values.astype(np.float64), np.meshgrid(*places, indexing="ij"), order=1)
        assert np.abs(z - y).max() <= 1e-6 * max(1, np.abs(z).max())
    return y, moved


def zoomed(x, size, order):
    y = ndimage.zoom(x, [m / n for m, n in zip(size, x.shape)], order=order, mode="nearest", grid_mode=True)
    assert y.shape == tuple(size)
    return np.clip(y, x.min(), x.max())


def zoomed_separately(x, size, order, axis):
    if axis is None:
        return zoomed(x, size, order)
    flat = [m for a, m in enumerate(size) if a != axis]
    slices = [zoomed(s, flat, order) for s in np.moveaxis(x, axis, 0)]
    n, m = x.shape[axis], size[axis]
    nearest = np.clip(np.floor((np.arange(m) + 0.5) * n / m), 0, n - 1).astype(int)
    return np.moveaxis(np.stack([slices[i] for i in nearest]), 0, axis)


def nnunet(values, label, affine, spacing, axis):
    old = np.sqrt((affine[:3, :3] ** 2).sum(0))
    size = [round(n * o / new) for n, o, new in zip(values.shape, old, spacing)]
    y = zoomed_separately(values.astype(np.float64), size, 3, axis)
    masks = [zoomed_separately((label == c).astype(np.float64), size, 1, axis) for c in np.unique(label)]
    z = np.unique(label)[np.argmax(np.round(masks, 6), axis=0)]
    moved = affine.copy()
    for a, (n, m) in enumerate(zip(values.shape, size)):
        moved[:3, 3] += affine[:3, a] * ((n / m - 1) / 2)
        moved[:3, a] *= n / m
    return (y, moved), (z, moved)


def prepared(image, label, affine, spacings):
    """(operator, attributes, image, label or None)"""
    for axes in ("RAS", "LPS", "SPL", "IRP"):
        yield "orient", {"axes": axes}, oriented(image, affine, axes), oriented(label, affine, axes)
    for name in ("finer", "coarser"):
        spacing = spacings[name]
        yield ("resample", {"spacing": list(spacing)}, spaced(image, affine, spacing, "bilinear"),
               spaced(label, affine, spacing, "nearest"))
        yield ("resample", {"spacing": list(spacing), "image": "nearest"},
               spaced(image, affine, spacing, "nearest"), None)
    for name in spacings:
        coarse = int(np.argmax(spacings[name])) if name == "separate" else None
        attributes = {"spacing": list(spacings[name]), "image": "cubic", "label": "linear", "grid": "extent"}
        if coarse is not None:
            attributes |= {"separate_axis": "auto", "separate_above": 2.7}
        yield ("resample", attributes, *nnunet(image, label, affine, spacings[name], coarse))


# ---- metrics: a prediction that test_volumes.c makes from the reference in the same way ----

def predicted(reference):
    """Moved by (2, −1, 1) voxels; holes; and a few voxels of a class far from it."""
    p = np.zeros_like(reference)
    p[2:, :-1, 1:] = reference[:-2, 1:, :-1]
    x, y, z = np.ogrid[tuple(slice(n) for n in p.shape)]
    p[(7 * x + 5 * y + 3 * z) % 97 == 0] = 0
    p[-1, -1, -1] = reference.max()
    return p


def metric_values(reference, spacing, tolerance):
    p = predicted(reference)
    classes = {}
    for c in np.unique(reference)[1:]:
        # Within the box around both and, where there is one, a voxel more: neither surfaces nor the
        # distances between them change.
        box = ndimage.find_objects(((p == c) | (reference == c)).astype(int))[0]
        box = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
        classes[str(int(c))] = make_metrics.class_values(p[box] == c, reference[box] == c, spacing, tolerance)
    return {"spacing_mm": list(spacing), "tolerance_mm": tolerance, "classes": classes}


def volume(folder, samples, image_name, label_name, spacings):
    image_file, label_file = (nibabel.load(folder / n) for n in (image_name, label_name))
    image, label = image_file.get_fdata(dtype=np.float64), np.asarray(label_file.dataobj).astype(np.uint8)
    affine = image_file.affine.astype(np.float64)
    out = []
    for operator, attributes, y, z in prepared(image, label, affine, spacings):
        out.append({"operator": operator, "attributes": {k: json.dumps(v).strip('"') for k, v in attributes.items()},
                    "image": kept(*y, False, samples)} |
                   ({"label": kept(*z, True, samples)} if z is not None else {}))
        print(image_name, operator, attributes, y[0].shape, flush=True)
    old = [float(s) for s in np.sqrt((affine[:3, :3] ** 2).sum(0))]
    metrics = [metric_values(label, spacing, tolerance)
               for spacing, tolerance in ((tuple(old), old[0]), ((0.7, 1.25, 3.0), 1.5))]
    return {"image": image_name, "label": label_name, "prepared": out, "metrics": metrics}


def write(name, folder, samples, volumes):
    content = [volume(folder, samples, *v) for v in volumes]
    text = json.dumps(content, separators=(",", ":"))
    (HERE / name).write_text(text.replace('},{"', '},\n{"') + "\n")


if __name__ == "__main__":
    write("phantom.json", HERE, 3000, PHANTOM)
    write("real.json", DATA, 300, REAL)
