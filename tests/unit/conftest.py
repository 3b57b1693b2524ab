"""A folder of pictures for the index tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from index_world import paint


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with ten pictures, in two folders."""
    folder = tmp_path / "pictures"
    paint(folder, [f"{n:02d}.png" for n in range(7)] + [f"more/{n}.png" for n in range(3)])
    return folder
