"""Writes tests/golden/pt: files that torch.save wrote, the tensors in them as safetensors, and in
tests/golden/pt/refused files that are damaged or made to do harm; tests/unit/test_pytorch.c says
what each is for. Run from the repository root."""
import argparse
import io
import os
import pathlib
import struct
import types
import zipfile
import zlib
from collections import OrderedDict, defaultdict

import numpy
import torch
from safetensors.torch import load_file, save_file

FOLDER = "tests/golden/pt/"
torch.manual_seed(1)


# ---- a zip writer that can be told to lie ---------------------------------------------------------

def write_zip(path, entries, zip64=False, deflate=(), crc=None, claim=None, local=None, tail=0,
              overlap=False):
    """entries: (name, bytes)…; crc, claim, local: {name: checksum, size or local name} that is
    wrong; tail: bytes cut off the end; overlap: every entry claims the place of the first."""
    out, directory = b"", b""
    for name, data in entries:
        method = 8 if name in deflate else 0
        packed = data
        if method:
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            packed = packer.compress(data) + packer.flush()
        checksum = (crc or {}).get(name, zlib.crc32(data))
        size = (claim or {}).get(name, len(data))
        place = 0 if overlap else len(out)
        heads = (local or {}).get(name, name).encode()
        out += struct.pack("<IHHHHHIIIHH", 0x04034B50, 45, 0, method, 0, 0, checksum, len(packed),
                           size, len(heads), 0) + heads + packed
        sizes = (len(packed) if method else size, size, place)
        extra = b""
        if zip64:
            extra = struct.pack("<HHQQQ", 1, 24, sizes[1], sizes[0], sizes[2])
            sizes = (0xFFFFFFFF,) * 3
        directory += struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 45, 45, 0, method, 0, 0, checksum,
                                 sizes[0], sizes[1], len(name.encode()), len(extra), 0, 0, 0, 0,
                                 sizes[2]) + name.encode() + extra
    at, count = len(out), len(entries)
    out += directory
    if zip64:
        out += struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count,
                           len(directory), at)
        out += struct.pack("<IIQI", 0x07064B50, 0, at + len(directory), 1)
        count, directory, at = 0xFFFF, b"\xff" * 4, 0xFFFFFFFF
        out += struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, 0xFFFFFFFF, at, 0)
    else:
        out += struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(directory), at, 0)
    with open(path, "wb") as f:
        f.write(out[:len(out) - tail])


def entries_of(path):
    with zipfile.ZipFile(path) as z:
        return [(name, z.read(name)) for name in z.namelist()]


# ---- pickles by hand ------------------------------------------------------------------------------

def text(s):
    return b"X" + struct.pack("<I", len(s.encode())) + s.encode()


def number(n):
    if 0 <= n < 256:
        return b"K" + bytes([n])
    raw = n.to_bytes((n.bit_length() // 8) + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(values):
    return b"(" + b"".join(number(n) for n in values) + b"t"


def tensor(key="0", elements=4, offset=0, size=(4,), stride=(1,), kind="FloatStorage"):
    storage = (b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) +
               text("cpu") + number(elements) + b"tQ")
    return (b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(size) +
            numbers(stride) + b"\x89ccollections\nOrderedDict\n)RtR")


def state(*items):
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in items) + b"u."


def archive(program, data=bytes(16), *more):
    return [("a/data.pkl", program), ("a/byteorder", b"little"), ("a/data/0", data), *more]


# ---- files that are read --------------------------------------------------------------------------

def write_good():
    # Every type, with the values of weights_types.safetensors.
    every = load_file("tests/golden/weights_types.safetensors")
    torch.save(every, FOLDER + "types.pt")

    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    net(torch.randn(5, 3))
    plain = {name: t.clone() for name, t in net.state_dict().items()}
    save_file(plain, FOLDER + "net.safetensors")
    changed = dict(plain)  # for strata weights diff
    changed["1.weight"] = torch.tensor([1, 1, 1, 1.5])
    changed["0.bias"] = plain["0.bias"].reshape(2, 2)
    save_file(changed, FOLDER + "changed.safetensors")
    # What scripts keep beside the weights. AveragedModel counts without its prefix.
    average = torch.optim.swa_utils.AveragedModel(net)
    torch.save({"best": numpy.float64(0.5), "history": numpy.array([0.25, 0.5]),
                "last": {"loss": numpy.float32(0.125)}, "args": argparse.Namespace(lr=1e-3),
                "folder": pathlib.Path("runs/a"), "seen": {1, 2},
                "counts": defaultdict(int, a=1), "device": torch.device("cpu"),
                "dtype": torch.float16, "net": average.state_dict()}, FOLDER + "objects.pt")
    buffer = io.BytesIO()  # entries under archive/
    torch.save(net.state_dict(), buffer)
    with open(FOLDER + "ordered.pt", "wb") as f:
        f.write(buffer.getvalue())
    write_zip(FOLDER + "deflated.pt", entries_of(FOLDER + "ordered.pt"),
              deflate=[name for name, _ in entries_of(FOLDER + "ordered.pt")])
    write_zip(FOLDER + "zip64.pt", entries_of(FOLDER + "ordered.pt"), zip64=True)

    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    net(torch.randn(5, 3)).square().mean().backward()
    before = {name: t.clone() for name, t in plain.items()}
    optimizer.step()
    torch.save({"epoch": 3, "lr": 1e-3, "seed": 2**63 + 5, "name": "unetr", "best": None,
                "resumed": True, "history": [0.5, -1, (1, 2, 3, 4)], "size": torch.Size([2, 3]),
                "optimizer": optimizer.state_dict(),
                "state_dict": OrderedDict(("module." + k, v) for k, v in before.items()),
                "ema": {"shadow": before, "decay": 0.99}}, FOLDER + "checkpoint.pt")

    # Views of one storage, parameters, a scalar, a tensor without elements.
    base = torch.arange(24, dtype=torch.float32)
    views = {"whole": base.reshape(2, 3, 4), "transposed": base.reshape(4, 6).t(),
             "sliced": base.reshape(4, 6)[1:3, ::2], "permuted": base.reshape(2, 3, 4).permute(2, 0, 1),
             "last": base[23:], "element": base[5], "nothing": base[24:].reshape(0, 3),
             "columns": base.reshape(4, 6).half().t()[1:], "ints": torch.arange(6).reshape(2, 3).t(),
             "parameter": torch.nn.Parameter(base.reshape(2, 12)[:, 3].clone()),
             "frozen": torch.nn.Parameter(base.reshape(6, 4).t(), requires_grad=False)}
    torch.save(views, FOLDER + "views.pt")
    dense = {name: v.detach().contiguous().clone() for name, v in views.items()}
    dense["columns"] = dense["columns"].float()
    save_file(dense, FOLDER + "views.safetensors")


# ---- files that are refused -----------------------------------------------------------------------

class Command:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def write_refused():
    folder = FOLDER + "refused/"
    one = torch.ones(2)
    torch.save({"w": one, "x": Command()}, folder + "command.pt")
    torch.save({"w": one, "args": types.SimpleNamespace(lr=1)}, folder + "class.pt")
    torch.save({"w": one, "c": one.to(torch.complex64)}, folder + "complex.pt")
    torch.save({"w": one}, folder + "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"w": one}, folder + "protocol4.pt", pickle_protocol=4)
    torch.save(one, folder + "tensor.pt")
    torch.save({"a": {"w": one}, "b": {"w": one}}, folder + "several.pt")
    torch.save({"w": torch.full((2,), 1e300, dtype=torch.float64)}, folder + "too_large.pt")
    torch.save({"w\033[2J": one}, folder + "escape.pt")
    good = state(("w", tensor()))

    def refuse(name, program, data=bytes(16), **tricks):
        write_zip(f"{folder}{name}.pt", archive(program, data), **tricks)

    refuse("truncated", good, tail=30)
    refuse("checksum", good, crc={"a/data/0": 1})
    refuse("pickle_checksum", good, crc={"a/data.pkl": 1})
    refuse("header_name", good, local={"a/data/0": "a/data/1"})
    refuse("stored_size", good, claim={"a/data/0": 1 << 31})
    refuse("bomb", good, deflate=["a/data/0"], claim={"a/data/0": 0xFFFFFFF0})
    refuse("grows", state(("w", tensor(elements=1 << 21, size=(1 << 21,)))), bytes(1 << 23),
           deflate=["a/data/0"])
    refuse("inflates_short", good, deflate=["a/data/0"], claim={"a/data/0": 17})
    refuse("overlap", good, claim={"a/data.pkl": len(good) + 1})
    refuse("same_place", good, overlap=True)
    write_zip(folder + "duplicate.pt", archive(good, bytes(16), ("a/data/0", bytes(16))))
    write_zip(folder + "parent.pt", archive(good, bytes(16), ("a/../../evil", b"")))
    write_zip(folder + "absolute.pt", archive(good, bytes(16), ("/evil", b"")))
    write_zip(folder + "two_pickles.pt", archive(good, bytes(16), ("b/data.pkl", good)))
    write_zip(folder + "script.pt", archive(good, bytes(16), ("a/constants.pkl", good)))
    write_zip(folder + "no_pickle.pt", [("a/readme", b"hello")])
    write_zip(folder + "big_endian.pt", [("a/data.pkl", good), ("a/byteorder", b"big"),
                                         ("a/data/0", bytes(16))])
    write_zip(folder + "missing.pt", [("a/data.pkl", good)])
    refuse("huge_tensor", state(("w", tensor(size=(1 << 40,)))))
    refuse("huge_product", state(("w", tensor(size=(1 << 40, 1 << 40), stride=(0, 0)))))
    refuse("huge_empty", state(("w", tensor(size=(0, 1 << 40, 1 << 40), stride=(1, 1, 1)))))
    refuse("huge_storage", state(("w", tensor(elements=1 << 61, size=(1 << 61,)))))
    refuse("small_storage", state(("w", tensor(elements=3, size=(3,)))))
    refuse("outside", state(("w", tensor(offset=1))))
    refuse("stride", state(("w", tensor(size=(2,), stride=(4,)))))
    refuse("negative", state(("w", tensor(size=(-1,)))))
    refuse("expanded", state(("w", tensor(size=(100, 4), stride=(0, 1)))))
    refuse("dimensions", state(("w", tensor(size=(1,) * 9, stride=(1,) * 9))))
    refuse("sharing", b"\x80\x02}(" + text("t") + tensor(elements=65536, size=(65536,)) + b"q\0" +
           b"".join(text(f"w{i}") + b"h\0" for i in range(40)) + b"u.", bytes(4 * 65536),
           deflate=["a/data/0"])
    refuse("same_name", state(("w", tensor()), ("w", tensor())))
    refuse("memo", b"\x80\x02}r\xff\xff\xff\x7f.")
    refuse("memo_unset", b"\x80\x02h\5.")
    refuse("nesting", b"\x80\x02" + b"(" * 500 + b"t" * 500 + b".")
    refuse("deep_list", b"\x80\x02" + b"]" * 2000 + b"a" * 1999 + b".")
    refuse("own_item", b"\x80\x02}q\0(" + text("self") + b"h\0u.")
    refuse("build", state(("w", tensor())) [:-1] + b"(t}b.")
    refuse("call_storage", b"\x80\x02ctorch\nFloatStorage\n)R.")
    refuse("call_text", b"\x80\x02" + text("os.system") + b")R.")
    refuse("new_dict", b"\x80\x02ccollections\nOrderedDict\n)\x81.")
    refuse("new_text", b"\x80\x02" + text("os.system") + b")\x81.")
    refuse("instruction", b"\x80\x02" + text("os") + text("system") + b"\x93.")
    refuse("extension", b"\x80\x02\x82\1.")
    refuse("name_escape", b"\x80\x02cos\033[2J\nsystem\n)R.")
    refuse("empty_stack", b"\x80\x02.")
    refuse("pop_nothing", b"\x80\x02R.")
    refuse("below_mark", b"\x80\x02}(s.")
    refuse("odd_items", b"\x80\x02}(K\1u.")
    refuse("no_stop", b"\x80\x02}")
    refuse("after_stop", good + b"}")
    refuse("long_text", b"\x80\x02X\xff\xff\xff\xff.")
    refuse("nul", state(("a\0b", tensor())))
    refuse("object", b"\x80\x02cargparse\nNamespace\n)\x81}(" + text("w") + tensor() + b"ub.")


def write_seeds():
    """Pickles alone, for tests/fuzz/fuzz_pickle.c, which puts them into an archive."""
    folder = "tests/fuzz/seeds/pickle/"
    os.makedirs(folder, exist_ok=True)
    for name in "ordered", "views", "checkpoint", "objects":
        for entry, data in entries_of(f"{FOLDER}{name}.pt"):
            if entry.endswith("data.pkl"):
                with open(f"{folder}{name}.pkl", "wb") as f:
                    f.write(data)


if __name__ == "__main__":
    os.makedirs(FOLDER + "refused", exist_ok=True)
    write_good()
    write_refused()
    write_seeds()
