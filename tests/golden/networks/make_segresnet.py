"""SegResNet against monai.networks.nets.SegResNet. Made with MONAI 1.6.1."""

from monai.networks.nets import SegResNet

import networks


def outputs(module, x):
    bottom, levels = module.encode(x)
    out = module.decode(bottom, levels[::-1])
    return {"out": out, **{f"levels.{i}": y for i, y in enumerate(levels[1:4])}}


def builder(**arguments):
    return lambda image, channels: SegResNet(in_channels=channels, out_channels=3, **arguments)


networks.write(
    "segresnet", "models/segresnet.yaml", {"outputs": 3, "init_filters": 4, "groups": 2},
    builder(init_filters=4, norm=("GROUP", {"num_groups": 2})), outputs,
    [{"image": (32, 16, 24), "batch": 2}, {"image": (16, 24, 16), "channels": 2, "train": True}],
    published={"arguments": {"outputs": 2}, "image": (96, 96, 96), "channels": 1,
               "build": lambda: SegResNet()})

networks.write(
    "segresnet_deconv_batch", "models/segresnet.yaml",
    {"outputs": 3, "init_filters": 5, "norm": "batch", "blocks_down": [2, 1, 3],
     "blocks_up": [1, 2], "upsample_mode": "deconv"},
    builder(init_filters=5, norm="batch", blocks_down=(2, 1, 3), blocks_up=(1, 2),
            upsample_mode="deconv"), outputs,
    [{"image": (16, 8, 12), "channels": 2}, {"image": (12, 16, 8), "batch": 2, "train": True}])
