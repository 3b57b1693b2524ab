"""Servers by name, their keys, streams, deadlines, and what is found out about them."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from openai_stub import KEY, SCHEMA, StubServer, completion, vllm_logprobs

from mmrerank import catalog
from mmrerank.budget import Budget
from mmrerank.chat import openai as backend
from mmrerank.chat.around.identity import fingerprint
from mmrerank.chat.open import open_chat
from mmrerank.chat.openai.reading import answered_as
from mmrerank.chat.openai.said import retry_after
from mmrerank.chat.openai.stream import assembled
from mmrerank.chat.probe import probe
from mmrerank.errors import BudgetError, ChatError, ReplyError, UsageError
from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate


@pytest.fixture
def stub() -> Iterator[StubServer]:
    server = StubServer()
    yield server
    server.close()


@pytest.fixture
def opened() -> Iterator[Any]:
    made: list[Any] = []

    def chat(spec: str, **options: Any) -> Any:
        made.append(open_chat(spec, **{"backoff": 0.01, **options}))
        return made[-1]

    yield chat
    for each in made:
        each.close()


def ask(text: str = "hello", **kw: Any) -> Ask:
    return Ask(messages=(Message(role="user", parts=(Part(text=text),)),), **kw)


def one(chat: Any, question: Ask | None = None) -> Reply:
    reply: Reply = chat.reply([question or ask()])[0]
    return reply


class TestNames:
    """``NAME:MODEL[@HOST]``."""

    @pytest.mark.parametrize(
        ("spec", "meant"),
        [
            ("ollama:qwen2.5vl:7b", "openai:qwen2.5vl:7b@ollama+http://127.0.0.1:11434/v1"),
            ("ollama:m@box", "openai:m@ollama+http://box:11434/v1"),
            ("sglang:a/b@10.0.0.2:99", "openai:a/b@sglang+http://10.0.0.2:99/v1"),
            ("lmstudio:m", "openai:m@lmstudio+http://127.0.0.1:1234/v1"),
            ("llamacpp:m", "openai:m@llamacpp+http://127.0.0.1:8080/v1"),
            ("vllm:a/b@h", "openai:a/b@vllm+http://h:8000/v1"),
            ("vllm:a/b@https://h/x/v1", "openai:a/b@vllm+https://h/x/v1"),
            ("vllm:a/b", "vllm:a/b"),
            ("openai:m", "openai:m"),
            ("gemini:g", "openai:g@gemini+https://generativelanguage.googleapis.com/v1beta/openai"),
        ],
    )
    def test_what_they_mean(self, spec: str, meant: str) -> None:
        assert catalog.resolve("chat", spec).spec == meant

    def test_a_folder_with_an_at_sign_is_a_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / "model@3"
        folder.mkdir()
        assert catalog.resolve("chat", f"vllm:{folder}").spec == f"vllm:{folder}"

    def test_every_server_has_its_own_key_and_no_other(
        self, monkeypatch: pytest.MonkeyPatch, stub: StubServer, opened: Any
    ) -> None:
        for server in catalog.servers():
            monkeypatch.setenv(server.key, f"sk-{server.name}-0123456789")
        for server in catalog.servers():
            if server.name == "openai":
                chat = opened(f"openai:m@{stub.url}")
            else:
                chat = opened(f"{server.name}:m@{stub.url}")
            assert one(chat).error is None
            assert stub.requests[-1]["_key"] == f"Bearer sk-{server.name}-0123456789"
            assert stub.url == f"http://{chat.host}/v1"
        monkeypatch.delenv("OLLAMA_API_KEY")
        one(opened(f"ollama:m@{stub.url}"))
        assert stub.requests[-1]["_key"] == "Bearer none"

    def test_a_hosted_server_without_its_key(self) -> None:
        with pytest.raises(UsageError, match="set GEMINI_API_KEY"):
            open_chat("gemini:gemini-2.5-flash")

    def test_no_password_in_an_address(self) -> None:
        with pytest.raises(UsageError) as caught:
            open_chat("openai:m@http://me:hunter22@127.0.0.1/v1")
        assert "hunter22" not in str(caught.value)
        with pytest.raises(UsageError, match="ollama") as caught:
            open_chat("openai:m@nobody+http://me:hunter22@127.0.0.1/v1")
        assert "hunter22" not in str(caught.value)
        with pytest.raises(UsageError, match=r"forms are .*ollama:MODEL\[@HOST\]"):
            open_chat("olama:m")

    @pytest.mark.parametrize(
        ("typed", "asked"),
        [
            ("/v1/", "/v1/chat/completions"),
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/openai/deployments/d1?api-version=2024-10-21",
             "/openai/deployments/d1/chat/completions?api-version=2024-10-21"),
            ("/v1/chat/completions?a=1&b=", "/v1/chat/completions?a=1&b="),
        ],
    )  # fmt: skip
    def test_a_base_url_as_people_copy_it(
        self, stub: StubServer, opened: Any, typed: str, asked: str
    ) -> None:
        """BerriAI/litellm#8572: a query belongs behind the path of the call."""
        assert one(opened(f"openai:m@{stub.url.removesuffix('/v1')}{typed}")).error is None
        assert stub.paths == [asked]

    @pytest.mark.parametrize(
        "query", ["key=hunter22", "api_key=hunter22", "sig=hunter22", "access_token=hunter22"]
    )
    def test_no_key_in_an_address(self, query: str) -> None:
        with pytest.raises(UsageError, match="a base URL holds no key") as caught:
            open_chat(f"openai:m@http://127.0.0.1/v1?{query}")
        assert "hunter22" not in str(caught.value)

    def test_azure_reads_its_keys_from_a_header_of_its_own(self, opened: Any) -> None:
        chat = opened("openai:m@https://me.openai.azure.com/openai/deployments/d", api_key="k" * 9)
        assert chat._client._custom_headers == {"api-key": "k" * 9}

    def test_the_limit_and_the_quiet_fields(self, stub: StubServer, opened: Any) -> None:
        stub.script = [completion('{"a":1}')]
        vllm = opened(f"vllm:m@{stub.url}")
        one(vllm, ask(schema=SCHEMA, max_tokens=9))
        assert stub.requests[-1]["chat_template_kwargs"] == {"enable_thinking": False}
        assert stub.requests[-1]["max_tokens"] == 9
        one(opened(f"vllm:m@{stub.url}", thinking=100), ask(max_tokens=9))
        assert "chat_template_kwargs" not in stub.requests[-1]
        assert stub.requests[-1]["max_tokens"] == 109
        stub.script = [vllm_logprobs(a=-1.0, b=-2.0)]
        one(opened(f"vllm:m@{stub.url}", thinking=100), ask(choices=("a", "b")))
        assert stub.requests[-1]["chat_template_kwargs"] == {"enable_thinking": False}
        assert stub.requests[-1]["structured_outputs"] == {"choice": ["a", " a", "b", " b"]}
        assert stub.requests[-1]["max_tokens"] == 1

    @pytest.mark.parametrize(
        ("model", "options", "sides"),
        [
            ("Qwen/Qwen3-VL-8B-Instruct", {}, (512, 512)),
            ("qwen3-vl:8b", {}, (512, 512)),
            ("Qwen3.5-27B", {}, (512, 512)),
            ("Qwen/Qwen2.5-VL-7B-Instruct", {}, (448, 448)),
            ("judge", {"pixels_per_token": 1024}, (512, 512)),
        ],
    )
    def test_a_token_is_as_many_pixels_as_the_model_has_it(
        self, stub: StubServer, opened: Any, picture: Any, model: str, options: Any, sides: Any
    ) -> None:
        # 256 tokens: of 32 x 32 pixels for Qwen3-VL, of 28 x 28 for those before it
        part = Part(image=picture(1024, 1024))
        message = Message(role="user", parts=(part,))
        stub.script = [completion("a boat")]
        one(
            opened(f"openai:{model}@{stub.url}", any_model=True, **options),
            Ask(messages=(message,), image_tokens=256),
        )
        url = stub.requests[-1]["messages"][0]["content"][0]["image_url"]["url"]
        sent = PIL.Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
        assert sent.size == sides

    def test_foreign_fields_are_left_out_where_they_are_refused(self, stub: StubServer, opened: Any) -> None:
        def picky(body: dict[str, Any]) -> Any:
            wrong = {"chat_template_kwargs", "structured_outputs"} & body.keys()
            return (422, {}, {"detail": f"extra fields: {wrong}"}) if wrong else vllm_logprobs(a=-1.0)

        stub.answer = picky
        chat = opened(f"vllm:m@{stub.url}")
        assert one(chat, ask(choices=("a", "b"))).error is None
        assert one(chat, ask(choices=("a", "b"))).error is None
        assert len(stub.requests) == 4

    def test_fields_of_ones_own(self, stub: StubServer, opened: Any) -> None:
        chat = opened(f"openai:m@{stub.url}", extra='{"top_k": 1, "seed": 3}')
        one(chat)
        assert (stub.requests[-1]["top_k"], stub.requests[-1]["seed"]) == (1, 3)
        assert fingerprint(chat) != fingerprint(opened(f"openai:m@{stub.url}"))
        with pytest.raises(UsageError, match="JSON object"):
            open_chat(f"openai:m@{stub.url}", extra="top_k=1")


class TestWaiting:
    """Retry-After, deadlines, cancelling."""

    def test_retry_after_in_all_its_forms(self) -> None:
        now = time.time()
        date = formatdate(now + 20, usegmt=True)
        assert retry_after({"retry-after": "7"}) == 7
        assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
        assert retry_after({"retry-after": "-3"}) == 0
        assert retry_after({"retry-after": date}) == pytest.approx(20, abs=1.5)
        # the server's clock is an hour off; its own date says how long it means
        theirs = {"retry-after": formatdate(now + 3605, usegmt=True), "date": formatdate(now + 3600)}
        assert retry_after(theirs) == pytest.approx(5, abs=1.5)
        for nothing in ({}, {"retry-after": "soon"}, {"retry-after": "nan"}, {"retry-after": "inf"}):
            assert retry_after(nothing) is None

    def test_a_date_is_waited_for(self, stub: StubServer, opened: Any) -> None:
        soon = (429, {"retry-after": formatdate(time.time() + 2, usegmt=True)}, {})
        stub.script = [soon, completion()]
        assert one(opened(f"openai:m@{stub.url}")).error is None
        assert 0.4 < stub.times[1] - stub.times[0] < 3

    def test_a_server_that_is_gone_for_a_moment_is_waited_for(self, stub: StubServer, opened: Any) -> None:
        chat = opened(f"openai:m@{stub.url}", max_retries=8, backoff=0.02)
        assert one(chat).error is None
        stub.script = ["reset", completion("back")]
        assert one(chat).text == "back"

    def test_a_ranking_ends_in_its_time_on_a_server_that_hangs(self, stub: StubServer, opened: Any) -> None:
        chat = opened(f"openai:m@{stub.url}", timeout=60.0)
        assert one(chat).error is None
        found = [Candidate(id=str(n), text=f"t{n}") for n in range(4)]
        Reranker("listwise", chat).rank("a", found)  # what is loaded at first use takes its time
        reranker = Reranker("listwise", chat, budget=Budget(seconds=0.3))
        stub.delay = 1.5
        start = time.monotonic()
        result = reranker.rank("a", found)
        assert time.monotonic() - start < 1.2
        assert [h.id for h in result] == ["0", "1", "2", "3"]
        assert result.degraded
        assert "had not answered when the time was over" in result.warnings[0]

    def test_what_was_answered_in_time_is_kept(self, stub: StubServer, opened: Any) -> None:
        chat = opened(f"openai:m@{stub.url}", concurrency=1)
        stub.delay = 0.2
        replies = chat.reply_within([ask("1"), ask("2"), ask("3")], 0.3)
        assert [r.error is None for r in replies] == [True, False, False]
        assert isinstance(replies[2].error, BudgetError)
        assert [r.usage.calls for r in replies] == [1, 1, 1]

    def test_queries_do_not_wait_for_the_slowest(self, stub: StubServer, opened: Any) -> None:
        """One query of many hangs in its first question; the others come to their end meanwhile."""
        stub.answer = lambda body: (
            (time.sleep(0.4) if "slow one" in json.dumps(body) else None) or vllm_logprobs(A=-0.1, B=-2.0)
        )
        chat = opened(f"openai:m@{stub.url}", concurrency=4)
        found = [Candidate(id=str(n), text=f"t{n}") for n in range(3)]
        results = Reranker("prp", chat).rank_batch([(q, found) for q in ("slow one", "b", "c")])
        assert all(not r.degraded for r in results)
        assert [r.query.text for r in results] == ["slow one", "b", "c"]

    def test_an_error_that_concerns_all_ends_all(self, stub: StubServer, opened: Any) -> None:
        chat = opened(f"openai:m@{stub.url}", concurrency=4)
        chat.capabilities = frozenset({"generate"})
        stub.script = [(401, {}, {})]
        found = [Candidate(id=str(n), text=f"t{n}") for n in range(3)]
        with pytest.raises(ChatError, match="check OPENAI_API_KEY") as caught:
            Reranker("listwise", chat).rank_batch([(q, found) for q in "abcdef"])
        assert (caught.value.kind, caught.value.exit_code) == ("auth", 6)


class TestTrust:
    """A 200 is not an answer."""

    def test_another_model_than_the_one_asked_for(self, stub: StubServer, opened: Any) -> None:
        stub.script = [completion() | {"model": "llama-2-7b"}]
        with pytest.raises(ChatError, match=r"answered as 'llama-2-7b'.*any_model=true"):
            one(opened(f"openai:qwen2.5-vl@{stub.url}"))
        assert one(opened(f"openai:qwen2.5-vl@{stub.url}", any_model=True)).error is None

    @pytest.mark.parametrize(
        ("said", "asked", "other"),
        [
            ("gpt-4o-2024-08-06", "gpt-4o", ""),
            ("models/gemini-2.5-flash", "gemini-2.5-flash", ""),
            ("/weights/Qwen3-VL-8B.gguf", "qwen3-vl-8b", ""),
            ("qwen2.5vl:latest", "qwen2.5vl", ""),
            ("/tmp/folder@main", "/tmp/folder", ""),
            ("", "m", ""),
            (None, "m", ""),
            ("mistral", "qwen", "mistral"),
        ],
    )
    def test_names_of_one_model(self, said: Any, asked: str, other: str) -> None:
        assert answered_as(json.dumps({"model": said}).encode(), asked) == other

    def test_a_refusal_after_answers_is_that_questions_own(self, stub: StubServer, opened: Any) -> None:
        chat = opened(f"openai:m@{stub.url}", api_key=KEY)
        assert one(chat).error is None
        stub.script = [(404, {}, {"error": KEY}), completion()]
        first, second = chat.reply([ask("a")]) + chat.reply([ask("b")])
        assert "answered 404" in str(first.error)
        assert second.error is None

    def test_an_object_without_its_keys_is_told_again_in_words(self, stub: StubServer, opened: Any) -> None:
        stub.script = [completion('{"b": 2}'), completion('{"a": 1}')]
        reply = one(opened(f"openai:m@{stub.url}"), ask(schema=SCHEMA))
        assert reply.text == '{"a": 1}'
        assert reply.usage.input_tokens == 22  # both were paid for

    def test_a_useless_answer_says_what_it_cost(self, stub: StubServer, opened: Any) -> None:
        stub.script = [completion("")]
        reply = one(opened(f"openai:m@{stub.url}"))
        assert isinstance(reply.error, ReplyError)
        assert reply.usage.input_tokens == 11

    def test_a_key_quoted_in_an_answer_is_blotted_out(self, stub: StubServer, opened: Any) -> None:
        stub.script = [completion(f"your key is {KEY}")]
        reply = one(opened(f"openai:m@{stub.url}", api_key=KEY))
        assert reply.text == "your key is ***"

    def test_hidden_states_are_not_asked_of_a_server(self, stub: StubServer, opened: Any) -> None:
        reply = one(opened(f"openai:m@{stub.url}"), ask(read="embed"))
        assert "does not give embed" in str(reply.error)
        assert not stub.requests

    def test_the_probe_of_a_server_that_does_little(self, stub: StubServer, opened: Any) -> None:
        stub.answer = lambda body: completion("Four, I think.")
        found = {f.name: f for f in probe(opened(f"openai:m@{stub.url}"))}
        assert found["answers"].status == "ok"
        assert found["logprobs"].status == "off"
        assert found["json_schema"].status == "off"
        assert "ignored" in found["json_schema"].detail
        assert found["looks at them"].status == "off"
        assert found["offers"].detail == "generate"

    def test_the_probe_of_a_server_that_refuses(self, stub: StubServer, opened: Any) -> None:
        stub.script = [(401, {}, {"error": KEY})]
        found = list(probe(opened(f"openai:m@{stub.url}", api_key=KEY)))
        assert found[-1].status == "broken"
        assert "check OPENAI_API_KEY" in found[-1].detail
        assert KEY not in repr(found)

    def test_the_probe_tells_trouble_from_a_lack(self, stub: StubServer, opened: Any) -> None:
        stub.answer = lambda b: (500, {}, {"error": "boom"}) if "response_format" in b else completion("four")
        found = {f.name: f for f in probe(opened(f"openai:m@{stub.url}", max_retries=0))}
        assert (found["json_schema"].status, found["logprobs"].status) == ("broken", "off")
        assert "answered 500: boom" in found["json_schema"].detail
        assert found["images"].status == "ok"

    def test_the_probe_ends_where_all_would_fail(self, stub: StubServer, opened: Any) -> None:
        spent = (429, {}, {"error": {"message": "Spent", "code": "insufficient_quota"}})
        stub.answer = lambda b: completion("four") if len(stub.requests) < 3 else spent
        found = list(probe(opened(f"openai:m@{stub.url}")))
        assert [f.name for f in found] == ["model list", "answers", "logprobs", "json_schema"]
        assert found[-1].status == "broken"
        assert "the quota is used up" in found[-1].detail

    def test_a_method_that_needs_more_tells_the_real_trouble(self, opened: Any) -> None:
        """libredb/libredb-studio#340: a server that is not there lacks no capability."""
        chat = opened("ollama:m@127.0.0.1:9")
        with pytest.raises(ChatError, match="cannot be reached: nothing listens there") as caught:
            Reranker("pointwise", chat)
        assert "Start it with: OLLAMA_HOST=127.0.0.1:9 ollama serve" in str(caught.value)


def sse(*pieces: Any, done: bool = True) -> bytes:
    lines = [p if isinstance(p, str) else json.dumps(p) for p in pieces]
    return "".join(f"data: {ln}\r\n\r\n" for ln in [*lines, *(["[DONE]"] if done else [])]).encode()


def delta(finish: str | None = None, **said: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


class TestStreams:
    """Answers in pieces."""

    def test_pieces_are_put_together(self, stub: StubServer, opened: Any) -> None:
        usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
        said = (delta(content=""), delta(reasoning_content="hm"), delta(content="a "), ": ping")
        stub.script = [sse(*said, delta("stop", content="b"), usage)]
        chat = opened(f"openai:m@{stub.url}", stream=True)
        reply = one(chat)
        assert (reply.text, reply.finish, reply.usage.output_tokens) == ("a b", "stop", 2)
        assert chat.thought
        assert stub.requests[0]["stream"] is True
        assert stub.requests[0]["stream_options"] == {"include_usage": True}

    def test_a_stream_that_breaks_off_is_tried_again(self, stub: StubServer, opened: Any) -> None:
        stub.script = [sse(delta(content="half"), done=False), sse(delta("stop", content="whole"))]
        assert one(opened(f"openai:m@{stub.url}", stream=True)).text == "whole"
        assert len(stub.requests) == 2

    @pytest.mark.parametrize(
        ("received", "text"),
        [
            (sse(delta(content="a"), delta("stop", content="b")).replace(b"\r\n", b"\r"), "ab"),
            (sse(delta(content="a"), delta("stop", content="b")).replace(b"data: ", b"data:"), "ab"),
            (b"\xef\xbb\xbf" + sse(delta(content="a"), delta("stop", content="b")), "ab"),
            (sse(delta(content="a"), delta("stop", content="b"), done=False), "ab"),
            (sse({**delta(content="a"), "error": None}, {**delta("stop", content="b"), "error": None}), "ab"),
            (sse(delta("stop", content="ab"), {"choices": None, "usage": None}), "ab"),
            (sse(delta("stop", content=[{"type": "text", "text": "ab"}])), "ab"),
        ],
        ids=range(7),
    )
    def test_streams_of_every_hand(self, received: bytes, text: str) -> None:
        whole = assembled(received)
        assert whole is not None
        assert json.loads(whole)["choices"][0]["message"]["content"] == text

    @pytest.mark.parametrize(
        ("received", "said"),
        [
            (sse(delta(content="a"), {"error": {"message": "died"}}), "died"),
            (sse({"object": "error", "message": "died", "code": 400}), "died"),
            (sse(delta(content="a"), done=False) + b'event: error\ndata: {"message": "died"}\n\n', "died"),
            (sse({"choices": [{"index": 0, "delta": {}, "error": {"message": "died"}}]}), "died"),
        ],
        ids=range(4),
    )
    def test_errors_in_the_middle_of_a_stream(
        self, stub: StubServer, opened: Any, received: bytes, said: str
    ) -> None:
        stub.script = [received]
        assert said in str(one(opened(f"openai:m@{stub.url}", stream=True)).error)

    def test_a_server_that_does_not_stream(self, stub: StubServer, opened: Any) -> None:
        assert one(opened(f"openai:m@{stub.url}", stream=True)).text == "fine"
        stub.answer = lambda body: (
            (400, {}, {"error": {"message": "stream_options is not known"}})
            if "stream_options" in body
            else sse(delta("length", content="cut"))
        )
        reply = one(opened(f"openai:m@{stub.url}", stream=True))
        assert (reply.text, reply.finish) == ("cut", "length")

    @pytest.mark.parametrize(
        "received",
        [
            b"data: {\n\n", b"data: []\n\ndata: [DONE]\n\n", b"data: {\"error\": {\"code\": 500}}\n\n",
            b"data: {\"choices\": [7]}\n\ndata: [DONE]", b": only a comment\n\n", b"data", b"",
        ],
    )  # fmt: skip
    def test_nonsense_never_raises(self, received: bytes) -> None:
        whole = assembled(received)
        assert whole is None or isinstance(whole, bytes)

    def test_silence_is_bounded_and_the_whole_is_not(self, opened: Any) -> None:
        """A server that sends a piece every 0.1 s for 0.8 s does not run into a timeout of 0.3 s."""
        import socketserver
        import threading

        class Slow(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while self.rfile.readline().strip():
                    pass
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
                for _ in range(8):
                    self.wfile.write(sse(delta(content="x"), done=False))
                    self.wfile.flush()
                    time.sleep(0.1)
                self.wfile.write(sse(delta("stop", content="!")))

        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            url = f"http://127.0.0.1:{server.server_address[1]}/v1"
            chat = opened(f"openai:m@{url}", stream=True, timeout=0.3, max_retries=0)
            assert one(chat).text == "x" * 8 + "!"
            server.shutdown()
            thread.join()


def test_limits_are_checked() -> None:
    for wrong in ({"timeout": 0.0}, {"concurrency": 0}, {"max_retries": -1}, {"thinking": -1}):
        with pytest.raises(UsageError):
            backend.Limits(**wrong)  # type: ignore[arg-type]
