"""The same tiny weights in this process, behind a server's wire and under a stand-in for vLLM: one answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import vllm_stand_in
from tiny_qwen import EACH, FAMILIES
from tiny_server import TinyServer

from mmrerank.chat.open import open_chat
from mmrerank.chat.probe import probe
from mmrerank.errors import MissingExtraError, ModelError, UsageError
from mmrerank.messages import Ask, Message, Part
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Image, Query

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "enum": [1, 2, 3]}, "b": {"type": "boolean"}},
    "required": ["a", "b"],
}


def asks(picture: Callable[..., Image], kind: str) -> list[Ask]:
    """Questions with none to four images, of sizes that neither side has to change."""
    side = 112 if "qwen2" in kind else 128
    shown = [picture(side, side, seed) for seed in range(4)]

    def ask(text: str, *images: Image, **settings: Any) -> Ask:
        parts = (Part(text=text), *(Part(image=i) for i in images), Part(text=" Well?"))
        system = Message(role="system", parts=(Part(text="You judge images."),))
        return Ask(messages=(system, Message(role="user", parts=parts)), **settings)

    return [
        ask("a dog", max_tokens=12),
        ask("cats", *shown, max_tokens=12),
        ask("a red dog", shown[0], choices=("yes", "no")),
        ask("which is best", *shown, choices=("A", "B", "C", "D")),
        ask("a cup", shown[1], choices=("Yes", "No")),
        ask("json", shown[2], schema=SCHEMA, max_tokens=24),
    ]


@pytest.fixture(scope="module", params=EACH)
def served(
    request: pytest.FixtureRequest, qwen_chats: Callable[[str], Any]
) -> Iterator[tuple[str, Any, TinyServer]]:
    chat = qwen_chats(request.param)
    server = TinyServer(chat)
    yield request.param, chat, server
    server.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_says_what_the_weights_say(
    served: tuple[str, Any, TinyServer], picture: Callable[..., Image], stream: bool
) -> None:
    kind, local, server = served
    chat: Any = open_chat(f"vllm:tiny-vl@{server.host}", stream=stream, backoff=0.01)
    questions = asks(picture, kind)
    for mine, theirs in zip(local.reply(questions), chat.reply(questions), strict=True):
        assert theirs.error is None
        assert theirs.text == mine.text
        assert theirs.finish == mine.finish
        assert theirs.logprobs == pytest.approx(mine.logprobs, abs=1e-4)
        assert theirs.usage.input_tokens == mine.usage.input_tokens
    assert "choice_logprobs" in chat.capabilities
    chat.close()


@pytest.mark.slow
def test_rankings_are_the_same(served: tuple[str, Any, TinyServer], picture: Callable[..., Image]) -> None:
    kind, local, server = served
    side = 112 if "qwen2" in kind else 128
    found = [Candidate(id=str(n), image=picture(side, side, n)) for n in range(5)]
    # random weights hold little on labels, and are not to be asked in words
    chat: Any = open_chat(f"openai:tiny-vl@vllm+{server.url}", backoff=0.01, label_share=0)
    for method in ("pointwise", "setwise", "grouprank"):
        mine, theirs = (Reranker(method, c).rank("a red dog", found) for c in (local, chat))
        assert [h.id for h in mine] == [h.id for h in theirs]
    chat.close()


def test_the_probe_tells_what_this_server_does(served: tuple[str, Any, TinyServer]) -> None:
    _, _, server = served
    chat: Any = open_chat(f"vllm:tiny-vl@{server.host}", backoff=0.01)
    found = {f.name: f for f in probe(chat)}
    chat.close()
    assert found["model list"].status == "ok"
    assert found["answers"].status == "ok"
    # random weights know nothing of fire and ice
    assert found["logprobs"].status == "broken"
    assert "Is fire hot? yes -" in found["logprobs"].detail
    assert (found["json_schema"].status, found["json_schema"].detail) == ("ok", "obeyed")
    assert found["images"].detail.startswith("at least 20 a question (asked how many")
    assert found["prefix cache"].status == "ok"
    # random weights see nothing, and the probe says so
    assert found["looks at them"].status == "off"
    assert found["offers"].detail == "choice_logprobs, generate"


def test_a_limit_of_images_is_learnt_and_told(
    qwen_chats: Callable[[str], Any], picture: Callable[..., Image]
) -> None:
    server = TinyServer(qwen_chats(FAMILIES[0]), most_images=2)
    chat: Any = open_chat(f"vllm:tiny-vl@{server.host}", backoff=0.01)
    question = asks(picture, FAMILIES[0])[1]
    for _ in range(2):
        assert "at most 2 image(s) a question" in str(chat.reply([question])[0].error)
    assert len(server.requests) == 1
    assert chat.reply(asks(picture, FAMILIES[0])[2:3])[0].error is None
    chat.close()
    server.close()


class TestVllm:
    """The engine in this process, by contract against a stand-in for the package."""

    @pytest.mark.parametrize("kind", EACH)
    def test_it_says_what_the_weights_say(
        self, qwen_chats: Callable[[str], Any], picture: Callable[..., Image], kind: str
    ) -> None:
        local = qwen_chats(kind)
        with vllm_stand_in.installed() as engine:
            engine.models = {"tiny": local}
            chat: Any = open_chat("vllm:tiny")
            questions = asks(picture, kind)
            replies = chat.reply(questions)
            for mine, theirs in zip(local.reply(questions), replies, strict=True):
                assert theirs.error is None
                assert theirs.text == mine.text
                assert theirs.logprobs == pytest.approx(mine.logprobs, abs=1e-4)
                assert theirs.usage.input_tokens == mine.usage.input_tokens
                assert theirs.usage.images == mine.usage.images
            assert chat._engine.calls == [len(questions)]
            assert chat._engine.settings["enable_prefix_caching"] is True

    def test_one_question_that_is_too_long_fails_alone(
        self, qwen_chats: Callable[[str], Any], picture: Callable[..., Image]
    ) -> None:
        with vllm_stand_in.installed() as engine:
            engine.models = {"tiny": qwen_chats(FAMILIES[0])}
            chat: Any = open_chat("vllm:tiny")
            long = Ask(messages=(Message(role="user", parts=(Part(text="a dog " * 9000),)),))
            bad = Ask(messages=(Message(role="user", parts=(Part(image=Image(data=b"no")),)),))
            good = asks(picture, FAMILIES[0])[0]
            one, two, three = chat.reply([long, good, bad])
            assert "longer than the maximum" in str(one.error)
            assert two.error is None
            assert "cannot be shown" in str(three.error)
            with pytest.raises(UsageError, match="single"):
                chat.reply([Ask(messages=good.messages, choices=("yes please", "no"))])

    def test_without_the_package_or_the_model(self) -> None:
        with pytest.raises(MissingExtraError, match=r"pip install 'mmrerank\[vllm\]'"):
            open_chat("vllm:some/model")
        with vllm_stand_in.installed() as engine:
            engine.models = {}
            with pytest.raises(ModelError, match="does not start with 'some/model'"):
                open_chat("vllm:some/model")
            with pytest.raises(UsageError, match="vllm:MODEL@HOST"):
                open_chat("vllm:")

    def test_a_query_is_ranked(self, qwen_chats: Callable[[str], Any], picture: Callable[..., Image]) -> None:
        with vllm_stand_in.installed() as engine:
            engine.models = {"tiny": qwen_chats(FAMILIES[1])}
            found = [Candidate(id=str(n), image=picture(64, 64, n)) for n in range(3)]
            # random weights would say anything rather than yes or no
            chat = open_chat("vllm:tiny", label_share=0.0)
            result = Reranker("pointwise", chat).rank(Query(text="a dog"), found)
            assert sorted(h.id for h in result) == ["0", "1", "2"]
            assert not result.degraded
