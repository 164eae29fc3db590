"""The authors' public UNETR++ networks, for the crop and the width that are asked for. Used by
make_unetr_plus_plus.py and by tests/bench/torch_networks.py.

Their networks belong to one crop each: the numbers of tokens stand in their constructors, so they are
replaced here from outside. Their base class only adds sliding-window inference and is left out.
"""

import functools
import importlib
import math
import sys
import types

import torch

FOLDER = "unetr_pp.network_architecture."


class Variant:
    """`source` is a checkout of github.com/Amshaker/unetr_plus_plus (used: commit dcba1c6), `name` synapse
    or lung, `stem` the voxels of one token of the first stage."""

    def __init__(self, source, name, stem):
        if source not in sys.path:
            sys.path.insert(0, source)
        base = types.ModuleType(FOLDER + "neural_network")
        base.SegmentationNetwork = torch.nn.Module
        sys.modules[base.__name__] = base
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
