"""What opens the page: ``mmrerank app``, and ``app/app.py``, which Gradio and Spaces start."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from command import run

APP = Path(__file__).resolve().parents[2] / "app/app.py"


def test_the_entry_point_shows_the_index_of_the_environment(
    imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMRERANK_INDEX", str(imported))
    assert runpy.run_path(str(APP))["demo"].title == "mmrerank"


@pytest.mark.slow
def test_without_an_index_it_draws_the_picture_book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MMRERANK_INDEX", raising=False)
    page = runpy.run_path(str(APP))["demo"]
    assert (tmp_path / "indexes/demo/manifest.json").is_file()
    assert any(type(b).__name__ == "Dataset" for b in page.blocks.values())  # the examples


def test_the_verb_offers_what_the_index_and_the_models_allow(
    imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[str] = []

    def serve(page: Any, **_: Any) -> None:
        (method,) = (b for b in page.blocks.values() if type(b).__name__ == "Dropdown")
        served.append(method.value)

    monkeypatch.setattr("mmrerank_app.launch.serve", serve)
    assert "no language model was named" in run("app", "--index", imported).stderr
    assert not run("app", "--index", imported, "--chat", "oracle").stderr
    assert served == ["none", "cotrr"]  # without a language model nothing is reranked


def test_an_index_that_nobody_named_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "mmrerank index FOLDER" in run("app", code=2).stderr
    assert "mmrerank index" in run("app", "--index", "nope", code=4).stderr
