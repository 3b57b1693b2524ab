"""What has changed is noticed, even where size and time say nothing; indexes of an older schema go on."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from index_world import build, paint, tally

from mmrerank.errors import ImageIndexError
from mmrerank.images import probe
from mmrerank.index import records
from mmrerank.index.index import ImageIndex
from mmrerank.index.manifest import FILE as MANIFEST
from mmrerank.types import Image


def turned(path: Path, orientation: int) -> None:
    """A photograph with this EXIF orientation; its size does not depend on it."""
    noise = np.random.default_rng(7).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(noise).save(path, "jpeg", exif=exif, quality=95)


def test_a_turned_photograph_of_the_same_size_and_time(tmp_path: Path) -> None:
    photo = tmp_path / "p" / "a.jpg"
    paint(photo.parent, ["b.png"])
    turned(photo, 1)
    build(tmp_path / "x", photo.parent)
    with ImageIndex.open(tmp_path / "x") as index:
        before = index.vectors(["a.jpg"])
    was = photo.stat()
    turned(photo, 6)  # as a program does that keeps the file's time
    os.utime(photo, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert (photo.stat().st_size, photo.stat().st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    assert probe(Image(path=photo)).orientation == 6
    assert tally(build(tmp_path / "x", photo.parent)) == (0, 1, 0, 1, 0)
    with ImageIndex.open(tmp_path / "x") as index:
        assert not np.array_equal(index.vectors(["a.jpg"]), before)
        assert index.image("a.jpg").width == 6
    # other rights are a change of the file, and none of the picture
    photo.chmod(0o600)
    assert tally(build(tmp_path / "x", photo.parent)) == (0, 0, 0, 2, 0)


def test_an_index_of_an_older_format_asks_to_be_made_again(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    facts = json.loads((tmp_path / "x" / MANIFEST).read_text())
    (tmp_path / "x" / MANIFEST).write_text(json.dumps({**facts, "format": 1}))
    with pytest.raises(ImageIndexError, match="has index format 1, .* reads format 3; .* --rebuild"):
        ImageIndex.open(tmp_path / "x")
    assert tally(build(tmp_path / "x", source, rebuild=True)) == (10, 0, 0, 0, 0)
    with sqlite3.connect(tmp_path / "x" / records.FILE) as db:
        db.execute("PRAGMA user_version = 3")
    db.close()
    with pytest.raises(ImageIndexError, match="has the old schema 3; .* --rebuild"):
        ImageIndex.open(tmp_path / "x")


def test_an_index_of_a_newer_schema_is_refused(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    with sqlite3.connect(tmp_path / "x" / records.FILE) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ImageIndexError, match="has schema 99"):
        ImageIndex.open(tmp_path / "x")
