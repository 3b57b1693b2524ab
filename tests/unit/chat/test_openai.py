"""The OpenAI backend against a stub of a server on loopback that misbehaves to order."""

from __future__ import annotations

import base64
import io
import json
import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from openai_stub import KEY, SCHEMA, StubServer, completion, vllm_logprobs
from PIL import Image as Pillow

from mmrerank.chat import openai as backend
from mmrerank.chat.open import open_chat
from mmrerank.errors import ChatError, ReplyError, UsageError
from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.reply_shape import reply_shape
from mmrerank.types import Image


@pytest.fixture
def stub() -> Iterator[StubServer]:
    server = StubServer()
    yield server
    server.close()


@pytest.fixture
def chat(stub: StubServer) -> Iterator[Any]:
    made = open_chat(f"openai:m@{stub.url}", api_key=KEY, backoff=0.01, max_retries=3, timeout=5.0)
    yield made
    made.close()


def ask(*parts: str | Image, **kw: Any) -> Ask:
    made = tuple(Part(text=p) if isinstance(p, str) else Part(image=p) for p in parts or ("hello",))
    return Ask(messages=(Message(role="user", parts=made),), **kw)


def one(chat: Any, question: Ask | None = None) -> Reply:
    reply: Reply = chat.reply([question or ask()])[0]
    return reply


def test_a_plain_answer_and_its_usage(chat: Any, stub: StubServer) -> None:
    reply = one(chat, ask("a", max_tokens=7))
    assert (reply.text, reply.finish, reply.error) == ("fine", "stop", None)
    usage = reply.usage
    assert (usage.calls, usage.input_tokens, usage.output_tokens, usage.images) == (1, 11, 3, 0)
    assert usage.seconds > 0
    sent = stub.requests[0]
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("m", 0.0, 7)
    assert sent["_key"] == f"Bearer {KEY}"


def test_replies_keep_the_order_of_the_asks_and_concurrency_is_bounded(stub: StubServer) -> None:
    chat = backend.open(f"m@{stub.url}", concurrency=3)
    stub.answer = lambda body: completion(body["messages"][0]["content"])
    stub.delay = 0.03
    texts = [f"question {n}" for n in range(12)]
    assert [r.text for r in chat.reply([ask(t) for t in texts])] == texts
    assert 1 < stub.most_under_way <= 3
    chat.close()


def test_images_are_interleaved_sized_and_declared_truly(chat: Any, stub: StubServer, picture: Any) -> None:
    small, large = picture(60, 40, 1), picture(1200, 800, 2)
    one(chat, ask("Image A:", small, "Image B:", large, "Which?", image_tokens=200))
    content = stub.requests[0]["messages"][0]["content"]
    assert [c["type"] for c in content] == ["text", "image_url", "text", "image_url", "text"]
    for place, kind, wide in ((1, "png", 60), (3, "jpeg", None)):
        head, data = content[place]["image_url"]["url"].split(",")
        opened = Pillow.open(io.BytesIO(base64.b64decode(data)))
        assert head == f"data:image/{kind};base64"
        assert (opened.format or "").lower() == kind
        assert opened.width * opened.height <= 200 * 784
        assert wide in (None, opened.width)


def test_a_bad_image_fails_its_own_ask_only(chat: Any, stub: StubServer) -> None:
    good, bad = chat.reply([ask("fine"), ask(Image(data=b"no image"))])
    assert good.text == "fine"
    assert bad.finish == "error"
    assert "image" in str(bad.error)
    assert len(stub.requests) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        (429, {}, {}),
        (429, {"retry-after": "0"}, {}),
        (500, {}, {}),
        (503, {}, b"busy"),
        (408, {}, {}),
        "reset",
        "cut",
    ],
    ids=str,
)
def test_passing_trouble_is_tried_again(chat: Any, stub: StubServer, trouble: Any) -> None:
    stub.script = [trouble, trouble, completion("there")]
    assert one(chat).text == "there"
    assert len(stub.requests) == 3


@pytest.mark.parametrize("trouble", [(429, {}, {}), (500, {}, b"<html>"), "reset"], ids=str)
def test_lasting_trouble_is_given_up_after_the_promised_tries(
    chat: Any, stub: StubServer, trouble: Any
) -> None:
    stub.script = [trouble]
    reply = one(chat)
    assert reply.finish == "error"
    assert reply.error is not None
    assert reply.error.retryable
    assert "m at 127.0.0.1" in str(reply.error)
    assert len(stub.requests) == 4


def test_retry_after_is_honoured_or_the_question_given_up(chat: Any, stub: StubServer) -> None:
    stub.script = [(429, {"retry-after": "0.3"}, {}), completion()]
    assert one(chat).error is None
    assert stub.times[1] - stub.times[0] >= 0.3
    stub.script = [(503, {"retry-after": "9999"}, {}), completion()]
    error = one(chat).error
    assert error is not None
    assert error.retryable
    assert (error.kind, error.systemic, error.retry_after) == ("server", True, 9999)
    assert "answered 503" in str(error)
    assert "asks to wait 9,999 s" in str(error)
    assert len(stub.requests) == 3  # nobody asks again before the time


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_model_concerns_every_ask(chat: Any, stub: StubServer, status: int) -> None:
    stub.script = [(status, {}, {"error": {"message": f"bad key {KEY}"}})]
    with pytest.raises(ChatError, match=rf"m at 127\.0\.0\.1:\d+ answered {status}") as caught:
        chat.reply([ask()])
    assert not caught.value.retryable
    assert len(stub.requests) == 1
    with pytest.raises(ChatError):
        _ = chat.capabilities


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {"content-type": "text/html"}, b"<html>login</html>"), "not JSON"),
        ((200, {}, json.dumps(completion()).encode()[:40]), "not JSON"),
        ({"choices": []}, "no choices"),
        ({"choices": [None]}, "no choices"),
        ([1, 2], "no choices"),
        (completion(""), "no text"),
        (completion(None, "length", message={"reasoning_content": "hmm"}), "only reasoning"),
        (completion("<think>hmm"), "only reasoning"),
        ((200, {}, b" " * (10 * 2**20)), "more than 8 MB"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_a_useless_200_is_an_error_reply_and_not_repeated(
    chat: Any, stub: StubServer, answer: Any, said: str
) -> None:
    stub.script = [answer]
    reply = one(chat)
    assert isinstance(reply.error, ReplyError)
    assert said in str(reply.error)
    assert len(stub.requests) == 1


def test_a_slow_server_times_out(stub: StubServer) -> None:
    chat = backend.open(f"m@{stub.url}", timeout=0.15, max_retries=1, backoff=0.01)
    stub.delay = 0.6
    reply = one(chat)
    assert "no answer within 0.15 s" in str(reply.error)
    assert len(stub.requests) == 2
    chat.close()


def test_a_server_that_is_down() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    chat = backend.open(f"m@http://127.0.0.1:{port}/v1", max_retries=9, backoff=9)
    for asked in (lambda: one(chat), lambda: chat.capabilities):
        with pytest.raises(ChatError, match="cannot be reached: nothing listens there") as caught:
            asked()
        assert (caught.value.kind, caught.value.systemic) == ("unreachable", True)
        assert f"Start it with: vllm serve m --limit-mm-per-prompt '{{\"image\": 20}}' --port {port}" in str(
            caught.value
        )
    chat.close()


def test_reasoning_is_kept_apart(chat: Any, stub: StubServer) -> None:
    stub.script = [completion("<think>no {</think>\n\nyes", message={"reasoning_content": "long"})]
    assert one(chat).text == "yes"
    stub.script = [completion("template opened it</think> yes")]
    assert one(chat).text == "yes"


def test_content_in_parts_and_a_missing_usage(chat: Any, stub: StubServer) -> None:
    answer = completion([{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}])
    del answer["usage"]
    stub.script = [answer]
    reply = one(chat)
    assert reply.text == "in parts"
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (0, 0)


def test_a_cut_reply_says_so(chat: Any, stub: StubServer) -> None:
    stub.script = [completion('{"a"', "length")]
    assert one(chat, ask(schema=SCHEMA)).finish == "length"
    assert len(stub.requests) == 1


class TestSchema:
    """What is done with a reply schema."""

    def test_it_is_sent(self, chat: Any, stub: StubServer) -> None:
        stub.script = [completion('{"a":1}')]
        assert one(chat, ask(schema=SCHEMA)).text == '{"a":1}'
        form = stub.requests[0]["response_format"]
        assert form["json_schema"]["schema"] == SCHEMA
        assert form["json_schema"]["strict"] is True

    @pytest.mark.parametrize("status", [400, 422])
    def test_a_server_that_refuses_it_is_told_in_words(
        self, chat: Any, stub: StubServer, status: int
    ) -> None:
        stub.answer = lambda body: (
            (status, {}, {"error": {"message": "unknown field response_format"}})
            if "response_format" in body
            else completion('{"a":1}')
        )
        assert one(chat, ask(schema=SCHEMA)).text == '{"a":1}'
        assert one(chat, ask(schema=SCHEMA)).text == '{"a":1}'
        assert ["response_format" in r for r in stub.requests] == [True, False, False]
        (turn,) = stub.requests[-1]["messages"]
        assert turn["role"] == "user"
        assert turn["content"].startswith("hello\n\nAnswer with one JSON object")
        assert '"properties"' in turn["content"]

    def test_a_server_that_ignores_it_is_told_in_words(self, chat: Any, stub: StubServer) -> None:
        stub.answer = lambda body: completion(
            '{"a":1}' if "JSON schema" in body["messages"][-1]["content"] else "Sure! Here you are."
        )
        first, second = (one(chat, ask(schema=SCHEMA)) for _ in range(2))
        assert first.text == second.text == '{"a":1}'
        assert [len(r["messages"]) for r in stub.requests] == [1, 1, 1]
        assert "stands in the prompt" in first.notes[0]
        assert first.usage.input_tokens == 2 * second.usage.input_tokens

    def test_a_form_that_the_question_shows_is_not_written_twice(self, chat: Any, stub: StubServer) -> None:
        stub.answer = lambda body: (
            (400, {}, {"error": {"message": "unknown field response_format"}})
            if "response_format" in body
            else completion('{"a":1}')
        )
        shown = f"hello, with JSON like {reply_shape(SCHEMA)}"
        assert one(chat, ask(shown, schema=SCHEMA)).text == '{"a":1}'
        (turn,) = stub.requests[-1]["messages"]
        assert turn["content"] == (
            f"{shown}\n\nAnswer with one JSON object of the shape shown above, and nothing else."
        )

    def test_nor_is_one_told_twice_a_question_for_ever(self, chat: Any, stub: StubServer) -> None:
        stub.script = [completion("Sure! Here you are.")]
        for _ in range(5):
            assert one(chat, ask(schema=SCHEMA)).text.startswith("Sure")
        assert len(stub.requests) == 2 + 2 + 2 + 1 + 1

    def test_prose_from_a_server_that_obeyed_is_that_questions_own(self, chat: Any, stub: StubServer) -> None:
        stub.script = [
            completion('{"a":1}'),
            completion("Busy."),
            completion('{"a":2}'),
            completion('{"a":3}'),
        ]
        assert [one(chat, ask(schema=SCHEMA)).text for _ in range(3)] == ['{"a":1}', '{"a":2}', '{"a":3}']
        told = ["JSON schema" in r["messages"][-1]["content"] for r in stub.requests]
        assert told == [False, False, True, False]

    def test_another_400_is_the_asks_own_and_nothing_is_remembered(self, chat: Any, stub: StubServer) -> None:
        stub.script = [(400, {}, {"error": {"message": "too many tokens"}})]
        error = one(chat, ask(schema=SCHEMA)).error
        assert error is not None
        assert "too many tokens" in str(error)
        assert "smaller window" in str(error)
        assert (error.kind, error.systemic) == ("context", False)
        assert len(stub.requests) == 1
        stub.script = [completion('{"a":1}')]
        one(chat, ask(schema=SCHEMA))
        assert "response_format" in stub.requests[-1]


def test_max_completion_tokens_and_no_temperature_where_the_server_wants_that(
    chat: Any, stub: StubServer
) -> None:
    def picky(body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return 400, {}, {"error": {"message": said}}
        if "temperature" in body:
            return 400, {}, {"error": {"message": "Unsupported value: 'temperature'"}}
        return completion()

    stub.answer = picky
    assert one(chat, ask(max_tokens=9)).text == "fine"
    assert one(chat, ask(max_tokens=9)).text == "fine"
    assert len(stub.requests) == 4
    assert stub.requests[-1]["max_completion_tokens"] == 9


class TestLogprobs:
    """Choices, read from log-probabilities in vLLM's shape."""

    def test_they_are_normalised_over_the_choices(self, chat: Any, stub: StubServer) -> None:
        stub.script = [vllm_logprobs(A=-1.0, B=-2.0, other=-0.5)]
        reply = one(chat, ask(choices=("A", "B")))
        assert reply.logprobs == pytest.approx({"A": -0.313262, "B": -1.313262}, abs=1e-5)
        sent = stub.requests[0]
        assert (sent["max_tokens"], sent["logprobs"], sent["top_logprobs"]) == (1, True, 20)
        assert "response_format" not in sent

    def test_a_missing_choice_gets_the_smallest_value(self, chat: Any, stub: StubServer) -> None:
        stub.script = [vllm_logprobs(A=-1.0, x=-4.0, y=-3.0)]
        found = one(chat, ask(choices=("A", "B"))).logprobs
        assert found["A"] - found["B"] == pytest.approx(3.0)

    def test_no_choice_among_them_is_an_error(self, chat: Any, stub: StubServer) -> None:
        stub.script = [vllm_logprobs(x=-4.0, y=-3.0)]
        assert isinstance(one(chat, ask(choices=("A", "B"))).error, ReplyError)

    def test_the_capability_is_what_the_server_really_does(self, stub: StubServer) -> None:
        for answer, given in (
            (vllm_logprobs(yes=-0.1, no=-2.0), True),
            (vllm_logprobs(Hm=-0.1), True),
            (completion("yes", "length"), False),
            ((400, {}, {"error": {"message": "logprobs is not supported"}}), False),
        ):
            chat = backend.open(f"m@{stub.url}", backoff=0.01)
            stub.script, before = [answer], len(stub.requests)
            assert ("choice_logprobs" in chat.capabilities) is given
            assert "generate" in chat.capabilities
            assert len(stub.requests) == before + 1
            chat.close()

    def test_an_unsaid_refusal_is_a_lack_where_the_plain_question_passes(self, stub: StubServer) -> None:
        stub.answer = lambda body: (422, {}, {}) if "logprobs" in body else completion("yes")
        chat = backend.open(f"m@{stub.url}")
        assert chat.capabilities == {"generate"}
        chat.close()

    @pytest.mark.parametrize(
        ("answer", "kind", "said"),
        [
            ((422, {}, {}), "bad_request", "answered 422"),
            ((200, {}, b"<html>log in</html>"), "web_page", "it is a web page"),
            ((429, {}, {"error": {"message": "Spent.", "code": "insufficient_quota"}}), "quota", "Spent."),
            ((500, {}, b"<html><title>Bad &amp; worse</title>"), "server", "titled 'Bad & worse'"),
        ],
        ids=str,
    )
    def test_other_trouble_is_no_lack(self, stub: StubServer, answer: Any, kind: str, said: str) -> None:
        chat = backend.open(f"m@{stub.url}", backoff=0.01, max_retries=0)
        stub.script = [answer]
        with pytest.raises(ChatError, match=said) as caught:
            _ = chat.capabilities
        assert caught.value.kind == kind
        stub.script = [vllm_logprobs(yes=-0.1, no=-2.0)]
        assert "choice_logprobs" in chat.capabilities  # it is asked about again
        chat.close()

    def test_an_odd_answer_shows_no_lack(self, chat: Any, stub: StubServer) -> None:
        stub.script = [{"choices": None}]
        assert "choice_logprobs" in chat.capabilities
        stub.script = [completion("yes")]
        assert chat.capabilities == {"generate"}


def test_the_key_is_in_no_error_log_or_repr(
    chat: Any, stub: StubServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    shown = [repr(chat), chat.spec]
    for status in (429,):
        stub.script = [(status, {}, said)]
        shown.append(repr(one(chat)))
    for status in (400, 401, 403, 404, 422, 500):
        stub.script = [(status, {}, said)]
        with pytest.raises(ChatError) as caught:
            one(chat)
        shown += [str(caught.getrepr(style="long", chain=True))]
    stub.script = [(200, {}, f"not json {KEY}".encode())]
    shown.append(repr(one(chat)))
    logged = "\n".join(f"{r.getMessage()} {r.args}" for r in caplog.records)
    assert KEY not in "\n".join(shown) + logged


def test_specs(monkeypatch: pytest.MonkeyPatch) -> None:
    for spec in ("openai:", "openai:@http://x/v1", "openai:m@localhost:80", "openai:m@http://"):
        with pytest.raises(UsageError, match="BASE_URL"):
            open_chat(spec)
    with pytest.raises(UsageError, match="OPENAI_API_KEY"):
        open_chat("openai:m")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:hunter22@127.0.0.1:9/v1")
    with pytest.raises(UsageError, match="OPENAI_BASE_URL holds no password") as caught:
        open_chat("openai:m")
    assert "hunter22" not in str(caught.value)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    chat: Any = open_chat("openai:/a/folder")
    assert (chat.model, chat.host, chat.spec) == ("/a/folder", "127.0.0.1:9", "openai:/a/folder")
    chat.close()
    with pytest.raises(UsageError, match="closed"):
        one(chat)


def test_threads_share_one_chat(chat: Any, stub: StubServer) -> None:
    stub.answer = lambda body: completion(body["messages"][0]["content"])
    found: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: one(chat, ask(f"t{n}")).text})) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: f"t{n}" for n in range(6)}
