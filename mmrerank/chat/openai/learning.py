"""One question's way through a server's refusals: what is tried next, until it passes or nothing is left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mmrerank.chat.openai.amounts import size_limits
from mmrerank.chat.openai.dialect import Dialect
from mmrerank.chat.openai.failures import Complaint
from mmrerank.errors import FailureKind

_OWN: tuple[FailureKind, ...] = ("context", "content_filter", "no_images", "too_many_images")
"""Complaints that no plainer request mends."""
_AGAIN = re.compile(r"(?i)please (re-?try|try again)|try (it )?again|temporar")
_MOST_TRIES = 24

_SENT_AS = {
    "temperature": "temperature", "schema": "response_format", "stream": "stream", "usage": "stream_options",
    "chooses": "structured_outputs", "by_id": "logprob_token_ids",
}  # fmt: skip
"""What a part of a dialect is called in a request, where the name could stand in other sentences too."""
_WORDS_FOR = {
    "temperature": "temperature", "stream": "stream(?:ing)?", "stream_options": "stream[_ ]options",
    "structured_outputs": "structured[_ ]outputs?", "logprob_token_ids": "logprob[_ ]token[_ ]ids",
    "response_format": r"response[_ ]format|json|structured[_ ]outputs?|grammar|(?:json[_ ])?schema",
}  # fmt: skip
_IN_PROSE = {
    name: re.compile(rf"(?i)\bthe (?:{words}) (?:of|in|at|on|from|is|was)\b")
    for name, words in _WORDS_FOR.items()
}


class Trial:
    """The dialects that one question is put in, one after the other. ``dialect`` is the one to use next."""

    def __init__(self, known: Dialect) -> None:
        self.known = self.dialect = known
        self._seen: list[Dialect] = [known]
        self._before: tuple[Dialect, Mapping[str, Any]] | None = None
        self._last = ""
        self._repeated = False

    def goes_on(self, complaint: Complaint, request: Mapping[str, Any], accepted: frozenset[str]) -> bool:
        """Whether there is something to try after ``complaint`` about ``request``.

        ``accepted`` are fields that the server has answered before: an unsaid complaint is not about those.
        """
        if complaint.kind in _OWN or len(self._seen) > _MOST_TRIES:
            return False
        text = complaint.whole
        if (sized := self._sized(text)) is not None:
            return self._take(sized, request, text)
        found = [d for d in self.dialect.named(text, request) if d not in self._seen]
        if found and self._before is not None and text == self._last:
            # what was left out made no difference, so that it was not what the server minds
            before, earlier = self._before
            others = [d for d in before.named(text, earlier) if d not in self._seen]
            further = [d for d in found if _changed(self.dialect, d) & _changed(before, self.dialect)]
            if not further and others:
                self.dialect, request, found = before, earlier, others
            elif further:
                found = further
        if found:
            if not self._repeated and _doubtful(complaint, _changed(self.dialect, found[0]), accepted):
                self._repeated = True  # the words may mean something else, and then it passes as it is
                return True
            return self._take(found[0], request, text)
        if complaint.kind in ("image", "too_large"):
            return self._once_more(text)
        suspects = [(n, d) for n, d in self.dialect.suspects(request) if n not in accepted]
        if not suspects:
            return self._once_more(text)
        if not self._repeated:  # it may pass by itself: then nothing was the matter with a field
            self._repeated = True
            return True
        return self._take(suspects[0][1], request, text)

    def _once_more(self, text: str) -> bool:
        again = not self._repeated and _AGAIN.search(text) is not None
        self._repeated = True
        return again

    def _take(self, dialect: Dialect, request: Mapping[str, Any], text: str) -> bool:
        self._before, self._last = (self.dialect, request), text
        self.dialect = dialect
        self._seen.append(dialect)
        return True

    def _sized(self, text: str) -> Dialect | None:
        """A dialect within the sizes that a complaint names, where they are closer than those so far."""
        if not re.search(r"(?i)image|picture|photo|height|width|dimension|payload|data-uri|media", text):
            return None
        named, now = size_limits(text), self.dialect
        if now.least_side < named.least_side <= 1024:
            return replace(now, least_side=named.least_side)
        if named.most_side >= now.least_side and not 0 < now.most_side <= named.most_side:
            return replace(now, most_side=named.most_side)
        if named.most_bytes >= 1024 and not 0 < now.most_bytes <= named.most_bytes:
            return replace(now, most_bytes=named.most_bytes)
        return None


def _doubtful(complaint: Complaint, changes: set[str], accepted: frozenset[str]) -> bool:
    """Whether a complaint that holds a field's name may not be about the field.

    The server took the field before; or it speaks of a picture; or the name is a word in a sentence.
    """
    known = {_SENT_AS[name] for name in changes if name in _SENT_AS}
    if not known:
        return False
    prose = any(_IN_PROSE[name].search(complaint.whole) for name in known)
    return complaint.kind == "image" or known <= accepted or prose


def _changed(one: Dialect, other: Dialect) -> set[str]:
    return {name for name, value in vars(other).items() if value != vars(one)[name]}
