"""Copies join the first image that they are copies of."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrerank.duplicates import ALIKE, Looks, check_collapse, groups, unseen_warnings
from mmrerank.errors import UsageError
from mmrerank.images.look import Look, look_of
from mmrerank.types import Candidate, Image


def noise(seed: int) -> PIL.Image.Image:
    cells = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return PIL.Image.fromarray(cells).resize((48, 48), PIL.Image.Resampling.BICUBIC)


def candidate(id_: str, picture: PIL.Image.Image, sha256: str = "", **how: Any) -> Candidate:
    file = io.BytesIO()
    picture.save(file, how.pop("format", "PNG"), **how)
    return Candidate(id=id_, image=Image(data=file.getvalue(), sha256=sha256 or None))


def same(*count: int) -> Any:
    """Unit vectors that all are alike."""
    return np.tile(np.eye(1, 4, dtype=np.float32), (sum(count), 1))


def named(id_: str, sha256: str) -> Candidate:
    return Candidate(id=id_, image=Image(path=Path(id_), sha256=sha256 or None))


@given(st.lists(st.sampled_from(["", *"abc"]), max_size=12), st.integers(1, 6))
def test_images_of_the_same_bytes_are_one(hashes: list[str], most: int) -> None:
    found = [named(str(n), h) for n, h in enumerate(hashes)]
    made = groups(found, most)
    # the second implementation: the first of each hash, and what is without one by itself
    first = [n for n, h in enumerate(hashes) if not h or hashes.index(h) == n][:most]
    assert [c.id for c in made.kept] == [str(n) for n in first]
    for n in first:
        like = [str(m) for m, h in enumerate(hashes) if h and h == hashes[n] and m > n]
        assert list(made.copies.get(str(n), ())) == like
    assert made.unseen == {}


class Known(Looks):
    """Looks that are given: one value for all channels of all cells."""

    def __init__(self, levels: dict[str, int]) -> None:
        super().__init__()
        self.levels, self.asked = levels, 0

    def of(self, image: Image | None) -> Look | str:
        assert image is not None
        self.asked += 1
        colours = np.zeros((16, 16, 3), np.uint8)
        colours[:8] = self.levels[str(image.path)]
        return Look(bits=np.zeros(128, bool), colours=colours)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 250), st.floats(0, 1)), min_size=1, max_size=9), st.integers(1, 9))
def test_each_joins_the_first_that_it_is_like(drawn: list[tuple[int, float]], most: int) -> None:
    found = [named(str(n), "") for n in range(len(drawn))]
    turned = np.array([[np.cos(a), np.sin(a)] for _, a in drawn], dtype=np.float32)
    looks = Known({str(n): level for n, (level, _) in enumerate(drawn)})
    made = groups(found, most, vectors=turned, looks=looks)
    kept: list[int] = []
    members: dict[int, list[int]] = {}
    for n in range(len(drawn)):
        like = [
            m for m in kept
            if turned[m] @ turned[n] >= ALIKE
            and looks.of(found[m].image).alike(looks.of(found[n].image))  # type: ignore[union-attr, arg-type]
        ]  # fmt: skip
        if like:
            members.setdefault(like[0], []).append(n)
        elif len(kept) < most:
            kept.append(n)
    assert [c.id for c in made.kept] == [str(n) for n in kept]
    assert made.copies == {str(n): tuple(map(str, ids)) for n, ids in members.items()}


def test_alike_vectors_alone_make_no_copy() -> None:
    found = [candidate(str(n), noise(n)) for n in range(6)]
    made = groups(found, 6, vectors=same(6), looks=Looks())
    assert len(made.kept) == 6
    assert made.copies == {}


def test_alike_looks_alone_make_no_copy() -> None:
    found = [candidate("a", noise(0)), candidate("b", noise(0), format="WEBP", quality=60)]
    apart = np.eye(2, dtype=np.float32)
    assert groups(found, 2, vectors=apart, looks=Looks()).copies == {}
    assert groups(found, 2, vectors=same(2), looks=Looks()).copies == {"a": ("b",)}
    assert groups(found[::-1], 2, vectors=same(2), looks=Looks()).copies == {"b": ("a",)}


def test_what_cannot_be_read_stands_for_itself() -> None:
    gone = Candidate(id="gone", image=Image(path=Path("not/there.png")))
    words = Candidate(id="words", text="a boat")
    found = [candidate("a", noise(0)), gone, words, candidate("b", noise(0), format="WEBP")]
    made = groups(found, 4, vectors=same(4), looks=Looks())
    assert [c.id for c in made.kept] == ["a", "gone", "words"]
    assert made.copies == {"a": ("b",)}
    assert set(made.unseen) == {"gone", "words"}
    (told,) = unseen_warnings(made.unseen)
    assert told.startswith("2 images could not be looked at, and may be shown beside a copy: gone: the file")
    assert unseen_warnings({}) == []


def test_nothing_is_looked_at_without_a_vector_alike() -> None:
    looks = Known(dict.fromkeys("012", 5))
    found = [named(str(n), "") for n in range(3)]
    assert groups(found, 3, vectors=np.eye(3, dtype=np.float32), looks=looks).copies == {}
    assert looks.asked == 0


def test_a_look_is_kept_by_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Image] = []

    def counted(image: Image) -> PIL.Image.Image:
        opened.append(image)
        return noise(0)

    monkeypatch.setattr("mmrerank.duplicates.decode", counted)
    monkeypatch.setattr("mmrerank.duplicates._KEPT", 2)
    looks = Looks()
    for sha256 in ("a", "a", "", "", "b", "c", "a"):
        found = looks.of(Image(data=b"x", sha256=sha256 or None))
        assert isinstance(found, Look)
        assert found.alike(look_of(noise(0)))
    assert [i.sha256 or "" for i in opened] == ["a", "", "", "b", "c", "a"]


@pytest.mark.parametrize("wrong", ["all", "", True, None, "Near"])
def test_a_wrong_kind_is_named(wrong: Any) -> None:
    with pytest.raises(UsageError, match="collapse must be one of none, identical, near"):
        check_collapse(wrong)
