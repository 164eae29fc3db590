"""Makes tests/golden/operators/*.fixture: inputs, results and gradients of step operators, computed by
PyTorch and MONAI in double precision where they allow it.

A fixture is a text head, one line a tensor in the order of the data, and the data after it:
    op NAME / attr KEY YAML / in DTYPE DIMS… / in absent / out PORT DIMS… / state INPUT DIMS… /
    dy DIMS… / grad INPUT DIMS… / data
`state` is what the operator leaves in an input that it keeps (running statistics).
`dy` is the gradient of output 0, `grad` the resulting gradient of an input.
Optimizers have `in` parameters, one `step` line per update's gradients, and `out 0` parameters after.
"""
import os
import sys
import warnings

import numpy as np
import torch
import torch.nn.functional as F

warnings.filterwarnings("ignore")
HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "operators")
rng = np.random.default_rng(2306)


def normal(*shape, scale=1.0):
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def classes(n, *shape):
    return rng.integers(0, n, shape).astype(np.int32)


class Fixture:
    def __init__(self, op, attrs=None):
        self.head = [f"op {op}"] + [f"attr {k} {v}" for k, v in (attrs or {}).items()]
        self.data = []

    def add(self, line, array):
        array = np.asarray(array)
        self.head.append(" ".join([line] + [str(d) for d in array.shape]))
        self.data.append(array)

    def save(self, name):
        with open(os.path.join(HERE, name + ".fixture"), "wb") as f:
            f.write(("\n".join(self.head) + "\ndata\n").encode())
            for a in self.data:
                f.write(a.astype("<i4" if a.dtype in (np.int32, np.uint32) else "<f4").tobytes())


def case(name, op, attrs, inputs, oracle, states=None):
    """oracle(*tensors) -> result or results; float inputs are double and differentiable. `states`:
    {input: tensor}, which the oracle fills with what the operator leaves in its input."""
    f = Fixture(op, attrs)
    tensors = []
    for a in inputs:
        if a is None:
            f.head.append("in absent")
            tensors.append(None)
        elif a.dtype == np.int32:
            f.add("in i32", a)
            tensors.append(torch.from_numpy(a).long())
        elif a.dtype == np.uint32:  # sets of regions
            f.add("in sets", a)
            tensors.append(torch.from_numpy(a.view(np.int32)).long())
        else:
            f.add("in f32", a)
            tensors.append(torch.from_numpy(a).double().requires_grad_())
    results = oracle(*tensors)
    if not isinstance(results, tuple):
        results = (results,)
    for port, r in enumerate(results):
        f.add(f"out {port}", r.detach().numpy().astype(np.float32))
    for port, s in (states or {}).items():
        f.add(f"state {port}", s.numpy().astype(np.float32))
    dy = normal(*results[0].shape)
    f.add("dy", dy)
    results[0].backward(torch.from_numpy(np.asarray(dy)).double())
    for i, t in enumerate(tensors):
        if t is not None and t.requires_grad and t.grad is not None:
            f.add(f"grad {i}", t.grad.numpy().astype(np.float32))
    f.save(name)


def activations():
    x = normal(2, 3, 2, 5, 3, scale=2)
    case("relu", "relu", {}, [x], F.relu)
    case("leaky_relu", "leaky_relu", {"slope": 0.2}, [x], lambda x: F.leaky_relu(x, 0.2))
    case("gelu_exact", "gelu", {}, [normal(3, 50, 3, scale=3)], F.gelu)
    case("gelu_tanh", "gelu", {"approximate": "tanh"}, [normal(3, 50, 3, scale=3)],
         lambda x: F.gelu(x, approximate="tanh"))
    case("softmax_narrow", "softmax", {}, [normal(2, 4, 5, 3, scale=4)], lambda x: x.softmax(-1))
    case("softmax_wide", "softmax", {}, [normal(4, 77, scale=10)], lambda x: x.softmax(-1))


def norms():
    for c in (7, 96):
        case(f"layer_norm_{c}", "layer_norm", {}, [normal(2, 5, c) + 3, normal(c), normal(c)],
             lambda x, w, b: F.layer_norm(x, x.shape[-1:], w, b))
    case("layer_norm_plain", "layer_norm", {"affine": "false", "eps": "1e-3"},
         [normal(2, 5, 33), None, None], lambda x, w, b: F.layer_norm(x, x.shape[-1:], eps=1e-3))

    def instance(x, w, b, r, slope=1.0):
        y = F.instance_norm(x.movedim(-1, 1), weight=w, bias=b).movedim(1, -1)
        y = y if r is None else y + r
        return F.leaky_relu(y, slope)

    for c in (1, 3, 16, 20):
        x = normal(2, 3, 2, 3, c) * 3 + 50
        case(f"instance_norm_{c}", "instance_norm", {"affine": "true"},
             [x, normal(c), normal(c), None], instance)
        case(f"instance_norm_residual_{c}", "instance_norm", {"slope": 0.01},
             [x, None, None, normal(*x.shape)], lambda *a: instance(*a, slope=0.01))
    case("instance_norm_relu", "instance_norm", {"slope": 0, "affine": "true"},
         [normal(1, 3, 4, 5, 6), normal(6), normal(6), None], lambda *a: instance(*a, slope=0.0))
    case("instance_norm_tiles", "instance_norm", {"slope": 0.01, "affine": "true"},
         [normal(1, 3, 1, 2, 261), normal(261), normal(261), None],
         lambda *a: instance(*a, slope=0.01))


def attention():
    from monai.networks.blocks.selfattention import SABlock

    def sablock(heads):
        def run(qkv, *_):
            c = qkv.shape[2] // 3
            block = SABlock(hidden_size=c, num_heads=heads).double().eval()
            with torch.no_grad():
                block.qkv.weight.copy_(torch.zeros_like(block.qkv.weight))
                block.out_proj.weight.copy_(torch.eye(c))
                block.out_proj.bias.zero_()
            block.qkv.forward = lambda _: qkv
            return block(torch.zeros(qkv.shape[0], qkv.shape[1], c, dtype=torch.float64))
        return run

    case("attention_27", "self_attention", {"heads": 3}, [normal(2, 27, 3 * 12), None, None, None], sablock(3))
    case("attention_70", "self_attention", {"heads": 2}, [normal(1, 70, 3 * 8, scale=3), None, None, None], sablock(2))
    case("attention_wide_head", "self_attention", {"heads": 1}, [normal(1, 9, 3 * 65), None, None, None], sablock(1))


def shapes():
    from einops import rearrange
    case("patchify", "patchify", {"size": "[2, 1, 3]"}, [normal(2, 4, 3, 6, 2)],
         lambda x: rearrange(x, "b (h p1) (w p2) (d p3) c -> b (h w d) (p1 p2 p3 c)", p1=2, p2=1, p3=3))
    case("permute", "permute", {"axes": "[4, 1, 3, 2]"}, [normal(2, 3, 4, 5, 2)],
         lambda x: x.permute(0, 4, 1, 3, 2))
    case("position_embedding", "position_embedding", {}, [normal(3, 7, 5), normal(1, 7, 5)],
         lambda x, p: x + p)
    case("concat", "concat", {}, [normal(2, 2, 17), normal(2, 2, 1), normal(2, 2, 16)],
         lambda *x: torch.cat(x, -1))
    case("slice", "slice", {"start": 2, "size": 17}, [normal(2, 3, 21)], lambda x: x[..., 2:19])


def losses():
    from monai.losses import DiceCELoss, DiceLoss
    shape = (2, 3, 4, 5, 2)
    case("mse", "mse", {}, [normal(*shape), normal(*shape), None], lambda p, t, m: F.mse_loss(p, t))
    case("l1", "l1", {}, [normal(*shape), normal(*shape), None], lambda p, t, m: F.l1_loss(p, t))

    def masked(p, t, m):
        full = m.detach()
        for axis, size in enumerate((2, 2, 3)):
            full = full.repeat_interleave(size, axis + 1)
        full = full.unsqueeze(-1).expand_as(p)
        return ((p - t) ** 2 * full).sum() / full.sum()

    mask = (rng.random((2, 2, 3, 2)) < 0.4).astype(np.float32)
    case("mse_masked", "mse", {}, [normal(2, 4, 6, 6, 2), normal(2, 4, 6, 6, 2), mask], masked)

    def ce(x, t, **k):
        loss = F.cross_entropy(x.movedim(-1, 1), t, **k)
        known = t != k.get("ignore_index", -100)
        return loss, ((x.argmax(-1) == t) & known).sum().double() / known.sum()

    case("cross_entropy", "cross_entropy", {}, [normal(2, 3, 5, 5, 3, scale=3), classes(3, 2, 3, 5, 5)], ce)
    weights = [0.5, 2.0, 1.0, 0.25]
    case("cross_entropy_options", "cross_entropy",
         {"class_weights": weights, "ignore_index": 2, "label_smoothing": 0.1},
         [normal(2, 70, 4, scale=3), classes(4, 2, 70)],
         lambda x, t: ce(x, t, weight=torch.tensor(weights).double(), ignore_index=2, label_smoothing=0.1))
    case("cross_entropy_order", "cross_entropy", {}, [normal(3, 6, 6), classes(6, 3, 6)], ce)

    options = dict(to_onehot_y=True, softmax=True)
    unetr = dict(squared_pred=True, smooth_nr=0.0, smooth_dr=1e-6)
    nnunet = dict(squared_pred=False, include_background=False, batch=True, smooth_nr=1e-5, smooth_dr=1e-5)
    nnunet_attrs = {"squared": "false", "include_background": "false", "batch": "true",
                    "smooth_numerator": "1e-5", "smooth_denominator": "1e-5"}
    for name, k, attrs in (("unetr", unetr, {}), ("nnunet", nnunet, nnunet_attrs)):
        case(f"dice_{name}", "dice", attrs, [normal(2, 3, 5, 5, 3, scale=2), classes(3, 2, 3, 5, 5)],
             lambda x, t: DiceLoss(**options, **k)(x.movedim(-1, 1), t.unsqueeze(1)))

        def dice_ce(x, t):
            x, t = x.movedim(-1, 1), t.unsqueeze(1)
            return (DiceCELoss(**options, **k)(x, t), DiceLoss(**options, **k)(x, t),
                    F.cross_entropy(x, t.squeeze(1)))
        # One class is absent, as small organs are.
        case(f"dice_ce_{name}", "dice_ce", attrs,
             [normal(2, 3, 5, 5, 4, scale=2), classes(3, 2, 3, 5, 5)], dice_ce)


def method():
    case("slab_pool_z", "slab_pool", {"slabs": 3}, [normal(2, 2, 3, 6, 5)],
         lambda x: x.unflatten(3, (3, 2)).mean((1, 2, 4)))
    case("slab_pool_x", "slab_pool", {"slabs": 2, "axis": "x"}, [normal(2, 4, 3, 2, 20)],
         lambda x: x.unflatten(1, (2, 2)).mean((2, 3, 4)))


def optimizer_case(name, op, attrs, make):
    """make([parameter]) -> optimizer; six updates with random gradients."""
    f = Fixture(op, attrs)
    p = torch.from_numpy(normal(50)).requires_grad_()
    f.add("in f32", p.detach().numpy().copy())
    optimizer = make([p])
    for _ in range(6):
        g = normal(50)
        f.add("step", g)
        p.grad = torch.from_numpy(g)
        optimizer.step()
    f.add("out 0", p.detach().numpy())
    f.save(name)


def optimizers():
    optimizer_case("adamw", "adamw", {"lr": 0.01, "weight_decay": 0.1},
                   lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1))
    optimizer_case("adamw_betas", "adamw", {"lr": 0.003, "beta1": 0.8, "beta2": 0.95, "eps": "1e-3"},
                   lambda p: torch.optim.AdamW(p, 0.003, (0.8, 0.95), 1e-3))
    optimizer_case("sgd", "sgd", {"lr": 0.1}, lambda p: torch.optim.SGD(p, 0.1))
    optimizer_case("sgd_nesterov", "sgd",
                   {"lr": 0.01, "momentum": 0.99, "nesterov": "true", "weight_decay": "3e-5"},
                   lambda p: torch.optim.SGD(p, 0.01, 0.99, weight_decay=3e-5, nesterov=True))
    optimizer_case("sgd_momentum", "sgd", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1},
                   lambda p: torch.optim.SGD(p, 0.01, 0.9, weight_decay=0.1))


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    torch.set_num_threads(1)
    for make in (activations, norms, attention, shapes, losses, method, optimizers):
        make()
    sys.exit(0)
