"""Writes tests/golden/updates/*.safetensors: a small network trained by torch.optim with parameter groups,
clipping, accumulated gradients and averaged weights, in double precision. test_updates_golden.c trains
the same one. Run from anywhere."""
import os

import numpy as np
import torch
import torch.nn as nn
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "updates")
UPDATES, ROWS, INPUTS, HIDDEN, OUTPUTS = 6, 5, 7, 9, 3


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(INPUTS, HIDDEN)
        self.norm = nn.LayerNorm(HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, OUTPUTS)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.norm(self.fc1(x))))


def train(name, make, parts=1, clip_value=None, clip_norm=None, ema=None, warmup=False):
    torch.manual_seed(len(name))
    rng = np.random.default_rng(len(name))
    net = Network()
    out = {f"initial.{k}": v.clone() for k, v in net.state_dict().items()}
    net = net.double()
    optimizer = make(dict(net.named_parameters()))
    decay = lambda t: min(ema, (1 + t) / (10 + t)) if warmup else ema
    averaged = AveragedModel(net, avg_fn=lambda a, p, n: a + (1 - decay(average_at)) * (p - a)) if ema else None
    if averaged:
        averaged.update_parameters(net)  # the first call copies
    for t in range(UPDATES):
        optimizer.zero_grad()
        for part in range(parts):
            x = torch.from_numpy(rng.standard_normal((ROWS, INPUTS)).astype(np.float32))
            y = torch.from_numpy((3 * rng.standard_normal((ROWS, OUTPUTS))).astype(np.float32))
            out[f"x.{t}.{part}"], out[f"y.{t}.{part}"] = x, y
            (nn.functional.mse_loss(net(x.double()), y.double()) / parts).backward()
        if clip_value:
            nn.utils.clip_grad_value_(net.parameters(), clip_value)
        if clip_norm:
            nn.utils.clip_grad_norm_(net.parameters(), clip_norm)
        optimizer.step()
        if averaged:
            average_at = t + 1
            averaged.update_parameters(net)
    for k, v in net.state_dict().items():
        out[f"final.{k}"] = v.float()
        if averaged:
            out[f"average.{k}"] = averaged.module.state_dict()[k].float()
    save_file(out, os.path.join(HERE, name + ".safetensors"))


def adamw(p):
    """groups: [{match: "fc1.*", lr_scale: 0.1}], no_decay: [norm, bias]"""
    return torch.optim.AdamW([{"params": [p["fc1.weight"], p["fc1.bias"]], "lr": 1e-3},
                              {"params": [p["norm.weight"], p["norm.bias"], p["fc2.bias"]], "weight_decay": 0},
                              {"params": [p["fc2.weight"]]}], lr=1e-2, weight_decay=0.3)


def adam(p):
    """groups: [{of: bias, match: "fc?.*", weight_decay: 0.5}]"""
    return torch.optim.Adam([{"params": [p["fc1.bias"], p["fc2.bias"]], "weight_decay": 0.5},
                             {"params": [p["fc1.weight"], p["norm.weight"], p["norm.bias"], p["fc2.weight"]]}],
                            lr=1e-2, weight_decay=0.01)


def sgd(p):
    """groups: [{of: norm, momentum: 0, lr_scale: 2}]"""
    return torch.optim.SGD([{"params": [p["norm.weight"], p["norm.bias"]], "momentum": 0, "nesterov": False,
                             "lr": 0.1},
                            {"params": [p["fc1.weight"], p["fc1.bias"], p["fc2.weight"], p["fc2.bias"]]}],
                           lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    torch.set_num_threads(1)
    train("adamw", adamw, parts=3, clip_norm=0.5, ema=0.9, warmup=True)
    train("adam", adam, clip_value=0.05)
    train("sgd", sgd, parts=2, clip_value=0.5, clip_norm=1.0, ema=0.8)
