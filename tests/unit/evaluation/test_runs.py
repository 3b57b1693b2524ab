"""TREC files: what is written is read back as it was; what cannot be written or read is named."""

from __future__ import annotations

import gzip
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrerank.benchmark import Run, Scored
from mmrerank.errors import InputError
from mmrerank.evaluation.measure.runs import (
    decode_id,
    encode_id,
    read_qrels,
    read_run,
    write_qrels,
    write_run,
)

# any text at all, lone surrogates included, with more of what breaks columns and lines
IDS = st.text(
    st.one_of(
        st.sampled_from(" %\t\n\r\x00\x85\xa0\u2028\ufeff\u3000\ud800"),
        st.characters(exclude_categories=()),
    ),
    min_size=1,
    max_size=12,
)  # fmt: skip
SCORES = st.one_of(st.floats(-1e300, 1e300), st.sampled_from([0.5, 0.25, 1.0, -1.0, 0.0]))
ROWS = st.lists(st.tuples(IDS, SCORES), max_size=8, unique_by=lambda row: row[0]).map(
    lambda rows: [
        Scored(id=i, score=s)
        for (i, _), s in zip(rows, sorted((s for _, s in rows), reverse=True), strict=True)
    ]
)
RUNS = st.builds(Run, rows=st.dictionaries(IDS, ROWS.filter(bool), max_size=4), tag=IDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@given(IDS)
def test_an_id_is_one_column_and_comes_back(id_: str) -> None:
    column = encode_id(id_)
    assert column.split() == [column]
    assert column.encode().decode() == column
    assert decode_id(column) == id_


@given(st.text(alphabet="abcäöü/.-_🎈日本", min_size=1))
def test_ordinary_names_stay_as_they_are(id_: str) -> None:
    assert encode_id(id_) == id_


@given(RUNS)
def test_a_run_comes_back_in_order(folder: Path, run: Run) -> None:
    path = folder / "run.trec"
    write_run(path, run)
    found = read_run(path)
    assert list(found.rows) == list(run.rows)
    assert {q: [r.id for r in rows] for q, rows in found.rows.items()} == {
        q: [r.id for r in rows] for q, rows in run.rows.items()
    }
    if run.rows:
        assert found.tag == run.tag
    for query, rows in found.rows.items():
        scores = [r.score for r in rows]
        # trec_eval keeps single precision: the order must stand there too
        assert all(a > b for a, b in pairwise(np.float32(scores)))
        raw = [r.score for r in run.rows[query]]
        if max(map(abs, raw)) < 1e38:
            # a score is lowered by no more than a step for each one above it
            steps = 1e-6 * len(raw)
            near = (
                math.isclose(a, b, rel_tol=steps, abs_tol=1e-40) for a, b in zip(scores, raw, strict=True)
            )
            assert all(near)
            assert all(a <= b for a, b in zip(scores, raw, strict=True))


@given(
    st.dictionaries(IDS, st.dictionaries(IDS, st.integers(-1000, 1000), min_size=1, max_size=4), max_size=3)
)
def test_qrels_come_back(folder: Path, qrels: dict[str, dict[str, int]]) -> None:
    path = folder / "qrels.txt"
    write_qrels(path, qrels)
    assert read_qrels(path) == qrels


def test_the_columns_and_the_ties(tmp_path: Path) -> None:
    rows = [Scored(id="a b.jpg", score=0.5), Scored(id="c%d", score=0.5), Scored(id="e", score=0.25)]
    write_run(tmp_path / "r.trec", Run(rows={"0": rows}, tag="x"), raw=tmp_path / "raw.jsonl")
    assert (tmp_path / "r.trec").read_text() == (
        "0 Q0 a%20b.jpg 1 0.5 x\n0 Q0 c%25d 2 0.4999999701976776 x\n0 Q0 e 3 0.25 x\n"
    )
    raw = [json.loads(line) for line in (tmp_path / "raw.jsonl").read_text().splitlines()]
    assert [r["score"] for r in raw] == [0.5, 0.5, 0.25]
    assert raw[1] == {"query": "0", "id": "c%d", "rank": 2, "score": 0.5}


def test_compressed_files(tmp_path: Path) -> None:
    body = b"q 0 d 1\n"
    (tmp_path / "q.gz").write_bytes(gzip.compress(body))
    assert read_qrels(tmp_path / "q.gz") == {"q": {"d": 1}}
    write_qrels(tmp_path / "w.gz", {"q": {"d": 1}})
    assert gzip.decompress((tmp_path / "w.gz").read_bytes()) == body


def test_foreign_runs_are_ordered_by_score_then_rank(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("\ufeffq\tQ0  b 7 1e0 t\r\n\nq Q0 a 3 1.0 t\nq Q0 c 1 2 t\n")
    assert [r.id for r in read_run(tmp_path / "r").rows["q"]] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("q Q0 d 1 0.5 t\nq Q0 d 2 0.4 t\n", "line 2: 'd' occurs twice"),
        ("q Q0 d 1 0.5\n", "line 1 has 5 columns, not 6"),
        ("q Q0 d one 0.5 t\n", "line 1: the rank 'one' is not a number"),
        ("q Q0 d 1 high t\n", "line 1: the score 'high' is not a number"),
        ("q Q0 d 1 nan t\n", "line 1: the score 'nan' is not finite"),
        ("q Q0 %FF 1 0.5 t\n", "line 1: '%FF' is not percent-encoded text"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "r").write_text(text)
    with pytest.raises(InputError, match=told):
        read_run(tmp_path / "r")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([Scored(id="a", score=0.1), Scored(id="b", score=0.2)], "more than the one before"),
        ([Scored(id="a", score=0.1), Scored(id="a", score=0.1)], "occurs twice"),
        ([Scored(id="a", score=math.nan)], "is nan"),
        ([Scored(id="", score=0.1)], "is empty"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, rows: list[Scored], told: str) -> None:
    with pytest.raises(InputError, match=told):
        write_run(tmp_path / "r", Run(rows={"q": rows}))
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_run(tmp_path / "none")
    (tmp_path / "bad.gz").write_bytes(b"not gzip")
    with pytest.raises(InputError, match="cannot be read"):
        read_qrels(tmp_path / "bad.gz")
    (tmp_path / "q").write_text("q 0 d 1\nq 0 d 0\n")
    with pytest.raises(InputError, match="line 2: 'd' is judged twice"):
        read_qrels(tmp_path / "q")
