"""The searches that people type first ("a red boat") are taken apart rightly by the bundled model.

`mmrerank eval demo` asks longer ones only, so that nothing there would show it.
"""

from __future__ import annotations

import pytest

from mmrerank.chat._open import open_chat
from mmrerank.demo.facts import Noun, SubjectFact
from mmrerank.demo.world import COLOURS, KINDS
from mmrerank.ports import Chat
from mmrerank.rerank import judgements
from mmrerank.types import Query

THINGS = [Noun(kind=k) for k in KINDS]
COLOURED = [Noun(kind=k, colour=COLOURS[n % len(COLOURS)]) for n, k in enumerate(KINDS)]


@pytest.fixture(scope="module")
def bundled() -> Chat:
    return open_chat("bundled")


@pytest.mark.parametrize("words", ["{}", "show me {}", "{} please"])
@pytest.mark.parametrize("nouns", [THINGS, COLOURED], ids=["things", "coloured"])
def test_one_thing_is_taken_for_one(bundled: Chat, nouns: list[Noun], words: str) -> None:
    facts = [SubjectFact(noun=n) for n in nouns]
    asks = [judgements.deconstruct(Query(text=words.format(f.text))) for f in facts]
    wrong = []
    for fact, reply in zip(facts, bundled.reply(asks), strict=True):
        found = [(c.kind, c.text) for c in judgements.read_deconstruct(reply).components]
        if found != [(fact.kind, fact.text)]:
            wrong.append((fact.text, found))
    assert len(wrong) <= 1, wrong  # of sixteen
