"""CIRR: the five pictures of a set ranked by themselves, and a first stage that reads descriptions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_samples import cirr, trec
from index_world import ColourEmbedder, build, paint

import mmrerank
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.index.index import ImageIndex
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Vectors
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


class Titled(ColourEmbedder):
    """Knows a picture by its title, and of composed queries nothing."""

    def __init__(self, titles: dict[str, Any]) -> None:
        super().__init__()
        self.titles = titles

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        nothing = np.full(self.dim, self.dim**-0.5, np.float32)
        return np.stack([self.titles.get(q.text, nothing) for q in queries])


class Describing(Oracle):
    """Writes the title of the picture that is meant, and cannot tell one picture from another."""

    def __init__(self, right: dict[str, list[str]]) -> None:
        super().__init__(lambda query, id: 1)
        self.right = right

    def reply(self, asks: Any) -> list[Reply]:
        replies = super().reply(asks)
        for n, ask in enumerate(asks):
            if ask.kind == "describe" and ask.query:
                title = self.right[ask.query.id.partition("#")[0]][0]
                replies[n] = Reply(text=json.dumps({"thought": "", "description": title}))
        return replies


@pytest.mark.slow
def test_a_description_finds_what_the_first_stage_missed(tmp_path: Path) -> None:
    sample = cirr(tmp_path / "data")
    files = json.loads((sample.data / "image_splits/split.rc2.val.json").read_text())
    paint(sample.data, [n.removeprefix("./") for n in files.values()])
    embedder = Titled({})
    index = tmp_path / "index"
    build(index, sample.data, embedder)
    opened = ImageIndex.open(index)
    vectors = opened.vectors([f.removeprefix("./") for f in files.values()])
    embedder.titles = dict(zip(files, np.asarray(vectors), strict=True))
    found = mmrerank.evaluate(
        "cirr", data=sample.data, index=index, embedder=embedder, images=sample.data, candidates=6,
        methods=["describe", "cascade(first=describe;then=cotrr)"], chat=Describing(sample.right),
        runs=tmp_path / "runs", options={"subset": True},
    )  # fmt: skip
    rows = found.to_dict()["methods"]
    assert rows["none"]["R@1"] < 0.3
    for method in ("describe", "cascade(first=describe;then=cotrr)"):
        # one caption of the data is empty: nothing is to be described there
        assert rows[method]["R@1"] >= 23 / 24 - 1e-3
        assert rows[method]["Rsub@1"] >= 23 / 24 - 1e-3
        assert rows[method]["failed"] == 0
