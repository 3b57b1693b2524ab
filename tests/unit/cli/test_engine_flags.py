"""The flags of a job: refused where they mean nothing, else handed on."""

from __future__ import annotations

from typing import Any

import pytest

from mmrerank.cli import _engine
from mmrerank.cli._engine import Engine
from mmrerank.errors import UsageError


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ((None, 2, None, False), "--workers is for --engine"),
        ((None, None, 10, False), "--shard-images is for --engine"),
        ((Engine.local, None, None, True), "--vectors need no model"),
    ],
    ids=["workers", "shard-images", "vectors"],
)
def test_flags_that_mean_nothing_are_refused(given: tuple[Any, ...], word: str) -> None:
    engine, workers, shard_images, vectors = given
    with pytest.raises(UsageError, match=word):
        _engine.chosen(engine, workers, shard_images, vectors=vectors)


def test_what_was_given_is_handed_on_and_nothing_else() -> None:
    assert _engine.chosen(None, None, None, vectors=False) == {}
    assert _engine.chosen(Engine.ray, 3, None, vectors=False) == {"engine": "ray", "workers": 3}
