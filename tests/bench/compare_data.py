"""The data path and the sliding window, ours beside MONAI's: the same files, two threads, in turn.

    cmake -B build -DSTRATA_BENCH=ON && cmake --build build --target bench_data bench_window
    python3 tests/bench/compare_data.py [--rounds 5] [--only data|window] [--all]

A synthetic abdominal CT of 512×512×120 voxels (int16, gzip level 6) with 13 labelled organs, several
times over: load, orient to RAS, resample to 1.5×1.5×2 mm, window, crop to the body, then four random
96³ crops with flips and intensity changes, stacked into a batch.

    cold    from the files
    disk    from the prepared case in a cache folder (MONAI: PersistentDataset)
    memory  from the prepared case in memory (MONAI: CacheDataset)

MONAI runs in several settings, each in a process of its own, the fastest first in the table. All of
them resample in single precision, keep labels as bytes, as Strata does, and are spared the search for
the voxels to crop around when there is a cache. Memory is the peak of the process, or, with worker processes, of their proportional
shares together (PSS). Then a sliding window of 96³ voxels, overlap 0.5, Gaussian, over 220×180×160,
14 classes: the time outside of the network, of the second of two volumes in one process (a folder of
cases) and of the first. Once with the Synapse recipe's UNETR, once with a DynUNet so small that what is
outside counts.

Needs PyTorch, MONAI and nibabel. Prints a Markdown table; --json FILE keeps every figure.
"""

import argparse
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PIPELINE = os.path.join(HERE, "data.yaml")
# network of the sliding window → its pipeline
NETWORKS = {"UNETR": os.path.join(HERE, "window.yaml"), "small DynUNet": PIPELINE}
# On both sides: repetitions that a round takes the median of, and passes over the cases in each,
# without a stop between them, as in a long epoch.
REPETITIONS = {"cold": 3, "disk": 3, "memory": 9}
PASSES = {"cold": 1, "disk": 4, "memory": 8}
SIZE, VOXEL, ORGANS, ROI = (512, 512, 120), (0.75, 0.75, 2.5), 13, (96, 96, 96)
WINDOW_VOLUME = (220, 180, 160)

# workload → settings: worker processes, worker threads, lazy resampling
SETTINGS = {
    "cold": {"one process": (0, False, False), "worker processes": (2, False, False)},
    "disk": {"worker threads": (2, True, False), "worker processes": (2, False, False)},
    "memory": {"one process": (0, False, False), "worker processes": (2, False, False)},
}
# Slower here; with --all.
MORE_SETTINGS = {
    "cold": {"one process, lazy": (0, False, True), "worker threads": (2, True, False)},
    "disk": {"one process": (0, False, False)},
    "memory": {"worker threads": (2, True, False)},
}
ALL_SETTINGS = {w: s | MORE_SETTINGS[w] for w, s in SETTINGS.items()}


# ---- the volume ----

def make_case(folder, copies):
    import nibabel
    import numpy as np

    generator = np.random.default_rng(5)
    x, y, z = np.ogrid[tuple(slice(-1, 1, complex(0, n)) for n in SIZE)]
    x, y, z = (a.astype(np.float32) for a in (x, y, z))
    body = np.broadcast_to((x / 0.75) ** 2 + (y / 0.55) ** 2 < 1, SIZE)
    image = np.where(body, np.float32(40), np.float32(-1000))
    label = np.zeros(SIZE, np.uint8)
    for c in range(1, ORGANS + 1):
        at, radius = generator.uniform(-0.4, 0.4, 3), generator.uniform(0.08, 0.25, 3)
        organ = sum(((p - a) / r) ** 2 for p, a, r in zip((x, y, z), at, radius)) < 1
        label[organ] = c
        image[organ] = generator.uniform(-50, 200)
    image += generator.standard_normal(SIZE, dtype=np.float32) * np.where(body, np.float32(14), np.float32(4))
    affine = np.diag([-VOXEL[0], -VOXEL[1], VOXEL[2], 1.0])
    for name, values in (("image", image.clip(-1024).astype(np.int16)), ("label", label)):
        packed = gzip.compress(nibabel.Nifti1Image(values, affine).to_bytes(), 6)
        for i in range(copies):
            with open(os.path.join(folder, f"{name}_{i}.nii.gz"), "wb") as out:
                out.write(packed)


# ---- MONAI, in a process of its own: the passes for every line that comes in ----

def monai_transforms(workload, lazy):
    import numpy as np
    import monai.transforms as mt

    keys = ["image", "label"]
    ras = (("L", "R"), ("P", "A"), ("I", "S"))
    prepare = [
        mt.LoadImaged(keys),
        mt.EnsureChannelFirstd(keys),
        mt.Orientationd(keys, axcodes="RAS", labels=ras),
        mt.Spacingd(keys, pixdim=(1.5, 1.5, 2.0), mode=("bilinear", "nearest"), dtype=np.float32),
        mt.ScaleIntensityRanged("image", -175, 250, 0, 1, clip=True),
        mt.CropForegroundd(keys, source_key="image", allow_smaller=True),
        mt.CastToTyped("label", np.uint8),
    ]
    indices = {}
    if workload != "cold":
        prepare.append(mt.FgBgToIndicesd("label"))
        indices = {"fg_indices_key": "label_fg_indices", "bg_indices_key": "label_bg_indices"}
    sample = [
        mt.RandCropByPosNegLabeld(keys, label_key="label", spatial_size=ROI, pos=1, neg=1,
                                  num_samples=4, **indices),
        *[mt.RandFlipd(keys, prob=0.2, spatial_axis=a) for a in range(3)],
        mt.RandScaleIntensityd("image", factors=0.1, prob=0.1),
        mt.RandShiftIntensityd("image", offsets=0.1, prob=0.1),
        mt.SelectItemsd(keys),
    ]
    return mt.Compose(prepare + sample, lazy=lazy)


def monai_loader(workload, files, cache, processes, is_threads, lazy):
    from torch.utils.data import Subset
    from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset, ThreadDataLoader, set_track_meta

    transforms = monai_transforms(workload, lazy)
    if workload == "cold":
        data = Dataset(files, transforms)
    elif workload == "disk":
        data = PersistentDataset(files, transforms, cache_dir=cache, track_meta=False, weights_only=False)
        for i in range(len(files)):
            data[i]
        set_track_meta(False)
    else:
        data = CacheDataset(files, transforms, progress=False, copy_cache=False)
        import monai.transforms as mt
        # Plain tensors in memory: nothing that follows needs the affine.
        data._cache = [mt.EnsureTyped(["image", "label"], track_meta=False)(c) for c in data._cache]
        set_track_meta(False)
    if PASSES[workload] > 1:
        data = Subset(data, list(range(len(files))) * PASSES[workload])
    if is_threads:
        return ThreadDataLoader(data, batch_size=1, num_workers=processes, use_thread_workers=True,
                                persistent_workers=True)
    return DataLoader(data, batch_size=1, num_workers=processes, persistent_workers=processes > 0)


def monai_serve(workload, setting, folder, threads):
    import warnings
    warnings.filterwarnings("ignore")
    import torch

    processes, is_threads, lazy = ALL_SETTINGS[workload][setting]
    torch.set_num_threads(1 if processes else threads)
    count = len([f for f in os.listdir(folder) if f.startswith("image_")])
    files = [{k: os.path.join(folder, f"{k}_{i}.nii.gz") for k in ("image", "label")} for i in range(count)]
    loader = monai_loader(workload, files, os.path.join(folder, "monai"), processes, is_threads, lazy)
    for _ in sys.stdin:
        started, used = time.perf_counter(), cpu_seconds()
        for batch in loader:
            assert tuple(batch["image"].shape) == (4, 1, *ROI), batch["image"].shape
            assert tuple(batch["label"].shape) == (4, 1, *ROI)
        passes = PASSES[workload]
        print(json.dumps({"seconds": (time.perf_counter() - started) / passes,
                          "cpu_s": (cpu_seconds() - used) / passes,
                          "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}),
              flush=True)


def cpu_seconds():
    """Of this process and its living children."""
    total = 0
    for pid in family(os.getpid()):
        try:
            fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return total / os.sysconf("SC_CLK_TCK")


def family(pid):
    found = [pid]
    for p in found:
        try:
            for task in os.listdir(f"/proc/{p}/task"):
                found += [int(c) for c in open(f"/proc/{p}/task/{task}/children").read().split()]
        except OSError:
            pass
    return found


class Watch(threading.Thread):
    """The peak of the proportional memory of a process and its children."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.ended = pid, 0, threading.Event()

    def run(self):
        while not self.ended.wait(0.1):
            total = 0
            for pid in family(self.pid):
                try:
                    for line in open(f"/proc/{pid}/smaps_rollup"):
                        if line.startswith("Pss:"):
                            total += int(line.split()[1]) * 1024
                except OSError:
                    pass
            self.peak = max(self.peak, total)


class Monai:
    def __init__(self, workload, setting, folder, threads):
        processes, is_threads, _ = ALL_SETTINGS[workload][setting]
        self.repetitions = REPETITIONS[workload]
        self.has_workers = processes > 0 and not is_threads
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", workload, setting, folder, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def round(self):
        rows = [self.repeat() for _ in range(self.repetitions)]
        return {k: statistics.median(r[k] for r in rows) for k in rows[0]}

    def repeat(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def last_round(self):
        """Not timed: memory is looked at."""
        watch = Watch(self.process.pid)
        watch.start()
        until = time.perf_counter() + 1  # they may take less time than lies between two looks
        while time.perf_counter() < until:
            self.repeat()
        memory = self.repeat()["peak_rss_bytes"]
        watch.ended.set()
        watch.join()
        self.process.stdin.close()
        self.process.wait()
        return watch.peak if self.has_workers else memory


# ---- comparing ----

def ours(options, workload, folder):
    out = subprocess.run([os.path.join(options.programs, "bench_data"), workload, PIPELINE, folder,
                          str(options.threads), str(REPETITIONS[workload]),
                          str(PASSES[workload])], check=True, capture_output=True, text=True).stdout
    figures = json.loads(out)
    figures["seconds"] = statistics.median(figures["seconds"])
    return figures


def compare_data(options, folder, results):
    print(f"| {options.threads} threads, median of {options.rounds} rounds | cases/s | crops/s | "
          "CPU s/case | peak memory (MiB) | times as fast | times the memory |")
    print("|---|---|---|---|---|---|---|")
    for workload, settings in (ALL_SETTINGS if options.all else SETTINGS).items():
        # The first round starts workers and touches files.
        rivals = {}
        mine, theirs = [], {s: [] for s in settings}
        for setting in settings:
            rivals[setting] = Monai(workload, setting, folder, options.threads)
            rivals[setting].repeat()
        for _ in range(options.rounds):
            mine.append(ours(options, workload, folder))
            for setting, rival in rivals.items():
                theirs[setting].append(rival.round())
        memory = {s: r.last_round() for s, r in rivals.items()}
        best = min(settings, key=lambda s: statistics.median(r["seconds"] for r in theirs[s]))
        results[workload] = {"ours": mine, "monai": theirs, "memory": memory, "best": best}
        cases = mine[0]["cases"]
        rss = statistics.median(m["peak_rss_bytes"] for m in mine)
        ratios = [t["seconds"] / m["seconds"] for t, m in zip(theirs[best], mine)]

        def row(name, rows, rss, last):
            seconds = statistics.median(r["seconds"] for r in rows)
            cpu = statistics.median(r["cpu_s"] for r in rows)
            print(f"| {name} | {cases / seconds:.2f} | {4 * cases / seconds:.1f} | {cpu / cases:.3f} | "
                  f"{rss / 2**20:.0f} | {last} |", flush=True)

        row(f"{workload}: Strata", mine, rss, f"{statistics.median(ratios):.1f} "
            f"({min(ratios):.1f}–{max(ratios):.1f}) | {rss / memory[best]:.2f}")
        for setting in sorted(settings, key=lambda s: s != best):
            row(f"MONAI, {setting}", theirs[setting], memory[setting], "|")


def monai_network(name):
    from monai.networks.nets import UNETR, DynUNet

    if name == "UNETR":
        return UNETR(1, ORGANS + 1, ROI, proj_type="perceptron")  # as published
    return DynUNet(3, 1, ORGANS + 1, kernel_size=[3] * 3, strides=[1, 2, 2], upsample_kernel_size=[2, 2],
                   filters=[8, 16, 32])


def monai_window(threads, name):
    import torch
    from monai.inferers import sliding_window_inference

    torch.set_num_threads(threads)
    network = monai_network(name).eval()
    inside, calls = 0.0, 0

    def watched(x):
        nonlocal inside, calls
        started = time.perf_counter()
        y = network(x)
        inside += time.perf_counter() - started
        calls += 1
        return y

    with torch.inference_mode():
        image = torch.rand(1, 1, *WINDOW_VOLUME)
        for _ in range(2):
            inside, calls = 0.0, 0
            started = time.perf_counter()
            sliding_window_inference(image, ROI, 1, watched, overlap=0.5, mode="gaussian").argmax(1)
            seconds = time.perf_counter() - started
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            print(json.dumps({"seconds": seconds, "network_s": inside, "calls": calls,
                              "peak_rss_bytes": peak}))


def share_outside(run):
    return 1 - run["network_s"] / run["seconds"]


def compare_window(options, folder, results):
    print("\n| sliding window | seconds | outside the network (s) | share | of the first volume | "
          "peak memory (MiB) |")
    print("|---|---|---|---|---|---|")
    for network, pipeline in NETWORKS.items():
        commands = {
            "Strata": [os.path.join(options.programs, "bench_window"), pipeline, folder,
                       str(options.threads), *map(str, WINDOW_VOLUME)],
            "MONAI": [sys.executable, __file__, "--serve-window", str(options.threads), network],
        }
        rows = {name: [] for name in commands}
        for _ in range(max(1, options.rounds // 2)):
            for name, command in commands.items():
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                first, then = map(json.loads, out.splitlines()[-2:])
                rows[name].append({**then, "first": share_outside(first)})
        results[f"window, {network}"] = rows
        for name, runs in rows.items():
            seconds = statistics.median(r["seconds"] for r in runs)
            outside = statistics.median(r["seconds"] - r["network_s"] for r in runs)
            share = statistics.median(map(share_outside, runs))
            first = statistics.median(r["first"] for r in runs)
            memory = statistics.median(r["peak_rss_bytes"] for r in runs)
            print(f"| {network}, {runs[0]['calls']} windows: {name} | {seconds:.2f} | {outside:.2f} | "
                  f"{100 * share:.2f} % | {100 * first:.2f} % | {memory / 2**20:.0f} |", flush=True)


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--serve":
        return monai_serve(*sys.argv[2:5], int(sys.argv[5]))
    if len(sys.argv) > 1 and sys.argv[1] == "--serve-window":
        return monai_window(int(sys.argv[2]), sys.argv[3])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", default="build/tests/bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--only", choices=("data", "window"))
    parser.add_argument("--data", help="folder for the volumes, kept; made when it is empty")
    parser.add_argument("--all", action="store_true", help="MONAI in its slower settings, too")
    parser.add_argument("--json")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.data or temporary
        os.makedirs(os.path.join(folder, "monai"), exist_ok=True)
        if not os.path.exists(os.path.join(folder, "image_0.nii.gz")):
            make_case(folder, options.cases)
        if options.only != "window":
            compare_data(options, folder, results)
        if options.only != "data":
            compare_window(options, folder, results)
    if options.json:
        with open(options.json, "w") as out:
            json.dump(results, out, indent=1)


if __name__ == "__main__":
    main()
