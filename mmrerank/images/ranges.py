"""Which numbers of an image mean black and white, for samples of any depth.

The container alone does not say: cameras put 12 bits into 16, instruments write temperatures. What the file
says comes first, then what its values show. Nothing here reads a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_PARTS = 1 << 22
"""Values converted at once: what it takes beside the image stays small."""
_SHALLOW = (255, 1023, 4095)
"""White where 8, 10 or 12 bits stand in a deeper integer."""
_ABSENT = 1e30
"""Floats beyond this stand for "no value"."""
_OVERSHOOT = 16.0
"""Highlights of pictures in 0..1 reach so far."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What the numbers are: unsigned, signed or float of ``bits``; ``white`` and ``black`` where it is said.

    ``exact`` says that integers fill their depth by definition, as in PNM and where the depth is odd.
    """

    kind: Literal["u", "i", "f"]
    bits: int
    black: float | None = None
    white: float | None = None
    nodata: float | None = None
    exact: bool = False


def eight_bits(
    values: NDArray[Any], samples: Samples, between: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """``values`` as 8 bits of the same shape, black 0 and white 255.

    Integers are measured by their depth, by 8, 10 or 12 bits where no value needs more, and between their
    extremes where they fill neither. Floats within 0..1 are fractions, whose overshoot is cut, within -1..1
    the same about zero, within 0..255 levels; anything else is stretched between its extremes. What is no
    number is black. ``between`` are the `limits` of the whole, where ``values`` are a part of it.
    """
    low, high = between or limits(values, samples)
    flat = np.ascontiguousarray(values).reshape(-1)
    found = np.empty(flat.shape, np.uint8)
    for start in range(0, flat.size, _PARTS):
        part = flat[start : start + _PARTS]
        if samples.kind == "u" and (low, high) == (0, 65535):
            found[start : start + _PARTS] = (part.astype(np.uint32) + 128) // 257
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            numbers = part.astype(np.float64)
        numbers[_no_number(numbers, samples)] = low
        scaled = np.rint((np.clip(numbers, low, high) - low) / (high - low) * 255.0)
        found[start : start + _PARTS] = scaled.astype(np.uint8)
    return found.reshape(values.shape)


def limits(values: NDArray[Any], samples: Samples) -> tuple[float, float]:
    """The numbers that become black and white; the second is the greater."""
    low, high = _extremes(values, samples)
    if samples.kind == "f":
        black, white = _of_floats(values, low, high, samples)
    else:
        black, white = _of_integers(low, high, samples)
    return (black, white) if white > black else (black, black + max(1.0, abs(black)))


def _of_integers(low: float, high: float, samples: Samples) -> tuple[float, float]:
    full = float(2 ** (samples.bits - (samples.kind == "i")) - 1)
    said = samples.white
    # a greatest value that is the greatest one there is may be a statistic of it and no limit
    if said is not None and said >= high and (said > high or (int(said) + 1) & int(said) == 0):
        return samples.black or 0.0, said
    if low < 0:
        # either an offset of the whole range, or numbers that mean something
        return (-full - 1, full) if max(-low, high) > full / 2 else (low, high)
    if samples.exact or samples.bits <= 8:
        return 0.0, full
    for white in _SHALLOW:
        if high <= white:
            return 0.0, float(white)
    if samples.bits <= 16:
        return 0.0, full
    if high <= 65535:
        return 0.0, 65535.0
    return (0.0, full) if high > full / 2 else (low, high)


def _of_floats(values: NDArray[Any], low: float, high: float, samples: Samples) -> tuple[float, float]:
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if samples.white is not None and samples.white >= high and samples.white > (samples.black or 0.0):
        return samples.black if samples.black is not None else min(0.0, low), samples.white
    if low >= -0.25 and high <= _OVERSHOOT and _mostly_below_one(values, samples):
        return 0.0, 1.0
    if -1 <= low < 0 and high <= 1:
        return -1.0, 1.0
    if low >= 0 and high <= 255:
        return (0.0, 255.0) if high > _OVERSHOOT else (low, high)
    if low >= 0 and 32767 < high <= 65535:
        return 0.0, 65535.0
    return low, high


def _mostly_below_one(values: NDArray[Any], samples: Samples) -> bool:
    some = values.reshape(-1)[:: max(1, values.size // 100_000)].astype(np.float64)
    some = some[~_no_number(some, samples)]
    return bool(some.size) and float(np.mean(some <= 1)) >= 0.9


def _extremes(values: NDArray[Any], samples: Samples) -> tuple[float, float]:
    """The least and the greatest number that counts; zeros where there is none."""
    if samples.kind != "f" and samples.nodata is None:
        return float(values.min()), float(values.max())
    low, high = np.inf, -np.inf
    flat = values.reshape(-1)
    for start in range(0, flat.size, _PARTS):
        with np.errstate(invalid="ignore", over="ignore"):
            part = flat[start : start + _PARTS].astype(np.float64)
        part = part[np.isfinite(part) & ~_no_number(part, samples)]
        if part.size:
            low, high = min(low, float(part.min())), max(high, float(part.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _no_number(numbers: NDArray[np.float64], samples: Samples) -> NDArray[np.bool_]:
    if samples.kind != "f":
        return numbers == samples.nodata if samples.nodata is not None else np.zeros(numbers.shape, np.bool_)
    absent = np.isnan(numbers) | (numbers < -_ABSENT) | (np.isfinite(numbers) & (numbers > _ABSENT))
    return absent if samples.nodata is None else absent | (numbers == samples.nodata)
