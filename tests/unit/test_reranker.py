"""`Reranker` and `combine` on what people hand in, and methods of methods where one fails or finds."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mmrerank import combine
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.errors import ChatError, UsageError
from mmrerank.images import decode
from mmrerank.messages import Ask, Reply, Retrieve
from mmrerank.ports import Retriever
from mmrerank.reranker import Reranker, to_image
from mmrerank.types import Candidate, Image

PICTURE = Image(data=b"not decoded here")


def candidates(n: int) -> list[Candidate]:
    return [Candidate(id=f"i{k}", image=PICTURE) for k in range(n)]


class Losing(Oracle):
    """An oracle that agrees with the first stage and loses those of its questions whose numbers are given."""

    def __init__(self, lost: Sequence[int]) -> None:
        super().__init__(lambda query, id: 0)
        self.lost, self.asked = set(lost), 0

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        replies = []
        for ask in asks:
            scores = {label: 99 - int(id[1:]) for label, id in zip(ask.labels, ask.shown, strict=True)}
            told = Reply(text=json.dumps({"reason": "", "scores": scores}))
            failed = Reply(error=ChatError("lost"), finish="error")
            replies.append(failed if self.asked in self.lost else told)
            self.asked += 1
        return replies


@pytest.mark.parametrize("lost", [[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]])
def test_a_lost_vote_is_no_vote(lost: list[int]) -> None:
    result = Reranker("vote", Losing(lost)).rank("x", candidates(6))
    assert [h.id for h in result] == [f"i{k}" for k in range(6)]
    assert result.repairs.failed == len(lost)


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "F", "I", "I;16"]


@pytest.mark.parametrize("mode", MODES)
def test_a_pil_image_of_any_mode_is_seen_as_it_is(mode: str) -> None:
    grey = PIL.Image.fromarray(np.arange(120, dtype=np.uint8).reshape(10, 12) * 2)
    if mode == "I;16":
        made = PIL.Image.fromarray(np.asarray(grey, np.uint16) * 257)
    elif mode in ("LA", "PA"):
        made = grey.convert("LA").convert(mode)
    elif mode == "LAB":
        made = PIL.Image.new("LAB", (12, 10), (128, 128, 128))
    else:
        made = grey.convert("RGB" if mode in ("YCbCr", "HSV", "CMYK") else "L").convert(mode)
    assert made.mode == mode
    image = to_image(made)
    assert (image.width, image.height) == (12, 10)
    shown = np.asarray(decode(image), int)
    assert shown.shape == (10, 12, 3)
    if mode not in ("1", "P", "LAB"):
        assert np.abs(shown - np.asarray(grey, int)[..., None]).max() <= 3


def test_a_pil_image_is_seen_upright() -> None:
    sideways = PIL.Image.fromarray(np.arange(600, dtype=np.uint8).reshape(10, 20, 3))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    sideways.save(file, "jpeg", exif=exif)
    upright = decode(file.getvalue())
    given = to_image(PIL.Image.open(io.BytesIO(file.getvalue())))
    assert (given.width, given.height) == upright.size == (10, 20)
    assert np.array_equal(np.asarray(decode(given)), np.asarray(upright))


def test_ids_may_be_numbers() -> None:
    requests = [("a boat", [{"id": 7, "text": "t"}, {"id": 8, "text": "u"}])]
    (result,) = Reranker("listwise", Oracle(lambda query, id: int(id == "8"))).rank_batch(requests)
    assert [h.id for h in result] == ["8", "7"]


def test_what_says_nothing_is_a_wrong_use() -> None:
    reranker = Reranker("listwise", Oracle(lambda query, id: 0))
    with pytest.raises(UsageError, match="a query needs a text"):
        reranker.rank(" ", [{"text": "t"}])
    for score in ("0.3", True):
        with pytest.raises(UsageError, match=f"score is a number, not {score!r}"):
            reranker.rank("a boat", [{"text": "t", "score": score}])
    (hit,) = reranker.rank("a boat", [{"text": "t", "score": np.float32(0.5)}])
    assert hit.score == 0.5


def test_an_option_is_never_an_argument_of_reranker() -> None:
    for name in ("cache", "budget", "chat", "retriever", "record", "total"):
        with pytest.raises(UsageError, match=f"unknown option '{name}'"):
            Reranker("pointwise", Oracle(lambda query, id: 0), options={name: "5"})
    assert Reranker("prp", Oracle(lambda query, id: 0), options={"top": "5"}).options.top == 5


class Shelf(Retriever):
    """A first stage that finds two images besides."""

    def retrieve(self, requests: Sequence[Retrieve]) -> list[tuple[Candidate, ...]]:
        found = tuple(Candidate(id=f"new{n}", image=PICTURE, score=0.1) for n in (1, 2))
        return [found for _ in requests]


def test_what_the_second_of_two_methods_finds_is_kept() -> None:
    grades = {"i0": 0, "i1": 2, "i2": 1, "new1": 3, "new2": 3}
    chat = Oracle(lambda query, id: grades[id])
    options: dict[str, Any] = {"first": "pointwise", "then": "feedback"}
    result = Reranker("cascade", chat, retriever=Shelf(), options=options).rank("x", candidates(3))
    assert {"new1", "new2"} < {h.id for h in result}
    assert [h.first_rank for h in result if h.id == "new1"] == [None]


def test_results_that_were_cut_are_combined_when_they_hold_the_same() -> None:
    whole = Reranker("pointwise", Oracle(lambda query, id: int(id[1:]))).rank("x", candidates(4))

    # as `ImageSearch.search` returns them: the best k, and as many of the first stage
    cut = replace(whole, hits=whole.hits[:2], first=whole.first[:2])
    result = combine([cut, cut])
    assert [(h.id, h.first_rank) for h in result] == [("i3", 4), ("i2", 3)]
    assert [h.relevance for h in result] == [1, 0]
    assert [h.relevance for h in combine([whole, whole], rule="rrf")] == pytest.approx(
        [1, 61 / 62, 61 / 63, 61 / 64]
    )
    other = replace(whole, hits=whole.hits[1:3], first=whole.first[:2])
    with pytest.raises(UsageError, match="give k as large as candidates"):
        combine([cut, other])
