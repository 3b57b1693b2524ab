"""Every byte of an index is below a hash, and what comes from elsewhere is refused in words."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from index_world import ColourEmbedder, paint
from shards import packed, png

from mmrerank.corpus import open_corpora
from mmrerank.errors import ImageIndexError
from mmrerank.index.index import ImageIndex


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with everything that one can hold: a saved view, and copies of images."""
    import gzip

    place = tmp_path_factory.mktemp("whole")
    (place / "p").mkdir()
    paint(place / "p", ["a.png", "b.png", "ü.png"])
    members = [(f"{c}.{e}", d) for c in (10, 200) for e, d in (("png", png(c)), ("txt", b"%d" % c))]
    (place / "s.tar.gz").write_bytes(gzip.compress(packed(members)))
    corpora = open_corpora([str(place / "p"), str(place / "s.tar.gz")])
    ImageIndex.build(place / "x", corpora, ColourEmbedder())
    paint(place / "p", ["late.png"], start=70)
    ImageIndex.build(place / "x", open_corpora([str(place / "p")]), ColourEmbedder())
    return place / "x"


def found(index: Path, *, deep: bool = False) -> list[str]:
    try:
        with ImageIndex.open(index) as opened:
            return opened.verify(deep=deep)
    except ImageIndexError as error:
        return [str(error)]


@pytest.mark.parametrize("flips", [150, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_flipped_bit_is_missed(whole: Path, flips: int) -> None:
    assert found(whole, deep=True) == []
    # what SQLite keeps beside a database for its readers is made anew by the next one
    files = sorted(
        p for p in whole.rglob("*") if p.stat().st_size and p.is_file() and p.suffix != ".sqlite-shm"
    )
    names = {p.relative_to(whole).as_posix() for p in files}
    assert {"manifest.json", "records.sqlite", "vectors/00000.npy", "kept.bin"} <= names
    chance = random.Random(flips)
    missed = []
    for number in range(flips):
        # half by the byte, so that large files get most; half by the file
        sizes = [p.stat().st_size for p in files]
        (path,) = chance.choices(files, sizes if number % 2 else None)
        at, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
        with path.open("r+b") as file:
            file.seek(at)
            (old,) = file.read(1)
            file.seek(at)
            file.write(bytes([old ^ 1 << bit]))
            file.flush()
            problems = found(whole)
            file.seek(at)
            file.write(bytes([old]))
        if not any(path.name in p or path.parent.name in p for p in problems):
            missed.append((path.name, at, bit, problems))
    assert missed == []
    assert found(whole, deep=True) == []
