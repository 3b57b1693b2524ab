"""Which document a score is of: a server that counts from 1 gives nobody his neighbour's score."""

from __future__ import annotations

import json

import pytest

from mmrerank.errors import ReplyError
from mmrerank.scorers._rerank_wire import answer


def of(*places: int) -> str:
    return json.dumps({"results": [{"index": n, "relevance_score": n / 10} for n in places]})


def test_documents_counted_from_one_are_refused() -> None:
    with pytest.raises(ReplyError, match="from 1"):
        answer(of(1, 2, 3), 3)
    with pytest.raises(ReplyError, match="from 1"):
        answer(of(3), 3)


def test_documents_counted_from_nought_keep_their_scores() -> None:
    assert answer(of(2, 0, 1), 3).scores == (0.0, 0.1, 0.2)
    assert answer(of(2, 1, 0, 3), 3).scores == (0.0, 0.1, 0.2)
