"""Fixtures of group and batch norm; see make_operators.py."""
import os

import numpy as np
import torch
import torch.nn.functional as F

from make_operators import HERE, case, normal


def finish(y, residual, slope):
    y = y.movedim(1, -1)
    return F.leaky_relu(y if residual is None else y + residual, slope)


def group_norm():
    def oracle(groups, slope=1.0, eps=1e-5):
        return lambda x, w, b, r: finish(F.group_norm(x.movedim(-1, 1), groups, w, b, eps), r, slope)

    for c, groups in ((6, 1), (6, 3), (20, 5), (7, 7), (264, 2)):
        x = normal(2, 3, 1, 2, c) * 3 + 20
        case(f"group_norm_{c}_{groups}", "group_norm", {"groups": groups},
             [x, normal(c), normal(c), None], oracle(groups))
    case("group_norm_tokens", "group_norm", {"groups": 2, "affine": "false", "eps": "1e-3"},
         [normal(2, 5, 8), None, None, None], oracle(2, eps=1e-3))
    case("group_norm_residual", "group_norm", {"groups": 4, "slope": 0.01},
         [normal(2, 3, 2, 3, 12), normal(12), normal(12), normal(2, 3, 2, 3, 12)], oracle(4, 0.01))


def batch_norm():
    def add(name, attrs, x, affine=True, residual=False, training=True, momentum=0.1, slope=1.0,
            eps=1e-5):
        c = x.shape[-1]
        mean, variance = normal(c), np.abs(normal(c)) + 0.5
        states = {4: torch.empty(c), 5: torch.empty(c)} if training else None

        def oracle(x, w, b, r, m, v):
            m, v = m.detach().clone(), v.detach().clone()
            y = F.batch_norm(x.movedim(-1, 1), m, v, w, b, training, momentum, eps)
            if training:
                states[4].copy_(m)
                states[5].copy_(v)
            return finish(y, r, slope)

        case(name, "batch_norm" if training else "batch_norm_inference", attrs,
             [x, normal(c) if affine else None, normal(c) if affine else None,
              normal(*x.shape) if residual else None, mean, variance], oracle, states)

    for training, kind in ((True, "batch_norm"), (False, "batch_norm_inference")):
        add(f"{kind}_1", {}, normal(3, 3, 2, 3, 1) * 3 + 20, training=training)
        add(f"{kind}_20", {"momentum": 0.3, "eps": "1e-3"}, normal(2, 3, 2, 3, 20) * 3,
            training=training, momentum=0.3, eps=1e-3)
        add(f"{kind}_plain", {"affine": "false"}, normal(5, 9), affine=False, training=training)
        add(f"{kind}_residual", {"slope": 0.01}, normal(2, 3, 2, 3, 12), residual=True,
            training=training, slope=0.01)
        add(f"{kind}_tiles", {"slope": 0}, normal(3, 1, 1, 1, 260), training=training, slope=0.0)


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    torch.set_num_threads(1)
    group_norm()
    batch_norm()
