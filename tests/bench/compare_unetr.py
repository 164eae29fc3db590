"""UNETR's training step, Strata against PyTorch + MONAI, in one run: the same network, sizes, batch
and threads, in alternating rounds, medians over the rounds' medians, and the ratio.

    python3 compare_unetr.py --strata build/strata [--rounds 5] [--steps 8] [--threads 2]

Needs PyTorch and MONAI for the rival. Prints a Markdown table; --json FILE keeps every figure.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))

# name, size, batch, features, hidden, mlp, heads, organs (classes − 1 of the phantom)
CONFIGURATIONS = {
    "small": ((48, 64, 48), 1, 16, 192, 768, 4),
    "hippocampus": ((32, 48, 32), 2, 16, 192, 768, 4),
    "published": ((96, 96, 96), 1, 16, 768, 3072, 12),
}


def run_strata(options, data, configuration, stage):
    size, batch, features, hidden, mlp, heads = configuration
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        subprocess.run(
            [options.strata, "bench", os.path.join(HERE, "unetr.yaml"), "--stage", stage,
             "--steps", str(options.steps), "--threads", str(options.threads),
             "--json", result.name, "--set", f"data.root={data}",
             "--set", f"params.size={list(size)}", "--set", f"params.batch={batch}",
             "--set", f"params.features={features}", "--set", f"params.hidden={hidden}",
             "--set", f"params.mlp={mlp}", "--set", f"params.heads={heads}",
             "--set", f"params.slabs={size[2] // 16}"],
            check=True, stdout=subprocess.DEVNULL)
        figures = json.load(open(result.name))
    return figures["median_s"], figures["peak_rss_bytes"] / 2**20


def run_torch(options, configuration, stage, mode):
    size, batch, features, hidden, mlp, heads = configuration
    command = [sys.executable, os.path.join(HERE, "torch_unetr.py"), "--image",
               *map(str, size), "--batch", str(batch), "--features", str(features), "--hidden",
               str(hidden), "--mlp", str(mlp), "--heads", str(heads), "--threads",
               str(options.threads), "--steps", str(options.steps), "--modes", mode]
    if stage == "pretrain":
        command.append("--pretrain")
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures = json.loads([line for line in out.splitlines() if line.startswith("{")][-1])
    return figures["median_s"], figures["peak_rss_mib"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strata", default="build/strata")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stage", default="segment", choices=("pretrain", "segment"))
    parser.add_argument("--modes", nargs="+", default=["installed", "tuned"])
    parser.add_argument("--configurations", nargs="+", default=["small", "hippocampus"],
                        choices=sorted(CONFIGURATIONS))
    parser.add_argument("--json")
    options = parser.parse_args()

    results = {}
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "phantom")
        subprocess.run([options.strata, "phantom", data, "--cases", "4", "--organs", "2",
                        "--size", "48"], check=True, stdout=subprocess.DEVNULL)
        for name in options.configurations:
            rows = {"strata": []} | {mode: [] for mode in options.modes}
            for _ in range(options.rounds):
                rows["strata"].append(run_strata(options, data, CONFIGURATIONS[name], options.stage))
                for mode in options.modes:
                    rows[mode].append(run_torch(options, CONFIGURATIONS[name], options.stage, mode))
            results[name] = rows

    print(f"| {options.stage} step, {options.threads} threads | seconds (median of "
          f"{options.rounds} rounds) | range | PyTorch / Strata | peak memory (MiB) |")
    print("|---|---|---|---|---|")
    for name, rows in results.items():
        ours = statistics.median(seconds for seconds, _ in rows["strata"])
        for who, values in rows.items():
            seconds = [s for s, _ in values]
            median = statistics.median(seconds)
            memory = statistics.median(m for _, m in values)
            ratio = "" if who == "strata" else f"{median / ours:.2f}×"
            print(f"| {name}: {who} | {median:.3f} | {min(seconds):.3f}–{max(seconds):.3f} "
                  f"| {ratio} | {memory:.0f} |")
    if options.json:
        json.dump(results, open(options.json, "w"), indent=1)


if __name__ == "__main__":
    main()
