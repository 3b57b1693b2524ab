"""Labels read from what servers list of likely tokens, and asked of vLLM by their tokens' ids."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from openai_stub import StubServer, completion

from mmrerank.chat.labels import spellings
from mmrerank.chat.open import open_chat
from mmrerank.chat.probe import Finding, probe
from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.rerank import comparisons

YES_NO = ("yes", "no")


@pytest.fixture
def stub() -> Iterator[StubServer]:
    server = StubServer()
    yield server
    server.close()


@pytest.fixture
def opened(stub: StubServer) -> Iterator[Any]:
    chats: list[Any] = []

    def open_(kind: str = "openai", **options: Any) -> Any:
        chats.append(open_chat(f"{kind}:m@{stub.url}", backoff=0.01, **options))
        return chats[-1]

    yield open_
    for chat in chats:
        chat.close()


def ask(*choices: str, text: str = "Is fire hot?", **settings: Any) -> Ask:
    said = Message(role="user", parts=(Part(text=text),))
    return Ask(messages=(said,), choices=choices or YES_NO, **settings)


def listing(pairs: dict[str, float], *, raw: bool = True) -> dict[str, Any]:
    """An answer that lists these tokens, with their bytes or without."""
    top: list[dict[str, Any]] = [{"token": t, "logprob": v} for t, v in pairs.items()]
    for entry in top if raw else ():
        entry["bytes"] = list(entry["token"].encode())
    first = max(top, key=lambda e: e["logprob"])
    return completion(first["token"], "length", logprobs={"content": [{**first, "top_logprobs": top}]})


def filler(most: float, n: int = 18) -> dict[str, float]:
    """Other tokens, each less likely than the one before."""
    return {f"w{i}": most - i / 10 for i in range(n)}


def one(chat: Any, question: Ask) -> Reply:
    reply: Reply = chat.reply([question])[0]
    return reply


@pytest.mark.parametrize(
    ("pairs", "margin"),
    [
        # capitals alone; capitals with a small yes far down; the small ones the other way round
        ({"Yes": -0.02, "No": -4.0}, 3.98),
        ({"Yes": -0.02, "No": -4.0, "yes": -9.0}, 3.98),
        ({"No": -0.02, "Yes": -4.0, "yes": -7.5, "no": -8.0}, -3.95),
        # a space before, as SentencePiece and byte-level vocabularies write it, and capitals
        ({" yes": -0.1, " no": -2.4}, 2.3),
        ({"\u2581Yes": -0.1, "\u2581No": -2.4}, 2.3),
        ({"\u0120Yes": -0.1, "\u0120No": -2.4}, 2.3),
        ({"YES": -0.1, "NO": -2.4, "Not": -5.0, "Yes.": -6.0}, 2.3),
        # half and half of two spellings against one
        ({"yes": -1.0, "Yes": -1.0, "no": -1.2}, 0.2 + math.log(2)),
    ],
    ids=str,
)
def test_all_spellings_of_a_label_count(
    stub: StubServer, opened: Any, pairs: dict[str, float], margin: float
) -> None:
    stub.script = [listing(pairs)]
    reply = one(opened(), ask())
    assert comparisons.read_score(reply) == pytest.approx(margin, abs=0.02)
    assert reply.bounds == ()
    total = sum(math.exp(v) for t, v in pairs.items() if t not in ("Not", "Yes."))
    assert reply.mass == pytest.approx(min(math.log(total), 0.0))


def test_a_label_that_is_exact_means_its_own_token(stub: StubServer, opened: Any) -> None:
    stub.script = [listing({"No": -0.02, "Yes": -4.0, "yes": -7.5, "no": -8.0})]
    reply = one(opened(), ask(exact=True))
    assert comparisons.read_score(reply) == pytest.approx(0.5)
    assert ask(exact=True).digest() != ask().digest()


def test_bytes_tell_where_the_token_does_not(stub: StubServer, opened: Any) -> None:
    entry = {"token": "?", "logprob": -0.1, "bytes": list(b" Yes")}
    other = {"token": "??", "logprob": -2.5, "bytes": list(b"no")}
    content = [{**entry, "top_logprobs": [entry, other]}]
    stub.script = [completion("?", "length", logprobs={"content": content})]
    assert comparisons.read_score(one(opened(), ask())) == pytest.approx(2.4)
    stub.script = [listing({" Yes": -0.1, "no": -2.5}, raw=False)]
    assert comparisons.read_score(one(opened(), ask())) == pytest.approx(2.4)


class TestBounds:
    """A label that is not among the likeliest tokens has at most the probability of the least of them."""

    def test_one_side(self, stub: StubServer, opened: Any) -> None:
        stub.script = [listing({"Yes": -0.3, "The": -1.6, **filler(-4.0)})]
        reply = one(opened(), ask())
        assert reply.bounds == ("no",)
        assert reply.logprobs["no"] - reply.logprobs["yes"] == pytest.approx(-5.7 + 0.3)
        # the bound is added to nothing
        assert (reply.logprobs["yes"], reply.mass) == (pytest.approx(0.0), pytest.approx(-0.3))
        assert "only a bound" in reply.notes[0] or "at most the probability" in reply.notes[0]
        assert comparisons.read_score(reply) == pytest.approx(5.4)

    def test_where_hardly_anything_is_listed_the_rest_bounds_it(self, stub: StubServer, opened: Any) -> None:
        # one token a question: the surer the model, the larger the margin, and never a tie
        margins = []
        for yes in (-0.6, -0.1, -0.01):
            stub.script = [listing({"Yes": yes})]
            reply = one(opened(), ask())
            assert reply.bounds == ("no",)
            margins.append(comparisons.read_score(reply))
            assert margins[-1] == pytest.approx(yes - math.log(1 - math.exp(yes)), abs=1e-3)
        stub.script = [listing({"No": -0.01})]
        found = comparisons.read_score(one(opened(), ask()))
        assert found is not None
        assert found < -4 < 0 < margins[0] < margins[1] < margins[2]  # type: ignore[operator]

    def test_neither_side(self, stub: StubServer, opened: Any) -> None:
        stub.script = [listing({"The": -0.2, **filler(-3.0, 19)})]
        error = one(opened(), ask()).error
        assert error is not None
        assert error.kind == "labels"
        assert "none of the choices yes, no, in any spelling, is among the 20 likeliest tokens" in str(error)
        assert "'The' is the first (82%): their order is not known" in str(error)
        # it gives log-probabilities all the same
        assert "choice_logprobs" in opened().capabilities

    def test_two_bounds_are_no_margin_and_a_bound_adds_nothing_to_a_mark(self) -> None:
        values = {"yes": -3.0, "no": -3.0}
        assert comparisons.read_score(Reply(logprobs=values, bounds=YES_NO)) is None
        marks = {str(d): -3.0 for d in range(10)} | {"7": math.log(0.5), "8": math.log(0.5)}
        unlisted = tuple(d for d in marks if d not in "78")
        assert comparisons.read_mark(Reply(logprobs=marks, bounds=unlisted)) == pytest.approx(7.5)

    def test_letters_that_are_not_listed_come_last(self, stub: StubServer, opened: Any) -> None:
        stub.script = [listing({"C": -0.4, " A": -2.0, **filler(-4.0)})]
        reply = one(opened(), ask("A", "B", "C", "D"))
        assert reply.bounds == ("B", "D")
        assert reply.logprobs["C"] > reply.logprobs["A"] > reply.logprobs["B"] == reply.logprobs["D"]


class Vllm:
    """How a vLLM server answers: ids where it knows them, else the likeliest, whatever the mask."""

    def __init__(self, stub: StubServer, *, knows: str = "yes") -> None:
        self.knows = knows
        self.ids = dict(zip([*spellings("yes"), *spellings("no")], range(100, 112), strict=True))
        stub.answer, stub.vocabulary = self.answer, self.tokens
        # nearly all is elsewhere, and the small spellings are the wrong way round
        spread = {" Yes": -4.0, "Yes": -3.0, "No": -8.0, "no": -9.0, "yes": -14.0}
        self.values = dict.fromkeys(self.ids, -20.0) | spread

    def tokens(self, text: str) -> list[int]:
        start, rest = ([7], text[1:]) if text[:1] == "\n" else ([], text)
        return [*start, *([self.ids[rest]] if rest in self.ids else [ord(c) for c in rest])]

    def answer(self, body: dict[str, Any]) -> Any:
        ids = body.get("logprob_token_ids")
        if ids and self.knows == "refuses":
            return 400, {}, {"error": {"message": "Extra inputs are not permitted: logprob_token_ids"}}
        if ids and self.knows == "yes":
            back = {n: s for s, n in self.ids.items()}
            return listing({"token_id:5": -0.1, **{f"token_id:{n}": self.values[back[n]] for n in ids}})
        if "structured_outputs" in body and self.knows == "masked":
            wanted = {s: self.values[s] for s in body["structured_outputs"]["choice"]}
            total = math.log(sum(math.exp(v) for v in wanted.values()))
            return listing({s: v - total for s, v in wanted.items()} | filler(-9999.0, 8))
        named = body.get("return_tokens_as_token_ids")
        likely = {("token_id:5" if named else "The"): -0.1, ("token_id:103" if named else "Yes"): -3.0}
        return listing(likely | filler(-5.0, 18))


class TestVllm:
    """Servers named ``vllm:`` are asked for labels by id, as far as they take it."""

    def test_values_by_id(self, stub: StubServer, opened: Any) -> None:
        server = Vllm(stub)
        chat = opened("vllm")
        reply = one(chat, ask())
        request = stub.requests[-1]
        assert request["logprob_token_ids"] == sorted(server.ids.values())
        assert request["return_tokens_as_token_ids"] is True
        assert request["logprobs"] is True
        assert "structured_outputs" not in request
        yes, no = ([server.values[s] for s in spellings(n)] for n in YES_NO)
        by_hand = [math.log(sum(math.exp(v) for v in side)) for side in (yes, no)]
        assert comparisons.read_score(reply) == pytest.approx(by_hand[0] - by_hand[1])
        assert reply.mass == pytest.approx(math.log(sum(map(math.exp, yes + no))))
        assert (reply.bounds, reply.notes) == ((), ())
        asked = len(stub.tokenized)
        one(chat, ask(text="Another?"))
        assert len(stub.tokenized) == asked == 15  # a line's end, two words bare, each spelling behind it
        one(chat, ask(exact=True))
        assert stub.requests[-1]["logprob_token_ids"] == [server.ids["yes"], server.ids["no"]] == [100, 106]

    def test_the_table_of_o200k_passes_through(self, stub: StubServer, opened: Any) -> None:
        server = Vllm(stub)
        yes = (6763, 13022, 31958, 14531, 11377, 32968)
        no = (1750, 3160, 14695, 860, 3004, 9319)
        server.ids = dict(zip(server.ids, yes + no, strict=True))
        assert one(opened("vllm"), ask()).error is None
        assert stub.requests[-1]["logprob_token_ids"] == sorted(yes + no)

    @pytest.mark.parametrize("knows", ["no", "refuses"])
    def test_one_that_does_not_know_ids(self, stub: StubServer, opened: Any, knows: str) -> None:
        Vllm(stub, knows=knows)
        chat = opened("vllm")
        reply = one(chat, ask())
        # the mask does not show in its values: what is listed counts, and the rest is bounded
        assert (reply.bounds, reply.error) == (("no",), None)
        assert reply.mass == pytest.approx(-3.0)
        wanted = [*spellings("yes"), *spellings("no")]
        assert stub.requests[-1]["structured_outputs"] == {"choice": wanted}
        before = len(stub.requests)
        one(chat, ask(text="Another?"))
        assert len(stub.requests) == before + 1  # learnt

    def test_one_whose_mask_shows(self, stub: StubServer, opened: Any) -> None:
        Vllm(stub, knows="masked")
        stub.vocabulary = None
        reply = one(opened("vllm"), ask())
        assert (reply.bounds, reply.error) == ((), None)
        assert (comparisons.read_score(reply) or 0) > 4
        assert reply.mass is None  # the mask made it all


def found(chat: Any) -> Finding:
    """What the probe says of log-probabilities."""
    return next(f for f in probe(chat) if f.name == "logprobs")


@pytest.mark.parametrize(
    ("hot", "cold", "status", "said"),
    [
        ({"Yes": -0.1, "No": -2.5}, {"Yes": -2.5, "No": -0.1}, "ok", "Is fire hot? yes -0.09, no -2.49"),
        ({" yes": -0.1}, {" no": -0.1}, "ok", "Is ice hot? yes at most -2.25, no 0.00"),
        # the small spellings hold e^-9, the other way round: that the capitals count is no fault of a server
        (
            {"Yes": -0.1, "No": -2.5, "no": -9.1, "yes": -11.5},
            {"No": -0.1, "Yes": -2.5, "yes": -9.1, "no": -11.5},
            "ok",
            "Is ice hot?",
        ),
        ({"No": -0.1, "Yes": -2.5}, {"No": -2.5, "Yes": -0.1}, "broken", "answers plain questions wrongly"),
        # a liking for yes, or for no
        ({"Yes": -0.1, "No": -2.5}, {"Yes": -0.1, "No": -2.5}, "broken", "Is ice hot? yes -0.09"),
        ({"No": -0.1, "Yes": -2.5}, {"No": -0.1, "Yes": -2.5}, "broken", "Is fire hot? yes -2.49"),
        ({"The": -0.01, "no": -9.0, "yes": -10.0}, {"The": -0.1, "no": -9.0}, "broken", "hold 0.00017"),
        ({"The": -0.01, "A": -9.0}, {"The": -0.1}, "broken", "their order is not known"),
    ],
    ids=["capitals", "spaces", "tails", "turned", "always yes", "always no", "elsewhere", "unlisted"],
)
def test_the_probe_asks_a_yes_and_a_no_question(
    stub: StubServer, opened: Any, hot: dict[str, float], cold: dict[str, float], status: str, said: str
) -> None:
    def answer(body: dict[str, Any]) -> Any:
        if not body.get("logprobs"):
            return completion("four")
        return listing(cold if "ice" in body["messages"][-1]["content"] else hot)

    stub.answer = answer
    finding = found(opened())
    assert finding.status == status
    assert said in finding.detail
    assert bool(finding.fix) is (status == "broken")
