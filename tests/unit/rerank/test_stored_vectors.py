"""`e2rank` takes the candidates' vectors from the index where the index's embedder is the model itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_world import ColourEmbedder, build, paint

from mmrerank import ImageSearch
from mmrerank.errors import CapabilityError
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Chat, Vectors
from mmrerank.types import Image, Query, Usage

NAMES = ["a.png", "b.png", "c.png", "d.png"]


class Reader(ColourEmbedder):
    """Every query is the vector e0, and read after images e1."""

    lists = True

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place, self.read = place, 0

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        return np.eye(self.dim, dtype=np.float32)[[0] * len(queries)]

    def embed_after(self, query: Query, images: Sequence[Image]) -> Vectors:
        self.read += len(images)
        return np.eye(self.dim, dtype=np.float32)[1]


class Counting(Chat):
    """Embeds everything as e2 of three numbers."""

    capabilities = frozenset({"embed"})

    def __init__(self, spec: str) -> None:
        self.spec, self.asked = spec, 0

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        self.asked += len(asks)
        return [Reply(states=(np.eye(3, dtype=np.float32)[2],), usage=Usage(calls=1)) for _ in asks]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    paint(folder / "in", NAMES)
    build(folder / "index", folder / "in", Reader(""))
    (folder / "model").mkdir()
    return folder


def cosines(index: Path, axis: int) -> dict[str, float]:
    held = ImageSearch.open(index / "index", embedder=Reader("")).index.vectors(NAMES)
    return {n: round(float(v[axis]), 6) for n, v in zip(NAMES, held, strict=True)}


def test_the_same_model_reads_the_query_and_no_candidate_again(index: Path) -> None:
    embedder, chat = Reader(str(index / "model")), Counting(f"transformers:{index}/in/../model")
    result = ImageSearch.open(index / "index", embedder=embedder, chat=chat).search("boat", rerank="e2rank")
    assert chat.asked == 0
    assert embedder.read == len(NAMES)
    assert result.explanation.scores == pytest.approx(cosines(index, 1))
    assert [h.id for h in result] == sorted(NAMES, key=lambda n: -cosines(index, 1)[n])


def test_another_model_makes_all_vectors(index: Path) -> None:
    embedder, chat = Reader(str(index / "model")), Counting(f"transformers:{index}/in")
    search = ImageSearch.open(index / "index", embedder=embedder, chat=chat)
    assert search.search("boat", rerank="e2rank").usage.calls == len(NAMES) + 1
    assert embedder.read == 0
    assert search.search("boat", rerank="e2rank", vectors="model").usage.calls == len(NAMES) + 1


@pytest.mark.parametrize(("mode", "expected"), [("listwise", 1), ("rocchio", None)])
def test_the_index_can_do_it_alone(index: Path, mode: str, expected: int | None) -> None:
    search = ImageSearch.open(index / "index", embedder=Reader(""))
    result = search.search("boat", rerank="e2rank", vectors="index", mode=mode)
    assert result.warnings == ()
    assert all(h.relevance is not None for h in result)
    if expected is not None:
        assert result.explanation.scores == pytest.approx(cosines(index, expected))


def test_where_it_cannot_the_first_stage_stands_and_says_why(index: Path) -> None:
    embedder = Reader("")
    embedder.lists = False
    result = ImageSearch.open(index / "index", embedder=embedder).search(
        "boat", rerank="e2rank", vectors="index"
    )
    assert result.degraded
    assert "cannot read a search after images" in result.warnings[0]
    assert [h.id for h in result] == [h.id for h in result.first]
    with pytest.raises(CapabilityError):
        ImageSearch.open(index / "index", embedder=embedder).search("boat", rerank="e2rank")


@pytest.mark.slow
def test_a_real_model_embeds_and_reranks(tmp_path: Path, tiny_qwen: Callable[[str], Path]) -> None:
    from mmrerank.embed.open import open_embedder
    from mmrerank.images import decode

    place = tiny_qwen("qwen3_vl")
    paint(tmp_path / "in", NAMES)
    embedder: Any = open_embedder(f"qwen3_vl:{place}", device="cpu")
    build(tmp_path / "index", tmp_path / "in", embedder)
    images = [Image(path=tmp_path / "in" / n) for n in NAMES]
    # this family says the same of words and of a change, so that this is the same prompt
    (wanted,) = embedder.embed_queries([Query(text="a red boat", images=tuple(images))])
    assert embedder.embed_after(Query(text="a red boat"), images) == pytest.approx(wanted, abs=1e-5)
    held = embedder.embed_images([decode(i) for i in images])

    chat = Counting(f"transformers:{place}")
    own = ImageSearch.open(tmp_path / "index", embedder=embedder, chat=chat).search(
        "a red boat", rerank="e2rank"
    )
    assert chat.asked == 0
    assert own.usage.calls == 0
    order = [h.id for h in own.first]
    (asked,) = embedder.embed_queries(
        [Query(text="a red boat", images=tuple(images[NAMES.index(n)] for n in order))]
    )
    expected = {n: float(v @ asked) for n, v in zip(NAMES, held, strict=True)}
    assert own.explanation.scores == pytest.approx(expected, abs=1e-4)
