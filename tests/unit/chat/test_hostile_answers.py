"""What a server may send to do harm: it costs one judgement, and neither memory nor the batch.

Bodies that unpack to gigabytes, as in aio-libs/aiohttp's CVE-2025-69223 and urllib3's CVE-2025-66471; numbers
past any float, as in python/cpython#95778.
"""

from __future__ import annotations

import gzip
import json
import resource
import time
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from openai_stub import KEY, StubServer, completion, vllm_logprobs

from mmrerank.chat.around.replies import from_plain, packed, to_plain
from mmrerank.chat.open import open_chat
from mmrerank.chat.openai.amounts import number_below, size_limits, wait_in_words
from mmrerank.chat.openai.stream import assembled
from mmrerank.chat.text import thinks_on, without_thinking
from mmrerank.errors import ChatError, ReplyError
from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.types import Usage

BROTLI = bytes.fromhex("cbffff3f0024e2b1ff") * 180  # 1.6 KB; what it holds is never looked at
GOOD = json.dumps(completion("fine")).encode()
BOMB = gzip.compress(gzip.compress(b" " * (64 << 20), 9), 9)  # a few hundred bytes
DIGITS = "1" + "0" * 400


@pytest.fixture(scope="module")
def stub() -> Iterator[StubServer]:
    server = StubServer()
    yield server
    server.close()


@pytest.fixture
def chat(stub: StubServer) -> Iterator[Any]:
    made = open_chat(f"openai:m@{stub.url}", api_key=KEY, backoff=0.001, max_retries=1, timeout=5.0)
    yield made
    made.close()


def ask(**kw: Any) -> Ask:
    return Ask(messages=(Message(role="user", parts=(Part(text="hello"),)),), **kw)


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("br", BROTLI),
        ("BR", BROTLI),
        ("zstd", b"x"),
        ("gzip, gzip", BOMB),
        ("gzip, br", BROTLI),
        ("gzip", gzip.decompress(BOMB)),
        ("deflate", zlib.compress(b" " * (64 << 20), 9)),
        ("deflate", b"no zlib"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_packed_answer_is_unpacked_no_further_than_is_read(
    chat: Any, stub: StubServer, status: int, encoding: str, body: bytes
) -> None:
    stub.script = [(status, {"content-encoding": encoding}, body)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = chat.reply([ask()])[0].error
    assert isinstance(error, ChatError)
    assert not error.systemic
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KB, of 64 MB and more
    if encoding in ("br", "zstd", "gzip, gzip"):
        assert f"packed its answer ({encoding})" in str(error)
    sent = {name.lower(): value for name, value in stub.headers[-1].items()}
    assert sent["accept-encoding"] == "identity"


def test_an_answer_that_a_proxy_packed_all_the_same_is_read(chat: Any, stub: StubServer) -> None:
    for encoding, body in (("gzip", gzip.compress(GOOD)), ("deflate", zlib.compress(GOOD))):
        stub.script = [(200, {"content-encoding": encoding}, body)]
        assert chat.reply([ask()])[0].text == "fine"


@pytest.mark.parametrize(
    "value", [DIGITS, "-" + DIGITS, "1e999", "-1e999", "NaN", "true", "[1]", '"-0.1"', "null"]
)
def test_an_odd_log_probability_spoils_no_batch(chat: Any, stub: StubServer, value: str) -> None:
    good = json.dumps(vllm_logprobs(yes=-0.25, no=-1.5)).encode()
    odd = good.replace(b"-0.25", value.encode())
    stub.answer = lambda body: (200, {}, odd if "odd" in str(body["messages"]) else good)
    strange = Ask(messages=(Message(role="user", parts=(Part(text="odd"),)),), choices=("yes", "no"))
    replies = chat.reply([ask(choices=("yes", "no")), strange, ask(choices=("yes", "no"))])
    stub.answer = None
    for reply in (replies[0], replies[2]):
        assert reply.logprobs["yes"] - reply.logprobs["no"] == pytest.approx(1.25)
    kept = replies[1]
    assert kept.error is not None or all(abs(v) <= 2e4 for v in kept.logprobs.values())


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":[{"message":{"content":"x"},"finish_reason":["stop"],"index":%d}],"usage":{"prompt_tokens":'
        b'1e999,"completion_tokens":%s}}' % (10**400, DIGITS.encode()),
        b'{"choices":[{"message":{"content":"x"}}],"created":NaN,"usage":{"prompt_tokens":-5,'
        b'"completion_tokens":true}}',
        b'{"choices":[{"message":{"content":"x"}}],"usage":[1],"model":["m"]}',
    ],
    ids=["huge", "odd", "lists"],
)
def test_odd_numbers_beside_an_answer_count_nothing(chat: Any, stub: StubServer, body: bytes) -> None:
    stub.script = [(200, {}, body)]
    reply = chat.reply([ask()])[0]
    assert (reply.text, reply.error) == ("x", None)
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (0, 0)


def test_five_thousand_digits_are_one_failed_reply(chat: Any, stub: StubServer) -> None:
    stub.script = [(200, {}, GOOD.replace(b'"created": 1', b'"created": 1' + b"0" * 5000))]
    assert isinstance(chat.reply([ask()])[0].error, ReplyError)


@pytest.mark.parametrize(
    "wait", ["nan", "inf", "1e999", "-5", "9" * 400, "Fri, 31 Dec 99999 23:59:59 GMT", "\xb2"]
)
def test_an_odd_wait_is_none(chat: Any, stub: StubServer, wait: str) -> None:
    stub.script = [(429, {"retry-after": wait}, {"error": "busy"}), completion("fine")]
    reply = chat.reply([ask()])[0]
    assert reply.text == "fine" or (reply.error.kind, reply.error.retry_after) == ("rate_limit", 1e9)


def test_numbers_of_any_length_in_an_error_are_read_or_left() -> None:
    many = "9" * 5_000
    assert wait_in_words(f"try again in {many} s") in (None, 1e9)
    assert number_below(f"must be less than {many}", 5) is None
    assert size_limits(f"image exceeds {many} MB maximum").most_bytes == 0
    assert size_limits(f"image must be larger than {many}").least_side in (0, int("9" * 9))
    assert size_limits(f"maximum is 4000x{many} pixels").most_side < 10**9


def test_an_error_is_one_short_printable_line(chat: Any, stub: StubServer) -> None:
    evil = "\u202e\x1b[31mred\x00\ud800\n" + "A" * 500_000
    stub.script = [(400, {}, json.dumps({"error": {"message": evil}}).encode())]
    said = str(chat.reply([ask()])[0].error)
    assert len(said) <= 1_000
    assert said.isprintable()
    assert len(str(ChatError(evil))) <= 1_000


def test_a_stream_of_tiny_pieces_after_a_large_one_is_put_together_in_one_go() -> None:
    first = {"choices": [{"delta": {"content": "x" * 2_000_000}}]}
    tiny = b'data: {"choices":[{"delta":{"content":"y"}}]}\n\n'
    whole = b"data: " + json.dumps(first).encode() + b"\n\n" + tiny * 20_000 + b"data: [DONE]\n\n"
    start = time.process_time()
    made = assembled(whole)
    assert time.process_time() - start < 2  # 40 GB of copies otherwise
    assert made is not None
    assert len(json.loads(made)["choices"][0]["message"]["content"]) == 2_020_000


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think></think>" * 80_000 + "yes", "yes"),
        ("</think>" * 100_000 + "yes", "yes"),
        ("<think>" * 100_000, ""),
        ("x" + "<think>" * 100_000, "x"),
        ("x <think>a</think> y" * 40_000, "x y" * 40_000),
        ('x{"</think>' * 80_000 + "yes", "yes"),
    ],
    ids=["blocks", "ends", "begins", "late begins", "between", "braces"],
)
def test_thoughts_are_taken_out_in_one_go(text: str, left: str) -> None:
    start = time.process_time()
    assert without_thinking(text) == left
    thinks_on(text)
    assert time.process_time() - start < 0.6


def test_a_kept_reply_that_was_not_written_here_is_refused() -> None:
    good = to_plain(Reply(text="x", usage=Usage(calls=1)))
    for field, odd in {"usage": {"calls": 10**400}, "logprobs": {"yes": 10**400}, "text": 5}.items():
        with pytest.raises((ValueError, ArithmeticError)):
            from_plain({**good, field: odd})
    for usage in ({"calls": "1"}, {"calls": True}, {"seconds": float("nan")}, {"images": -1}):
        with pytest.raises(ValueError, match="no count"):
            from_plain({**good, "usage": usage})
    states = packed(Reply(states=(np.zeros(3, np.float32),)))
    assert states is not None
    assert from_plain(good, states).states[0].shape == (3,)
