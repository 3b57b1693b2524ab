"""A search shows one of several copies, and names the others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from index_world import build
from lined_up import LinedUp
from PIL import ImageEnhance

from mmrerank import ImageSearch, Query, SearchResult
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.corpus import embeddings
from mmrerank.errors import UsageError
from mmrerank.events import Searched
from mmrerank.images import decode
from mmrerank.index.index import ImageIndex
from mmrerank.limits import within
from mmrerank.messages import Judging, Outcome, Retrieve
from mmrerank.types import Image, Ranking

SIZE = 96


def noise(seed: int) -> PIL.Image.Image:
    """Every picture is grey on the whole, so that the embedder hardly tells them apart."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return PIL.Image.fromarray(cells).resize((SIZE, SIZE), PIL.Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures; of the first two there are copies: the same bytes, smaller, brighter, as WebP."""
    folder = tmp_path_factory.mktemp("copies")
    pictures = folder / "in"
    pictures.mkdir()
    for n in range(6):
        noise(n).save(pictures / f"{n}.png")
    shutil.copy(pictures / "0.png", pictures / "0 again.png")
    shutil.copy(pictures / "1.png", pictures / "1 again.png")
    noise(0).resize((48, 48)).save(pictures / "0 small.png")
    ImageEnhance.Brightness(noise(0)).enhance(1.06).save(pictures / "0 bright.jpg", quality=80)
    noise(1).save(pictures / "1 web.webp", quality=60)
    build(folder / "index", pictures, LinedUp())
    return folder


@pytest.fixture
def search(world: Path) -> ImageSearch:
    return ImageSearch.open(world / "index", embedder=LinedUp(), chat=Oracle(lambda query, id: len(id)))


def shown(result: SearchResult) -> dict[str, set[str]]:
    return {h.id: set(h.duplicates) for h in result}


def family(name: str) -> str:
    return name[0]


def test_by_default_everything_is_shown(search: ImageSearch) -> None:
    result = search.search("red", k=20)
    assert len(result) == 11
    assert not any(h.duplicates for h in result)


def test_identical_files_are_one(search: ImageSearch) -> None:
    plain = search.search("red", k=20)
    result = search.search("red", k=20, collapse="identical")
    found = shown(result)
    assert len(result) == 9
    assert {h.id: h.duplicates for h in result if h.duplicates} == {
        "0 again.png": ("0.png",),
        "1 again.png": ("1.png",),
    }
    assert [h.rank for h in result] == list(range(1, 10))
    assert list(found) == [h.id for h in plain if h.id in found]  # the order stands


def test_near_copies_are_one_and_other_pictures_are_not(search: ImageSearch) -> None:
    plain = [h.id for h in search.search("red", k=20)]
    result = search.search("red", k=20, collapse="near")
    assert sorted(map(family, shown(result))) == list("012345")
    for hit in result:
        everyone = [n for n in plain if family(n) == family(hit.id)]
        assert [hit.id, *hit.duplicates] == everyone  # the first stands for the others, best first
    assert result.warnings == ()


def test_so_many_different_pictures_as_were_asked_for(search: ImageSearch) -> None:
    for k in range(1, 7):
        result = search.search("red", k=k, candidates=1, collapse="near")
        assert len({family(h.id) for h in result}) == len(result) == k
    assert len(search.search("red", k=3, collapse="near", keep=lambda c: family(c.id) != "2")) == 3


def test_the_model_sees_different_pictures(search: ImageSearch) -> None:
    seen: list[Ranking] = []

    def method(query: Query, ranking: Ranking) -> Judging:
        seen.append(ranking)
        yield []
        return Outcome(ranking=Ranking(ranking.candidates[::-1]))

    result = search.search("red", k=4, candidates=5, rerank=method, collapse="near")
    assert len({family(i) for i in seen[0].ids}) == 5
    assert [h.id for h in result] == list(seen[0].ids[::-1][:4])
    assert any(h.duplicates for h in result)


def test_what_is_found_again_is_no_copy_of_what_is_there(search: ImageSearch) -> None:
    asked: list[tuple[str, ...]] = []

    def method(query: Query, ranking: Ranking) -> Judging:
        replies = yield [Retrieve(query=query, k=6, toward={ranking.ids[0]: -0.5}, kind="x")]
        asked.append(tuple(c.id for c in replies[0].found))
        return Outcome(ranking=ranking.with_head(Ranking((*replies[0].found[::-1],))))

    for queries in (["red"], ["red", "blue"]):
        asked.clear()
        results = search.search_batch(queries, k=6, candidates=2, rerank=method, collapse="near")
        for found, result in zip(asked, results, strict=True):
            assert len({family(i) for i in found}) == len(found) == 6
            assert sorted(map(family, shown(result))) == list("012345")
            for hit in result:
                assert {family(i) for i in hit.duplicates} <= {family(hit.id)}
                assert hit.id not in hit.duplicates
            assert {i for h in result for i in (h.id, *h.duplicates)} >= {"0.png", "1.png", "0 small.png"}


def test_what_a_method_finds_with_words_of_its_own_is_collapsed_at_the_end(search: ImageSearch) -> None:
    def method(query: Query, ranking: Ranking) -> Judging:
        replies = yield [Retrieve(query=Query(text="green"), k=6, kind="x")]
        known = set(ranking.ids)
        new = [c for c in replies[0].found if c.id not in known]
        return Outcome(ranking=Ranking((*new, *ranking)))

    for result in search.search_batch(["red", "blue"], k=6, candidates=6, rerank=method, collapse="near"):
        assert sorted(map(family, shown(result))) == list("012345")
        assert [h.rank for h in result] == [1, 2, 3, 4, 5, 6]
        assert sum(len(h.duplicates) for h in result) == 5


def test_a_picture_that_is_gone_stands_for_itself(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "in", tmp_path / "in")
    build(tmp_path / "index", tmp_path / "in", LinedUp())
    (tmp_path / "in/1 web.webp").unlink()
    search = ImageSearch.open(tmp_path / "index", embedder=LinedUp())
    result = search.search("red", k=20, collapse="near")
    assert "1 web.webp" in shown(result)
    assert len(result) == 7
    (told,) = (w for w in result.warnings if "could not be looked at" in w)
    assert told.startswith("1 image could not be looked at, and may be shown beside a copy: 1 web.webp: ")


def test_too_few_different_ones_are_said(search: ImageSearch) -> None:
    plain = [family(h.id) for h in search.search("red", k=5)]
    few = len(set(plain))
    assert few < 5
    with within(results=5):
        result = search.search("red", k=5, candidates=5, collapse="near")
    assert len(result) == few
    (told,) = result.warnings
    assert told.startswith(
        f"{few} different pictures are among the 5 nearest images; others were not looked at; "
    )


def test_a_wrong_word_is_refused(search: ImageSearch) -> None:
    with pytest.raises(UsageError, match="none, identical, near, not 'all'"):
        search.search("red", collapse="all")  # type: ignore[arg-type]


def test_it_is_told_saved_and_shown(search: ImageSearch, tmp_path: Path, capsys: Any) -> None:
    from mmrerank.cli._show import show

    events = list(search.stream("red", k=6, collapse="near"))
    first = next(e for e in events if isinstance(e, Searched))
    result = search.search("red", k=6, collapse="near")
    assert [h.duplicates for h in first.hits] == [h.duplicates for h in result]
    row = next(h for h in result.to_dict()["hits"] if family(h["id"]) == "0")
    assert len(row["duplicates"]) == 3
    assert [h.duplicates for h in SearchResult.from_dict(json.loads(json.dumps(result.to_dict())))] == [
        h.duplicates for h in result
    ]
    assert [h.duplicates for h in SearchResult.load(result.save(tmp_path / "r.json"))] == [
        h.duplicates for h in result
    ]
    show(result)
    told = " ".join(capsys.readouterr().out.split())
    page = result.html()
    for text in (told, page):
        assert "and 3 more like it: " in text
        assert "and 2 more like it: " in text


@pytest.mark.slow
@pytest.mark.parametrize("weak", [True, False])
def test_copies_of_real_photographs(photos: Path, tmp_path: Path, weak: bool) -> None:
    """Copies of twenty photographs collapse, and no two different photographs do."""
    from mmrerank.embed.open import open_embedder

    pictures = tmp_path / "in"
    pictures.mkdir()
    by_bytes = {p.read_bytes(): p for p in sorted((photos / "images").iterdir())}
    chosen = list(by_bytes.values())[::8]
    for path in chosen:
        shutil.copy(path, pictures)
    for path in chosen[:20]:
        picture = PIL.Image.open(path).convert("RGB")
        half = (picture.width // 2, picture.height // 2)
        picture.save(pictures / f"{path.stem}~compressed.jpg", quality=35)
        picture.resize(half, PIL.Image.Resampling.LANCZOS).save(
            pictures / f"{path.stem}~small.webp", quality=70
        )
        ImageEnhance.Brightness(picture).enhance(1.08).save(pictures / f"{path.stem}~bright.jpg", quality=85)
    embedder: Any = open_embedder("open_clip:ViT-B-32:random") if weak else LinedUp()
    build(tmp_path / "index", pictures, embedder)
    search = ImageSearch.open(tmp_path / "index", embedder=embedder)
    count = len(chosen)
    result = search.search("red", k=count + 60, collapse="near")
    assert len(result) == count
    stem: Callable[[str], str] = lambda name: name.partition("~")[0].removesuffix(".jpg")  # noqa: E731
    for hit in result:
        assert {stem(i) for i in hit.duplicates} <= {stem(hit.id)}
    assert sorted(len(h.duplicates) for h in result)[-20:] == [3] * 20


class Captions(LinedUp):
    """A query's number is the row of its ready-made vector."""

    spec, dim = "open_clip:ViT-B-32:openai", 512

    def __init__(self, vectors: Path) -> None:
        super().__init__()
        self.rows = np.load(vectors)

    def embed_queries(self, queries: Sequence[Query]) -> Any:
        return self.rows[[int(q.text) for q in queries]]


def test_real_photographs_by_real_vectors(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pairs have the same bytes; every other photograph is its own, and few of them are looked at."""
    corpus = embeddings.open(
        str(photos / "images"), vectors=photos / "clip_vitb32_image.npy", ids=photos / "captions.jsonl"
    )
    ImageIndex.import_vectors(tmp_path / "x", corpus, embedder_spec=Captions.spec)
    search = ImageSearch.open(tmp_path / "x", embedder=Captions(photos / "clip_vitb32_text.npy"))
    opened: list[Image] = []
    monkeypatch.setattr("mmrerank.duplicates.decode", lambda image: (opened.append(image), decode(image))[1])
    whole = search.search("0", k=290, collapse="near")
    assert len(whole) == 288
    assert sorted(len(h.duplicates) for h in whole)[-3:] == [0, 1, 1]
    assert len(opened) < 150
    opened.clear()
    assert len(search.search("7", k=20, collapse="near")) == 20
    assert opened == []  # they are known by now
    assert len(search.search("0", k=290, collapse="identical")) == 288
