"""Arrays on the disk as a store left them, read as data: no pickle, no more than was announced, in range."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mmrerank.index import plain

_SETTINGS_BYTES = 1 << 16


def write(folder: Path, name: str, array: NDArray[Any]) -> None:
    """``<name>.npy`` in ``folder``. Raises `OSError`."""
    with (folder / f"{name}.npy").open("wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)


def read(
    folder: Path, name: str, dtype: DTypeLike, shape: tuple[int | None, ...], *, most: int = 0
) -> NDArray[Any]:
    """The array of ``<name>.npy``. A None in ``shape`` is any number from 1 to ``most``.

    Raises `ValueError` for another type or shape, before memory is taken for it; `OSError`.
    """
    path = folder / f"{name}.npy"
    plain.check_file(path)
    with path.open("rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{path} is of another version")
        found, fortran, kind = np.lib.format.read_array_header_1_0(file, max_header_size=1000)
        fits = len(found) == len(shape) and all(
            have == want if want is not None else 1 <= have <= most
            for have, want in zip(found, shape, strict=False)
        )
        if kind != np.dtype(dtype) or fortran or not fits:
            raise ValueError(f"{path} holds {kind} of shape {found}")
        size = int(np.prod(found, dtype=object)) * kind.itemsize
        if path.stat().st_size != file.tell() + size:
            raise ValueError(f"{path} has {path.stat().st_size} bytes")
        return np.frombuffer(bytearray(file.read(size)), dtype=kind).reshape(found)


def check_finite(array: NDArray[Any]) -> None:
    """Raises `ValueError` unless every number is finite and of a size that no vector exceeds."""
    if not (np.abs(array) <= 1e6).all():
        raise ValueError("a number is not finite, or too large")


def check_range(array: NDArray[Any], low: int, high: int) -> None:
    """Raises `ValueError` unless every number is from ``low`` to below ``high``."""
    if array.size and not (int(array.min()) >= low and int(array.max()) < high):
        raise ValueError(f"a number is not from {low} to {high - 1}")


def settings(path: Path) -> dict[str, Any]:
    """A JSON file with ``made_of``, a whole number, and ``settings``. Raises `ValueError`, `OSError`."""
    plain.check_file(path)
    with path.open("rb") as file:
        data = file.read(_SETTINGS_BYTES + 1)
    if len(data) > _SETTINGS_BYTES:
        raise ValueError(f"{path} is too long")
    try:
        body = json.loads(data)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error
    if not isinstance(body, dict) or set(body) != {"made_of", "settings"}:
        raise ValueError(f"{path} has other fields")
    if type(body["made_of"]) is not int or not 0 < body["made_of"] < 2**40:
        raise ValueError(f"{path} names an impossible number of rows")
    return body
