"""Judgements that failed, beside the figures: the reason, how they are asked again, and what `compare` says.

From public reports: instructlab/eval#39 and UKGovernmentBEIS/inspect_ai#3707 (a run of failures scored as if
the model had answered).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmark_samples import folder, trec
from command import run
from index_world import paint

import mmrerank
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.errors import ChatError
from mmrerank.evaluation.experiment.journal import opened
from mmrerank.evaluation.experiment.reranking import PORTION, rerank_all
from mmrerank.messages import Ask, Reply
from mmrerank.rerank.stopping import PLAIN, Stopped
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Query, Ranking, Usage


class Server(Oracle):
    """An oracle behind a server: ``answer`` gives the reply to a query's id, None the oracle's own."""

    def __init__(self, answer: Callable[[str, int], Reply | None]) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[str] = []

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        replies = []
        for ask, good in zip(asks, super().reply(asks), strict=True):
            id_ = ask.query.id if ask.query else ""
            self.asked.append(id_)
            replies.append(self.answer(id_, len(self.asked)) or good)
        return replies


def failed(kind: Any, why: str = "no answer") -> Reply:
    return Reply(error=ChatError(why, kind=kind), finish="error", usage=Usage(calls=1))


APOLOGY = Reply(text="We are very busy, please come back later.", usage=Usage(calls=1))


def evaluation(tmp_path: Path, chat: Any, runs: str = "runs", **more: Any) -> tuple[Any, dict[str, Any]]:
    sample = folder(tmp_path / "data")
    paint(sample.data, [f"pictures/{n}.jpg" for n in range(40)])
    path = trec(tmp_path / "r.trec", sample.lists)
    found = mmrerank.evaluate(
        "folder", data=sample.data, run=path, images=sample.data, chat=chat, candidates=4,
        methods=["listwise"], runs=tmp_path / runs, **more,
    )  # fmt: skip
    return found, found.to_dict()


def test_an_evaluation_says_why_judgements_failed_and_the_remedy(tmp_path: Path) -> None:
    found, body = evaluation(tmp_path, Server(lambda id_, _: APOLOGY if id_ in ("q 1", "q 4") else None))
    line = (
        "listwise: judgements failed in 2 of 6 queries; there the first-stage order stands (--retry-failed "
        "asks again); the reply could not be read; it begins 'We are very busy, please come back later.' "
        "(2 questions)"
    )
    assert line in body["warnings"]
    assert " ".join(line.split()) in " ".join(str(found).split())
    row = body["methods"]["listwise"]
    assert (row["failed"], row["queries_degraded"]) == (2, 2)
    reason = {
        "kind": "reply", "questions": 2, "queries": 2, "remedy": "--retry-failed asks again",
        "example": "the reply could not be read; it begins 'We are very busy, please come back later.'",
    }  # fmt: skip
    assert row["failures"] == [reason]
    assert body["methods"]["none"]["failures"] == []
    wanted = {"listwise": {"failed": 2, "queries_degraded": 2, "failures": [reason]}}
    assert body["provenance"]["failures"] == wanted
    assert json.loads((tmp_path / "runs/listwise.json").read_text())["failures"] == wanted
    assert "failures" not in json.loads((tmp_path / "runs/none.json").read_text())
    assert json.loads((tmp_path / "runs/listwise.metrics.json").read_text())["warnings"] == [line]
    assert json.loads((tmp_path / "runs/none.metrics.json").read_text())["warnings"] == []

    mended, whole = evaluation(tmp_path, Server(lambda *_: None), retry_failed=True)
    assert whole["methods"]["listwise"]["failures"] == []
    assert not any("failed" in w for w in whole["warnings"])
    assert not mended.degraded


def test_one_method_alone_says_so_too(tmp_path: Path) -> None:
    sample = folder(tmp_path / "data")
    paint(sample.data, [f"pictures/{n}.jpg" for n in range(40)])
    path = trec(tmp_path / "r.trec", sample.lists)
    script = tmp_path / "script.jsonl"
    script.write_text('{"reply": "Please come back later."}\n')
    words = ["eval", "folder", "--data", sample.data, "--run", path, "--images", sample.data, "--rerank",
             "listwise", "--chat", f"scripted:{script}", "--runs", tmp_path / "runs"]  # fmt: skip
    told = run(*words, code=7)
    assert "failed in 6 of 6 queries" in " ".join(told.output.split())
    assert told.output.count("--retry-failed") == 1  # beside the figures, and not once more
    body = json.loads(run(*words, "--output", "json", code=7).stdout)
    assert any("it begins 'Please come back later.'" in w for w in body["warnings"])
    assert body["failures"][0]["questions"] == 6


def test_compare_marks_a_run_whose_judgements_failed(tmp_path: Path) -> None:
    found, _ = evaluation(tmp_path, Server(lambda *_: APOLOGY))
    assert found.degraded
    qrels = {q: {str(d): 1 for d in own} for q, own in found.task.qrels.items()}
    pair = [tmp_path / "runs/none.trec", tmp_path / "runs/listwise.trec"]
    compared = mmrerank.compare(pair, qrels=qrels, metrics="RR")
    (difference,) = compared.to_dict()["differences"]
    assert (difference["difference"], difference["verdict"]) == (0, "judgements failed")
    assert compared.to_dict()["failed"] == {"listwise": 6}
    (warning,) = [w for w in compared.warnings if "listwise" in w]
    assert "judgements failed in 6 of 6 queries (the reply could not be read" in warning
    assert "listwise (judgements failed)" in str(compared)
    assert "not different" not in str(compared)
    assert "unmarked: no difference shown" in str(compared)
    # the scores as they were, of the same results
    raw = mmrerank.compare([pair[0], tmp_path / "runs/listwise.raw.jsonl"], qrels=qrels, metrics="RR")
    assert list(raw.to_dict()["failed"].values()) == [6]

    clean, _ = evaluation(tmp_path, Server(lambda *_: None), runs="clean")
    assert not clean.degraded
    pair[1] = tmp_path / "clean/listwise.trec"
    body = mmrerank.compare(pair, qrels=qrels, metrics="RR").to_dict()
    assert body["failed"] == {}
    assert body["differences"][0]["verdict"] in ("better", "worse", "not different")


def items(count: int) -> list[tuple[Query, Ranking]]:
    one = Ranking(tuple(Candidate(id=f"boat {n}", text=f"boat {n}") for n in range(3)))
    return [(Query(text=f"a boat {n}", id=f"q{n}"), one) for n in range(count)]


def journalled(path: Path) -> list[str]:
    return [json.loads(line)["query"] for line in path.read_text("ascii").splitlines()[1:]]


def rerank(path: Path, chat: Any, count: int, **more: Any) -> Any:
    with opened(path, {}) as journal:
        return rerank_all(Reranker("listwise", chat), items(count), journal, **more)


@pytest.mark.parametrize("kind", ["quota", "unreachable", "auth"])
def test_what_was_not_answered_is_not_finished_and_the_same_command_goes_on(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "j.jsonl"
    gone = Server(lambda _, n: failed(kind) if n > PORTION + 3 else None)
    with pytest.raises(Stopped, match="same command goes on from there") as stopped:
        rerank(path, gone, 30)
    assert stopped.value.exit_code == 6
    assert f"{PORTION + 3} of 30 queries are finished in {path}" in str(stopped.value)
    assert len(gone.asked) <= 2 * PORTION + PLAIN
    assert journalled(path) == [f"q{n}" for n in range(PORTION + 3)]

    back = Server(lambda *_: None)
    results = rerank(path, back, 30)
    assert back.asked == [f"q{n}" for n in range(PORTION + 3, 30)]
    assert len(results) == 30
    assert not any(r.degraded for r in results)
    whole = rerank(tmp_path / "whole.jsonl", Server(lambda *_: None), 30)
    assert [[h.id for h in r] for r in results] == [[h.id for h in r] for r in whole]


def test_a_short_outage_is_made_up_for_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    flicker = Server(lambda _, n: failed("server") if n in (3, 4) else None)
    results = rerank(path, flicker, 20)
    assert not any(r.degraded for r in results)
    assert flicker.asked == [*(f"q{n}" for n in range(20)), "q2", "q3"]
    assert sorted(journalled(path)) == sorted(f"q{n}" for n in range(20))

    # one that fails again, while others are answered, is that query's own trouble
    slow = Server(lambda id_, _: failed("timeout", "too slow") if id_ == "q5" else None)
    results = rerank(tmp_path / "k.jsonl", slow, 20)
    assert [r.query.id for r in results if r.degraded] == ["q5"]
    assert any("too slow" in w for w in results[5].warnings)
    assert "q5" in journalled(tmp_path / "k.jsonl")


def test_a_journal_of_before_reasons_were_kept_is_read(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    rerank(path, Server(lambda *_: None), 3)
    lines = path.read_text().splitlines()
    old = [lines[0]]
    for line in lines[1:]:
        body = json.loads(line)
        del body["result"]["failures"]
        old.append(json.dumps(body))
    path.write_text("\n".join(old) + "\n")
    nobody = Server(lambda *_: failed("quota"))
    assert [r.failures for r in rerank(path, nobody, 3)] == [(), (), ()]
    assert not nobody.asked
