"""What the make_<network>.py scripts share: golden values of a network, made with its public PyTorch
module in double precision, in one safetensors file a configuration (see README.md).

Weights and images are a fixed formula of (name, index), computed here and in test_networks.c, so a
file holds no weights: only names, shapes, and a digest of every output and every gradient.
"""

import json
import pathlib
import struct

import numpy as np
import torch

HERE = pathlib.Path(__file__).resolve().parent
OUTPUT_SAMPLES, GRADIENT_SAMPLES = 62, 6
torch.set_num_threads(1)


def uniform(name, count):
    """`count` numbers in [−1, 1) with 24 bits: splitmix64 from the FNV-1a hash of the name."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(state) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(
            0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1


def waves(name, shape):
    """A volume N C X Y Z of three cosines a channel and a little noise; other shapes are uniform."""
    noise = uniform(name, int(np.prod(shape, dtype=np.int64))).reshape(shape)
    if len(shape) != 5:
        return noise.astype(np.float32)
    u = uniform(name + ".waves", shape[0] * shape[1] * 12).reshape(*shape[:2], 3, 4)
    x, y, z = (np.arange(n) / n for n in shape[2:])
    out = 0.1 * noise
    for n, c in np.ndindex(*shape[:2]):
        for a, b, d, phase in u[n, c]:
            out[n, c] += np.cos(2 * np.pi * (3 * a * x[:, None, None] + 3 * b * y[:, None]
                                             + 3 * d * z + phase))
    return out.astype(np.float32)


def value(name, shape):
    """A weight away from its special initial value: norms that scale, biases that shift."""
    u = uniform(name, int(np.prod(shape, dtype=np.int64)))
    if name.endswith("running_var"):
        v = 1 + 0.3 * u
    elif name.endswith(("bias", "running_mean")):
        v = 0.2 * u
    elif name.endswith(("bias_table", "position_embeddings", "pos_embed", "absolute_pos_embed")):
        v = 0.5 * u
    elif len(shape) < 2:
        v = 1 + 0.2 * u
    else:
        v = u * np.sqrt(3 / np.prod(shape[1:], dtype=np.int64))
    return v.astype(np.float32).reshape(shape)


def digest(array, samples):
    """Norm, the product with uniform("digest"), and entries 0, s, 2s, …, s = max(1, n // samples)."""
    flat = np.asarray(array, np.float64).reshape(-1)
    entries = flat[:: max(1, flat.size // samples)][:samples]
    out = np.zeros(samples + 2)
    out[0], out[1] = np.linalg.norm(flat), flat @ uniform("digest", flat.size)
    out[2: 2 + entries.size] = entries
    return out


def tensors_of(module, keep):
    """Parameters and buffers by their names in the state dict, without those that `keep` refuses."""
    return {k: v for k, v in module.state_dict(keep_vars=True).items()
            if keep(k) and not k.endswith("num_batches_tracked")}


def run(module, outputs, case, keep, dtype=torch.float64):
    module = module.to(dtype).train(case["train"])
    module.zero_grad(set_to_none=True)
    tensors = tensors_of(module, keep)
    with torch.no_grad():
        for name, t in tensors.items():
            t.copy_(torch.from_numpy(value(name, tuple(t.shape))))
    shape = (case["batch"], case["channels"], *case["image"])
    found = outputs(module, torch.from_numpy(waves("image", shape)).to(dtype))
    sum((v * torch.from_numpy(waves("seed." + k, tuple(v.shape)))).mean()
        for k, v in found.items()).backward()
    table = np.full((len(tensors), GRADIENT_SAMPLES + 2), np.nan)
    for row, (name, t) in zip(table, tensors.items()):
        if t.grad is not None:
            row[:] = digest(t.grad, GRADIENT_SAMPLES)
        elif name.endswith(("running_mean", "running_var")):  # what the step made of it
            row[:] = digest(t.detach(), GRADIENT_SAMPLES)
    return tensors, table, {k: v.detach() for k, v in found.items()}


def rounding(tensors, exact, single):
    """How far gradients in single precision are off, measured as test_networks.c does."""
    worst, size = 0.0, [t.numel() ** 0.5 for t in tensors.values()]
    largest = np.nanmax(exact[:, 0] / size)
    for row, off, root in zip(exact, single, size):
        if np.isnan(row[0]) or row[0] < 1e-4 * largest * root:
            continue
        norm = max(row[0], 1e-3 * largest * root)
        entry = max(np.abs(row[2:]).max(), norm / root)
        worst = max(worst, np.abs(row[:2] - off[:2]).max() / norm,
                    np.abs(row[2:] - off[2:]).max() / entry)
    return worst


def watch(parts, run):
    """What `run` returns, and what each of the modules gave on the way."""
    seen = []
    hooks = [part.register_forward_hook(lambda m, i, y: seen.append(y)) for part in parts]
    out = run()
    for hook in hooks:
        hook.remove()
    return out, seen


def straighten(module):
    """ReLUs and leaky ReLUs without their kink: the same network, in which no rounding decides a gradient.
    Returns whether there were any."""
    bent = [part for part in module.modules()
            if isinstance(part, (torch.nn.LeakyReLU, torch.nn.ReLU))]
    for part in bent:
        part.negative_slope = 1.0
        part.forward = torch.nn.Identity().forward
    return len(bent) > 0


def initial_statistics(modules, keep):
    """Mean, deviation, smallest and largest fresh value of every tensor."""
    rows = []
    for t in tensors_of(modules, keep).values():
        v = t.detach().double()
        rows.append([v.mean(), v.std(correction=0), v.min(), v.max()])
    return np.array(rows)


def write(name, yaml, arguments, build, outputs, cases, keep=lambda name: True, published=None):
    """One configuration.

    yaml, arguments   our model file and its parameters (all but those that follow from the case)
    build(image, channels)   a fresh PyTorch module for that image size
    outputs(module, x)   name → tensor, every output named as in the model file, members of lists
                         as "levels.0"; gradients are those of Σ mean(v · waves("seed." + name))
    cases   list of {image: (X, Y, Z), batch, channels, train, initial}; `initial` (default: only
            the first) also records what fresh weights look like. A network with leaky ReLUs is run
            again with straight ones, in single precision too
    keep    which names of the state dict count: constants and aliases of one tensor do not
    published   {arguments, image, channels, build}: the network in its published size, of which
                only the number of parameters is recorded
    """
    head = {"yaml": yaml, "arguments": arguments, "cases": [], "torch": torch.__version__}
    data = {}
    todo = [{"batch": 1, "channels": 1, "train": False, "initial": index == 0, "straight": False,
             **case} for index, case in enumerate(cases)]
    for index, case in enumerate(todo):  # which grows on the way
        torch.manual_seed(7 + index)
        module = build(case["image"], case["channels"])
        if case["initial"]:
            data[f"{index}/initial"] = initial_statistics(module, keep)
        if case["straight"]:
            straighten(module)
        tensors, table, found = run(module, outputs, case, keep)
        # Rounding also decides which voxel of a window is the largest, and on which side of a learned
        # slope a value falls: nothing straightens that.
        stays_bent = any(isinstance(part, (torch.nn.MaxPool3d, torch.nn.PReLU))
                         for part in module.modules())
        bent = stays_bent or (not case["straight"] and straighten(module))
        if bent and not stays_bent:
            todo.append({**case, "straight": True, "initial": False})
        shapes = {k: list(t.shape) for k, t in tensors.items()}
        head.setdefault("parameters", shapes)
        assert list(shapes) == list(head["parameters"]), "the cases differ in more than sizes"
        entry = {k: case[k] for k in ("image", "batch", "channels", "train", "straight")}
        entry["bent"] = bent
        if case["straight"]:
            single = run(module, outputs, case, keep, torch.float32)[1]
            entry["rounding"] = rounding(tensors, table, single)
            print(f"  PyTorch's gradients in single precision: {entry['rounding']:.1e}")
        entry["shapes"] = {k: s for k, s in shapes.items() if s != head["parameters"][k]}
        entry["outputs"] = list(found)
        head["cases"].append(entry)
        data[f"{index}/gradients"] = table
        for k, v in found.items():
            data[f"{index}/{k}"] = digest(v, OUTPUT_SAMPLES)
        norms = {k: f"{data[f'{index}/{k}'][0]:.3g}" for k in found}
        print(f"{name} {case['image']} {'train' if case['train'] else 'eval'}"
              f"{', straight' if case['straight'] else ''}: {len(tensors)} tensors, norms {norms}",
              flush=True)
    if published:
        module = published["build"]()
        count = sum(t.numel() for k, t in tensors_of(module, keep).items()
                    if isinstance(t, torch.nn.Parameter))
        head["published"] = {k: published[k] for k in ("arguments", "image", "channels")}
        head["published"]["parameters"] = count
        print(f"{name}: {count} parameters in the published size", flush=True)
    save(HERE / f"{name}.safetensors", data, {"network": json.dumps(head)})


def save(path, arrays, metadata):
    header, offset = {"__metadata__": metadata}, 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape),
                        "data_offsets": [offset, offset + 4 * array.size]}
        offset += 4 * array.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(array.astype("<f4").tobytes())
