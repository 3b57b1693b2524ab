"""Where figures come from is told without opening a model, and tells different things apart."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import mmrerank
from mmrerank.chat.around.identity import chat_identity, files_digest
from mmrerank.chat.fakes.scripted import Scripted
from mmrerank.errors import UsageError
from mmrerank.evaluation.experiment.provenance import candidates_digest, commit, prompt_digests, provenance
from mmrerank.types import Candidate, Image, Query, Ranking

QUERY = Query(id="1", text="a red boat", exclude=("dog",))
RANKING = Ranking((Candidate(id="a", text="x", score=0.5), Candidate(id="b", text="y", score=0.1)))


def test_everything_is_told_as_plain_data() -> None:
    body = provenance(
        config={"benchmark": "b"}, models={"chat": chat_identity("bundled")}, seed=4, first_stage="f"
    )
    assert json.loads(json.dumps(body)) == body
    assert body["mmrerank"] == mmrerank.__version__
    assert body["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "transformers", "open_clip_torch", "numpy"} <= body["packages"].keys()
    assert body["config"] == {"benchmark": "b"}
    assert (body["seed"], body["first_stage"]) == (4, "f")
    assert body["models"]["chat"]["spec"] == "bundled"
    assert len(body["models"]["chat"]["digest"]) == 64
    assert {"deconstruct", "evaluate", "order"} <= body["prompts"].keys() == prompt_digests().keys()
    assert body["date"].endswith("+00:00")


def test_no_heavy_package_is_imported() -> None:
    code = (
        "import sys; from mmrerank.evaluation.experiment.provenance import *\n"
        "from mmrerank.chat.around.identity import chat_identity\n"
        "provenance(config={}, models={'chat': chat_identity('bundled')})\n"
        "assert not {'torch', 'transformers', 'open_clip', 'faiss'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_model_is_known_by_its_files(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "config.json").write_text("{}")
    spec = f"transformers:{model}"
    first = chat_identity(spec)["digest"]
    assert first == files_digest(model)
    (model / "README.md").write_text("a note is no part of the model")
    assert chat_identity(spec)["digest"] == first
    (model / "model.safetensors").write_bytes(b"other weights")
    second = chat_identity(spec)["digest"]
    (model / "model.safetensors").rename(model / "model-2.safetensors")
    assert len({first, second, chat_identity(spec)["digest"]}) == 3
    script = tmp_path / "script.jsonl"
    script.write_text('{"reply": "a"}\n')
    one = chat_identity(f"scripted:{script}")["digest"]
    script.write_text('{"reply": "b"}\n')
    assert one != chat_identity(f"scripted:{script}")["digest"]


def test_where_no_weights_can_be_told_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for spec in ("openai:model@http://127.0.0.1:1/v1", "oracle", "transformers:no/such-model"):
        assert chat_identity(spec) == {"spec": spec, "digest": None}
    own = Scripted(["a"])
    own.spec = "my own"
    assert chat_identity(own) == {"spec": "my own", "digest": None}
    with pytest.raises(UsageError, match="nonsense"):
        chat_identity("nonsense:x")

    # a name of the hub is known by the commit in the cache
    cache = tmp_path / "models--some--model"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs/main").write_text("c0ffee")
    (cache / "snapshots/c0ffee").mkdir(parents=True)
    (cache / "snapshots/c0ffee/config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert chat_identity("transformers:some/model")["digest"] == "c0ffee"


def test_the_commit_is_our_own_or_none(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        return subprocess.run(
            ["git", "-C", tmp_path, *who, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    none = {"commit": None, "changed": None}
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    git("init", "-q")
    # an installation inside somebody's repository is not that repository's
    assert commit(package) == none
    git("add", ".")
    git("commit", "-qm", "first")
    assert commit(package) == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (package / "__init__.py").write_text("x = 1\n")
    assert commit(package)["changed"] is True
    assert commit(tmp_path / "absent") == none


def test_candidate_lists_are_told_apart() -> None:
    def digest(query: Query = QUERY, ranking: Ranking = RANKING) -> str:
        return candidates_digest([(query, ranking)])

    other = [
        digest(),
        digest(replace(QUERY, text="a red house")),
        digest(replace(QUERY, id="2")),
        digest(replace(QUERY, exclude=())),
        digest(replace(QUERY, turns=("earlier",))),
        digest(replace(QUERY, images=(Image(data=b"1"),))),
        digest(replace(QUERY, images=(Image(data=b"2"),))),
        digest(ranking=Ranking(RANKING.candidates[::-1])),
        digest(ranking=Ranking(RANKING.candidates[:1])),
        candidates_digest([]),
        candidates_digest([(QUERY, RANKING), (QUERY, RANKING)]),
    ]
    assert len(set(other)) == len(other)
    # last bits of a score differ between machines
    moved = Ranking(tuple(replace(c, score=0.1) for c in RANKING))
    assert digest(ranking=moved) == digest()
