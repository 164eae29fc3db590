"""Fixture of test_infer for what make_metrics.py's lacks: nnU-Net's placing and importance of windows,
mirroring, batches, ensembles (MONAI's sliding window around a network that does it).

Run from the repository root:  python3 tests/golden/make_inference.py
"""
import itertools
import json
import pathlib

import numpy as np
import scipy.ndimage as ndi
import torch
from monai.inferers.utils import sliding_window_inference

OUT = pathlib.Path(__file__).parent / "metrics" / "windows.json"
CLASSES = 3
random = np.random.default_rng(11)


def rounded(a, digits):
    return [float(f"{v:.{digits}g}") for v in np.asarray(a, dtype=np.float64).ravel()]


def even_starts(size, window, step):
    """nnU-Net 2's compute_steps_for_sliding_window along one axis, by its definition."""
    last = size - window
    count = int(np.ceil(last / step)) + 1
    distance = last / (count - 1) if count > 1 else 0
    return [int(np.round(distance * i)) for i in range(count)]


def cut_gaussian(window, scale):
    """nnU-Net's importance: an impulse in the middle, filtered by SciPy; zeros raised to the smallest."""
    impulse = np.zeros(window)
    impulse[tuple(n // 2 for n in window)] = 1
    g = ndi.gaussian_filter(impulse, [n * scale for n in window], mode="constant")
    g /= g.max()
    g[g == 0] = g[g > 0].min()
    return g


def network(window, member):
    """Depends on the place in the window, so that blending and mirroring show."""
    nx, ny, nz = window.shape[1:]
    x, y, z = np.meshgrid(np.arange(nx), np.arange(ny), np.arange(nz), indexing="ij")
    ramp = [x / nx, y / ny - 0.3, 0.5 - z / nz]
    return np.stack([(c + 1) * window.sum(0) * 0.5 + 2 * ramp[c] - window[-1] * c + 0.7 * member * (c - 1)
                     for c in range(CLASSES)])


def softmax(a):
    e = np.exp(a - a.max(0))
    return e / e.sum(0)


def mirrored(window, axes, activation, member):
    """The mean over every subset of the axes."""
    subsets = [s for n in range(len(axes) + 1) for s in itertools.combinations(axes, n)]
    total = 0
    for s in subsets:
        flips = [1 + "xyz".index(a) for a in s]
        total = total + np.flip(activation(network(np.flip(window, flips), member)), flips)
    return total / len(subsets)


def by_monai(image, window, overlap, mode, scale, batch, predict):
    def predictor(windows):
        return torch.from_numpy(np.stack([predict(w) for w in windows.numpy()]).astype(np.float32))
    return sliding_window_inference(torch.from_numpy(image[None]), window, batch, predictor, overlap, mode,
                                    sigma_scale=scale)[0].numpy()


def by_nnunet(image, window, step, scale, predict):
    """Windows placed evenly, blended with nnU-Net's importance."""
    weight = cut_gaussian(window, scale)
    total, weights = np.zeros((CLASSES, *image.shape[1:])), np.zeros(image.shape[1:])
    starts = [even_starts(n, w, w * step) for n, w in zip(image.shape[1:], window)]
    for at in itertools.product(*starts):
        part = tuple(slice(a, a + w) for a, w in zip(at, window))
        total[(slice(None), *part)] += predict(image[(slice(None), *part)]) * weight
        weights[part] += weight
    return total / weights


def volumes():
    cases = []
    for size, channels, window, mode, overlap, step, scale, batch, axes, average, members in [
        ((11, 9, 7), 1, (6, 4, 5), "gaussian", 0.5, 0, 0.125, 3, "xyz", "logits", 1),
        ((11, 9, 7), 2, (6, 4, 5), "constant", 0.25, 0, 0.125, 4, "y", "probabilities", 1),
        ((5, 9, 4), 1, (8, 6, 7), "gaussian", 0.25, 0, 0.25, 2, "xz", "probabilities", 1),
        ((9, 8, 7), 1, (4, 5, 5), "gaussian", 0.5, 0, 0.125, 1, "", "logits", 3),
        ((13, 9, 8), 2, (6, 4, 5), "gaussian_nnunet", 0, 0.5, 0.125, 5, "z", "logits", 1),
        ((13, 10, 8), 1, (6, 7, 5), "gaussian_nnunet", 0, 0.5, 0.125, 2, "xyz", "probabilities", 2),
    ]:
        image = np.round(random.standard_normal((channels, *size)), 3).astype(np.float32)
        activation = softmax if average == "probabilities" else (lambda a: a)

        def predict(w):
            return sum(mirrored(w, axes, activation, m) for m in range(members)) / members
        if step:
            p = by_nnunet(image.astype(np.float64), window, step, scale, predict)
        else:
            p = by_monai(image, window, overlap, mode, scale, batch, predict)
        if average == "logits":
            p = softmax(p)
        cases.append({"size": list(size), "channels": channels, "window": list(window), "blend": mode,
                      "overlap": overlap, "step": step, "sigma_scale": scale, "batch": batch, "mirror": axes,
                      "average": average, "members": members, "image": rounded(np.moveaxis(image, 0, -1), 6),
                      "probabilities": rounded(np.moveaxis(p, 0, -1), 6)})
    return cases


content = {
    "positions": [{"size": n, "window": w, "step": s, "start": even_starts(n, w, s)}
                  for n, w, s in [(96, 48, 24.0), (100, 48, 24.0), (97, 96, 48.0), (48, 48, 24.0), (50, 16, 16.0),
                                  (33, 16, 5.0), (129, 32, 9.6), (20, 1, 1.0), (200, 96, 28.8)]],
    "importance": [{"window": list(w), "sigma_scale": s, "weight": rounded(cut_gaussian(w, s), 9)}
                   for w, s in [((8, 6, 5), 0.125), ((3, 1, 2), 0.125), ((4, 12, 9), 0.125), ((6, 5, 4), 0.08)]],
    "sliding_window": volumes(),
}
OUT.write_text(json.dumps(content, separators=(",", ":")).replace('},{"', '},\n{"') + "\n")
