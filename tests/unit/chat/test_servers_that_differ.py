"""Servers that refuse, complain, redirect or charge in ways of their own, and what must not leak or hang."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from openai_stub import KEY, SCHEMA, StubServer, completion, vllm_logprobs

from mmrerank import Reranker
from mmrerank.budget import Budget, Meter
from mmrerank.chat import openai as backend
from mmrerank.chat.openai.dialect import Dialect
from mmrerank.chat.openai.sdk import LARGEST_ERROR
from mmrerank.errors import ChatError, InputError, UsageError
from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.ports import Capability, Chat
from mmrerank.rerank.drive import drive
from mmrerank.rerank.strategies import listwise
from mmrerank.types import Candidate, Query, Ranking, Usage

FOUND = [Candidate(id=str(n), text=f"t{n}") for n in range(3)]
ORDER = '{"reason":"C is best","scores":{"A":10,"B":20,"C":90}}'


def ask(text: str = "hello", **settings: Any) -> Ask:
    return Ask(messages=(Message(role="user", parts=(Part(text=text),)),), **settings)


@pytest.fixture
def stub() -> Iterator[StubServer]:
    server = StubServer()
    yield server
    server.close()


@pytest.fixture
def opened(stub: StubServer) -> Iterator[Callable[..., Any]]:
    chats: list[Any] = []

    def open_(spec: str = "", **options: Any) -> Any:
        chats.append(
            backend.open(
                spec or f"m@{stub.url}", **{"api_key": KEY, "backoff": 0.01, "timeout": 5.0, **options}
            )
        )
        return chats[-1]

    yield open_
    for chat in chats:
        chat.close()


class TestReasoningModels:
    """What OpenAI's own reasoning models refuse, and what they are charged for."""

    def test_refused_logprobs_are_no_refused_key(self, stub: StubServer, opened: Any) -> None:
        said = {"error": {"message": "You are not allowed to request logprobs from this model"}}
        stub.answer = lambda b: (403, {}, said) if "logprobs" in b else completion(ORDER)
        chat = opened()
        assert chat.capabilities == {"generate"}
        result = Reranker("listwise", chat).rank("a", FOUND)
        assert not result.degraded
        stub.answer = lambda b: (403, {}, {"error": {"message": "no access"}})
        with pytest.raises(ChatError, match="answered 403; check"):
            _ = opened().capabilities

    @pytest.mark.parametrize("known", [("minimal", "low"), ("low", "high"), ("high",)], ids=str)
    def test_the_least_effort_that_a_model_knows(
        self, stub: StubServer, opened: Any, known: tuple[str, ...]
    ) -> None:
        def picky(body: dict[str, Any]) -> Any:
            effort = body.get("reasoning_effort")
            if effort is None or effort in known:
                return completion()
            said = f"Unsupported value: 'reasoning_effort' does not support '{effort}'. Supported: {known}"
            return 400, {}, {"error": {"message": said, "param": "reasoning_effort"}}

        stub.answer = picky
        chat = opened(f"m@openai+{stub.url}")
        chat.dialect = Dialect(quiet={"reasoning_effort": "none"})
        assert all(r.error is None for r in (*chat.reply([ask()]), *chat.reply([ask()])))
        chosen = next((e for e in ("minimal", "low") if e in known), None)
        assert [r.get("reasoning_effort") for r in stub.requests[-2:]] == [chosen] * 2

    def test_a_model_without_thoughts_is_not_asked_thrice(self, stub: StubServer, opened: Any) -> None:
        said = {"error": {"message": "Unrecognized request argument supplied: reasoning_effort"}}
        stub.answer = lambda b: (400, {}, said) if "reasoning_effort" in b else completion()
        chat = opened()
        chat.dialect = Dialect(quiet={"reasoning_effort": "none"})
        assert chat.reply([ask()])[0].error is None
        assert len(stub.requests) == 2

    def test_thoughts_that_took_all_the_room_are_named(self, stub: StubServer, opened: Any) -> None:
        used = {"completion_tokens": 40, "completion_tokens_details": {"reasoning_tokens": 40}}
        stub.script = [completion("", "length") | {"usage": used}]
        chat = opened()
        (reply,) = chat.reply([ask(max_tokens=40)])
        assert "only reasoning within max_tokens (40)" in str(reply.error)
        assert "--chat-option thinking=" in str(reply.error)
        assert chat.thought
        assert reply.usage.output_tokens == 40


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "no temperature, please"}},
        [{"error": {"code": 400, "message": "no temperature, please"}}],
        {"object": "error", "message": "no temperature, please"},
        {"error": "no temperature, please"},
        {"detail": "no temperature, please"},
        {"detail": [{"loc": ["body"], "msg": "no temperature, please"}]},
        {"error": {"message": "no such parameter, please", "param": "temperature"}},
        b"no temperature, please",
        {"error": {"message": "word " * 100 + "temperature"}},
    ],
    ids=lambda b: str(b)[:40],
)
def test_a_complaint_is_understood_in_every_shape(stub: StubServer, opened: Any, body: Any) -> None:
    stub.answer = lambda b: (400, {}, body) if "temperature" in b else completion("fine")
    assert opened().reply([ask()])[0].text == "fine"
    assert len(stub.requests) == 2
    stub.answer = lambda b: (400, {}, body)
    shown = str(opened().reply([ask()])[0].error)
    assert "please" in shown or "word" in shown
    assert len(shown) < 400


def test_a_key_that_is_refused_with_a_400(stub: StubServer, opened: Any) -> None:
    said = [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}]
    stub.script = [(400, {}, said)]
    with pytest.raises(ChatError, match="answered 400; check OPENAI_API_KEY"):
        opened().reply([ask()])
    assert len(stub.requests) == 1


def test_an_error_in_a_good_answer_or_a_stream(stub: StubServer, opened: Any) -> None:
    busy = {"error": {"code": 503, "message": "engine is restarting"}}
    stub.script = [busy, completion("there")]
    assert opened().reply([ask()])[0].text == "there"
    stub.script = [b'data: {"error": {"message": "out of memory"}}\n\n']
    (reply,) = opened(stream=True).reply([ask()])
    assert "out of memory" in str(reply.error)
    stub.script, before = [{"error": "no idea"}], len(stub.requests)
    (reply,) = opened().reply([ask()])
    assert "answered with an error: no idea" in str(reply.error)
    assert len(stub.requests) == before + 1  # it does not say that it passes


class TestNothingLeaks:
    """Headers and bodies go to the server that was named, and to no other."""

    def test_what_is_meant_for_openai_stays_at_home(
        self, stub: StubServer, opened: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_ORG_ID", "org-of-mine")
        monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-mine")
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Api-Key: hunter22")
        assert opened().reply([ask()])[0].error is None
        sent = str(stub.headers[-1])
        assert "Bearer" in sent
        assert not any(secret in sent for secret in ("of-mine", "hunter22"))

    def test_no_redirect_is_followed(self, stub: StubServer, opened: Any) -> None:
        other = StubServer()
        try:
            there = other.url.replace("http://", "http://me:hunter22@") + "/elsewhere?key=hunter22"
            stub.script = [(307, {"location": there}, {})]
            with pytest.raises(ChatError, match=r"answered 307 and points to http://127\.") as caught:
                opened().reply([ask()])
            assert other.requests == []
            assert "hunter22" not in str(caught.value)
        finally:
            other.close()


def test_an_error_page_is_not_read_to_its_end(stub: StubServer, opened: Any) -> None:
    for length, asked in ((6000, 2), (LARGEST_ERROR, 1)):
        page = b"x" * length + b" temperature"

        def answer(body: dict[str, Any], page: bytes = page) -> Any:
            return (400, {}, page) if "temperature" in body else completion()

        stub.answer = answer
        before = len(stub.requests)
        opened().reply([ask()])
        assert len(stub.requests) - before == asked


class TestWaiting:
    """How long until the next try."""

    @pytest.fixture
    def told(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """The pauses that were made, each of no length."""
        pauses: list[float] = []
        real = asyncio.sleep

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            await real(0)

        monkeypatch.setattr(asyncio, "sleep", sleep)
        return pauses

    def test_who_is_told_the_same_does_not_come_back_together(
        self, stub: StubServer, opened: Any, told: list[float]
    ) -> None:
        refused: set[str] = set()

        def once(body: dict[str, Any]) -> Any:
            text = body["messages"][0]["content"]
            if text in refused:
                return completion()
            refused.add(text)
            return 429, {"retry-after": "20"}, {}

        stub.answer = once
        opened(backoff=1.0).reply([ask(str(n)) for n in range(8)])
        assert len(set(told)) == 8
        assert all(20.5 <= t <= 21 for t in told)

    def test_no_wait_at_all_still_is_a_pause(self, stub: StubServer, opened: Any, told: list[float]) -> None:
        stub.script = [(429, {"retry-after": "0"}, {})]
        opened(backoff=1.0, max_retries=3).reply([ask()])
        assert [round(t * 2 / 2**n) / 2 in (0.5, 1.0) for n, t in enumerate(told)] == [True] * 3


def test_closing_ends_what_is_under_way(stub: StubServer, opened: Any) -> None:
    stub.delay = 3.0
    chat = opened()
    ended: list[BaseException] = []

    def work() -> None:
        try:
            chat.reply([ask()])
        except ChatError as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not stub.requests:
        thread.join(0.02)
    chat.close()
    thread.join(2.0)
    assert not thread.is_alive()
    assert "given up" in str(ended[0])
    with pytest.raises(UsageError, match="closed"):
        chat.reply([ask()])


class TestBudgets:
    """A meter counts what was asked, and holds nothing for ever."""

    @pytest.mark.parametrize("error", [InputError("disk full"), KeyboardInterrupt()], ids=repr)
    def test_an_error_that_ends_a_ranking_gives_back_what_it_held(self, error: BaseException) -> None:
        class Broken(Chat):
            spec, domain = "broken", ""
            capabilities: frozenset[Capability] = frozenset({"generate"})

            def reply(self, asks: Sequence[Ask]) -> list[Reply]:
                raise error

        meter = Meter(Budget(calls=1))
        judging = listwise.rank(Query(text="a"), Ranking(tuple(FOUND)), listwise.Options())
        with pytest.raises(type(error)):
            drive([judging], Broken(), total=meter)
        assert not meter.settling()
        assert meter.take(Usage(calls=1)) == ""

    def test_room_to_think_is_part_of_the_most_a_question_costs(self, stub: StubServer, opened: Any) -> None:
        stub.script = [completion(ORDER)]
        plain, thinking = opened(), opened(thinking=2048)
        question = ask(max_tokens=20, schema=SCHEMA)
        more = thinking.bound(question).output_tokens - plain.bound(question).output_tokens
        assert more == 2048
        choice = ask(choices=("A", "B"))
        assert thinking.bound(choice) == plain.bound(choice)
        result = Reranker("listwise", thinking, budget=Budget(tokens=2000)).rank("a", FOUND)
        assert result.degraded
        # it might have cost more than there is
        assert all(r["max_tokens"] == 1 for r in stub.requests)

    def test_a_second_asking_that_fails_still_tells_what_the_first_cost(
        self, stub: StubServer, opened: Any
    ) -> None:
        stub.script = [completion("prose"), (400, {}, {"error": {"message": "no"}})]
        (reply,) = opened().reply([ask(schema=SCHEMA)])
        assert reply.error is not None
        assert reply.usage.input_tokens == completion()["usage"]["prompt_tokens"]


def test_what_one_question_learns_another_does_not_undo(stub: StubServer, opened: Any) -> None:
    slow, learnt = threading.Event(), threading.Event()

    def answer(body: dict[str, Any]) -> Any:
        if body["messages"][0]["content"] == "slow":
            slow.set()
            learnt.wait(5)
            return completion()
        if "max_tokens" in body:
            return 400, {}, {"error": {"message": "use max_completion_tokens"}}
        return completion()

    # the stub answers one request at a time while it holds its lock, so the slow one waits outside it
    stub.later = answer
    chat = opened()
    thread = threading.Thread(target=chat.reply, args=([ask("slow")],))
    thread.start()
    assert slow.wait(5)
    assert chat.reply([ask("quick")])[0].error is None
    learnt.set()
    thread.join()
    assert chat.dialect.limit == "max_completion_tokens"


def test_log_probabilities_are_still_read(stub: StubServer, opened: Any) -> None:
    stub.script = [vllm_logprobs(yes=-0.1, no=-2.0)]
    assert opened().capabilities == {"generate", "choice_logprobs"}
