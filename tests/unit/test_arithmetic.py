"""Words and images are added to a query and taken away, each with its weight."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_world import build
from lined_up import AXES, LinedUp

from mmrerank import ImageSearch, Query, Reranker, SearchResult, Term
from mmrerank.arithmetic import folded, query_vectors, remarks
from mmrerank.chat.fakes.scripted import Scripted
from mmrerank.errors import InputError, QueryError, UsageError
from mmrerank.limits import within
from mmrerank.messages import Ask, Judging, Outcome, Retrieve
from mmrerank.types import Candidate, Image, Ranking

COLOURS = {
    "red.png": (255, 0, 0),
    "green.png": (0, 255, 0),
    "blue.png": (0, 0, 255),
    "pink.png": (255, 0, 200),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arithmetic")
    (folder / "in").mkdir()
    for name, colour in COLOURS.items():
        PIL.Image.new("RGB", (8, 8), colour).save(folder / "in" / name)
    build(folder / "index", folder / "in", LinedUp())
    return folder


@pytest.fixture
def search(place: Path) -> ImageSearch:
    return ImageSearch.open(place / "index", embedder=LinedUp(), chat=Scripted(lambda ask: "yes"))


weights = st.floats(-5, 5).filter(lambda w: abs(w) > 0.01)
queries = st.builds(
    lambda text, terms: Query(text=text, terms=tuple(Term(text=t, weight=w) for t, w in terms)),
    st.sampled_from(AXES),
    st.lists(st.tuples(st.sampled_from(AXES), weights), max_size=4),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(queries, min_size=1, max_size=4))
def test_the_vector_is_the_weighted_sum_of_units(asked: list[Query]) -> None:
    sums = []
    for query in asked:
        total = dict.fromkeys(AXES, 0.0)
        for text, weight in [(query.text, 1.0), *((t.text, t.weight) for t in query.terms)]:
            total[text] += weight
        sums.append(np.array(list(total.values())))
    lengths = [float(np.linalg.norm(s)) for s in sums]
    if min(lengths) < 0.1:
        return  # they cancel out, or nearly
    found = query_vectors(LinedUp(), asked)
    assert found.dtype == np.float32
    assert found == pytest.approx(np.stack([s / n for s, n in zip(sums, lengths, strict=True)]), abs=1e-5)


def test_a_query_without_terms_is_the_embedders_own() -> None:
    embedder = LinedUp()
    asked = [Query(text="red"), Query(text="blue", exclude=("green",))]
    assert query_vectors(embedder, asked).tolist() == LinedUp().embed_queries(asked).tolist()
    assert embedder.asked == asked


def test_everything_is_embedded_in_one_call_with_the_instruction() -> None:
    embedder = LinedUp()
    query = Query(text="red", instruction="find it", exclude=("green",), terms=(Term(text="blue"),))
    query_vectors(embedder, [query, Query(text="green")])
    assert embedder.asked == [
        replace(query, terms=()), Query(text="blue", instruction="find it"), Query(text="green"),
    ]  # fmt: skip


@pytest.mark.parametrize("weight", [-1.0, -1.0005])
def test_what_cancels_out_is_refused(weight: float) -> None:
    with pytest.raises(UsageError, match="query 'q7' and its terms cancel out"):
        query_vectors(LinedUp(), [Query(text="red", id="q7", terms=(Term(text="red", weight=weight),))])


def test_a_search_adds_and_takes_away(search: ImageSearch, place: Path) -> None:
    def first(*given: Any, **more: Any) -> str:
        return search.search(*given, **more)[0].id

    assert first("red") == "red.png"
    assert first("red", plus="blue") == "pink.png"
    assert first("red", plus=Term(text="blue", weight=3)) == "blue.png"
    assert first("red", plus=["blue"], minus="red") == "blue.png"
    assert first("red blue", minus=Term(text="red", weight=2)) == "blue.png"
    assert first("red", plus=place / "in/blue.png") == "pink.png"
    assert (
        first("", images=[place / "in/pink.png"], minus=PIL.Image.new("RGB", (8, 8), (255, 0, 0)))
        == "blue.png"
    )
    assert first(Query(text="red", terms=(Term(text="blue"),)), minus="red") == "blue.png"


def test_what_was_asked_is_told_and_saved(search: ImageSearch, place: Path, tmp_path: Path) -> None:
    image = Image(path=place / "in/blue.png")
    found = search.search("red", plus=[image, "green"], minus=Term(text="blue", weight=0.5))
    told = found.to_dict()["query"]["terms"]
    assert told == [
        {"image": str(image.path), "weight": 1.0}, {"text": "green", "weight": 1.0},
        {"text": "blue", "weight": -0.5},
    ]  # fmt: skip
    assert SearchResult.from_dict(json.loads(json.dumps(found.to_dict()))).query == found.query
    assert SearchResult.load(found.save(tmp_path / "r.json")).query == found.query
    page = found.html()
    assert "plus green; minus 0.5 × blue" in page
    assert 'alt="image of a term"' in page


# ---------------------------------------------------------------- what methods are told


def test_words_join_and_exclude_and_images_join() -> None:
    one, two = Image(data=b"1"), Image(data=b"2")
    query = Query(
        text="a horse",
        images=(one,),
        exclude=("people",),
        terms=(
            Term(text="stripes", weight=2),
            Term(text="grass", weight=-1),
            Term(image=two),
            Term(image=one, weight=-3),
        ),
    )
    told = Query(text="a horse, stripes", images=(one, two), exclude=("people", "grass"))
    assert folded(query) == told
    assert folded(told) is told
    assert remarks(query, "cotrr") == [
        "cotrr was not shown 1 image that is taken away: only the first stage knows of it",
        "cotrr knows nothing of 2 weights of the query: only the first stage does",
    ]
    assert remarks(told, "cotrr") == []
    assert folded(Query(turns=("a dog",), terms=(Term(text="a ball"),))).words == "a dog, a ball"


def prompts_of(rank: Callable[[Scripted], Any]) -> tuple[str, Any]:
    seen: list[str] = []

    def reply(ask: Ask) -> str:
        seen.append("".join(p.text or "[image]" for m in ask.messages for p in m.parts))
        return "yes"

    result = rank(Scripted(reply))
    return "\n".join(seen), result


TEXTS = [{"id": n, "text": n} for n in ("a zebra", "a mule")]


def test_a_method_reads_the_words(place: Path) -> None:
    image = Image(path=place / "in/blue.png")
    query = Query(
        text="a horse",
        terms=(Term(text="stripes"), Term(text="grass", weight=-2), Term(image=image, weight=-1)),
    )
    seen, result = prompts_of(lambda chat: Reranker("pointwise", chat).rank(query, TEXTS))
    assert "a horse, stripes" in seen
    assert "grass" in seen
    assert "[image]" not in seen
    assert result.query is query
    assert any("1 image that is taken away" in w for w in result.warnings)
    assert any("1 weight of the query" in w for w in result.warnings)
    seen, result = prompts_of(
        lambda chat: Reranker("pointwise", chat).rank(replace(query, terms=(Term(image=image),)), TEXTS)
    )
    assert "[image]" in seen
    assert not any("first stage" in w for w in result.warnings)


def test_searching_alone_needs_no_remark(search: ImageSearch) -> None:
    assert search.search("red", minus=Term(text="blue", weight=2)).warnings == ()


def again(query: Query, ranking: Ranking) -> Judging:
    """A method that searches again, with the query and with words of its own."""
    replies = yield [Retrieve(query=query, k=1, kind="a"), Retrieve(query=Query(text="green"), k=1, kind="b")]
    found = {c.id: c for r in replies for c in r.found}
    return Outcome(ranking=Ranking(tuple(found.values())))


def test_searching_again_is_with_the_terms(search: ImageSearch) -> None:
    """The first stage of a method that searches again knows the query as it was given."""
    embedder = search.embedder
    assert isinstance(embedder, LinedUp)
    query = Query(text="red", terms=(Term(text="blue", weight=3.0),))
    # a plain query of the same words beside it is searched as it is
    both = search.search_batch([query, Query(text="red, blue")], k=2, candidates=1, rerank=again)
    assert [[h.id for h in r] for r in both] == [["blue.png", "green.png"], ["blue.png", "green.png"]]
    asked = [q.words for q in embedder.asked]
    assert asked == ["red", "blue", "red, blue", "red", "blue", "green", "red, blue", "green"]
    ranked = Reranker(again, retriever=search).rank(
        query, Ranking(search.first_stage([query], 1)[0].candidates)
    )
    assert [h.id for h in ranked] == ["blue.png", "green.png"]


def test_an_unreadable_image_is_named(search: ImageSearch, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(InputError):
        search.search("red", minus=tmp_path / "broken.png")


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("weight", [0, -0.0, math.nan, math.inf, -1001, 10**400, True, "2", None])
def test_a_weight_is_a_number_that_counts(weight: Any) -> None:
    with pytest.raises(QueryError, match="a term's weight is"):
        Term(text="red", weight=weight)


def test_a_term_is_words_or_an_image() -> None:
    for wrong in ({}, {"text": "  "}, {"text": "red", "image": Image(data=b"x")}):
        with pytest.raises(QueryError, match="either a text or an image"):
            Term(**wrong)
    for wrong in ({"text": 3}, {"image": "x.png"}):
        with pytest.raises(QueryError, match="a term's"):
            Term(**wrong)
    assert Term(text="red", weight=np.float32(2)).weight == 2.0
    with pytest.raises(QueryError, match="a query's term is a mmrerank.Term, not str"):
        Query(text="a", terms=("red",))  # type: ignore[arg-type]


def test_terms_count_among_what_is_allowed() -> None:
    term, image = Term(text="x"), Term(image=Image(data=b"x"))
    with pytest.raises(QueryError, match="65 exclusions, turns and terms; at most 64"):
        Query(text="a", terms=(term,) * 65)
    with pytest.raises(QueryError, match="9 reference images"):
        Query(text="a", images=(Image(data=b"x"),) * 3, terms=(image,) * 6)
    with within(query_characters=10), pytest.raises(QueryError, match="characters"):
        Query(text="a", terms=(Term(text="x" * 9),))
    with pytest.raises(ValueError, match="needs a text"):
        Query(terms=(term,))
    with within(query_characters=12):  # what was let in can be asked about
        assert folded(Query(text="a", terms=(Term(text="x" * 9),))).text == "a, " + "x" * 9


def test_a_string_is_never_a_picture(search: ImageSearch) -> None:
    with pytest.raises(UsageError, match=r"the term 'boat\.jpg' looks like a picture"):
        search.search("red", plus="boat.jpg")
    assert search.search("red", plus=Term(text="boat.jpg blue"))[0].id == "pink.png"
    with pytest.raises(UsageError, match="an image is"):
        search.search("red", minus=[3])


def test_ranking_only_with_terms_keeps_every_candidate() -> None:
    ranking = Ranking(tuple(Candidate(id=i, text=i) for i in "ab"))
    result = Reranker("none").rank(Query(text="x", terms=(Term(text="y", weight=-1),)), ranking)
    assert [h.id for h in result] == ["a", "b"]
    assert result.warnings == ()
