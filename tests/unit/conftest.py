"""A folder of pictures for the index tests, and a marker that shows whether somebody's code ran."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from index_world import paint


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with ten pictures, in two folders."""
    folder = tmp_path / "pictures"
    paint(folder, [f"{n:02d}.png" for n in range(7)] + [f"more/{n}.png" for n in range(3)])
    return folder


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Is written by code that ran. Whoever asks whether it may run is told yes, and fails the test."""
    asked: list[str] = []
    monkeypatch.setattr(builtins, "input", lambda *text: asked.append(str(text)) or "y")
    yield tmp_path / "marker"
    assert not asked


@pytest.fixture
def modules_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transformers keeps the Python files that it may run: in nobody's home."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
