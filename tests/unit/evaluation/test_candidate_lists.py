"""First stages of queries that choose among candidates of their own, with an index and without one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmark_samples import MAKERS, circo, inquire
from index_world import paint
from test_first_stage import WordEmbedder, indexed

from mmrerank.evaluation.experiment import two_stage
from mmrerank.evaluation.experiment.first_stage import first_stage, own_candidates, query_of
from mmrerank.evaluation.experiment.make_first_stage import make_first_stage
from mmrerank.evaluation.tasks import load_task
from mmrerank.ports import Vectors
from mmrerank.types import Query


class Noting(WordEmbedder):
    """Keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Query] = []

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        self.asked += queries
        return super().embed_queries(queries)


def table(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    return path


@pytest.mark.parametrize(("name", "ending"), [("fashioniq", ".jpg"), ("mrb", "")])
def test_candidates_without_words_are_embedded_as_pictures(name: str, ending: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path / "data")
    task = load_task(name, tmp_path / "data")
    keys = list(dict.fromkeys(i for own in task.lists.values() for i in own))
    paint(tmp_path / "images", [f"{k}{ending}" for k in keys])
    embedder = Noting()
    run = own_candidates(task, embedder, images=tmp_path / "images")
    shown = embedder.asked[: len(keys)]
    assert [(q.text, [i.path for i in q.images]) for q in shown] == [
        ("", [tmp_path / "images" / f"{k}{ending}"]) for k in keys
    ]
    assert {q: set(own) for q, own in task.lists.items()} == {
        q: {r.id for r in rows} for q, rows in run.rows.items()
    }


def test_an_index_ranks_candidates_where_there_is_no_gallery(tmp_path: Path) -> None:
    MAKERS["mrb"](tmp_path / "data")
    task = load_task("mrb", tmp_path / "data")
    names = [i for own in task.lists.values() for i in own]
    index, _ = indexed(tmp_path, [f"deep/{n}" for n in names])
    found = first_stage(task, index, WordEmbedder())
    assert not found.warnings
    for query, own in task.lists.items():
        vector = WordEmbedder().embed_queries([query_of(task, query, None)])[0]
        scores = {i: float(index.vectors([f"deep/{i}"])[0] @ vector) for i in own}
        assert [r.id for r in found.run.rows[query]] == sorted(own, key=lambda i: -scores[i])


def test_words_are_not_taken_for_a_picture_of_that_name(tmp_path: Path) -> None:
    table(
        tmp_path / "data/OK-VQA/test.jsonl",
        [{"qry_text": "what?", "qry_img_path": "", "tgt_text": ["boat", "sea"],
          "tgt_img_path": ["", ""]}],
    )  # fmt: skip
    table(
        tmp_path / "data/MSCOCO_t2i/test.jsonl",
        [{"qry_text": "find", "qry_img_path": "", "tgt_text": ["show it"] * 2,
          "tgt_img_path": ["a/1.png", "a/2.png"]}],
    )  # fmt: skip
    task = load_task("mmeb", tmp_path / "data")
    index, _ = indexed(tmp_path, ["a/1.png", "a/2.png", "boat.png"])
    found = first_stage(task, index, WordEmbedder())
    assert {r.id for r in found.run.rows["MSCOCO_t2i/0"]} == {"a/1.png", "a/2.png"}
    assert not found.run.rows["OK-VQA/0"]
    assert found.warnings[0].startswith(f"2 of 4 images are not in {index.path}")


def test_a_query_without_candidates_searches_the_whole_index(tmp_path: Path) -> None:
    table(
        tmp_path / "data/queries.jsonl",
        [{"id": "own", "text": "x", "relevant": ["1.png"], "candidates": ["1.png", "2.png"]},
         {"id": "all", "text": "y", "relevant": ["3.png"]}],
    )  # fmt: skip
    task = load_task("folder", tmp_path / "data")
    index, _ = indexed(tmp_path, [f"deep/{n}.png" for n in range(1, 6)])
    found = first_stage(task, index, WordEmbedder())
    assert {r.id for r in found.run.rows["own"]} == {"1.png", "2.png"}
    assert len(found.run.rows["all"]) == 8  # three are of no benchmark
    assert {"1.png", "3.png", "deep/4.png", "other/x0.png"} <= {r.id for r in found.run.rows["all"]}
    assert found.names["3.png"] == "deep/3.png"


def test_circo_finds_pictures_that_no_row_names(tmp_path: Path) -> None:
    circo(tmp_path / "data")
    task = load_task("circo", tmp_path / "data")
    used = {a.image for a in task.queries.values()} | {"499999"}
    paint(tmp_path / "images", [f"{int(i):012d}.jpg" for i in used])
    locate = two_stage.in_folder(task, tmp_path / "images")
    assert locate("499999").path == tmp_path / "images/000000499999.jpg"
    for query, asked in task.queries.items():
        (picture,) = query_of(task, query, tmp_path / "images").images
        assert picture.path == tmp_path / f"images/{int(asked.image):012d}.jpg"


def test_a_first_stage_over_a_whole_index_can_be_reranked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inquire(tmp_path / "data")
    task = load_task("inquire-fullrank", tmp_path / "data")
    index, pictures = indexed(tmp_path, list(task.files.values())[:40])
    first = make_first_stage(task, tmp_path / "out", index=index.path, embedder=WordEmbedder())
    answer = first.answer(task)
    assert len(answer.rows) == len(task.queries)
    listed = {i for ranked in answer.rows.values() for i in ranked.ids}
    assert len(listed & set(task.files)) == 40
    for document in listed:
        assert first.locate(document).path == pictures / task.files.get(document, document)
