"""One bad picture costs one place: around any method, so that no method knows of it.

A picture that cannot be shown, or that the server refuses, spoils every question that shows it. Here it is
found, left out, and the method begins again without it; what was answered already is not asked again. It
keeps its first-stage place, and the outcome says why. A picture is looked at here only after a question
failed over one. A group that the server refuses is halved until the bad ones are found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmrerank.errors import ChatError, ImageError, InputError
from mmrerank.images import decode
from mmrerank.messages import Ask, Message, Part, Reply, Retrieve
from mmrerank.ports import Judging, Outcome
from mmrerank.types import Assessment, Candidate, Image, Query, Ranking, Repairs

SHOWING = "image"
"""The kind of failure that says that a picture cannot be shown."""
PROBE = "probe"
"""The kind of a question that only shows which picture is refused: its reply is no judgement."""
REFUSING = frozenset({SHOWING, "content_filter", "refusal", "bad_request", "forbidden"})
"""Kinds of failures that one picture of a question may cause."""
PLAIN = frozenset({SHOWING, "content_filter"})
"""Kinds that blame a picture by themselves, where a question shows only one."""
_IN_VAIN = 2  # searches without a culprit after which no more are made
_WORDS = 32  # tokens of a probe: enough to hear a refusal
_ALL = 4  # pictures refused, none accepted: it is the words, or all pictures


@dataclass(kw_only=True)
class Searches:
    """What the searches of one run have shown, so that a server that refuses everything is not searched."""

    in_vain: int = 0
    refused: set[Image] = field(default_factory=set)
    """Pictures that were found to be refused: the first suspects of the next question."""


def spared(
    rank: Callable[[Query, Ranking], Judging], query: Query, ranking: Ranking, searches: Searches
) -> Judging:
    """``rank(query, ranking)``, begun again without each picture that turns out to be bad.

    Raises `InputError` when a reference image of the query cannot be shown.
    """
    work = _Work(query=query, known={c.id: c for c in ranking}, searches=searches)
    while True:
        left = work.left_out
        kept = Ranking(tuple(c for c in ranking if c.id not in left)) if left else ranking
        if left and len(kept) < 2:
            outcome: Outcome | None = Outcome(ranking=kept)
        else:
            outcome = yield from work.attempt(rank(query, kept))
        if outcome is not None:
            return in_places(outcome, ranking, left) if left else outcome


def in_places(outcome: Outcome, ranking: Ranking, left_out: dict[str, str]) -> Outcome:
    """``outcome`` with the candidates that were left out, each at the place it has in ``ranking``."""
    order = list(outcome.ranking.candidates)
    for place, candidate in enumerate(ranking):
        if candidate.id in left_out:
            order.insert(place, candidate)
    told = {i: Assessment(reason=f"left out: {why}") for i, why in left_out.items()}
    explanation = outcome.explanation
    return replace(
        outcome,
        ranking=Ranking(tuple(order)),
        explanation=replace(explanation, assessments={**told, **explanation.assessments}),
        repairs=outcome.repairs + Repairs(failed=len(left_out)),
        left_out=left_out,
    )


@dataclass(kw_only=True)
class _Work:
    query: Query
    known: dict[str, Candidate]
    searches: Searches
    left_out: dict[str, str] = field(default_factory=dict)
    heard: dict[Any, list[Reply]] = field(default_factory=dict)
    """What was answered, for a second start."""
    sound: set[str] = field(default_factory=set)
    """Candidates whose pictures were in a question that was answered."""

    def attempt(self, judging: Judging) -> Generator[list[Ask], list[Reply], Outcome | None]:
        """Its outcome; None where a picture has to be left out first."""
        heard = {key: list(replies) for key, replies in self.heard.items()}
        replies: list[Reply] | None = None
        while True:
            try:
                asks = judging.send(replies)  # type: ignore[arg-type] # None starts a generator
            except StopIteration as stop:
                outcome: Outcome = stop.value
                return outcome
            again = [_again(heard, ask) for ask in asks]
            new = [ask for ask, reply in zip(asks, again, strict=True) if reply is None]
            fresh = iter((yield new) if new or not asks else ())
            replies = [next(fresh) if reply is None else reply for reply in again]
            replies = [self._without(reply) for reply in replies]
            if (yield from self._bad(asks, replies)):
                self._keep(asks, replies, states=True)
                judging.close()
                return None
            self._keep(new, [r for r, before in zip(replies, again, strict=True) if before is None])

    def _without(self, reply: Reply) -> Reply:
        """``reply`` without images that were found and are left out."""
        self.known.update({c.id: c for c in reply.found if c.id not in self.known})
        if not any(c.id in self.left_out for c in reply.found):
            return reply
        return replace(reply, found=tuple(c for c in reply.found if c.id not in self.left_out))

    def _keep(self, asks: Sequence[Ask], replies: Sequence[Reply], *, states: bool = False) -> None:
        for ask, reply in zip(asks, replies, strict=True):
            # token embeddings of a whole list are large: kept of the round that failed alone
            if reply.error is None and (states or not reply.states):
                self.heard.setdefault(_key(ask), []).append(reply)

    # ------------------------------------------------------------ who is to blame

    def _bad(self, asks: Sequence[Ask], replies: Sequence[Reply]) -> Generator[list[Ask], list[Reply], bool]:
        """Adds to ``left_out`` the candidates over whose pictures questions failed; whether there are any."""
        before = len(self.left_out)
        failed: list[tuple[Ask, ChatError]] = []
        for ask, reply in zip(asks, replies, strict=True):
            if reply.error is None:
                self.sound.update(self.pictured(ask))
            elif reply.error.kind in REFUSING:
                failed.append((ask, reply.error))
        for ask, error in failed:
            if error.kind == SHOWING:
                self._look(ask)
        for ask, error in failed:
            shown = self.pictured(ask)
            if self.left_out.keys() & set(shown):
                continue  # that explains it
            suspects = [i for i in shown if i not in self.sound]
            if len(shown) == 1 and not self.query.images:
                if error.kind in PLAIN or self.sound:  # the same words passed with other pictures
                    self.left_out[shown[0]] = str(error)
            elif suspects and self.searches.in_vain < _IN_VAIN:
                found = yield from _Search(work=self, ask=ask, suspects=suspects, why=str(error)).found()
                self.searches.in_vain = 0 if found else self.searches.in_vain + 1
                self.left_out |= found
        return len(self.left_out) > before

    def _look(self, ask: Ask) -> None:
        """Decodes what ``ask`` shows. Raises `InputError` for a reference image."""
        for image in self.query.images:
            if why := unshowable(image):
                name = f"query {self.query.id!r}: " if self.query.id else ""
                raise InputError(f"{name}its reference image{_place(image)} cannot be shown: {why}")
        for id_ in self.pictured(ask):
            shown = self.known[id_].image
            looked_at = id_ in self.sound or id_ in self.left_out
            if shown is not None and not looked_at and (why := unshowable(shown)):
                self.left_out[id_] = f"its image{_place(shown)} cannot be shown: {why}"

    def pictured(self, ask: Ask) -> list[str]:
        """Ids of the candidates whose pictures stand in ``ask``."""
        images = [p.image for m in ask.messages for p in m.parts if p.image is not None]
        found = [self.known[i] for i in ask.shown if i in self.known]
        return [c.id for c in found if c.image is not None and c.image in images]


@dataclass(kw_only=True)
class _Search:
    """Looks for the pictures over which a question is refused, with at most two probes for each."""

    work: _Work
    ask: Ask
    suspects: Sequence[str]
    why: str
    accepted: int = 0
    culprits: list[str] = field(default_factory=list)
    over: bool = False

    def found(self) -> Generator[list[Ask], list[Reply], dict[str, str]]:
        """Why they are left out, by id; nothing where no picture is to blame."""
        refused = self.work.searches.refused
        known = [i for i in self.suspects if self.work.known[i].image in refused]
        if known and len(known) < len(self.suspects):
            yield from self._split(known, [i for i in self.suspects if i not in known])
        else:
            yield from self._halved(self.suspects, tried=True)
        # where nothing passes with the same words, they may be refused as well
        if self.over or not (self.accepted or self.work.sound):
            return {}
        refused.update(i for c in self.culprits if (i := self.work.known[c].image) is not None)
        return dict.fromkeys(self.culprits, f"refused: {self.why}")

    def _halved(self, group: Sequence[str], *, tried: bool) -> Generator[list[Ask], list[Reply], None]:
        """Adds the culprits of ``group``, which is refused: as was ``tried``, or as follows."""
        if self.over or (len(self.culprits) >= _ALL and not self.accepted):
            return  # hopeless
        if len(group) == 1:
            # one that only follows may be innocent: a refusal that came and went, or several together
            if (tried and len(self.suspects) > 1) or (yield from self._refused(group)):
                self.culprits.append(group[0])
            return
        yield from self._split(group[: len(group) // 2], group[len(group) // 2 :])

    def _split(self, first: Sequence[str], second: Sequence[str]) -> Generator[list[Ask], list[Reply], None]:
        """`_halved` of both halves of a group that is refused."""
        if not (yield from self._refused(first)):
            yield from self._halved(second, tried=False)
            return
        yield from self._halved(first, tried=True)
        if (yield from self._refused(second)):
            yield from self._halved(second, tried=True)

    def _refused(self, group: Sequence[str]) -> Generator[list[Ask], list[Reply], bool]:
        """Whether the question is refused with the pictures of ``group`` alone."""
        if self.over:
            return False
        (reply,) = yield [self._probe(group)]
        if reply.error is None or reply.error.kind not in REFUSING:
            # no answer at all says nothing about pictures
            self.over = reply.error is not None and (reply.error.systemic or reply.error.retryable)
            self.over = self.over or (reply.error is not None and reply.error.kind == "budget")
            self.accepted += 1
            return False
        return True

    def _probe(self, group: Sequence[str]) -> Ask:
        known = self.work.known
        hidden = {i for i in self.work.pictured(self.ask) if i not in group}
        out = [image for i in hidden if (image := known[i].image) is not None]
        messages = tuple(
            Message(role=m.role, parts=tuple(_hidden(p, out) for p in m.parts)) for m in self.ask.messages
        )
        return replace(
            self.ask, messages=messages, kind=PROBE, max_tokens=_WORDS, think=False, useful=None, says=None
        )


def _hidden(part: Part, out: Sequence[Image]) -> Part:
    return Part(text="(left out)") if part.image is not None and part.image in out else part


def unshowable(image: Image) -> str:
    """Why ``image`` cannot be shown; empty where it can."""
    try:
        decode(image)
    except ImageError as error:
        return str(error)
    return ""


def _place(image: Image) -> str:
    return "" if image.path is None else f" {str(image.path)!r}"


def _key(ask: Ask) -> Any:
    """What two questions have in common that are the same question."""
    if isinstance(ask, Retrieve):
        return (ask.kind, ask.query, ask.shown, ask.k, tuple(ask.toward.items()))
    schema = json.dumps(ask.schema, default=list, sort_keys=True)
    sampling = (ask.max_tokens, ask.temperature, ask.image_tokens, ask.think)
    return (ask.kind, ask.messages, ask.choices, ask.read, schema, sampling)


def _again(heard: dict[Any, list[Reply]], ask: Ask) -> Reply | None:
    """What ``ask`` was answered before; several that are the same in turn."""
    if not heard:
        return None
    replies = heard.get(_key(ask))
    if not replies:
        return None
    return replies.pop(0) if len(replies) > 1 else replies[0]
