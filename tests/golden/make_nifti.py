"""Writes tests/golden/nifti: small volumes of every kind, what nibabel reads from them (expected.txt),
and damaged files with a word of the message they must cause (bad.txt).

Needs nibabel and numpy. Run in this folder: python make_nifti.py
"""

import gzip
import os
import struct

import nibabel as nib
import numpy as np

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nifti")
os.makedirs(HERE, exist_ok=True)
SHAPE = (6, 5, 4)

OBLIQUE = np.eye(4)
ANGLE = 0.3
TURN = np.array([[1, 0, 0], [0, np.cos(ANGLE), -np.sin(ANGLE)], [0, np.sin(ANGLE), np.cos(ANGLE)]])
OBLIQUE[:3, :3] = TURN @ np.diag([-0.8, 0.9, 2.5])
OBLIQUE[:3, 3] = [12.5, -30.25, 400.125]
LPS = np.array([[-1.5, 0, 0, 90], [0, -1.5, 0, 80], [0, 0, 3, -40], [0, 0, 0, 1.0]])
PIR = np.array([[0, 0, 2.0, 1], [-1.0, 0, 0, 2], [0, -1.5, 0, 3], [0, 0, 0, 1]])

expected = []


def values(dtype, shape=SHAPE):
    """Distinct values that fit the type, negative ones where there are any."""
    v = np.arange(int(np.prod(shape))).reshape(shape) % 100
    if np.issubdtype(dtype, np.floating):
        return (v / 8 - 5).astype(dtype)
    if np.issubdtype(dtype, np.signedinteger):
        return (v - 50).astype(dtype)
    return v.astype(dtype)


def note(name, image):
    data = np.asarray(image.dataobj, dtype=np.float64)
    data = data.reshape(data.shape[:3] + (-1,))
    flat = data.astype(np.float32).astype(np.float64).ravel()
    checksum = float((flat * (np.arange(flat.size) * 7919 % 101)).sum())
    affine = " ".join(repr(float(x)) for x in image.affine[:3].ravel())
    expected.append(f"{name} {' '.join(map(str, data.shape))} {checksum!r} {affine}")


def save(name, image):
    path = os.path.join(HERE, name)
    if name.endswith(".gz"):
        raw = image.to_bytes()
        with open(path, "wb") as out:
            with gzip.GzipFile(fileobj=out, mode="wb", mtime=0, filename="") as zipped:
                zipped.write(raw)
    else:
        with open(path, "wb") as out:
            out.write(image.to_bytes())
    note(name, nib.load(path))
    return path


for dtype in "u1 i1 i2 u2 i4 u4 i8 u8 f4 f8".split():
    save(f"{dtype}.nii", nib.Nifti1Image(values(np.dtype(dtype)), LPS, dtype=np.dtype(dtype)))

big = nib.Nifti1Header(endianness=">")
big.set_data_dtype(np.dtype(">i2"))
save("big_endian.nii", nib.Nifti1Image(values(np.dtype("i2")), OBLIQUE, big))
big2 = nib.Nifti2Header(endianness=">")
big2.set_data_dtype(np.dtype(">f8"))
save("big_endian_2.nii.gz", nib.Nifti2Image(values(np.dtype("f8")), PIR, big2))
save("nifti2.nii", nib.Nifti2Image(values(np.dtype("u2")), OBLIQUE))
save("nifti2.nii.gz", nib.Nifti2Image(values(np.dtype("u2")), LPS))
save("zipped.nii.gz", nib.Nifti1Image(values(np.dtype("i2")), PIR))
save("channels.nii.gz", nib.Nifti1Image(values(np.dtype("f4"), SHAPE + (3,)), LPS))
save("flat.nii", nib.Nifti1Image(values(np.dtype("u1"), (6, 5, 1)), LPS))

qform = nib.Nifti1Image(values(np.dtype("i2")), None)
qform.set_qform(OBLIQUE, code=1)
qform.set_sform(None, code=0)
save("qform_only.nii", qform)
both = nib.Nifti1Image(values(np.dtype("i2")), None)
both.set_qform(OBLIQUE, code=1)
both.set_sform(LPS, code=2)
save("both_forms.nii", both)

scaled = nib.Nifti1Image(values(np.dtype("i2")), LPS)
scaled.header.set_slope_inter(0.5, -10)
raw = bytearray(scaled.to_bytes())
raw[112:120] = struct.pack("<ff", 0.5, -10)
raw[352:] = values(np.dtype("<i2")).tobytes(order="F")
with open(os.path.join(HERE, "scaled.nii"), "wb") as out:
    out.write(raw)
note("scaled.nii", nib.load(os.path.join(HERE, "scaled.nii")))

members = open(os.path.join(HERE, "i2.nii"), "rb").read()
with open(os.path.join(HERE, "members.nii.gz"), "wb") as out:
    for part in (members[:400], members[400:]):
        out.write(gzip.compress(part, mtime=0))
note("members.nii.gz", nib.Nifti1Image.from_bytes(members))
with open(os.path.join(HERE, "trailing.nii.gz"), "wb") as out:
    out.write(gzip.compress(members + b"more" * 100, mtime=0))
note("trailing.nii.gz", nib.Nifti1Image.from_bytes(members))

with open(os.path.join(HERE, "expected.txt"), "w") as out:
    out.write("\n".join(expected) + "\n")

# ---- damaged files ----

bad = []
good = open(os.path.join(HERE, "i2.nii"), "rb").read()


def damaged(name, data, word):
    with open(os.path.join(HERE, name), "wb") as out:
        out.write(data)
    bad.append(f"{name} {word}")


def patched(at, layout, *new):
    raw = bytearray(good)
    new = struct.pack(layout, *new)
    raw[at:at + len(new)] = new
    return bytes(raw)


damaged("bad_empty.nii", b"", "ends after 0 bytes")
damaged("bad_text.nii", b"this is no volume " * 40, "not a NIfTI file")
damaged("bad_truncated.nii", good[:500], "download may be incomplete")
damaged("bad_header_only.nii", patched(40, "<8h", 3, 1000, 1000, 1000, 1, 1, 1, 1)[:354],
        "download may be incomplete")
damaged("bad_huge.nii", patched(40, "<8h", 3, 32767, 32767, 32767, 1, 1, 1, 1), "more than")
damaged("bad_negative.nii", patched(40, "<8h", 3, 6, -5, 4, 1, 1, 1, 1), "size of -5")
damaged("bad_zero.nii", patched(40, "<8h", 3, 6, 0, 4, 1, 1, 1, 1), "size of 0")
damaged("bad_rank.nii", patched(40, "<8h", 9, 6, 5, 4, 1, 1, 1, 1), "9 dimensions")
damaged("bad_five.nii", patched(40, "<8h", 5, 6, 5, 2, 1, 2, 1, 1), "along dimension 5")
damaged("bad_complex.nii", patched(70, "<hh", 32, 64), "data type 32")
damaged("bad_bits.nii", patched(72, "<h", 8), "8 bits")
damaged("bad_offset.nii", patched(108, "<f", 1e9), "download may be incomplete")
damaged("bad_offset_nan.nii", patched(108, "<f", float("nan")), "impossible")
damaged("bad_offset_small.nii", patched(108, "<f", 100), "impossible")
damaged("bad_sform_zero.nii", patched(280, "<12f", *[0] * 12), "sform")
damaged("bad_sform_nan.nii", patched(280, "<f", float("nan")), "sform")
damaged("bad_two_file.nii", patched(344, "4s", b"ni1\0"), "two-file")
damaged("bad_intercept.nii", patched(112, "<ff", 1, float("inf")), "scl_inter")
zipped = gzip.compress(good, mtime=0)
damaged("bad_truncated.nii.gz", zipped[:-60], "download may be incomplete")
damaged("bad_checksum.nii.gz", zipped[:-6] + b"\1\2\3\4\5\6", "damaged")
damaged("bad_zipped_huge.nii.gz",
        gzip.compress(patched(40, "<8h", 3, 1000, 1000, 1000, 1, 1, 1, 1), mtime=0),
        "more than")
damaged("bad_garbage.nii.gz", b"\x1f\x8b" + bytes(range(200)), "gzip")
nan = np.zeros(SHAPE, np.float32)
nan[4, 3, 2] = np.nan
damaged("bad_nan.nii", nib.Nifti1Image(nan, LPS).to_bytes(), "(4, 3, 2)")
nan[4, 3, 2] = np.inf
damaged("bad_infinite.nii", nib.Nifti1Image(nan, LPS).to_bytes(), "(4, 3, 2)")
with open(os.path.join(HERE, "bad.txt"), "w") as out:
    out.write("\n".join(bad) + "\n")
