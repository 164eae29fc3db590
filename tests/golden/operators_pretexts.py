"""Fixtures of the operators of self-supervised pretexts; see make_operators.py."""
import os
import sys

import torch
import torch.nn.functional as F
from einops import rearrange

from make_operators import HERE, case, normal


def pooling():
    for name, cells, shape in (("grid", (2, 1, 3), (2, 4, 3, 6, 5)), ("global", (1, 1, 1), (3, 3, 2, 5, 17))):
        case(f"cell_pool_{name}", "cell_pool", {"cells": list(cells)}, [normal(*shape)],
             lambda x: F.adaptive_avg_pool3d(x.movedim(-1, 1), cells).flatten(2).movedim(1, 2))


def patches():
    def normalized(x, size, eps):
        p1, p2, p3 = size
        p = rearrange(x, "b (h p) (w q) (d r) c -> b h w d (p q r c)", p=p1, q=p2, r=p3)
        p = (p - p.mean(-1, keepdim=True)) / (p.var(-1, keepdim=True) + eps).sqrt()
        return rearrange(p, "b h w d (p q r c) -> b (h p) (w q) (d r) c", p=p1, q=p2, r=p3)

    for name, size, shape, eps in (("thin", (1, 2, 3), (2, 2, 4, 6, 2), 1e-6),
                                   ("cube", (4, 4, 4), (1, 4, 8, 4, 1), 0.1)):
        case(f"normalize_patches_{name}", "normalize_patches", {"size": list(size), "eps": eps},
             [normal(*shape) * 3 + 50], lambda x: normalized(x, size, eps))


def contrast():
    def nt_xent(a, b, temperature):
        n = len(a)
        z = F.normalize(torch.cat([a, b]).flatten(1))
        s = (z @ z.T / temperature).masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
        partner = (torch.arange(2 * n) + n) % (2 * n)
        return F.cross_entropy(s, partner), (s.argmax(1) == partner).double().mean()

    for name, shape, temperature in (("cool", (4, 7), 0.1), ("warm", (3, 1, 40), 0.5)):
        a = normal(*shape)
        case(f"nt_xent_{name}", "nt_xent", {"temperature": temperature},
             [a, a + normal(*shape)], lambda a, b: nt_xent(a, b, temperature))


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    torch.set_num_threads(1)
    for make in (pooling, patches, contrast):
        make()
    sys.exit(0)
