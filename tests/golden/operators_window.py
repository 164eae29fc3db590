"""Fixtures of attention with its terms, of windows and of patch merging.
MONAI's Swin transformer is the oracle where it has the operation."""
import itertools
import os

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets import swin_unetr as swin

from make_operators import HERE, Fixture, case, classes, normal


def attend(heads, q, k, v, bias=None, mask=None, regions=None, scale=None):
    """Tokens N × T × C or N × W × T × C."""
    windows = q.shape[1] if q.dim() == 4 else 1
    split = lambda x: x.reshape(x.shape[0], windows, x.shape[-2], heads, -1).transpose(2, 3)
    terms = torch.zeros(1, 1, 1, q.shape[-2], k.shape[-2], dtype=q.dtype)
    if bias is not None:
        terms = terms + bias
    if mask is not None:
        terms = terms + mask.detach().unsqueeze(1)
    if regions is not None:
        apart = regions.unsqueeze(1) != regions.unsqueeze(2)
        terms = terms - 100.0 * apart.unsqueeze(1)
    out = F.scaled_dot_product_attention(split(q), split(k), split(v), terms, scale=scale)
    return out.transpose(2, 3).reshape(q.shape)


def attention():
    def packed(heads, **k):
        return lambda qkv, *terms: attend(heads, *qkv.chunk(3, -1), *terms, **k)

    def crossed(heads, **k):
        return lambda q, kv, *terms: attend(heads, q, *kv.chunk(2, -1), *terms, **k)

    def apart(heads, **k):
        return lambda *x: attend(heads, *x, **k)

    case("attention_bias", "self_attention", {"heads": 3},
         [normal(2, 3, 7, 3 * 6), normal(3, 7, 7), None, None], packed(3))
    case("attention_bias_blocks", "self_attention", {"heads": 1},
         [normal(2, 67, 3 * 2), normal(1, 67, 67), None, None], packed(1))
    case("attention_regions", "self_attention", {"heads": 2},
         [normal(2, 2, 35, 3 * 4), None, None, classes(2, 2, 35)], packed(2))
    case("attention_all_terms", "self_attention", {"heads": 2, "scale": 0.5},
         [normal(1, 2, 9, 3 * 6), normal(2, 9, 9), normal(2, 9, 9), classes(3, 1, 9)], packed(2, scale=0.5))
    case("attention_one_mask", "self_attention", {"heads": 1},
         [normal(2, 40, 3 * 5), None, np.triu(np.full((1, 40, 40), -np.inf, np.float32), 1), None], packed(1))
    case("attention_cross", "cross_attention", {"heads": 2},
         [normal(2, 3, 5, 8), normal(2, 3, 9, 16), normal(2, 5, 9), None, None], crossed(2))
    case("attention_cross_shifted", "cross_attention", {"heads": 2},
         [normal(1, 4, 12, 8), normal(1, 4, 12, 16), normal(2, 12, 12), None, classes(3, 4, 12)], crossed(2))
    case("attention_apart", "attention", {"heads": 2},
         [normal(2, 33, 6), normal(2, 66, 6), normal(2, 66, 6), None, normal(1, 33, 66), None], apart(2))


def windows():
    def partition(window, shift):
        def run(x):
            w, s = swin.get_window_size(x.shape[1:4], window, shift)
            pad = [(w[a] - x.shape[1 + a] % w[a]) % w[a] for a in range(3)]
            x = F.pad(x, (0, 0, 0, pad[2], 0, pad[1], 0, pad[0]))
            x = torch.roll(x, [-i for i in s], (1, 2, 3))
            return swin.window_partition(x, w).unflatten(0, (x.shape[0], -1))
        return run

    def merge(window, shift, size):
        def run(x):
            w, s = swin.get_window_size(size, window, shift)
            padded = [-(-size[a] // w[a]) * w[a] for a in range(3)]
            x = swin.window_reverse(x.flatten(0, 1).unflatten(1, w), w, [x.shape[0], *padded])
            return torch.roll(x, s, (1, 2, 3))[:, :size[0], :size[1], :size[2]]
        return run

    for name, window, shift, size in (("even", (2, 2, 3), (0, 0, 0), (4, 2, 6)),
                                      ("shifted", (3, 2, 4), (1, 1, 2), (5, 4, 9)),
                                      ("small", (3, 3, 3), (1, 1, 1), (2, 3, 5))):
        attrs = {"window": list(window), "shift": list(shift)}
        x = normal(2, *size, 3)
        case(f"window_partition_{name}", "window_partition", attrs, [x], partition(window, shift))
        tokens = partition(window, shift)(torch.from_numpy(x)).shape
        case(f"window_merge_{name}", "window_merge", {**attrs, "size": list(size)}, [normal(*tokens)],
             merge(window, shift, size))
        # MONAI has the pairs that are kept apart; the regions are those of the same geometry.
        w, s = swin.get_window_size(size, window, shift)
        padded = [-(-size[a] // w[a]) * w[a] for a in range(3)]
        mask = swin.compute_mask(padded, w, s, "cpu").numpy()
        along = [np.array([0 if s[a] == 0 or i < padded[a] - w[a] else 1 if i < padded[a] - s[a] else 2
                           for i in range(padded[a])]) for a in range(3)]
        grid = along[0][:, None, None] * 9 + along[1][:, None] * 3 + along[2]
        regions = swin.window_partition(torch.from_numpy(grid)[None, ..., None], w)[..., 0].numpy()
        assert ((regions[:, None] != regions[:, :, None]) == (mask != 0)).all()
        f = Fixture("window_regions", {**attrs, "size": list(size)})
        f.add("out 0", regions.astype(np.int32))
        f.save(f"window_regions_{name}")

    for name, window, size in (("whole", (2, 3, 2), (9, 9, 9)), ("small", (3, 2, 3), (2, 5, 2))):
        module = swin.WindowAttention(4, 2, window)
        n = int(np.prod([min(a, b) for a, b in zip(window, size)]))
        index = module.relative_position_index[:n, :n]
        case(f"relative_position_bias_{name}", "relative_position_bias",
             {"window": list(window), "heads": 2, "size": list(size)},
             [normal(*module.relative_position_bias_table.shape)],
             lambda t: t[index.reshape(-1)].reshape(n, n, -1).permute(2, 0, 1))


def shared_distances():
    """Rows of the public nnFormer, where x counts 3Y - 1 rows and y 2Y - 1."""
    w = (3, 2, 4)
    at = torch.stack(torch.meshgrid(*(torch.arange(n) for n in w), indexing="ij")).flatten(1)
    far = (at[:, :, None] - at[:, None, :]).permute(1, 2, 0) + torch.tensor(w) - 1
    index = far[..., 0] * (3 * w[1] - 1) + far[..., 1] * (2 * w[1] - 1) + far[..., 2]
    case("relative_position_bias_shared", "relative_position_bias",
         {"window": list(w), "heads": 2, "stride_x": 3 * w[1] - 1, "stride_y": 2 * w[1] - 1},
         [normal(5 * 3 * 7, 2)], lambda t: t[index].permute(2, 0, 1))


def merging():
    class Plain(torch.nn.Module):
        def forward(self, x):
            return x

    def oracle(kind):
        module = kind(2)
        module.norm, module.reduction = Plain(), Plain()
        return module

    x = normal(2, 3, 4, 5, 2)
    case("space_to_channels", "space_to_channels", {}, [x], oracle(swin.PatchMergingV2))
    case("space_to_channels_merging", "space_to_channels", {"order": [0, 4, 2, 1, 6, 5, 3, 7]}, [x],
         oracle(swin.PatchMerging))
    case("space_to_channels_twice", "space_to_channels", {"factor": [1, 2, 2], "order": [3, 0, 3]},
         [normal(1, 2, 4, 2, 3)],
         lambda x: torch.cat([x[:, :, i::2, j::2] for i, j in ((1, 1), (0, 0), (1, 1))], -1))


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    torch.set_num_threads(1)
    for make in (attention, windows, merging, shared_distances):
        make()
