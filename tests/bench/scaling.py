"""How a training step's time grows with the batch and with the volume: UNETR (hidden 192), on the CPU.

    python3 tests/bench/scaling.py [--strata build/strata] [--rounds 3] [--threads 2]

Rounds run over all rows in turn; medians. Attention alone grows with the square of the voxels; it is a
small part of the step. Needs no packages.
"""

import argparse
import os
import statistics
import subprocess
import tempfile

import compare_networks

# size (x, y, z), batch
ROWS = [((32, 32, 32), 1), ((48, 48, 48), 1), ((64, 64, 64), 1), ((80, 80, 80), 1),
        ((48, 48, 48), 2), ((48, 48, 48), 4)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strata", default="build/strata")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.set_defaults(device="cpu")
    options = parser.parse_args()
    found = {row: [] for row in ROWS}
    with tempfile.TemporaryDirectory() as folder:
        compare_networks.make_phantom(options.strata, folder)
        for _ in range(options.rounds):
            for size, batch in ROWS:
                found[size, batch].append(compare_networks.bench(
                    options, folder, "unetr", size, {"hidden": 192, "heads": 4}, batch, "train"))
    print(f"| {options.threads} threads, median of {options.rounds} rounds | seconds | µs per 1000 voxels | "
          "peak memory (MiB) | first step (s) |")
    print("|---|---|---|---|---|")
    for (size, batch), runs in found.items():
        seconds = statistics.median(r["median_s"] for r in runs)
        voxels = batch * size[0] * size[1] * size[2]
        print(f"| {'×'.join(map(str, size))}, batch {batch} | {seconds:.3f} | {1e9 * seconds / voxels:.0f} | "
              f"{statistics.median(r['peak_rss_bytes'] for r in runs) / 2**20:.0f} | "
              f"{statistics.median(r['first_step_s'] for r in runs):.2f} |")


if __name__ == "__main__":
    main()
