"""Filters over an index: the answer of brute force, the columns that are there, nothing of strangers."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from index_world import ColourEmbedder, build
from shards import png, write

from mmrerank import ImageIndex
from mmrerank.corpus import webdataset
from mmrerank.errors import ImageIndexError, UsageError
from mmrerank.index import fields as counting
from mmrerank.index.integrity import integrity
from mmrerank.index.records import Records
from mmrerank.ports import Sample
from mmrerank.types import Image

COUNT, DIM = 1_500, 16
QUERY = np.ones((1, ColourEmbedder.dim))


@dataclass
class Given:
    """Vectors made elsewhere, with metadata."""

    vectors: Any
    metadata: Sequence[Any]
    location: str = "/nowhere"
    names: Sequence[str] = field(default_factory=list)

    def remarks(self) -> list[str]:
        return []

    def samples(self) -> Iterator[Sample]:
        for n, told in enumerate(self.metadata):
            name = self.names[n] if self.names else f"{n:06}.jpg"
            yield Sample(id=name, image=Image(path=Path(self.location) / name), metadata=told)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    chance = np.random.default_rng(5)
    vectors = chance.normal(size=(COUNT, DIM)).astype(np.float32)
    vectors[7::11] = vectors[4]  # equal scores
    told = [
        {"per": int(chance.integers(1000)), "kind": f"k{chance.integers(5)}", "tags": [f"t{n % 7}"], "n": n}
        for n in range(COUNT)
    ]
    place = tmp_path_factory.mktemp("filters") / "x"
    ImageIndex.import_vectors(place, Given(vectors, told), embedder_spec="clip-b32", store="exact")
    return place, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True), told)


@pytest.mark.parametrize("store", ["exact", "faiss"])
@pytest.mark.parametrize(("text", "keep"), [
    ("per < 10", lambda m: m["per"] < 10),
    ("per < 100", lambda m: m["per"] < 100),
    ("per < 500 or kind = 'k0'", lambda m: m["per"] < 500 or m["kind"] == "k0"),
    ('not (tags = "t3" or per >= 900)', lambda m: "t3" not in m["tags"] and m["per"] < 900),
    ("per >= 0", lambda m: True),
])  # fmt: skip
def test_the_nearest_of_what_a_filter_leaves(world: Any, store: str, text: str, keep: Any) -> None:
    pytest.importorskip("faiss") if store == "faiss" else None
    place, (vectors, told) = world
    kept = np.array([n for n in range(COUNT) if keep(told[n])])
    queries = np.random.default_rng(6).normal(size=(5, DIM))
    with ImageIndex.open(place, store=store) as index:
        found = index.search(queries, 50, where=text)
        one = index.candidates(queries[0], 50, text)
    for query, hits in zip(queries, found, strict=True):
        scores = vectors[kept].astype(np.float64) @ (query / np.linalg.norm(query))
        order = kept[np.argsort(-scores.astype(np.float32), kind="stable")][:50]
        np.testing.assert_allclose([h.score for h in hits], np.sort(scores)[::-1][:50], atol=1e-6)
        assert {h.id for h in hits} == {f"{n:06}.jpg" for n in order} or len(set(scores)) < len(scores)
        assert all(keep(told[int(h.id[:6])]) for h in hits)
    assert [c.id for c in one] == [h.id for h in found[0]]
    assert one[0].metadata["n"] == int(one[0].id[:6])


def test_a_filter_may_leave_nothing(world: Any) -> None:
    with ImageIndex.open(world[0]) as index:
        assert index.search(np.ones((2, DIM)), 5, where="per > 1000") == [[], []]
        assert index.candidates(np.ones(DIM), 5, "per > 1000") == ()
        assert len(index.search(np.ones((1, DIM)), 5, where="n in (1, 2, 1499, 4000)")[0]) == 3


@pytest.mark.parametrize(("text", "at", "says"), [
    ("pers < 3", 0, "there is no column pers\n"),
    ("pers < 3", 0, "Did you mean per?"),
    ("per < 3 and Kind = 'k1'", 12, "Did you mean kind?"),
    ("per < 3 and kind = 1", 19, 'kind is text, and this is a number\n'),
    ("per < 3 and kind = 1", 19, 'Text is written in quotes: "1".'),
    ("per = '3'", 6, "per is a number, and this is a text"),
    ("per < 2024-06-01", 6, "per is a number, and this is a date"),
    ("per ~ '3'", 6, "~ looks into text, and per is a number"),
    ("kind ~ 3", 7, "~ looks for text, not for a number\n"),
    ("taken > 3", 8, "taken is a date, and this is a number"),
    ("taken > 'soon'", 8, "taken is a date, and this is a text"),
    ("taken > '2024-02-31'", 8, "taken is a date, and this is a text"),
    ("width = true", 8, "width is a number, and this is a boolean"),
    ("per in (1, 'a')", 11, "per is a number, and this is a text"),
    ("tags.x = 1", 0, "there is no column tags.x"),
    ("`a\x1bb` = 1", 0, "there is no column `a b`\n"),
    ("camera ~ Pixel", 9, "Text is written in quotes"),
])  # fmt: skip
def test_a_filter_without_sense_is_refused_at_its_place(world: Any, text: str, at: int, says: str) -> None:
    with ImageIndex.open(world[0]) as index, pytest.raises(UsageError) as caught:
        index.search(np.ones((1, 3)), 5, where=text)  # the filter first: these vectors are of another width
    told = str(caught.value)
    assert says in told
    assert told.startswith(f"the filter is wrong at character {at + 1}: ")
    assert told.split("\n")[2] == f"  {' ' * at}^"


def test_all_columns_are_listed_where_one_is_unknown(world: Any) -> None:
    with ImageIndex.open(world[0]) as index, pytest.raises(UsageError) as caught:
        index.filter("nothing = 1")
    assert (
        "There are id (text), path (text), taken (date), camera (text), width (number), height (number), "
        in str(caught.value)
    )
    assert str(caught.value).endswith("kind (text), n (number), per (number), tags (list of text).")


def test_the_facts_of_an_index_name_its_columns(world: Any) -> None:
    with ImageIndex.open(world[0]) as index:
        columns = {c["name"]: (c["type"], c["images"]) for c in index.info()["columns"]}
    assert columns["kind"] == ("text", COUNT)
    assert columns["tags"] == ("list of text", COUNT)
    assert columns["taken"] == ("date", 0)
    assert columns["id"] == ("text", COUNT)


def test_of_copies_only_those_are_listed_that_satisfy(tmp_path: Path) -> None:
    members: list[Any] = []
    for n, who in enumerate(["ann", "bob", "cy", "ann"]):
        members += [(f"{n}.png", png(3)), (f"{n}.json", f'{{"by": "{who}", "taken": {n}}}'.encode())]
    write(tmp_path / "s.tar", members)
    ImageIndex.build(tmp_path / "x", webdataset.open(str(tmp_path / "s.tar")), ColourEmbedder())
    with ImageIndex.open(tmp_path / "x") as index:
        assert index.info()["vectors"] == 1
        query = QUERY
        assert [[h.id for h in found] for found in (
            index.search(query, 9, where='by = "ann"')[0], index.search(query, 1, where='by = "bob"')[0],
            index.search(query, 9, where="metadata.taken > 1")[0], index.search(query, 9)[0],
        )] == [["s/0", "s/3"], ["s/1"], ["s/2", "s/3"], ["s/0", "s/1", "s/2", "s/3"]]  # fmt: skip


def test_counts_of_columns_follow_the_images(tmp_path: Path) -> None:
    def indexed(*told: str) -> dict[str, tuple[str, int]]:
        members: list[Any] = []
        for n, one in enumerate(told):
            members += [(f"{n}.png", png(n)), (f"{n}.json", one.encode())]
        write(tmp_path / "s.tar", members)
        source = webdataset.open(str(tmp_path / "s.tar"))
        ImageIndex.build(tmp_path / "x", source, ColourEmbedder(), allow_removal=True)
        with ImageIndex.open(tmp_path / "x") as index:
            assert index.verify(deep=True) == []
            return {c["name"]: (c["type"], c["images"]) for c in index.info()["columns"][7:]}

    assert indexed('{"a": 1, "b": {"c": "x"}}', '{"a": "2024-06-01"}', "{}") == {
        "a": ("date or number", 2), "b": ("object", 1), "b.c": ("text", 1),
    }  # fmt: skip
    with ImageIndex.open(tmp_path / "x") as index:
        assert [h.id for h in index.search(QUERY, 9, where="a = 1 or a > 2023")[0]] == ["s/0", "s/1"]
        assert indexed('{"a": 1, "taken": true}', '{"a": [2, "x"]}') == {
            "a": ("list of text or number", 2), "metadata.taken": ("boolean", 1),
        }  # fmt: skip
        # a reader from before has the columns of now
        assert [h.id for h in index.search(QUERY, 9, where='a = "x"')[0]] == ["s/1"]
        assert [h.id for h in index.search(QUERY, 9, where="metadata.taken = true")[0]] == ["s/0"]
        with pytest.raises(UsageError, match="no column b"):
            index.filter("has b")
    assert indexed('{"a": null}') == {}


def test_metadata_of_strangers_do_not_swell_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MOST", 50)
    told = [
        {f"key {n} {i}": i for i in range(30)}
        | {"\n": 1, "x" * 300: 2, "": 3, "deep": {"a": {"b": {"c": {"d": 1}}}}}
        for n in range(4)
    ]
    place, vectors = tmp_path / "x", np.eye(4, 8, dtype=np.float32)
    ImageIndex.import_vectors(place, Given(vectors, told), embedder_spec="clip-b32", store="exact")
    with ImageIndex.open(place) as index:
        names = [f.name for f in index.fields]
        assert len(names) == 50 + 7
        assert "deep.a.b.c" in names
        assert "deep.a.b.c.d" not in names
        assert not [problem for problem in index.verify() if "damaged" in problem]
        known, unknown = next(n for n in names if n.startswith("`key")), "`key 3 29`"
        assert len(index.search(np.ones((1, 8)), 9, where=f"has {known}")[0]) == 1
        with pytest.raises(UsageError, match="those that came after the first 50 cannot be filtered"):
            index.filter(f"{unknown} = 1")
    records = Records(place, write=True)
    with records.transaction():
        records.delete(records.ids()[1:])
    assert not [told for told in integrity(records) if isinstance(told, str)]
    with records.snapshot():
        assert records.tally(records.state).fields().full is False
    records.close()


@pytest.mark.parametrize(("statement", "says"), [
    ("UPDATE fields SET images = images + 1", "count of the column '[\"kind\"]' is not as it was written"),
    ("DELETE FROM fields", "the counts of its columns are not as they were written"),
    ("UPDATE records SET metadata = 'no JSON'", "malformed JSON"),
])  # fmt: skip
def test_what_was_changed_by_another_hand_is_noticed(tmp_path: Path, statement: str, says: str) -> None:
    place = tmp_path / "x"
    vectors = np.eye(2, 8, dtype=np.float32)
    ImageIndex.import_vectors(
        place, Given(vectors, [{"kind": "a"}] * 2), embedder_spec="clip-b32", store="exact"
    )
    db = sqlite3.connect(place / "records.sqlite", isolation_level=None)
    db.execute(statement)
    db.close()
    with ImageIndex.open(place) as index, pytest.raises(ImageIndexError) as caught:
        index.search(np.ones((1, 8)), 9, where='kind = "a"')
    assert says in str(caught.value)
    assert "--rebuild" in str(caught.value)
    with ImageIndex.open(place) as index:
        assert index.verify()


def test_names_and_values_are_never_run(tmp_path: Path) -> None:
    place, evil = tmp_path / "x", "x') OR 1=1; DROP TABLE records; --"
    told: list[Any] = [{evil: evil, 'q"': 1, "$.a": 2}, {"a": 1}]
    ImageIndex.import_vectors(
        place, Given(np.eye(2, 8, dtype=np.float32), told), embedder_spec="clip-b32", store="exact"
    )
    with ImageIndex.open(place) as index:
        for text in (
            f'`{evil}` = "{evil}"',
            f'`{evil}` ~ "{evil}"',
            '`q"` = 1',
            "`$.a` = 2",
            "not a is not null",
        ):
            assert [h.id for h in index.search(np.ones((1, 8)), 9, where=text)[0]] == ["000000.jpg"], text


def test_what_cameras_write_is_asked_for(tmp_path: Path) -> None:
    source = tmp_path / "p"
    source.mkdir()
    for n, (taken, camera) in enumerate(
        [("2023:12:31 23:59:59", "Pixel 6"), ("2024:06:01 00:00:00", "PIXEL 7"), ("", "")]
    ):
        exif = PIL.Image.Exif()
        if taken:
            exif[0x0132], exif[0x010F], exif[0x0110] = taken, "Google", camera
        PIL.Image.new("RGB", (8 + n, 8), (80 * n, 9, 9)).save(source / f"{n}.jpg", exif=exif)
    build(tmp_path / "x", source)
    with ImageIndex.open(tmp_path / "x") as index:
        for text, kept in (
            ("taken >= 2024-06-01", [1]), ("taken < 2024", [0]), ('camera ~ "pixel"', [0, 1]),
            ("width = 10", [2]),
            ('camera ~ "pixel" and taken > 2023', [1]), ("taken is null", [2]), ('camera !~ "6"', [1]),
            ('not camera ~ "6"', [1, 2]), ('path in ("0.jpg", "2.jpg") and size > 100', [0, 2]),
        ):  # fmt: skip
            found = index.search(QUERY, 9, where=text)[0]
            assert sorted(h.id for h in found) == [f"{n}.jpg" for n in kept], text
