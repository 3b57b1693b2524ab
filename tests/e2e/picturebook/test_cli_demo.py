"""``mmrerank demo``: what it prints, as text and as JSON."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command import data, run


@pytest.mark.slow
def test_the_demo_counts_the_places_that_show_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the report goes to ./reports
    asked = ("demo", "--index", tmp_path / "book", "--scenes", 150, "--rerank", "none")
    searches = data(*asked)["searches"]
    text = run(*asked).stdout
    known = [s["full_matches"] for s in searches if s["full_matches"]["in_all"]]
    assert len(searches) == 6
    assert len(known) == 5  # the sixth asks for what no picture shows
    lines = {
        words: (int(before), int(after))
        for words, before, after in re.findall(r"in (.+?) +(\d+) before, +(\d+) after", text)
    }
    assert list(lines) == ["first place", "the first three", "the first ten"]
    assert lines["first place"] == tuple(
        sum(k[when] for k in known) for when in ("first_before", "first_after")
    )
    assert lines["the first ten"] == tuple(sum(k[n] for k in known) for n in ("before", "after"))
    # without a method nothing moves, and more places hold no fewer pictures
    assert all(before == after for before, after in lines.values())
    assert sorted(lines.values()) == list(lines.values())
    assert (tmp_path / "reports/book.html").stat().st_size > 10_000


@pytest.mark.slow
def test_a_search_of_ones_own_is_not_graded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ("demo", "--index", tmp_path / "book", "--scenes", 40, "--rerank", "none")
    text = run(*asked, "--query", "a red boat").stdout
    assert "a red boat" in text
    assert "everything asked for" not in text


def test_mistakes_are_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for asked in (
        ("demo", "--seed", -3),
        ("demo", "export", tmp_path / "d", "--seed", -5),
        ("eval", "demo", "--seed", -1),
    ):
        assert "seed" in run(*asked, code=2).stderr
    assert "--query is empty" in run("demo", "--query", " ", code=2).stderr
    file = tmp_path / "reports"
    file.write_text("mine")
    assert "cannot be written" in run("demo", "--index", tmp_path / "i", code=3).stderr
    assert "cannot be written" in run("demo", "export", file, "--queries", 0, code=3).stderr
    assert file.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["reports"]
