"""Swin UNETR against monai.networks.nets.SwinUNETR. Made with MONAI 1.6.1."""

from monai.networks.nets import SwinUNETR

import networks


def keep(name):
    return "relative_position_index" not in name  # a constant, computed from the window


def outputs(module, x):
    hidden = module.swinViT(x, module.normalize)
    return {"out": module(x), **{f"levels.{i}": t for i, t in enumerate(hidden[1:])}}


def builder(**arguments):
    return lambda image, channels: SwinUNETR(in_channels=channels, **arguments)


# The published crop, and two whose deeper feature maps are smaller than a window.
CASES = [{"image": (96, 96, 96)}, {"image": (64, 32, 96), "train": True},
         {"image": (32, 64, 32), "channels": 1, "batch": 2, "train": True}]

SMALL = {"out_channels": 2, "feature_size": 12}
OURS = {"outputs": 2, "features": 12}


def published(**arguments):
    return lambda: SwinUNETR(in_channels=1, out_channels=14, **arguments)


# Everything else that can be chosen. Dropout is not compared: it is off.
networks.write(
    "swin_unetr_choices", "models/swin_unetr.yaml",
    {**OURS, "depths": [1, 3, 2, 1], "heads": [2, 4, 6, 8], "window": [4, 5, 3], "mlp_ratio": 2.5,
     "qkv_bias": False, "normalize": False, "patch_norm": True, "norm": "batch"},
    builder(depths=(1, 3, 2, 1), num_heads=(2, 4, 6, 8), window_size=(4, 5, 3), mlp_ratio=2.5,
            qkv_bias=False, normalize=False, patch_norm=True, norm_name="batch",
            **SMALL), outputs,
    [{"image": (64, 32, 32)}, {"image": (64, 32, 64), "batch": 2, "train": True}], keep)

networks.write(
    "swin_unetr", "models/swin_unetr.yaml", OURS, builder(**SMALL), outputs, CASES, keep,
    published={"arguments": {"outputs": 14, "features": 48}, "image": (96, 96, 96), "channels": 1,
               "build": published(feature_size=48)})

networks.write(
    "swin_unetr_v2", "models/swin_unetr.yaml", {**OURS, "residual_stages": True, "merging": 2},
    builder(use_v2=True, downsample="mergingv2", **SMALL), outputs, CASES, keep,
    published={"arguments": {"outputs": 14, "features": 48, "residual_stages": True},
               "image": (96, 96, 96), "channels": 1,
               "build": published(feature_size=48, use_v2=True)})
