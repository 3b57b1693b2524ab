"""``--plus``, ``--minus`` and ``--collapse`` of the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import NAMES, data, run, write_lines

from mmrerank.cli._terms import terms
from mmrerank.errors import InputError, UsageError
from mmrerank.types import Image, Term


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("pool.jpg", "no ending", "stripes"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("given", "weight", "text"),
    [
        ("grass", 1, "grass"),
        ("2:grass", 2, "grass"),
        ("0.5: long grass ", 0.5, "long grass"),
        (".5:grass", 0.5, "grass"),
        ("+2:grass", 2, "grass"),
        ("1:2:1 ratio", 1, "2:1 ratio"),
        ("note: a 2:1 ratio", 1, "note: a 2:1 ratio"),
        ("2e3:grass", 1, "2e3:grass"),
        ("nan:grass", 1, "nan:grass"),
        ("stripes", 1, "stripes"),  # a file of that name needs ./
        ("black and/or white", 1, "black and/or white"),
        ("like pool.jpg", 1, "like pool.jpg"),
    ],
)
def test_words_and_their_weights(given: str, weight: float, text: str) -> None:
    assert terms([given], [given]) == (Term(text=text, weight=weight), Term(text=text, weight=-weight))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("./pool.jpg", "pool.jpg"),
        ("pool.jpg", "pool.jpg"),
        ("3:./no ending", "no ending"),
        ("./stripes", "stripes"),
    ],
)
def test_files(given: str, path: str) -> None:
    (term,) = terms([given], [])
    assert term == Term(image=Image(path=Path(path)), weight=3 if given[0] == "3" else 1)


def test_a_file_of_ones_home(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    assert terms([], ["~/pool.jpg"]) == (Term(image=Image(path=here / "pool.jpg"), weight=-1),)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ("./nope", InputError, "there is no image file"),
        ("nope.png", InputError, "there is no image file"),
        ("../", InputError, "is a folder"),
        ("https://example.org/a.jpg", UsageError, "fetch it first"),
        ("", UsageError, "--plus is empty"),
        ("2:", UsageError, "--plus is empty"),
        ("-", UsageError, "does not read stdin"),
        ("-2:grass", UsageError, "a weight has no sign; --minus 2:grass is the other way"),
        ("0:grass", UsageError, "--plus: a term's weight is"),
        ("1001:grass", UsageError, "--plus: a term's weight is"),
        ("9" * 400 + ":grass", UsageError, "--plus: a term's weight is"),
    ],
)
def test_what_is_no_term(given: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        terms([given], [])


@pytest.mark.usefixtures("named")
def test_a_search_with_terms(built: Path, source: Path) -> None:
    picture = source / "images" / NAMES[0]
    asked = ("--plus", picture, "--minus", "0.5:night", "--plus", "boat", "--index", built, "--k", 2)
    told = data("search", "red", *asked)
    assert told["query"]["terms"] == [
        {"image": str(picture), "weight": 1.0},
        {"text": "boat", "weight": 1.0},
        {"text": "night", "weight": -0.5},
    ]
    assert [h["score"] for h in told["hits"]] != [
        h["score"] for h in data("search", "red", "--index", built, "--k", 2)["hits"]
    ]
    assert "cancel out" in run("search", "red", "--minus", "red", "--index", built, code=2).stderr
    assert "needs a text" in run("search", "--plus", "red", "--index", built, code=2).stderr


@pytest.mark.usefixtures("named")
def test_copies_are_named(built: Path, source: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(source / "images" / NAMES[0], pictures / name)
    shutil.copy(source / "images" / NAMES[1], pictures / "c.jpg")
    data("index", pictures, "--index", tmp_path / "y", "--embedder", embedder_of(built))
    asked = ("search", "red", "--index", tmp_path / "y")
    assert len(data(*asked)["hits"]) == 3
    run_ = tmp_path / "out.trec"
    told = data(*asked, "--collapse", "identical", "--run", run_)["hits"]
    assert {h["id"]: h["duplicates"] for h in told} == {"a.jpg": ["b.jpg"], "c.jpg": []}
    assert len(run_.read_text().splitlines()) == 2
    assert "and 1 more like it: b.jpg" in run(*asked, "--collapse", "identical").stdout
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("collapse: identical\n")
    assert len(data(*asked, "--config", recipe)["hits"]) == 2
    assert len(data(*asked, "--config", recipe, "--collapse", "none")["hits"]) == 3
    assert "must be one of none, identical, near" in run(*asked, "--collapse", "all", code=2).stderr


def embedder_of(index: Path) -> Any:
    return json.loads((index / "manifest.json").read_text())["embedder"]


def requests(folder: Path, terms: Any) -> Path:
    query = {"text": "a horse", "terms": terms}
    row = {"query": query, "candidates": [{"id": "x", "text": "a zebra"}, {"id": "y", "text": "a mule"}]}
    return write_lines(folder / "requests.jsonl", [row])


def test_requests_have_terms(here: Path) -> None:
    given = requests(here, [{"text": "stripes"}, {"image": "pool.jpg", "weight": -2}])
    told = data("rerank", "--input", given, "--rerank", "none")
    assert told["query"]["terms"] == [
        {"text": "stripes", "weight": 1.0}, {"image": str(here / "pool.jpg"), "weight": -2.0},
    ]  # fmt: skip
    script = write_lines(here / "script.jsonl", [{"reply": "[1, 2]"}])
    told = data("rerank", "--input", given, "--rerank", "listwise", "--chat", f"scripted:{script}", code=None)
    assert any("listwise was not shown 1 image" in w for w in told["warnings"])


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ("stripes", "terms must be a list of objects, not a text"),
        ([{"words": "x"}], "term 1: a term has no 'words'"),
        ([{"text": "x"}, {}], "either a text or an image"),
        ([{"text": "x", "weight": "2"}], "a term's weight is a number"),
        ([{"image": "nope.jpg"}], "term 1: there is no image file"),
    ],
)
def test_wrong_terms_of_requests_are_named(here: Path, terms: Any, says: str) -> None:
    told = run("rerank", "--input", requests(here, terms), "--rerank", "none", code=3).stderr
    assert says in told
    assert "line 1" in told
