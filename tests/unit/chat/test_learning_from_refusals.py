"""What a server's refusal teaches, what it does not teach, and what a person is told of it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from openai_stub import KEY, SCHEMA, StubServer, completion, vllm_logprobs
from PIL import Image as Pillow

from mmrerank import Reranker
from mmrerank.chat import openai as backend
from mmrerank.chat.vllm import VllmChat
from mmrerank.errors import ChatError, UsageError
from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.types import Candidate, Image

Answer = Callable[[dict[str, Any]], Any]


@pytest.fixture
def stub() -> Iterator[StubServer]:
    server = StubServer()
    yield server
    server.close()


@pytest.fixture
def opened(stub: StubServer) -> Iterator[Callable[..., Any]]:
    chats: list[Any] = []

    def open_(server: str = "", **options: Any) -> Any:
        spec = f"m@{server + '+' if server else ''}{stub.url}"
        chats.append(backend.open(spec, **{"api_key": KEY, "backoff": 0.01, "max_retries": 1, **options}))
        return chats[-1]

    yield open_
    for chat in chats:
        chat.close()


def ask(*parts: str | Image, system: str = "", **settings: Any) -> Ask:
    made = tuple(Part(text=p) if isinstance(p, str) else Part(image=p) for p in parts or ("hello",))
    said = (Message(role="system", parts=(Part(text=system),)),) if system else ()
    return Ask(messages=(*said, Message(role="user", parts=made)), **settings)


def one(chat: Any, question: Ask) -> Reply:
    reply: Reply = chat.reply([question])[0]
    return reply


def says(text: str, status: int = 400, **more: Any) -> Any:
    return status, {}, {"error": {"message": text, **more}}


def square(side: int = 64, *, noise: bool = False) -> Image:
    made = Pillow.effect_noise((side, side), 80) if noise else Pillow.new("L", (side, side), 90)
    file = io.BytesIO()
    made.convert("RGB").save(file, "png")
    return Image(data=file.getvalue())


def shown(request: dict[str, Any]) -> list[bytes]:
    """The files of the images of a request."""
    parts = [p for m in request["messages"] if isinstance(m["content"], list) for p in m["content"]]
    urls = [p["image_url"]["url"] for p in parts if p["type"] == "image_url"]
    return [base64.b64decode(u.partition(",")[2]) for u in urls]


def sides(request: dict[str, Any]) -> list[tuple[int, int]]:
    return [Pillow.open(io.BytesIO(f)).size for f in shown(request)]


class TestFields:
    """A field is given up where the complaint names it, or where that is proven."""

    def test_the_list_of_what_is_allowed_names_nothing(self, stub: StubServer, opened: Any) -> None:
        allowed = "Supported fields are: model, messages, temperature, max_tokens, response_format"
        said = says(f"Unknown field 'chat_template_kwargs'. {allowed}")
        stub.answer = lambda b: said if "chat_template_kwargs" in b else completion('{"a":1}')
        chat = opened("vllm")
        assert one(chat, ask(schema=SCHEMA)).error is None
        assert len(stub.requests) == 2
        assert {"temperature", "response_format"} <= stub.requests[-1].keys()

    def test_what_made_no_difference_is_sent_again(self, stub: StubServer, opened: Any) -> None:
        """All are named alike; only the last one matters."""
        said = says("Only temperature and response_format may be given, chat_template_kwargs may not")
        stub.answer = lambda b: said if "chat_template_kwargs" in b else completion('{"a":1}')
        chat = opened("vllm")
        for _ in range(2):
            reply = one(chat, ask(schema=SCHEMA))
            assert (reply.text, reply.notes) == ('{"a":1}', ())
        assert stub.requests[-1]["temperature"] == 0.0
        assert stub.requests[-1]["response_format"]["type"] == "json_schema"

    def test_an_unsaid_complaint_is_repeated_before_anything_is_left_out(
        self, stub: StubServer, opened: Any
    ) -> None:
        stub.script = [(400, {}, {}), completion('{"a":1}')]
        chat = opened("vllm")
        for _ in range(2):
            assert one(chat, ask(schema=SCHEMA)).error is None
        assert all({"chat_template_kwargs", "response_format"} <= r.keys() for r in stub.requests)
        assert len(stub.requests) == 3

    def test_an_unsaid_complaint_twice_and_passing_without_is_proof(
        self, stub: StubServer, opened: Any
    ) -> None:
        stub.answer = lambda b: (422, {}, {}) if "chat_template_kwargs" in b else completion('{"a":1}')
        chat = opened("vllm")
        for _ in range(2):
            assert one(chat, ask(schema=SCHEMA)).error is None
        assert ["chat_template_kwargs" in r for r in stub.requests] == [True, True, False, False]
        assert "response_format" in stub.requests[-1]

    def test_a_field_that_was_answered_is_not_suspected(self, stub: StubServer, opened: Any) -> None:
        stub.script = [completion('{"a":1}'), (400, {}, {}), completion('{"a":1}')]
        chat = opened("vllm")
        replies = [one(chat, ask(schema=SCHEMA)) for _ in range(3)]
        assert [r.error is None for r in replies] == [True, False, True]
        assert len(stub.requests) == 3
        assert "response_format" in stub.requests[-1]

    @pytest.mark.parametrize(
        "said",
        [
            "The temperature of the GPU is too high, please wait.",
            "Failed to read the image: the response format of its host was unexpected.",
        ],
    )
    def test_a_field_that_is_a_word_in_a_sentence_is_sent_again(
        self, stub: StubServer, opened: Any, said: str
    ) -> None:
        stub.answer = lambda b: says(said) if len(stub.requests) == 1 else completion('{"a": "b"}')
        assert one(opened(), ask(schema=SCHEMA)).error is None
        assert len(stub.requests) == 2
        assert {"temperature", "response_format"} <= stub.requests[1].keys()

    def test_a_complaint_about_an_image_that_passes_changes_nothing(
        self, stub: StubServer, opened: Any
    ) -> None:
        """iTestFlow/iTestFlow-Agent#197."""
        stub.script = [
            says("Invalid image data: could not decode the image, please retry."),
            completion('{"a":1}'),
        ]
        chat = opened()
        assert [one(chat, ask(square(), schema=SCHEMA)).error for _ in range(2)] == [None, None]
        assert all("response_format" in r for r in stub.requests)
        assert len(stub.requests) == 3

    @pytest.mark.parametrize(
        ("said", "taken", "forms"),
        [
            (
                "response_format of type json_schema is not supported",
                "json_object",
                ["json_schema", "json_object"],
            ),
            ("'response_format.type' must be 'text'", "", ["json_schema", "json_object", ""]),
            ("Unknown field response_format", "", ["json_schema", ""]),
        ],
    )
    def test_the_form_of_a_reply(
        self, stub: StubServer, opened: Any, said: str, taken: str, forms: list[str]
    ) -> None:
        def form(request: dict[str, Any]) -> str:
            return str(request.get("response_format", {}).get("type", ""))

        stub.answer = lambda b: completion('{"a":1}') if form(b) == taken else says(said)
        chat = opened()
        reply = one(chat, ask(schema=SCHEMA))
        assert reply.text == '{"a":1}'
        assert "it stands in the prompt instead" in reply.notes[0]
        assert [form(r) for r in stub.requests] == forms
        assert "JSON schema" in stub.requests[-1]["messages"][-1]["content"]
        assert chat.facts().schema == "refused"

    def test_a_schema_that_is_not_strict_enough(self, stub: StubServer, opened: Any) -> None:
        said = "Invalid schema for response_format 'reply': 'additionalProperties' is required to be false."
        stub.answer = lambda b: (
            says(said) if b["response_format"]["json_schema"]["strict"] else completion('{"a":1}')
        )
        assert one(opened(), ask(schema=SCHEMA)).notes == ()
        assert len(stub.requests) == 2

    @pytest.mark.parametrize(
        ("said", "most"),
        [
            ("Invalid value for 'top_logprobs': must be less than or equal to 5.", 5),
            ("Requested sample logprobs of 20, which is greater than max allowed: 3", 3),
            ("top_logprobs is too large", 5),
        ],
    )
    def test_fewer_log_probabilities(self, stub: StubServer, opened: Any, said: str, most: int) -> None:
        stub.answer = lambda b: says(said) if b["top_logprobs"] > most else vllm_logprobs(yes=-1.0, no=-2.0)
        chat = opened()
        for _ in range(2):
            (note,) = one(chat, ask(choices=("yes", "no"))).notes
            assert f"at most {most} log-probabilities, not 20" in note
        assert [r["top_logprobs"] for r in stub.requests] == [20, most, most]

    def test_fewer_log_probabilities_without_a_word(self, stub: StubServer, opened: Any) -> None:
        stub.script = [vllm_logprobs(yes=-0.1, x=-2.0, y=-3.0)]
        reply = one(opened(), ask(choices=("yes", "no")))
        assert reply.logprobs["yes"] - reply.logprobs["no"] == pytest.approx(2.9)
        assert "gives 3 log-probabilities, not the 20 asked for" in reply.notes[0]
        stub.script = [vllm_logprobs(yes=-0.1, no=-2.0)]
        assert one(opened(), ask(choices=("yes", "no"))).notes == ()

    def test_no_more_tokens_than_the_model_writes(self, stub: StubServer, opened: Any) -> None:
        said = "max_tokens is too large: 1000. This model supports at most 512 completion tokens"
        stub.answer = lambda b: says(said) if b["max_tokens"] > 512 else completion()
        assert "at most 512 tokens, not 1000" in one(opened(), ask(max_tokens=1000)).notes[0]

    def test_an_own_field_that_is_refused_is_not_left_out(self, stub: StubServer, opened: Any) -> None:
        stub.answer = lambda b: says("Unknown parameter: 'seed'") if "seed" in b else completion()
        error = one(opened(extra='{"seed": 1}'), ask()).error
        assert "It was sent for --chat-option extra: seed" in str(error)


class TestTurns:
    """Roles alternate, and a template may have no system turn."""

    @pytest.mark.parametrize(
        ("status", "said"),
        [
            (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
            (500, "Jinja Exception: System role not supported"),
            (424, "Template error: syntax error: System role not supported (in <string>:1)"),
        ],
    )
    def test_without_a_system_turn(self, stub: StubServer, opened: Any, status: int, said: str) -> None:
        stub.answer = lambda b: (
            says(said, status) if b["messages"][0]["role"] == "system" else completion('{"a":1}')
        )
        chat = opened()
        for _ in range(2):
            reply = one(chat, ask("look:", square(), system="be good", schema=SCHEMA))
            assert reply.text == '{"a":1}'
            assert "its text stands in the first user turn" in reply.notes[0]
        assert len(stub.requests) == 3
        (turn,) = stub.requests[-1]["messages"]
        assert turn["role"] == "user"
        assert [p.get("text") for p in turn["content"]] == ["be good\n\n", "look:", None]
        assert one(chat, ask("hi", system="be good")).error is None
        assert stub.requests[-1]["messages"] == [{"role": "user", "content": "be good\n\nhi"}]

    def test_a_schema_in_words_stands_in_the_same_turn(self, stub: StubServer, opened: Any) -> None:
        stub.answer = lambda b: (
            says("no response_format here") if "response_format" in b else completion("{}")
        )
        one(opened(), ask("look:", square(), system="be good", schema=SCHEMA))
        system, user = stub.requests[-1]["messages"]
        assert (system["role"], user["role"]) == ("system", "user")
        assert user["content"][-1]["text"].startswith("\n\nAnswer with one JSON object")


class TestImages:
    """How many, and of what size."""

    def test_a_limit_is_learnt_and_told(self, stub: StubServer, opened: Any) -> None:
        stub.answer = lambda b: (
            says("vision model only supports a single image per message", 500) if len(shown(b)) > 1
            else completion()
        )  # fmt: skip
        chat = opened()
        for held in ("", "; this one holds 3"):
            error = one(chat, ask(*[square()] * 3)).error
            assert error is not None
            assert (error.kind, error.limit, error.systemic) == ("too_many_images", 1, False)
            assert f"takes at most 1 image(s) a question{held}. Ask with fewer (a smaller window" in str(
                error
            )
        assert len(stub.requests) == 1
        assert one(chat, ask(square())).error is None

    def test_as_many_as_were_answered_are_not_too_many(self, stub: StubServer, opened: Any) -> None:
        stub.script = [completion(), says("Too many images in request. Max is 2."), completion()]
        chat = opened()
        replies = [one(chat, ask(*[square()] * 3)) for _ in range(3)]
        assert [r.error is None for r in replies] == [True, False, True]

    def test_a_side_that_is_too_short_or_too_long(self, stub: StubServer, opened: Any) -> None:
        stub.answer = lambda b: (
            says("height:32 or width:32 must be larger than factor:56", 500) if min(sides(b)[0]) < 56
            else says("image dimensions exceed max allowed size: 300 pixels") if max(sides(b)[0]) > 300
            else completion()
        )  # fmt: skip
        chat = opened()
        assert one(chat, ask(square(20))).notes == (
            "pictures with a side below 56 pixels were enlarged to that",
        )
        assert "sides of at most 300 pixels" in one(chat, ask(square(400))).notes[0]
        assert [sides(r)[0] for r in stub.requests] == [(32, 32), (56, 56), (400, 400), (300, 300)]

    def test_bytes(self, stub: StubServer, opened: Any) -> None:
        stub.answer = lambda b: (
            says("image exceeds 50 KB maximum: 99999 bytes > 50000 bytes") if len(shown(b)[0]) > 37_000
            else completion()
        )  # fmt: skip
        reply = one(opened(), ask(square(400, noise=True)))
        assert reply.error is None
        assert "at most 50,000 bytes" in reply.notes[0]
        assert len(stub.requests) == 2

    def test_small_ones_grow_and_it_is_reported(self, stub: StubServer, opened: Any) -> None:
        chat = opened()
        assert one(chat, ask(square(32))).notes == ()
        assert "below 32 pixels were enlarged" in one(chat, ask(square(20))).notes[0]
        assert sides(stub.requests[-1]) == [(32, 32)]

    def test_notes_reach_a_ranking(self, stub: StubServer, opened: Any) -> None:
        stub.script = [vllm_logprobs(yes=-1.0, no=-2.0)]
        found = [Candidate(id=str(n), image=square(20)) for n in range(3)]
        result = Reranker("pointwise", opened()).rank("a", found)
        assert not result.degraded
        assert result.warnings == ("pictures with a side below 32 pixels were enlarged to that",)


class TestAround:
    """Keys, proxies and pages."""

    def test_a_key_with_a_line_end(self, stub: StubServer, opened: Any) -> None:
        assert one(opened(api_key=f" {KEY}\n"), ask()).error is None
        assert stub.requests[-1]["_key"] == f"Bearer {KEY}"
        with pytest.raises(UsageError, match="OPENAI_API_KEY holds characters that no key has"):
            opened(api_key="sk-\u2026")

    def test_no_proxy_stands_before_this_machine(
        self, stub: StubServer, opened: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert one(opened(), ask()).error is None

    def test_a_page_in_the_place_of_an_answer(self, stub: StubServer, opened: Any) -> None:
        page = b"<html><title>The plain HTTP request was sent to HTTPS port</title></html>"
        stub.script = [(400, {"content-type": "text/html"}, page)]
        with pytest.raises(ChatError, match="name the base URL .*plain HTTP request") as caught:
            one(opened(), ask())
        assert caught.value.kind == "address"


class TestKinds:
    """Failures for programs, and what a person can do."""

    @pytest.mark.parametrize(
        ("answer", "kind", "todo", "asked"),
        [
            (says("Spent.", 429, code="insufficient_quota"), "quota", "give the same command again", 1),
            (says("no", 402), "payment", "pay", 1),
            (says("not found", 404), "not_found", "doctor --chat", 1),
            (says("no region", 403), "forbidden", "no region", 1),
            (says("wrong method", 405), "address", "base URL of the API", 1),
            ({"code": 401, "msg": "invalid token"}, "auth", "check OPENAI_API_KEY", 1),
        ],
        ids=str,
    )
    def test_what_concerns_every_question(
        self, stub: StubServer, opened: Any, answer: Any, kind: str, todo: str, asked: int
    ) -> None:
        stub.script = [answer]
        with pytest.raises(ChatError, match=todo) as caught:
            one(opened(), ask())
        assert (caught.value.kind, caught.value.systemic, caught.value.exit_code) == (kind, True, 6)
        assert len(stub.requests) == asked

    @pytest.mark.parametrize(
        ("answer", "kind", "todo"),
        [
            (says("Request Entity Too Large", 413), "too_large", "smaller pictures"),
            (says("prompt is too long: 210000 tokens > 200000 maximum"), "context", "smaller window"),
            (
                says("The response was filtered", code="content_filter"),
                "content_filter",
                "leave that picture",
            ),
            (completion("", "content_filter"), "content_filter", "leave that picture"),
            (completion(None, message={"refusal": "I can't assist."}), "refusal", "I can't assist"),
            (completion("I'm sorry, but I can't help with identifying people."), "refusal", "another model"),
            (completion("<think>Let me look. red red", "length"), "no_room", "--chat-option thinking=4096"),
            (completion("Okay, the user wants", "length"), "no_room", "--chat-option thinking=4096"),
            ({"choices": None}, "reply", "it begins '{\"choices\": null}'"),
            ({"error": {"message": "no idea"}}, "other", "no idea"),
        ],
        ids=str,
    )
    def test_what_concerns_one(
        self, stub: StubServer, opened: Any, answer: Any, kind: str, todo: str
    ) -> None:
        stub.script = [answer]
        error = one(opened(), ask(schema=SCHEMA)).error
        assert error is not None
        assert (error.kind, error.systemic, error.retryable) == (kind, False, False)
        assert todo in str(error)
        assert len(stub.requests) == 1

    def test_hours_are_not_slept_through(self, stub: StubServer, opened: Any) -> None:
        # whatever type a gateway gives it
        stub.script = [says("Please try again in 6h3m0s.", 429, type="invalid_request_error")]
        error = one(opened(max_retries=4), ask()).error
        assert error is not None
        assert (error.kind, error.systemic, error.retry_after) == ("rate_limit", True, 21780)
        assert len(stub.requests) == 1

    def test_a_wait_in_words_is_kept(self, stub: StubServer, opened: Any) -> None:
        stub.script = [says("Rate limit reached. Please try again in 0.2s.", 429), completion()]
        assert one(opened(), ask()).error is None
        assert stub.times[1] - stub.times[0] >= 0.2

    def test_kinds_are_kept(self) -> None:
        from mmrerank.chat.around.replies import from_plain, to_plain

        error = ChatError("no", kind="rate_limit", systemic=True, retry_after=9.0, retryable=True)
        kept = from_plain(to_plain(Reply(error=error, finish="error", notes=("x",))))
        assert kept.notes == ("x",)
        assert kept.error is not None
        assert vars(kept.error) == vars(error)


class TestElsewhere:
    """An answer beside the content."""

    @pytest.mark.parametrize(
        ("message", "where"),
        [
            ({"reasoning_content": '{"a": 1}'}, "reasoning_content"),
            ({"reasoning": 'Let me see: {"x" } so {"a": 1}'}, "reasoning"),
            ({"tool_calls": [{"function": {"name": "reply", "arguments": '{"a": 1}'}}]}, "tool_calls"),
        ],
    )
    def test_it_is_read_and_reported(
        self, stub: StubServer, opened: Any, message: dict[str, Any], where: str
    ) -> None:
        stub.script = [completion(None, message=message)]
        reply = one(opened(), ask(schema=SCHEMA))
        assert reply.text == '{"a": 1}'
        assert reply.notes == (f"answers were read from {where}: the content beside it was empty",)

    @pytest.mark.parametrize(
        "choice",
        [
            {"message": {"content": {"a": 1}}},
            {"message": {"content": {"text": '{"a": 1}'}}},
            {"text": '{"a": 1}'},
        ],
        ids=str,
    )
    def test_a_content_of_another_shape(self, stub: StubServer, opened: Any, choice: Any) -> None:
        stub.script = [{"choices": [choice]}]
        assert one(opened(), ask(schema=SCHEMA)).text == '{"a": 1}'

    def test_log_probabilities_as_completions_have_them(self, stub: StubServer, opened: Any) -> None:
        older = {"tokens": ["yes"], "token_logprobs": [-0.1], "top_logprobs": [{"yes": -0.1, "no": -2.1}]}
        stub.script = [completion("yes", logprobs=older)]
        found = one(opened(), ask(choices=("yes", "no"))).logprobs
        assert found["yes"] - found["no"] == pytest.approx(2.0)

    def test_thoughts_are_no_object(self, stub: StubServer, opened: Any) -> None:
        stub.script = [completion("", message={"reasoning": "Let me see"})]
        assert "only reasoning" in str(one(opened(), ask(schema=SCHEMA)).error)

    @pytest.mark.parametrize(
        ("begin", "end"), [("[THINK]", "[/THINK]"), ("\u25c1think\u25b7", "\u25c1/think\u25b7")]
    )
    def test_thoughts_in_other_tags(self, stub: StubServer, opened: Any, begin: str, end: str) -> None:
        stub.script = [completion(f'{begin}hm {{"a": 0}}{end}{{"a": 1}}')]
        assert one(opened(), ask(schema=SCHEMA)).text == '{"a": 1}'
        stub.script = [completion(f"{begin}hm", "length")]
        assert "thinking=4096" in str(one(opened(), ask(schema=SCHEMA)).error)


class TestEngine:
    """vLLM in this process, whose complaints are exceptions."""

    class Engine:
        """Answers where the template allows it and no more than one image is shown."""

        def __init__(self) -> None:
            self.asked: list[Any] = []

        def get_tokenizer(self) -> Any:
            return self

        def chat(self, conversations: list[Any], sampling: list[Any], **_: Any) -> list[Any]:
            self.asked += conversations
            (turns,) = conversations
            if turns[0]["role"] == "system":
                raise TypeError("Conversation roles must alternate user/assistant/user/assistant/...")
            if len(shown({"messages": turns})) > 1:
                raise ValueError("At most 1 image(s) may be provided in one prompt.")
            made = SimpleNamespace(text="fine", token_ids=[1], finish_reason="stop")
            return [SimpleNamespace(outputs=[made], prompt_token_ids=[1])]

    @pytest.fixture
    def engine(self, monkeypatch: pytest.MonkeyPatch) -> Engine:
        monkeypatch.setattr(VllmChat, "_sampling", lambda *_: None)
        return self.Engine()

    def test_without_a_system_turn(self, engine: Engine) -> None:
        chat = VllmChat(engine, "tiny")
        for _ in range(2):
            reply = one(chat, ask("hi", system="be good"))
            assert reply.text == "fine"
            assert "its text stands in the first user turn" in reply.notes[0]
        assert len(engine.asked) == 3

    def test_how_many_images(self, engine: Engine) -> None:
        reply = one(VllmChat(engine, "tiny"), ask(square(20), square(20)))
        assert reply.error is not None
        assert (reply.error.kind, reply.error.limit) == ("too_many_images", 1)
        assert "--chat-option images=2" in str(reply.error)
