"""What every dedicated reranker must do: a number a candidate, of itself alone, none where it cannot see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from contract_specs import contract_specs
from openai_stub import StubServer

from mmrerank import registry
from mmrerank.chat.around import around
from mmrerank.chat.open import open_chat
from mmrerank.chat.scoring import ScorerChat
from mmrerank.messages import Scoring
from mmrerank.ports import Scorer
from mmrerank.rerank import scoring
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Image, Query

LOCAL = {
    "qwen3_vl_reranker": "qwen3_vl", "lychee": "qwen2_5_vl", "monoqwen2": "qwen2_vl", "jina_m0": "qwen2_vl",
    "unime_reranker": "qwen2_5_vl", "mm_r5": "qwen2_5_vl",
}  # fmt: skip
"""The kind of tiny checkpoint of each reranker that runs in this process."""
FOREIGN = contract_specs("scorer")
UNREAL = {"mm_r5", "cross_encoder", "jina_m0", "monoqwen2"}
"""Tested elsewhere: they need an answer in words, a package, a head, or labels of the real vocabulary."""
SCORED = (
    "rerank",
    *(pytest.param(n, marks=pytest.mark.slow) for n in sorted(LOCAL.keys() - UNREAL)),
    *FOREIGN,
)
every = pytest.mark.parametrize("name", SCORED)


def like(stub: StubServer) -> None:
    """A server whose scores depend on the document alone."""

    def answer(request: dict[str, Any]) -> Any:
        rows = [{"index": n, "relevance_score": hash(str(d)) % 997 / 997} for n, d in
                enumerate(request["documents"])]  # fmt: skip
        return {"results": rows[::-1]}

    stub.answer = answer


@pytest.fixture(scope="module")
def opened(tiny_qwen: Callable[[str], Path]) -> Iterator[Callable[[str], Any]]:
    stub, made = StubServer(), {}
    like(stub)

    def chat(name: str) -> Any:
        if name not in made:
            spec = FOREIGN.get(name) or (f"rerank:m@{stub.url}" if name == "rerank" else "")
            options = {} if spec else {"device": "cpu"}
            made[name] = open_chat(spec or f"{name}:{tiny_qwen(LOCAL[name])}", **options)
        return made[name]

    yield chat
    for each in made.values():
        each.close()
    stub.close()


@pytest.fixture
def given(picture: Callable[..., Image]) -> list[Candidate]:
    shown = [Candidate(id=f"i{n}", image=picture(60 + 9 * n, 50, n), score=1 - n / 9) for n in range(3)]
    return [
        *shown,
        Candidate(id="text", text="a boat on the sea"),
        Candidate(id="both", image=shown[0].image, text="red"),
    ]


def test_every_plug_in_is_covered() -> None:
    assert {"rerank", "cross_encoder", *LOCAL, *FOREIGN} == set(registry.names("scorer"))


@every
def test_one_number_a_candidate_of_itself_alone(
    opened: Callable[[str], Any], given: list[Candidate], name: str
) -> None:
    scorer = opened(name).scorer
    assert isinstance(scorer, Scorer)
    query = Query(text="a red boat")
    found = list(scorer.score(query, given))
    assert len(found) == len(given)
    assert all(isinstance(v, float) and math.isfinite(v) for v in found)
    assert scorer.logits or all(0 <= v <= 1 for v in found)
    assert list(scorer.score(query, given[::-1])) == pytest.approx(found[::-1], abs=1e-5)
    assert [scorer.score(query, [c])[0] for c in given] == pytest.approx(found, abs=1e-5)
    assert len(set(found)) > 1


@every
def test_a_picture_that_cannot_be_shown_has_no_score(
    opened: Callable[[str], Any], given: list[Candidate], name: str
) -> None:
    bad = Candidate(id="bad", image=Image(data=b"none"), text="a boat")
    found = list(opened(name).scorer.score(Query(text="a red boat"), [given[0], bad, given[1]]))
    assert [math.isnan(v) for v in found] == [False, True, False]
    result = Reranker("scorer", opened(name)).rank("a red boat", [given[0], bad, given[1]])
    assert [h.id for h in result][1] == "bad"
    assert [h.id for h in result if h.relevance is None] == ["bad"]
    assert result.degraded


@every
def test_as_a_chat_it_is_cached_recorded_and_replayed(
    opened: Callable[[str], Any], given: list[Candidate], name: str, tmp_path: Path
) -> None:
    chat = opened(name)
    assert isinstance(chat, ScorerChat)
    assert chat.capabilities == {"score"}
    files = {k: tmp_path / k for k in ("cache", "record")}
    first = Reranker("scorer", around(chat, **files)).rank("a red boat", given)
    assert first.usage.calls == len(given)
    again = Reranker("scorer", around(chat, cache=files["cache"])).rank("a red boat", given)
    assert again.usage.calls == 0
    replayed = Reranker("scorer", f"replay:{files['record']}").rank("a red boat", given)
    for other in (again, replayed):
        assert dict(other.explanation.scores) == dict(first.explanation.scores)
        assert [h.relevance for h in other] == [h.relevance for h in first]


@every
def test_what_is_for_fakes_changes_nothing(
    opened: Callable[[str], Any], given: list[Candidate], name: str
) -> None:
    chat = opened(name)
    asks = [
        scoring.fit(Query(text="a red boat", exclude=("people",)), [c], instruction="find it") for c in given
    ]
    assert all(isinstance(a.stripped(), Scoring) for a in asks)
    one, two = chat.reply(asks), chat.reply([a.stripped() for a in asks])
    assert [r.scores for r in one] == [pytest.approx(r.scores, abs=1e-6) for r in two]
    assert chat.reply([]) == []
