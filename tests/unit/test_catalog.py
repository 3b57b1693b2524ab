"""The catalogue: rows of other packages, and which model is chosen when nobody names one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from index_world import ColourEmbedder, paint

from mmrerank import catalog
from mmrerank.catalog import Card
from mmrerank.corpus import open_corpus
from mmrerank.errors import ModelError
from mmrerank.index.index import ImageIndex
from mmrerank.ports import Vectors
from mmrerank.search import ImageSearch
from mmrerank.types import Query

ROWS = (
    Card(name="moths", kind="chat", spec="oracle:", corpora=("moths at night", "moths by day")),
    Card(name="all-round", kind="chat", spec="oracle:"),
)


class Embedder(ColourEmbedder):
    """One that also takes words, all of them alike."""

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        return np.tile(np.eye(1, self.dim, dtype=np.float32), (len(queries), 1))


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A catalogue with a model that is meant for some images, and a general one."""
    catalog.cards.cache_clear()
    monkeypatch.setattr(catalog, "_foreign", lambda: list(ROWS))
    yield
    catalog.cards.cache_clear()


@pytest.mark.usefixtures("rows")
def test_a_model_is_chosen_only_where_it_is_meant_for() -> None:
    assert ROWS[0].domain == "moths at night"  # in words, where nothing else is given
    assert catalog.chosen("chat", "", "moths by day") == "moths"
    assert catalog.chosen("chat", "all-round", "moths by day") == "all-round"
    # a general model is never a default, and one for other images is refused unless it is named
    for corpus in ("", "birds"):
        with pytest.raises(ModelError, match=r"(?s)moths is meant for the moths at night only.*--chat"):
            catalog.chosen("chat", "", corpus)
        assert catalog.chosen("chat", "moths", corpus) == "moths"
        assert catalog.chosen("chat", "", corpus, usual="all-round") == "all-round"  # a person's default
    assert catalog.chosen("chat", "", "moths by day", usual="all-round") == "moths"


@pytest.mark.usefixtures("rows")
def test_an_index_knows_what_its_images_are_of(tmp_path: Path) -> None:
    paint(tmp_path / "pictures", ["a.png", "b.png"])
    source = open_corpus(tmp_path / "pictures")
    built = {}
    for domain in ("moths by day", ""):
        folder = tmp_path / (domain or "unknown")
        ImageIndex.build(folder, source, Embedder(), domain=domain)
        built[domain] = ImageSearch(ImageIndex.open(folder), embedder=Embedder())
    found = built["moths by day"].search("a", rerank="pointwise")
    assert found.usage.calls == 2
    with pytest.raises(ModelError, match="--chat"):
        built[""].search("a", rerank="pointwise")
    named = ImageSearch(built[""].index, embedder=Embedder(), chat="moths")
    assert "is limited (moths at night)" in named.search("a", rerank="pointwise").warnings[0]
