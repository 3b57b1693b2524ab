"""``mmrerank demo ask`` and ``mmrerank demo train``: what they print, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import data, run


@pytest.mark.slow
def test_a_model_is_asked_evenly() -> None:
    body = data("demo", "ask", "--scenes", 8)
    assert {"colour", "count"} <= set(body["verdicts"])
    right, count = body["decomposed"]["searches as people talk"]
    assert 0 <= right <= count == 4
    text = run("demo", "ask", "--scenes", 8).stdout
    assert "decomposed exactly:" in text


def test_a_wrong_recipe_or_model_is_an_error(tmp_path: Path) -> None:
    wanted = ("demo", "train", tmp_path / "none.yaml", "--out", tmp_path / "out")
    assert "cannot read the recipe" in run(*wanted, code=3).stderr
    file = tmp_path / "recipe.yaml"
    file.write_text("model: gpt\n", "utf-8")
    assert "one of clip, vlm" in run("demo", "train", file, "--out", tmp_path, code=2).stderr
    assert "there is no chat" in run("demo", "ask", "--chat", "nonesuch", code=2).stderr
