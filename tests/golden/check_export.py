"""Weights go both ways between PyTorch and Strata, at sizes too large to commit:

    check_export.py STRATA     the program, such as build/strata

1. A network of MONAI with random weights is saved by torch.save, inside a checkpoint and under a
   prefix; `strata weights import` reads it and `strata forward` gives MONAI's output.
2. `strata run` trains a network on phantoms; safetensors.torch loads its weights into MONAI's class,
   which gives the output of `strata forward`.

Prints a line for each; the exit status is 1 when a largest difference exceeds 1e-4 of the largest
output. Run from the repository root; tests/cli/weights.sh does where PyTorch and MONAI are
installed."""
import os
import subprocess
import sys
import tempfile

import torch
from monai.networks.nets import UNETR, SwinUNETR
from safetensors.torch import load_file, save_file

TOLERANCE = 1e-4
HERE = os.path.abspath(".")
RULES = """strata: 1
strip: [module.]
drop: [%s]
"""


def strata(*arguments):
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"strata {' '.join(arguments)}\n{done.stdout}{done.stderr}")
    return done.stdout


def forward(model, settings, weights, x):
    save_file({"x": x.contiguous()}, "x.safetensors")
    strata("forward", f"{HERE}/pipelines/models/{model}", *options(settings), "--weights", weights,
           "--input", "x.safetensors", "--output", "y.safetensors")
    return load_file("y.safetensors")["out"]


def options(settings, prefix=""):
    return [text for key, value in settings.items() for text in ("--set", f"{prefix}{key}={value}")]


def compare(what, ours, theirs):
    share = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    print(f"{what:50} {share:.2e}")
    return share <= TOLERANCE


def random_network(net):
    """Norms and biases too are away from their initial 0 and 1."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p) if p.ndim == 1 else 0)
    return net.eval()


def imported(what, net, model, settings, unused, x):
    torch.save({"epoch": 1, "optimizer": {"state": {}},
                "state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, "net.pt")
    with open("rules.yaml", "w") as f:
        f.write(RULES % ", ".join(f'"{name}"' for name in unused))
    strata("weights", "import", "net.pt", "--map", "rules.yaml", "-o", "net.safetensors")
    with torch.no_grad():
        theirs = net(x)
    return compare(f"{what}, imported", forward(model, settings, "net.safetensors", x), theirs)


def trained(net):
    settings = {"features": 2, "hidden": 24, "mlp": 48, "heads": 2, "layers": 12,
                "embedding": "conv"}
    strata("phantom", "phantom", "--cases", "8", "--organs", "2", "--size", "48")
    strata("run", f"{HERE}/tests/pipelines/tiny.yaml", "--set", "data.root=phantom", "--out", "run",
           *options(settings, "model.with."))
    weights = "run/weights/segment.safetensors"
    missing, unexpected = net.load_state_dict(load_file(weights), strict=False)
    assert not unexpected and all("norm_cross_attn" in name for name in missing), (missing, unexpected)
    x = torch.randn(1, 1, 16, 16, 32)
    with torch.no_grad():
        theirs = net.eval()(x)
    ours = forward("unetr.yaml", {**settings, "outputs": 3}, weights, x)
    return compare("UNETR trained by Strata, in PyTorch", ours, theirs)


def main():
    good = True
    for embedding in "conv", "perceptron":
        net = UNETR(in_channels=1, out_channels=3, img_size=(32, 16, 48), feature_size=4,
                    hidden_size=24, mlp_dim=48, num_heads=3, proj_type=embedding)
        good &= imported(f"UNETR, {embedding} embedding", random_network(net), "unetr.yaml",
                         {"outputs": 3, "features": 4, "hidden": 24, "mlp": 48, "heads": 3,
                          "embedding": embedding}, ["*.norm_cross_attn.*"],
                         torch.randn(2, 1, 32, 16, 48))
    good &= trained(UNETR(in_channels=1, out_channels=3, img_size=(16, 16, 32), feature_size=2,
                          hidden_size=24, mlp_dim=48, num_heads=2))
    if os.path.exists(f"{HERE}/pipelines/models/swin_unetr.yaml"):
        net = SwinUNETR(in_channels=1, out_channels=3, feature_size=12)
        good &= imported("Swin UNETR", random_network(net), "swin_unetr.yaml",
                         {"outputs": 3, "features": 12}, [], torch.randn(1, 1, 64, 32, 32))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    PROGRAM = os.path.abspath(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        main()
