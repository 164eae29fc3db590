"""BasicUNet against monai.networks.nets.BasicUNet. Made with MONAI 1.6.1."""

from monai.networks.nets import BasicUNet

import networks


def outputs(module, x):
    out, seen = networks.watch([module.down_1, module.down_2, module.down_3], lambda: module(x))
    return {"out": out, **{f"levels.{i}": y for i, y in enumerate(seen)}}


def builder(**arguments):
    return lambda image, channels: BasicUNet(3, channels, 3, **arguments)


networks.write(
    "basic_unet", "models/basic_unet.yaml", {"outputs": 3, "features": [3, 4, 5, 6, 8, 7]},
    builder(features=(3, 4, 5, 6, 8, 7)), outputs,
    [{"image": (32, 48, 32), "batch": 2}, {"image": (32, 32, 48), "channels": 2, "train": True}],
    published={"arguments": {"outputs": 2}, "image": (96, 96, 96), "channels": 1,
               "build": lambda: BasicUNet(3, 1, 2)})

networks.write(
    "basic_unet_batch", "models/basic_unet.yaml",
    {"outputs": 3, "features": [4, 4, 6, 6, 10, 5], "norm": "batch", "bias": False, "slope": 0},
    builder(features=(4, 4, 6, 6, 10, 5), norm="batch", bias=False, act="relu"), outputs,
    [{"image": (32, 16, 32), "channels": 2}, {"image": (16, 32, 32), "batch": 2, "train": True}])

networks.write(
    "basic_unet_selu", "models/basic_unet.yaml",
    {"outputs": 3, "features": [4, 4, 6, 6, 10, 5], "act": "selu"},
    builder(features=(4, 4, 6, 6, 10, 5), act="selu"), outputs,
    [{"image": (32, 16, 32), "channels": 2, "train": True}])
