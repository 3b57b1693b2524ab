"""The command line as a user meets it: results, shapes, messages and exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner, Result

from mmrerank.cli.main import cli

NAMES = [
    "red boat.jpg",
    "red house.jpg",
    "blue boat.jpg",
    "sub/green tree.jpg",
    "sub/red boat night.jpg",
]
SPEC = "open_clip:ViT-B-32:openai"


def run(*arguments: Any, code: int = 0, input: str | None = None) -> Result:
    result = CliRunner().invoke(cli, [str(a) for a in arguments], input=input, prog_name="mmrerank")
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def data(*arguments: Any, code: int = 0, input: str | None = None) -> Any:
    """The one JSON document on stdout."""
    result = run(*arguments, "--output", "json", code=code, input=input)
    assert result.stdout.count("\n") == 1
    result.stdout.encode("ascii")
    return json.loads(result.stdout)


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five small images, their vectors and ids."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "images/sub").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Pillow.new("RGB", (32, 32), (40 * number, 99, 10)).save(folder / "images" / name)
    vectors = np.eye(5, 8, dtype=np.float32) + 0.05
    np.save(folder / "v.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    write_lines(folder / "ids.jsonl", [{"image": n} for n in NAMES])
    return folder


@pytest.fixture(scope="module")
def imported(source: Path) -> Path:
    """An index of imported vectors."""
    target = source / "index"
    told = data(
        "index", source / "images", "--vectors", source / "v.npy", "--ids", source / "ids.jsonl",
        "--embedder", SPEC, "--index", target,
    )  # fmt: skip
    assert told == {
        "index": str(target), "added": 5, "changed": 0, "removed": 0, "unchanged": 0, "failed": [],
    }  # fmt: skip
    return target


# --- rerank ------------------------------------------------------------------------------------------


@pytest.fixture
def requests(source: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes requests over the images, whose folder paths are relative to."""

    def write(*rows: Any) -> Path:
        return write_lines(source / "images" / f"{tmp_path.name}.jsonl", list(rows))

    return write


def candidates(*names: str) -> list[dict[str, Any]]:
    return [{"id": n, "image": n, "score": 1 - i / 10} for i, n in enumerate(names)]


def test_rerank_gives_one_result_line_each(requests: Callable[..., Path]) -> None:
    path = requests(
        {"query": {"text": "red boat", "id": "q1", "exclude": ["night"]}, "candidates": candidates(*NAMES)},
        {"query": "green tree", "candidates": candidates(*NAMES[:4])},
    )  # fmt: skip
    out = run(
        "rerank", "--input", path, "--rerank", "cotrr", "--chat", "oracle", "--output", "json"
    ).stdout
    one, two = map(json.loads, out.splitlines())
    assert one["query"] == {"text": "red boat", "id": "q1", "exclude": ["night"]}
    assert one["hits"][0]["id"] == "red boat.jpg"
    assert one["no_match"] is False
    assert [h["rank"] for h in one["hits"]] == [1, 2, 3, 4, 5]
    assert set(one) >= {"query", "no_match", "components", "hits", "usage", "repairs", "warnings"}
    assert set(one["usage"]) == {"calls", "input_tokens", "output_tokens", "images", "seconds"}
    assert one["usage"]["images"] >= 5
    first = two["hits"][0]
    assert (first["id"], first["rank"], first["first_rank"], first["grade"]) == (
        "sub/green tree.jpg",
        1,
        4,
        3,
    )
    assert first["score"] == pytest.approx(0.7)
    assert [(c["id"], c["kind"]) for c in two["components"]] == [("c1", "subject")]
    assert first["verdicts"] == [{"component": "c1", "verdict": "met", "note": "as asked"}]


def test_rerank_as_text(requests: Callable[..., Path]) -> None:
    path = requests({"query": "green tree", "candidates": candidates(*NAMES[:4])})
    out = run("rerank", "--input", path, "--chat", "oracle").stdout
    assert "4 ▲" in out
    assert "met: green tree" in out


def test_rerank_reads_stdin(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source / "images")
    line = json.dumps({"query": "green tree", "candidates": candidates(*NAMES)})
    told = data("rerank", "--input", "-", "--chat", "oracle", input=line)
    assert told["hits"][0]["id"] == "sub/green tree.jpg"


def test_failed_judgements_keep_the_order_and_end_with_7(
    requests: Callable[..., Path], tmp_path: Path
) -> None:
    script = write_lines(tmp_path / "script.jsonl", [{"error": "the server is down"}])
    path = requests({"query": "green tree", "candidates": candidates(*NAMES)})
    told = data(
        "rerank", "--input", path, "--rerank", "cotrr", "--chat", f"scripted:{script}", code=7
    )
    assert [h["id"] for h in told["hits"]] == NAMES
    assert told["repairs"]["failed"] > 0
    assert "the server is down" in told["warnings"][0]


GOOD = {"query": "a", "candidates": [{"id": "x", "text": "y"}]}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{nonsense", "line 2 is not JSON"),
        ([], "line 2: a request must be a JSON object, not a list"),
        ({"query": "a"}, "line 2: a request needs 'candidates'"),
        ({"query": "a", "candidates": {}}, "'candidates' must be a list, not an object"),
        ({**GOOD, "k": 3}, "has no 'k'"),
        ({**GOOD, "query": {"txt": "a"}}, "line 2, query: a query has no 'txt'"),
        ({**GOOD, "query": {"text": " "}}, "line 2, query: a query needs a text"),
        ({**GOOD, "query": {"text": "a", "images": ["no.jpg"]}}, "there is no image file"),
        ({"query": "a", "candidates": [{"text": "y"}]}, "line 2, candidate 1 needs an id"),
        ({"query": "a", "candidates": [{"id": "x"}]}, "neither an image nor a text"),
        ({"query": "a", "candidates": [{"id": "x", "image": "no.jpg"}]}, "candidate 1: there is no image"),
        ({"query": "a", "candidates": [{"id": "x", "text": "y", "score": "1"}]}, "score must be a number"),
        ({"query": "a", "candidates": [{"id": "x", "text": "y", "score": float("nan")}]}, "must be finite"),
        ({"query": "a", "candidates": [{"id": "x", "text": "y"}] * 2}, "'x' occurs more than once"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_named_before_any_call(tmp_path: Path, row: Any, told: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{row if isinstance(row, str) else json.dumps(row)}\n")
    # the backend does not exist: it must not even be opened
    result = run(
        "rerank", "--input", path, "--chat", "scripted:/nowhere", "--output", "json", code=3
    )
    assert told in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--rerank", "cotr"], 2, "Did you mean 'cotrr'?"),
        (["--chat", "telepathy"], 2, "there is no chat 'telepathy'"),
        (["--chat", "oracle", "-o", "mode=fast"], 2, "mode must be one of staged, single"),
        (["--chat", "oracle", "-o", "mode"], 2, "-o takes NAME=VALUE"),
        (["--chat", "openai:m@http://127.0.0.1:9/v1", "--chat-option", "timeout=soon"], 2, "a number"),
        (["--chat", "transformers:/no/such/folder"], 5, "/no/such/folder"),
        (["--chat", "scripted:/nowhere.jsonl"], 3, "/nowhere.jsonl"),
        (["--output", "xml"], 2, "xml"),
    ],
)  # fmt: skip
def test_each_class_of_failure_has_its_code(
    tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    path = write_lines(tmp_path / "r.jsonl", [GOOD])
    result = run("rerank", "--input", path, *arguments, code=code)
    assert told in result.stderr
    assert result.stdout == ""


# --- list, doctor ------------------------------------------------------------------------------------


def test_list_names_what_there_is() -> None:
    told = data("list")
    assert list(told) == ["methods", "chats", "embedders", "models", "stores", "corpora"]
    cotrr = next(m for m in told["methods"] if m["name"] == "cotrr")
    assert {
        "name": "mode",
        "type": "choice",
        "default": "staged",
        "choices": ["staged", "single"],
    } in cotrr["options"]
    assert {"openai", "oracle", "scripted", "transformers"} <= {c["name"] for c in told["chats"]}
    assert {"bundled"} <= {m["name"] for m in told["models"]}
    assert "folder" in run("list", "corpora").stdout
    assert "cotrr" not in run("list", "chats").stdout


def test_doctor_never_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hush")
    result = CliRunner().invoke(cli, ["doctor", "--output", "json"])
    told = json.loads(result.stdout)
    assert "sk-hush" not in result.output
    checks = {c["name"]: c for c in told["checks"]}
    assert checks["OPENAI_API_KEY"]["detail"] == "set"
    assert checks["torch"]["status"] == "ok"
    assert all(c["fix"] for c in told["checks"] if c["status"] in ("missing", "broken"))
    needed = [c for c in told["checks"] if c["needed"] and c["status"] != "ok"]
    assert (result.exit_code, told["ok"]) == ((5, False) if needed else (0, True))
    text = run("doctor", code=result.exit_code).stdout
    assert "OK" in text


# --- index, info, verify -----------------------------------------------------------------------------


def test_imported_vectors_are_searched_without_a_model(
    imported: Path, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.trec"
    told = data(
        "search", "--query-vectors", source / "v.npy", "--index", imported, "--k", 3, "--run", out
    )
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


def tiny_clip(folder: Path) -> Path:
    """An open_clip folder whose model is so small that making and loading it takes no time."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 32,
            "head_width": 16,
            "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 32,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 1,
        },
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(**model_cfg)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg}))
    return folder


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the images by a tiny open_clip folder; one file is broken."""
    folder = tiny_clip(tmp_path_factory.mktemp("clip"))
    images = source / "images"
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    told = data(
        "index", images, "--embedder", f"open_clip:local-dir:{folder}", "--index", source / "built"
    )
    assert told["added"] == 5
    assert [f["source"] for f in told["failed"]] == ["broken.jpg"]
    return source / "built"


def search(built: Path, *arguments: Any, code: int = 0) -> Any:
    return data("search", *arguments, "--index", built, code=code)


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


def test_search_reranked_by_cotrr(built: Path) -> None:
    told = search(
        built, "red boat", "--k", 5, "--rerank", "cotrr", "--chat", "oracle", "--exclude", "night"
    )
    assert told["hits"][0]["id"] == "red boat.jpg"
    assert told["hits"][0]["grade"] == 3
    assert {c["id"] for c in told["components"]} == {
        v["component"] for v in told["hits"][0]["verdicts"]
    }
    assert told["components"][1] == {
        "id": "c2",
        "kind": "exclusion",
        "text": "night",
        "excluded": True,
    }
    assert told["no_match"] is False
    assert search(built, "purple cow", "--rerank", "cotrr", "--chat", "oracle")["no_match"] is True
    text = run(
        "search", "purple cow", "--rerank", "cotrr", "--chat", "oracle", "--index", built
    ).stdout
    assert "No image meets every part of the query" in text


def test_hits_past_the_candidates_keep_their_order(built: Path) -> None:
    told = search(built, "red boat", "--candidates", 2, "--rerank", "cotrr", "--chat", "oracle")
    assert [h["first_rank"] for h in told["hits"]][2:] == [3, 4, 5]
    assert [h["grade"] for h in told["hits"]][2:] == [None, None, None]


def test_images_and_turns_make_the_query(built: Path, source: Path) -> None:
    image = source / "images" / NAMES[0]
    told = search(built, "--image", image)
    assert told["query"]["images"] == [str(image)]
    assert told["hits"][0]["id"] == NAMES[0]
    told = search(built, "at night", "--turn", "a boat", "--turn", "a red one", "--k", 1)
    assert told["query"]["turns"] == ["a boat", "a red one"]


def test_a_failed_search_judgement_ends_with_7(built: Path, tmp_path: Path) -> None:
    script = write_lines(tmp_path / "s.jsonl", [{"error": "down"}])
    told = search(built, "red boat", "--rerank", "cotrr", "--chat", f"scripted:{script}", code=7)
    assert [h["rank"] for h in told["hits"]] == [h["first_rank"] for h in told["hits"]]


def test_paths_for_the_next_command(built: Path, source: Path) -> None:
    out = run("search", "boat", "--index", built, "--filepath-only", "--k", 5).stdout
    assert sorted(out.splitlines()) == sorted(str(source / "images" / n) for n in NAMES)


def test_trace_run_and_recipe(built: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"index: {built}\nrerank: cotrr\nchat: oracle\nk: 2\noptions: {{mode: single}}\n"
    )
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
    ],
)
def test_wrong_searches(built: Path, arguments: list[str], code: int, told: str) -> None:
    result = run("search", *arguments, "--index", built, code=code)
    assert told in result.stderr
    assert result.stdout == ""


def test_a_file_that_cannot_be_written_does_not_cost_the_answer(built: Path, source: Path) -> None:
    # a file stands where its folder would have to be
    for flag in ("--trace", "--report", "--run"):
        result = run("search", "boat", "--index", built, flag, source / "ids.jsonl" / "x", code=3)
        assert "red boat.jpg" in result.stdout
        assert "cannot be written" in result.stderr


def test_demo_exports_a_world(tmp_path: Path) -> None:
    told = data("demo", "export", tmp_path / "w", "--seed", 7, "--scenes", 60, "--queries", 0)
    assert told == {"directory": str(tmp_path / "w"), "seed": 7, "scenes": 60, "queries": 0}
    assert len(list((tmp_path / "w").rglob("*.png")) or list((tmp_path / "w").rglob("*.jpg"))) == 60
    assert "not empty" in run("demo", "export", tmp_path / "w", code=3).stderr


def test_indexes_and_sources_that_are_not_there(built: Path, source: Path, tmp_path: Path) -> None:
    assert "there is no index" in run("search", "x", "--index", tmp_path / "no", code=4).stderr
    assert "there is no index" in run("info", tmp_path / "no", code=4).stderr
    random = ("--embedder", "open_clip:no-such:random")
    assert (
        "no-such"
        in run("index", source / "images", *random, "--index", tmp_path / "i", code=5).stderr
    )
    assert (
        "there is no folder"
        in run("index", tmp_path / "no", "--index", tmp_path / "i", code=3).stderr
    )
    (tmp_path / "empty").mkdir()
    spec = f"open_clip:local-dir:{tiny_clip(tmp_path / 'empty')}"
    (tmp_path / "none").mkdir()
    run("index", tmp_path / "none", "--embedder", spec, "--index", tmp_path / "i", code=3)
    assert not (tmp_path / "i").exists()
    assert (
        "--vectors and --ids"
        in run("index", source, "--vectors", "v", "--index", "i", code=2).stderr
    )


def test_indexing_again_and_from_a_list(built: Path, source: Path) -> None:
    # the embedder is what the index was made with
    told = data("index", source / "images", "--index", built)
    assert (told["added"], told["unchanged"], len(told["failed"])) == (0, 5, 1)
    result = run("index", source / "images", "--index", built)
    assert "5 unchanged" in result.stdout
    assert "failed: broken.jpg" in result.stderr


# --- the process -------------------------------------------------------------------------------------


def process(*arguments: Any, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "mmrerank", *map(str, arguments)], capture_output=True, timeout=120,
        env={**os.environ, **environment}, check=False,
    )  # fmt: skip


def test_a_real_search_keeps_its_streams_apart(built: Path) -> None:
    done = process("search", "red boat", "--index", built, "--output", "json")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["hits"]) == 5
    assert done.stderr == b""


def test_errors_are_one_message_unless_asked(tmp_path: Path) -> None:
    done = process("info", tmp_path / "no")
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr.startswith(b"error: there is no index")
    assert b"Traceback" not in done.stderr
    assert b"Traceback" in process("--debug", "info", tmp_path / "no").stderr
    assert b"Traceback" in process("info", tmp_path / "no", MMRERANK_DEBUG="1").stderr


def test_a_closed_pipe_is_no_fault() -> None:
    shell = f"set -o pipefail; {sys.executable} -m mmrerank list --output json | head -c 10"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_narrow_terminal_gets_escapes() -> None:
    done = process("list", "nonsense", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
