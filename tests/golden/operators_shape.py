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


def interpolations():
    def run(name, x, attrs, **k):
        case(f"interpolate_{name}", "interpolate", attrs, [x],
             lambda x: last(F.interpolate(first(x), **k)))

    x = normal(2, 3, 4, 2, 3)
    for mode in ("nearest", "trilinear"):
        corners = {} if mode == "nearest" else {"align_corners": False}
        run(f"{mode}_2", x, {"scale": 2, "mode": mode}, scale_factor=2, mode=mode, **corners)
        run(f"{mode}_size", x, {"size": [5, 3, 7], "mode": mode}, size=(5, 3, 7), mode=mode,
            **corners)
        # PyTorch's gradient of `nearest` contradicts its own result at some factors, 2.3 for one.
        scale = (0.5, 0.7, 1.5)
        run(f"{mode}_fractions", x, {"scale": list(scale), "mode": mode}, scale_factor=scale,
            mode=mode, **corners)
    run("corners", x, {"size": [6, 1, 5], "mode": "trilinear", "align_corners": "true"},
        size=(6, 1, 5), mode="trilinear", align_corners=True)


def convolutions():
    """Beside those of make_conv.py, with every attribute at once."""
    def run(name, op, oracle, x, weight, features, **k):
        attrs = {"features": features, "kernel": list(weight.shape[2:]), "bias": "true"}
        attrs.update({key: list(v) if isinstance(v, tuple) else v for key, v in k.items()})
        case(name, op, attrs, [x, weight, normal(features)],
             lambda x, w, b: last(oracle(first(x), w, b, **k)))

    run("conv3d_depthwise", "conv3d", F.conv3d, normal(1, 3, 2, 4, 33), normal(33, 1, 2, 3, 3), 33,
        stride=1, padding=1, groups=33)
    run("conv3d_depthwise_strided", "conv3d", F.conv3d, normal(1, 5, 4, 7, 6),
        normal(6, 1, 3, 2, 3), 6, stride=(2, 1, 2), padding=(1, 0, 2), dilation=(1, 2, 1), groups=6)
    run("conv3d_multiplied", "conv3d", F.conv3d, normal(1, 3, 4, 5, 3), normal(6, 1, 3, 3, 3), 6,
        stride=1, padding=1, groups=3)
    run("conv3d_flat", "conv3d", F.conv3d, normal(1, 2, 5, 6, 4), normal(5, 4, 1, 3, 3), 5,
        stride=(1, 2, 2), padding=(0, 1, 1))
    run("conv_transpose3d_depthwise", "conv_transpose3d", F.conv_transpose3d,
        normal(1, 2, 2, 2, 18), normal(18, 1, 3, 2, 2), 18, stride=2, padding=(1, 0, 0),
        output_padding=(1, 0, 1), groups=18)
    run("conv_transpose3d_dilated", "conv_transpose3d", F.conv_transpose3d, normal(1, 3, 2, 4, 4),
        normal(4, 3, 2, 3, 3), 6, stride=(1, 2, 3), padding=(0, 1, 1), output_padding=(0, 0, 2),
        groups=2, dilation=(2, 1, 1))


def permutations():
    case("permute_wide", "permute", {"axes": "[2, 3, 1]"}, [normal(1, 17, 3, 35)],
         lambda x: x.permute(0, 2, 3, 1))
    case("permute_eight", "permute", {"axes": "[6, 5, 1, 7, 3, 2, 4]"},
         [normal(1, 2, 3, 1, 2, 3, 4, 5)], lambda x: x.permute(0, 6, 5, 1, 7, 3, 2, 4))


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    torch.set_num_threads(1)
    for make in (shapes, reductions, pools, interpolations, convolutions,
                 permutations):
        make()
