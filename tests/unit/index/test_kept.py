"""Images of sources that cannot be read again are kept in the index, and found in it wherever it goes."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from index_world import ColourEmbedder, tally
from shards import packed, png

from mmrerank.corpus import open_corpora
from mmrerank.errors import ImageIndexError
from mmrerank.images import decode, thumbnail
from mmrerank.index import kept
from mmrerank.index.index import ImageIndex
from mmrerank.ports import Corpus, Sample
from mmrerank.types import Image


def squeeze(path: Path, *colours: int) -> Path:
    members = [(f"{c}.{e}", d) for c in colours for e, d in (("png", png(c)), ("txt", b"colour %d" % c))]
    path.write_bytes(gzip.compress(packed(members)))
    return path


def run(index: Path, *places: Path | str, **options: Any) -> Any:
    return ImageIndex.build(index, open_corpora([str(p) for p in places]), ColourEmbedder(), **options)


def reds(index: Path) -> dict[str, int]:
    with ImageIndex.open(index) as opened:
        assert opened.verify(deep=True) == []
        return {i: decode(opened.image(i)).getpixel((0, 0))[0] for i in opened.ids}  # type: ignore[index]


def test_a_compressed_shard_from_end_to_end(tmp_path: Path) -> None:
    shard = squeeze(tmp_path / "s.tar.gz", 10, 200)
    report = run(tmp_path / "x", shard)
    assert tally(report) == (2, 0, 0, 0, 0)
    assert report.remarks[0].startswith("2 images (1 kB) were copied into the index")
    # the index can be moved and its source be gone: the pictures are there
    (tmp_path / "x").rename(tmp_path / "y")
    shard.rename(tmp_path / "away")
    assert reds(tmp_path / "y") == {"s/10": 10, "s/200": 200}
    with ImageIndex.open(tmp_path / "y") as index:
        (first, _) = index.candidates(index.vectors(["s/10"])[0], 2)
        assert (first.id, first.metadata) == ("s/10", {"caption": "colour 10"})
        assert first.image is not None
        assert first.image.digest == index._records.get("s/10").sha256  # type: ignore[union-attr]
        assert thumbnail(first.image)
    (tmp_path / "away").rename(shard)
    size = (tmp_path / "y" / kept.FILE).stat().st_size
    report = run(tmp_path / "y", shard)
    assert (tally(report), report.remarks) == ((0, 0, 0, 2, 0), ())
    squeeze(shard, 10, 30)
    assert tally(run(tmp_path / "y", shard)) == (1, 0, 1, 1, 0)
    assert reds(tmp_path / "y") == {"s/10": 10, "s/30": 30}
    assert (tmp_path / "y" / kept.FILE).stat().st_size > size
    assert tally(run(tmp_path / "y", shard, rebuild=True)) == (2, 0, 0, 0, 0)
    assert (tmp_path / "y" / kept.FILE).stat().st_size == len(png(10)) + len(png(30))
    assert reds(tmp_path / "y") == {"s/10": 10, "s/30": 30}


def test_more_of_compressed_shards_and_some_of_them(tmp_path: Path) -> None:
    for number in range(3):
        squeeze(tmp_path / f"{number}.tar.gz", number)
    assert tally(run(tmp_path / "x", tmp_path / "0.tar.gz")) == (1, 0, 0, 0, 0)
    assert tally(run(tmp_path / "x", tmp_path / "{0..2}.tar.gz")) == (2, 0, 0, 1, 0)
    assert reds(tmp_path / "x") == {"0/0": 0, "1/1": 1, "2/2": 2}
    with pytest.raises(ImageIndexError, match="has some of these shards"):
        run(tmp_path / "x", tmp_path / "1.tar.gz")


class Stopped(Exception):
    """As if the run were killed."""


def test_what_a_killed_run_leaves_is_cut_off(tmp_path: Path) -> None:
    shard = squeeze(tmp_path / "s.tar.gz", *range(6))

    def stop(done: int, total: int | None) -> None:
        if done == 4:
            raise Stopped

    with pytest.raises(Stopped):
        run(tmp_path / "x", shard, batch=2, progress=stop)
    with (tmp_path / "x" / kept.FILE).open("ab") as file:
        file.write(b"half a picture")
    assert tally(run(tmp_path / "x", shard)) == (2, 0, 0, 4, 0)
    assert reds(tmp_path / "x") == {f"s/{n}": n for n in range(6)}


def test_images_in_memory_are_kept_once(tmp_path: Path) -> None:
    class Bytes(Corpus):
        location = "somewhere"

        def samples(self) -> Any:
            yield Sample(id="a", image=Image(data=png(1)))
            yield Sample(id="bad", image=Image(data=b"junk"))
            yield Sample(id="b", image=Image(data=png(2)))

    report = ImageIndex.build(tmp_path / "x", Bytes(), ColourEmbedder(), batch=1)
    assert tally(report) == (2, 0, 0, 0, 1)
    assert reds(tmp_path / "x") == {"a": 1, "b": 2}
    assert (tmp_path / "x" / kept.FILE).stat().st_size == len(png(1)) + len(png(2))
