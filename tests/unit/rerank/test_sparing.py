"""One bad picture costs one place, whatever the method, and no more questions than it takes to find it.

From public reports: volcengine/OpenViking#2330 and langgenius/dify#41479 (one broken picture fails the whole
request), and of groups that a content policy refuses as a whole.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from mmrerank import registry
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.errors import ChatError, FailureKind, InputError
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Retriever
from mmrerank.reranker import Reranker
from mmrerank.results import SearchResult
from mmrerank.types import Candidate, Image, Query

QUERY = Query(text="a red boat", id="q7")
METHODS = [n for n in registry.names("strategy") if n not in ("none", "describe")]
"""Those that ask something of a query in words."""
# those that judge by P(yes) or by vectors of the oracle, one picture a question
JUST_ONE = {"pointwise", "judge", "erank", "prorank", "multivector", "feedback", "plan"}


def png(shade: int) -> Image:
    file = io.BytesIO()
    Pillow.new("RGB", (8, 8), (shade, 0, 0)).save(file, "PNG")
    return Image(data=file.getvalue())


def candidates(count: int, damaged: Sequence[int] = ()) -> list[Candidate]:
    """Candidates in an order that mixes their grades; those in ``damaged`` are no pictures."""
    return [
        Candidate(id=f"i{n}", image=Image(data=b"no picture %d" % n) if n in damaged else png(n), score=-n)
        for n in range(count)
    ]


class Looking(Oracle):
    """An oracle that shows pictures as a server would: some cannot be shown, some it ``refuses``."""

    def __init__(
        self,
        refuses: Callable[[Ask, Image], bool] = lambda ask, image: False,
        kind: FailureKind = "content_filter",
        words: bool = False,
    ) -> None:
        super().__init__(lambda query, id: int(id[1:]) * 7 % 4)
        self.refuses, self.refusal, self.words = refuses, kind, words
        self.asks: list[Ask] = []

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        self.asks += asks
        replies = super().reply(asks)
        for n, ask in enumerate(asks):
            pictures = [p.image for m in ask.messages for p in m.parts if p.image is not None]
            if any((i.data or b"").startswith(b"no picture") for i in pictures):
                why = ChatError("an image of the question cannot be shown", kind="image")
                replies[n] = Reply(error=why, finish="error")
            elif self.words or any(self.refuses(ask, i) for i in pictures):
                why = ChatError("refused by our policy", kind=self.refusal)
                replies[n] = Reply(error=why, finish="error")
            elif ask.kind == "probe":
                replies[n] = Reply(text="fine")
        return replies


def ids(result: SearchResult, but: Sequence[str] = ()) -> list[str]:
    return [h.id for h in result if h.id not in but]


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_picture_costs_its_place_alone(method: str) -> None:
    whole = [c for c in candidates(9) if c.id != "i4"]
    expected = Reranker(method, Looking()).rank(QUERY, whole)
    result = Reranker(method, Looking()).rank(QUERY, candidates(9, damaged=[4]))
    assert ids(result)[4] == "i4"
    assert ids(result, but=["i4"]) == ids(expected)
    assert (result.repairs.failed, expected.repairs.failed) == (1, 0)
    (warning,) = [w for w in result.warnings if "i4" in w]
    assert warning.startswith("1 candidate left out of the questions, keeping its first-stage place: i4: its")
    assert "no image format" in warning
    assert [(f.kind, f.count) for f in result.failures if "i4" in f.example] == [("image", 1)]
    assert "left out" in next(h for h in result if h.id == "i4").assessment.reason  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        *((m, "content_filter") for m in METHODS if m not in ("e2rank", "icr", "mvp", "multivector")),
        ("listwise", "bad_request"),
        ("prp", "forbidden"),
        ("grouprank", "refusal"),
    ],
)
def test_a_refused_picture_is_found_by_halves(method: str, kind: FailureKind) -> None:
    bad = png(4)
    whole = [c for c in candidates(9) if c.id != "i4"]
    plain = Looking()
    expected = Reranker(method, plain).rank(QUERY, whole)
    chat = Looking(lambda ask, image: image == bad, kind)
    result = Reranker(method, chat).rank(QUERY, candidates(9))
    assert ids(result)[4] == "i4"
    assert ids(result, but=["i4"]) == ids(expected)
    assert any("i4" in w and "refused by our policy" in w for w in result.warnings)
    probes = [a for a in chat.asks if a.kind == "probe"]
    assert len(probes) <= 10
    assert not probes or method not in JUST_ONE


def test_what_was_answered_is_not_asked_again() -> None:
    chat = Looking()
    Reranker("pointwise", chat).rank(QUERY, candidates(20, damaged=[3]))
    assert len(chat.asks) == 20
    chat = Looking()
    Reranker("tsprank", chat).rank(QUERY, candidates(6, damaged=[3]))
    assert len(chat.asks) == 30
    chat = Looking()
    Reranker("listwise", chat).rank(QUERY, candidates(20, damaged=[3]))
    assert len(chat.asks) == 2


def test_a_window_of_twenty_takes_few_probes() -> None:
    bad = png(13)
    chat = Looking(lambda ask, image: image == bad)
    reranker = Reranker("listwise", chat)
    result = reranker.rank(QUERY, candidates(20))
    assert ids(result)[13] == "i13"
    assert len(chat.asks) <= 12
    # a second search looks at the picture first that was refused before
    before = len(chat.asks)
    reranker.rank(QUERY, candidates(20))
    assert len(chat.asks) - before == 4


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11)))
def test_any_bad_pictures_keep_their_places_and_the_others_are_ordered(
    damaged: set[int], refused: set[int]
) -> None:
    out = {png(n) for n in refused}
    chat = Looking(lambda ask, image: image in out)
    given = candidates(12, damaged=sorted(damaged))
    result = Reranker("listwise", chat).rank(QUERY, given)
    left = {h.id for h in result if h.assessment and h.assessment.reason.startswith("left out")}
    assert {f"i{n}" for n in damaged} <= left <= {f"i{n}" for n in damaged | refused}
    assert [h.id for n, h in enumerate(result) if given[n].id in left] == [
        c.id for c in given if c.id in left
    ]
    kept = [i for i in ids(result) if i not in left]
    if left == {f"i{n}" for n in damaged | refused}:
        assert kept == sorted(kept, key=lambda i: (-(int(i[1:]) * 7 % 4), int(i[1:])))
    assert len(chat.asks) <= 3 + 2 * 12


@pytest.mark.parametrize("method", ["listwise", "cotrr", "prp", "vote"])
def test_nearly_all_or_all_damaged(method: str) -> None:
    most = Reranker(method, Looking()).rank(QUERY, candidates(20, damaged=range(1, 20)))
    assert ids(most) == [f"i{n}" for n in range(20)]
    assert most.repairs.failed == 19
    assert any("19 candidates left out" in w and "and 14 more" in w for w in most.warnings)
    none = Reranker(method, Looking()).rank(QUERY, candidates(5, damaged=range(5)))
    assert ids(none) == [f"i{n}" for n in range(5)]
    assert none.degraded


def test_texts_are_never_suspected() -> None:
    mixed = [*candidates(3, damaged=[1]), Candidate(id="i7", text="a caption"), Candidate(id="i3", text="x")]
    result = Reranker("listwise", Looking()).rank(QUERY, mixed)
    assert ids(result)[1] == "i1"
    assert sorted(ids(result)) == ["i0", "i1", "i2", "i3", "i7"]
    assert [w for w in result.warnings if "i7" in w or "i3" in w] == []


def test_words_that_are_refused_blame_no_picture_and_searching_ends() -> None:
    chat = Looking(words=True)
    reranker = Reranker("listwise", chat)
    for _ in range(6):
        result = reranker.rank(QUERY, candidates(20))
        assert ids(result) == [f"i{n}" for n in range(20)]
        assert result.degraded
        assert not any("left out" in w for w in result.warnings)
    assert len(chat.asks) <= 6 + 2 * 2 * 20


def test_a_picture_that_is_missing_is_named_with_its_path(tmp_path: object) -> None:
    from pathlib import Path

    gone = Candidate(id="gone", image=Image(path=Path(str(tmp_path)) / "gone.jpg"))

    class Reading(Looking):
        def reply(self, asks: Sequence[Ask]) -> list[Reply]:
            replies = super().reply(asks)
            for n, ask in enumerate(asks):
                if any(p.image is not None and p.image.path for m in ask.messages for p in m.parts):
                    replies[n] = Reply(error=ChatError("no such file", kind="image"), finish="error")
            return replies

    chat = Reading()
    chat._grades = lambda query, id: 0 if id == "gone" else int(id[1:]) % 4
    result = Reranker("listwise", chat).rank(QUERY, [*candidates(3), gone])
    assert ids(result) == ["i2", "i1", "i0", "gone"]
    assert any("gone.jpg" in w and "No such file" in w for w in result.warnings)


def test_a_reference_image_that_cannot_be_shown_is_an_error() -> None:
    query = Query(text="the same at night", images=(Image(data=b"no picture"),), id="q3")
    with pytest.raises(
        InputError, match=r"query 'q3': its reference image cannot be shown: .*no image format"
    ):
        Reranker("listwise", Looking()).rank(query, candidates(4))


def test_what_a_search_finds_besides_may_be_damaged_too() -> None:
    class Index(Retriever):
        def retrieve(self, requests: object) -> list[tuple[Candidate, ...]]:
            found = (Candidate(id="i31", image=Image(data=b"no picture")), Candidate(id="i33", image=png(33)))
            return [found]

    result = Reranker("feedback", Looking(), retriever=Index()).rank(QUERY, candidates(4))
    assert "i33" in ids(result)
    assert "i31" not in ids(result)
    assert any("i31" in w for w in result.warnings)
