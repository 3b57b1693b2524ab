"""Replies that no grammar held: readers take any plain form, and refuse what could mean two things."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrerank.messages import Ask, Reply
from mmrerank.rerank import comparisons, judgements
from mmrerank.rerank.replies import Reading
from mmrerank.rerank.wording import label_text, verdict_of, whole
from mmrerank.types import Candidate, Component, Query

QUERY = Query(text="a red boat, no people")
PARTS = (
    Component(id="c1", kind="subject", text="a red boat"),
    Component(id="c2", kind="exclusion", text="no people"),
)
GROUP = [Candidate(id=f"{n}.png", text="x") for n in range(3)]
EVALUATE = judgements.evaluate(QUERY, PARTS, GROUP)
ORDER = judgements.order(QUERY, PARTS, GROUP, {})
SINGLE = judgements.single(QUERY, GROUP)
GRADE = comparisons.grade(QUERY, GROUP)
CHOOSE = comparisons.choose(QUERY, GROUP)

VERDICTS = {
    "A": {
        "c1": {"note": "a boat", "verdict": "met"},
        "c2": {"note": "two men", "verdict": "missed"},
        "grade": 2,
    },
    "B": {"c1": {"note": "it's blue", "verdict": "partly"}, "c2": {"note": "", "verdict": "met"}, "grade": 1},
    "C": {"c1": {"note": "fog", "verdict": "cannot_tell"}, "c2": {"note": "", "verdict": "met"}, "grade": 0},
}
SCORES = {"reason": "C fits best", "scores": {"A": 10, "B": 40, "C": 90}}
GRADES = {"A": {"note": "", "grade": 3}, "B": {"note": "", "grade": 10}, "C": {"note": "", "grade": 0}}
WHOLE = {
    "components": [{"kind": "subject", "text": "a red boat"}, {"kind": "exclusion", "text": "no people"}],
    "images": {
        n: {"note": "x", "verdicts": [v["c1"]["verdict"], v["c2"]["verdict"]], "grade": v["grade"]}
        for n, v in VERDICTS.items()
    },
    **SCORES,
}
BEST = {"thought": "B is blue, C is red", "best": "C"}
DECONSTRUCT = {"components": WHOLE["components"]}


def told(reading: Reading) -> dict[str, Any]:
    """What a reading understood, without how it came."""
    return {
        "components": [(c.kind, c.text) for c in reading.components],
        "verdicts": {i: (a.grade, [v.verdict for v in a.verdicts]) for i, a in reading.assessments.items()},
        "order": reading.order,
    }


def graded(reply: Reply, ask: Ask) -> Reading:
    marks, reading = comparisons.read_grade(reply, ask)
    assert [a.reason.partition(" ")[0] for a in reading.assessments.values()] == [
        str(m) for m in marks.values()
    ]
    return judgements.reading(reading.status, order=tuple(f"{i}={m}" for i, m in marks.items()))


def chosen(reply: Reply, ask: Ask) -> Reading:
    id_, reading = comparisons.read_best(reply, ask)
    return judgements.reading(reading.status, order=(str(id_),))


Case = tuple[Callable[[Reply, Ask], Reading], Ask, dict[str, Any]]
CASES: dict[str, Case] = {
    "evaluate": (judgements.read_evaluate, EVALUATE, VERDICTS),
    "order": (judgements.read_order, ORDER, SCORES),
    "single": (judgements.read_single, SINGLE, WHOLE),
    "grade": (graded, GRADE, GRADES),
    "choose": (chosen, CHOOSE, BEST),
    "deconstruct": (lambda reply, ask: judgements.read_deconstruct(reply), ORDER, DECONSTRUCT),
}


def keys(change: Callable[[str], str]) -> Callable[[dict[str, Any]], str]:
    """A wrapping that spells every label another way."""

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {(change(k) if k in "ABC" else k): renamed(v) for k, v in value.items()}
        return [renamed(v) for v in value] if isinstance(value, list) else value

    return lambda body: json.dumps(renamed(body))


def rows(body: Any) -> Any:
    """Objects by label as lists of rows that name theirs."""
    if isinstance(body, dict) and body and set(body) <= set("ABC"):
        return [
            {"image": f"Image {k}", **(v if isinstance(v, dict) else {"score": v})} for k, v in body.items()
        ]
    if isinstance(body, dict):
        return {k: rows(v) for k, v in body.items()}
    return body


def python(body: Any) -> str:
    return repr(body)


def wide(text: str) -> str:
    """JSON's signs and digits as a Chinese keyboard has them, outside of texts."""
    out, inside = "", False
    for char in text:
        inside = not inside if char == '"' else inside
        out += (
            char
            if inside
            else char.translate(str.maketrans("{}[]:,0123456789", "｛｝［］：，０１２３４５６７８９"))
        )
    return out


WRAPPINGS: dict[str, Callable[[dict[str, Any]], str]] = {
    "fence": lambda b: f"Sure, here it is:\n```json\n{json.dumps(b, indent=2)}\n```\nBye {{:)}}",
    "prose": lambda b: f"Looking at A, then B, I answer {json.dumps(b)} as asked.",
    "quoted format": lambda b: '{"format": "asked for"} is what you want, so: ' + json.dumps(b),
    "byte order mark": lambda b: "\ufeff" + json.dumps(b),
    "trailing commas": lambda b: json.dumps(b).replace("}", ",}").replace("]", ", ]"),
    "comments": lambda b: json.dumps(b, indent=1).replace(",\n", ", // as seen\n").replace("{\n", "{ # so\n"),
    "block comments": lambda b: json.dumps(b).replace(", ", ", /* note: \"x\" */ "),
    "missing commas": lambda b: json.dumps(b, indent=1).replace("},\n", "}\n"),
    "python": python,
    "curly quotes": lambda b: re.sub(r'"([^"]*)"', r"“\1”", json.dumps(b)),
    "one curly quote": lambda b: json.dumps(b).replace('"', "“"),
    "no quotes": lambda b: re.sub(r'"(\w*)"', r"\1", json.dumps(b)),
    "full width": lambda b: wide(json.dumps(b)),
    "tool call": lambda b: json.dumps({"json_tool_call": b}),
    "function": lambda b: json.dumps({"calls": [{"function": {"name": "f", "arguments": json.dumps(b)}}]}),
    "result": lambda b: json.dumps({"status": "ok", "result": b, "confidence": 0.9}),
    "answer": lambda b: json.dumps({"reasoning": "A, B", "answer": b}),
    "output": lambda b: json.dumps({"output": [b]}),
    "list of one": lambda b: json.dumps([b]),
    "thinking": lambda b: f"<think>first {{A: 3}} {json.dumps({'A': 1})}</think>{json.dumps(b)}",
    "image a": keys(lambda k: f"Image {k}"),
    "image_a": keys(lambda k: f"image_{k.lower()}"),
    "brackets": keys(lambda k: f"[{k}]"),
    "bracket after": keys(lambda k: f"{k})"),
    "bold": keys(lambda k: f"**{k}**"),
    "full-width labels": keys(lambda k: chr(ord(k) + 0xFEE0)),
    "rows": lambda b: json.dumps(rows(b)),
    "capitals": lambda b: json.dumps(b)
    .replace('"met"', '"MET."').replace('"missed"', '"Not met"')
    .replace('"partly"', '"Partially met"').replace('"cannot_tell"', '"Cannot tell"'),
    "numbers as text": lambda b: json.dumps(b)
    .replace('"grade": 3', '"grade": "3.0"').replace(": 40", ': "40"'),
    "capital fields": lambda b: json.dumps(b).replace('"grade"', '"Grade"').replace('"verdict"', '"Verdict"'),
}  # fmt: skip


def is_plain(text: str, body: dict[str, Any]) -> bool:
    try:
        return bool(json.loads(text) == body)
    except ValueError:
        return False


@pytest.mark.parametrize("reader", CASES)
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_reply_means_the_same_in_any_wrapping(reader: str, wrapping: str) -> None:
    read, ask, body = CASES[reader]
    plain = read(Reply(text=json.dumps(body)), ask)
    assert plain.status == "ok"
    text = WRAPPINGS[wrapping](body)
    found = read(Reply(text=text), ask)
    assert told(found) == told(plain), text
    # whatever was mended is counted
    assert found.status == ("ok" if is_plain(text, body) else "repaired"), text


@pytest.mark.parametrize("reader", CASES)
@given(
    outer=st.sampled_from(["fence", "prose", "byte order mark", "quoted format", "thinking"]),
    inner=st.sampled_from(
        ["python", "trailing commas", "comments", "full width", "rows", "image a", "result"]
    ),
)
@settings(deadline=None, max_examples=20)
def test_two_wrappings_at_once(reader: str, outer: str, inner: str) -> None:
    read, ask, body = CASES[reader]

    mark = "@@"
    text = WRAPPINGS[outer]({mark: mark}).replace(json.dumps({mark: mark}), WRAPPINGS[inner](body))
    text = text.replace(json.dumps({mark: mark}, indent=2), WRAPPINGS[inner](body))
    assert told(read(Reply(text=text), ask)) == told(read(Reply(text=json.dumps(body)), ask)), text


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("[C] > [A] > [B]", "CAB"),
        ("Ｃ＞Ａ＞Ｂ", "CAB"),
        ("C、A、B", "CAB"),
        ("The ranking is C > A > B.", "CAB"),
        ("<answer>C > A > B</answer>", "CAB"),
        ("$$\\boxed{C > A > B}$$", "CAB"),
        ("1. Image C\n2. Image A\n3. Image B", "CAB"),
        ("1) C, 2) A, 3) B", "CAB"),
        ("Rank 1: C\nRank 2: A\nRank 3: B", "CAB"),
        ("1. Image C: a red boat\n2. Image A: a boat\n3. Image B: nothing", "CAB"),
        ("- Image C\n- Image A\n- Image B", "CAB"),
        ('```json\n[\n "C",\n "A",\n "B"\n]\n```', "CAB"),
        ("A: 20, B: 10, C: 95", "CAB"),
        ("A (20), B (10), C (95)", "CAB"),
        ("Image A: 20\nImage B: 10\nImage C: 95", "CAB"),
        ('{"scores": {"A": "20%", "B": "9%", "C": "95%"}}', "CAB"),
        ('{"scores": {"A": "8/10", "B": "1/10", "C": "9/10"}}', "CAB"),
        ('{"scores": {"A": {"score": 5, "why": "x"}, "B": {"score": 3}, "C": {"score": 8}}}', "CAB"),
        ('{"scores": [["A", 5], ["B", 3], ["C", 8]]}', "CAB"),
        ('{"scores": ["A: 5", "B: 3", "C: 8"]}', "CAB"),
        ('{"ranking": {"A": 2, "B": 3, "C": 1}}', "CAB"),
        ('{"ranking": {"1": "C", "2": "A", "3": "B"}}', "CAB"),
        ('{"Final Ranking": "C > A > B"}', "CAB"),
        (
            '{"ranking": [{"image": "A", "rank": 2}, {"image": "B", "rank": 3}, {"image": "C", "rank": 1}]}',
            "CAB",
        ),
        ('{"answer": ["Image C", "Image A", "Image B"]}', "CAB"),
        ('{"A": 5}\n{"B": 3}\n{"C": 8}', "CAB"),
        ('{"scores": {"A": NaN, "B": 3, "C": 8}}', "CB"),
        ('{"scores": {"A": 1, "B": 3, "C": 8, "A": 9}}', "CB"),
        # two readings, or none
        ('{"scores": {"A": "8/10", "B": 90, "C": "3%"}}', ""),
        ('{"ranking": [{"image": "A", "score": 3}, {"image": "B", "score": 9}]}', ""),
        ('{"first": {"scores": {"A": 1, "B": 2}}, "second": {"scores": {"A": 2, "B": 1}}}', ""),
        ('{"scores": [3, 9, 1]}', ""),
        ("1. Image A: a boat\n2. Image B: a red boat\n3. Image C: nothing", ""),
        ("C = A > B", ""),
        ("A and B show a boat, C does not", ""),
        ("Between A, B and C I cannot choose", ""),
    ],
)
def test_orders_as_models_write_them(text: str, order: str) -> None:
    ids = dict(zip("ABC", (c.id for c in GROUP), strict=True))
    found = judgements.read_order(Reply(text=text), ORDER)
    assert found.order == tuple(ids[n] for n in order)
    assert found.status == ("repaired" if order else "failed")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("B", "B"), ("Image B", "B"), ("**B**", "B"), ("The answer is B.", "B"), ("\\boxed{B}", "B"),
        ('{"best": "Image B"}', "B"), ('{"best": ["B"]}', "B"), ('{"best": {"label": "b"}}', "B"),
        ('{"best": "B: the red one"}', "B"), ('{"choice": "B"}', "B"), ('{"result": {"best": "B"}}', "B"),
        ("Image B fits best, unlike A", "B"),
        ('{"best": "B or C"}', None), ('{"best": ["B", "C"]}', None), ('{"best": 2}', None),
        ("B and C are alike", None), ("A red boat", None), ("The best is either B or C", None), ("", None),
    ],
)  # fmt: skip
def test_the_best_as_models_name_it(text: str, label: str | None) -> None:
    found, reading = comparisons.read_best(Reply(text=text), CHOOSE)
    assert found == (None if label is None else f"{'ABC'.index(label)}.png")
    assert reading.status == ("failed" if label is None else "repaired")


@pytest.mark.parametrize(
    "text",
    [
        '{"c1": {"verdict": "Met"}, "c2": {"verdict": "Not met"}, "grade": "2/3"}',
        '{"A": {"c1": "met", "c2": "missed", "grade": 2.0}}',
        '{"A": {"verdicts": ["met", "missed"], "grade": 2}}',
        '{"A": {"verdicts": {"c1": "met", "c2": "missed"}, "grade": "2"}}',
        '{"A": {"parts": [{"id": "C1", "verdict": "met"}, {"id": "c2", "verdict": "Unmet"}], "mark": 2}}',
        '{"A": {"a red boat": {"status": "met"}, "No people": {"status": "missed"}, "grade": 2}}',
        '{"image": "A", "c1 (subject)": {"verdict": "met"}, "C2": {"verdict": "missed"}, "grade": 2}',
        "c1: met\nc2: missed\ngrade: 2",
        "{'A': {'c1': {'note': 'the dog's \"red\" boat', 'verdict': 'met'}, 'c2': 'missed', 'grade': 2,}}",
        '{"A": {"c1": {"note": "it says "STOP", in red", "verdict": "met"}, "c2": "missed", "grade": 2}}',
    ],
)
def test_verdicts_of_one_image_as_models_write_them(text: str) -> None:
    found = judgements.read_evaluate(Reply(text=text), judgements.evaluate(QUERY, PARTS, GROUP[:1]))
    assert told(found)["verdicts"] == {"0.png": (2, ["met", "missed"])}
    assert found.status == "repaired"


def test_verdicts_by_part_and_then_by_image() -> None:
    body = {c: {n: VERDICTS[n][c] for n in "ABC"} for c in ("c1", "c2")}
    found = judgements.read_evaluate(Reply(text=json.dumps(body)), EVALUATE)
    assert [v for _, v in told(found)["verdicts"].values()] == [
        ["met", "missed"], ["partly", "met"], ["cannot_tell", "met"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "thing", "unwanted"),
    [
        ("Met", "met", "met"), (" FULLY MET. ", "met", "met"), ("✅ met", "met", "met"),
        ("满足", "met", "met"), ("❌ met", None, None), ("✅", "met", None),
        ("Partially met", "partly", "partly"), ("partly-met", "partly", "partly"),
        ("Not met", "missed", "missed"), ("not_met", "missed", "missed"), ("UNMET", "missed", "missed"),
        ("Can't tell", "cannot_tell", "cannot_tell"), ("cannot tell", "cannot_tell", "cannot_tell"),
        ("met: the boat is red", "met", "met"), ("Not met (no boat)", "missed", "missed"),
        # of what is not wanted, these say two things
        ("yes", "met", None), ("absent", "missed", None), (True, "met", None), ("present", "met", None),
        ("met or partly", None, None), ("met, but only partially", None, None), ("met/missed", None, None),
        ("maybe", None, None), ("n/a", None, None), ("", None, None), (None, None, None), (1, None, None),
    ],
)  # fmt: skip
def test_verdicts_as_models_spell_them(said: Any, thing: str | None, unwanted: str | None) -> None:
    assert verdict_of(said, PARTS[0]) == thing
    assert verdict_of(said, PARTS[1]) == unwanted


@pytest.mark.parametrize(
    ("value", "grade"),
    [
        (8, 8), ("8", 8), ("８", 8), ("8.0", 8), (8.0, 8), ("8/10", 8), ("8 out of 10", 8), ("4/5", 8),
        ("80%", 8), ("8 (good)", 8), ("Grade: 8", 8), ("**8**", 8), ("8分", 8),
        (8.5, None), ("7-8", None), ("85%", None), ("11", None), (-1, None), (True, None), (None, None),
        ("eight", 8), ("eight or nine", None), ("8 or 9", None),
            ("2/3", None), (float("nan"), None), (float("inf"), None),
        (10**400, None),
    ],
)  # fmt: skip
def test_grades_as_models_write_them(value: Any, grade: int | None) -> None:
    assert whole(value, 10) == grade


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Image A", "A"), ("image_a", "A"), ("imageA", "A"), ("A)", "A"), ("[A]", "A"), ("A.", "A"),
        ("Option (A)", "A"), ("Ａ", "A"), ("1.0", "1"), ("Image 03", "3"), ("#7", "7"), (2.0, "2"),
        ("Photos", "PHOTOS"), (True, ""), (None, ""),
    ],
)  # fmt: skip
def test_labels_as_models_spell_them(text: Any, label: str) -> None:
    assert label_text(text) == label


@pytest.mark.parametrize(
    "text",
    ["{" * 40_000, "[" * 40_000, '{"a":' * 20_000, "{/*" * 20_000, '{"a": "' + '"x' * 50_000, "{a:" * 20_000],
)
def test_no_reply_takes_long(text: str) -> None:
    start = time.process_time()
    assert judgements.read_evaluate(Reply(text=text), EVALUATE).status == "failed"
    assert time.process_time() - start < 5


def test_a_drawn_box_is_no_score() -> None:
    """Models that locate things write boxes, which are lists of numbers."""
    group = [Candidate(id=str(n), text="x") for n in range(40)]
    ask = comparisons.grade(QUERY, group)
    text = 'The boat is at [[3, 9], [10, 12]]. {"grades": {"1": 4, "2": 7}}'
    assert comparisons.read_grade(Reply(text=text), ask)[0] == {"0": 4, "1": 7}


TABLE = (
    "Order:\n\n| Rank | Image | Score |\n|:-:|---|---|\n| 1 | **C** | 90 |\n| 2 | B | 40 |\n| 3 | A | 10 |\n"
)


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        "| Image | Score |\n|:-:|:-:|\n| Image A | 10/99 |\n| Image B | 40/99 |\n| Image C | 90/99 |",
        "| Rank | Image | Why |\n|---|---|---|\n| 1 | C | red |\n| 2 | B | blue |\n| 3 | A | fog |\n\nC!",
        "C\nB\nA",
        "1) C 2) B 3) A",
        "1: C, 2: B, 3: A",
        "### Ranking\n1. **C** – very red\n2. **B** – red\n3. **A** – grey",
        json.dumps(json.dumps(SCORES)),
        json.dumps(json.dumps(SCORES))[1:-1],
    ],
)
def test_orders_in_tables_lines_and_texts(text: str) -> None:
    read = judgements.read_order(Reply(text=text), ORDER)
    assert (read.order, read.status) == (("2.png", "1.png", "0.png"), "repaired")


@pytest.mark.parametrize(
    "text", ["| Image | Why |\n|---|---|\n| C | red |\n| A | x |", "A\nmaybe\nB", "| C | B |"]
)
def test_tables_without_numbers_and_lines_with_prose_are_no_order(text: str) -> None:
    assert judgements.read_order(Reply(text=text), ORDER).status == "failed"


def test_grades_in_words_and_tables() -> None:
    said = '{"A": {"grade": "three"}, "B": {"grade": "Ten"}, "C": {"grade": "zero"}}'
    table = "| Image | Grade |\n|---|---|\n| A | 3 |\n| B | 10/10 |\n| C | 0 |"
    for text in (said, table):
        assert comparisons.read_grade(Reply(text=text), GRADE)[0] == {"0.png": 3, "1.png": 10, "2.png": 0}


@pytest.mark.parametrize(
    ("text", "best"), [("C > A > B", "2.png"), ("I choose Image C.", "2.png"), ("C or A", None)]
)
def test_the_best_in_words(text: str, best: str | None) -> None:
    assert comparisons.read_best(Reply(text=text), CHOOSE)[0] == best


@pytest.mark.parametrize(
    "text",
    [
        '["a red boat", "no people"]',
        "The parts are:\n- a red boat\n- no people",
        "1. a red boat\n2. **no people**",
        "- subject: a red boat\n- exclusion: no people",
        '{"subject": "a red boat", "exclusion": "no people"}',
        "| kind | text |\n|---|---|\n| subject | a red boat |\n| exclusion | no people |",
    ],
)
def test_parts_in_lines_and_bare_lists(text: str) -> None:
    read = judgements.read_deconstruct(Reply(text=text))
    assert ([c.text for c in read.components], read.status) == (["a red boat", "no people"], "repaired")


@pytest.mark.parametrize(
    "text",
    [
        '{"error": "no image"}',
        "No. You can:\n- ask again\nor not",
        "- a boat\nThat is all.",
        "[1, 2]",
        '"a boat"',
    ],
)
def test_what_is_no_list_of_parts(text: str) -> None:
    assert judgements.read_deconstruct(Reply(text=text)).status == "failed"


@pytest.mark.parametrize(
    "text",
    [
        "| Image | c1 | c2 | Grade |\n|---|---|---|---|\n"
        "| A | met | missed | 2 |\n| B | partly | met | 1 |\n| C | unclear | met | 0 |",
        "| Part | A | B | C |\n|---|---|---|---|\n"
        "| c1 | Met | Partially met | unclear |\n| c2 | Missed | Met | Met |",
    ],
)
def test_verdicts_in_tables(text: str) -> None:
    read = judgements.read_evaluate(Reply(text=text), EVALUATE)
    found = {i: [v.verdict for v in a.verdicts] for i, a in read.assessments.items()}
    assert found == {"0.png": ["met", "missed"], "1.png": ["partly", "met"], "2.png": ["cannot_tell", "met"]}
