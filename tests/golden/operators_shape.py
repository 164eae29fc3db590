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


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    torch.set_num_threads(1)
    shapes()
