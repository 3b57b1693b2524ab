"""The command line: index, info, verify, search and demo export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import NAMES, SPEC, data, run, tiny_clip, write_lines

from mmrerank import Filter, ImageSearch


def test_imported_vectors_are_searched_without_a_model(imported: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.trec"
    told = data("search", "--query-vectors", source / "v.npy", "--index", imported, "--k", 3, "--run", out)
    assert (told["queries"], told["k"], told["run"]) == (5, 3, str(out))
    lines = [line.split() for line in out.read_text().splitlines()]
    assert len(lines) == 15
    assert all(len(columns) == 6 for columns in lines)
    assert [c[2] for c in lines if c[3] == "1"] == [n.replace(" ", "%20") for n in NAMES]
    assert [c[0] for c in lines[::3]] == ["0", "1", "2", "3", "4"]


def test_importing_again_changes_nothing(imported: Path, source: Path) -> None:
    told = data(
        "index", source / "images", "--vectors", source / "v.npy", "--ids", source / "ids.jsonl",
        "--embedder", SPEC, "--index", imported,
    )  # fmt: skip
    assert (told["added"], told["unchanged"]) == (0, 5)


def test_info_and_verify(imported: Path, source: Path, tmp_path: Path) -> None:
    told = data("info", imported)
    assert (told["images"], told["embedder"], told["dim"]) == (5, SPEC, 8)
    assert SPEC in run("info", imported).stdout
    assert data("verify", imported, "--deep") == {
        "index": str(imported),
        "ok": True,
        "problems": [],
        "warnings": [],
    }
    hurt = tmp_path / "hurt"
    shutil.copytree(imported, hurt)
    shard = next((hurt / "vectors").glob("*.npy"))
    body = bytearray(shard.read_bytes())
    body[-1] ^= 255
    shard.write_bytes(body)
    told = data("verify", hurt, code=4)
    assert told["ok"] is False
    assert told["problems"]
    assert shard.name in run("verify", hurt, code=4).stdout


def search(built: Path, *arguments: Any, code: int = 0) -> Any:
    return data("search", *arguments, "--index", built, code=code)


@pytest.mark.usefixtures("named")
def test_search_without_reranking(built: Path) -> None:
    told = search(built, "red boat", "--k", 3)
    assert set(told) >= {"query", "no_match", "components", "hits", "usage", "repairs", "warnings"}
    assert told["query"] == {"text": "red boat"}
    assert [(h["rank"], h["first_rank"], h["grade"], h["verdicts"]) for h in told["hits"]] == [
        (1, 1, None, []), (2, 2, None, []), (3, 3, None, []),
    ]  # fmt: skip
    assert told["usage"]["calls"] == 0
    scores = [h["score"] for h in told["hits"]]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.usefixtures("named")
def test_search_reranked_by_cotrr(built: Path) -> None:
    told = search(built, "red boat", "--k", 5, "--rerank", "cotrr", "--chat", "oracle", "--exclude", "night")
    assert told["hits"][0]["id"] == "red boat.jpg"
    assert told["hits"][0]["grade"] == 3
    assert {c["id"] for c in told["components"]} == {v["component"] for v in told["hits"][0]["verdicts"]}
    assert told["components"][1] == {"id": "c2", "kind": "exclusion", "text": "no night", "excluded": True}
    assert told["no_match"] is False
    assert search(built, "purple cow", "--rerank", "cotrr", "--chat", "oracle")["no_match"] is True
    text = run("search", "purple cow", "--rerank", "cotrr", "--chat", "oracle", "--index", built).stdout
    assert "No image meets every part of the query" in text


@pytest.mark.usefixtures("named")
def test_hits_past_the_candidates_keep_their_order(built: Path) -> None:
    told = search(built, "red boat", "--candidates", 2, "--rerank", "cotrr", "--chat", "oracle")
    assert [h["first_rank"] for h in told["hits"]][2:] == [3, 4, 5]
    assert [h["grade"] for h in told["hits"]][2:] == [None, None, None]


@pytest.mark.usefixtures("named")
def test_images_and_turns_make_the_query(built: Path, source: Path) -> None:
    image = source / "images" / NAMES[0]
    told = search(built, "--image", image)
    assert told["query"]["images"] == [str(image)]
    assert told["hits"][0]["id"] == NAMES[0]
    told = search(built, "at night", "--turn", "a boat", "--turn", "a red one", "--k", 1)
    assert told["query"]["turns"] == ["a boat", "a red one"]


@pytest.mark.usefixtures("named")
def test_a_failed_search_judgement_ends_with_7(built: Path, tmp_path: Path) -> None:
    script = write_lines(tmp_path / "s.jsonl", [{"error": "down"}])
    told = search(built, "red boat", "--rerank", "cotrr", "--chat", f"scripted:{script}", code=7)
    assert [h["rank"] for h in told["hits"]] == [h["first_rank"] for h in told["hits"]]


@pytest.mark.usefixtures("named")
def test_paths_for_the_next_command(built: Path, source: Path) -> None:
    out = run("search", "boat", "--index", built, "--filepath-only", "--k", 5).stdout
    assert sorted(out.splitlines()) == sorted(str(source / "images" / n) for n in NAMES)


@pytest.mark.usefixtures("named")
def test_trace_run_and_recipe(built: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"index: {built}\nrerank: cotrr\nchat: oracle\nk: 2\noptions: {{mode: single}}\n")
    trace, trec = tmp_path / "trace.json", tmp_path / "out.trec"
    told = data("search", "red boat", "--config", recipe, "--trace", trace, "--run", trec)
    assert len(told["hits"]) == 2
    assert [s["kind"] for s in json.loads(trace.read_text())["steps"]] == ["single"]
    ranked = [line.split()[2].replace("%20", " ") for line in trec.read_text().splitlines()]
    assert ranked == [h["id"] for h in told["hits"]]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "give TEXT, --image or --turn"),
        (["x", "--k", "0"], 2, "--k must be at least 1"),
        (["x", "--candidates", "0"], 2, "candidates must be at least 1"),
        (["x", "--rerank", "cotr"], 2, "Did you mean 'cotrr'?"),
        (["x", "--image", "/no.jpg"], 3, "--image: there is no image file '/no.jpg'"),
        (["x", "--config", "/no.yaml"], 3, "cannot read the recipe"),
        (["--query-vectors", "/no.npy"], 2, "needs --run"),
        (["--query-vectors", "/no.npy", "--run", "x"], 3, "/no.npy"),
        (["x", "--query-vectors", "/no.npy", "--run", "x"], 2, "takes no TEXT"),
        (["x", "--embedder", "telepathy:x"], 2, "telepathy"),
        (["x", "-o", "k=3"], 2, "unknown option 'k'"),
        (["--query-vectors", "/no.npy", "--run", "x", "--dry-run"], 2, "takes no --dry-run"),
        (["--query-vectors", "/no.npy", "--run", "x", "--budget", "calls=1"], 2, "takes no --budget"),
        (["--query-vectors", "/no.npy", "--run", "x", "-o", "k=3"], 2, "takes no -o"),
        (["x", "--dry-run", "--price", "1,2"], 2, "mmrerank recommend --price"),
    ],
)  # fmt: skip
def test_wrong_searches(built: Path, arguments: list[str], code: int, told: str) -> None:
    result = run("search", *arguments, "--index", built, code=code)
    assert told in result.stderr
    assert result.stdout == ""


@pytest.mark.usefixtures("named")
def test_a_file_that_cannot_be_written_does_not_cost_the_answer(built: Path, source: Path) -> None:
    # a file stands where its folder would have to be
    for flag in ("--trace", "--report", "--run"):
        result = run("search", "boat", "--index", built, flag, source / "ids.jsonl" / "x", code=3)
        assert "red boat.jpg" in result.stdout
        assert "cannot be written" in result.stderr


@pytest.mark.usefixtures("named")
def test_a_dry_run_is_told_on_stdout(built: Path) -> None:
    asked = ("red boat", "--rerank", "pointwise", "--dry-run")
    assert search(built, *asked)["forecast"]["calls"] == 5
    shown = run("search", *asked, "--budget", "money=1", "--price", "1,2", "--index", built).stdout
    assert shown.startswith("pointwise: 1 queries left: 5 calls")


def test_demo_exports_a_world(tmp_path: Path) -> None:
    told = data("demo", "export", tmp_path / "w", "--seed", 7, "--scenes", 60, "--queries", 0)
    assert told == {"directory": str(tmp_path / "w"), "seed": 7, "scenes": 60, "queries": 0}
    assert len(list((tmp_path / "w").rglob("*.png")) or list((tmp_path / "w").rglob("*.jpg"))) == 60
    assert "not empty" in run("demo", "export", tmp_path / "w", code=3).stderr


def test_indexes_and_sources_that_are_not_there(built: Path, source: Path, tmp_path: Path) -> None:
    assert "there is no index" in run("search", "x", "--index", tmp_path / "no", code=4).stderr
    assert "there is no index" in run("info", tmp_path / "no", code=4).stderr
    random = ("--embedder", "open_clip:no-such:random")
    assert "no-such" in run("index", source / "images", *random, "--index", tmp_path / "i", code=5).stderr
    assert "there is no folder" in run("index", tmp_path / "no", "--index", tmp_path / "i", code=3).stderr
    (tmp_path / "empty").mkdir()
    spec = f"open_clip:local-dir:{tiny_clip(tmp_path / 'empty')}"
    (tmp_path / "none").mkdir()
    run("index", tmp_path / "none", "--embedder", spec, "--index", tmp_path / "i", code=3)
    assert not (tmp_path / "i").exists()
    assert "--vectors and --ids" in run("index", source, "--vectors", "v", "--index", "i", code=2).stderr


def test_a_rebuild_of_what_says_nothing_any_more_needs_the_embedder(
    built: Path, source: Path, tmp_path: Path
) -> None:
    spec = json.loads((built / "manifest.json").read_text())["embedder"]
    index = shutil.copytree(built, tmp_path / "i")
    (index / "manifest.json").write_text("{")
    again = ["index", source / "images", "--index", index]
    assert "with --rebuild" in run(*again, code=4).stderr
    assert "name one with --embedder" in run(*again, "--rebuild", code=2).stderr
    assert data(*again, "--rebuild", "--embedder", spec)["added"] == 5


@pytest.mark.usefixtures("named")
def test_indexing_again_and_from_a_list(built: Path, source: Path) -> None:
    told = data("index", source / "images", "--index", built)
    assert (told["added"], told["unchanged"], len(told["failed"])) == (0, 5, 1)
    result = run("index", source / "images", "--index", built)
    assert "5 unchanged" in result.stdout
    assert "failed: broken.jpg" in result.stderr


# Filters

RED = sorted(n for n in NAMES if "red" in n)
WHERE = 'id ~ "RED" and width = 32 and taken is null'


def found(told: Any) -> list[str]:
    return sorted(h["id"] for h in told["hits"])


@pytest.mark.usefixtures("named")
def test_only_what_satisfies_is_searched(built: Path, tmp_path: Path) -> None:
    assert 0 < len(RED) < len(NAMES)
    told = data("search", "boat", "--index", built, "--where", WHERE)
    assert found(told) == RED
    assert told["warnings"] == []
    told = data("search", "boat", "--index", built, "--where", WHERE, "--rerank", "cotrr", "--chat", "oracle")
    assert found(told) == RED
    assert all(h["grade"] is not None for h in told["hits"])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"index: {built}\nwhere: {json.dumps(WHERE)}\n")
    assert found(data("search", "boat", "--config", recipe)) == RED
    assert found(data("search", "boat", "--config", recipe, "--where", f'id = "{NAMES[0]}"')) == [NAMES[0]]


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("method", ["none", "feedback"])
def test_nothing_may_be_left(built: Path, method: str) -> None:
    call = (
        "search",
        "boat",
        "--index",
        built,
        "--where",
        "width > 1000",
        "--rerank",
        method,
        "--chat",
        "oracle",
    )
    told = data(*call)
    assert told["hits"] == []
    assert told["warnings"] == ["no image of the index satisfies width > 1000"]
    assert "Nothing was found." in run(*call).stdout


def test_a_fault_is_shown_before_anything_is_loaded(built: Path, imported: Path, tmp_path: Path) -> None:
    told = run("search", "boat", "--index", built, "--where", "widht > 3 and camera = 1", code=2).stderr
    assert told.splitlines()[:3] == [
        "error: the filter is wrong at character 1: there is no column widht",
        "  widht > 3 and camera = 1",
        "  ^",
    ]
    assert "Did you mean width?" in told
    assert "camera (text)" in told
    told = run("search", "boat", "--in", "/nowhere", "--where", "camera ~ Pixel", code=2).stderr
    assert told.splitlines()[2] == f"  {' ' * 9}^"
    assert 'Text is written in quotes: "Pixel".' in told


def test_vectors_of_queries_are_searched_among_the_same(imported: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.trec"
    call = ("search", "--query-vectors", source / "v.npy", "--index", imported, "--k", 9, "--run", out)
    assert data(*call, "--where", 'id ~ "red"')["queries"] == 5
    seen = {line.split()[2].replace("%20", " ") for line in out.read_text().splitlines()}
    assert sorted(seen) == RED


def test_info_says_what_can_be_asked(built: Path) -> None:
    columns = {c["name"]: c for c in data("info", built)["columns"]}
    assert columns["width"] == {"name": "width", "type": "number", "images": 5}
    shown = run("info", built).stdout
    assert "What --where can ask about:" in shown
    assert "camera" in shown


@pytest.mark.usefixtures("named")
def test_python_takes_the_same_filter(built: Path) -> None:
    search = ImageSearch.open(
        built, chat="oracle", embedder=json.loads((built / "manifest.json").read_text())["embedder"]
    )
    where = Filter.parse('id ~ "red"')
    for method in ("none", "cotrr", "feedback", "plan"):
        result = search.search("boat", rerank=method, where=where)
        assert sorted(h.id for h in result) == RED, method
    assert sorted(h.id for h in search.search("boat", where=~where)) == sorted({*NAMES} - {*RED})
    assert [h.id for h in search.search("boat", where=where, keep=lambda c: c.id == RED[0])] == [RED[0]]
    assert next(h.id for h in search.search("boat", where=where, collapse="near")) in RED
    last = list(search.stream("boat", where='id ~ "red"'))[-1]
    assert sorted(h["id"] for h in last.to_dict()["result"]["hits"]) == RED
