"""What waits in line is not sent to a server that has stopped answering; one that comes back is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from openai_stub import KEY, StubServer, completion

from mmrerank.chat.open import open_chat
from mmrerank.chat.openai.outage import Outage
from mmrerank.errors import ChatError
from mmrerank.messages import Ask, Message, Part

QUOTA = (429, {}, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}})
GATEWAY = (502, {"content-type": "text/html"}, b"<html>502 Bad Gateway</html>")
LATER = (429, {"retry-after": "7200"}, {"error": {"message": "Rate limit reached for requests"}})


@pytest.fixture
def stub() -> Iterator[StubServer]:
    server = StubServer()
    yield server
    server.close()


def asks(count: int) -> list[Ask]:
    return [Ask(messages=(Message(role="user", parts=(Part(text=f"question {n}"),)),)) for n in range(count)]


def opened(stub: StubServer, **more: Any) -> Any:
    return open_chat(f"openai:m@{stub.url}", api_key=KEY, **{"backoff": 0.001, "max_retries": 1, **more})


@pytest.mark.parametrize(("answer", "most"), [(QUOTA, 20), (LATER, 20), (GATEWAY, 40)])
def test_a_line_of_questions_is_not_sent_after_the_server_has_stopped(
    stub: StubServer, answer: Any, most: int
) -> None:
    stub.script = [*([completion()] * 5), answer]
    chat = opened(stub)
    assert chat.reply(asks(1))[0].error is None
    replies = chat.reply(asks(80))
    assert sum(r.error is None for r in replies) == 4
    assert len(stub.requests) <= 5 + most
    sent = [r for r in replies if r.usage.calls]
    assert len(sent) <= 4 + most
    assert all(r.error is None or "m at 127.0.0.1" in str(r.error) for r in replies)
    # what is asked later is sent again, and finds it back
    stub.script = [completion()]
    assert [r.error for r in chat.reply(asks(20))] == [None] * 20
    chat.close()


def test_single_failures_send_everything(stub: StubServer) -> None:
    """A question's own failure, and a server that stumbles now and then, hold nobody back."""
    count = 0

    def answer(_: Any) -> Any:
        nonlocal count
        count += 1
        return (
            GATEWAY
            if count % 5 == 0
            else (400, {}, {"error": {"message": "no"}})
            if count % 7 == 0
            else completion()
        )

    stub.answer = answer
    chat = opened(stub, max_retries=0, concurrency=1)
    replies = chat.reply(asks(22))
    assert len(stub.requests) == 22
    assert all(r.usage.calls == 1 for r in replies)
    chat.close()


def test_a_server_that_starts_again_within_the_tries_is_waited_for(stub: StubServer) -> None:
    chat = opened(stub, max_retries=5, backoff=0.1)
    assert chat.reply(asks(1))[0].error is None
    port = stub.server.server_port
    stub.server.shutdown()
    stub.server.server_close()
    again: list[Any] = []

    def back() -> None:
        time.sleep(0.3)
        from http.server import ThreadingHTTPServer

        server = ThreadingHTTPServer(("127.0.0.1", port), stub.server.RequestHandlerClass)
        again.append(server)
        server.serve_forever(poll_interval=0.02)

    thread = threading.Thread(target=back)
    thread.start()
    try:
        assert [r.error for r in chat.reply(asks(12))] == [None] * 12
    finally:
        chat.close()
        again[0].shutdown()
        again[0].server_close()
        thread.join()


def test_an_outage_is_noticed_after_some_failures_of_one_kind() -> None:
    outage, start = Outage(), time.monotonic()
    for kind, most in (("quota", 8), ("server", 8), ("forbidden", 16)):
        for n in range(1, most + 1):
            outage.note(ChatError("gone", kind=kind))  # type: ignore[arg-type]
            assert (outage.since(start) is not None) == (n == most)
        assert outage.since(time.monotonic() + 1) is None
        outage.note(ChatError("its own", kind="bad_request"))
        assert outage.since(start) is None
    for kind in ("quota", "auth", "quota", "auth"):
        outage.note(ChatError("gone", kind=kind))  # type: ignore[arg-type]
    assert outage.since(start) is None
