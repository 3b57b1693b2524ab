"""First stages of benchmarks over real indexes, and their heads reranked, against plain computations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_samples import MAKERS, circo, cirr, fashioniq
from index_world import ColourEmbedder, build, paint
from typer.testing import CliRunner

from mmrerank.benchmark import Run, Task
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.cli.main import cli
from mmrerank.errors import InputError, MismatchError, UsageError
from mmrerank.evaluation.experiment import shards, two_stage
from mmrerank.evaluation.experiment.carry_out import Experiment
from mmrerank.evaluation.experiment.first_stage import (
    first_stage,
    image_file,
    matched,
    own_candidates,
    query_of,
)
from mmrerank.evaluation.measure.runs import read_run
from mmrerank.evaluation.measure.scoring import quoted
from mmrerank.evaluation.tasks import load_task
from mmrerank.index.index import ImageIndex
from mmrerank.ports import Vectors
from mmrerank.rerank.methods import MethodSpec
from mmrerank.types import Query


class WordEmbedder(ColourEmbedder):
    """Queries are vectors made of the bytes of their words and pictures: fixed, and as good as random."""

    def __init__(self, constant: bool = False) -> None:
        super().__init__()
        self.constant = constant

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        rows = []
        for query in queries:
            said = "" if self.constant else repr((query.words, [i.digest for i in query.images]))
            seed = int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "big")
            rows.append(np.random.default_rng(seed).normal(size=self.dim))
        vectors = np.asarray(rows, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)  # type: ignore[no-any-return]


def indexed(tmp_path: Path, names: Sequence[str]) -> tuple[ImageIndex, Path]:
    """An index of pictures with these names, and of three more that no benchmark knows."""
    pictures = tmp_path / "pictures"
    paint(pictures, [*names, *(f"other/x{n}.png" for n in range(3))])
    build(tmp_path / "index", pictures)
    return ImageIndex.open(tmp_path / "index"), pictures


def by_hand(index: ImageIndex, task: Task, pictures: Path, query: str, names: dict[str, str]) -> list[str]:
    """The gallery by inner product, best first."""
    vector = WordEmbedder().embed_queries([query_of(task, query, pictures)])[0]
    documents = list(task.lists.get(query) or task.gallery or ())
    scores = [float(index.vectors([names[d]])[0] @ vector) for d in documents]
    return [documents[n] for n in np.argsort(-np.asarray(scores), kind="stable")]


def test_queries_that_the_embedder_cuts_are_counted(tmp_path: Path) -> None:
    class Shortsighted(WordEmbedder):
        def overlong(self, text: str) -> tuple[int, int] | None:
            return (len(text), 3) if text == words else None

    cirr(tmp_path / "data")
    task = load_task("cirr", tmp_path / "data")
    index, pictures = indexed(tmp_path, [f"images/dev/{n}.png" for n in task.gallery or ()])
    first = next(iter(task.queries))
    words = query_of(task, first, pictures / "images").words
    same = [q for q in task.queries if query_of(task, q, pictures / "images").words == words]
    found = first_stage(task, index, Shortsighted(), images=pictures / "images", depth=8)
    assert found.warnings == [
        f"{len(same)} of {len(task.queries)} queries have more tokens than test:colour reads "
        f"({quoted(same)}); their ends were cut off"
    ]
    assert found.run == first_stage(task, index, WordEmbedder(), images=pictures / "images", depth=8).run


def test_cirr_ranks_the_gallery_without_the_reference(tmp_path: Path) -> None:
    cirr(tmp_path / "data")
    task = load_task("cirr", tmp_path / "data")
    index, pictures = indexed(tmp_path, [f"images/dev/{n}.png" for n in task.gallery or ()])
    found = first_stage(task, index, WordEmbedder(), images=pictures / "images", depth=8)
    run = found.run
    assert not found.warnings
    assert list(run.rows) == list(task.queries)
    names = {n: f"images/dev/{n}.png" for n in task.gallery or ()}
    for query, rows in run.rows.items():
        whole = [d for d in by_hand(index, task, pictures / "images", query, names)
                 if d not in task.removed[query]]  # fmt: skip
        want = whole[:8] + [d for d in whole[8:] if d in task.members[query]]
        assert [r.id for r in rows] == want
        assert task.members[query] <= {r.id for r in rows}  # so that Rsub can be computed


def test_a_first_stage_says_what_the_index_lacks(tmp_path: Path) -> None:
    cirr(tmp_path / "data")
    task = load_task("cirr", tmp_path / "data")
    names = list(task.gallery or ())
    index, pictures = indexed(tmp_path, [f"dev/{n}.png" for n in names[:-2]])
    paint(pictures, [f"dev/{n}.png" for n in names])  # to be asked with, not indexed
    warnings = first_stage(task, index, WordEmbedder(), images=pictures).warnings
    assert warnings[0].startswith(f"2 of 36 images are not in {index.path}")
    (tmp_path / "b").mkdir()
    other, _ = indexed(tmp_path / "b", ["cat.png"])
    with pytest.raises(InputError, match="has no image of cirr val: its ids are like"):
        first_stage(task, other, WordEmbedder(), images=pictures)
    with pytest.raises(InputError, match="give their folder as --images"):
        first_stage(task, index, WordEmbedder())
    with pytest.raises(InputError, match=r"there is no picture of 'dev-0-0-img0'; looked for"):
        image_file(task, "dev-0-0-img0", tmp_path)


def test_pictures_are_not_looked_for_outside_their_folder(tmp_path: Path) -> None:
    paint(tmp_path, ["secret.png"])
    task = Task(benchmark="folder", split="all", queries={}, qrels={}, files={"a": "../secret.png"})
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="there is no picture"):
        image_file(task, "a", tmp_path / "images")


def test_images_are_matched_by_how_their_paths_end() -> None:
    task = Task(
        benchmark="folder", split="all", queries={}, qrels={}, files={"x": "dev/x.png", "7": "000007.jpg"}
    )
    ids = ["a/dev/x.png", "b/dev2/x.png", "coco/000007.jpg", "one/y.jpg", "two/y.jpg", "z.jpeg"]
    found = matched(task, ["x", "7", "y", "one/y.jpg", "z", "nobody"], ids)
    assert found == {"x": "a/dev/x.png", "7": "coco/000007.jpg", "one/y.jpg": "one/y.jpg", "z": "z.jpeg"}


@pytest.mark.parametrize("gallery", ["original", "union"])
def test_fashioniq_searches_the_gallery_that_was_named(tmp_path: Path, gallery: str) -> None:
    fashioniq(tmp_path / "data")
    task = load_task("fashioniq", tmp_path / "data", options={"gallery": gallery})
    index, pictures = indexed(tmp_path, [f"{n}.jpg" for n in task.gallery or ()])
    run = first_stage(task, index, WordEmbedder(), images=pictures, depth=1000).run
    for query, rows in run.rows.items():
        assert {r.id for r in rows} == set(task.lists[query])
        names = {d: f"{d}.jpg" for d in task.lists[query]}
        assert [r.id for r in rows] == by_hand(index, task, pictures, query, names)
    assert len(run.rows["dress/0"]) == (70 if gallery == "original" else len(task.lists["dress/0"]))
    assert any(task.queries[q].image in {r.id for r in rows} for q, rows in run.rows.items())


def test_without_a_gallery_the_whole_index_is_searched(tmp_path: Path) -> None:
    circo(tmp_path / "data")
    task = load_task("circo", tmp_path / "data")
    index, pictures = indexed(tmp_path, [f"unlabeled2017/{n:012d}.jpg" for n in range(60)])
    asked = pictures / "asked"
    paint(asked, [f"{int(a.image):012d}.jpg" for a in task.queries.values()], start=900)
    found = first_stage(task, index, WordEmbedder(), images=asked, depth=12)
    run = found.run
    names = {str(n): f"unlabeled2017/{n:012d}.jpg" for n in range(60)}
    for query, rows in run.rows.items():
        vector = WordEmbedder().embed_queries([query_of(task, query, asked)])
        want = [s.id for s in index.search(vector, 12)[0]]
        assert [names.get(r.id, r.id) for r in rows] == want
        # what is to be reranked is found in the index again
        assert [found.names[r.id] for r in rows] == want


def test_published_shards_are_searched_as_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    monkeypatch.setattr(shards, "_BLOCK", 7)
    rng = np.random.default_rng(3)
    (tmp_path / "img_emb").mkdir()
    (tmp_path / "metadata").mkdir()
    rows, names = [], []
    for n, size in enumerate((20, 7, 33)):
        part = rng.normal(size=(size, 12)).astype(np.float16)
        paths = [f"train/species/{n}-{i}" for i in range(size)]
        np.save(tmp_path / f"img_emb/img_emb_{n:04d}.npy", part)
        table = pyarrow.table({"image_path": paths, "caption": [""] * size})
        parquet.write_table(table, tmp_path / f"metadata/metadata_{n:04d}.parquet")
        rows.append(part.astype(np.float32))
        names += paths
    whole = np.concatenate(rows)
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    queries = WordEmbedder().embed_queries([Query(text=f"q{n}") for n in range(5)])
    found = shards.nearest_in_shards(tmp_path, queries, 9)
    for vector, ranked in zip(queries, found, strict=True):
        scores = whole @ vector
        assert list(ranked.ids) == [names[n] for n in np.argsort(-scores, kind="stable")[:9]]
        assert list(ranked.scores) == pytest.approx(sorted(scores, reverse=True)[:9], abs=1e-6)
    with pytest.raises(MismatchError, match="the queries' vectors have width 11"):
        shards.nearest_in_shards(tmp_path, queries[:, :11], 9)
    parquet.write_table(pyarrow.table({"image_path": ["a"]}), tmp_path / "metadata/metadata_0001.parquet")
    with pytest.raises(InputError, match=r"has 7 rows, and .*metadata_0001\.parquet 1"):
        shards.nearest_in_shards(tmp_path, queries, 9)
    (tmp_path / "metadata/metadata_0001.parquet").unlink()
    with pytest.raises(InputError, match="3 arrays .* and 2 tables"):
        shards.nearest_in_shards(tmp_path, queries, 9)


@pytest.fixture
def mmeb_rows(tmp_path: Path) -> Path:
    import pyarrow
    import pyarrow.parquet as parquet

    folder = tmp_path / "data"
    paint(folder / "images", [f"i{n}.png" for n in range(12)])
    words = [
        {"qry_text": f"what {n}?", "qry_img_path": f"i{n}.png", "tgt_text": [f"right {n}", "b", "c", "d"],
         "tgt_img_path": [""] * 4}
        for n in range(10)
    ]  # fmt: skip
    pictures = [
        {"qry_text": f"find {n}", "qry_img_path": "", "tgt_text": ["show it"] * 4,
         "tgt_img_path": [f"i{(n + i) % 12}.png" for i in range(4)]}
        for n in range(10)
    ]  # fmt: skip
    both = [{**r, "qry_img_path": "i3.png", "tgt_text": ['"the cat"'] * 4} for r in pictures]
    for name, rows in (("OK-VQA", words), ("MSCOCO_t2i", pictures), ("RefCOCO", both)):
        (folder / name).mkdir()
        table = pyarrow.Table.from_pylist(rows)
        parquet.write_table(table, folder / name / "test-00000-of-00001.parquet")
    return folder


def test_candidates_of_a_query_are_ranked_by_themselves(mmeb_rows: Path) -> None:
    task = load_task("mmeb", mmeb_rows)
    embedder = WordEmbedder()
    run = own_candidates(task, embedder, images=mmeb_rows / "images")
    assert {len(rows) for rows in run.rows.values()} == {4}
    assert task.qrels["MSCOCO_t2i/2"] == {"i2.png": 1}
    assert task.qrels["RefCOCO/2"] == {"i2.png:the cat": 1}
    asked = query_of(task, "OK-VQA/4", mmeb_rows / "images")
    assert (asked.text, len(asked.images)) == ("what 4?", 1)
    vector = embedder.embed_queries([asked])[0]
    keys = task.lists["OK-VQA/4"]
    scores = embedder.embed_queries([Query(text=k) for k in keys]) @ vector
    assert [r.id for r in run.rows["OK-VQA/4"]] == [keys[n] for n in np.argsort(-scores)]
    constant = own_candidates(task, WordEmbedder(constant=True), images=mmeb_rows / "images")
    first = [constant.rows[q][0].id in task.qrels[q] for q in task.queries]
    assert sum(first) < 18  # a model that says the same of everything gets no more than chance
    assert two_stage.score(task, constant).metrics["Hit@1"].value == 0  # and is scored as nothing


@pytest.mark.parametrize("name", ["folder", "cirr"])
def test_a_reranker_that_knows_reaches_the_ceiling_and_is_asked_once(name: str, tmp_path: Path) -> None:
    sample = MAKERS[name](tmp_path / "data")
    task = load_task(name, tmp_path / "data")
    documents = list(task.gallery or ())
    index, pictures = indexed(tmp_path, [task.files.get(d, d) for d in documents])
    first = first_stage(task, index, WordEmbedder(), images=pictures).run
    grades = {(query_of(task, q, pictures).words, d): g for q, judged in task.qrels.items()
              for d, g in judged.items()}  # fmt: skip
    asked: list[int] = []

    class Counting(Oracle):
        def reply(self, asks: Any) -> Any:
            asked.append(len(asks))
            return super().reply(asks)

    def run(chat: Any) -> dict[str, Any]:
        return Experiment(
            benchmark=name, data=tmp_path / "data", run=[first], images=pictures, candidates=10,
            methods=[MethodSpec(name="pointwise")], chat=chat, runs=tmp_path / "out",
        ).carry_out().to_dict()  # fmt: skip

    body = run(Counting(lambda query, id: grades.get((query.words, id), 0)))
    written = read_run(tmp_path / "out/pointwise.trec")
    scores = two_stage.score(task, written)
    assert {n: m.value for n, m in scores.metrics.items()} == pytest.approx(body["ceiling"])
    assert any(body["ceiling"][n] > v for n, v in body["first_stage"]["metrics"].items())
    assert sum(asked) == body["usage"]["calls"] == 10 * len(sample.lists)
    count = sum(asked)
    again = run(Counting(lambda query, id: 0))
    assert sum(asked) == count  # everything is in the journal
    assert again["usage"] == body["usage"]
    assert read_run(tmp_path / "out/pointwise.trec") == written
    told = json.loads((tmp_path / "out/pointwise.json").read_text())
    assert told["first_stage"] == body["first_stage"]["digest"]
    assert told["config"]["candidates"] == 10
    for query, rows in written.rows.items():
        assert {r.id for r in rows} == {r.id for r in first.rows[query]}
        assert [r.id for r in rows][10:] == [r.id for r in first.rows[query]][10:]


@pytest.mark.slow
def test_the_command_makes_a_first_stage_reranks_it_and_takes_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the bundled models, whose embedder made the index."""
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    drawn = runner.invoke(
        cli, ["demo", "export", "world", "--seed", "4", "--scenes", "420", "--queries", "4"]
    )
    assert drawn.exit_code == 0, drawn.output
    made = runner.invoke(cli, ["index", "world/images", "--index", "w", "--embedder", "bundled"])
    assert made.exit_code == 0, made.output
    Path("recipe.yaml").write_text(
        "benchmark: folder\ndata: world\nindex: w\nimages: world\nrerank: pointwise\nchat: bundled\n"
        "candidates: 5\nset: {metrics: 'nDCG@10,P@1'}\n"
    )
    done = runner.invoke(cli, ["eval", "folder", "--config", "recipe.yaml", "--output", "json"])
    assert done.exit_code == 0, done.output
    body = json.loads(done.stdout)
    assert set(body["metrics"]) == {"nDCG@10", "P@1"}
    assert body["candidates"] == 5
    assert body["usage"]["calls"] == 20
    assert body["ceiling"]["nDCG@10"] >= body["first_stage"]["metrics"]["nDCG@10"]
    folder = Path("runs/eval/folder-all")
    assert {p.name for p in folder.iterdir()} == {
        "first-stage.trec", "first-stage.raw.jsonl", "first-stage.json", "first-stage.metrics.json",
        "pointwise.trec", "pointwise.jsonl", "pointwise.json", "pointwise.raw.jsonl",
        "pointwise.metrics.json", "pointwise.journal.jsonl",
    }  # fmt: skip
    scored = runner.invoke(
        cli, ["eval", "folder", "--data", "world", "--run", str(folder / "pointwise.trec"),
              "--set", "metrics=nDCG@10,P@1", "--output", "json"],
    )  # fmt: skip
    assert json.loads(scored.stdout)["metrics"] == body["metrics"]
    foreseen = runner.invoke(
        cli, ["eval", "folder", "--config", "recipe.yaml", "--rerank", "cotrr", "--forecast", "0"]
    )
    assert "cotrr: 4 queries left: 28 calls" in foreseen.stdout
    wrong = runner.invoke(cli, ["eval", "cirr", "--config", "recipe.yaml"])
    assert wrong.exit_code == 2
    assert "recipe.yaml is for mmrerank eval folder, not cirr" in wrong.output


def test_two_first_stages_at_once_are_refused(tmp_path: Path) -> None:
    MAKERS["folder"](tmp_path)
    arguments = ["eval", "folder", "--data", str(tmp_path), "--run", "a.trec", "--index", "w"]
    told = CliRunner().invoke(cli, arguments)
    assert told.exit_code == 2
    assert "give --run, or --index to make one, not both" in told.output
    told = CliRunner().invoke(cli, ["eval", "folder"])
    assert "--data DIR is needed" in told.output
    told = CliRunner().invoke(cli, [*arguments[:4], "--rerank", "cotrr"])
    assert "--rerank takes one run (--run FILE) or a first stage (--index X), not 0" in told.output


def test_a_head_needs_at_least_one_candidate(tmp_path: Path) -> None:
    MAKERS["folder"](tmp_path)
    task = load_task("folder", tmp_path)
    with pytest.raises(UsageError, match="candidates must be at least 1"):
        two_stage.items_of(task, Run(rows={}), 0, two_stage.in_folder(task, tmp_path), tmp_path)
    with pytest.raises(InputError, match="answers no query of folder all"):
        two_stage.items_of(task, Run(rows={}), 5, two_stage.in_folder(task, tmp_path), tmp_path)


def test_the_rerank_task_brings_its_pictures_and_its_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    import PIL.Image
    import pyarrow
    import pyarrow.parquet as parquet

    monkeypatch.chdir(tmp_path)
    rows = []
    for n in range(24):
        picture = io.BytesIO()
        PIL.Image.new("RGB", (24, 24), (n * 10, 90, 200 - n)).save(picture, "PNG")
        rows.append(
            {"query": f"a bird of kind {n % 2}", "relevant": int(n % 6 == 0), "clip_score": n / 24,
             "inat24_image_id": 900 + n, "inat24_file_name": f"train/x/{n}.jpg",
             "image": {"bytes": picture.getvalue(), "path": None}}
        )  # fmt: skip
    (tmp_path / "data").mkdir()
    path = tmp_path / "data/test-00000-of-00001.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=5)
    task = load_task("inquire-rerank", tmp_path)
    assert [task.first["a bird of kind 1"].ids[0], len(task.first)] == ["923", 2]
    assert task.pictures is not None
    for n in (3, 22, 4, 0):
        assert task.pictures(str(900 + n)).data == rows[n]["image"]["bytes"]  # type: ignore[index]
    told = CliRunner().invoke(
        cli,
        ["eval", "inquire-rerank", "--data", ".", "--rerank", "pointwise", "--chat", "oracle",
         "--candidates", "100", "--output", "json"],
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    body = json.loads(told.stdout)
    assert body["usage"]["calls"] == 24
    assert body["queries"] == {"expected": 2, "scored": 2, "missing": 0}
    for row in rows:
        del row["image"]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    bare = load_task("inquire-rerank", tmp_path)
    assert bare.pictures is not None
    with pytest.raises(InputError, match="has no column 'image'; give a folder as --images"):
        bare.pictures("903")
