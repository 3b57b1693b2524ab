"""Servers that rerank: forms, answers that lie, keys and failures, against a stub on loopback."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openai_stub import KEY, StubServer

from mmrerank.chat.open import open_chat
from mmrerank.errors import ChatError, ReplyError, UsageError
from mmrerank.rerank.stopping import Stopped
from mmrerank.reranker import Reranker
from mmrerank.scorers._rerank_place import address
from mmrerank.scorers._rerank_wire import Side, Way, answer, body
from mmrerank.types import Candidate, Image, Query

Pictures = Callable[..., Image]
URL = "data:image/png;base64,AAAA"


@pytest.fixture
def stub() -> Iterator[StubServer]:
    server = StubServer()
    yield server
    server.close()


def rows(documents: Any, name: str = "relevance_score") -> list[dict[str, Any]]:
    """Scores that fall with the place, last first."""
    return [{"index": n, name: 0.9 - n / 50} for n in reversed(range(len(documents)))]


def ranked(stub: StubServer, given: list[Candidate], query: Any = "a boat", **options: Any) -> Any:
    settings = {"backoff": 0.0, "max_retries": 1, **options.pop("chat", {})}
    chat = open_chat(f"rerank:m@{stub.url.removesuffix('/v1')}", **settings)
    try:
        return Reranker("scorer", chat, **options).rank(query, given)
    finally:
        chat.close()


def pictures(picture: Pictures, count: int) -> list[Candidate]:
    return [Candidate(id=f"i{n}", image=picture(48, 40, n), score=n / 50) for n in range(count)]


# ---------------------------------------------------------------- what is sent and read


def test_the_forms() -> None:
    query, documents = Side(text="q"), [Side(images=(URL,), text="t"), Side(text="u")]
    image = {"type": "image_url", "image_url": {"url": URL}}
    sent = body(Way(path="/v1/rerank", form="content"), "m", query, documents, "find")
    assert sent.fields == {
        "model": "m", "query": "q", "top_n": 2, "instruction": "find",
        "documents": [{"content": [image, {"type": "text", "text": "t"}]}, "u"],
    }  # fmt: skip
    sent = body(Way(path="/v1/rerank", form="jina"), "m", query, documents, "find")
    assert sent.fields["documents"] == [{"image": URL}, {"text": "u"}]
    assert len(sent.notes) == 2  # the words beside the image, and the instruction
    sent = body(Way(path="/rerank", form="tei"), "m", query, documents[1:], "")
    assert (sent.fields["texts"], sent.fields["raw_scores"]) == (["u"], False)
    sent = body(Way(path="/score", form="score"), "m", Side(images=(URL,)), documents[1:], "")
    assert (sent.fields["queries"], sent.fields["documents"]) == ({"content": [image]}, ["u"])
    with pytest.raises(ChatError, match="one image"):
        body(Way(path="/v1/rerank", form="jina"), "m", Side(images=(URL, URL)), documents, "")


@pytest.mark.parametrize(
    ("found", "scores"),
    [
        (
            {"results": [{"index": 1, "relevance_score": 0.7}, {"index": 0, "relevance_score": 0.2}]},
            [0.2, 0.7],
        ),
        ({"data": [{"index": 0, "score": 0.2}, {"index": 1, "score": 0.7}]}, [0.2, 0.7]),
        ([{"index": 1, "score": 0.7}, {"index": 0, "score": 0.2}], [0.2, 0.7]),
        ({"data": [{"score": 0.2}, {"score": [0.7]}]}, [0.2, 0.7]),
        ({"scores": [0.2, 0.7]}, [0.2, 0.7]),
        ({"results": [{"index": 0, "relevance_score": 0.2}]}, [0.2, None]),
        ({"results": [{"index": 0, "score": 0.2}, {"index": 7, "score": 9}]}, [0.2, None]),
        (
            {"results": [{"index": 0, "score": 1}, {"index": 0, "score": 2}, {"index": 1, "score": 3}]},
            [None, 3],
        ),
        ({"results": [{"index": 0, "score": "1"}, {"index": 1, "score": 3}]}, [None, 3]),
        ({"results": [{"index": 0, "score": 10**400}, {"index": 1, "score": 3}]}, [None, 3]),
        (
            {"results": [{"index": -1, "score": 1}, {"index": True, "score": 3}, {"index": 1, "score": 3}]},
            [None, 3],
        ),
    ],
)
def test_answers(found: Any, scores: list[float | None]) -> None:
    got = answer(json.dumps(found), 2)
    assert [None if math.isnan(s) else s for s in got.scores] == scores
    assert bool(got.notes) == (None in scores)


@pytest.mark.parametrize(
    "text", ["", "<html>", "{}", '{"results": []}', "[NaN, NaN]", '{"results": 3}', "[[]]"]
)
def test_answers_without_scores(text: str) -> None:
    with pytest.raises(ReplyError):
        answer(text, 2)


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for rest, root in (
        ("a/b@http://h:8000/v1", "http://h:8000"),
        ("a/b@http://h:8000/v1/rerank", "http://h:8000"),
        ("m@h:8000", "http://h:8000"),
        ("m@vllm", "http://127.0.0.1:8000"),
        ("m@vllm+https://h/x/v1/", "https://h/x"),
        ("m@jina", "https://api.jina.ai"),
    ):
        assert address(rest).place.url == root, rest
    assert address("a/b@http://h/score").ways[0].path == "/score"
    assert {w.form for w in address("m@cohere").ways} == {"plain"}
    monkeypatch.setenv("JINA_API_KEY", "k" * 20)
    assert address("m@https://api.jina.ai/v1").key(None) == "k" * 20
    monkeypatch.delenv("JINA_API_KEY")
    with pytest.raises(UsageError, match="JINA_API_KEY"):
        address("m@jina").key(None)
    for wrong in (
        "m",
        "@http://h",
        "m@",
        "m@ftp://h",
        "m@http://u:p@h",
        "m@http://h?api_key=1",
        "m@who+http://h",
    ):
        with pytest.raises(UsageError):
            address(wrong)


# ---------------------------------------------------------------- a server


def test_twenty_images_and_a_server_with_rerank_only(stub: StubServer, picture: Pictures) -> None:
    def reply(request: dict[str, Any]) -> Any:
        return {"results": rows(request["documents"]), "usage": {"total_tokens": 4000}}

    stub.answer = reply
    result = ranked(stub, pictures(picture, 20), instruction="find it")
    assert [h.id for h in result] == [f"i{n}" for n in range(20)]
    assert [h.relevance for h in result] == pytest.approx([0.9 - n / 50 for n in range(20)])
    assert result.explanation.scores["i3"] == pytest.approx(0.84)
    assert (stub.paths, result.warnings) == (["/v1/rerank"], ())
    assert (result.usage.calls, result.usage.images, result.usage.input_tokens) == (20, 20, 4000)
    request = stub.requests[0]
    assert (request["model"], request["query"], request["instruction"]) == ("m", "a boat", "find it")
    url = request["documents"][7]["content"][0]["image_url"]["url"]
    assert base64.b64decode(url.partition(",")[2])[:4] == b"\x89PNG"


@pytest.mark.parametrize("form", ["jina", "score"])
def test_another_form_is_found_once_and_reported(stub: StubServer, picture: Pictures, form: str) -> None:
    def reply(request: dict[str, Any]) -> Any:
        if form == "score":
            there = "queries" in request
            return (
                {"data": rows(request["documents"], "score")} if there else (404, {}, {"detail": "Not Found"})
            )
        if not all("image" in d for d in request["documents"]):
            return 422, {}, {"detail": [{"loc": ["body", "documents"], "msg": "Input should be a string"}]}
        return {"results": rows(request["documents"])}

    stub.answer = reply
    result = ranked(stub, pictures(picture, 6), chat={"batch_size": 2})
    assert {h.id for h in result} == {f"i{n}" for n in range(6)}
    assert not result.degraded
    assert any(f"in the form '{form}'" in w for w in result.warnings)
    refused = {"jina": 1, "score": 2}[form]
    assert len(stub.requests) == refused + 3


def test_texts_go_to_servers_of_texts(stub: StubServer, picture: Pictures) -> None:
    def reply(request: dict[str, Any]) -> Any:
        if "texts" in request:
            return [{"index": n, "score": len(t) / 10} for n, t in enumerate(request["texts"])]
        return (404, {}, {"error": "Not Found"}) if "v" in stub.paths[-1] else (422, {}, {"error": "texts"})

    stub.answer = reply
    given = [Candidate(id=t, text=t) for t in ("ab", "abcd")]
    result = ranked(stub, given)
    assert [(h.id, h.relevance) for h in result] == [("abcd", 0.4), ("ab", 0.2)]
    result = ranked(stub, pictures(picture, 2))
    assert result.degraded
    assert "took none" in result.warnings[0]


def test_logits_become_their_sigmoid_and_stay_as_they_are(stub: StubServer, picture: Pictures) -> None:
    stub.answer = lambda request: {"results": [{"index": 0, "score": -3.0}, {"index": 1, "score": 5.0}]}
    result = ranked(stub, pictures(picture, 2))
    assert result.explanation.scores == {"i1": 5.0, "i0": -3.0}
    assert [h.relevance for h in result] == pytest.approx([1 / (1 + math.exp(-5)), 1 / (1 + math.exp(3))])
    assert any("sigmoid" in w for w in result.warnings)


def test_candidates_without_a_score_keep_their_places(stub: StubServer, picture: Pictures) -> None:
    stub.answer = lambda request: {"results": [{"index": 2, "score": 0.9}, {"index": 0, "score": 0.1}]}
    result = ranked(stub, pictures(picture, 3))
    assert [(h.id, h.relevance) for h in result] == [("i2", 0.9), ("i1", None), ("i0", 0.1)]
    assert result.degraded


def test_a_picture_that_cannot_be_shown_is_not_sent(stub: StubServer, picture: Pictures) -> None:
    stub.answer = lambda request: {"results": rows(request["documents"])}
    given = [*pictures(picture, 2), Candidate(id="bad", image=Image(data=b"none"))]
    result = ranked(stub, given)
    assert {h.id: h.relevance is None for h in result} == {"i0": False, "i1": False, "bad": True}
    assert all(len(r["documents"]) == 2 for r in stub.requests)


def test_one_refused_document_costs_no_other(stub: StubServer, picture: Pictures) -> None:
    bad = picture(48, 40, 1)

    def reply(request: dict[str, Any]) -> Any:
        shown = [d["content"][0]["image_url"]["url"] for d in request["documents"]]
        if sent["url"] in shown and len(stub.requests) > 1:
            return 400, {}, {"error": {"message": "cannot identify image file"}}
        return {"results": rows(request["documents"])}

    from mmrerank.chat.openai.wire import image_url

    sent = {"url": image_url(bad, 1280)}
    stub.answer = reply
    given = pictures(picture, 4)
    result = ranked(stub, [given[0], *given[2:], given[1]], chat={"batch_size": 2, "concurrency": 1})
    assert {h.id for h in result if h.relevance is None} == {"i1"}


@pytest.mark.parametrize(
    ("reply", "kind"),
    [((401, {}, {"error": {"message": "bad key"}}), "auth"), ((404, {}, {"detail": "Not Found"}), "address"),
     ((404, {}, {"error": {"message": "The model `m` does not exist."}}), "not_found")],
)  # fmt: skip
def test_what_concerns_every_question_ends_the_run(
    stub: StubServer, picture: Pictures, reply: Any, kind: str
) -> None:
    stub.script = [reply]
    with pytest.raises(Stopped) as caught:
        ranked(stub, pictures(picture, 3), chat={"api_key": KEY})
    assert caught.value.kind == kind
    assert KEY not in str(caught.value)


def test_nobody_there(picture: Pictures) -> None:
    chat = open_chat("rerank:m@http://127.0.0.1:9", max_retries=0)
    with pytest.raises(ChatError, match="vllm serve m --runner pooling|nothing listens"):
        Reranker("scorer", chat).rank("a boat", pictures(picture, 2))
    chat.close()


def test_errors_that_pass_are_tried_again(stub: StubServer, picture: Pictures) -> None:
    good = {"results": [{"index": 0, "score": 0.5}, {"index": 1, "score": 0.6}]}
    stub.script = [(503, {}, {"error": "busy"}), good]
    result = ranked(stub, pictures(picture, 2))
    assert [h.id for h in result] == ["i1", "i0"]
    assert not result.degraded


def test_a_query_with_an_image(stub: StubServer, picture: Pictures) -> None:
    stub.answer = lambda request: {"results": rows(request["documents"])}
    query = Query(text="but blue", images=(picture(40, 40, 9),), exclude=("people",))
    ranked(stub, pictures(picture, 2), query)
    content = stub.requests[0]["query"]["content"]
    assert [p["type"] for p in content] == ["image_url", "text"]
    assert content[1]["text"] == "but blue, without people"
