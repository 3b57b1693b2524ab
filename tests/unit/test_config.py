"""Settings out of recipe, environment and flags: which goes first, and what is said of wrong values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmrerank import config
from mmrerank.errors import UsageError
from mmrerank.evaluation.experiment.recipe import read_recipe


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("options: [1]", "options must be a mapping of names to values, not [1]"),
        ("k: .inf", "k must be a number (int), not inf"),
        ("k: true", "k must be a number (int), not True"),
        ("k: 10.7", "k must be a number (int), not 10.7"),
        ("candidates: many", "candidates must be a number (int), not 'many'"),
        ("kk:", "unknown option 'kk'"),
    ],
)
def test_a_wrong_value_is_told_with_recipe_and_key(tmp_path: Path, text: str, told: str) -> None:
    path = recipe(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        config.load(path, environment={})
    assert str(caught.value).startswith(f"{path}: {told}")


def test_empty_keys_and_whole_numbers(tmp_path: Path) -> None:
    path = recipe(tmp_path, "device:\noptions:\nk: 10.0\ncandidates: '7'\n")
    assert config.load(path, environment={}) == config.Settings(k=10, candidates=7)
    made = read_recipe("cirr", recipe(tmp_path, "data: x\nsplit:\noptions:\n"))
    assert (made.data, made.split, made.options) == ("x", "", {})


def test_a_wrong_variable_is_not_blamed_on_the_recipe(tmp_path: Path) -> None:
    path = recipe(tmp_path, "k: 3")
    with pytest.raises(UsageError) as caught:
        config.load(path, environment={"MMRERANK_K": "abc"})
    assert str(caught.value) == "MMRERANK_K must be a number (int), not 'abc'"
    assert config.load(path, environment={"MMRERANK_K": "4"}).k == 4


@pytest.mark.parametrize(
    ("flags", "chat"), [({}, "oracle"), ({"chat": "bundled"}, "bundled")], ids=["none", "a flag"]
)
def test_an_evaluations_model_is_the_flags_then_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], chat: str
) -> None:
    monkeypatch.setenv("MMRERANK_CHAT", "oracle")
    monkeypatch.setenv("MMRERANK_RERANK", "cotrr")
    made = read_recipe("cirr", recipe(tmp_path, "data: x\nchat: scripted:y\n"), **flags)
    assert (made.chat, made.rerank) == (chat, "none")
