"""Fixtures of the shape, pooling and interpolation operators and of convolutions: see
make_operators.py for the format."""
import os

import torch
import torch.nn.functional as F

from make_operators import HERE, case, normal


def first(x):
    """N X Y Z C, as the engine has it, to N C X Y Z, as PyTorch has it."""
    return x.movedim(-1, 1)


def last(x):
    return x.movedim(1, -1)


def shapes():
    case("concat_x", "concat", {"axis": "x"}, [normal(2, 1, 2, 3, 2), normal(2, 3, 2, 3, 2)],
         lambda *x: torch.cat(x, 1))
    case("concat_token", "concat", {"axis": "token"}, [normal(2, 4, 3), normal(2, 1, 3)],
         lambda *x: torch.cat(x, 1))
    case("slice_z", "slice", {"axis": "z", "start": 1, "size": 2}, [normal(2, 2, 3, 4, 3)],
         lambda x: x.narrow(3, 1, 2))
    case("slice_numbered", "slice", {"axis": 2, "start": 1, "size": 1}, [normal(2, 5, 3, 2, 4, 2)],
         lambda x: x.narrow(2, 1, 1))
    case("roll", "roll", {"shift": "[1, -2, 9]"}, [normal(2, 3, 4, 5, 3)],
         lambda x: torch.roll(x, (1, -2, 9), (1, 2, 3)))
    case("crop_volume", "crop_volume", {"size": "[2, 3, 1]", "start": "[1, 0, 3]"},
         [normal(2, 3, 4, 5, 3)], lambda x: x[:, 1:3, 0:3, 3:4])
    case("crop_volume_centred", "crop_volume", {"size": "[2, 3, 2]"}, [normal(1, 5, 3, 5, 2)],
         lambda x: x[:, 1:3, :, 1:3])
    for mode in ("constant", "reflect", "replicate", "circular"):
        value = {"value": 0.25} if mode == "constant" else {}
        case(f"pad_volume_{mode}", "pad_volume",
             {"before": "[1, 2, 0]", "after": "[2, 0, 1]", "mode": mode, **value},
             [normal(2, 3, 3, 4, 3)],
             lambda x: last(F.pad(first(x), (0, 1, 2, 0, 1, 2), mode, **value)))


def reductions():
    modes = {"mean": torch.mean, "sum": torch.sum, "max": torch.amax}
    for mode, oracle in modes.items():
        for axes in ([1, 2, 3], [4], [1, 3]):
            keep = axes != [4]
            case(f"reduce_{mode}_{''.join(map(str, axes))}", "reduce",
                 {"mode": mode, "axes": axes, "keep": str(keep).lower()}, [normal(2, 3, 2, 4, 3)],
                 lambda x: oracle(x, axes, keepdim=keep))
    case("reduce_all", "reduce", {"mode": "sum", "keep": "false"}, [normal(2, 3, 2, 2)], torch.sum)


def pools():
    for name, k in (("2", dict(kernel_size=2)), ("321", dict(kernel_size=3, stride=2, padding=1)),
                    ("ceil", dict(kernel_size=(1, 2, 3), stride=(2, 2, 2), padding=(0, 1, 1),
                                  ceil_mode=True))):
        attrs = {"kernel": k["kernel_size"], "stride": k.get("stride", 0),
                 "padding": k.get("padding", 0), "ceil_mode": str(k.get("ceil_mode", False)).lower()}
        attrs = {key: list(v) if isinstance(v, tuple) else v for key, v in attrs.items()}
        x = normal(2, 4, 5, 6, 3)
        case(f"max_pool3d_{name}", "max_pool3d", attrs, [x],
             lambda x: last(F.max_pool3d(first(x), **k)))
        for count in (True, False):
            case(f"avg_pool3d_{name}_{'with' if count else 'without'}_padding", "avg_pool3d",
                 {**attrs, "count_include_pad": str(count).lower()}, [x],
                 lambda x: last(F.avg_pool3d(first(x), **k, count_include_pad=count)))


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    torch.set_num_threads(1)
    for make in (shapes, reductions, pools):
        make()
