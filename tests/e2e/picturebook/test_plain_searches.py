"""The searches that people type first ("a red boat") are decomposed exactly by the bundled model.

`mmrerank eval demo` asks longer ones only, so that nothing there would show it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mmrerank.chat.open import open_chat
from mmrerank.picturebook.facts import CountFact, Fact, Noun, SubjectFact, UnknownFact
from mmrerank.picturebook.words import EVALUATION
from mmrerank.picturebook.world import COLOURS, KINDS
from mmrerank.ports import Chat
from mmrerank.rerank import judgements, prompting
from mmrerank.types import Query

THINGS = [Noun(kind=k) for k in KINDS]
COLOURED = [Noun(kind=k, colour=COLOURS[n % len(COLOURS)]) for n, k in enumerate(KINDS)]


@pytest.fixture(scope="module")
def bundled() -> Chat:
    return open_chat("bundled")


def decomposed(chat: Chat, texts: Sequence[str]) -> list[list[tuple[str, str]]]:
    with prompting.profile(chat.prompts):
        asks = [judgements.deconstruct(Query(text=text)) for text in texts]
    replies = chat.reply(asks)
    read = [judgements.read_deconstruct(reply).components for reply in replies]
    return [[(c.kind, c.text) for c in components] for components in read]


def wrong(chat: Chat, facts: Sequence[Fact], words: str) -> list[tuple[str, list[tuple[str, str]]]]:
    found = decomposed(chat, [words.format(f.text) for f in facts])
    return [(f.text, got) for f, got in zip(facts, found, strict=True) if got != [(f.kind, f.text)]]


@pytest.mark.parametrize("words", ["{}", "show me {}", "{} please"])
@pytest.mark.parametrize("nouns", [THINGS, COLOURED], ids=["things", "coloured"])
def test_one_thing_is_taken_for_one(bundled: Chat, nouns: list[Noun], words: str) -> None:
    missed = wrong(bundled, [SubjectFact(noun=n) for n in nouns], words)
    assert len(missed) <= 1, missed  # of sixteen


@pytest.mark.parametrize("words", ["{}", "show me {}"])
@pytest.mark.parametrize("nouns", [THINGS, COLOURED], ids=["things", "coloured"])
def test_a_number_is_taken_for_a_number(bundled: Chat, nouns: list[Noun], words: str) -> None:
    facts = [CountFact(noun=noun, count=2 + n % 3) for n, noun in enumerate(nouns)]
    missed = wrong(bundled, facts, words)
    assert len(missed) <= 1, missed  # of sixteen


def test_a_word_from_outside_is_not_read_as_a_thing_of_the_book(bundled: Chat) -> None:
    texts = [UnknownFact(word=word).text for word in EVALUATION]
    read = [
        (text, parts)
        for text, parts in zip(texts, decomposed(bundled, texts), strict=True)
        if any(word in KINDS for _, part in parts for word in part.split())
    ]
    assert len(read) <= len(texts) / 10, read
