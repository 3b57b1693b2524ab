"""A filter reads as it is written out, and what cannot be read is refused at its place."""

from __future__ import annotations

import json

import pytest
from filter_trees import nodes
from hypothesis import given, settings
from hypothesis import strategies as st

import mmrerank
from mmrerank.errors import UsageError
from mmrerank.filters.columns import Fields
from mmrerank.filters.filter import Filter
from mmrerank.filters.grammar import MOST_CHARACTERS, MOST_COMPARISONS, MOST_NESTED
from mmrerank.filters.tree import KEYWORDS, Column, Compare, In, Node, Null, Value

KEYS = st.one_of(
    st.sampled_from(["taken", "species", "gbif", "my key", "a.b", "x`y", "名前", *KEYWORDS, "NOT", "9lives"]),
    st.text(min_size=1, max_size=5),
)
COLUMNS = st.builds(lambda k: Column(keys=tuple(k)), st.lists(KEYS, min_size=1, max_size=3))
DATES = ["2024-06", "2024-06-01", "1999-12-31T23:59", "2024-02-29T00:00:01"]
VALUES = st.one_of(
    st.text(max_size=8).map(lambda t: Value(kind="text", content=t)),
    st.integers(-(2**63), 2**63 - 1).map(lambda n: Value(kind="number", content=n)),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda n: Value(kind="number", content=n)),
    st.booleans().map(lambda b: Value(kind="boolean", content=b)),
    st.sampled_from(DATES).map(lambda d: Value(kind="date", content=d)),
)
OPERATORS = st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "~", "!~"])
LEAVES = st.one_of(
    st.builds(lambda c, o, v: Compare(column=c, operator=o, value=v), COLUMNS, OPERATORS, VALUES),
    st.builds(
        lambda c, v, n: In(column=c, values=tuple(v), negated=n),
        COLUMNS, st.lists(VALUES, min_size=1, max_size=3), st.booleans(),
    ),
    st.builds(lambda c, n: Null(column=c, negated=n), COLUMNS, st.booleans()),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(nodes(LEAVES))
def test_what_is_written_out_reads_as_the_same(node: Node) -> None:
    assert Filter.parse(str(node)).node == node


def test_small_and_large_words_and_other_signs_say_the_same() -> None:
    loud = Filter.parse("TAKEN IS NOT NULL AND NOT a == 1 OR Has b")
    assert str(loud) == "(TAKEN is not null and not a = 1) or b is not null"
    assert Filter.parse("a <> 'it''s'") == Filter.parse('a != "it\'s"')
    assert Filter.parse("a = 2024-06-01 10:30") == Filter.parse("a=2024-06-01T10:30")
    assert Filter.parse("android = 1 or orange = 2 or nothing = 3 or has_x = 4 or in-side = 5")
    assert str(Filter.parse("a = -1.5e3 and b = .5")) == "a = -1500.0 and b = 0.5"


def test_filters_are_joined_in_python() -> None:
    a, b = mmrerank.Filter.parse("x = 1 or y = 2"), mmrerank.Filter.parse("z = 3")
    assert str(a & b) == "(x = 1 or y = 2) and z = 3"
    assert str(~(a | "q = 4")) == "not ((x = 1 or y = 2) or q = 4)"
    assert a == mmrerank.Filter.parse("x=1 or y=2")
    assert len({a, mmrerank.Filter.parse("x=1 or y=2")}) == 1


@pytest.mark.parametrize(
    ("text", "at", "says"),
    [
        ("", None, "the filter is empty"),
        ("  ", None, "the filter is empty"),
        ("camera ~ Pixel", 9, 'Text is written in quotes: "Pixel"'),
        ("camera", 6, "here belongs a comparison (= != < <= > >= ~ !~), 'in', 'is' or 'not'"),
        ("width >", 7, 'here belongs a value ("text", 12, true or a date)'),
        ("width > 12px", 8, "anything else with digits and letters is text, in quotes"),
        ("taken > 2024-6-1", 8, "A date is written 2024, 2024-06, 2024-06-01 or 2024-06-01T12:30"),
        ("taken > 2024-02-30", 8, "there is no such date"),
        ("taken > 0000-01-01", 8, "there is no such date"),
        ('camera = "Pixel', 9, "A text ends with the quote that it begins with"),
        ("(width > 3", 10, "here belongs ')'"),
        ("width > 3)", 9, "here belongs the end"),
        ("a = 1 b = 2", 6, "here belongs 'and', 'or' or the end"),
        ("a = 1 and", 9, "here belongs a column, '(', 'not' or 'has'"),
        ("= 1", 0, "A column comes first"),
        ("my column = 1", 3, "here belongs a comparison"),
        ("a in 3", 5, "here belongs '('"),
        ("a in ()", 6, "here belongs a value"),
        ("a is 3", 5, "here belongs 'null' or 'not'"),
        ("a = 1e999", 4, "a number is at most"),
        ("a = 1; DROP TABLE records", 5, "here belongs 'and', 'or'"),
    ],
)  # fmt: skip
def test_a_fault_is_shown_at_its_place(text: str, at: int | None, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        Filter.parse(text)
    told = str(caught.value)
    assert says in told
    if at is not None:
        head, shown, caret, *_ = told.split("\n")
        assert head.startswith(f"the filter is wrong at character {at + 1}: ")
        assert (shown, caret) == (f"  {text}", f"  {' ' * at}^")


def test_the_caret_stands_under_wide_and_hidden_characters() -> None:
    with pytest.raises(UsageError) as caught:
        Filter.parse('名前 = "\n\x1b[31m" foo')
    _, shown, caret = str(caught.value).split("\n")
    assert shown == '  名前 = " �[31m" foo'
    assert caret == " " * (2 + 4 + len(' = " �[31m" ')) + "^"
    with pytest.raises(UsageError) as caught:
        Filter.parse("a = 1 and " * 100 + "b")
    _, shown, caret, *_ = str(caught.value).split("\n")
    assert shown.startswith("  ...")
    assert shown[len(caret) - 2] == "b"


@settings(deadline=None)
@given(
    st.text(max_size=40)
    | st.lists(
        st.sampled_from(
            ["a", "=", "1", "(", ")", "and", "not", ",", "in", '"', "'", "`", ".", "~", "2024-01", "is"]
        )
    ).map(" ".join)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        made = Filter.parse(text)
        made.matches({"metadata": {}})
    except UsageError:
        return
    assert Filter.parse(str(made)) == made


def test_a_filter_has_a_size() -> None:
    for text in (
        "a = '" + "x" * MOST_CHARACTERS + "'",
        " or ".join(["a = 1"] * (MOST_COMPARISONS + 1)),
        "(" * (MOST_NESTED + 1) + "a = 1" + ")" * (MOST_NESTED + 1),
        "not " * 2_000 + "a = 1",
    ):
        with pytest.raises(UsageError, match="at most|more than"):
            Filter.parse(text)
    deep = Filter.parse("(" * MOST_NESTED + "a = 1" + ")" * MOST_NESTED)
    assert str(deep) == "a = 1"
    many = ", ".join(map(str, range(1_500)))
    assert Filter.parse(f"a in ({many})").matches({"metadata": {"a": 1_499}})


def test_no_other_kind_is_a_filter() -> None:
    with pytest.raises(UsageError, match="a filter is text or a mmrerank.Filter, not int"):
        Filter.of(3)  # type: ignore[arg-type]


def test_columns_are_named_in_json_as_in_a_filter() -> None:
    assert json.loads(json.dumps([f.name for f in Fields()])) == [
        "id", "path", "taken", "camera", "width", "height", "size",
    ]  # fmt: skip
