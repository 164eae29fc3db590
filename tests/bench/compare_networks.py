"""Networks, Strata beside PyTorch, in one run: the same network, sizes, batch and threads, in alternating
rounds; medians over the rounds' medians, the ratios, and the peak memory. Before, that both make the same
of the same weights and input.

    python3 compare_networks.py --strata build/strata [--device cpu|cuda] [--rounds 5] [--steps 4]
                                [--threads 2] [--batch N] [--networks unetr unetr-small …]
                                [--works train infer] [--precisions f32 bf16] [--modes …]
                                [--unetr-plus-plus FOLDER]

Needs PyTorch and MONAI for the rival; UNETR++ also its authors' code in FOLDER. PyTorch measures what
the machine can do: products of matrices and, on a GPU, a copy. The table has a work's share of the
products' rate on a CPU, and on a GPU of its floor: every node takes as long as its arithmetic or its
bytes do at these rates, whichever is longer. Memory is the process's on a CPU and the card's on a GPU.
Prints Markdown, row by row; --json FILE keeps every figure.
"""

import argparse
import array
import json
import os
import statistics
import subprocess
import sys
import tempfile

from torch_networks import CPU_MODES, GPU_MODES

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
    "unetr": "{use: models/unetr.yaml, with: {hidden: %d, mlp: %d, heads: %d}}",
    "unetr_plus_plus": "{use: models/unetr_plus_plus.yaml, with: {stem: [4, 4, 2], projections: [64, 64, 64, 32]}}",
    "swin_unetr": "{use: models/swin_unetr.yaml, with: {features: 48}}",
}


def strata_pipeline(network, size, batch, sizes):
    """The pipeline file of tests/bench/network.yaml with this network in it."""
    model = STRATA_MODEL[network]
    if network == "unetr":
        hidden = sizes.get("hidden", 768)
        model = model % (hidden, 4 * hidden, sizes.get("heads", 12))
    if network == "unetr_plus_plus":
        size = (size[1], size[2], size[0])
    return (f"strata: 1\nuse: {HERE}/network.yaml\nmodel: {model}\n"
            f"params: {{size: {list(size)}, batch: {batch}, slabs: {size[2] // 16}}}\n")


def make_phantom(strata, folder):
    run([strata, "phantom", f"{folder}/phantom", "--cases", "4", "--organs", "13", "--size", "48"])


def bench(options, folder, network, size, sizes, batch, work, extra=(), environment=None):
    """What `strata bench` measures."""
    pipeline, result = os.path.join(folder, "network.yaml"), os.path.join(folder, "result.json")
    with open(pipeline, "w") as out:
        out.write(strata_pipeline(network, size, batch, sizes))
    command = [options.strata, "bench", pipeline, "--steps", str(options.steps), "--threads",
               str(options.threads), "--device", options.device, "--json", result,
               "--set", f"data.root={folder}/phantom",
               "--stage", "pretrain" if work == "pretrain" else "segment"]
    if work == "infer":
        command.append("--inference")
    for key in extra:
        command += ["--set", key]
    run(command, environment)
    return json.load(open(result))


def run(command, environment=None):
    """Its output; what it says when it fails is the error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          env=os.environ | (environment or {}))
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return done.stdout


# Arguments of the model's file, where a network is not what it is without any. Here axes are the authors'.
FORWARD = {
    "unetr": ("models/unetr.yaml", lambda sizes: {
        "hidden": sizes.get("hidden", 768), "mlp": 4 * sizes.get("hidden", 768), "heads": sizes.get("heads", 12)}),
    "unetr_plus_plus": ("models/unetr_plus_plus.yaml", lambda sizes: {}),
    "swin_unetr": ("models/swin_unetr.yaml", lambda sizes: {"features": 48}),
}


def read_tensor(path, name):
    """Of a safetensors file of float32."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        begin, end = header[name]["data_offsets"]
        file.seek(begin, 1)
        numbers = array.array("f")
        numbers.frombytes(file.read(end - begin))
    return numbers


def check_same(options, folder, name):
    """Both are one network: with PyTorch's weights and input, the same output."""
    network, size, sizes = NETWORKS[name]
    try:
        run(torch_command(options, network, size, sizes, ["--save", folder]))
    except RuntimeError as error:  # the table has a row that says why
        print(f"{name}: no output of PyTorch to compare with ({error})\n", flush=True)
        return
    model, arguments = FORWARD[network]
    command = [options.strata, "forward", model, "--set", "outputs=14", "--threads", str(options.threads), "--device",
               options.device, "--weights", f"{folder}/weights.safetensors", "--input", f"{folder}/x.safetensors",
               "--output", f"{folder}/ours.safetensors"]
    for key, value in arguments(sizes).items():
        command += ["--set", f"{key}={value}"]
    run(command)
    ours, theirs = (read_tensor(f"{folder}/{whose}.safetensors", "out") for whose in ("ours", "theirs"))
    difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / max(map(abs, theirs))
    print(f"{name}: with PyTorch's weights and input, outputs differ by {difference:.1e} of the largest\n", flush=True)
    if not difference < 1e-3:
        sys.exit(f"{name} is not the same network")


def run_strata(options, folder, name, work, precision, environment=None):
    network, size, sizes = NETWORKS[name]
    stage = "pretrain" if work == "pretrain" else "segment"
    extra = [*options.set, *([f"stages.{stage}.precision={precision}"] if precision != "f32" else [])]
    return bench(options, folder, network, size, sizes, options.batch, work, extra, environment)


def torch_command(options, network, size, sizes, more):
    command = [sys.executable, os.path.join(HERE, "torch_networks.py"), "--network", network, "--image",
               *map(str, size), "--threads", str(options.threads), *more]
    for key, value in sizes.items():
        command += [f"--{key}", str(value)]
    if options.unetr_plus_plus:
        command += ["--unetr-plus-plus", options.unetr_plus_plus]
    return command


def run_torch(options, name, work, mode, precision):
    command = torch_command(options, *NETWORKS[name], [
        "--work", work, "--mode", mode, "--batch", str(options.batch), "--steps", str(options.steps),
        "--precision", precision])
    return json.loads([line for line in run(command).splitlines() if line.startswith("{")][-1])


CEILINGS = """
import json, sys, time, torch
device, threads, precisions = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
torch.set_num_threads(threads)
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
def fastest(work):
    times = []
    for _ in range(9):
        wait(); begin = time.perf_counter(); work(); wait(); times.append(time.perf_counter() - begin)
    return min(times)
size = 8192 if device == "cuda" else 2048
found = {}
for precision in precisions:
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(size, size, device=device).to(kind)
    b = a.clone()
    found[precision] = 2 * size**3 / fastest(lambda: a @ b)
if device == "cuda":
    a = torch.randn(1 << 28, device=device)
    b = torch.empty_like(a)
    found["bytes"] = 2 * a.numel() * 4 / fastest(lambda: b.copy_(a))
print(json.dumps(found))
"""


def measure_ceilings(options):
    """Operations a second by precision, and bytes a second on a GPU."""
    precisions = sorted({"f32", *options.precisions})
    return json.loads(run([sys.executable, "-c", CEILINGS, options.device, str(options.threads), *precisions]))


def floor_seconds(found, ceilings):
    """What `strata bench` counts, at these rates; nodes that a budget makes run twice count once."""
    seconds = found["update_bytes"] / ceilings["bytes"]
    for call in found["calls"]:
        if not call["again"]:
            seconds += max(call["flops"] / ceilings[call["precision"]], call["bytes"] / ceilings["bytes"])
    return seconds


def contenders(options, folder, name, work, precision):
    """Who is measured, in the table's words → how."""
    rows = {"Strata": lambda: run_strata(options, folder, name, work, precision)}
    if options.own_convolutions:
        rows["Strata, cuDNN off"] = lambda: run_strata(options, folder, name, work, precision,
                                                       {"STRATA_CUDNN": "off"})
    for mode in options.modes:
        rows[f"PyTorch, {mode}"] = lambda mode=mode: run_torch(options, name, work, mode, precision)
    return rows


def compare(options, folder, name, work, precision):
    runners = contenders(options, folder, name, work, precision)
    rows, failed = {who: [] for who in runners}, {}
    for _ in range(options.rounds):
        for who, measured in runners.items():
            if who in failed:
                continue
            try:
                rows[who].append(measured())
            except (RuntimeError, IndexError) as error:  # no reason to lose the others
                failed[who] = str(error)
    key = "device_bytes" if options.device == "cuda" else "peak_rss_bytes"
    mine = None if "Strata" in failed else [r["median_s"] for r in rows["Strata"]]
    for who, found in rows.items():
        title = f"| {name}, {work}{'' if precision == 'f32' else ', ' + precision}: {who} | "
        if who in failed:
            print(title + f"failed: {failed[who]} | | | |", flush=True)
            continue
        seconds = [r["median_s"] for r in found]
        peak, ratio, times = statistics.median(r[key] for r in found), "", ""
        if who.startswith("Strata"):
            if "bytes" in options.peak:
                floor = floor_seconds(found[0], options.peak)
                ratio = f"floor {floor:.4f} s, {100 * floor / statistics.median(seconds):.0f} %"
            elif options.peak:
                share = found[0]["flops"] / statistics.median(seconds) / options.peak["f32"]
                ratio = f"{100 * share:.0f} % of peak"
        elif mine:
            ratios = [t / m for t, m in zip(seconds, mine)]
            ratio = f"{statistics.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"
            times = f"{statistics.median(r[key] for r in rows['Strata']) / max(peak, 1):.2f}×"
        print(title + f"{statistics.median(seconds):.4f} | {ratio} | {peak / MIB:.0f} | {times} |", flush=True)
    return {who: [{k: v for k, v in r.items() if k != "calls"} for r in found] for who, found in rows.items()}


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strata", default="build/strata")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="4, on a GPU 20")
    parser.add_argument("--batch", type=int, help="1, on a GPU 2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--networks", nargs="+", choices=sorted(NETWORKS), default=["unetr", "unetr-small"])
    parser.add_argument("--works", nargs="+", choices=("train", "pretrain", "infer"), default=["train", "infer"])
    parser.add_argument("--precisions", nargs="+", choices=("f32", "tf32", "bf16"), default=["f32"])
    parser.add_argument("--modes", nargs="*", choices=CPU_MODES + GPU_MODES,
                        help="of PyTorch: installed tuned, on a GPU eager gpu_compiled")
    parser.add_argument("--own-convolutions", action="store_true", help="Strata without cuDNN, too")
    parser.add_argument("--unetr-plus-plus", help="a checkout of its authors' code")
    parser.add_argument("--set", action="append", default=[], help="for Strata, such as stages.segment.memory=1GiB")
    parser.add_argument("--json")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    options.steps = options.steps or (20 if on_gpu else 4)
    options.batch = options.batch or (2 if on_gpu else 1)
    if options.modes is None:
        options.modes = list(GPU_MODES) if on_gpu else ["installed", "tuned"]
    return options


def main():
    options = parse()
    try:
        options.peak = measure_ceilings(options)
        rates = ", ".join(f"{p} {v / 1e9:.0f} GFLOP/s" for p, v in options.peak.items() if p != "bytes")
        rates = f"a matrix product reaches {rates}"
        if "bytes" in options.peak:
            rates += f"; a copy {options.peak['bytes'] / 1e9:.0f} GB/s"
    except (RuntimeError, IndexError) as error:
        options.peak, rates = {}, f"no ceilings without PyTorch ({error})"
    results = {"ceilings": options.peak}
    with tempfile.TemporaryDirectory() as folder:
        make_phantom(options.strata, folder)
        for name in options.networks if options.modes else []:
            check_same(options, folder, name)
        print(f"{options.threads} threads, batch {options.batch}, median of {options.rounds} rounds of "
              f"{options.steps}; {rates}\n")
        print("| | seconds | PyTorch / Strata | peak memory (MiB) | Strata's share of it |")
        print("|---|---|---|---|---|")
        for name in options.networks:
            for work in options.works:
                for precision in options.precisions:
                    results[f"{name}, {work}, {precision}"] = compare(options, folder, name, work, precision)
                    if options.json:
                        json.dump(results, open(options.json, "w"), indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
