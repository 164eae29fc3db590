"""The table of bench_conv.c for PyTorch: best time of each pass, in GFLOP/s (ms).

  python3 tests/bench/bench_conv.py [threads] [contiguous|channels_last] [seconds] [name filter]
"""
import math
import sys
import time

import torch
import torch.nn.functional as F

CASES = [("conv", 48, 1, 16, 3), ("conv", 48, 16, 16, 3), ("conv", 48, 32, 16, 3), ("conv", 48, 1, 16, 1),
         ("conv", 48, 32, 16, 1), ("conv", 48, 16, 3, 1), ("conv", 24, 32, 32, 3), ("conv", 24, 64, 32, 3),
         ("conv", 24, 64, 32, 1), ("conv", 12, 64, 64, 3), ("conv", 12, 128, 64, 3), ("conv", 6, 128, 128, 3),
         ("conv", 6, 256, 128, 3), ("conv", 96, 16, 16, 3), ("conv", 96, 32, 16, 3), ("up", 3, 192, 128, 2),
         ("up", 6, 128, 64, 2), ("up", 12, 64, 32, 2), ("up", 24, 32, 16, 2), ("linear", 27, 192, 576, 1),
         ("linear", 27, 192, 192, 1), ("linear", 27, 192, 768, 1), ("linear", 27, 768, 192, 1),
         ("linear", 27, 4096, 192, 1), ("linear", 216, 768, 3072, 1), ("conv", 48, 8, 8, 3),
         ("flat", 48, 8, 8, 3), ("flat", 48, 32, 32, 3), ("flat", 24, 64, 64, 3), ("flat", 12, 128, 128, 3)]


def best(function, seconds):
    shortest, end, runs = 1e30, time.perf_counter() + seconds, 0
    while runs < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        function()
        shortest = min(shortest, time.perf_counter() - start)
        runs += 1
    return shortest


def main():
    arguments = sys.argv[1:] + [None] * 4
    torch.set_num_threads(int(arguments[0] or 2))
    last = arguments[1] != "contiguous"
    seconds = float(arguments[2] or 0.1)
    layout = torch.channels_last_3d if last else torch.contiguous_format
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, "
          f"{'channels last' if last else 'contiguous'}; GFLOP/s (ms)")
    print(f"{'shape':26s} {'forward':>18s} {'data gradient':>18s} {'weight gradient':>18s}")
    for kind, extent, channels, features, kernel in CASES:
        name = f"{kind} {extent} {channels}>{features} k{kernel}"
        if arguments[3] and arguments[3] not in name:
            continue
        if kind == "linear":
            x, w = torch.randn(extent, channels), torch.randn(features, channels)
            y = F.linear(x, w)
            passes = [lambda: F.linear(x, w), lambda: y @ w, lambda: y.t() @ x]
            flops = 2 * extent * channels * features
        else:
            x = torch.randn(1, channels, extent, extent, extent).to(memory_format=layout)
            up = kind == "up"
            filter = [kernel, kernel, 1 if kind == "flat" else kernel]  # flat: one tap along z
            w = torch.randn(*((channels, features) if up else (features, channels)), *filter)
            w = w.to(memory_format=layout)
            stride, padding = (kernel, [0] * 3) if up else (1, [k // 2 for k in filter])
            forward = (lambda: F.conv_transpose3d(x, w, stride=stride)) if up else (
                lambda: F.conv3d(x, w, padding=padding))
            dy = torch.randn_like(forward())
            back = lambda mask: torch.ops.aten.convolution_backward(
                dy, x, w, None, [stride] * 3, padding, [1] * 3, up, [0] * 3, 1, mask)
            passes = [forward, lambda: back([True, False, False]), lambda: back([False, True, False])]
            flops = 2 * extent**3 * channels * features * math.prod(filter)
        print(f"{name:26s}", end="")
        with torch.no_grad():
            for p in passes:
                t = best(p, seconds)
                print(f"  {flops / t * 1e-9:6.1f} ({t * 1e3:8.3f})", end="", flush=True)
        print()


main()
