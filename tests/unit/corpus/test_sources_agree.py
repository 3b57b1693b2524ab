"""Every kind of source gives the same pictures: the same hashes and vectors, and the ids that it defines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from index_world import ColourEmbedder, contents
from sources import HF_SOURCES, SOURCES, Maker, addresses, files_of, remote, serving

from mmrerank.index.index import ImageIndex
from mmrerank.ports import Corpus

NAMES = ["a.png", "b c.jpg", "sub/ä.webp", "sub/deep/d.png"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for number, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)
        PIL.Image.fromarray(noise).save(root / name)
    return root


@pytest.fixture
def made(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    return tmp_path / "made"


def rows(corpus: Corpus, index: Path) -> dict[str, tuple[Any, ...]]:
    """Hash, size and vector of each image by the id that the index has of it."""
    report = ImageIndex.build(index, corpus, ColourEmbedder())
    assert not report.failed
    return {id_: (row[1], row[2], row[3], row[5]) for id_, row in contents(index).items()}


def keys(expected: dict[str, tuple[Any, ...]], ids: str) -> dict[str, tuple[Any, ...]]:
    """``expected`` by the ids that a source of the kind gives."""
    if ids == "key":
        return {f"s/{name.rpartition('.')[0]}": row for name, row in expected.items()}
    return expected


def same(corpus: Corpus, ids: str, root: Path, index: Path) -> None:
    expected = rows(SOURCES["folder"][0](root, index), index / "expected")
    assert list(expected) == sorted(files_of(root), key=os.fsencode)
    as_expected(corpus, ids, root, index / "found", expected)


def as_expected(
    corpus: Corpus, ids: str, root: Path, index: Path, expected: dict[str, tuple[Any, ...]]
) -> None:
    found = rows(corpus, index)
    if ids == "file":
        found = {Path(id_).relative_to(root).as_posix(): row for id_, row in found.items()}
    assert found == keys(expected, ids)


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_gives_the_same_pictures(kind: str, pictures: Path, made: Path, tmp_path: Path) -> None:
    maker, ids = SOURCES[kind]
    same(maker(pictures, made), ids, pictures, tmp_path / "index")


@pytest.mark.slow
@pytest.mark.parametrize("kind", HF_SOURCES)
def test_a_data_set_gives_the_same_pictures(kind: str, pictures: Path, made: Path, tmp_path: Path) -> None:
    maker, ids = HF_SOURCES[kind]
    same(maker(pictures, made), ids, pictures, tmp_path / "index")


def test_a_remote_shard_gives_the_same_pictures(pictures: Path, made: Path, tmp_path: Path) -> None:
    with serving(made) as address:
        same(remote(pictures, made, address), "key", pictures, tmp_path / "index")


def test_images_at_addresses_are_the_same_pictures(pictures: Path, made: Path, tmp_path: Path) -> None:
    (pictures / "b c.jpg").rename(pictures / "b.jpg")
    (pictures / "sub/ä.webp").rename(pictures / "sub/c.webp")
    with serving(pictures) as address:
        same(addresses(pictures, made, address), "path", pictures, tmp_path / "index")


def test_a_second_run_embeds_nothing(pictures: Path, made: Path, tmp_path: Path) -> None:
    for kind in ("parquet-bytes", "parquet-path", "jsonl-base64", "tar.gz"):
        place = tmp_path / kind
        maker: Maker = SOURCES[kind][0]
        for expected in (len(NAMES), 0):
            embedder = ColourEmbedder()
            report = ImageIndex.build(place, maker(pictures, made), embedder)
            assert (embedder.embedded, report.removed) == (expected, 0)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[Any, ...]]]:
    """The folder of the photographs, and what an index has of each."""
    photos = os.environ.get("MMRERANK_PHOTOS")
    if not photos:
        pytest.skip("MMRERANK_PHOTOS names no folder of photographs")
    root = next(p.parent for p in sorted(Path(photos).rglob("*.jpg")))
    place = tmp_path_factory.mktemp("photographs")
    return root, rows(SOURCES["folder"][0](root, place), place / "expected")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*(k for k in SOURCES if k != "folder"), *HF_SOURCES, "remote"])
def test_every_source_gives_the_same_photographs(
    kind: str, photographs: tuple[Path, dict[str, tuple[Any, ...]]], made: Path, tmp_path: Path
) -> None:
    root, expected = photographs
    assert len(expected) == len(files_of(root))
    if kind == "remote":
        with serving(made) as address:
            as_expected(remote(root, made, address), "key", root, tmp_path / "index", expected)
        return
    maker, ids = (SOURCES | HF_SOURCES)[kind]
    as_expected(maker(root, made), ids, root, tmp_path / "index", expected)
