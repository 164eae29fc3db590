"""UNETR against monai.networks.nets.UNETR. Made with MONAI 1.6.1."""

from monai.networks.nets import UNETR

import networks


def keep(name):
    return "norm_cross_attn" not in name  # made by MONAI's transformer block, never read by UNETR


def outputs(module, x):
    final, hidden = module.vit(x)
    levels = [module.proj_feat(t) for t in (hidden[3], hidden[6], hidden[9], final)]
    return {"out": module(x), **{f"levels.{i}": t for i, t in enumerate(levels)}}


def builder(**arguments):
    return lambda image, channels: UNETR(img_size=image, in_channels=channels, **arguments)


SMALL = {"out_channels": 3, "feature_size": 2, "hidden_size": 24, "mlp_dim": 48, "num_heads": 3}
OURS = {"outputs": 3, "features": 2, "hidden": 24, "mlp": 48, "heads": 3}

for embedding in ("perceptron", "conv"):
    for norm in ("instance", "batch"):
        name = f"unetr_{embedding}" + ("_batch" if norm == "batch" else "")
        ours = {**OURS, **({} if embedding == "perceptron" else {"embedding": "conv"}),
                **({} if norm == "instance" else {"norm": "batch"})}
        channels = 2 if norm == "batch" else 1
        networks.write(
            name, "models/unetr.yaml", ours,
            builder(proj_type=embedding, norm_name=norm, **SMALL), outputs,
            [{"image": (96, 96, 96), "channels": channels},
             {"image": (32, 16, 48), "channels": channels, "batch": 2, "train": True},
             {"image": (48, 32, 16), "channels": channels, "batch": 2}], keep,
            published={"arguments": {"outputs": 14}, "image": (96, 96, 96), "channels": 1,
                       "build": lambda: UNETR(1, 14, (96, 96, 96), proj_type="perceptron")}
            if name == "unetr_perceptron" else None)
