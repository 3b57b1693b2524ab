"""What stands beside a reranked figure: the first stage in the order reranked, and a true ceiling."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmark_samples import dump, folder, inquire_rows
from index_world import paint

import mmrerank
from mmrerank.benchmark import Ranked, Run
from mmrerank.evaluation.experiment import two_stage
from mmrerank.evaluation.experiment.own_scores import with_scores
from mmrerank.evaluation.measure.runs import read_raw, read_run
from mmrerank.evaluation.tasks import load_task
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Chat


def do_nothing(name: str, data: Path, run: Run, images: Path | None, out: Path) -> tuple[Any, Any]:
    """The first stage's figures, and those of the method that changes nothing."""
    found = mmrerank.evaluate(
        name, data=data, run=run, images=images, methods=["none"], candidates=3, runs=out
    )
    scores = found.methods["none"].scores
    assert found.first_stage
    assert scores
    before, after = found.first_stage.metrics, scores.metrics
    return {n: m.value for n, m in before.items()}, {n: m.value for n, m in after.items()}


def tied(lists: Mapping[str, list[str]]) -> Run:
    return Run(rows={q: Ranked(ids, [0.5] * len(ids)) for q, ids in lists.items()})


def test_doing_nothing_gains_nothing_from_ties(tmp_path: Path) -> None:
    sample = folder(tmp_path / "data")
    paint(tmp_path / "data", [f"pictures/{n}.jpg" for n in range(40)])
    # the right ones first: equal scores are otherwise ordered by id
    lists = {q: [*right, *(i for i in sample.lists[q] if i not in right)]
             for q, right in sample.right.items()}  # fmt: skip
    data = tmp_path / "data"
    before, after = do_nothing("folder", data, tied(lists), data, tmp_path / "out")
    assert before == pytest.approx(after)


def test_ties_of_mmeb_are_settled_without_labels(tmp_path: Path) -> None:
    rows = [{"qry_text": f"what {n}?", "qry_img_path": "", "tgt_text": [f"right {n}", "b", "c", "d"],
             "tgt_img_path": [""] * 4} for n in range(60)]  # fmt: skip
    (tmp_path / "OK-VQA").mkdir()
    (tmp_path / "OK-VQA/test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    task = load_task("mmeb", tmp_path)
    lists = {f"OK-VQA/{n}": r["tgt_text"] for n, r in enumerate(rows)}
    before, after = do_nothing("mmeb", tmp_path, tied(lists), None, tmp_path / "out")  # type: ignore[arg-type]
    assert before == pytest.approx(after)
    assert 0.1 < after["Hit@1"] < 0.4  # one in four, by chance
    # scores that differ keep their order
    apart = Run(rows={q: Ranked(ids, [4.0, 3.0, 2.0, 1.0]) for q, ids in lists.items()})  # type: ignore[arg-type]
    assert two_stage.reordered(task, apart, {}, 3, "x").rows["OK-VQA/7"][0].id == "right 7"


def test_the_ceiling_puts_the_target_first_among_right_answers(tmp_path: Path) -> None:
    right = list(range(8))
    row = {"id": 0, "reference_img_id": 9, "relative_caption": "more", "target_img_id": 0,
           "gt_img_ids": right, "semantic_aspects": ["addition"]}  # fmt: skip
    dump(tmp_path / "annotations/val.json", [row])
    task = load_task("circo", tmp_path)
    run = tied({"0": [str(i) for i in [*right[::-1], *range(20, 70)]]})
    best = two_stage.ceiling(task, run, 10)
    assert best.metrics["R@5"].value == 1
    assert best.metrics["mAP@10"].value == 1


class Alike(Chat):
    """A judge to whom all pictures are alike, whatever it is asked; it fails over some."""

    spec = "alike"
    capabilities = frozenset({"generate", "choice_logprobs"})
    fake = True

    def __init__(self, failing: Sequence[str] = ()) -> None:
        self.failing = failing

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        return [self._one(ask) for ask in asks]

    def _one(self, ask: Ask) -> Reply:
        if set(ask.shown) & set(self.failing):
            return Reply(text="I cannot say.", logprobs={})
        if ask.choices:
            return Reply(logprobs=dict.fromkeys(ask.choices, math.log(1 / len(ask.choices))))
        if ask.kind == "grade":
            return Reply(text=json.dumps({n: {"note": "", "grade": 5} for n in ask.labels}))
        return Reply(text=json.dumps({"reason": "", "scores": dict.fromkeys(ask.labels, 50)}))


@pytest.mark.parametrize(
    "method",
    [
        "pointwise",
        "listwise",
        *(pytest.param(m, marks=pytest.mark.slow) for m in ("first", "erank(think=false)", "grouprank")),
    ],
)
def test_a_judge_to_whom_all_are_alike_scores_the_prevalence(tmp_path: Path, method: str) -> None:
    sample = inquire_rows(tmp_path / "data")
    found = mmrerank.evaluate(
        "inquire-rerank", data=tmp_path / "data", chat=Alike(), methods=[method], candidates=100,
        runs=tmp_path / "out",
    )  # fmt: skip
    one = found.methods[method]
    assert one.scores
    values = one.scores.metrics["INQUIRE_AP"].values
    assert values == pytest.approx({q: len(right) / 100 for q, right in sample.right.items()})
    assert found.first_stage
    assert found.first_stage.metrics["INQUIRE_AP"].values != pytest.approx(values)
    stem = one.spec.stem
    # ties stay in the file of raw scores; the TREC run has none, for tools that would break them by name
    raw, run = read_raw(tmp_path / f"out/{stem}.raw.jsonl"), read_run(tmp_path / f"out/{stem}.trec")
    for query, rows in raw.rows.items():
        assert len({r.score for r in rows}) == 1
        assert len({r.score for r in run.rows[query]}) == 100
        assert [r.id for r in rows] == [r.id for r in run.rows[query]]


def test_what_a_judge_failed_on_stays_at_its_place_in_a_run(tmp_path: Path) -> None:
    sample = inquire_rows(tmp_path / "data")
    task = load_task("inquire-rerank", tmp_path / "data")
    query = next(iter(sample.lists))
    first, tenth = task.first[query].ids[0], task.first[query].ids[9]
    mmrerank.evaluate(
        "inquire-rerank", data=tmp_path / "data", chat=Alike([first, tenth]), methods=["pointwise"],
        candidates=50, runs=tmp_path / "out",
    )  # fmt: skip
    rows = read_raw(tmp_path / "out/pointwise.raw.jsonl").rows[query]
    assert [r.id for r in rows] == list(task.first[query].ids)
    # above the others, among those that are all alike, and the tail below them
    assert [r.score for r in rows] == [1, *[0] * 49, *range(-1, -51, -1)]


def test_scores_of_a_run_never_rise_and_keep_ties() -> None:
    own = {"b": 2.0, "c": 2.0, "f": 0.5, "g": 0.5}
    rows = with_scores(list("abcdefghi"), own)
    assert list(rows.scores) == [3, 2, 2, 1.5, 1, 0.5, 0.5, -0.5, -1.5]
    assert list(with_scores(list("ab"), {"a": 1.0, "b": 2.0}).scores) == [2, 1]  # they contradict the order
    assert list(with_scores(list("ab"), {}).scores) == [2, 1]
    assert len(with_scores([], {"a": 1.0})) == 0
