"""Tables, pictures and the page of a comparison: the same figures everywhere, and nothing becomes markup."""

from __future__ import annotations

import base64
import csv
import io
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from rich.console import Console

from mmrerank.benchmark import Measured, Scores
from mmrerank.errors import InputError, MissingExtraError, UsageError
from mmrerank.evaluation.compare import charts as pictures
from mmrerank.evaluation.compare.comparison import Comparison
from mmrerank.evaluation.compare.compute import compare
from mmrerank.evaluation.compare.failures import lost_most, lowest
from mmrerank.evaluation.compare.rendering import latex, markdown, terminal, to_csv
from mmrerank.evaluation.compare.report import SHOWN, Evidence, image_file, page, save
from mmrerank.evaluation.compare.tables import (
    cost_table,
    differences_table,
    groups_table,
    long_table,
    values_table,
)
from mmrerank.types import Image, Usage

EVIL = '</td><script>alert("x")</script><img src=x onerror=y> $\\frac1 & 100% _a_ {b} | c\n#d~^`*['
QUERIES = [f"q{n:02d}" for n in range(40)]


def world(*names: str) -> Comparison:
    """Runs over forty queries: the second far better, the third lacking two answers, others noise."""
    rng = np.random.default_rng(2)
    truth = rng.beta(2, 2, 40)
    runs = {}
    for number, name in enumerate(names):
        gain = 0.15 if number == 1 else 0.0
        values = np.clip(truth + gain + rng.normal(0, 0.1, 40), 0, 1)
        lacks = QUERIES[:2] if number == 2 else ()
        answered = {q: float(v) for q, v in zip(QUERIES, values, strict=True) if q not in lacks}
        ranks = {q: 1 + 20 * (1 - v) for q, v in answered.items()}
        runs[name] = Scores(
            metrics={
                "nDCG@10": Measured(
                    name="nDCG@10", values=answered, expected=QUERIES, tie_rule="none"
                ),
                "MR": Measured(
                    name="MR", values=ranks, expected=QUERIES, tie_rule="none",
                    absent=21.0, lower_is_better=True,
                ),
            },
            expected=40,
            missing=lacks,
        )  # fmt: skip
    return compare(
        runs,
        categories={"category": {q: EVIL if n % 4 else "plain" for n, q in enumerate(QUERIES)}},
        seen={q: n < 25 for n, q in enumerate(QUERIES)},
    )


@pytest.fixture(scope="module")
def three() -> Comparison:
    return world("none", "cotrr", "list_wise")


@pytest.fixture(scope="module")
def hostile() -> Comparison:
    return world(EVIL, f"2{EVIL}")


USAGE = {"none": Usage(), "cotrr": Usage(calls=880, input_tokens=90_000, output_tokens=8_000, seconds=70.5)}


# --- tables ----------------------------------------------------------------------------------------------


def test_the_best_is_strong_and_a_difference_marked(three: Comparison) -> None:
    table = values_table(three)
    assert table.columns == ["run", "nDCG@10", "MR (lower is better)", "missing"]
    none, cotrr, other = table.rows
    assert [c.strong for c in cotrr] == [False, True, True, False]
    assert [c.mark for c in cotrr] == ["", "up", "up", ""]
    assert not any(c.mark or c.strong for c in (*none, *other))
    assert [r[-1].text for r in table.rows] == ["0", "0", "2"]
    assert "Holm's correction for 4 comparisons" in table.notes[0]
    verdicts = [(r[0].text, r[1].text, r[6].text) for r in differences_table(three).rows]
    assert verdicts == [
        ("nDCG@10", "cotrr - none", "better"),
        ("nDCG@10", "list_wise - none", "not different"),
        ("MR", "cotrr - none", "better"),
        ("MR", "list_wise - none", "not different"),
    ]


def test_groups_and_cost_as_tables(three: Comparison) -> None:
    table = groups_table(three, "seen", "MR")
    assert [r[0].text for r in table.rows] == ["seen", "novel"]
    assert [r[1].text for r in table.rows] == ["25", "15"]
    assert len(table.columns) == 7
    cost = cost_table(three, USAGE, "nDCG@10")
    assert [[c.text for c in r[2:]] for r in cost.rows] == [
        ["0", "0", "0", "0"], ["22", "2250", "200", "1.76"],
    ]  # fmt: skip


def test_csv_comes_back_unrounded(three: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(long_table(three)))))
    plain = [r for r in rows if not r["grouping"]]
    assert [(r["metric"], r["run"]) for r in plain] == [(m, r) for m in ("nDCG@10", "MR") for r in three.runs]
    for row in plain:
        one = three.value(row["metric"], row["run"])
        assert float(row["value"]) == one.value
        assert float(row["value_scored"]) == one.value_scored
        assert int(row["missing"]) == one.missing
        if found := three.difference(row["metric"], row["run"]):
            assert (float(row["low"]), float(row["high"])) == found.interval
            assert float(row["p_corrected"]) == found.p_corrected
            assert row["verdict"] == found.verdict
    grouped = [r for r in rows if r["grouping"]]
    assert len(grouped) == len(three.groups)
    for row, group in zip(grouped, three.groups, strict=True):
        assert (row["group"], row["run"]) == (group.name, group.run)
        assert float(row["value"]) == group.value


def test_markup_of_a_name_is_text_everywhere(hostile: Comparison) -> None:
    for table in (
        values_table(hostile), differences_table(hostile), groups_table(hostile, "category", "MR"),
    ):  # fmt: skip
        text = markdown(table)
        assert "<script" not in text
        body = [line for line in text.splitlines() if line.startswith("| ")]
        assert len(body) == len(table.rows) + 2  # a line break in a name makes no row
        # unescaped bars are the table's own
        bars = {len(re.findall(r"(?<!\\)\|", line)) for line in body}
        assert bars == {len(table.columns) + 1}

        text = latex(table)
        assert "\\frac" not in text
        assert "\\textbackslash{}frac1 \\& 100\\% \\_a\\_ \\{b\\}" in text
        rows = text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
        assert len(rows) == len(table.rows)
        for row in rows:
            assert row.endswith(" \\\\")
            assert len(re.findall(r"(?<!\\)&", row)) == len(table.columns) - 1
            assert "^" not in re.sub(r"\^\{\\(up|down)arrow\}", "", row)
            assert "~" not in row
        assert text.count("{") == text.count("}")

        console = Console(file=io.StringIO(), width=400)
        console.print(terminal(table))
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert "[" in shown  # is no markup of rich
        assert "| c\\n#d" in shown


# --- pictures --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pictures_are_drawn_and_the_same_again(three: Comparison) -> None:
    drawn = pictures.draw(three, USAGE)
    assert [p.name for p in drawn] == [
        "differences", "queries-1", "queries-2", "groups-1", "groups-2", "cost",
    ]  # fmt: skip
    for picture in drawn:
        root = ET.fromstring(picture.data)
        assert root.tag.endswith("svg")
        # nothing is loaded from elsewhere
        for element in root.iter():
            for key, value in element.attrib.items():
                assert not key.endswith("href") or value.startswith("#")
    assert pictures.differences(three) == drawn[0].data
    assert [p.name for p in pictures.draw(three)][-1] == "groups-2"  # no cost is known
    assert [p.name for p in pictures.draw(three, {"none": Usage()})][-1] == "groups-2"


def test_pictures_take_any_name(hostile: Comparison) -> None:
    image = Pillow.open(io.BytesIO(pictures.differences(hostile, format="png")))
    assert image.width > 400
    assert image.convert("L").getextrema()[0] < 60
    assert pictures.groups(hostile, "MR", "category")
    names = world("狐", "b$c$")
    assert pictures.queries(names, "MR", "b$c$")
    with pytest.raises(UsageError, match="category, seen, not 'kind'"):
        pictures.groups(hostile, "MR", "kind")


def test_costs_far_apart_are_drawn(three: Comparison) -> None:
    far = {
        "none": Usage(seconds=0.01),
        "cotrr": Usage(seconds=5000, calls=3),
        "list_wise": Usage(seconds=40, calls=900),
    }
    assert pictures.cost(three, far, "MR", format="png")
    with pytest.raises(UsageError, match="no run has a cost"):
        pictures.cost(three, {}, "MR")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8))
def test_the_front_is_what_no_other_beats(points: list[tuple[int, int]]) -> None:
    costs, values = zip(*points, strict=True)
    front = {points[n] for n in pictures.pareto(costs, values)}
    beaten = {
        p for p in points for o in points if o != p and o[0] <= p[0] and o[1] >= p[1]
    }  # fmt: skip
    assert front == set(points) - beaten


def test_without_matplotlib_the_command_is_told(three: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"mmrerank\[eval\]\""):
        pictures.differences(three)


# --- the worst failures ----------------------------------------------------------------------------------


def test_losses_and_lows(three: Comparison) -> None:
    for metric in three.metrics:
        gains = three.gains(metric, "cotrr")
        lost = lost_most(three, metric, "cotrr", 3)
        assert [f.gain for f in lost] == sorted(gains.values())[:3]
        assert all(f.gain < 0 for f in lost)
        assert len(lost_most(three, metric, "cotrr", 99)) == sum(g < 0 for g in gains.values())
        out = {f.query for f in lost}
        low = lowest(three, metric, "list_wise", 2, but=out)
        values = three.value(metric, "list_wise").by_query
        lower = metric == "MR"
        best = sorted((v for q, v in values.items() if q not in out), reverse=lower)
        assert [f.value for f in low] == best[:2]
    assert lowest(three, "MR", "list_wise", 1)[0].query == "q00"  # absent: counts as the worst


# --- the page --------------------------------------------------------------------------------------------


@pytest.fixture
def evidence(tmp_path: Path, picture: Callable[..., Image], hostile: Comparison) -> Evidence:
    (tmp_path / "sub").mkdir()
    for number, name in enumerate(("0.png", "sub/1.png")):
        (tmp_path / name).write_bytes(picture(80, 60, number).read())
    (tmp_path / "2.png").write_bytes(b"not an image")
    ids = ["0", "sub/1.png", "2.png", EVIL, "../out.png", *(f"x{n}" for n in range(8)), "far"]
    return Evidence(
        texts=dict.fromkeys(QUERIES, EVIL),
        labels=dict.fromkeys(QUERIES, (EVIL,)),
        references={q: [tmp_path / "0.png", tmp_path / "no.png"] for q in QUERIES},
        rankings={run: dict.fromkeys(QUERIES, ids) for run in hostile.runs},
        qrels={q: {"sub/1.png": 2, "0": 0, "y": -1} if n % 2 else {"far": 1} for n, q in enumerate(QUERIES)},
        images=tmp_path,
    )


class Balanced(HTMLParser):
    """Counts tags and fails on one that closes what is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_nothing_anybody_says_becomes_markup(hostile: Comparison, evidence: Evidence) -> None:
    usage = {hostile.runs[1]: Usage(calls=40, seconds=3)}
    whole = page(
        hostile, evidence=evidence, usage=usage, pictures=pictures.draw(hostile, usage), title=EVIL, worst=2
    )
    assert "<script" not in whole
    assert whole.count("&lt;script&gt;") > 20
    parser = Balanced()
    parser.feed(whole)
    assert parser.open == []
    assert "script" not in parser.tags
    assert parser.tags.count("article") == 4
    # nothing is fetched: every source is in the page
    sources = re.findall(r'(?:src|href)="([^"]*)"', whole)
    assert all(s.startswith(("data:image/jpeg;base64,", "data:image/svg+xml;base64,")) for s in sources)
    assert "url(" not in whole
    assert "@import" not in whole
    assert whole == page(
        hostile, evidence=evidence, usage=usage, pictures=pictures.draw(hostile, usage), title=EVIL, worst=2
    )


def test_failures_show_images_and_what_was_looked_for(hostile: Comparison, evidence: Evidence) -> None:
    whole = page(hostile, evidence=evidence, worst=3)
    cards = whole.split("<article>")[1:]
    assert len(cards) == 6
    for card in cards:
        card = card.split("</article>")[0]
        assert card.count('class="t"') + card.count('class="t good"') >= 2 * SHOWN
        assert card.count('alt="0"') == 2  # the id without its suffix, in both runs
        assert card.count("<img") in (5, 6)
        assert "asked with" in card
        assert "../out.png</span>" in card  # a tile, no file from outside
        query = re.findall(r'class="soft">(q\d\d)<', card)[0]
        if int(query[1:]) % 2:
            assert card.count('class="t good"') == 2
            assert "relevant, grade 2" in card
        else:
            assert card.count("the first relevant image is number 14") == 2
    jpeg = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', whole)
    sizes = {Pillow.open(io.BytesIO(base64.b64decode(j))).size for j in jpeg}
    assert sizes == {(80, 60)}  # small ones are not enlarged


def test_a_page_needs_nothing_but_the_comparison(three: Comparison, tmp_path: Path) -> None:
    whole = page(three)
    assert "Worst failures of cotrr" in whole
    assert "Images were not given" in whole
    assert "What it cost" not in whole
    assert "none" in page(three, worst=0)
    target = tmp_path / "new" / "page.html"
    save(whole + "\ud800", target)  # half a surrogate pair, out of a JSON file
    assert target.read_text("utf-8").startswith("<!doctype html>")
    assert [f.name for f in target.parent.iterdir()] == ["page.html"]
    with pytest.raises(InputError, match="cannot be written"):
        save(whole, target / "below.html")


def test_answers_that_lack_are_told(three: Comparison) -> None:
    known = Evidence(
        rankings={"none": {}, "list_wise": {"q00": ["a"], "q01": ["b"]}}, qrels={"q00": {"b": 1}, "q01": {}}
    )
    whole = page(three, evidence=known, worst=2)
    assert "no answer" in whole
    assert "no relevant image among its 1" in whole


def test_an_id_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    (inside / "a.b.jpg").write_bytes(b"x")
    assert image_file(inside, "a.b") == inside / "a.b.jpg"
    assert image_file(inside, "a.b.jpg") == inside / "a.b.jpg"
    for id_ in ("../secret.png", str(tmp_path / "secret.png"), "", "x" * 400, "a\0b", "..\\secret"):
        assert image_file(inside, id_) is None
    assert image_file({"a": inside / "a.b.jpg"}, "a") == inside / "a.b.jpg"
    assert image_file({}, "a") is None
    assert image_file(None, "a") is None
