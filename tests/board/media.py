"""The demo model's held-out sounds and pictures, as the virtual board's microphones and cameras take them."""
import csv
import struct
import zlib
from pathlib import Path

HELDOUT = Path(__file__).resolve().parents[2] / "models" / "demo" / "heldout"


def expected(kind, name, column):
    """What a held-out file of that kind ("audio" or "images") stands for."""
    with open(HELDOUT / kind / "expected.tsv", newline="") as table:
        for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["file"] == name:
                return row[column]
    raise KeyError(f"{kind}/{name} is not in expected.tsv")


def png_rows(path):
    """(width, height, rows of RGB bytes) of an 8-bit RGB PNG without interlacing."""
    data = Path(path).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", path
    at, packed, header = 8, b"", None
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8:at + 8 + length]
        if kind == b"IHDR":
            header = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            packed += body
        at += length + 12
    width, height, *rest = header
    assert rest == [8, 2, 0, 0, 0], f"{path}: not 8-bit RGB without interlacing"
    raw, stride = zlib.decompress(packed), width * 3
    rows, before = [], bytearray(stride)
    for y in range(height):
        filter_type, *line = raw[y * (stride + 1):(y + 1) * (stride + 1)]
        for i in range(stride):
            left = line[i - 3] if i >= 3 else 0
            up = before[i]
            corner = before[i - 3] if i >= 3 else 0
            line[i] = (line[i] + (0, left, up, (left + up) // 2, paeth(left, up, corner))[filter_type]) & 255
        before = bytearray(line)
        rows.append(before)
    return width, height, rows


def paeth(left, up, corner):
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))


def yuyv_frame(path, width=640, height=480):
    """One raw YUYV frame (BT.601, 16 to 235) of a PNG, each of whose pixels becomes a block."""
    png_width, png_height, rows = png_rows(path)
    scale = width // png_width
    assert scale * png_width == width and scale * png_height == height and scale % 2 == 0, path
    frame = bytearray()
    for row in rows:
        line = bytearray()
        for x in range(0, len(row), 3):
            r, g, b = row[x:x + 3]
            y = 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255
            u = 128 + (-37.797 * r - 74.203 * g + 112.0 * b) / 255
            v = 128 + (112.0 * r - 93.786 * g - 18.214 * b) / 255
            line += bytes(map(round, (y, u, y, v))) * (scale // 2)
        frame += line * scale
    return bytes(frame)
