"""DynUNet against monai.networks.nets.DynUNet. Made with MONAI 1.6.1."""

from monai.networks.nets import DynUNet

import networks


def keep(name):
    return not name.startswith("skip_layers.")  # the same modules once more


def outputs(module, x):
    stages = [module.input_block, *module.downsamples, module.bottleneck]
    out, seen = networks.watch(stages, lambda: module.output_block(module.skip_layers(x)))
    found = {"out": out, **{f"levels.{i}": seen[level] for i, level in enumerate((1, 2, 3))}}
    if module.deep_supervision:
        found.update({f"out{i + 2}": head for i, head in enumerate(module.heads)})
    return found


def builder(**arguments):
    return lambda image, channels: DynUNet(3, channels, 3, **arguments)


def lists(levels, **more):
    """A plain network of cubes in the published depth."""
    return {"kernel_size": [3] * levels, "strides": [1] + [2] * (levels - 1),
            "upsample_kernel_size": [2] * (levels - 1), **more}


FILTERS = [3, 4, 5, 6, 7, 8]
networks.write(
    "dynunet", "models/dynunet.yaml", {"outputs": 3, "filters": FILTERS, "deep_supervision": 2},
    builder(**lists(6, filters=FILTERS, deep_supervision=True, deep_supr_num=2)), outputs,
    [{"image": (96, 96, 96)}, {"image": (64, 32, 96), "batch": 2, "channels": 2, "train": True},
     {"image": (32, 64, 64), "batch": 2}], keep,
    published={"arguments": {"outputs": 14}, "image": (96, 96, 96), "channels": 1,
               "build": lambda: DynUNet(3, 1, 14, **lists(6))})

# Anisotropic levels, as nnU-Net plans them for thick slices. The last channel counts do not fit a
# vector.
FLAT = {"filters": [4, 8, 20, 17],
        "kernel_size": [[3, 3, 1], [3, 3, 1], 3, [3, 5, 3]],
        "strides": [1, [2, 2, 1], [2, 2, 1], [1, 2, 2]],
        "upsample_kernel_size": [[2, 2, 1], [2, 2, 1], [1, 2, 2]]}
networks.write(
    "dynunet_residual_batch", "models/dynunet.yaml",
    {"outputs": 3, "norm": "batch", "res_block": True, "trans_bias": True, "deep_supervision": 1,
     **FLAT},
    builder(norm_name=("batch", {"affine": True}), res_block=True, trans_bias=True,
            deep_supervision=True, deep_supr_num=1, **FLAT), outputs,
    [{"image": (48, 48, 16), "batch": 2, "train": True}, {"image": (16, 32, 8), "channels": 2},
     {"image": (32, 16, 4), "train": True}], keep)

GROUPED = {**FLAT, "filters": [4, 6, 10, 12]}
networks.write(
    "dynunet_residual_group", "models/dynunet.yaml",
    {"outputs": 3, "norm": "group", "groups": 2, "res_block": True, **GROUPED},
    builder(norm_name=("group", {"num_groups": 2}), res_block=True, **GROUPED), outputs,
    [{"image": (48, 48, 16)}, {"image": (16, 32, 8), "channels": 2, "batch": 2, "train": True},
     {"image": (32, 16, 6), "train": True}], keep)

# One learned slope for both activations of a block.
networks.write(
    "dynunet_residual_prelu", "models/dynunet.yaml",
    {"outputs": 3, "act": "prelu", "res_block": True, **FLAT},
    builder(act_name="prelu", res_block=True, **FLAT), outputs,
    [{"image": (48, 48, 16)}, {"image": (32, 16, 8), "channels": 2, "train": True}], keep)
networks.write(
    "dynunet_mish", "models/dynunet.yaml",
    {"outputs": 3, "act": "mish", **lists(4, filters=[4, 6, 8, 10])},
    builder(act_name="mish", **lists(4, filters=[4, 6, 8, 10])), outputs,
    [{"image": (16, 16, 32), "batch": 2, "train": True}], keep)
