"""nnU-Net's default U-Net against PlainConvUNet of dynamic_network_architectures, the library that holds
nnU-Net's networks. Made with its release 0.4.4."""

from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

import networks
import nnunet

PUBLISHED = {"features_per_stage": [32, 64, 128, 256, 320, 320], "kernel_sizes": [[3, 3, 3]] * 6,
             "strides": [1, 2, 2, 2, 2, 2], "n_conv_per_stage": [2] * 6,
             "n_conv_per_stage_decoder": [2] * 5}
SMALL = {"features_per_stage": [3, 4, 5, 6, 7], "strides": [1, 2, 2, 2, 2]}
networks.write(
    "plain_unet", "models/plain_unet.yaml", {"outputs": 3, **SMALL},
    nnunet.builder(PlainConvUNet, kernel_sizes=[[3, 3, 3]] * 5, n_conv_per_stage=[2] * 5,
                   n_conv_per_stage_decoder=[2] * 4, **SMALL), nnunet.outputs,
    [{"image": (64, 96, 64)}, {"image": (32, 64, 32), "channels": 2, "train": True},
     {"image": (64, 32, 32), "batch": 2, "train": True}], nnunet.keep,
    published={"arguments": {"outputs": 14}, "image": (128, 128, 128), "channels": 1,
               "build": lambda: nnunet.make(PlainConvUNet, 1, 14, **PUBLISHED)})

# Thick slices, other numbers of convolutions, batch norm, no biases.
FLAT = {"features_per_stage": [4, 8, 8, 12], "kernel_sizes": [[3, 3, 1], [3, 3, 1], [3, 3, 3], 3],
        "strides": [[1, 1, 1], [2, 2, 1], [1, 2, 2], [2, 2, 1]], "n_conv_per_stage": [1, 2, 3, 1],
        "n_conv_per_stage_decoder": [2, 1, 2]}
networks.write(
    "plain_unet_flat_batch", "models/plain_unet.yaml",
    {"outputs": 3, "norm": "batch", "conv_bias": False, **FLAT},
    nnunet.builder(PlainConvUNet, norm=nn.BatchNorm3d, bias=False,
                   **{**FLAT, "kernel_sizes": FLAT["kernel_sizes"][:3] + [[3, 3, 3]]}),
    nnunet.outputs,
    [{"image": (32, 48, 12), "batch": 2, "train": True}, {"image": (16, 32, 8), "channels": 2},
     {"image": (8, 16, 8), "batch": 2, "train": True}], nnunet.keep)
