"""read_records.py RUN…: metrics.csv and the event files say what metrics.jsonl says.

Reads TFRecords and protocol buffers by itself, from their published formats, so that nothing is
taken from the writer. Prints a line for each run; a difference is an assertion.
"""

import csv
import json
import math
import struct
import sys
from pathlib import Path


def crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ 0x82F63B78 if byte & 1 else byte >> 1
        table.append(byte)
    return table


TABLE = crc_table()


def masked(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12])[0] == masked(data[:8]), "CRC of a length"
        body = data[12:12 + length]
        assert len(body) == length, "a torn record"
        assert struct.unpack("<I", data[12 + length:16 + length])[0] == masked(body), "CRC of data"
        yield body
        data = data[16 + length:]


def fields(data):
    def varint():
        nonlocal data
        value = shift = 0
        while True:
            byte, data = data[0], data[1:]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while data:
        key = varint()
        wire = key & 7
        if wire == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(wire) or varint()
        yield key >> 3, data[:size]
        data = data[size:]


def read_events(folder):
    """[(step, wall time, {tag: value})] of all files, one for each process."""
    found = []
    for path in sorted(p for p in folder.iterdir() if "tfevents" in p.name):
        found += read_file(path)
    return found


def read_file(path):
    found = []
    for number, record in enumerate(records(path.read_bytes())):
        event = dict(fields(record))
        if number == 0:
            assert event[3] == b"brain.Event:2"
        if 5 not in event:
            continue
        values = {}
        for field, value in fields(event[5]):
            assert field == 1
            scalar = dict(fields(value))
            values[scalar[1].decode()] = struct.unpack("<f", scalar[2])[0]
        found.append((event[2], struct.unpack("<d", event[1])[0], values))
    return found


def same(a, b):
    return math.isnan(a) and math.isnan(b) or a == b


def check(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines), (len(rows), len(lines))
    for row, line in zip(rows, lines):
        assert set(line) <= set(row)
        for key, cell in row.items():
            value = line.get(key)
            assert cell == "" if value is None else \
                cell == value if isinstance(value, str) else float(cell) == value, (key, cell, value)
    stages = sorted({line["stage"] for line in lines})
    assert stages == sorted(p.name for p in (run / "tensorboard").iterdir())
    for stage in stages:
        of_stage = [line for line in lines if line["stage"] == stage]
        events = read_events(run / "tensorboard" / stage)
        assert [e[0] for e in events] == [line["epoch"] for line in of_stage], \
            ([e[0] for e in events], [line["epoch"] for line in of_stage])
        times = [e[1] for e in events]
        assert times == sorted(times) and times[0] > 1.7e9
        for (_, _, values), line in zip(events, of_stage):
            wanted = {k.replace(".", "/"): v for k, v in line.items()
                      if k not in ("stage", "epoch", "updates")}
            assert set(values) == set(wanted)
            for tag, value in wanted.items():
                value = math.nan if value is None else value
                single = struct.unpack("<f", struct.pack("<f", value))[0]
                assert same(values[tag], single), (tag, values[tag], value)
    print(run, len(lines), "epochs")


for name in sys.argv[1:]:
    check(Path(name))
