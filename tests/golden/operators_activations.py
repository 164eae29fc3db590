"""Fixtures of activations with tails and corners; see make_operators.py."""
import os

import numpy as np
import torch
import torch.nn.functional as F

from make_operators import HERE, case, normal


def wide(*shape):
    """Values from the steep middle to far into the tails."""
    return (normal(*shape) * np.logspace(-2, 1.3, shape[-1])).astype(np.float32)


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    torch.set_num_threads(1)
    case("sigmoid", "sigmoid", {}, [wide(2, 3, 41)], torch.sigmoid)
    case("tanh", "tanh", {}, [wide(2, 3, 41)], torch.tanh)
    case("silu", "silu", {}, [wide(2, 3, 41)], F.silu)
    case("gelu_2d", "gelu", {}, [wide(3, 41)], F.gelu)
    case("relu_1d", "relu", {}, [normal(33)], F.relu)
    case("softmax_6d", "softmax", {}, [normal(1, 2, 1, 3, 2, 5, scale=3)], lambda x: x.softmax(-1))

    def prelu(x, w):
        return F.prelu(x.movedim(-1, 1), w).movedim(1, -1)

    case("prelu_shared", "prelu", {}, [normal(2, 3, 2, 3, 5), normal(1)], prelu)
    case("prelu_channels", "prelu", {"per_channel": "true"}, [normal(2, 3, 2, 3, 20), normal(20)],
         prelu)
    case("prelu_tiles", "prelu", {"per_channel": "true"}, [normal(2, 2, 261), normal(261)], prelu)
    case("elu", "elu", {"alpha": 0.7}, [wide(2, 3, 41)], lambda x: F.elu(x, 0.7))
    case("celu", "celu", {"alpha": 0.4}, [wide(2, 3, 41)], lambda x: F.celu(x, 0.4))
    case("selu", "selu", {}, [wide(2, 3, 41)], F.selu)
    case("mish", "mish", {}, [wide(2, 3, 41)], F.mish)
    case("relu6", "relu6", {}, [wide(2, 3, 41)], F.relu6)
    case("hardswish", "hardswish", {}, [wide(2, 3, 41)], F.hardswish)
    case("softplus", "softplus", {}, [wide(2, 3, 41)], F.softplus)
