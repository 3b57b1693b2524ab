"""``mmrerank compare`` as a user meets it: tables, files, messages and exit codes."""

from __future__ import annotations

import csv
import gzip
import io
import random
from pathlib import Path
from typing import Any

import pytest
from command import data, run, write_lines
from PIL import Image as Pillow

from mmrerank.benchmark import Run, Scored
from mmrerank.evaluation.measure.runs import read_run, write_qrels, write_run

QUERIES = [f"q{n}" for n in range(30)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qrels, a random run and one that puts what is relevant first, and results beside that one."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "images").mkdir()
    for n in range(12):
        Pillow.new("RGB", (24, 24), (20 * n, 90, 10)).save(folder / f"images/d{n}.png")
    rng = random.Random(3)
    qrels, plain, better = {}, {}, {}
    for query in QUERIES:
        ids = [f"d{n}" for n in range(12)]
        qrels[query] = dict.fromkeys(rng.sample(ids, 3), 1)
        rng.shuffle(ids)
        plain[query] = ids
        better[query] = sorted(ids, key=lambda i: -qrels[query].get(i, 0)) if query != "q4" else ids
    better["q5"] = better["q5"][::-1]
    write_qrels(folder / "qrels.txt", qrels)
    for name, order in (("plain.trec", plain), ("better.trec", better), ("again.trec.gz", plain)):
        rows = {q: [Scored(id=i, score=float(-n)) for n, i in enumerate(ids)] for q, ids in order.items()}
        write_run(folder / name, Run(rows=rows))
    usage = {"calls": 2, "input_tokens": 300, "output_tokens": 20, "images": 12, "seconds": 0.5}
    write_lines(
        folder / "better.jsonl",
        [{"query": {"id": q, "text": f"words of {q}"}, "usage": usage} for q in QUERIES],
    )
    write_lines(
        folder / "queries.jsonl",
        [
            {"id": q, "category": "count" if n % 2 else "place", "seen": n < 20, "more": [1]}
            for n, q in enumerate(QUERIES)
        ],
    )
    return folder


def arguments(folder: Path, *names: str) -> list[Any]:
    chosen = names or ("plain.trec", "better.trec")
    return ["compare", *(folder / n for n in chosen), "--qrels", folder / "qrels.txt"]


def test_the_better_run_is_called_better(folder: Path) -> None:
    body = data(*arguments(folder, "plain.trec", "better.trec", "again.trec.gz"), "--metrics", "nDCG@10")
    assert (body["baseline"], body["runs"]) == ("plain", ["plain", "better", "again"])
    verdicts = {d["run"]: d["verdict"] for d in body["differences"]}
    assert verdicts == {"better": "better", "again": "not different"}
    assert next(d for d in body["differences"] if d["run"] == "again")["p"] == 1
    assert body["usage"] == {
        "better": {
            "calls": 60, "input_tokens": 9000, "output_tokens": 600, "images": 360, "seconds": 15.0,
        }
    }  # fmt: skip
    swapped = data(*arguments(folder), "--baseline", "better", "--metrics", "RR,nDCG@10")
    assert [(d["metric"], d["run"], d["verdict"]) for d in swapped["differences"]] == [
        ("RR", "plain", "worse"), ("nDCG@10", "plain", "worse"),
    ]  # fmt: skip
    every = data(*arguments(folder, "plain.trec", "better.trec", "again.trec.gz"), "--all-pairs")
    assert every["comparisons"] == 6


def test_tables_in_every_format(folder: Path) -> None:
    more = ["--queries", folder / "queries.jsonl"]
    out = run(*arguments(folder), *more).stdout
    assert "better ↑" in out
    assert "nDCG@10 by category" in out
    assert "RR on seen and novel queries" in out
    assert "Quality and cost" in out
    assert "| plain |" in run(*arguments(folder), *more, "--format", "markdown").stdout
    out = run(*arguments(folder), *more, "--format", "latex").stdout
    assert out.count("\\begin{table}") == out.count("\\end{table}") == 7
    rows = list(csv.DictReader(io.StringIO(run(*arguments(folder), *more, "--format", "csv").stdout)))
    assert len(rows) == 2 * 2 * (1 + 2 + 2)
    assert {r["group"] for r in rows} == {"", "count", "place", "seen", "novel"}


def test_report_and_pictures(folder: Path, tmp_path: Path) -> None:
    told = run(
        *arguments(folder), "--queries", folder / "queries.jsonl", "--images", folder / "images",
        "--html", tmp_path / "r.html", "--pictures", tmp_path / "p", "--worst", "2", "--format", "csv",
    )  # fmt: skip
    assert "wrote" in told.stderr
    assert told.stdout.startswith("grouping,")
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "words of q5" in page  # where the better run is turned round
    assert page.index("words of q5") < page.index("Lowest otherwise")
    assert page.count("data:image/jpeg") == 2 * (3 + 8 + 8)  # one loss, one more that is not perfect
    names = ["cost", "differences", "groups-1", "groups-2", "queries-1"]
    assert sorted(f.name for f in (tmp_path / "p").iterdir()) == [
        f"{n}.{s}" for n in names for s in ("png", "svg")
    ]
    with Pillow.open(tmp_path / "p/cost.png") as image:
        assert image.width > 800


def test_names_and_usage_are_taken_as_given(folder: Path, tmp_path: Path) -> None:
    usage = tmp_path / "u.json"
    usage.write_text('{"a": {"calls": 30}, "b": {"seconds": 1.5}}', "utf-8")
    odd = tmp_path / "x=y.run"
    odd.write_bytes(gzip.decompress((folder / "again.trec.gz").read_bytes()))
    body = data(
        "compare", f"a={folder / 'plain.trec'}", f"b={folder / 'better.trec'}", odd,
        "--qrels", folder / "qrels.txt", "--usage", usage,
    )  # fmt: skip
    assert body["runs"] == ["a", "b", "x=y"]
    assert body["usage"]["a"]["calls"] == 30
    assert body["usage"]["b"] == {
        "calls": 0, "input_tokens": 0, "output_tokens": 0, "images": 0, "seconds": 1.5,
    }  # fmt: skip


def test_a_run_that_lacks_queries_is_told(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "better.trec").read_text("utf-8").splitlines(keepends=True)
    part = tmp_path / "part.trec"
    part.write_text("".join(line for line in lines if not line.startswith("q1")), "utf-8")
    # a file of raw scores beside a run is no results file
    write_lines(tmp_path / "part.jsonl", [{"query": "q1", "id": "d1", "rank": 1, "score": 2.0}])
    body = data("compare", folder / "plain.trec", part, "--qrels", folder / "qrels.txt")
    one = next(v for v in body["values"] if (v["run"], v["metric"]) == ("part", "RR"))
    assert one["missing"] == 11
    assert one["value"] < one["value_scored"]
    assert body["usage"] == {}
    out = run("compare", folder / "plain.trec", part, "--qrels", folder / "qrels.txt").stdout
    assert "missing" in out
    assert "count as nothing" in out


@pytest.mark.parametrize(
    ("extra", "code", "message"),
    [
        (["plain.trec"], 2, "two runs are named 'plain'"),
        (["--baseline", "none"], 2, "--baseline must be one of plain, better, not 'none'"),
        (["--metrics", "nDCG@@"], 2, "'nDCG@@' is not a metric"),
        (["--metrics", ","], 2, "such as nDCG@10,RR"),
        (["--level", "5"], 2, "--level must lie between 0 and 1"),
        (["--images", "images"], 2, "give --html FILE.html as well"),
        (["--images", "nowhere", "--html", "r.html"], 3, "there is no folder 'nowhere'"),
        (["--output", "json", "--format", "csv"], 2, "leave --format out"),
        (["no.trec"], 3, "run 'no': there is no file 'no.trec'"),
        (["--qrels", "no.txt"], 3, "no.txt cannot be read"),
        (["--qrels", "empty.txt"], 3, "empty.txt judges no query"),
        (["--queries", "bad.jsonl"], 3, "bad.jsonl, line 2: query 'a' occurs twice"),
        (["--queries", "worse.jsonl"], 3, "worse.jsonl, line 1: seen must be true or false, not 1"),
        (["--queries", "empty.txt"], 3, "empty.txt holds no query"),
        (["--queries", "qrels.txt"], 3, "line 1 is not JSON"),
        (["--usage", "u.json"], 3, "'other' is not compared; the runs are plain, better"),
        (["--usage", "v.json"], 3, "has no 'cals'; it may have calls, input_tokens"),
        (["--usage", "w.json"], 3, "calls must be a finite number from 0, not -1"),
        (["--html", "qrels.txt/r.html"], 3, "r.html cannot be written"),
        (["--pictures", "qrels.txt"], 3, "qrels.txt cannot be written"),
    ],
)
def test_what_is_wrong_is_named(
    folder: Path, extra: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "empty.txt").write_text("\n")
    write_lines(folder / "bad.jsonl", [{"id": "a", "turns": ["x"]}, {"id": "a"}])
    write_lines(folder / "worse.jsonl", [{"id": 7, "seen": 1}])
    (folder / "u.json").write_text('{"other": {}}')
    (folder / "v.json").write_text('{"plain": {"cals": 1}}')
    (folder / "w.json").write_text('{"plain": {"calls": -1}}')
    told = run(
        "compare", "plain.trec", "better.trec", "--qrels", "qrels.txt", *extra, code=code
    ).stderr  # fmt: skip
    assert message in told
    assert "internal error" not in told


def test_one_run_is_no_comparison(folder: Path) -> None:
    told = run(*arguments(folder, "plain.trec"), code=2).stderr
    assert "at least two runs, not 1" in told
    assert "--methods LIST --runs DIR" in told


def test_the_report_shows_the_lists_that_were_scored(folder: Path, tmp_path: Path) -> None:
    from benchmark_samples import circo, dump, trec

    sample = circo(tmp_path / "data")
    one = dump(tmp_path / "a.json", {q: [int(i) for i in ids] for q, ids in sample.lists.items()})
    files = {q: [f"{int(i):012d}.jpg" for i in ids[::-1]] for q, ids in sample.lists.items()}
    two, html = trec(tmp_path / "b.trec", files), tmp_path / "r.html"
    run("compare", one, two, "--benchmark", "circo", "--data", tmp_path / "data", "--html", html)
    page = html.read_text("utf-8")
    assert not [i for ids in files.values() for i in ids if i in page]
    write_run(tmp_path / "c.trec", read_run(folder / "better.trec"), raw=tmp_path / "c.jsonl")
    run("compare", folder / "plain.trec", tmp_path / "c.jsonl", "--qrels", folder / "qrels.txt",
        "--html", html)  # fmt: skip


def test_runs_are_compared_as_a_benchmark_scores_them(tmp_path: Path) -> None:
    from benchmark_samples import circo, trec

    sample = circo(tmp_path / "data")
    best = {q: [*sample.right[q], *(i for i in ids if i not in sample.right[q])][:50]
            for q, ids in sample.lists.items()}  # fmt: skip
    one, two = trec(tmp_path / "a.trec", sample.lists), trec(tmp_path / "b.trec", best)
    told = data("compare", one, two, "--benchmark", "circo", "--data", tmp_path / "data")
    assert told["metrics"] == ["mAP@5", "mAP@10"]
    assert {d["verdict"] for d in told["differences"]} == {"better"}
    assert next(v for v in told["values"] if v["run"] == "b")["value"] == 1
    told = data("compare", one, two, "--benchmark", "circo", "--data", tmp_path / "data",
                "--metrics", "R@5")  # fmt: skip
    assert told["metrics"] == ["R@5"]
    assert "needs --data DIR" in run("compare", one, two, "--benchmark", "circo", code=2).stderr
    assert "say what is right" in run("compare", one, two, code=2).stderr
