"""Fixtures of test_metrics and test_infer, from SciPy and MONAI.

    python tests/golden/make_metrics.py

Masks are run lengths over (X, Y, Z) with z fastest, starting with the zeros.
"""

import json
import math
from pathlib import Path

import numpy as np
import scipy.ndimage as ndi
import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers.utils import _get_scan_interval, sliding_window_inference
from monai.metrics import (
    ConfusionMatrixMetric, DiceMetric, MeanIoU, SurfaceDiceMetric, compute_average_surface_distance,
    compute_hausdorff_distance,
)

OUT = Path(__file__).parent / "metrics"
random = np.random.default_rng(20240607)


def runs(mask):
    flat = np.concatenate([[0], mask.astype(np.int8).ravel(), [-1]])
    edges = np.flatnonzero(np.diff(flat)) if flat.size else []
    lengths, previous = [], 0
    for e in edges:
        lengths.append(int(e - previous))
        previous = e
    return lengths


def rounded(values, digits):
    return [float(f"{v:.{digits}g}") for v in np.asarray(values, dtype=np.float64).ravel()]


def blob(size, centre, radii, noise=0.0):
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"), -1)
    r = (((grid - np.array(centre)) / np.array(radii)) ** 2).sum(-1)
    return r + noise * ndi.gaussian_filter(random.standard_normal(size), 1) < 1


def border(mask):
    return mask ^ ndi.binary_erosion(mask)


def pooled95(a, b, spacing):
    """MedPy's hd95: one percentile over the distances of both directions."""
    sa, sb = border(a), border(b)
    to_b = ndi.distance_transform_edt(~sb, sampling=spacing)[sa]
    to_a = ndi.distance_transform_edt(~sa, sampling=spacing)[sb]
    return float(np.percentile(np.hstack([to_b, to_a]), 95))


def pair(name, a, b, spacing=(1.0, 1.0, 1.0)):
    ta, tb = (torch.from_numpy(m)[None, None].float() for m in (a, b))
    hd = compute_hausdorff_distance(ta, tb, include_background=True, percentile=95,
                                    spacing=list(spacing))
    dice = DiceMetric(include_background=True)
    dice(ta, tb)
    both = a.any() and b.any()
    return {
        "name": name, "size": list(a.shape), "spacing_mm": list(spacing), "a": runs(a), "b": runs(b),
        "dice": float(dice.aggregate()) if b.any() else None,
        "max": float(hd[0, 0]) if both else None,
        "pooled": pooled95(a, b, spacing) if both else None,
    }


def hausdorff_pairs():
    size = (20, 18, 14)
    a = blob(size, (9, 8, 6), (6, 5, 4), 2.0)
    b = blob(size, (10.5, 8, 7), (6, 4, 5), 2.0)
    empty = np.zeros(size, bool)
    single = empty.copy()
    single[3, 4, 5] = True
    corner = empty.copy()
    corner[-1, -1, -1] = True
    thin_a = blob((16, 15, 1), (7, 7, 0), (5, 4, 1))
    thin_b = blob((16, 15, 1), (8, 9, 0), (4, 5, 1))
    line_a = np.zeros((1, 1, 12), bool)
    line_a[0, 0, 1:5] = True
    line_b = np.zeros((1, 1, 12), bool)
    line_b[0, 0, 3:11] = True
    island = a.copy()
    island[18:20, 0:2, 0:2] = True
    hollow = a & ~ndi.binary_erosion(a, iterations=2)
    return [
        pair("two noisy blobs", a, b),
        pair("anisotropic spacing", a, b, (0.75, 1.5, 5.0)),
        pair("equal masks", a, a, (1.0, 2.0, 3.0)),
        pair("single voxels", single, corner, (1.5, 1.0, 2.5)),
        pair("single voxel and blob", single, a, (1.0, 1.0, 2.0)),
        pair("masks that touch the image border", blob(size, (0, 0, 0), (9, 8, 7)),
             blob(size, (1, 2, 0), (8, 9, 6)), (1.0, 1.2, 0.8)),
        pair("whole image and blob", ~empty, a, (1.0, 1.0, 3.0)),
        pair("one voxel thick", thin_a, thin_b, (0.5, 0.7, 4.0)),
        pair("one line", line_a, line_b, (1.0, 1.0, 0.3)),
        pair("far island", island, b, (1.0, 0.5, 2.0)),
        pair("hollow", hollow, a, (1.0, 1.0, 1.0)),
        pair("prediction empty", empty, a),
        pair("reference empty", a, empty),
        pair("both empty", empty, empty),
    ]


def distance_transforms():
    cases = []
    for size, spacing, density in [((9, 8, 7), (1.0, 1.0, 1.0), 0.02), ((9, 8, 7), (0.6, 2.0, 5.0), 0.05),
                                   ((1, 12, 9), (3.0, 0.5, 0.5), 0.05), ((7, 7, 7), (1.0, 1.3, 0.9), 0.5),
                                   ((6, 5, 20), (4.0, 1.0, 0.25), 0.01)]:
        mask = random.random(size) < density
        mask[tuple(n // 2 for n in size)] = True
        distance = ndi.distance_transform_edt(~mask, sampling=spacing)
        cases.append({"size": list(size), "spacing_mm": list(spacing), "mask": runs(mask),
                      "squared_mm": rounded(distance**2, 8)})
    return cases


def value_runs(labels):
    """[value, length, value, length, …] with z fastest."""
    flat = labels.ravel()
    edges = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]])
    return [int(v) for a, b in zip(edges[:-1], edges[1:]) for v in (flat[a], b - a)]


def surface_distances(p, r, spacing):
    """In double precision: from the surface of p to that of r, and the other way."""
    sp, sr = border(p), border(r)
    return (ndi.distance_transform_edt(~sr, sampling=spacing)[sp],
            ndi.distance_transform_edt(~sp, sampling=spacing)[sr])


def class_values(p, r, spacing, tolerance):
    both, n, m = int((p & r).sum()), int(p.sum()), int(r.sum())
    ratio = lambda a, b: a / b if b else None
    values = {
        "dice": ratio(2 * both, n + m), "jaccard": ratio(both, n + m - both),
        "precision": ratio(both, n), "recall": ratio(both, m),
        "volume_difference": abs(n - m) * math.prod(spacing) / 1000 if n + m else None,
        "relative_volume_difference": ratio(n - m, m),
        "hd": None, "hd95": None, "hd95_pooled": None, "assd": None, "nsd": 0.0 if n + m else None,
    }
    if n and m:
        to_r, to_p = surface_distances(p, r, spacing)
        all_ = np.hstack([to_r, to_p])
        values |= {
            "hd": float(all_.max()), "hd95": float(max(np.percentile(to_r, 95), np.percentile(to_p, 95))),
            "hd95_pooled": float(np.percentile(all_, 95)), "assd": float(all_.mean()),
            "nsd": float((all_ <= tolerance * (1 + 1e-9)).mean()),
        }
    check_with_monai(p, r, spacing, tolerance, values)
    return values


def check_with_monai(p, r, spacing, tolerance, values):
    """The definitions above are MONAI's, which computes them in single precision."""
    def equal(name, other):
        other = float(other)
        if values[name] is not None:
            assert abs(values[name] - other) <= 1e-5 * max(1, abs(other)), (name, values[name], other)

    if not (p.any() and r.any()):
        return
    tp, tr = (torch.from_numpy(m)[None, None].float() for m in (p, r))
    for name, metric in [
        ("dice", DiceMetric()), ("jaccard", MeanIoU()),
        ("precision", ConfusionMatrixMetric(metric_name="precision")),
        ("recall", ConfusionMatrixMetric(metric_name="recall")),
        ("nsd", SurfaceDiceMetric([tolerance], include_background=True)),
    ]:
        value = metric(tp, tr, spacing=list(spacing)) if name == "nsd" else metric(tp, tr)
        if name in ("precision", "recall"):
            value = metric.aggregate()[0]
        equal(name, value)
    options = dict(include_background=True, spacing=list(spacing))
    equal("hd", compute_hausdorff_distance(tp, tr, **options))
    equal("hd95", compute_hausdorff_distance(tp, tr, percentile=95, **options))
    equal("assd", compute_average_surface_distance(tp, tr, symmetric=True, **options))


def disturbed(labels, generator, by):
    """The labels where a smooth random displacement of a few voxels leads."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in labels.shape], indexing="ij")).astype(float)
    for a in range(3):
        noise = ndi.gaussian_filter(generator.standard_normal(labels.shape), 4)
        grid[a] += by * noise / noise.std()
    return ndi.map_coordinates(labels, grid, order=0, mode="nearest")


def smooth_shape(size, generator, centre, radii, noise):
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"), -1)
    r = (((grid - np.array(centre)) / np.array(radii)) ** 2).sum(-1)
    return r + noise * ndi.gaussian_filter(generator.standard_normal(size), 3) < 1


def label_maps():
    generator = np.random.default_rng(4)
    # Two parts of one long structure, and a lobed one: the shapes of a hippocampus and of an atrium.
    # Real label maps: make_volumes.py.
    long = smooth_shape((35, 51, 35), generator, (17, 25, 17), (6, 20, 7), 3.0)
    h = long.astype(np.uint8) * (1 + (np.arange(51) < 27).astype(np.uint8))[None, :, None]
    a = smooth_shape((48, 40, 36), generator, (23, 19, 17), (17, 13, 12), 5.0).astype(np.uint8)
    blobs = generator.integers(0, 5, (6, 5, 4)).repeat(3, 0).repeat(3, 1).repeat(3, 2).astype(np.uint8)
    far = np.zeros((40, 30, 25), np.uint8)
    far[5:12, 6:11, 3:9] = 1
    far_p = far.copy()
    far_p[6:9, 5:9, 3:12] = 1
    far_p[39, 29, 24] = 1
    far_p[0, 0, 0:2] = 1
    maps = [
        ("two parts", disturbed(h, generator, 1.5), h, (1.0, 1.0, 1.0), 1.0),
        ("two parts, anisotropic", disturbed(h, generator, 1.0), h, (0.7, 1.25, 3.0), 1.5),
        ("lobes", disturbed(a, generator, 2.0), a, (1.25, 1.25, 2.5), 2.0),
        ("five classes side by side", disturbed(blobs, generator, 1.0), blobs, (0.3, 0.9, 0.6), 0.9),
        ("far outliers", far_p, far, (0.5, 2.0, 1.1), 1.0),
        ("voxels at random", generator.integers(0, 3, (9, 8, 7)), generator.integers(0, 3, (9, 8, 7)),
         (0.1, 0.2, 0.35), 0.3),
        ("missed and hallucinated", np.where(h == 1, 3, h)[::2, ::2, ::2], h[::2, ::2, ::2],
         (1.0, 1.0, 2.0), 1.0),
    ]
    return [{
        "name": name, "size": list(r.shape), "spacing_mm": list(spacing), "tolerance_mm": tolerance,
        "prediction": value_runs(p), "reference": value_runs(r),
        "classes": [class_values(p == c, r == c, spacing, tolerance) for c in range(1, 5)],
    } for name, p, r, spacing, tolerance in maps]


def positions():
    cases = []
    for size, window, overlap in [(96, 48, 0.5), (100, 48, 0.5), (97, 96, 0.5), (48, 48, 0.5), (50, 16, 0.0),
                                  (33, 16, 0.25), (30, 16, 0.95), (35, 7, 0.8), (128, 96, 0.625), (10, 3, 0.3),
                                  (20, 1, 0.5), (200, 96, 0.7)]:
        interval = _get_scan_interval((size,), (window,), 1, (overlap,))
        start = [s[0][0] for s in dense_patch_slices((size,), (window,), interval, return_slice=False)]
        cases.append({"size": size, "window": window, "overlap": overlap, "start": [int(s) for s in start]})
    return cases


def importance_maps():
    return [{"window": list(w), "weight": rounded(compute_importance_map(w, mode="gaussian").numpy(), 9)}
            for w in [(8, 6, 5), (3, 1, 2), (4, 12, 9)]]


CLASSES = 3


def network(window):
    """Depends on the place in the window, so that blending shows. test_infer.c has the same."""
    nx, ny, nz = window.shape[2:]
    x, y, z = np.meshgrid(np.arange(nx), np.arange(ny), np.arange(nz), indexing="ij")
    image = window[0].numpy()
    ramp = [x / nx, y / ny - 0.3, 0.5 - z / nz]
    out = [(c + 1) * image.sum(0) * 0.5 + 2 * ramp[c] - image[-1] * c for c in range(CLASSES)]
    return torch.from_numpy(np.stack(out).astype(np.float32))[None]


def sliding_windows():
    cases = []
    for size, channels, window, overlap, mode in [
        ((11, 9, 7), 1, (6, 4, 5), 0.5, "gaussian"),
        ((11, 9, 7), 2, (6, 4, 5), 0.5, "constant"),
        ((9, 6, 5), 1, (4, 5, 5), 0.0, "constant"),
        ((5, 9, 4), 1, (8, 6, 7), 0.25, "gaussian"),
        ((3, 2, 1), 2, (6, 5, 4), 0.5, "gaussian"),
    ]:
        image = np.round(random.standard_normal((1, channels, *size)), 3).astype(np.float32)
        logits = sliding_window_inference(torch.from_numpy(image), window, 1, network, overlap, mode,
                                          sigma_scale=0.125)
        probabilities = torch.softmax(logits, 1)[0].numpy()
        cases.append({"size": list(size), "channels": channels, "window": list(window), "overlap": overlap,
                      "blend": mode, "image": rounded(np.moveaxis(image[0], 0, -1), 6),
                      "probabilities": rounded(np.moveaxis(probabilities, 0, -1), 6)})
    return cases


def rotation(angles):
    m = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = math.cos(angle), math.sin(angle)
        i, j = [k for k in range(3) if k != axis]
        r = np.eye(3)
        r[i, i], r[i, j], r[j, i], r[j, j] = c, -s, s, c
        m = r @ m
    return m


def affine(linear, offset):
    m = np.eye(4)
    m[:3, :3], m[:3, 3] = linear, offset
    return m


def exports():
    size = (9, 8, 7)
    p = np.stack([ndi.gaussian_filter(random.standard_normal(size), 1.2) for _ in range(CLASSES)], -1)
    p = np.exp(8 * p)
    p = np.array(rounded(p / p.sum(-1, keepdims=True), 6)).reshape(p.shape)
    prepared = affine(rotation((0.1, -0.2, 0.3)) @ np.diag([1.5, 1.5, 2.0]), (-10, 5, 30))
    cases = []
    for name, target, target_size in [
        ("finer along all axes", prepared @ affine(np.diag([0.5, 0.6, 0.4]), (-0.25, -0.2, -0.3)), (18, 14, 18)),
        ("coarser, half a voxel off", prepared @ affine(np.diag([2.0, 1.0, 1.0]), (0.4, 0.3, 0.45)), (5, 8, 8)),
        ("oblique", prepared @ affine(rotation((0.4, 0.5, -0.6)) * 0.7, (1, 2, -3)), (13, 12, 15)),
        ("oblique, flipped, larger", prepared @ affine(rotation((0.1, 0.0, 1.2)) @ np.diag([-0.8, 0.9, 1.1]),
                                                       (9, -1, -2)), (16, 14, 12)),
        ("one slice", prepared @ affine(np.diag([1, 1, 3.0]), (0, 0, 2.6)), (9, 8, 1)),
    ]:
        m = np.linalg.inv(prepared) @ target
        parts = [ndi.affine_transform(p[..., c], m[:3, :3], m[:3, 3], target_size, order=1, mode="nearest")
                 for c in range(CLASSES)]
        q = np.stack(parts, -1)
        grid = np.stack(np.meshgrid(*[np.arange(n) for n in target_size], indexing="ij"), -1)
        at = grid @ m[:3, :3].T + m[:3, 3]
        limits = np.array(size) - 0.5
        inside = ((at >= -0.5) & (at <= limits)).all(-1)
        label = np.where(inside, q.argmax(-1), 0)
        # -1: too close to call in floating point, between classes or at the rim
        top = np.sort(q, -1)
        near_rim = (np.minimum(np.abs(at + 0.5), np.abs(at - limits)) < 2e-3).any(-1)
        label[(inside & (top[..., -1] - top[..., -2] < 1e-6)) | near_rim] = -1
        cases.append({"name": name, "size": list(target_size), "affine": target.tolist(),
                      "label": label.ravel().tolist()})
    return {"size": list(size), "affine": prepared.tolist(), "probabilities": rounded(p, 6), "targets": cases}


def write(name, content):
    OUT.mkdir(exist_ok=True)
    text = json.dumps(content, separators=(",", ":"))
    (OUT / name).write_text(text.replace('},{"', '},\n{"') + "\n")


if __name__ == "__main__":
    write("metrics.json", {"hausdorff": hausdorff_pairs(), "distance": distance_transforms()})
    write("label_maps.json", label_maps())
    write("infer.json", {"positions": positions(), "importance": importance_maps(),
                         "sliding_window": sliding_windows(), "export": exports()})
