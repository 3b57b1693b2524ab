"""Small ICC profiles for colours that a file names by numbers: primaries and a gamma, or a standard's code.

Profile after ICC.1:2001-04 (version 2), matrices after Lindbloom; the white point is adapted to D50 by
Bradford's method. Values of the standards are those of ITU-T H.273.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence

import numpy as np

_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D65 = (0.3127, 0.3290)
_SRGB = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # white, red, green, blue
_ADOBE = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_PRIMARIES = {1: _SRGB, 9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
              12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)}  # fmt: skip
_SRGB_CURVE = 0.0
_TRANSFERS = {1: _SRGB_CURVE, 4: 2.2, 5: 2.8, 6: _SRGB_CURVE, 8: 1.0, 13: _SRGB_CURVE}
_NEAR = 0.02


def from_gamma(encoding: float, points: Sequence[float] | None, *, grey: bool) -> bytes | None:
    """A profile for PNG's gAMA (the exponent of encoding) and cHRM (x and y of white, red, green, blue).

    None where they say what sRGB is anyway, or nonsense.
    """
    if not 0.1 <= encoding <= 5:
        return None
    plain = abs(encoding * 2.2 - 1) < _NEAR
    wanted = tuple(points or _SRGB)
    if plain and (grey or max(abs(a - b) for a, b in zip(wanted, _SRGB, strict=True)) < _NEAR / 2):
        return None
    gamma = _SRGB_CURVE if plain else 1 / encoding
    return _grey(gamma) if grey else _matrix(wanted, gamma)


def from_code_points(body: bytes, *, grey: bool) -> bytes | None:
    """A profile for PNG's cICP; empty for sRGB, None where the code is not known here."""
    if len(body) != 4 or body[0] not in _PRIMARIES or body[1] not in _TRANSFERS or body[3] != 1:
        return None
    points, gamma = _PRIMARIES[body[0]], _TRANSFERS[body[1]]
    if gamma == _SRGB_CURVE and (grey or points == _SRGB):
        return b""
    return _grey(gamma) if grey else _matrix(points, gamma)


@functools.cache
def adobe_rgb() -> bytes:
    """Adobe RGB (1998), which cameras name in EXIF and do not embed."""
    return _matrix(_ADOBE, 563 / 256) or b""


def _matrix(points: Sequence[float], gamma: float) -> bytes | None:
    xyz = [
        (x / y, 1.0, (1 - x - y) / y) if y > 0 else None
        for x, y in zip(points[::2], points[1::2], strict=True)
    ]
    if None in xyz:
        return None
    white, *primaries = (np.array(p) for p in xyz)
    columns = np.stack(primaries, axis=1)
    if abs(np.linalg.det(columns)) < 1e-6:
        return None
    columns = columns * np.linalg.solve(columns, white)
    cone = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(cone) @ _BRADFORD @ columns
    if np.abs(adapted).max() > 100:
        return None
    tags = [(b"rXYZ", _xyz(adapted[:, 0])), (b"gXYZ", _xyz(adapted[:, 1])), (b"bXYZ", _xyz(adapted[:, 2]))]
    return _profile(b"RGB ", [*tags, *((t, _curve(gamma)) for t in (b"rTRC", b"gTRC", b"bTRC"))])


def _grey(gamma: float) -> bytes:
    return _profile(b"GRAY", [(b"kTRC", _curve(gamma))])


def _curve(gamma: float) -> bytes:
    if gamma == _SRGB_CURVE:
        x = np.linspace(0, 1, 1024)
        y = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
        points: bytes = np.rint(y * 65535).astype(">u2").tobytes()
        return b"curv\0\0\0\0" + struct.pack(">I", 1024) + points
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, min(65535, round(gamma * 256))) + b"\0\0"


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(float(v) * 65536)) for v in values)


def _profile(space: bytes, tags: Sequence[tuple[bytes, bytes]]) -> bytes:
    name = b"made\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78)
    everything = [(b"desc", description), (b"cprt", b"text\0\0\0\0none\0"), (b"wtpt", _xyz(_D50)), *tags]
    start, table, body = 132 + 12 * len(everything), b"", b""
    for tag, data in everything:
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s6H4s", start + len(body), b"none", 0x02400000, b"mntr", space, b"XYZ ",
                       2000, 1, 1, 0, 0, 0, b"acsp")  # fmt: skip
    head = head.ljust(68, b"\0") + _xyz(_D50)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(everything)) + table + body
