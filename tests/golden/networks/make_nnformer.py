"""nnFormer against the public network.

    python3 make_nnformer.py --source FOLDER    # a checkout of github.com/282857341/nnFormer

Of the checkout only the three network files are read; what they import besides (the trainers' base
class, data loading) plays no part in the computation and is replaced by empty modules.
"""

import argparse
import importlib
import sys
import types

import torch

import networks

parser = argparse.ArgumentParser()
parser.add_argument("--source", required=True)
sys.path.insert(0, parser.parse_args().source)

base = types.ModuleType("nnformer.network_architecture.neural_network")
base.SegmentationNetwork = type("SegmentationNetwork", (torch.nn.Module,), {})
sys.modules[base.__name__] = base


def network(variant):
    return importlib.import_module(f"nnformer.network_architecture.nnFormer_{variant}").nnFormer


def keep(name):
    return not name.endswith("relative_position_index")  # constants


def builder(variant, drop_path=True, **arguments):
    def build(image, channels):
        module = network(variant)(crop_size=list(image), input_channels=channels, **arguments)
        for m in module.modules():
            if hasattr(m, "drop_prob"):
                m.drop_prob = 0.0
        return module
    return build


def outputs(module, x):
    levels = module.model_down(x)
    heads = module(x)
    heads = heads if isinstance(heads, list) else [heads]
    names = ["out", "out2", "out3"]
    return {**dict(zip(names, heads)), **{f"levels.{i}": t for i, t in enumerate(levels)}}


networks.write(
    "nnformer_synapse", "models/nnformer.yaml",
    {"outputs": 3, "features": 12, "heads": [1, 2, 3, 4], "decoder_heads": [1, 2, 3],
     "drop_path": 0},
    builder("synapse", embedding_dim=12, num_classes=3, num_heads=[1, 2, 3, 4]), outputs,
    [{"image": (64, 128, 128)}, {"image": (16, 32, 32), "batch": 2, "train": True},
     {"image": (32, 64, 96)}, {"image": (80, 160, 160)}], keep,
    published={"arguments": {"outputs": 14}, "image": (64, 128, 128), "channels": 1,
               "build": lambda: network("synapse")()})

networks.write(
    "nnformer_tumor", "models/nnformer.yaml",
    {"outputs": 2, "features": 12, "heads": [1, 2, 3, 4], "decoder_heads": [2, 3, 4],
     "patch": [4, 4, 4], "stem_strides": [[2, 2, 2], [2, 2, 2]], "deep_supervision": False,
     "drop_path": 0},
    builder("tumor", embedding_dim=12, num_classes=2, num_heads=[1, 2, 3, 4], patch_size=[4, 4, 4],
            window_size=[4, 4, 8, 4], deep_supervision=False), outputs,
    [{"image": (128, 128, 128), "channels": 2}, {"image": (32, 32, 64), "channels": 2},
     {"image": (64, 96, 64), "channels": 2, "train": True, "batch": 2}], keep,
    published={"arguments": {
        "outputs": 4, "features": 96, "heads": [3, 6, 12, 24], "decoder_heads": [6, 12, 24],
        "patch": [4, 4, 4], "stem_strides": [[2, 2, 2], [2, 2, 2]], "deep_supervision": False},
        "image": (128, 128, 128), "channels": 4,
        "build": lambda: network("tumor")(
            crop_size=[128, 128, 128], embedding_dim=96, input_channels=4, num_classes=4,
            num_heads=[3, 6, 12, 24], patch_size=[4, 4, 4], window_size=[4, 4, 8, 4],
            deep_supervision=False)})

WINDOWS = [[3, 5, 5], [3, 5, 5], [7, 10, 10], [3, 5, 5]]
ACDC = {"patch": [1, 4, 4], "stem_strides": [[1, 2, 2], [1, 2, 2]], "deep_supervision": False,
        "windows": WINDOWS, "cubes": False, "masked": False,
        "down_kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        "down_strides": [[1, 2, 2], [2, 2, 2], [2, 2, 2]],
        "down_paddings": [[0, 1, 1], [1, 1, 1], [0, 1, 1]],
        "up_paddings": [[0, 0, 0], [0, 0, 0], [1, 0, 0]]}
STRIDES = [[1, 4, 4], [1, 8, 8], [2, 16, 16], [4, 32, 32]]

networks.write(
    "nnformer_acdc", "models/nnformer.yaml",
    {"outputs": 4, "features": 12, "heads": [1, 2, 3, 4], "decoder_heads": [1, 2, 3],
     "drop_path": 0, **ACDC},
    builder("acdc", embedding_dim=12, num_classes=4, num_heads=[1, 2, 3, 4], patch_size=[1, 4, 4],
            window_size=WINDOWS, down_stride=STRIDES, deep_supervision=False), outputs,
    [{"image": (14, 160, 160)}, {"image": (14, 96, 64), "train": True},
     {"image": (14, 160, 128), "batch": 2}], keep,
    published={"arguments": {"outputs": 4, "features": 96, "heads": [3, 6, 12, 24],
                             "decoder_heads": [3, 6, 12], **ACDC},
               "image": (14, 160, 160), "channels": 1,
               "build": lambda: network("acdc")(
                   crop_size=[14, 160, 160], embedding_dim=96, input_channels=1, num_classes=4,
                   num_heads=[3, 6, 12, 24], patch_size=[1, 4, 4], window_size=WINDOWS,
                   down_stride=STRIDES, deep_supervision=False)})
