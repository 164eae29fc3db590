"""UNETR++ against the authors' public networks for Synapse and for Lung.

    python3 make_unetr_plus_plus.py --source FOLDER

FOLDER holds a checkout of github.com/Amshaker/unetr_plus_plus (made with commit dcba1c6).
"""

import argparse

import torch

import networks
import public_unetr_plus_plus

parser = argparse.ArgumentParser()
parser.add_argument("--source", required=True)
source = parser.parse_args().source

FEATURES, DEPTHS = 2, [2, 1, 1, 1]


class Variant(public_unetr_plus_plus.Variant):
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

synapse, lung = Variant(source, "synapse", (2, 4, 4)), Variant(source, "lung", (1, 4, 4))

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
