"""Peak memory of `strata predict` on a large CT with many classes: reading, preparation, sliding window,
export and writing.

    python3 tests/bench/predict_memory.py [--size 512 512 1000] [--memory 512MiB] [--limit 2]

Trains two convolutions for a step on phantoms with 13 organs, writes a volume of noise of that size
(int16, gzip, 0.8×0.8×1 mm), segments it and prints the largest resident memory of the process. Where
this process may make a control group (as root, as a rule), the command runs in one of --limit GiB, page
cache included, without swap: it fails there if it needs more. --spacing 1.5 1.5 2 resamples, so that
the export resamples probabilities. At full size it takes minutes, and some gigabytes in $TMPDIR. Needs
no packages.
"""
import argparse
import gzip
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
GROUPS = pathlib.Path("/sys/fs/cgroup")


def write_volume(path, size, spacing):
    """Slices of noise around 40 HU, 16 different ones in turn, LPS as scanners write them."""
    x, y, z = size
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, x, y, z, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)  # int16
    struct.pack_into("<8f", header, 76, 1, *spacing, 0, 0, 0, 0)
    struct.pack_into("<2f", header, 108, 352, 1)  # vox_offset, scl_slope
    struct.pack_into("<2h", header, 252, 0, 1)
    struct.pack_into("<12f", header, 280, -spacing[0], 0, 0, 200, 0, -spacing[1], 0, 200, 0, 0, spacing[2], 0)
    header[344:348] = b"n+1\0"
    noise = random.Random(3)
    slices = []
    for _ in range(16):
        low = bytes(b & 127 for b in noise.randbytes(x * y))
        slices.append(b"".join(bytes((b, 0)) for b in low))
    with gzip.open(path, "wb", compresslevel=1) as out:
        out.write(header)
        for k in range(z):
            out.write(slices[k % len(slices)])


def make_group(limit_bytes):
    """A control group, of version 1 or 2, or None where this process may not make one."""
    first = (GROUPS / "memory" / "memory.limit_in_bytes").exists()
    if not first and not (GROUPS / "cgroup.controllers").exists():
        return None
    group = (GROUPS / "memory" if first else GROUPS) / f"strata-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        return None
    try:
        (group / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(limit_bytes))
        (group / ("memory.swappiness" if first else "memory.swap.max")).write_text("0")
    except OSError:
        group.rmdir()
        return None
    return group


def run(command, enter=None):
    """Its peak of resident memory in bytes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=enter)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"failed: {' '.join(command)}")
    return usage.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strata", default="build/strata")
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 1000))
    parser.add_argument("--spacing", type=float, nargs=3, help="in mm: resample to it")
    parser.add_argument("--memory", default="512MiB", help="budget of the sums")
    parser.add_argument("--window", type=int, default=96)
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=2, help="GiB")
    options = parser.parse_args()
    strata, limit = os.path.abspath(options.strata), int(options.limit * 2**30)
    with tempfile.TemporaryDirectory() as folder:
        window = "evaluate.inferer.sliding_window"
        settings = ["--set", f"data.root={folder}/phantom"]
        if options.spacing:
            settings += ["--set", f"data.prepare.1={{resample: {{spacing: {list(options.spacing)}}}}}"]
        run([strata, "phantom", f"{folder}/phantom", "--cases", "3", "--organs", "13", "--size", "32"])
        run([strata, "run", str(HERE / "predict_memory.yaml"), *settings, "--out", f"{folder}/run"])
        write_volume(f"{folder}/ct.nii.gz", options.size, (0.8, 0.8, 1.0))
        print(f"{os.path.getsize(f'{folder}/ct.nii.gz') / 2**20:.0f} MiB of {'×'.join(map(str, options.size))} voxels")
        group = make_group(limit)
        enter = (lambda: (group / "cgroup.procs").write_text(str(os.getpid()))) if group else None
        started = time.monotonic()
        roi = f"[{options.window}, {options.window}, {options.window}]"
        try:
            peak = run([strata, "predict", f"{folder}/run", f"{folder}/ct.nii.gz", "-o", f"{folder}/seg.nii.gz",
                        "--threads", str(options.threads), "--set", f"{window}.memory={options.memory}",
                        "--set", f"{window}.size={roi}", "--set", f"{window}.overlap={options.overlap}"], enter)
        finally:
            if group:
                group.rmdir()
        print(f"predict: {time.monotonic() - started:.0f} s, peak {peak / 2**20:.0f} MiB resident"
              + (f", in a control group of {options.limit:g} GiB" if group else ""))
        if peak > limit:
            sys.exit(f"more than {options.limit:g} GiB")


main()
