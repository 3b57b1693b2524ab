"""What every chat backend must do, whichever way it is reached."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import vllm_stand_in
from contract_specs import contract_specs
from tiny_qwen import FAMILIES

from mmrerank import registry
from mmrerank.chat.around import around
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.chat.fakes.scripted import Scripted
from mmrerank.chat.open import open_chat
from mmrerank.errors import ChatError, InputError, UsageError
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Chat
from mmrerank.rerank import comparisons, states
from mmrerank.rerank import judgements as j
from mmrerank.types import Candidate, Component, Image, Query

BARE = (*(f"transformers-{f}" for f in FAMILIES), "openai", "vllm")
AROUND = ("openai+cache", "openai+cache+record+ledger", "openai+warm", "vllm+record")
REAL = (*BARE, *AROUND)
FOREIGN = contract_specs("chat")
ALL = (*REAL, "replay", "scripted", "oracle", *FOREIGN)
SLOW = frozenset(f"transformers-{f}" for f in FAMILIES)
"""Local models; the default suite asks them in tests of their own."""


def each(names: tuple[str, ...]) -> list[Any]:
    return [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in names]


class Echo(BaseHTTPRequestHandler):
    """A stub: answers with a digest of the request, so that any difference in it shows in the reply."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        value = -1.0 - sum(raw) % 97
        top = [{"token": t, "logprob": value * n} for n, t in enumerate(("yes", "no"), 1)]
        choice = {
            "message": {"content": json.dumps({"saw": sum(raw)})},
            "finish_reason": "stop",
            "logprobs": {"content": [{"top_logprobs": top}]},
        }
        body = json.dumps({"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def make(
    qwen_chats: Callable[[str], Any], echo: str, tmp_path: Path, asks: list[Ask]
) -> Iterator[Callable[[str], Any]]:
    opened: list[Any] = []
    warmers = asks
    files = {k: tmp_path / k for k in ("cache", "record", "ledger")}

    def chat(name: str) -> Any:
        name, *layers = name.split("+")
        if layers == ["warm"]:  # everything is answered from the cache
            warm = around(chat(name), cache=files["cache"])
            warm.reply(warmers)
            return around(chat(name), cache=files["cache"])
        if layers:
            return around(chat(name), **{k: files[k] for k in layers})
        if name in FOREIGN:
            return open_chat(FOREIGN[name])
        if name == "vllm":
            engine.models = {"tiny": qwen_chats(FAMILIES[1])}
            return open_chat("vllm:tiny")
        if name == "replay":
            around(chat("openai"), record=files["record"]).reply(warmers)
            return open_chat(f"replay:{files['record']}")
        if name.startswith("transformers-"):
            return qwen_chats(name.removeprefix("transformers-"))
        if name == "openai":
            opened.append(open_chat(f"openai:m@{echo}"))
            return opened[-1]
        if name == "scripted":
            script = tmp_path / "script.jsonl"
            script.write_text(
                '{"kind": "score", "logprobs": {"yes": -0.1, "no": -2.4}}\n{"reply": {"a": 1}}\n'
            )
            return open_chat(f"scripted:{script}")
        return open_chat(name)

    with vllm_stand_in.installed() as engine:
        yield chat
    for each in opened:
        each.close()


@pytest.fixture
def asks(picture: Callable[..., Image]) -> list[Ask]:
    query = Query(text="a red dog", exclude=("cat",))
    parts = [Component(id="c1", kind="subject", text="dog"), Component(id="c2", kind="detail", text="red")]
    found = [Candidate(id=f"{n}.png", image=picture(90 + n, 80, n)) for n in range(3)]
    made = [
        j.deconstruct(query),
        j.evaluate(query, parts, found[:1]),
        j.evaluate(query, parts, found[1:]),
        j.order(query, parts, found, {}),
        comparisons.score(query, found[0]),
        j.single(query, found),
    ]
    return [replace(a, max_tokens=16) for a in made]


def test_every_plug_in_is_covered() -> None:
    # colpali reads vectors and answers nothing; its own tests hold it to the law
    assert {n.partition("-")[0].partition("+")[0] for n in ALL} | {"colpali"} == set(registry.names("chat"))


@pytest.mark.parametrize("name", each(ALL))
def test_one_reply_an_ask_in_order(make: Callable[[str], Any], asks: list[Ask], name: str) -> None:
    chat = make(name)
    assert isinstance(chat, Chat)
    assert "generate" in chat.capabilities
    assert chat.reply([]) == []
    replies = chat.reply(asks)
    assert len(replies) == len(asks)
    for question, reply in zip(asks, replies, strict=True):
        assert isinstance(reply, Reply)
        assert reply.error is None
        images = sum(p.image is not None for m in question.messages for p in m.parts)
        free = name.endswith("+warm")  # what costs nothing says so
        assert (reply.usage.calls, reply.usage.images) == ((0, 0) if free else (1, images))
        assert set(reply.logprobs) == set(question.choices)
        assert bool(reply.text) is not bool(question.choices)


@pytest.mark.parametrize("name", each(REAL))
def test_what_is_for_fakes_changes_nothing_real(
    make: Callable[[str], Any], asks: list[Ask], name: str
) -> None:
    chat = make(name)
    for one, two in zip(chat.reply(asks), chat.reply([a.stripped() for a in asks]), strict=True):
        assert one.text == two.text
        assert one.logprobs == pytest.approx(two.logprobs, abs=1e-6)
        assert one.finish == two.finish
        if "cache" not in name:  # there the second one is free
            assert one.usage.input_tokens == two.usage.input_tokens


@pytest.mark.parametrize("name", each(REAL))
def test_a_reply_depends_on_its_ask_alone(make: Callable[[str], Any], asks: list[Ask], name: str) -> None:
    chat = make(name)
    for one, two in zip(chat.reply(asks), [chat.reply([a])[0] for a in asks], strict=True):
        assert one.text == two.text
        assert one.logprobs == pytest.approx(two.logprobs, abs=1e-5)


@pytest.mark.parametrize("name", each(ALL))
def test_states_are_of_the_shape_asked_for(
    make: Callable[[str], Any], picture: Callable[..., Image], name: str
) -> None:
    chat = make(name)
    query = Query(text="a red dog")
    found = [Candidate(id=f"{n}.png", image=picture(90 + n, 80, n)) for n in range(3)]
    made = [
        states.attend(query, found),
        states.embed_query(query),
        states.embed_candidate(found[0], query),
        states.tokens_of_query(query),
        states.tokens_of_candidate(found[0], query),
    ]
    offered = [a for a in made if a.needs in chat.capabilities]
    assert len(offered) == (5 if name.startswith("transformers") else len(offered))
    replies = chat.reply(offered)
    width = None
    for question, reply in zip(offered, replies, strict=True):
        assert reply.error is None
        assert (reply.text, reply.logprobs) == ("", {})
        assert all(s.dtype == np.float32 for s in reply.states)
        if question.read == "attention":
            read = states.read_attention(reply, question)
            assert read is not None
            assert len(read) == len(found)
            assert all((a >= 0).all() for a in read)
            continue
        (state,) = reply.states
        assert state.ndim == (1 if question.read == "embed" else 2)
        assert np.linalg.norm(state, axis=-1) == pytest.approx(1, abs=1e-5)
        width = width or state.shape[-1]
        assert state.shape[-1] == width
    for one, two in zip(replies, [chat.reply([a])[0] for a in offered], strict=True):
        for a, b in zip(one.states, two.states, strict=True):
            assert a == pytest.approx(b, abs=1e-5)


def test_specs_are_kept_and_wrong_ones_explained(make: Callable[[str], Any]) -> None:
    assert open_chat("oracle").spec == "oracle"
    assert make("openai").spec.startswith("openai:m@http://")
    with pytest.raises(UsageError, match="transformers:PATH_OR_NAME") as caught:
        open_chat("gpt:4")
    assert registry.forms("chat") in str(caught.value)
    with pytest.raises(UsageError, match="takes no 'device'"):
        open_chat("oracle", device="cpu")
    assert open_chat("oracle", device=None)


class TestOracle:
    """The oracle's replies are read by the ordinary readers."""

    def test_its_grades_come_back(self, asks: list[Ask]) -> None:
        chat = Oracle(lambda query, id: int(id[0]) + 1)
        replies = dict(zip(("d", "e1", "e2", "o", "s", "one"), chat.reply(asks), strict=True))
        read = j.read_deconstruct(replies["d"])
        assert (read.status, [c.text for c in read.components]) == ("ok", ["a red dog", "cat"])
        graded = j.read_evaluate(replies["e2"], asks[2])
        assert graded.status == "ok"
        assert {k: a.grade for k, a in graded.assessments.items()} == {"1.png": 2, "2.png": 3}
        assert {v.verdict for v in graded.assessments["2.png"].verdicts} == {"met"}
        assert j.read_order(replies["o"], asks[3]).order == ("2.png", "1.png", "0.png")
        assert comparisons.read_score(replies["s"]) == pytest.approx(-0.51, abs=0.01)
        single = j.read_single(replies["one"], asks[5])
        assert (single.status, single.order) == ("ok", ("2.png", "1.png", "0.png"))

    def test_names_and_files(self, tmp_path: Path, asks: list[Ask]) -> None:
        query = Query(text="red dog")
        order = j.order(query, (), [Candidate(id=i, text="") for i in ("cat.png", "dog-red.png")], {})
        assert j.read_order(open_chat("oracle").reply([order])[0], order).order[0] == "dog-red.png"
        file = tmp_path / "truth.jsonl"
        file.write_text('{"query": "Red  dog", "grades": {"cat.png": 3}}\n')
        known = open_chat(f"oracle:{file}")
        assert j.read_order(known.reply([order])[0], order).order[0] == "cat.png"
        assert "says nothing" in str(known.reply([asks[3]])[0].error)
        file.write_text('{"query": "x"}')
        with pytest.raises(InputError, match="grades"):
            open_chat(f"oracle:{file}")

    def test_a_stripped_ask_is_an_error_reply(self, asks: list[Ask]) -> None:
        assert isinstance(Oracle().reply([asks[0].stripped()])[0].error, ChatError)


class TestScripted:
    """The script's rules."""

    def test_lines_by_kind_and_match_in_turn(self, tmp_path: Path, asks: list[Ask]) -> None:
        script = tmp_path / "s.jsonl"
        script.write_text(
            '{"kind": "order", "reply": "one"}\n{"kind": "order", "reply": "two"}\n'
            '{"match": "Order the images", "kind": "evaluate", "reply": "never"}\n'
            '{"kind": "deconstruct", "error": "broken"}\n{"match": "Judge", "reply": [1]}\n'
        )
        chat = open_chat(f"scripted:{script}")
        assert [chat.reply([asks[3]])[0].text for _ in range(3)] == ["one", "two", "two"]
        assert str(chat.reply([asks[0]])[0].error) == "broken"
        assert chat.reply([asks[1]])[0].text == "[1]"
        assert "no line" in str(chat.reply([asks[4]])[0].error)

    def test_from_python(self, asks: list[Ask]) -> None:
        chat = Scripted(["a", {"b": 1}, Reply(text="c")])
        assert [r.text for r in chat.reply(asks[:4])] == ["a", '{"b": 1}', "c", "c"]
        assert chat.asks == asks[:4]
        assert Scripted(lambda ask: ask.kind).reply(asks[:1])[0].text == "deconstruct"

    @pytest.mark.parametrize(
        "line", ["{", "[]", '{"replay": 1}', '{"kind": "x"}', '{"reply": 1, "error": ""}']
    )
    def test_wrong_lines(self, tmp_path: Path, line: str) -> None:
        script = tmp_path / "s.jsonl"
        script.write_text(line)
        with pytest.raises(InputError):
            open_chat(f"scripted:{script}")
        with pytest.raises(UsageError):
            open_chat("scripted:")
