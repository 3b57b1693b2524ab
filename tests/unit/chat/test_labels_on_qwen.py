"""A judge that says Yes and No, on a tiny checkpoint with the real vocabulary of Qwen3: local and served."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import real_vocabulary
import vllm_stand_in
from tiny_server import TinyServer

from mmrerank.chat.open import open_chat
from mmrerank.chat.probe import probe
from mmrerank.rerank import comparisons
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Image, Query, Ranking

pytestmark = pytest.mark.slow

YES = {"yes": 9693, "Yes": 9454, "YES": 14004, " yes": 9834, " Yes": 7414, " YES": 14080}
NO = {"no": 2152, "No": 2753, "NO": 8996, " no": 902, " No": 2308, " NO": 5664}
QUERY = Query(text="a boat")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Random weights whose last layer gives capitals nearly all, and small letters the other way round."""
    import torch

    folder = real_vocabulary.build(tmp_path_factory.mktemp("real"), "qwen2_5_vl")
    chat: Any = open_chat(f"transformers:{folder}", device="cpu")
    head = chat.qwen.model.lm_head
    width = head.weight.shape[1]
    direction = torch.randn(width, generator=torch.Generator().manual_seed(3)) * 0.5
    with torch.no_grad():
        head.weight.zero_()
        head.bias = torch.nn.Parameter(torch.full((head.weight.shape[0],), -40.0))
        for ids, sign in ((YES, 1.0), (NO, -1.0)):
            for text, n in ids.items():
                far = 0.0 if text.strip().istitle() else -9.0
                head.weight[n] = direction * (sign if text.strip().istitle() else -sign)
                head.bias[n] = far - (3.0 if text.startswith(" ") else 0.0)
    return chat


@pytest.fixture(scope="module")
def ranking(picture: Callable[..., Image]) -> Ranking:
    return Ranking(tuple(Candidate(id=f"i{n}", image=picture(112, 112, n)) for n in range(8)))


@pytest.fixture(scope="module")
def by_hand(judge: Any, ranking: Ranking) -> dict[str, tuple[float, float]]:
    """Margins by candidate, of all spellings and of the small ones alone, from one plain run each."""
    import torch

    found = {}
    for candidate in ranking:
        ask = comparisons.score(QUERY, candidate)
        prompt = judge.qwen.encode(ask.messages, image_tokens=ask.image_tokens)
        with torch.inference_mode():
            logits = judge.qwen.forward(judge.qwen.collate([prompt]))[0].double()
        sides = [torch.logsumexp(logits[list(ids.values())], 0) for ids in (YES, NO)]
        found[candidate.id] = (float(sides[0] - sides[1]), float(logits[9693] - logits[2152]))
    return found


@pytest.fixture(scope="module", params=["raw", "masked", "old"])
def server(request: pytest.FixtureRequest, judge: Any) -> Iterator[TinyServer]:
    """vLLM as it is, under ``--logprobs-mode processed_logprobs``, and before labels could be asked by id."""
    made = TinyServer(judge, old=request.param != "raw", raw=request.param != "masked")
    yield made
    made.close()


def order(values: dict[str, tuple[float, float]]) -> list[str]:
    return sorted(values, key=lambda i: -values[i][0])


def test_the_tokens_are_those_of_the_table(judge: Any, ranking: Ranking) -> None:
    ask = comparisons.score(QUERY, ranking.candidates[0])
    assert judge._choices(ask) == (tuple(YES.values()), tuple(NO.values()))
    assert judge._choices(comparisons.pick(QUERY, ranking.candidates))[0] == (32, 362)


def test_the_order_in_this_process(judge: Any, ranking: Ranking, by_hand: Any) -> None:
    result = Reranker("pointwise", judge).rank(QUERY, ranking)
    assert [h.id for h in result] == order(by_hand)
    assert not result.degraded
    assert result.repairs.written == 0
    # the small spellings alone would have turned it round
    small = sorted(by_hand, key=lambda i: -by_hand[i][1])
    assert small == order(by_hand)[::-1]
    (reply,) = judge.reply([comparisons.score(QUERY, ranking.candidates[0])])
    assert comparisons.read_score(reply) == pytest.approx(by_hand["i0"][0], abs=1e-4)
    assert reply.mass == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("kind", ["openai", "vllm"])
def test_the_order_through_a_server(server: TinyServer, ranking: Ranking, by_hand: Any, kind: str) -> None:
    chat: Any = open_chat(f"{kind}:tiny-vl@{server.url}", backoff=0.01)
    result = Reranker("pointwise", chat).rank(QUERY, ranking)
    chat.close()
    assert [h.id for h in result] == order(by_hand)
    assert not result.degraded


@pytest.mark.parametrize("old", [False, True])
def test_the_order_under_vllm_here(judge: Any, ranking: Ranking, by_hand: Any, old: bool) -> None:
    with vllm_stand_in.installed(old=old) as engine:
        engine.models = {"tiny": judge}
        chat: Any = open_chat("vllm:tiny")
        result = Reranker("pointwise", chat).rank(QUERY, ranking)
        (reply,) = chat.reply([comparisons.score(QUERY, ranking.candidates[0])])
    assert [h.id for h in result] == order(by_hand)
    assert comparisons.read_score(reply) == pytest.approx(by_hand["i0"][0], abs=1e-3)
    assert (reply.mass is None) is old


def test_a_model_that_would_say_something_else(judge: Any, ranking: Ranking) -> None:
    import torch

    head = judge.qwen.model.lm_head
    the = 785  # "The" of this vocabulary
    assert judge.qwen.tokenizer.decode([the]) == "The"
    before = head.bias[the].item()
    with torch.no_grad():
        head.bias[the] = 20.0
    try:
        some = Ranking(ranking.candidates[:2])
        (reply,) = judge.reply([comparisons.score(QUERY, some.candidates[0])])
        assert reply.mass is not None
        assert reply.mass < math.log(0.02)
        result = Reranker("pointwise", judge).rank(QUERY, some)
        # a grammar makes it say one of the two, and the result says that it was made to
        assert (result.degraded, result.repairs.written) == (False, 2)
        assert "2 of 2 answers were asked for again as text" in " ".join(result.warnings)
        found = next(f for f in probe(judge) if f.name == "logprobs")
        assert found.status == "broken"
        assert "both together hold" in found.detail
    finally:
        with torch.no_grad():
            head.bias[the] = before
