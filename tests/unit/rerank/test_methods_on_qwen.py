"""Methods on tiny random checkpoints of two families; those that read a model's insides, by hand as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from counted_qwen import Counted, plain_run
from tiny_qwen import EACH

from mmrerank import registry
from mmrerank.chat.thinking import ANSWER
from mmrerank.errors import UsageError
from mmrerank.messages import Ask, Message, Part
from mmrerank.ports import Chat
from mmrerank.rerank import comparisons
from mmrerank.rerank.replies import ALPHABET
from mmrerank.rerank.states import NOTHING, attend
from mmrerank.rerank.strategies import first, icr
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Image, Query, Ranking

QUERY = Query(text="a red dog near the blue house")


@pytest.fixture(params=EACH)
def chat(request: pytest.FixtureRequest, qwen_chats: Callable[[str], Any]) -> Counted:
    return Counted(qwen_chats(request.param))


@pytest.fixture
def ranking(picture: Callable[..., Image]) -> Ranking:
    shown = [picture(90 + 12 * n, 140 - 7 * n, seed=n) for n in range(6)]
    return Ranking(tuple(Candidate(id=f"i{n}", image=i, score=1 - n / 10) for n, i in enumerate(shown)))


def eager(chat: Counted, ask: Ask) -> list[Any]:
    """Attention of each image's tokens from the last words, out of one eager run over everything."""
    import torch

    prompt, out = plain_run(chat, ask)
    asking = prompt.words[-1]
    total = torch.stack(out.attentions).sum((0, 2))[0]
    paid = total[asking.start : asking.end].mean(0).numpy()
    return [paid[a:b] for a, b in prompt.spans]


def test_icr_is_the_difference_of_two_full_runs(chat: Counted, ranking: Ranking) -> None:
    judging = icr.rank(QUERY, ranking, icr.Options())
    asks = next(judging)
    replies = chat.reply(asks)
    # the images are looked at once, and read once: one pass over them, one for each search
    assert (chat.looked, chat.passes) == (len(ranking), 3)
    with pytest.raises(StopIteration) as end:
        judging.send(replies)
    group = ranking.candidates[::-1]
    by_hand = Counted(chat.chat)
    searched = eager(by_hand, attend(QUERY, group))
    empty = eager(by_hand, attend(NOTHING, group))
    wanted = {c.id: s - e for c, s, e in zip(group, searched, empty, strict=True)}
    for candidate, one, other in zip(group, replies[0].states, replies[1].states, strict=True):
        assert one - other == pytest.approx(wanted[candidate.id], abs=1e-5)
    values = {i: icr.pooled(w, "mean") for i, w in wanted.items()}
    assert end.value.value.ranking.ids == tuple(sorted(values, key=lambda i: -values[i]))


def spelt(chat: Counted, logits: Any, *texts: str) -> float:
    """The log-probability of those of ``texts`` that are one token, together."""
    import torch

    ids = [chat.qwen.tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    return float(torch.logsumexp(logits[[i[0] for i in ids if len(i) == 1]], 0))


def test_first_is_the_order_of_the_letters(chat: Counted, ranking: Ranking) -> None:
    import torch

    result = Reranker("first", chat.chat).rank(QUERY, ranking)
    ask = comparisons.pick(QUERY, ranking.candidates)
    _, out = plain_run(Counted(chat.chat), ask)
    logits = torch.log_softmax(out.logits[0, -1].float(), -1)
    values = {c.id: spelt(chat, logits, n, f" {n}") for c, n in zip(ranking, ask.labels, strict=True)}
    assert [h.id for h in result] == sorted(values, key=lambda i: -values[i])
    (step,) = result.trace.steps
    told = np.array([step.logprobs[n] for n in ask.labels])
    plain = np.array(list(values.values()))
    assert told - told.max() == pytest.approx(plain - plain.max(), abs=1e-4)
    assert first.Options().calls(len(ranking)) == result.usage.calls == 1


def test_thoughts_come_before_the_answer(chat: Counted, ranking: Ranking) -> None:
    plain = comparisons.score(QUERY, ranking.candidates[0])
    thinking = replace(comparisons.thinking(plain), max_tokens=12)
    first_turn = replace(thinking, choices=(), think=False)
    (thoughts,) = chat.reply([first_turn])
    (reply,) = chat.reply([thinking])
    assert reply.text == thoughts.text != ""
    said = Message(role="assistant", parts=(Part(text=thoughts.text),))
    asked = Message(role="user", parts=(Part(text=ANSWER),))
    second_turn = replace(thinking, messages=(*thinking.messages, said, asked), think=False)
    (answer,) = chat.reply([second_turn])
    assert reply.logprobs == pytest.approx(answer.logprobs, abs=1e-5)
    assert reply.usage.calls == 1
    assert reply.usage.output_tokens > 1


def test_the_share_of_all_tokens_is_told(chat: Counted, ranking: Ranking) -> None:
    import torch

    ask = comparisons.score(QUERY, ranking.candidates[0])
    (reply,) = chat.reply([ask])
    _, out = plain_run(Counted(chat.chat), ask)
    logits = torch.log_softmax(out.logits[0, -1].float(), -1)
    yes = spelt(chat, logits, "yes", "Yes", "YES", " yes", " Yes", " YES")
    assert comparisons.read_alone(reply) == pytest.approx(yes, abs=1e-4)


def test_labels_are_what_the_vocabulary_says(chat: Counted) -> None:
    """Letters and digits are tokens of their own, digits never merge; what is not a token is refused."""
    tokenizer = chat.qwen.tokenizer
    for label in (*ALPHABET, *comparisons.DIGITS, *comparisons.YES_NO):
        assert len(tokenizer(label, add_special_tokens=False)["input_ids"]) == 1, label
    for number in ("10", "12", "20"):
        assert len(tokenizer(number, add_special_tokens=False)["input_ids"]) == 2
    message = Message(role="user", parts=(Part(text="Which?"),))
    for wrong in ("10", "Image A", "[A]"):
        with pytest.raises(UsageError, match="single tokens"):
            chat.chat.reply([Ask(messages=(message,), choices=("A", wrong))])


class Curt(Chat):
    """The same chat, which is given little room: random weights have nothing to say."""

    def __init__(self, chat: Any) -> None:
        self.chat, self.spec, self.domain = chat, chat.spec, ""
        self.capabilities, self.label_share = chat.capabilities, chat.label_share

    def reply(self, asks: Sequence[Ask]) -> Any:
        return self.chat.reply([replace(a, max_tokens=min(a.max_tokens, 120)) for a in asks])


# the longest by far, which hostile replies and the bundled model go through as well
LONGEST = "cotrr"


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(n, marks=pytest.mark.slow) if n == LONGEST else n
        for n in registry.names("strategy")
        if n != "scorer"
    ],
)
def test_every_method_runs_on_a_real_model(chat: Counted, ranking: Ranking, method: str) -> None:
    some = Ranking(ranking.candidates[:4])
    result = Reranker(method, Curt(chat.chat)).rank(QUERY, some)
    assert sorted(h.id for h in result) == sorted(some.ids)
    module = registry.load("strategy", method)
    assert result.usage.calls <= module.Options().calls(4)
