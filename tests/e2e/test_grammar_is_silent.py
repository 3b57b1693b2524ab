"""A grammar changes nothing about a reply that follows it anyway."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmrerank.chat.open import open_chat
from mmrerank.picturebook.queries import sample_query
from mmrerank.picturebook.world import stream
from mmrerank.rerank import judgements
from mmrerank.rerank.prompting import profile
from mmrerank.rerank.rooms import within
from mmrerank.types import Query


@pytest.mark.slow
def test_what_follows_the_schema_is_left_as_it_is() -> None:
    chat, rng = open_chat("bundled"), stream("validation", 3)
    categories = ("binding", "count", "relation", "exclusion", "setting")
    queries = [Query(text=sample_query(rng, "validation", category=c).text) for c in categories * 8]
    with profile(chat.prompts), within(chat):
        asks = [judgements.deconstruct(q) for q in queries]
    held = chat.reply(asks)
    free = chat.reply([replace(a, schema=None) for a in asks])
    valid = [n for n, r in enumerate(free) if judgements.read_deconstruct(r).status == "ok"]
    assert len(valid) > len(queries) / 2, "the bundled model must know the form for this to mean much"
    assert [held[n].text for n in valid] == [free[n].text for n in valid]
    kinds = {c.kind for n in valid for c in judgements.read_deconstruct(held[n]).components}
    assert {"subject", "count", "detail", "environment", "ambience", "exclusion"} <= kinds
