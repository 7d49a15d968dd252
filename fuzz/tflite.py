"""Writes small TensorFlow Lite models of the kind that microWakeWord's are, for fuzz/seeds.py: a FlatBuffer, each table before what it names."""
import struct

CODES = {"CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 4, "FULLY_CONNECTED": 9, "LOGISTIC": 14, "RESHAPE": 22, "STRIDED_SLICE": 45, "SPLIT_V": 102,
         "QUANTIZE": 114, "CALL_ONCE": 129, "VAR_HANDLE": 142, "READ_VARIABLE": 143, "ASSIGN_VARIABLE": 144, "WHILE": 119}
OPTIONS = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 8, "CONCATENATION": 10, "STRIDED_SLICE": 32, "SPLIT_V": 79, "CALL_ONCE": 103, "VAR_HANDLE": 111}
INT32, UINT8, INT8, RESOURCE = 2, 3, 9, 13


def scalar(format, value):
    return struct.pack("<" + format, value)


class Vector:
    """A vector of numbers, a string, or a list of tables."""

    def __init__(self, format, values):
        self.format, self.values = format, values


def write(root):
    """The file whose root table has these fields: bytes (a number as it is), a dict (a table) or a Vector, by field."""
    out = bytearray(8)
    out[4:8] = b"TFL3"

    def align(to):
        out.extend(bytes(-len(out) % to))

    def put(thing, at):
        align(8)
        if isinstance(thing, Vector):
            align_to = 8 if thing.format in ("q", "d") else 4
            out.extend(bytes((4 - len(out) % align_to) % align_to))
            out[at:at + 4] = scalar("I", len(out) - at)
            out.extend(scalar("I", len(thing.values)))
            if thing.format == "table":
                first = len(out)
                out.extend(bytes(4 * len(thing.values)))
                for i, item in enumerate(thing.values):
                    put(item, first + 4 * i)
            else:
                out.extend(b"".join(scalar(thing.format, value) for value in thing.values))
            return
        count = max(thing, default=-1) + 1
        vtable = len(out)
        out.extend(bytes(4 + 2 * count))
        align(8)
        table = len(out)
        out[at:at + 4] = scalar("I", table - at)
        out.extend(scalar("i", table - vtable) + bytes(4))
        later = []
        for field, value in thing.items():
            size = len(value) if isinstance(value, bytes) else 4
            align(size)
            out[vtable + 4 + 2 * field:vtable + 6 + 2 * field] = scalar("H", len(out) - table)
            if isinstance(value, bytes):
                out.extend(value)
            else:
                later.append((value, len(out)))
                out.extend(bytes(4))
        out[vtable:vtable + 4] = scalar("H", 4 + 2 * count) + scalar("H", len(out) - table)
        for value, place in later:
            put(value, place)

    put(root, 0)
    return bytes(out)


class Graph:
    def __init__(self, model, name):
        self.model, self.tensors, self.nodes = model, [], []

    def tensor(self, shape, kind=INT8, scale=None, zero=0, data=b"", axis=0):
        fields = {0: Vector("i", shape), 1: scalar("b", kind), 2: scalar("I", self.model.buffer(data)), 3: Vector("B", b"t")}
        if scale is not None:
            scales = scale if isinstance(scale, list) else [scale]
            fields[4] = {2: Vector("f", scales), 3: Vector("q", [zero] * len(scales)), 6: scalar("i", axis)}
        self.tensors.append(fields)
        return len(self.tensors) - 1

    def numbers(self, *values):
        return self.tensor([len(values)], INT32, data=struct.pack(f"<{len(values)}i", *values))

    def node(self, operator, inputs, outputs, **options):
        fields = {0: scalar("I", self.model.code(operator)), 1: Vector("i", inputs), 2: Vector("i", outputs)}
        if options:
            values = {int(field[1:]): value for field, value in options.items()}
            fields[3], fields[4] = scalar("B", OPTIONS[operator]), values
        self.nodes.append(fields)

    def fields(self, inputs, outputs):
        return {0: Vector("table", self.tensors), 1: Vector("i", inputs), 2: Vector("i", outputs), 3: Vector("table", self.nodes)}


class Model:
    def __init__(self):
        self.buffers, self.codes = [{}], []

    def buffer(self, data):
        if not data:
            return 0
        self.buffers.append({0: Vector("B", data)})
        return len(self.buffers) - 1

    def code(self, operator):
        code = CODES[operator]
        if code not in self.codes:
            self.codes.append(code)
        return self.codes.index(code)

    def file(self, graphs):
        # Versions that have 8 bits with a sign, as the published models name them.
        codes = [{0: scalar("b", min(code, 127)), 2: scalar("i", {2: 2, 3: 3, 4: 3, 9: 4, 14: 2, 45: 2, 102: 2}.get(code, 1)), 3: scalar("i", code)} for code in self.codes]
        return write({0: scalar("I", 3), 1: Vector("table", codes), 2: Vector("table", graphs), 4: Vector("table", self.buffers)})


def values(count, seed):
    """Weights that are the same each time."""
    state, found = seed, bytearray()
    for _ in range(count):
        state = (state * 1103515245 + 12345) % (1 << 31)
        found.append(state >> 16 & 255)
    return bytes(found)


def model(frames=2, operator="LOGISTIC", conv=4, scale=0.5, variable=b"s", same=False):
    """A streaming model with each of the operators once; the arguments make it a wrong one."""
    made = Model()
    main, first = Graph(made, "main"), Graph(made, "first")
    text = lambda value: Vector("B", value)

    handle = first.tensor([], RESOURCE)
    first.node("VAR_HANDLE", [], [handle], _0=text(b""), _1=text(b"s"))
    first.node("ASSIGN_VARIABLE", [handle, first.tensor([1, 1, 1, 40], scale=0.1, zero=-128, data=b"\x80" * 40)], [])

    heard = main.tensor([1, frames, 40], scale=0.1, zero=-128)
    main.node("CALL_ONCE", [], [], _0=scalar("i", 1))
    handle = main.tensor([], RESOURCE)
    main.node("VAR_HANDLE", [], [handle], _0=text(b""), _1=text(variable))
    image = main.tensor([1, frames, 1, 40], scale=0.1, zero=-128)
    main.node("RESHAPE", [heard, main.numbers(1, frames, 1, 40)], [image])
    before = main.tensor([1, 1, 1, 40], scale=0.1, zero=-128)
    main.node("READ_VARIABLE", [handle], [before])
    both = main.tensor([1, frames + 1, 1, 40], scale=0.1, zero=-128)
    main.node("CONCATENATION", [before, image], [both], _0=scalar("i", 1), _1=scalar("b", 0))
    last = main.tensor([1, 1, 1, 40], scale=0.1, zero=-128)
    slice = [both, main.numbers(0, frames, 0, 0), main.numbers(0, 0, 0, 0), main.numbers(1, 1, 1, 1)]
    main.node("STRIDED_SLICE", slice, [last], _0=scalar("i", 13), _1=scalar("i", 15))
    main.node("ASSIGN_VARIABLE", [handle, last], [])
    weights = main.tensor([conv, 3, 1, 40], scale=[0.01 * (i + 1) for i in range(4)], data=values(4 * 120, 1))
    bias = main.tensor([4], INT32, scale=[0.001 * (i + 1) for i in range(4)], data=struct.pack("<4i", 100, -200, 300, -400))
    rows = frames + 1 if same else frames - 1
    found = main.tensor([1, rows, 1, 4], scale=scale, zero=-128)
    main.node("CONV_2D", [both, weights, bias], [found], _0=scalar("b", 0 if same else 1), _1=scalar("i", 1), _2=scalar("i", 1), _3=scalar("b", 1))
    left, right = (main.tensor([1, rows, 1, 2], scale=scale, zero=-128) for _ in range(2))
    main.node("SPLIT_V", [found, main.numbers(2, 2), main.numbers(-1)], [left, right], _0=scalar("i", 2))
    deep = main.tensor([1, 1, 1, 2], scale=scale, zero=-128)
    kernel = main.tensor([1, rows, 1, 2], scale=[0.02, 0.03], data=values(2 * rows, 2), axis=3)
    none = main.tensor([2], INT32, scale=[scale * 0.02, scale * 0.03], data=bytes(8))
    main.node("DEPTHWISE_CONV_2D", [left, kernel, none], [deep], _0=scalar("b", 1), _1=scalar("i", 1), _2=scalar("i", 1), _3=scalar("i", 1), _4=scalar("b", 0))
    newest = main.tensor([1, 1, 1, 2], scale=scale, zero=-128)
    slice = [right, main.numbers(0, -1, 0, 0), main.numbers(0, 0, 0, 0), main.numbers(1, 1, 1, 1)]
    main.node("STRIDED_SLICE", slice, [newest], _0=scalar("i", 13), _1=scalar("i", 15))
    joined = main.tensor([1, 1, 1, 4], scale=scale, zero=-128)
    main.node("CONCATENATION", [deep, newest], [joined], _0=scalar("i", -1), _1=scalar("b", 0))
    sum = main.tensor([1, 1], scale=0.05, zero=10)
    matrix = main.tensor([1, 4], scale=0.0002, data=values(4, 3))
    shift = main.tensor([1], INT32, scale=scale * 0.0002, data=struct.pack("<i", -50))
    main.node("FULLY_CONNECTED", [joined, matrix, shift], [sum], _0=scalar("b", 0))
    likely = main.tensor([1, 1], scale=1 / 256, zero=-128)
    main.node(operator, [sum], [likely])
    output = main.tensor([1, 1], UINT8, scale=1 / 256, zero=0)
    main.node("QUANTIZE", [likely], [output])
    return made.file([main.fields([heard], [output]), first.fields([], [])])
