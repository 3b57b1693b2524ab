"""Records, their replay, and the ledger: what was asked and answered, and what it cost."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from test_reply_cache import Counting, ask

from mmrerank.chat.around import around, layers
from mmrerank.chat.around.cache import Cached
from mmrerank.chat.around.ledger import Ledgered, default_ledger, entries
from mmrerank.chat.around.record import Recorded
from mmrerank.chat.open import open_chat
from mmrerank.errors import ChatError, InputError, ReplyError, UsageError
from mmrerank.messages import Reply
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Usage

FOUND = [Candidate(id=f"red {n} boat.jpg", text=f"picture {n}") for n in range(6)]


@pytest.mark.parametrize("method", ["cotrr", "pointwise", "prp", "listwise"])
def test_a_replayed_ranking_is_the_ranking(tmp_path: Path, method: str) -> None:
    record = tmp_path / "r.jsonl"
    first = Reranker(method, "oracle", record=record).rank("red boat 3", FOUND)
    again = Reranker(method, f"replay:{record}").rank("red boat 3", FOUND)
    assert [h.id for h in again] == [h.id for h in first]
    assert again.explanation == first.explanation
    assert again.trace == first.trace
    assert again.usage == first.usage
    other = Reranker(method, f"replay:{record}").rank("blue boat", FOUND)
    assert other.degraded
    assert "holds no answer" in other.warnings[0]
    assert [h.id for h in other] == [c.id for c in FOUND]


def test_everything_of_a_reply_comes_back(tmp_path: Path) -> None:
    inner = Counting()
    record = tmp_path / "r.jsonl"
    questions = [ask("a"), ask("b", choices=("x", "y")), ask("c", read="embed")]
    first = Recorded(inner, record).reply(questions)
    inner.error = ReplyError("useless", retryable=True)
    first += Recorded(inner, record).reply([ask("d")])
    chat = open_chat(f"replay:{record}")
    assert chat.capabilities == inner.capabilities
    for one, two in zip(first, chat.reply([*questions, ask("d")]), strict=True):
        assert (one.text, one.logprobs, one.finish, one.usage) == (
            two.text, two.logprobs, two.finish, two.usage,
        )  # fmt: skip
        assert [s.tolist() for s in one.states] == [s.tolist() for s in two.states]
        assert str(one.error) == str(two.error)
        assert type(one.error) is type(two.error)
    # a question that was asked twice is answered in turn
    inner.error = None
    Recorded(inner, record).reply([ask("d")])
    chat = open_chat(f"replay:{record}")
    assert [chat.reply([ask("d")])[0].error is None for _ in range(3)] == [False, True, True]


def test_the_record_sees_what_the_cache_answers(tmp_path: Path) -> None:
    inner = Counting()
    cache = tmp_path / "c.sqlite"
    around(inner, cache=cache).reply([ask("a")])
    chat: Any = around(inner, cache=cache, record=tmp_path / "r.jsonl", ledger=tmp_path / "l.jsonl")
    assert [type(layer) for layer in layers(chat)] == [Recorded, Cached, Ledgered, Counting]
    chat.reply([ask("a"), ask("b")])
    chat.known([ask("a"), ask("new")])
    lines = [json.loads(ln) for ln in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [ln.get("digest") for ln in lines] == [
        None, ask("a").digest(), ask("b").digest(), ask("a").digest(),
    ]  # fmt: skip
    assert lines[1]["prompt"] == "user: a"
    (entry,) = entries(tmp_path / "l.jsonl")
    assert (entry.model, entry.usage.calls) == ("counting:m", 1)
    # what is not changed is the inner chat's
    assert (chat.spec, chat.domain, chat.settings) == ("counting:m", "", {})
    assert not hasattr(chat, "no_such_thing")


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    chat = Recorded(Counting(), tmp_path / "r.jsonl")
    threads = [
        threading.Thread(target=lambda n=n: [chat.reply([ask(f"{n} {m}")]) for m in range(20)])
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    replay: Any = open_chat(f"replay:{tmp_path / 'r.jsonl'}")
    assert all(replay.reply([ask(f"{n} {m}")])[0].error is None for n in range(6) for m in range(20))


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"digest": "a", "reply": 1}', '{"record": 2}', '{"digest": "a", "reply": {}}']
)
def test_wrong_records(tmp_path: Path, line: str) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(InputError, match="record"):
        open_chat(f"replay:{file}")
    # a last line that a kill cut short costs itself alone
    file.write_text('{"record": 1, "spec": "m", "capabilities": ["generate"]}\n{"dig')
    assert open_chat(f"replay:{file}").capabilities == {"generate"}


def test_records_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="replay:FILE"):
        open_chat("replay:")
    with pytest.raises(InputError, match="cannot be read"):
        open_chat(f"replay:{tmp_path / 'none'}")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Recorded(Counting(), tmp_path / "file" / "r.jsonl")


class TestLedger:
    """What was spent, by day and model."""

    def test_sums(self, tmp_path: Path) -> None:
        file = tmp_path / "state" / "l.jsonl"
        for name in ("a", "b", "a"):
            inner = Counting(name)
            Ledgered(inner, file).reply([ask("x"), ask("y")])
            inner.error = ChatError("down")
            Ledgered(inner, file).reply([ask("z")])
        with file.open("a") as out:
            out.write('{"day": "cut sho')
        found = {e.model: e for e in entries(file)}
        assert found["counting:a"].usage == Usage(calls=6, input_tokens=42, output_tokens=12)
        assert (found["counting:a"].failed, found["counting:b"].failed) == (2, 1)
        assert "hello" not in file.read_text()
        assert entries(tmp_path / "none") == []

    def test_a_line_that_is_not_finite_costs_itself_alone(self, tmp_path: Path) -> None:
        file = tmp_path / "l.jsonl"
        Ledgered(Counting(), file).reply([ask("x")])
        right = file.read_text()
        wrong = ({"seconds": math.nan}, {"calls": 10**400}, {"failed": math.inf})
        lines = [json.dumps(json.loads(right) | row) + "\n" for row in wrong]
        file.write_text(right + "".join(lines))
        (entry,) = entries(file)
        assert (entry.usage.calls, entry.failed) == (1, 0)

    def test_one_that_cannot_be_written_costs_no_answer(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        chat = Ledgered(Counting(), tmp_path / "file" / "l.jsonl")
        assert chat.reply([ask()])[0].error is None

    def test_where_it_is(self, tmp_path: Path) -> None:
        assert default_ledger({"MMRERANK_LEDGER": "off"}) is None
        assert default_ledger({"MMRERANK_LEDGER": "OFF"}) is None
        assert default_ledger({"MMRERANK_LEDGER": "/a/b"}) == Path("/a/b")
        assert default_ledger({"XDG_STATE_HOME": "/s"}) == Path("/s/mmrerank/usage.jsonl")
        assert default_ledger({}) == Path.home() / ".local/state/mmrerank/usage.jsonl"


def test_a_backend_that_gives_too_few_replies_is_told_through_every_layer(tmp_path: Path) -> None:
    class Short(Counting):
        def reply(self, asks: Any) -> list[Reply]:
            return super().reply(asks)[:-1]

    for layer in ({"cache": tmp_path / "c"}, {"ledger": tmp_path / "l"}, {"record": tmp_path / "r"}):
        result = Reranker("pointwise", around(Short(), **layer)).rank("a", FOUND)
        assert result.degraded
        assert "5 replies to 6 questions" in result.warnings[0]
