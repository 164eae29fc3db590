"""Writes tests/golden/prepare: one small case and what MONAI makes of it with the transform each
prepare operator names. cases.txt lists: expected file, operator, attributes.

Needs monai, torch, nibabel, numpy. Run in this folder: python make_prepare.py
"""

import gzip
import os

import monai.transforms as mt
import nibabel as nib
import numpy as np
import torch
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
case("pad", "pad", "size=[20, 17, 8]\tvalue=-3", mt.SpatialPad((20, 17, 8), value=-3))
case("centre_crop", "centre_crop", "size=[10, 9, 11]", mt.ResizeWithPadOrCrop((10, 9, 11)))


def clip(x):
    low, high = np.percentile(x.numpy(), [2.5, 90])
    return x.clamp(float(low), float(high))


case("clip_percentile", "clip_percentile", "percent=[2.5, 90]", clip)

with open(os.path.join(HERE, "cases.txt"), "w") as out:
    out.write("\n".join(lines) + "\n")
