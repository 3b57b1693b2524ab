"""Bounded work for every caller: what is refused, how it is raised, how many questions are really asked."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from typer.testing import CliRunner

from mmrerank import Candidate, Query, Reranker, config, registry
from mmrerank.budget import Budget
from mmrerank.chat.fakes.scripted import Scripted
from mmrerank.cli.main import cli
from mmrerank.errors import CancelledError, InputError, QueryError, UsageError
from mmrerank.limits import Limits, in_force, within
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Chat
from mmrerank.reading import all_of, blocks, whole

HUGE: list[Any] = [10**9, 10**400, "9" * 5000, "1e999", float("inf"), float("nan"), -(10**30)]


class Counting(Chat):
    """Answers every question and counts them; ``after`` so many it sets ``event``."""

    spec = "counting"
    capabilities = frozenset({"generate", "choice_logprobs"})
    fake = True

    def __init__(self, *, event: threading.Event | None = None, after: int = 0, concurrency: int = 1) -> None:
        self.asked, self.event, self.after, self.concurrency = 0, event, after, concurrency
        self.longest, self.given_up = 0, False

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        self.asked += len(asks)
        if self.event is not None and self.asked >= self.after:
            self.event.set()
        self.longest = max(len(p.text or "") for a in asks for m in a.messages for p in m.parts)
        return [
            Reply(logprobs=dict.fromkeys(a.choices, -1.0)) if a.choices else Reply(text="[1, 2]")
            for a in asks
        ]

    def cancel(self) -> None:
        self.given_up = True


def texts(count: int) -> list[Candidate]:
    return [Candidate(id=str(n), text=f"picture {n}") for n in range(count)]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"text": "x" * 40_000}, "the query has 40,000 characters; at most 8,000 are allowed"),
        ({"text": "x", "exclude": ("y" * 9_000,)}, "the query has 9,001 characters"),
        ({"text": "x", "turns": ("a",) * 65}, "the query has 65 exclusions, turns and terms; at most 64"),
        ({"text": "a\0b"}, "the query's text holds a NUL character"),
        ({"text": "x", "exclude": ("\ud800",)}, "the query's exclude holds U+D800, half of a character"),
        ({"text": 5}, "a query's text must be text, not int"),
    ],
)
def test_a_query_is_bounded_text(values: dict[str, Any], told: str) -> None:
    with pytest.raises(QueryError, match=re.escape(told)):
        Query(**values)


def test_a_limit_is_raised_as_its_error_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with within(query_characters=50_000):
        assert Query(text="x" * 40_000).kind == "text"
    with pytest.raises(QueryError, match="MMRERANK_LIMITS=query_characters=N"):
        Query(text="x" * 40_000)
    monkeypatch.setenv("MMRERANK_LIMITS", "query_characters=50000, candidates=3")
    assert Query(text="x" * 40_000).kind == "text"
    assert in_force() == Limits(query_characters=50_000, candidates=3)


@pytest.mark.parametrize("text", ["x=1", "candidates=0", "candidates=1e3", "candidates", "k=" + "9" * 5000])
def test_wrong_limits_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="limit"):
        Limits.parse(text)


def test_a_long_query_on_the_command_line_is_a_usage_error(tmp_path: Path) -> None:
    found = CliRunner().invoke(cli, ["search", "x" * 40_000, "--index", str(tmp_path)])
    assert found.exit_code == 2
    assert "the query has 40,000 characters" in found.output
    for flag in ("--k", "--candidates"):
        found = CliRunner().invoke(cli, ["search", "x", flag, str(10**12), "--index", str(tmp_path)])
        assert (found.exit_code, f"{flag} must be at most" in found.output) == (2, True)


@pytest.mark.parametrize("name", registry.names("strategy"))
def test_every_number_of_every_method_has_bounds_that_hold(name: str) -> None:
    options = registry.load("strategy", name).Options
    bounds, hints = config.bounds_of(options), get_type_hints(options)
    numbers = [f for f in dataclasses.fields(options) if hints[f.name] in (int, float)]
    assert {f.name for f in numbers} == bounds.keys()
    for field in numbers:
        assert bounds[field.name].low <= field.default <= bounds[field.name].high
        assert bounds[field.name].high <= 2**32
        for value in HUGE[1:] if field.name == "seed" else HUGE:
            with pytest.raises(UsageError, match=field.name):
                config.build(options, {field.name: value}, where=name)


def test_bounds_of_options_can_be_raised_and_are_listed() -> None:
    with pytest.raises(UsageError, match=r"repeats must be from 1 to 100, not 500; .*option_factor=N"):
        Reranker("grouprank", Counting(), repeats=500)
    with within(option_factor=5):
        assert Reranker("grouprank", Counting(), repeats=500).options.repeats == 500
    listed = json.loads(CliRunner().invoke(cli, ["list", "methods", "--output", "json"]).stdout)
    (row,) = (m for m in listed["methods"] if m["name"] == "grouprank")
    assert {"name": "repeats", "type": "int", "default": 2, "from": 1, "to": 100} in row["options"]


def test_nothing_is_asked_where_candidates_or_questions_pass_their_limits() -> None:
    chat = Counting()
    with pytest.raises(UsageError, match="candidates must be at most 1,000, not 1001"):
        Reranker("pointwise", chat).rank("a boat", texts(1001))
    with pytest.raises(UsageError, match="tsprank may ask 39,800 questions about 200 candidates"):
        Reranker("tsprank", chat).rank("a boat", texts(200))
    assert chat.asked == 0
    assert len(Reranker("none").rank("a boat", texts(1001)).hits) == 1001  # asks nobody
    with within(questions=100):
        held = Reranker("tsprank", chat, budget=Budget(calls=50)).rank("a boat", texts(15))
    assert chat.asked <= 50
    assert held.degraded


def test_a_method_of_unknown_length_stops_at_the_limit_and_says_so() -> None:
    from mmrerank.messages import Message, Outcome, Part

    ask = Ask(messages=(Message(role="user", parts=(Part(text="?"),)),))

    def endless(query: Query, ranking: Any) -> Any:
        for _ in range(50):
            yield [ask]
        return Outcome(ranking=ranking)

    chat = Counting()
    with within(questions=7):
        found = Reranker(endless, chat).rank("a boat", texts(3))
    assert chat.asked == 7
    assert found.degraded
    assert "a ranking may ask 7 questions" in " ".join(found.warnings)


def test_a_long_caption_is_cut_and_reported() -> None:
    chat = Counting()
    given = [Candidate(id="long", text="z" * 1_000_000), Candidate(id="b", text="short")]
    found = Reranker("pointwise", chat).rank("a boat", given)
    assert chat.longest < 4_000
    assert any("the first 2,000 characters (long)" in w for w in found.warnings)
    assert {h.candidate.text for h in found} == {g.text for g in given}


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_cancelled_ranking_asks_nothing_further(concurrency: int) -> None:
    event = threading.Event()
    chat = Counting(event=event, after=6, concurrency=concurrency)
    with pytest.raises(CancelledError):
        Reranker("prp", chat).rank_batch([("a boat", texts(20))] * 4, cancel=event)
    assert chat.asked <= 6 + 4 * 2  # what was under way in the other threads
    assert not chat.given_up  # another ranking's questions are left alone
    assert not [t for t in threading.enumerate() if t.name.startswith("ranking")]
    with pytest.raises(CancelledError):
        Reranker("prp", chat).rank("a boat", texts(3), cancel=event)


@pytest.mark.parametrize(
    "text",
    [
        "options:\n  m0: &m0 [x]\n" + "".join(f"  m{n + 1}: &m{n + 1} [*m{n}, *m{n}]\n" for n in range(30)),
        "options: &a [*a]\n",
        "options:\n  m0: &m0 {x: 1}\n"
        + "".join(f"  m{n + 1}: &m{n + 1} {{<<: [*m{n}, *m{n}]}}\n" for n in range(30)),
        "options: " + "[" * 1500,
        "k: " + "9" * 6000,
    ],
    ids=["laughs", "cyclic", "merged", "deep", "digits"],
)  # fmt: skip
def test_a_recipe_that_explodes_is_a_clear_error(tmp_path: Path, text: str) -> None:
    (path := tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError, match="recipe.yaml"):
        config.load(path, environment={})


def test_files_and_lines_are_bounded_after_unpacking(tmp_path: Path) -> None:
    (bomb := tmp_path / "bomb.gz").write_bytes(gzip.compress(b"\0" * 4_000_000))
    with within(file_bytes=1_000_000, line_bytes=1_000):
        with pytest.raises(InputError, match="more than 1,000,000 bytes"):
            whole(bomb, packed=True)
        with pytest.raises(InputError, match="more than 1,000,000 bytes"):
            whole(Path("/dev/zero"))
        with gzip.open(bomb) as file, pytest.raises(InputError, match="line 1 has more than 1,000 bytes"):
            list(blocks(file, "bomb", 512))
        found = CliRunner().invoke(cli, ["rerank", "--input", "/dev/zero", "--rerank", "none"])
    assert (found.exit_code, "line 1 has more than 1,000 bytes" in found.output) == (3, True)
    assert all_of(io.BytesIO(b"abc"), "x") == b"abc"


@pytest.mark.parametrize("size", [1, 2, 3, 64])
@pytest.mark.parametrize("data", [b"", b"a", b"a\n", b"\n\na\n", b"ab\r\n\ncd", b"a\nb\n\n"])
def test_blocks_are_the_lines_of_the_file(data: bytes, size: int) -> None:
    lines = [line for some in blocks(io.BytesIO(data), "x", size) for line in some]
    assert lines == [line.removesuffix(b"\n") for line in io.BytesIO(data).readlines()]


def test_a_scripted_model_can_still_be_used() -> None:
    assert not Reranker("listwise", Scripted(lambda ask: "[1]")).rank("a", texts(1)).degraded
