"""UNet against monai.networks.nets.UNet. Made with MONAI 1.6.1."""

import torch
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets import UNet

import networks


def outputs(module, x):
    """The levels on the way down, which MONAI nests: down, SkipConnection(below), up."""
    stages, below = [], module.model
    while isinstance(below, torch.nn.Sequential) and isinstance(below[1], SkipConnection):
        stages.append(below[0])
        below = below[1].submodule
    out, seen = networks.watch(stages[:3], lambda: module(x))
    return {"out": out, **{f"levels.{i}": y for i, y in enumerate(seen)}}


def builder(**arguments):
    return lambda image, channels: UNet(3, channels, 3, **arguments)


networks.write(
    "unet", "models/unet.yaml", {"outputs": 3, "filters": [3, 4, 5, 6, 7]},
    builder(channels=(3, 4, 5, 6, 7), strides=(2, 2, 2, 2)), outputs,
    [{"image": (32, 64, 48), "batch": 2}, {"image": (48, 32, 32), "channels": 2, "train": True}],
    published={"arguments": {"outputs": 2}, "image": (96, 96, 96), "channels": 1,
               "build": lambda: UNet(3, 1, 2, (16, 32, 64, 128, 256), (2, 2, 2, 2))})

networks.write(
    "unet_residual", "models/unet.yaml",
    {"outputs": 3, "filters": [4, 8, 17, 20], "strides": [2, [2, 2, 1], 1], "kernel_size": [3, 3, 1],
     "up_kernel_size": 5, "num_res_units": 2, "norm": "batch", "bias": False},
    builder(channels=(4, 8, 17, 20), strides=(2, (2, 2, 1), 1), kernel_size=(3, 3, 1),
            up_kernel_size=5, num_res_units=2, norm="batch", bias=False), outputs,
    [{"image": (16, 32, 8), "channels": 2}, {"image": (32, 16, 8), "batch": 2, "train": True}],
    published={"arguments": {"outputs": 2, "num_res_units": 2, "norm": "batch"},
               "image": (96, 96, 96), "channels": 1,
               "build": lambda: UNet(3, 1, 2, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2,
                                     norm="batch")})

networks.write(
    "unet_leaky", "models/unet.yaml",
    {"outputs": 3, "filters": [4, 6, 8], "strides": [2, 2], "num_res_units": 1, "act": "leaky_relu",
     "affine": True},
    builder(channels=(4, 6, 8), strides=(2, 2), num_res_units=1, act="leakyrelu",
            norm=("instance", {"affine": True})), outputs,
    [{"image": (16, 32, 16), "channels": 2, "batch": 2, "train": True}])

networks.write(
    "unet_elu", "models/unet.yaml",
    {"outputs": 3, "filters": [4, 6, 8], "strides": [2, 2], "num_res_units": 1, "act": "elu"},
    builder(channels=(4, 6, 8), strides=(2, 2), num_res_units=1, act="elu"), outputs,
    [{"image": (16, 32, 16), "channels": 2, "batch": 2, "train": True}])
