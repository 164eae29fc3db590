"""Networks on the CPU, Strata beside PyTorch, in one run: the same network, sizes, batch and threads, in
alternating rounds; medians over the rounds' medians, the ratios, and the peak memory.

    python3 compare_networks.py --strata build/strata [--rounds 5] [--steps 4] [--threads 2]
                                [--networks unetr unetr-small …] [--works train infer] [--bf16]
                                [--unetr-plus-plus FOLDER]

Needs PyTorch and MONAI for the rival; UNETR++ also its authors' code in FOLDER. `peak` measures what
the processor can do: a product of two matrices, 2048 × 2048, in PyTorch; a work's share of it is in the
table. Prints Markdown; --json FILE keeps every figure.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 2**20

# name → network, its size (x, y, z) for PyTorch, and what --set says to Strata
NETWORKS = {
    "unetr": ("unetr", (96, 96, 96), {}),
    "unetr-small": ("unetr", (48, 48, 48), {"hidden": 192, "heads": 4}),
    # Our z is the authors' first axis, the one with the thick slices.
    "unetr-plus-plus": ("unetr_plus_plus", (64, 128, 128), {}),
    "swin-unetr": ("swin_unetr", (96, 96, 96), {}),
}
STRATA_MODEL = {
    "unetr": "{use: %s/unetr.yaml, with: {hidden: %d, mlp: %d, heads: %d}}",
    "unetr_plus_plus": "{use: %s/unetr_plus_plus.yaml, with: {stem: [4, 4, 2], projections: [64, 64, 64, 32]}}",
    "swin_unetr": "{use: %s/swin_unetr.yaml, with: {features: 48}}",
}


def strata_pipeline(network, size, batch, sizes):
    """The pipeline file of tests/bench/network.yaml with this network in it."""
    models = os.path.join(HERE, "../../pipelines/models")
    model = STRATA_MODEL[network]
    if network == "unetr":
        hidden = sizes.get("hidden", 768)
        model = model % (models, hidden, 4 * hidden, sizes.get("heads", 12))
    else:
        model = model % models
    if network == "unetr_plus_plus":
        size = (size[1], size[2], size[0])
    return (f"strata: 1\nuse: {HERE}/network.yaml\nmodel: {model}\n"
            f"params: {{size: {list(size)}, batch: {batch}, slabs: {size[2] // 16}}}\n")


def make_phantom(strata, folder):
    subprocess.run([strata, "phantom", f"{folder}/phantom", "--cases", "4", "--organs", "13", "--size", "48"],
                   check=True, stdout=subprocess.DEVNULL)


def bench(options, folder, network, size, sizes, batch, work, extra=()):
    """What `strata bench` measures."""
    pipeline, result = os.path.join(folder, "network.yaml"), os.path.join(folder, "result.json")
    with open(pipeline, "w") as out:
        out.write(strata_pipeline(network, size, batch, sizes))
    command = [options.strata, "bench", pipeline, "--steps", str(options.steps), "--threads",
               str(options.threads), "--json", result, "--set", f"data.root={folder}/phantom",
               "--stage", "pretrain" if work == "pretrain" else "segment"]
    if work == "infer":
        command.append("--inference")
    for key in extra:
        command += ["--set", key]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.load(open(result))


def run_strata(options, folder, name, work, precision):
    network, size, sizes = NETWORKS[name]
    extra = [*options.set, *(["stages.segment.precision=bf16"] if precision == "bf16" else [])]
    return bench(options, folder, network, size, sizes, options.batch, work, extra)


def run_torch(options, name, work, mode, precision):
    network, size, sizes = NETWORKS[name]
    command = [sys.executable, os.path.join(HERE, "torch_networks.py"), "--network", network, "--work", work,
               "--mode", mode, "--image", *map(str, size), "--batch", str(options.batch), "--threads",
               str(options.threads), "--steps", str(options.steps)]
    for key, value in sizes.items():
        command += [f"--{key}", str(value)]
    if precision == "bf16":
        command.append("--bf16")
    if options.unetr_plus_plus:
        command += ["--unetr-plus-plus", options.unetr_plus_plus]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads([line for line in out.splitlines() if line.startswith("{")][-1])


def peak_flops(threads):
    code = ("import torch,time;torch.set_num_threads(%d);a=torch.randn(2048,2048);b=a.clone();t=[]\n"
            "for i in range(9):\n s=time.perf_counter();a@b;t.append(time.perf_counter()-s)\n"
            "print(2*2048**3/min(t))" % threads)
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def compare(options, folder, name, work, precision):
    rows = {"Strata": []} | {f"PyTorch, {m}": [] for m in options.modes}
    for _ in range(options.rounds):
        rows["Strata"].append(run_strata(options, folder, name, work, precision))
        for mode in options.modes:
            rows[f"PyTorch, {mode}"].append(run_torch(options, name, work, mode, precision))
    mine = [r["median_s"] for r in rows["Strata"]]
    flops = rows["Strata"][0]["flops"]
    memory = statistics.median(r["peak_rss_bytes"] for r in rows["Strata"])
    for who, found in rows.items():
        seconds = [r["median_s"] for r in found]
        peak = statistics.median(r["peak_rss_bytes"] for r in found)
        if who == "Strata":
            share = flops / statistics.median(mine) / options.peak
            ratio, times = f"{100 * share:.0f} % of peak", ""
        else:
            ratios = [t / m for t, m in zip(seconds, mine)]
            ratio = f"{statistics.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"
            times = f"{memory / peak:.2f}×"
        print(f"| {name}, {work}{', bf16' if precision == 'bf16' else ''}: {who} | "
              f"{statistics.median(seconds):.3f} | {ratio} | {peak / MIB:.0f} | {times} |", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strata", default="build/strata")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--networks", nargs="+", choices=sorted(NETWORKS), default=["unetr", "unetr-small"])
    parser.add_argument("--works", nargs="+", choices=("train", "pretrain", "infer"), default=["train", "infer"])
    parser.add_argument("--modes", nargs="+", default=["installed", "tuned"],
                        choices=("installed", "tuned", "channels_last", "compiled"))
    parser.add_argument("--bf16", action="store_true", help="in bf16 as well")
    parser.add_argument("--unetr-plus-plus", help="a checkout of its authors' code")
    parser.add_argument("--set", action="append", default=[], help="for Strata, such as stages.segment.memory=1GiB")
    parser.add_argument("--json")
    options = parser.parse_args()
    options.peak = peak_flops(options.threads)
    results = {"peak_flops": options.peak}
    print(f"{options.threads} threads, median of {options.rounds} rounds of {options.steps}; a matrix product "
          f"reaches {options.peak / 1e9:.0f} GFLOP/s\n")
    print("| | seconds | PyTorch / Strata | peak memory (MiB) | Strata's share of it |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        make_phantom(options.strata, folder)
        for name in options.networks:
            for work in options.works:
                for precision in ("f32", "bf16") if options.bf16 else ("f32",):
                    results[f"{name}, {work}, {precision}"] = compare(options, folder, name, work, precision)
    if options.json:
        json.dump(results, open(options.json, "w"), indent=1)


if __name__ == "__main__":
    main()
