"""Writes tests/golden/prepare: one small case and what MONAI makes of it with the transform each
prepare operator names, or SciPy where MONAI has none, also of sample operators. cases.txt lists:
expected file, operator, attributes.

Needs monai, torch, nibabel, numpy, scipy. Run in this folder: python make_prepare.py
"""

import gzip
import os

import monai.transforms as mt
import nibabel as nib
import numpy as np
import torch
from scipy import fft, ndimage
from monai.data import MetaTensor

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "prepare")
os.makedirs(HERE, exist_ok=True)

rng = np.random.default_rng(3)
SHAPE = (15, 14, 8)
AFFINE = np.array([[0, -1.5, 0, 20], [-1.7, 0, 0, 30], [0, 0, 3.2, -40], [0, 0, 0, 1.0]])
ramp = np.add.outer(np.add.outer(np.arange(15) * 9, np.arange(14) * -4), np.arange(8) * 21)
image = np.round(ramp + rng.normal(0, 30, SHAPE)).astype(np.int16)
image[:3] = 0
image[:, :2] = 0
image[:, :, -1] = 0
label = (image > 60).astype(np.uint8) + (image > 140)


def save(name, data, affine):
    image = nib.Nifti1Image(data, affine, dtype=data.dtype)
    with open(os.path.join(HERE, name), "wb") as out:
        with gzip.GzipFile(fileobj=out, mode="wb", mtime=0, filename="") as zipped:
            zipped.write(image.to_bytes())


save("image.nii.gz", image, AFFINE)
save("label.nii.gz", label.astype(np.uint8), AFFINE)

lines = []


def case(name, operator, attributes, transform, label_transform=None):
    x = MetaTensor(torch.tensor(image[None].astype(np.float32)), affine=torch.tensor(AFFINE))
    y = transform(x)
    save(f"{name}.nii.gz", y[0].numpy().astype(np.float32), np.asarray(y.affine))
    label_name = "-"
    if label_transform is not None:
        z = MetaTensor(torch.tensor(label[None].astype(np.float32)), affine=torch.tensor(AFFINE))
        z = label_transform(z)
        label_name = f"{name}_label.nii.gz"
        save(label_name, z[0].numpy().astype(np.uint8), np.asarray(z.affine))
    lines.append("\t".join([f"{name}.nii.gz", label_name, operator, attributes]))


for axes in ("RAS", "LPS", "SPL"):
    t = mt.Orientation(axcodes=axes, labels=(("L", "R"), ("P", "A"), ("I", "S")))
    case(f"orient_{axes}", "orient", f"axes={axes}", t, t)
def reversed_axes(x):
    return MetaTensor(x.as_tensor().permute(0, 3, 2, 1), affine=torch.tensor(AFFINE[:, [2, 1, 0, 3]]))


case("orient_zyx", "orient", "axes=zyx", reversed_axes, reversed_axes)
for name, spacing in (("finer", (1.1, 1.3, 1.9)), ("coarser", (2.4, 1.5, 4.1))):
    # Spacing works along the voxel axes of the case, as the operator does.
    case(f"resample_{name}", "resample", f"spacing={list(spacing)}",
         mt.Spacing(spacing, mode="bilinear", padding_mode="border", dtype=torch.float64),
         mt.Spacing(spacing, mode="nearest", padding_mode="border", dtype=torch.float64))
case("scale_range", "scale_range", "from=[-40, 120]\tto=[0, 1]\tclip=true",
     mt.ScaleIntensityRange(-40, 120, 0, 1, clip=True))
case("scale_range_open", "scale_range", "from=[-40, 120]\tto=[-1, 3]\tclip=false",
     mt.ScaleIntensityRange(-40, 120, -1, 3, clip=False))
case("zscore", "normalize", "mode=zscore\tscope=whole", mt.NormalizeIntensity(channel_wise=True))
case("zscore_nonzero", "normalize", "mode=zscore\tscope=nonzero",
     mt.NormalizeIntensity(nonzero=True, channel_wise=True))
case("minmax", "normalize", "mode=minmax\tscope=whole", mt.ScaleIntensity(0, 1, channel_wise=True))
case("crop_foreground", "crop_foreground", "above=100\tmargin=1",
     mt.CropForeground(select_fn=lambda x: x > 100, margin=1, allow_smaller=True))
case("crop_tight", "crop_foreground", "above=150\tmargin=0",
     mt.CropForeground(select_fn=lambda x: x > 150, margin=0, allow_smaller=True))
case("crop_nonzero", "crop_foreground", "nonzero=true\tabove=150",
     mt.CropForeground(select_fn=lambda x: x != 0, allow_smaller=True))

case("pad", "pad", "size=[20, 17, 8]\tvalue=-3", mt.SpatialPad((20, 17, 8), value=-3))
case("pad_multiple", "pad", "multiple=[4, 5, 16]\tvalue=-3", mt.DivisiblePad((4, 5, 16), value=-3),
     mt.DivisiblePad((4, 5, 16)))
case("centre_crop", "centre_crop", "size=[10, 9, 11]", mt.ResizeWithPadOrCrop((10, 9, 11)))


def clip(x):
    low, high = np.percentile(x.numpy(), [2.5, 90])
    return x.clamp(float(low), float(high))


case("clip_percentile", "clip_percentile", "percent=[2.5, 90]", clip)


# Sample operators whose ranges leave nothing to chance.
def as_tensor(y):
    return MetaTensor(torch.tensor(y[None]), affine=torch.tensor(AFFINE))


def sharpen(x):
    v = x[0].numpy().astype(np.float64)
    return as_tensor(np.clip(v + 1.5 * (v - ndimage.gaussian_filter(v, 0.8, mode="nearest")), v.min(), v.max()))


def ring(x):
    waves = fft.dctn(x[0].numpy().astype(np.float64), norm="ortho")
    low = np.zeros(SHAPE)
    low[tuple(slice(round(0.6 * n)) for n in SHAPE)] = 1
    return as_tensor(fft.idctn(waves * low, norm="ortho"))


case("sharpen", "random_sharpen", "probability=1\tsd=[0.8, 0.8]\tstrength=[1.5, 1.5]", sharpen)
case("ringing", "random_ringing", "probability=1\tkeep=[0.6, 0.6]", ring)


# resample beyond MONAI: splines, nnU-Net's grid, a separate axis, masks as a vote. The oracle is SciPy,
# a slice at a time where an axis is separate.
SPACING = np.sqrt((AFFINE[:3, :3] ** 2).sum(0))


def axis_places(n, old, new, extent):
    if extent:
        m = round(n * old / new)
        return (np.arange(m) + 0.5) * n / m - 0.5
    return np.arange(round((n - 1) * old / new + 1)) * new / old


def nearest(places, n, extent):
    """Halfway between two voxels nnU-Net, by way of SciPy, takes the later one, and MONAI the even one."""
    return np.clip(np.floor(places + 0.5) if extent else np.rint(places), 0, n - 1).astype(int)


def read_at(x, places, order):
    """Spline of x at a grid of places, cut to x's range."""
    grid = np.stack(np.meshgrid(*places, indexing="ij"))
    y = ndimage.map_coordinates(x, grid, order=order, mode="nearest")
    return np.clip(y, x.min(), x.max())


def read_separately(x, places, order, axis, extent):
    if axis is None:
        return read_at(x, places, order)
    flat = [p for a, p in enumerate(places) if a != axis]
    slices = [read_at(s, flat, order) for s in np.moveaxis(x, axis, 0)]
    return np.moveaxis(np.stack([slices[i] for i in nearest(places[axis], len(slices), extent)]), 0, axis)


def resample(name, spacing, order=1, extent=False, axis=None, vote=False, more=""):
    places = [axis_places(n, old, new, extent) for n, old, new in zip(SHAPE, SPACING, spacing)]
    clamped = [np.clip(p, 0, n - 1) for p, n in zip(places, SHAPE)]
    y = read_separately(image.astype(np.float64), places if order > 1 else clamped, order, axis, extent)
    if vote:
        masks = [read_separately((label == c).astype(np.float64), clamped, 1, axis, extent) for c in range(3)]
        z = np.argmax(np.round(masks, 6), axis=0)
    else:
        z = label[np.ix_(*[nearest(p, n, extent) for p, n in zip(clamped, SHAPE)])]
    affine = AFFINE.copy()
    for a, p in enumerate(places):
        affine[:3, 3] += AFFINE[:3, a] * p[0]
        affine[:3, a] *= p[1] - p[0]
    save(f"{name}.nii.gz", y.astype(np.float32), affine)
    save(f"{name}_label.nii.gz", z.astype(np.uint8), affine)
    attributes = f"spacing={list(spacing)}\timage={'cubic' if order == 3 else 'linear'}"
    attributes += "\tgrid=extent" if extent else ""
    attributes += "\tlabel=linear" if vote else ""
    lines.append("\t".join([f"{name}.nii.gz", f"{name}_label.nii.gz", "resample", attributes + more]))


resample("cubic_finer", (1.1, 1.3, 1.9), order=3)
resample("cubic_coarser", (2.4, 1.5, 4.1), order=3, vote=True)
resample("extent", (1.2, 2.0, 2.5), extent=True, vote=True)
resample("extent_cubic", (1.2, 2.0, 2.5), order=3, extent=True)
resample("separate_given", (1.2, 1.1, 2.1), order=3, extent=True, axis=0, vote=True,
         more="\tseparate_axis=x")
resample("separate_found", (1.2, 1.1, 2.1), order=3, extent=True, axis=2, vote=True,
         more="\tseparate_axis=auto\tseparate_above=2.1")
resample("separate_not_found", (1.2, 1.4, 2.5), order=3, extent=True,
         more="\tseparate_axis=auto")
resample("separate_in_the_new_grid", (1.2, 1.4, 4.5), order=1, axis=2,
         more="\tseparate_axis=auto")

with open(os.path.join(HERE, "cases.txt"), "w") as out:
    out.write("\n".join(lines) + "\n")
