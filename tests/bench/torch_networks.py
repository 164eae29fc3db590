"""Times networks in PyTorch: the rival of tests/bench/compare_networks.py.

    torch_networks.py --network unetr --work train --mode tuned --threads 2

Works:  train     forward, Dice + cross-entropy, backward, AdamW
        pretrain  the same with a mean squared error on one output and linear slab classifiers (UNETR)
        infer     forward in inference mode
Modes:  installed      PyTorch as pip installs it
        tuned          large pages, and freed memory stays with the process
        channels_last  tuned, with weights and volumes in channels-last order
        compiled       tuned, with torch.compile
        eager          on a GPU: channels-last order, cuDNN's kernels chosen by time, fused AdamW
        gpu_compiled   the same, with torch.compile

Networks are MONAI's; UNETR++ is its authors', from --unetr-plus-plus FOLDER, a checkout of
github.com/Amshaker/unetr_plus_plus. bf16 is autocast, weights stay f32. Prints one line of JSON; on a
GPU, device_bytes is what the card has less after the steps than before the network was made. With
--save FOLDER it leaves weights, an input and its output there, and times nothing.

PyTorch picks oneDNN for a convolution only when its input is large, counted over N·C·X·Y, and its own
slower one otherwise. UNETR on 48×48×48 with batch 1 falls below at half resolution and takes longer
than 48×64×48 or than batch 2 does: compare where PyTorch is at its best, too.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CPU_MODES = ("installed", "tuned", "channels_last", "compiled")
GPU_MODES = ("eager", "gpu_compiled")
# mmap_max=0 keeps big tensors in the heap and the trim threshold keeps the heap from shrinking, so a
# page is faulted in once and not once a step; hugetlb=1 asks for transparent huge pages.
TUNABLES = ("glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:"
            "glibc.malloc.trim_threshold=1099511627776:glibc.malloc.top_pad=67108864")


def unetr_plus_plus(options):
    if not options.unetr_plus_plus:
        sys.exit("UNETR++ needs --unetr-plus-plus FOLDER, a checkout of github.com/Amshaker/unetr_plus_plus")
    sys.path.insert(0, os.path.join(HERE, "../golden/networks"))
    import public_unetr_plus_plus

    synapse = public_unetr_plus_plus.Variant(options.unetr_plus_plus, "synapse", (2, 4, 4))
    return synapse.make(options.image, 1, options.outputs, 16, [3, 3, 3, 3], 3)


def build_network(options):
    from monai.networks.nets import UNETR, SwinUNETR

    if options.network == "unetr":
        return UNETR(in_channels=1, out_channels=options.outputs, img_size=options.image, feature_size=16,
                     hidden_size=options.hidden, mlp_dim=4 * options.hidden, num_heads=options.heads,
                     proj_type="perceptron")
    if options.network == "swin_unetr":
        return SwinUNETR(in_channels=1, out_channels=options.outputs, feature_size=48)
    return unetr_plus_plus(options)


def order_heads(options, model, parameters):
    """The slab classifiers of UNETR's four states: their cross-entropy after a forward pass."""
    import torch

    slabs = options.image[2] // model.patch_size[2]
    heads = torch.nn.ModuleList(torch.nn.Linear(options.hidden, slabs) for _ in range(4))
    parameters += list(heads.parameters())
    order = torch.arange(slabs).repeat(options.batch)
    states = {}
    places = [*(model.vit.blocks[i] for i in (3, 6, 9)), model.vit.norm]
    for i, module in enumerate(places):
        module.register_forward_hook(lambda _m, _x, result, i=i: states.__setitem__(i, result))

    def loss():
        total = 0
        for i, head in enumerate(heads):
            grid = states[i].reshape(options.batch, -1, slabs, options.hidden)
            total = total + torch.nn.functional.cross_entropy(head(grid.mean(1)).reshape(-1, slabs), order)
        return total

    return loss


def build_work(options):
    import torch
    from monai.losses import DiceCELoss

    on_gpu = options.mode in GPU_MODES
    device = "cuda" if on_gpu else "cpu"
    if on_gpu:
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = options.precision == "tf32"
        torch.backends.cudnn.allow_tf32 = options.precision == "tf32"
    torch.manual_seed(0)
    model = build_network(options).to(device)
    image = torch.randn(options.batch, 1, *options.image, device=device)
    label = torch.randint(0, options.outputs, (options.batch, 1, *options.image), device=device)
    if options.mode == "channels_last" or on_gpu:
        model = model.to(memory_format=torch.channels_last_3d)
        image = image.to(memory_format=torch.channels_last_3d)
    bf16 = options.precision == "bf16"
    cast = (lambda: torch.autocast(device, torch.bfloat16)) if bf16 else contextlib.nullcontext
    compiled = torch.compile if options.mode.endswith("compiled") else (lambda f: f)

    def forward():
        result = model(image)
        return result[0] if isinstance(result, (list, tuple)) else result

    if options.work == "infer":
        model.eval()
        forward = compiled(forward)

        def run():
            with torch.inference_mode(), cast():
                return forward().float().mean().item()

        return run

    parameters = list(model.parameters())
    if options.work == "pretrain":
        order = order_heads(options, model, parameters)

        def objective():
            return torch.nn.functional.mse_loss(forward(), image) + order()
    else:
        loss = DiceCELoss(to_onehot_y=True, softmax=True, squared_pred=True, smooth_nr=0.0, smooth_dr=1e-6)

        def objective():
            with cast():
                logits = forward()
            return loss(logits.float(), label)

    objective = compiled(objective)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-5, fused=on_gpu or None)

    def run():
        optimizer.zero_grad(set_to_none=True)
        value = objective()
        value.backward()
        optimizer.step()
        return value.item()

    return run


def write_tensors(path, tensors):
    """A safetensors file of float32, without a package for it."""
    header, pieces, at = {}, [], 0
    for name, tensor in tensors.items():
        data = tensor.detach().contiguous().float().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + len(data)]}
        pieces.append(data)
        at += len(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text + b"".join(pieces))


def save(options):
    """The network's weights, an input x and what it makes of it, for compare_networks.py."""
    import torch

    torch.manual_seed(0)
    model = build_network(options).eval()
    x = torch.randn(1, 1, *options.image)
    with torch.inference_mode():
        out = model(x)
    # UNETR++ has a second name, F, for the one projection of keys and values.
    weights = {name: tensor for name, tensor in model.state_dict().items()
               if tensor.is_floating_point() and ".epa_block.F." not in name}
    write_tensors(os.path.join(options.save, "weights.safetensors"), weights)
    write_tensors(os.path.join(options.save, "x.safetensors"), {"x": x})
    write_tensors(os.path.join(options.save, "theirs.safetensors"),
                  {"out": out[0] if isinstance(out, (list, tuple)) else out})


def free_bytes(options):
    """Of the card's memory, the process's own overhead already taken."""
    if options.mode not in GPU_MODES:
        return 0
    import torch

    torch.zeros(1, device="cuda").item()
    return torch.cuda.mem_get_info()[0]


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure(options):
    started = time.perf_counter()
    import torch

    torch.set_num_threads(options.threads)
    free = free_bytes(options)
    run = build_work(options)
    run()
    first = time.perf_counter() - started
    for _ in range(options.warmup - 1):
        run()
    seconds, before = [], faults()
    for _ in range(options.steps):
        start = time.perf_counter()
        value = run()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({
        "network": options.network, "work": options.work, "mode": options.mode, "precision": options.precision,
        "image": options.image, "batch": options.batch, "threads": options.threads,
        "torch": torch.__version__, "median_s": statistics.median(seconds), "steps": options.steps,
        "device_bytes": free - free_bytes(options),
        # Without what the allocator holds and does not use; the driver's share is not in it.
        "allocated_bytes": torch.cuda.max_memory_allocated() if options.mode in GPU_MODES else 0,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "page_faults_per_step": (faults() - before) // options.steps,
        "first_step_s": round(first, 2), "value": value,
    }), flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=("unetr", "unetr_plus_plus", "swin_unetr"), default="unetr")
    parser.add_argument("--work", choices=("train", "pretrain", "infer"), default="train")
    parser.add_argument("--mode", choices=CPU_MODES + GPU_MODES, default="installed")
    parser.add_argument("--precision", choices=("f32", "tf32", "bf16"), default="f32")
    parser.add_argument("--image", type=int, nargs=3, default=[96, 96, 96])
    parser.add_argument("--outputs", type=int, default=14)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=768, help="of UNETR")
    parser.add_argument("--heads", type=int, default=12, help="of UNETR")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--unetr-plus-plus")
    parser.add_argument("--save", metavar="FOLDER", help="weights, an input and its output, and no timing")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work == "pretrain":
        if options.network != "unetr":
            parser.error("pretrain is there for unetr")
        options.outputs = 1
    return options


def main():
    options = parse()
    if options.measure:
        return measure(options)
    if options.save:
        return save(options)
    environment = dict(os.environ, OMP_NUM_THREADS=str(options.threads))
    if options.mode in CPU_MODES[1:]:
        environment["GLIBC_TUNABLES"] = TUNABLES
    return subprocess.run([sys.executable, *sys.argv, "--measure"], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
