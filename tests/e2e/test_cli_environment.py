"""``MMRERANK_*`` in the place of flags."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import data, run


def test_the_model_is_the_environments_unless_a_flag_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMRERANK_CHAT", "oracle")
    assert data("recommend")["chat"] == "oracle"
    monkeypatch.setenv("MMRERANK_CHAT", "telepathy")
    assert data("recommend", "--chat", "oracle")["chat"] == "oracle"


@pytest.mark.slow
def test_a_wrong_model_of_the_environment_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMRERANK_CHAT", "telepathy")
    few = ("--scenes", 30)
    for verb in (("recommend",), ("demo", "--query", "a", *few), ("eval", "demo", "--queries", 1, *few)):
        assert "there is no chat 'telepathy'" in run(*verb, code=2).stderr


@pytest.mark.usefixtures("named")
def test_an_index_is_made_on_the_environments_device(
    built: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMRERANK_DEVICE", "telepathy")
    again = ("index", source / "images", "--index", built)
    assert "there is no device 'telepathy'" in run(*again, code=5).stderr
    assert data(*again, "--device", "cpu")["unchanged"] == 5
