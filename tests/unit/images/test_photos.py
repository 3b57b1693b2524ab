"""Real photographs: precomputed CLIP vectors rank as they should, and genuine JPEGs are indexed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmrerank.corpus import embeddings
from mmrerank.corpus import folder as folder_corpus
from mmrerank.embed.open import open_embedder
from mmrerank.index.index import ImageIndex

SPEC = "open_clip:ViT-B-32:openai"


@pytest.mark.parametrize("store", ["exact", "faiss"])
def test_captions_find_their_photographs(photos: Path, tmp_path: Path, store: str) -> None:
    corpus = embeddings.open(
        str(photos / "images"), vectors=photos / "clip_vitb32_image.npy", ids=photos / "captions.jsonl"
    )
    report = ImageIndex.import_vectors(tmp_path / "x", corpus, embedder_spec=SPEC, store=store)
    assert report.added == 290
    index = ImageIndex.open(tmp_path / "x")
    assert index.embedder_spec == SPEC
    assert index.verify(deep=True) == []
    lines = (photos / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    names = [json.loads(line)["image"] for line in lines]
    found = index.search(np.load(photos / "clip_vitb32_text.npy"), 10)
    recall = [
        round(sum(n in [s.id for s in hits[:k]] for n, hits in zip(names, found, strict=True)) / 290, 3)
        for k in (1, 5, 10)
    ]
    assert recall == [0.469, 0.793, 0.924]


def test_a_few_photographs_are_indexed(photos: Path, tmp_path: Path) -> None:
    some = tmp_path / "some"
    some.mkdir()
    for path in sorted((photos / "images").iterdir())[:6]:
        shutil.copy(path, some)
    check_plumbing(some, tmp_path / "x", 6)


@pytest.mark.slow
def test_all_photographs_are_indexed(photos: Path, tmp_path: Path) -> None:
    check_plumbing(photos / "images", tmp_path / "x", 290)


def check_plumbing(source: Path, path: Path, count: int) -> None:
    """Indexes with random weights and finds each photograph by itself. Says nothing about quality."""
    embedder = open_embedder("open_clip:ViT-B-32:random")
    report = ImageIndex.build(path, folder_corpus.open(str(source)), embedder)
    assert (report.added, report.failed) == (count, ())
    assert ImageIndex.build(path, folder_corpus.open(str(source)), embedder).unchanged == count
    index = ImageIndex.open(path)
    assert len(index) == count
    assert index.verify(deep=True) == []
    vectors = np.load(path / "vectors/00000.npy")
    hits = index.search(vectors, 1, embedder=embedder)
    assert [h[0].score for h in hits] == pytest.approx([1.0] * len(vectors), abs=1e-5)
    image = index.image(index.ids[0])
    assert image.width is not None
    assert max(image.width, image.height or 0) == 768
