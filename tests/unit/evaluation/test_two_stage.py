"""What stands beside a reranked figure: the first stage in the order reranked, and a true ceiling."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from benchmark_samples import dump, folder
from index_world import paint

import mmrerank
from mmrerank.benchmark import Ranked, Run
from mmrerank.evaluation.experiment import two_stage
from mmrerank.evaluation.tasks import load_task


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
