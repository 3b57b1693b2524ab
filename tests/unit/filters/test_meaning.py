"""What a filter means, by a table and by two implementations: SQLite's and ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filter_trees import nodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmrerank.filters.filter import Filter
from mmrerank.filters.sql import Condition
from mmrerank.filters.tree import Column, Compare, In, Node, Null, Value
from mmrerank.index.filtering import COLUMNS
from mmrerank.index.integrity import integrity
from mmrerank.index.record import Record, facts
from mmrerank.index.records import Records

ONE = {
    "id": "birds/larus 1.jpg",
    "path": "birds/larus 1.jpg",
    "taken": "2024-06-01T12:30:15",
    "camera": "Google Pixel 7",
    "width": 4000,
    "height": 3000,
    "size": 1_234_567,
    "metadata": {
        "species": "Larus",
        "count": 3,
        "ratio": 0.5,
        "wild": True,
        "seen": "2024-06",
        "exif": "2024:06:01 08:00:00",
        "tags": ["Beach", "gull", 7],
        "none": None,
        "empty": "",
        "gbif": {"key": 12, "name": {"short": "L."}},
        "year": "2023",
        "ÉCOLE": "École",
        "width": 1,
        "mixed": [True, "x"],
        "nested": [["a"]],
        "zone": "2024-06-01T23:30:00Z",
    },
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("taken >= 2024-06-01", True),
        ("taken > 2024-06-01", False),
        ("taken <= 2024-06-01", True),
        ("taken < 2024-06-01", False),
        ("taken = 2024", True),
        ("taken = 2024-06", True),
        ("taken = 2024-05", False),
        ("taken = 2024-06-01T12:30", True),
        ("taken = 2024-06-01T12:30:15", True),
        ("taken > 2024-06-01T12:30", False),
        ('taken >= "2024-06-01"', True),
        ("taken > 2023", True),
        ("taken > 2024", False),
        ("taken in (2022, 2024)", True),
        ("taken != 2024", False),
        ('taken ~ "06-01t"', True),
        ('camera ~ "pixel"', True),
        ('camera !~ "pixel"', False),
        ('camera = "pixel"', False),
        ('path ~ "BIRDS/"', True),
        ('path = "birds/larus 1.jpg"', True),
        ('path < "c"', True),
        ('id ~ ".JPG"', True),
        ("width >= 4000 and height < 4000", True),
        ("size > 1e6", True),
        ("width = 4000.0", True),
        ("metadata.width = 1", True),
        ("width = 1", False),
        ('species = "Larus"', True),
        ('species = "larus"', False),
        ('species in ("a", "Larus")', True),
        ('species not in ("a", "b")', True),
        ('species < "M"', True),
        ("count > 2.5", True),
        ("count = 3", True),
        ("wild = true", True),
        ("wild != true", False),
        ("wild = false", False),
        ("wild in (false, true)", True),
        ("seen = 2024", True),
        ("seen = 2024-06-01", True),
        ("seen >= 2024-06-02", False),
        ("exif = 2024-06-01", True),
        ("year > 2022", True),
        ("year = 2023", True),
        ('year = "2023"', True),
        ("zone = 2024-06-01", True),
        ('tags = "gull"', True),
        ('tags ~ "BEACH"', True),
        ("tags = 7", True),
        ('tags != "gull"', False),
        ('tags !~ "cat"', True),
        ('tags in ("x", "Beach")', True),
        ("tags > 6", True),
        ('nested = "a"', False),
        ("has nested", True),
        ("mixed = true", True),
        ('`ÉCOLE` ~ "école"', True),
        ('ÉCOLE ~ "e\u0301CO"', True),
        ("gbif.key = 12", True),
        ('gbif.name.short ~ "l"', True),
        ("has gbif", True),
        ("gbif.none is null", True),
        ('none = "x"', False),
        ('none != "x"', False),
        ('not none = "x"', True),
        ("none is null", True),
        ("has none", False),
        ("none is not null", False),
        ('empty = ""', True),
        ("has empty", True),
        ("species = 3", False),
        ("not species = 3", True),
        ("species != 3", True),
        ('count ~ "3"', False),
        ("wild = 1", False),
        ("count = true", False),
        ("species is not null and not (count = 3 and wild = false)", True),
        ("count = 1 or count = 2 or count = 3", True),
    ],
)
def test_the_table_of_meanings(text: str, holds: bool, one: Records) -> None:
    where = Filter.parse(text)
    assert where.matches(ONE) is holds
    assert asked(one, where) == ([0] if holds else [])


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    named: Any = {k: v for k, v in ONE.items() if k != "path"}
    yield from stored(tmp_path_factory.mktemp("one"), [Record(path=b"birds/larus 1.jpg", row=0, **named)])


def stored(folder: Path, made: list[Record]) -> Iterator[Records]:
    records = Records(folder, write=True)
    with records.transaction():
        rows = 1 + max((r.row for r in made if r.row is not None), default=0)
        records.add_vectors(0, [None] * rows, np.ones((rows, 2), dtype=np.float32))
        for record in made:
            records.put(record)
    assert [told for told in integrity(records) if isinstance(told, str)] == []
    yield records
    records.close()


def asked(records: Records, where: Filter) -> list[int]:
    """The rows, by SQLite; without the check, which refuses what holds for nothing."""
    with records.snapshot() as db:
        condition = Condition(where.node, records.tally(records.state).fields(), COLUMNS)
        condition.register(db)
        sql = f"SELECT row FROM records WHERE row IS NOT NULL AND {condition.sql}"
        return sorted(r[0] for r in db.execute(sql, condition.parameters))


TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            "a",
            "B",
            "Pixel 7",
            "pixel",
            "École",
            "e\u0301cole",
            "2024",
            "2024-06",
            "2024-06-01T10:00",
            "2024:06:01 10:00:00",
            "İ",
            "ß",
            "SS",
            "K",
            "x\0y",
            "\ud800",
            "100%",
            "a_b",
            "[a]*?",
            "'; --",
        ]
    ),
    st.text(max_size=4),
)
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.integers(2022, 2025),
    st.sampled_from([2**53 + 1, -(2**63), 2**63, 10**30, 0.5, -0.0, 1e300]),
    # SQLite reads fifteen digits as they are written
    st.floats(-1e6, 1e6).map(lambda n: round(n, 3)),
)
SCALARS = st.one_of(st.none(), TEXTS, NUMBERS, st.booleans(), st.just(float("nan")))
NAMES = st.sampled_from(
    ["a", "b", "odd name", 'q"', "back\\slash", "é", "a.b", "taken", "metadata", "`", "not", ""]
)
CONTENTS = st.one_of(
    SCALARS,
    st.lists(SCALARS | st.lists(SCALARS, max_size=1), max_size=3),
    st.dictionaries(NAMES, SCALARS | st.lists(SCALARS, max_size=2), max_size=2),
)
METADATA = st.dictionaries(NAMES, CONTENTS, max_size=4)
MOMENTS = st.sampled_from(
    ["2023-12-31T23:59:59", "2024-01-01T00:00:00", "2024-06-01T10:00:00", "2024-06-30T10:00:59"]
)
RECORDS = st.builds(
    dict,
    path=st.sampled_from([None, b"a/b.jpg", b"2024/\xff.jpg", "É/x.png".encode(), b"\0kept", b"\0kept/a"]),
    taken=st.none() | MOMENTS,
    camera=st.none() | TEXTS.filter(lambda t: t.isprintable()),
    metadata=METADATA,
    width=st.none() | st.integers(0, 3),
    height=st.none() | st.integers(0, 3),
    size=st.none() | st.integers(0, 2**40),
    row=st.none() | st.integers(0, 4),
)
WANTED = TEXTS.filter(lambda t: not any("\ud800" <= c <= "\udfff" for c in t))
DATES = st.sampled_from(["2024-06", "2024-06-01", "2024-06-01T10:00", "2023-12", "2024-01-01T00:00:00"])
VALUES = st.one_of(
    WANTED.map(lambda t: Value(kind="text", content=t)),
    st.booleans().map(lambda b: Value(kind="boolean", content=b)),
    NUMBERS.filter(lambda n: not isinstance(n, int) or -(2**63) <= n < 2**63).map(
        lambda n: Value(kind="number", content=n)
    ),
    DATES.map(lambda d: Value(kind="date", content=d)),
    DATES.map(lambda d: Value(kind="text", content=d)),
)
COLUMN = st.one_of(
    st.sampled_from(["id", "path", "taken", "camera", "width", "size"]).map(lambda n: Column(keys=(n,))),
    st.lists(NAMES.filter(bool), min_size=1, max_size=2).map(lambda k: Column(keys=tuple(k))),
)
LEAVES = st.one_of(
    st.builds(
        lambda c, o, v: Compare(column=c, operator=o, value=v),
        COLUMN,
        st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
        VALUES,
    ),
    st.builds(
        lambda c, o, t: Compare(column=c, operator=o, value=Value(kind="text", content=t)),
        COLUMN,
        st.sampled_from(["~", "!~"]),
        WANTED,
    ),
    st.builds(
        lambda c, v, n: In(column=c, values=tuple(v), negated=n),
        COLUMN,
        st.lists(VALUES, min_size=1, max_size=3),
        st.booleans(),
    ),
    st.builds(lambda c, n: Null(column=c, negated=n), COLUMN, st.booleans()),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12, deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=6), st.lists(nodes(LEAVES), min_size=8, max_size=8))
def test_sqlite_answers_as_we_do(
    tmp_path_factory: pytest.TempPathFactory, made: list[dict[str, Any]], wanted: list[Node]
) -> None:
    rows = [
        Record(id=f"{n}/é.jpg", error=None if one["row"] is not None else "bad", **one)
        for n, one in enumerate(made)
    ]
    for records in stored(tmp_path_factory.mktemp("x"), rows):
        back = list(records.everything())
        for node in wanted:
            where = Filter(node, str(node))
            ours = sorted(r.row for r in back if r.row is not None and where.matches(facts(r)))
            assert asked(records, where) == ours, node


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=600, deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=6), st.lists(nodes(LEAVES), min_size=8, max_size=8))
def test_sqlite_answers_as_we_do_often(
    tmp_path_factory: pytest.TempPathFactory, made: list[dict[str, Any]], wanted: list[Node]
) -> None:
    test_sqlite_answers_as_we_do.hypothesis.inner_test(tmp_path_factory, made, wanted)  # type: ignore[attr-defined]
