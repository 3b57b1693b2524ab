"""CIRR's subset question: the five pictures of a set, ranked by themselves, beside the gallery."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_samples import cirr, trec
from index_world import paint

import mmrerank
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.messages import Ask, Reply
from mmrerank.types import Query


class Knowing(Oracle):
    """Knows each query's target, but only among the five of its set; keeps how many it is shown at once."""

    def __init__(self, right: dict[str, list[str]]) -> None:
        super().__init__(self._grade)
        self.right, self.lists = right, dict[str, set[int]]()

    def _grade(self, query: Query, id: str) -> int:
        whose, _, apart = query.id.partition("#")
        return 3 * (apart == "apart" and id in self.right[whose])

    def reply(self, asks: Any) -> list[Reply]:
        for ask in asks:
            self._seen(ask)
        return super().reply(asks)

    def _seen(self, ask: Ask) -> None:
        if ask.kind == "order" and ask.query:
            assert ask.query.images  # with the reference
            self.lists.setdefault(ask.query.id.partition("#")[2], set()).add(len(ask.shown))


@pytest.mark.slow
def test_the_five_are_ranked_by_themselves(tmp_path: Path) -> None:
    sample = cirr(tmp_path / "data")
    names = json.loads((sample.data / "image_splits/split.rc2.val.json").read_text()).values()
    paint(sample.data, [n.removeprefix("./") for n in names])
    path = trec(tmp_path / "first.trec", sample.lists)
    judge = Knowing(sample.right)
    where: dict[str, Any] = {"data": sample.data, "run": path, "images": sample.data, "candidates": 8}

    def evaluated(folder: str, **more: Any) -> Any:
        return mmrerank.evaluate(
            "cirr", methods=["cotrr"], chat=judge, runs=tmp_path / folder, **where, **more
        )

    found = evaluated("apart", options={"subset": True}, submission=tmp_path / "sent")
    assert judge.lists == {"": {8}, "apart": {5}}
    rows = found.to_dict()["methods"]
    assert rows["cotrr"]["Rsub@1"] == 1
    assert rows["none"]["Rsub@1"] < 0.6
    assert rows["cotrr"]["R@5"] == rows["none"]["R@5"]  # the gallery's question is another
    assert rows["cotrr"]["mean(R@5,Rsub@1)"] > rows["none"]["mean(R@5,Rsub@1)"]
    assert found.to_dict()["ceiling"]["Rsub@1"] == 1
    assert rows["cotrr"]["gain"]["Rsub@1"]["value"] > 0
    # the files say the same, and so does what a server gets
    files = [tmp_path / f"apart/cotrr.{end}" for end in ("trec", "apart.trec")]
    again = mmrerank.evaluate("cirr", data=sample.data, run=files)
    assert {n: round(m.value, 4) for n, m in again.scores.metrics.items()} == {
        n: rows["cotrr"][n] for n in again.scores.metrics
    }
    sent = json.loads((tmp_path / "sent/recall_subset.json").read_text())
    assert all(sent[q][0] == sample.right[q][0] for q in sample.right)
    # a list that lacks some of the five
    where["run"] = trec(tmp_path / "short.trec", {q: i[:12] for q, i in sample.lists.items()})
    short = evaluated("short", options={"subset": True}).to_dict()["methods"]["cotrr"]
    assert (short["Rsub@1"], judge.lists["apart"]) == (1, {5})
    where["run"] = path
    # without the option the question is answered by the gallery's order
    plain = evaluated("plain").to_dict()["methods"]
    assert plain["cotrr"]["Rsub@1"] == plain["none"]["Rsub@1"] == rows["none"]["Rsub@1"]
