"""Looks at the bytes of an ONNX model before a library does: plain operations on numbers, and nothing else.

An index may come from anybody, and so may a model in it. A model can name other files, operations of added
libraries, and graphs within graphs; what is exported here has none of them. Reads the parts of the protobuf
format that ONNX uses (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) and computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

OPERATIONS = frozenset((
    "Add", "And", "ArgMax", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "Cos",
    "CumSum", "Div", "Equal", "Erf", "Exp", "Expand", "Flatten", "Gather", "GatherElements", "GatherND",
    "Gelu", "Gemm", "Greater", "GreaterOrEqual", "Identity", "LayerNormalization", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "MatMul", "Max", "Min", "Mod", "Mul", "Neg", "Not", "NonZero", "Or", "Pow",
    "Range", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "ScatterND", "Shape",
    "Sigmoid", "Sign", "Sin", "Slice", "Softmax", "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Tanh",
    "Tile", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
))  # fmt: skip
_MODEL = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14})  # no functions (25), no training (20)
_GRAPH = frozenset({1, 2, 5, 10, 11, 12, 13})  # no sparse tensors (15), no annotations (14, 16)
_ATTRIBUTE = frozenset({1, 2, 3, 4, 5, 7, 8, 9, 10, 13, 20})  # no graphs (6, 11), sparse tensors, types
_TENSOR = frozenset({1, 2, 4, 5, 7, 8, 9, 10, 11, 12})  # no segments (3), no other file (13, 14)

Value = int | memoryview


def check(data: bytes) -> None:
    """Raises `ValueError` unless ``data`` is a model of ``OPERATIONS`` that holds all its numbers itself."""
    graphs = 0
    for field, value in _fields(memoryview(data), _MODEL, "model"):
        if field == 7:
            graphs += 1
            _graph(_message(value))
        elif field == 8:
            for inner, domain in _fields(_message(value), frozenset({1, 2}), "set of operations"):
                if inner == 1 and bytes(_message(domain)):
                    raise ValueError(f"it has operations of {bytes(_message(domain))[:40]!r}")
    if graphs != 1:
        raise ValueError(f"it has {graphs} graphs")


def _graph(data: memoryview) -> None:
    for field, value in _fields(data, _GRAPH, "graph"):
        if field == 1:
            _node(_message(value))
        elif field == 5:
            _tensor(_message(value))
        elif field in (11, 12):  # inputs and outputs
            for inner, part in _fields(_message(value), frozenset({1, 2}), "value"):
                if inner == 1:
                    _named(part)


def _node(data: memoryview) -> None:
    operation = b""
    for field, value in _fields(data, frozenset({1, 2, 3, 4, 5, 6, 7}), "node"):
        if field != 5:
            _named(value)
        if field == 4:
            operation = bytes(_message(value))
        elif field == 7 and bytes(_message(value)):
            raise ValueError(f"it has an operation of {bytes(_message(value))[:40]!r}")
        elif field == 5:
            for inner, part in _fields(_message(value), _ATTRIBUTE, "attribute"):
                if inner in (5, 10):
                    _tensor(_message(part))
    if operation.decode("ascii", "replace") not in OPERATIONS:
        raise ValueError(f"it has the operation {operation[:40]!r}")


def _tensor(data: memoryview) -> None:
    for field, value in _fields(data, _TENSOR, "tensor"):
        if field == 8:
            _named(value)


def _named(value: Value) -> None:
    if not bytes(_message(value)).isascii():  # the library prints about names that it cannot decode
        raise ValueError("a name in it is no ASCII")


def _message(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ValueError("it has a number where a message belongs")
    return value


def _fields(data: memoryview, allowed: frozenset[int], what: str) -> Iterator[tuple[int, Value]]:
    """Each field of a message with its number. Raises `ValueError` for another than ``allowed``."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        if field not in allowed:
            raise ValueError(f"a {what} has the field {field}")
        if kind == 0:
            number, at = _varint(data, at)
            yield field, number
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a {what} has a field of kind {kind}")
        if size > len(data) - at:
            raise ValueError("it ends early")
        yield field, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number that starts at ``at``, and where the next thing starts."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends early")
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise ValueError("it has a number without an end")
