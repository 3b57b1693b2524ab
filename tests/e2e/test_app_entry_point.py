"""``app/app.py``, which Gradio and Spaces start: it builds `demo` and serves nothing when imported."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[2] / "app/app.py"


def test_the_entry_point_shows_the_index_of_the_environment(
    imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMRERANK_INDEX", str(imported))
    assert runpy.run_path(str(APP))["demo"].title == "mmrerank"


@pytest.mark.slow
def test_without_an_index_it_draws_the_picture_book(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MMRERANK_INDEX", raising=False)
    page = runpy.run_path(str(APP))["demo"]
    assert (tmp_path / "indexes/demo/manifest.json").is_file()
    assert any(type(b).__name__ == "Dataset" for b in page.blocks.values())  # the examples
