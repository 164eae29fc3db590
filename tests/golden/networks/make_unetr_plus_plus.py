"""UNETR++ against the authors' public networks for Synapse and for Lung.

    python3 make_unetr_plus_plus.py --source FOLDER

FOLDER holds a checkout of github.com/Amshaker/unetr_plus_plus (made with commit dcba1c6). Its networks
belong to one crop each: the numbers of tokens stand in their constructors, so they are replaced here
from outside. Its base class only adds sliding-window inference and is left out.
"""

import argparse
import functools
import importlib
import math
import sys
import types

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--source", required=True)
sys.path.insert(0, parser.parse_args().source)

import networks  # noqa: E402

base = types.ModuleType("unetr_pp.network_architecture.neural_network")
base.SegmentationNetwork = torch.nn.Module
sys.modules[base.__name__] = base

FOLDER = "unetr_pp.network_architecture."
FEATURES, DEPTHS = 2, [2, 1, 1, 1]


class Variant:
    def __init__(self, name, stem):
        self.name, self.stem = name, stem
        self.module = importlib.import_module(f"{FOLDER}{name}.unetr_pp_{name}")
        self.encoder, self.up = self.module.UnetrPPEncoder, self.module.UnetrUpBlock

    def make(self, image, channels, outputs, features, depths, decoder_depth):
        grids = [[n // (s * 2**i) for n, s in zip(image, self.stem)] for i in range(4)]
        tokens = [math.prod(g) for g in grids]
        self.module.UnetrPPEncoder = functools.partial(
            self.encoder, input_size=tokens, in_channels=channels)
        left = iter([tokens[2], tokens[1], tokens[0], math.prod(image)])  # decoder5, 4, 3, 2

        def up(*args, **kwargs):
            return self.up(*args, **{**kwargs, "out_size": next(left), "depth": decoder_depth})

        self.module.UnetrUpBlock = up
        size = {"img_size": image} if self.name == "synapse" else {}
        net = self.module.UNETR_PP(
            in_channels=channels, out_channels=outputs, feature_size=features, num_heads=4,
            hidden_size=16 * features, depths=depths,
            dims=[2 * features, 4 * features, 8 * features, 16 * features], **size)
        net.feat_size = tuple(grids[3])
        return net

    def small(self, image, channels):
        net = self.make(image, channels, 3, FEATURES, DEPTHS, 1)
        for m in net.modules():  # what dropout does is tested by its own distribution
            if isinstance(m, (torch.nn.Dropout, torch.nn.Dropout3d)):
                m.p = 0.0
        return net


def outputs(net, x):
    hidden = []
    hook = net.unetr_pp_encoder.register_forward_hook(lambda m, given, result: hidden.extend(result[1]))
    out, out2, out3 = net(x)
    hook.remove()
    hidden[3] = net.proj_feat(hidden[3], net.hidden_size, net.feat_size)
    return {"out": out, "out2": out2, "out3": out3,
            **{f"levels.{i}": h for i, h in enumerate(hidden)}}


OURS = {"outputs": 3, "features": FEATURES, "depths": DEPTHS, "decoder_depth": 1,
        "attention_dropout": 0, "convolution_dropout": 0}
LUNG = {"stem": [1, 4, 4], "shared_projection": False, "convolutions": 2}

synapse, lung = Variant("synapse", (2, 4, 4)), Variant("lung", (1, 4, 4))

networks.write(
    "unetr_plus_plus_synapse", "models/unetr_plus_plus.yaml", OURS, synapse.small, outputs,
    [{"image": (64, 128, 128)}, {"image": (32, 64, 32), "batch": 2, "train": True},
     {"image": (16, 32, 64)}],
    # The second name of the one shared projection.
    keep=lambda name: ".epa_block.F." not in name,
    published={"arguments": {"outputs": 14}, "image": (64, 128, 128), "channels": 1,
               "build": lambda: synapse.make((64, 128, 128), 1, 14, 16, [3, 3, 3, 3], 3)})

networks.write(
    "unetr_plus_plus_lung", "models/unetr_plus_plus.yaml", {**OURS, **LUNG}, lung.small, outputs,
    [{"image": (32, 192, 192)}, {"image": (16, 64, 32), "batch": 2, "train": True},
     {"image": (24, 32, 32)}],
    published={"arguments": {"outputs": 2, **LUNG}, "image": (32, 192, 192), "channels": 1,
               "build": lambda: lung.make((32, 192, 192), 1, 2, 16, [3, 3, 3, 3], 3)})
