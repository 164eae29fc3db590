"""Fixtures for tests/unit/test_conv.c: convolutions, transposed convolutions and linear layers with
their gradients, from PyTorch in double precision.

  python3 tests/golden/make_conv.py

writes conv/cases.txt, one line a case:
  kind batch channels features groups  image×3 kernel×3 stride×3 padding×3 dilation×3 output_padding×3
and conv/values.f32, for each case in order, as little-endian floats with volumes channels-last:
  x weight bias y dy dx dweight dbias
"""
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

CASES = [
    # kind, batch, channels, features, groups, image, kernel, stride, padding, dilation, output padding
    ("conv", 2, 3, 5, 1, (4, 3, 7), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0)),
    ("conv", 1, 16, 16, 1, (3, 3, 5), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0)),
    ("conv", 1, 1, 17, 1, (4, 4, 6), (3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1), (0, 0, 0)),
    ("conv", 1, 4, 6, 2, (4, 5, 6), (1, 2, 3), (1, 2, 1), (0, 1, 2), (1, 1, 2), (0, 0, 0)),
    ("conv", 1, 2, 4, 1, (4, 4, 8), (4, 2, 4), (4, 2, 4), (0, 0, 0), (1, 1, 1), (0, 0, 0)),
    ("conv", 2, 17, 3, 1, (2, 3, 4), (1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), (0, 0, 0)),
    ("transpose", 1, 5, 3, 1, (2, 3, 4), (2, 2, 2), (2, 2, 2), (0, 0, 0), (1, 1, 1), (0, 0, 0)),
    ("transpose", 1, 4, 6, 2, (3, 2, 3), (3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1), (1, 0, 1)),
    ("transpose", 1, 3, 2, 1, (2, 3, 3), (2, 3, 2), (1, 3, 2), (0, 0, 1), (1, 1, 2), (0, 2, 1)),
]


def channels_last(t):
    return t.permute(0, 2, 3, 4, 1) if t.dim() == 5 else t


def main():
    folder = pathlib.Path(__file__).parent / "conv"
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(7)
    random = lambda *shape: torch.randn(*shape, generator=generator).double().requires_grad_()
    lines, values = [], []
    for kind, n, c, f, g, image, kernel, stride, padding, dilation, extra in CASES:
        x = random(n, c, *image)
        weight = random(*((f, c // g) if kind == "conv" else (c, f // g)), *kernel)
        bias = random(f)
        if kind == "conv":
            y = F.conv3d(x, weight, bias, stride, padding, dilation, g)
        else:
            y = F.conv_transpose3d(x, weight, bias, stride, padding, extra, g, dilation)
        dy = torch.randn(y.shape, generator=generator).double()
        y.backward(dy)
        numbers = [n, c, f, g, *image, *kernel, *stride, *padding, *dilation, *extra]
        lines.append(" ".join([kind, *map(str, numbers)]))
        parts = [channels_last(x), weight, bias, channels_last(y), channels_last(dy), channels_last(x.grad),
                 weight.grad, bias.grad]
        values += [p.detach().contiguous().numpy().astype("<f4").ravel() for p in parts]
    (folder / "cases.txt").write_text("\n".join(lines) + "\n")
    np.concatenate(values).tofile(folder / "values.f32")


main()
