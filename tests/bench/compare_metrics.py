"""HD95 and ASSD of 13 classes on 220×180×160 voxels: ours beside MONAI's, in turn, with medians.

    cmake -B build -DSTRATA_BENCH=ON && cmake --build build --target bench_metrics
    python tests/bench/compare_metrics.py [--threads 2] [--rounds 5]

Two pairs of label maps: compact organs, and the same with a few stray voxels of every class in the
corners of the volume, where a distance transform over the class's box is one over the whole volume.
MONAI gets one call for each metric on one-hot masks that are ready made; SciPy, called for each class
within its box, is as fast as Python gets; ours gets the label maps.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import scipy.ndimage as ndi
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

SIZE, CLASSES, SPACING = (220, 180, 160), 14, (0.8, 0.8, 1.5)


def organs(generator):
    """13 ellipsoids with a rough surface on a grid of places; a prediction a voxel or two off."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SIZE], indexing="ij"), -1).astype(np.float32)
    noise = [ndi.gaussian_filter(generator.standard_normal(SIZE).astype(np.float32), 3) for _ in range(2)]
    maps = [np.zeros(SIZE, np.uint8) for _ in range(2)]
    for c in range(1, CLASSES):
        place = np.array([(c - 1) % 4, (c - 1) // 4 % 2, (c - 1) // 8]) * (54, 85, 75) + (28, 45, 40)
        radii = generator.uniform(14, 25, 3) * (1, 1.3, 1.2)
        for i in range(2):
            centre = place + (generator.uniform(-1.5, 1.5, 3) if i else 0)
            r = (((grid - centre.astype(np.float32)) / radii.astype(np.float32)) ** 2).sum(-1)
            maps[i][r + 4 * noise[i] < 1] = c
    return maps


def with_outliers(maps, generator):
    out = [m.copy() for m in maps]
    for m in out:
        for c in range(1, CLASSES):
            for corner in np.ndindex(2, 2, 2):
                at = [int(generator.integers(0, 8)) if k == 0 else n - 1 - int(generator.integers(0, 8))
                      for k, n in zip(corner, SIZE)]
                m[tuple(at)] = c
    return out


def monai(prediction, reference):
    started = time.perf_counter()
    hd95 = compute_hausdorff_distance(prediction, reference, percentile=95, spacing=list(SPACING))
    assd = compute_average_surface_distance(prediction, reference, symmetric=True, spacing=list(SPACING))
    return 1e3 * (time.perf_counter() - started), hd95[0].numpy(), assd[0].numpy()


def border(mask):
    return mask ^ ndi.binary_erosion(mask)


def scipy_in_boxes(prediction, reference):
    """What MONAI computes, by hand: a distance transform each way within the class's box."""
    started = time.perf_counter()
    hd95, assd = [], []
    for c in range(1, CLASSES):
        masks = prediction == c, reference == c
        box = ndi.find_objects((masks[0] | masks[1]).view(np.uint8))[0]
        p, r = (border(np.pad(m[box], 1)) for m in masks)
        to_r = ndi.distance_transform_edt(~r, sampling=SPACING)[p]
        to_p = ndi.distance_transform_edt(~p, sampling=SPACING)[r]
        hd95.append(max(np.percentile(to_r, 95), np.percentile(to_p, 95)))
        assd.append(np.hstack([to_r, to_p]).mean())
    return 1e3 * (time.perf_counter() - started), np.array(hd95), np.array(assd)


def ours(program, files, threads):
    out = subprocess.run([program, *files, str(CLASSES), str(threads), "5"], check=True,
                         capture_output=True, text=True).stdout.splitlines()
    values = np.array([[float(v) for v in line.split()[1:]] for line in out[1:]])
    return statistics.median(float(v) for v in out[0].split()), values[:, 0], values[:, 1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--program", default="build/tests/bench/bench_metrics")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    generator = np.random.default_rng(7)
    compact = organs(generator)
    for name, maps in [("compact", compact), ("far outliers", with_outliers(compact, generator))]:
        one_hot = [torch.nn.functional.one_hot(torch.from_numpy(m).long(), CLASSES).movedim(-1, 0)[None].to(torch.uint8).contiguous()
                   for m in maps]
        with tempfile.TemporaryDirectory() as folder:
            files = [str(Path(folder) / f"{i}.nii") for i in range(2)]
            for m, f in zip(maps, files):
                nibabel.save(nibabel.Nifti1Image(m, np.diag([*SPACING, 1])), f)
            rounds = [(ours(a.program, files, a.threads), scipy_in_boxes(*maps), monai(*one_hot))
                      for _ in range(a.rounds)]
        mine = [r[0] for r in rounds]
        print(f"{name}: ours {statistics.median(m[0] for m in mine):.1f} ms, {a.threads} threads, "
              f"{a.rounds} rounds")
        for i, rival, digits in [(1, "SciPy in boxes", 1e-6), (2, "MONAI", 1e-4)]:
            for k in (1, 2):
                np.testing.assert_allclose(mine[0][k], rounds[0][i][k], atol=digits)
            ratios = [r[i][0] / r[0][0] for r in rounds]
            print(f"  {rival}: {statistics.median(r[i][0] for r in rounds):.0f} ms, "
                  f"{statistics.median(ratios):.1f} times as long ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
