"""One exercise of the bundled multimodal model: what is asked, what to reply, and what it is to know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mmrerank.messages import Message
from mmrerank.picturebook.facts import Noun
from mmrerank.picturebook.training.vlm_named import Named
from mmrerank.picturebook.world import Scene

# what a reply is there for, by task: each match's first group counts more than the words around it
COUNTS: Mapping[str, re.Pattern[str]] = {
    "deconstruct": re.compile(r'"text":"([^"]*)'),
    "find": re.compile(r"(?<=: )([^;]+)(?=;|$)"),
    "tell": re.compile(r"(?<=: )([^;]+)(?=;|$)"),
    "evaluate": re.compile(r'"verdict":"(\w+)|"note":"[^:"]*: ([^"]*)'),
    "order": re.compile(r'(?<=":)(\d)|(?<="reason":")(\w)|(?<="reason":"\w )(\w+)|(?<=closest: )(\d)'),
    "score": re.compile(r"(yes|no)"),
    "prefer": re.compile(r"(\w)"),
    "pick": re.compile(r"(\w)"),
    "grade": re.compile(r'"grade":(\d+)'),
}


@dataclass(frozen=True, kw_only=True)
class Example:
    """One exercise: an ask, the reply it should get, and the scenes behind its images, in order.

    ``given`` are pieces of the reply, in order, that stand there without having to be learnt. ``fits``
    say of the last images, or of rows of text in their place, how far each shows what is asked for;
    ``nouns`` are what is asked for there, with whether it is unwanted. ``named`` are the words for things
    in the reply, with what the picture shows of them, ``again`` those in the last part of the prompt.
    Where the reply is one letter, ``chances`` are the probabilities that the images' letters are to have.
    """

    task: str
    messages: tuple[Message, ...]
    reply: str
    scenes: tuple[int | Scene, ...]
    given: tuple[str, ...] = ()
    fits: tuple[tuple[float, ...], ...] = ()
    nouns: tuple[tuple[Noun, bool], ...] = ()
    named: tuple[Named, ...] = ()
    again: tuple[Named, ...] = ()
    chances: tuple[float, ...] = ()

    @property
    def counts(self) -> tuple[tuple[int, int], ...]:
        """Where in the reply the words are that it is there for."""
        pattern = COUNTS.get(self.task)
        return tuple(m.span(m.lastindex or 0) for m in pattern.finditer(self.reply)) if pattern else ()
