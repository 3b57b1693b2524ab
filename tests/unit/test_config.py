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


def test_a_flag_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = recipe(
        tmp_path,
        "rerank: cotrr\noptions: {mode: single, top: 5}\n"
        "chat_options: {timeout: 30, extra: {top_k: 20, a: {b: 1}}}",
    )
    flags = {"options": {"top": "9"}, "chat_options": {"extra": '{"a": {"c": 2}}'}}
    made = config.load(path, environment={}, flags=flags)
    assert made.options == {"mode": "single", "top": "9"}
    assert made.chat_options == {"timeout": 30, "extra": {"top_k": 20, "a": {"b": 1, "c": 2}}}
    assert config.load(path, environment={"MMRERANK_K": "3"}, flags=flags).options == made.options
    # what stands with the method on the command line goes over the recipe too
    named = config.load(path, environment={}, flags={"rerank": "cotrr(mode=staged)"})
    assert named.options == {"top": 5}
    env = config.load(path, environment={"MMRERANK_RERANK": "cotrr(mode=staged)"})
    assert (env.rerank, env.options) == ("cotrr(mode=staged)", {"top": 5})


def test_flags_merge_into_an_evaluations_recipe(tmp_path: Path) -> None:
    path = recipe(
        tmp_path,
        "data: x\ngallery: union\nrerank: cotrr\noptions: {mode: single}\nchat_options: {timeout: 30}\n",
    )
    made = read_recipe(
        "fashioniq", path, options={"image_tokens": "512"}, chat_options={"concurrency": "2"}, set={}
    )
    assert made.options == {"mode": "single", "image_tokens": "512"}
    assert made.chat_options == {"timeout": 30, "concurrency": "2"}
    assert made.set == {"gallery": "union"}
    assert read_recipe("fashioniq", path, set={"gallery": "original"}).set == {"gallery": "original"}


def test_a_flag_for_methods_goes_over_the_recipes_one(tmp_path: Path) -> None:
    path = recipe(tmp_path, "data: x\nrerank: cotrr\noptions: {mode: single}\n")
    made = read_recipe("cirr", path, methods="cotrr,prp(top=3)")
    assert (made.methods, made.rerank, made.options) == ("cotrr(mode=single), prp(top=3)", "none", {})
    several = recipe(tmp_path, "data: x\nmethods: prp,cotrr\n")
    assert read_recipe("cirr", several, rerank="judge").methods == ""
    assert read_recipe("cirr", several).methods == "prp, cotrr"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("set: x", "recipe.yaml: set must be a mapping of names to values, not 'x'"),
        ("set: [gallery=union]\ngallery: union", "set must be a mapping"),
        ("rerank: cotrr\noptions: top=3", "options must be a mapping"),
        ("gallery: union\nset: {gallery: original}", "gallery: union and set: gallery: original; leave one"),
    ],
)
def test_what_flags_might_hide_in_a_recipe_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = recipe(tmp_path, f"data: x\n{text}\n")
    with pytest.raises(UsageError) as caught:
        read_recipe("fashioniq", path, set={}, options={"top": "3"}, rerank="cotrr")
    assert says in str(caught.value)


def test_methods_may_be_a_list_of_yaml(tmp_path: Path) -> None:
    path = recipe(tmp_path, "data: x\nmethods: [cotrr, prp(top=3)]\n")
    assert read_recipe("cirr", path).methods == "cotrr, prp(top=3)"


def test_a_flag_for_one_method_takes_the_recipes_options_of_that_method_alone(tmp_path: Path) -> None:
    path = recipe(tmp_path, "data: x\nrerank: cotrr(top=5)\noptions: {mode: single}\n")
    assert read_recipe("cirr", path, rerank="listwise").options == {}
    assert read_recipe("cirr", path, rerank="cotrr").options == {"top": "5", "mode": "single"}
    made = read_recipe("cirr", path, rerank="cotrr(mode=staged)", options={"top": "3"})
    assert made.options == {"top": "3", "mode": "staged"}


@pytest.mark.parametrize("flags", [{"methods": "cotrr"}, {}], ids=["several", "none"])
def test_options_without_their_one_method_are_refused(tmp_path: Path, flags: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--rerank METHOD"):
        read_recipe("cirr", recipe(tmp_path, "data: x\n"), options={"mode": "single"}, **flags)
