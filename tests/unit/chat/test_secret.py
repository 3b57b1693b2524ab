"""A key comes back into nothing that is shown or kept, whatever form a server gives it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from traceback import format_exception
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_stub import StubServer, completion

from mmrerank.chat.around.record import Recorded
from mmrerank.chat.open import open_chat
from mmrerank.chat.openai.secret import Secret
from mmrerank.errors import ChatError
from mmrerank.messages import Ask, Message, Part

KEY = "sk-Ab3/+xYz_0123456789~key"
FORMS = {
    "plain": KEY,
    "basic": base64.b64encode(f"user:{KEY}".encode()).decode(),
    "bearer": base64.b64encode(f"Bearer {KEY}".encode()).decode(),
    "url-safe": base64.urlsafe_b64encode(f"{KEY}x".encode()).decode(),
    "percent": quote(KEY, safe=""),
    "json": "".join(f"\\u{ord(c):04x}" for c in KEY),
    "slash": KEY.replace("/", "\\/"),
    "html": KEY.replace("/", "&#x2F;").replace("+", "&#43;"),
    "hex": KEY.encode().hex(),
    "upper": KEY.upper(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_blotted_out(form: str) -> None:
    said = Secret(KEY).clean(f"you sent {FORMS[form]}!")
    assert said.startswith("you sent ")
    assert said.endswith("!")
    assert "***" in said
    assert len(said) < len("you sent ***!") + 14  # what stood beside the key in base64 stays


@given(st.binary(max_size=9), st.binary(max_size=9))
def test_base64_of_anything_around_the_key_is_blotted_out(before: bytes, after: bytes) -> None:
    said = Secret(KEY).clean(base64.b64encode(before + KEY.encode() + after).decode())
    assert "***" in said


def test_other_text_and_short_placeholders_stay() -> None:
    text = "sk-Ab3 is not the key; EMPTY neither"
    assert Secret(KEY).clean(text) == text
    assert Secret("EMPTY").clean(text) == text


def test_what_only_begins_like_the_key_is_read_in_one_pass() -> None:
    start = time.process_time()
    for junk in ("s" * 10**5, KEY[:-1] * 4_000, "%73" * 30_000):
        assert Secret(KEY).clean(junk) == junk
    assert time.process_time() - start < 1


@pytest.fixture
def stub() -> Iterator[StubServer]:
    server = StubServer()
    yield server
    server.close()


@pytest.mark.parametrize("form", ["plain", "basic", "percent"])
def test_no_answer_brings_it_into_a_message_or_a_record(form: str, stub: StubServer, tmp_path: Path) -> None:
    quoted, file = FORMS[form], tmp_path / "record.jsonl"
    chat: Any = open_chat(f"openai:m@{stub.url}", api_key=KEY, max_retries=0, backoff=0)
    ask = Ask(messages=(Message(role="user", parts=(Part(text="hi"),)),))
    shown = []
    for answer in (
        (307, {"location": f"http://other.example/{quoted}/v1?key={quoted}"}, b""),
        (401, {}, {"error": {"message": f"bad key {quoted}", "code": quoted}}),
        (500, {}, f"<html><h1>{quoted}</h1></html>".encode()),
        completion(f"your key is {quoted}"),
        (200, {}, quoted.encode()),
        (200, {}, {"a": quoted}),
    ):
        stub.script = [answer]
        try:
            shown.append(repr(Recorded(chat, file).reply([ask])))
        except ChatError as error:
            shown += [repr(error), repr(vars(error)), "".join(format_exception(error))]
    chat.close()
    told = "\n".join(shown) + file.read_text("ascii")
    assert told.count("***") >= 4
    for secret in (KEY, quoted, json.dumps(KEY)[1:-1]):
        assert secret not in told
