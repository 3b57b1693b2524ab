"""Pictures and models that were moved, deleted or changed since they were indexed: said, with the way on."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from denied import denied
from index_world import ColourEmbedder, build, paint, tally
from typer.testing import CliRunner

from mmrerank import ImageSearch
from mmrerank.cli.main import cli
from mmrerank.corpus import folder as folder_corpus
from mmrerank.errors import MismatchError, ModelError
from mmrerank.index.index import ImageIndex
from mmrerank.ports import Judging, Outcome
from mmrerank.results import SearchResult
from mmrerank.types import Query, Ranking


class Worded(ColourEmbedder):
    """Every query is near everything."""

    domain = ""

    def embed_queries(self, queries: Any) -> Any:
        return np.ones((len(queries), self.dim), np.float32) / np.sqrt(self.dim)


def found(index: Path, k: int = 10, **options: Any) -> SearchResult:
    return ImageSearch.open(index, embedder=Worded()).search(Query(text="a boat"), k=k, **options)


def test_files_that_are_gone_or_others_are_reported_with_the_command(source: Path, tmp_path: Path) -> None:
    index = tmp_path / "x"
    build(index, source)
    assert (found(index).warnings, {h.problem for h in found(index)}) == ((), {""})
    (source / "00.png").unlink()
    shutil.copy(source / "02.png", source / "01.png")
    os.utime(source / "03.png", (1, 1))  # touched: the same picture
    result = found(index)
    assert {h.id: h.problem for h in result if h.problem} == {
        "00.png": "its file is not there any more",
        "01.png": "its file has changed since it was indexed",
    }
    gone, other = result.warnings
    command = f"mmrerank index {source} --index {index}"
    assert gone == (
        "1 of these 10 images cannot be shown, because the files are not there any more: '00.png'. "
        f"Bring the index up to date: {command}"
    )
    assert other.startswith("1 of these 10 images changed since the images were indexed: '01.png'.")
    assert other.endswith(command)
    body = result.to_dict()
    assert [h["problem"] for h in body["hits"] if h["id"] == "00.png"] == ["its file is not there any more"]
    assert body["warnings"] == [gone, other]
    assert "not there any more" in result.html()
    assert tally(build(index, source)) == (0, 1, 1, 8, 0)
    assert found(index).warnings == ()


def test_a_source_that_was_moved_is_one_sentence(source: Path, tmp_path: Path) -> None:
    index = tmp_path / "x"
    build(index, source)
    source.rename(tmp_path / "moved")
    (warning,) = found(index).warnings
    way = (
        f"If it was moved, name its new place: mmrerank index NEW_FOLDER --index {index}. If it is on a "
        "drive, mount the drive"
    )
    away = f"their folder {source} is not there any more. {way}"
    assert warning == f"10 of these 10 images cannot be shown: {away}"
    opened = ImageIndex.open(index)
    assert opened.verify(deep=True) == opened.warnings() == [f"the images cannot be shown: {away}"]
    told = CliRunner().invoke(cli, ["info", str(index), "--output", "json"])
    assert json.loads(told.stdout)["warnings"] == opened.warnings()
    told = CliRunner().invoke(cli, ["verify", str(index)])
    assert (told.exit_code, told.stdout.count("\n")) == (4, 2)
    assert tally(build(index, tmp_path / "moved")) == (0, 0, 0, 10, 0)
    assert ImageIndex.open(index).warnings() == []


def test_an_empty_folder_may_be_a_drive_that_is_not_mounted(source: Path, tmp_path: Path) -> None:
    index = tmp_path / "x"
    build(index, source)
    shutil.rmtree(source)
    source.mkdir()
    (warning,) = found(index, k=4).warnings
    assert "'more/0.png'" in warning or "and 1 more" in warning
    assert f"{source} is empty: is a drive not mounted?" in warning


def test_a_picture_that_may_not_be_read_says_so(source: Path, tmp_path: Path) -> None:
    index = tmp_path / "x"
    build(index, source)
    with denied(source / "04.png"):
        result = found(index)
    (warning,) = result.warnings
    assert warning == (
        "1 of these 10 images cannot be shown: '04.png': its file cannot be read: Permission denied. "
        "Let this user read them"
    )


def test_the_reranker_says_which_pictures_it_could_not_look_at(source: Path, tmp_path: Path) -> None:
    def keep(query: Query, ranking: Ranking) -> Judging:
        yield from ()
        return Outcome(ranking=ranking)

    index = tmp_path / "x"
    build(index, source)
    last = found(index).hits[-1].id
    (source / last).unlink()
    # what is shown is looked at, and what was to be judged
    assert found(index, k=1).warnings == ()
    assert found(index, k=1, rerank=keep, candidates=9).warnings == ()
    (warning,) = found(index, k=1, rerank=keep, candidates=10).warnings
    assert warning.startswith(
        "1 of these 10 images cannot be shown, because the files are not there any more"
    )
    assert repr(last) in warning


# Models


class Moved(ColourEmbedder):
    """The same weights at another place."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self.spec = f"qwen3_vl:{place}"

    def embed_queries(self, queries: Any) -> Any:
        return np.ones((len(queries), self.dim), np.float32)


def test_a_model_that_was_moved_is_remembered_at_its_new_place(source: Path, tmp_path: Path) -> None:
    index, old, new = tmp_path / "x", tmp_path / "old", tmp_path / "new"
    old.mkdir()
    build(index, source, Moved(old))
    assert ImageSearch.open(index, embedder=Moved(new)).search("a boat").warnings == ()  # both may be there
    old.rename(new)
    with pytest.raises(ModelError, match=rf"{index}: the model {old} .* not there any more.*--embedder"):
        ImageSearch.open(index).search("a boat")
    (told,) = ImageIndex.open(index).warnings()
    assert told.startswith(f"the model {old} that made the index is not there any more")
    (told,) = ImageSearch.open(index, embedder=Moved(new)).search("a boat").warnings
    command = re.escape(f"mmrerank index {source} --index {index} --embedder qwen3_vl:{new}")
    assert re.search(rf"makes the same vectors\. .*{command}$", told)
    assert tally(build(index, source, Moved(new))) == (0, 0, 0, 10, 0)
    opened = ImageIndex.open(index)
    assert (opened.embedder_spec, opened.warnings()) == (f"qwen3_vl:{new}", [])
    with pytest.raises(MismatchError):
        build(index, source, ColourEmbedder("other weights"))
    assert ImageIndex.open(index).embedder_spec == f"qwen3_vl:{new}"


def test_of_several_sources_the_one_that_is_away_is_named(source: Path, tmp_path: Path) -> None:
    index, other = tmp_path / "x", tmp_path / "other"
    paint(other, ["a.png", "b.png"], start=50)
    corpora = [folder_corpus.open(str(s)) for s in (source, other)]
    ImageIndex.build(index, corpora, ColourEmbedder())
    other.rename(tmp_path / "moved")
    (source / "00.png").unlink()
    problems = ImageIndex.open(index).verify()
    assert len(problems) == 2
    assert problems[0].startswith(f"images cannot be shown: their folder {other} is not there any more. If")
    assert problems[1].startswith("00.png: ")
    (warning,) = found(index, k=12).warnings
    assert warning.startswith("3 of these 12 images cannot be shown: ")
    assert f"their folder {other} is not there any more" in warning
