"""Times a training step of MONAI's UNETR in PyTorch on the CPU: forward, Dice + cross-entropy,
backward, AdamW. The numbers that `strata bench` is compared with.

    torch_unetr.py --image 48 64 48 --hidden 192 --mlp 768 --heads 4 --outputs 3 --threads 2

Every mode runs in a process of its own and prints one line of JSON:

    installed      PyTorch as pip installs it
    tuned          large pages, and freed memory stays with the process
    channels_last  tuned, with weights and volumes in channels-last order
    compiled       tuned, with torch.compile

PyTorch picks oneDNN for a convolution only when its input is large, counted over N·C·X·Y, and its own
slower one otherwise. UNETR on 48×48×48 with batch 1 falls below at half resolution and takes longer
than 48×64×48 or than batch 2 does: compare where PyTorch is at its best, too.

`--pretrain` times the self-supervised step instead: mean squared error on one output channel plus
four linear slab classifiers on the encoder states, as in Kunhimon et al. 2024.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

MODES = ("installed", "tuned", "channels_last", "compiled")
# mmap_max=0 keeps big tensors in the heap and the trim threshold keeps the heap from shrinking, so a
# page is faulted in once and not once a step; hugetlb=1 asks for transparent huge pages.
TUNABLES = ("glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:"
            "glibc.malloc.trim_threshold=1099511627776:glibc.malloc.top_pad=67108864")


def build_step(options, mode):
    import torch
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNETR

    torch.manual_seed(0)
    model = UNETR(in_channels=options.channels, out_channels=options.outputs,
                  img_size=options.image, feature_size=options.features,
                  hidden_size=options.hidden, mlp_dim=options.mlp, num_heads=options.heads,
                  proj_type="perceptron")
    image = torch.randn(options.batch, options.channels, *options.image)
    label = torch.randint(0, options.outputs, (options.batch, 1, *options.image))
    if mode == "channels_last":
        model = model.to(memory_format=torch.channels_last_3d)
        image = image.to(memory_format=torch.channels_last_3d)
    parameters = list(model.parameters())

    if options.pretrain:
        slabs = options.image[2] // model.patch_size[2]
        heads = torch.nn.ModuleList(torch.nn.Linear(options.hidden, slabs) for _ in range(4))
        parameters += list(heads.parameters())
        order = torch.arange(slabs).repeat(options.batch)
        states = {}
        for name, module in [("0", model.vit.blocks[3]), ("1", model.vit.blocks[6]),
                             ("2", model.vit.blocks[9]), ("3", model.vit.norm)]:
            module.register_forward_hook(
                lambda _module, _inputs, result, name=name: states.__setitem__(name, result))

        def objective():
            total = torch.nn.functional.mse_loss(model(image), image)
            for name, head in zip(states, heads):
                grid = states[name].reshape(options.batch, -1, slabs, options.hidden)
                logits = head(grid.mean(1)).reshape(-1, slabs)
                total = total + torch.nn.functional.cross_entropy(logits, order)
            return total
    else:
        loss = DiceCELoss(to_onehot_y=True, softmax=True, squared_pred=True, smooth_nr=0.0,
                          smooth_dr=1e-6)

        def objective():
            return loss(model(image), label)

    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-5)
    if mode == "compiled":
        objective = torch.compile(objective)

    def step():
        optimizer.zero_grad(set_to_none=True)
        value = objective()
        value.backward()
        optimizer.step()
        return value.item()

    return step


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure(options, mode):
    import torch

    torch.set_num_threads(options.threads)
    started = time.perf_counter()
    step = build_step(options, mode)
    for _ in range(options.warmup):
        step()
    ready = time.perf_counter() - started
    seconds, before = [], faults()
    for _ in range(options.steps):
        start = time.perf_counter()
        value = step()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({
        "mode": mode,
        "image": options.image,
        "batch": options.batch,
        "stage": "pretrain" if options.pretrain else "segment",
        "threads": options.threads,
        "torch": torch.__version__,
        "median_s": round(statistics.median(seconds), 4),
        "min_s": round(min(seconds), 4),
        "steps": options.steps,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "page_faults_per_step": (faults() - before) // options.steps,
        "start_and_warmup_s": round(ready, 1),
        "loss": round(value, 5),
    }), flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=int, nargs=3, default=[48, 48, 48])
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--outputs", type=int, default=None, help="3, or 1 with --pretrain")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--mlp", type=int, default=768)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--pretrain", action="store_true")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["installed", "tuned"])
    parser.add_argument("--one", choices=MODES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.outputs is None:
        options.outputs = options.channels if options.pretrain else 3
    if options.pretrain and options.outputs != options.channels:
        parser.error("--pretrain reconstructs the image: --outputs must equal --channels")
    return options


def main():
    options = parse()
    if options.one:
        measure(options, options.one)
        return 0
    failed = 0
    for mode in options.modes:
        environment = dict(os.environ, OMP_NUM_THREADS=str(options.threads))
        if mode != "installed":
            environment["GLIBC_TUNABLES"] = TUNABLES
        command = [sys.executable, *sys.argv, "--one", mode]
        failed |= subprocess.run(command, env=environment, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
