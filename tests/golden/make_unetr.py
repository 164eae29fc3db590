"""Golden values of UNETR, made with MONAI: see unetr/README.md for what the files hold.

    make_unetr.py                 writes unetr/ beside this script
    make_unetr.py --check         interprets pipelines/models/unetr.yaml with PyTorch and compares
                                  names, shapes and results with MONAI's class (needs PyYAML)
    make_unetr.py --full FOLDER   writes a 96³ network with the published sizes, an input and the
                                  output, for a check by hand (about 400 MB)

Made with MONAI 1.6.1 and PyTorch 2.15 in double precision.
"""

import argparse
import json
import pathlib
import struct

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNETR

HERE = pathlib.Path(__file__).resolve().parent
UNUSED = "norm_cross_attn"  # created by MONAI's transformer block, never read by UNETR
OUT_STRIDE = 13
SAMPLES = 16

CASES = {
    "residual": {
        "image": (32, 16, 48),
        "batch": 2,
        "thresholds": (-0.25, 0.5),
        "arguments": {"in_channels": 1, "out_channels": 3, "feature_size": 3, "hidden_size": 24,
                      "mlp_dim": 48, "num_heads": 3, "proj_type": "perceptron"},
    },
    "plain": {
        "image": (16, 32, 32),
        "batch": 1,
        "thresholds": (0.0,),
        "arguments": {"in_channels": 2, "out_channels": 2, "feature_size": 2, "hidden_size": 12,
                      "mlp_dim": 20, "num_heads": 2, "proj_type": "conv", "conv_block": False,
                      "res_block": False, "qkv_bias": True},
    },
}


def write_safetensors(path, tensors, metadata=None):
    """`tensors`: name → numpy array (float16, float32 or int32), written in that order."""
    kinds = {"float16": "F16", "float32": "F32", "int32": "I32"}
    header, offset = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    for name, array in tensors.items():
        header[name] = {"dtype": kinds[str(array.dtype)], "shape": list(array.shape),
                        "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())


def smooth_volume(generator, batch, channels, size):
    """Low-frequency waves and a little noise, rounded to what half precision holds."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, n) for n in size], indexing="ij"))
    volume = np.empty((batch, channels, *size))
    for n in range(batch):
        for c in range(channels):
            waves = np.zeros(size)
            for _ in range(6):
                direction = generator.uniform(-9, 9, 3)
                waves += np.cos(np.tensordot(direction, grid, 1) + generator.uniform(0, 6.3))
            volume[n, c] = waves / 2 + generator.normal(0, 0.2, size)
    return volume.astype(np.float16)


def label_of(image, thresholds):
    first = image[:, :1].astype(np.float64)
    return sum((first >= t).astype(np.int64) for t in thresholds)


def sample(array):
    """The norm, then entries 0, s, 2s, … of the flattened tensor, s = max(1, elements // 16)."""
    flat = array.reshape(-1)
    entries = flat[:: max(1, flat.size // SAMPLES)][:SAMPLES]
    return np.concatenate([[np.linalg.norm(flat)], entries]).astype(np.float32)


def disturbed(model, generator):
    """Weights away from their special initial values: norms that scale, biases that shift,
    attention that is not uniform; rounded so that half precision stores them exactly."""
    state = {}
    for name, tensor in model.state_dict().items():
        if UNUSED in name:
            continue
        array = tensor.double().numpy()
        if name.endswith("qkv.weight"):
            array = array * 3
        if array.ndim == 1:
            array = array + generator.normal(0, 0.2, array.shape)
        if name.endswith("position_embeddings"):
            array = array * 20
        state[name] = array.astype(np.float16)
    return state


def run(model, image, label, dtype):
    model = model.to(dtype)
    model.zero_grad()
    x, y = torch.from_numpy(image).to(dtype), torch.from_numpy(label)
    loss = DiceCELoss(to_onehot_y=True, softmax=True, squared_pred=True, smooth_nr=0.0,
                      smooth_dr=1e-6)
    parts = []  # DiceCELoss adds these two; kept apart to say which one is off
    loss.dice.register_forward_hook(lambda _m, _i, value: parts.append(value.item()))
    out = model(x)
    total = loss(out, y)
    total.backward()
    final, hidden = model.vit(x)
    levels = [model.proj_feat(t) for t in (hidden[3], hidden[6], hidden[9], final)]
    gradients = {name: p.grad.double().numpy() for name, p in model.named_parameters()
                 if UNUSED not in name}
    losses = [total.item(), parts[0], total.item() - parts[0]]
    arrays = [t.detach().double().numpy() for t in (out, *levels)]
    return arrays[0], losses, gradients, arrays[1:]


def write_case(name, case):
    folder = HERE / "unetr" / name
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(2024)
    generator = np.random.default_rng(2024)
    model = UNETR(img_size=case["image"], **case["arguments"])
    state = disturbed(model, generator)
    model.load_state_dict({k: torch.from_numpy(v.astype(np.float32)) for k, v in state.items()},
                          strict=False)
    image = smooth_volume(generator, case["batch"], case["arguments"]["in_channels"], case["image"])
    label = label_of(image, case["thresholds"])

    single = run(model, image, label, torch.float32)
    out, losses, gradients, levels = run(model, image, label, torch.float64)
    write_safetensors(folder / "weights.safetensors", state)
    expected = {"image": image, "losses": np.array(losses, np.float32),
                "out": out.reshape(-1)[::OUT_STRIDE].astype(np.float32)}
    for i, level in enumerate(levels):
        expected[f"levels.{i}"] = sample(level)
    write_safetensors(folder / "expected.safetensors", expected)
    write_safetensors(folder / "gradients.safetensors",
                      {k: sample(v) for k, v in gradients.items()})

    worst = max((np.linalg.norm(single[2][k] - g) / max(np.linalg.norm(g), 1e-12), k)
                for k, g in gradients.items())
    classes = np.bincount(label.reshape(-1))
    print(f"{name}: losses {losses}, voxels per class {classes.tolist()}, in single precision "
          f"PyTorch's output is off by {np.abs(single[0] - out).max():.1e} and its worst gradient "
          f"by {worst[0]:.1e} ({worst[1]})")


VARIANTS = {
    "published": {},
    "convolution_embedding": {"proj_type": "conv"},
    "plain_blocks": {"res_block": False},
    "no_convolutions": {"conv_block": False},
    "no_convolutions_plain": {"conv_block": False, "res_block": False},
    "qkv_bias": {"qkv_bias": True},
}


def variant_model(arguments, image=(96, 96, 96)):
    return UNETR(**{"in_channels": 1, "out_channels": 14, "img_size": image,
                    "proj_type": "perceptron", **arguments})


def names_and_shapes(model):
    return {name: list(p.shape) for name, p in model.named_parameters() if UNUSED not in name}


def write_names():
    """The published network whole; of the variants what differs from it."""
    base = names_and_shapes(variant_model({}))
    table = {"published": {"arguments": {}, "parameters": base}}
    for variant, arguments in VARIANTS.items():
        if variant == "published":
            continue
        own = names_and_shapes(variant_model(arguments))
        table[variant] = {
            "arguments": arguments,
            "added": {k: s for k, s in own.items() if base.get(k) != s},
            "removed": [k for k in base if k not in own],
        }
    with open(HERE / "unetr" / "parameters.json", "w") as file:
        json.dump(table, file, indent=0)
        file.write("\n")


def write_initial_statistics():
    torch.manual_seed(7)
    small = {"out_channels": 3, "hidden_size": 192, "mlp_dim": 768, "num_heads": 4}
    statistics = {}
    for arguments in (small, {**small, "proj_type": "conv", "qkv_bias": True}):
        for name, p in variant_model(arguments, (48, 64, 48)).named_parameters():
            if UNUSED not in name and name not in statistics:
                v = p.detach().double()
                statistics[name] = np.array([v.mean(), v.std(correction=0), v.min(), v.max()],
                                            np.float32)
    write_safetensors(HERE / "unetr" / "initial.safetensors", statistics)


def write_full(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(96)
    generator = np.random.default_rng(96)
    model = variant_model({}).eval()
    state = {k: v for k, v in model.state_dict().items() if UNUSED not in k}
    image = smooth_volume(generator, 1, 1, (96, 96, 96)).astype(np.float32)
    with torch.no_grad():
        out = model(torch.from_numpy(image)).numpy()
    write_safetensors(folder / "weights.safetensors", {k: v.numpy() for k, v in state.items()})
    write_safetensors(folder / "expected.safetensors", {"image": image, "out": out})


# ---- pipelines/models/unetr.yaml, interpreted with PyTorch ------------------------------------


class GraphFile:
    """A model or block file run on tensors: grids as N C X Y Z here, tokens as N T C. `weights`
    maps names to tensors; `asked` collects the names and shapes that the operators ask for."""

    def __init__(self, path, weights, asked):
        import yaml

        self.path, self.weights, self.asked = path, weights, asked
        self.root = yaml.safe_load(path.read_text())

    def __call__(self, prefix, inputs, given):
        known = {"strata", "doc", "inputs", "params", "blocks", "graph", "outputs"}
        assert set(self.root) <= known and len(inputs) == len(self.root["inputs"])
        scope = dict(self.root["params"])
        assert set(given) <= set(scope), (self.path, given)
        scope.update(given)
        assert "required" not in scope.values(), (self.path, scope)
        values = dict(zip(self.root["inputs"], inputs))
        for name, value in values.items():
            scope[name] = Extents(value)
        self.items(self.root["graph"], prefix, values, scope)
        return {k: [values[evaluate(n, scope)] for n in v] if isinstance(v, list)
                else values[evaluate(v, scope)] for k, v in self.root["outputs"].items()}

    def items(self, items, prefix, values, scope):
        for item in items:
            if "repeat" in item:
                assert set(item) - {"when"} == {"repeat", "as", "carry", "graph", "next"}
                if not evaluate(item.get("when", True), scope):
                    continue
                for k, v in item["carry"].items():
                    values[k] = values[evaluate(v, scope)]
                for i in range(evaluate(item["repeat"], scope)):
                    inner = {**scope, item["as"]: i}
                    self.items(item["graph"], prefix, values, inner)
                    for k, v in item["next"].items():
                        values[k] = values[evaluate(v, inner)]
                continue
            ((name, body),) = item.items()
            body = dict(body)
            if not evaluate(body.pop("when", True), scope):
                continue
            name = evaluate(name, scope)
            kind = next(iter(body))
            references = body.pop(kind)
            references = references if isinstance(references, list) else [references]
            inputs = [values[str(evaluate(r, scope))] for r in references]
            attributes = {k: evaluate(v, scope) for k, v in body.items()}
            assert name not in values, f"{self.path}: {name} twice"
            if kind in self.root.get("blocks", {}):
                path = self.path.parent / self.root["blocks"][kind]
                block = GraphFile(path, self.weights, self.asked)
                values[name] = block(prefix + name + ".", inputs, attributes)["out"]
            else:
                values[name] = self.operator(kind, prefix + name, inputs, attributes)

    def parameter(self, name, *shape):
        self.asked[name] = list(shape)
        return self.weights[name] if self.weights else torch.zeros(shape)

    def operator(self, kind, name, inputs, a):
        import torch.nn.functional as F

        x = inputs[0]
        channels = x.shape[-1] if x.ndim == 3 else x.shape[1]

        def weight(*shape):
            return self.parameter(name + ".weight", *shape)

        def bias(count, wanted):
            return self.parameter(name + ".bias", count) if wanted else None

        if kind == "conv3d":
            k, f = a["kernel"], a["features"]
            return F.conv3d(x, weight(f, channels, k, k, k), bias(f, a["bias"]),
                            a.get("stride", 1), a["padding"])
        if kind == "conv_transpose3d":
            k, f = a["kernel"], a["features"]
            return F.conv_transpose3d(x, weight(channels, f, k, k, k), bias(f, a["bias"]),
                                      a["stride"])
        if kind == "linear":
            f = a["features"]
            return F.linear(x, weight(f, channels), bias(f, a.get("bias", True)))
        if kind == "layer_norm":
            return F.layer_norm(x, (channels,), weight(channels), bias(channels, True))
        if kind == "instance_norm":
            return F.instance_norm(x)
        if kind == "leaky_relu":
            return F.leaky_relu(x, a["slope"])
        if kind == "gelu":
            return F.gelu(x)
        if kind == "add":
            return inputs[0] + inputs[1]
        if kind == "concat":
            return torch.cat(inputs, 1)
        if kind in ("identity", "dropout"):
            return x
        if kind == "patchify":
            p = a["size"]
            n, c, *size = x.shape
            gx, gy, gz = (s // p for s in size)
            x = x.reshape(n, c, gx, p, gy, p, gz, p).permute(0, 2, 4, 6, 3, 5, 7, 1)
            return x.reshape(n, gx * gy * gz, p * p * p * c)
        if kind == "position_embedding":
            return x + self.parameter(name + ".position_embeddings", 1, x.shape[1], channels)
        if kind == "self_attention":
            n, t, c = x.shape[0], x.shape[1], channels // 3
            q, k, v = x.reshape(n, t, 3, a["heads"], c // a["heads"]).permute(2, 0, 3, 1, 4)
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c)
        if kind == "tokens_to_grid":
            return x.transpose(1, 2).reshape(x.shape[0], channels, *a["grid"])
        raise AssertionError(f"{self.path}: operator {kind}")


class Extents:
    def __init__(self, x):
        self.channels = x.shape[-1] if x.ndim == 3 else x.shape[1]
        self.size = list(x.shape[2:]) if x.ndim == 5 else None


def evaluate(text, scope):
    """`${…}` in a value; the expressions the model files use are Python's too."""
    import re

    if isinstance(text, list):
        return [evaluate(t, scope) for t in text]
    if not isinstance(text, str):
        return text
    whole = re.fullmatch(r"\$\{([^}]*)\}", text)
    if whole:
        return eval(whole[1], {"min": min, "max": max, "len": len}, scope)
    return re.sub(r"\$\{([^}]*)\}", lambda m: str(eval(m[1], {}, scope)), text)


def check():
    names = {"out_channels": "outputs", "feature_size": "features", "hidden_size": "hidden",
             "mlp_dim": "mlp", "num_heads": "heads", "proj_type": "embedding"}
    path = HERE.parents[1] / "pipelines" / "models" / "unetr.yaml"
    small = {"in_channels": 2, "out_channels": 3, "feature_size": 4, "hidden_size": 24,
             "mlp_dim": 40, "num_heads": 3, "img_size": (32, 16, 48)}
    for embedding in ("perceptron", "conv"):
        for conv_block in (True, False):
            for res_block in (True, False):
                for qkv_bias in (True, False):
                    switches = {"proj_type": embedding, "conv_block": conv_block,
                                "res_block": res_block, "qkv_bias": qkv_bias}
                    torch.manual_seed(1)
                    model = UNETR(**small, **switches).double().eval()
                    arguments = {names.get(k, k): v for k, v in {**small, **switches}.items()
                                 if k not in ("in_channels", "img_size")}
                    asked = {}
                    weights = dict(model.named_parameters())
                    image = torch.randn(2, small["in_channels"], *small["img_size"]).double()
                    with torch.no_grad():
                        results = GraphFile(path, weights, asked)("", [image], arguments)
                        wanted = model(image)
                        tokens, hidden = model.vit(image)
                        levels = [model.proj_feat(t) for t in (*hidden[3:10:3], tokens)]
                    expected = names_and_shapes(model)
                    assert asked == expected, [k for k in {**asked, **expected}
                                               if asked.get(k) != expected.get(k)]
                    worst = max((a - b).abs().max().item() for a, b in
                                zip([results["out"], *results["levels"]], [wanted, *levels]))
                    assert worst < 1e-9, worst
                    print(f"{switches}: {len(asked)} parameters, results differ by {worst:.0e}")
    asked = {}
    with torch.no_grad():
        GraphFile(path, None, asked)("", [torch.zeros(1, 1, 96, 96, 96)], {"outputs": 14})
    assert asked == names_and_shapes(variant_model({}))
    print("96³, 1 → 14:", sum(int(np.prod(s)) for s in asked.values()), "parameter elements")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--full", metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.check:
        check()
    elif arguments.full:
        write_full(arguments.full)
    else:
        for name, case in CASES.items():
            write_case(name, case)
        write_names()
        write_initial_statistics()


if __name__ == "__main__":
    main()
