"""The values everything speaks in: images, queries, candidates, rankings, explanations, usage.

Pure data: frozen, keyword-only, no model, no I/O beyond reading an image's bytes. A bare string is always
text, never a path in disguise; a path is a `pathlib.Path` or an `Image`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from mmrerank.errors import QueryError
from mmrerank.left_out import LeftOut as LeftOut
from mmrerank.limits import check_words, term_weight
from mmrerank.plain_files import open_plain

ComponentKind = Literal["subject", "activity", "detail", "environment", "ambience", "exclusion", "count"]
COMPONENT_KINDS: tuple[ComponentKind, ...] = (
    "subject", "activity", "detail", "environment", "ambience", "exclusion", "count",
)  # fmt: skip
VerdictName = Literal["met", "partly", "missed", "cannot_tell"]
VERDICTS: tuple[VerdictName, ...] = ("met", "partly", "missed", "cannot_tell")
MAX_GRADE = 3
"""Grades run from 0 (unrelated) to 3 (every part of the query is met)."""


_PATH, _BYTES = Path | None, bytes | None  # made once: there may be millions of images


def _typed(what: str, value: object, kinds: Any, words: str) -> None:
    if not isinstance(value, kinds):
        raise QueryError(f"{what} is {words}, not {type(value).__name__}")


@dataclass(frozen=True, kw_only=True)
class Image:
    """Where an image is. Its bytes are read when asked for, its pixels by `mmrerank.images.decode`.

    Exactly one of ``path`` and ``data`` is set. ``offset`` and ``length`` (bytes) select a span of
    ``path``, such as a member of a tar shard. ``sha256`` (hex, of the encoded bytes), ``width`` and
    ``height`` (pixels, after orientation) are filled in where they are known. ``url`` is where ``data`` came
    from; ``problem`` says why it could not be had, and is what reading raises.

    >>> Image(data=b"the bytes of a file").digest[:8]
    '0f599b94'
    """

    path: Path | None = None
    offset: int | None = None
    length: int | None = None
    data: bytes | None = field(default=None, repr=False)
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    url: str = ""
    problem: str = ""

    def __post_init__(self) -> None:
        _typed("an image's path", self.path, _PATH, "a pathlib.Path")
        _typed("an image's data", self.data, _BYTES, "bytes")
        if (self.path is None) == (self.data is None):
            raise ValueError("an Image has either a path or data, and not both")

    def read(self) -> bytes:
        """The encoded bytes. Raises `OSError` when the file cannot be read, or is a pipe or a device."""
        if self.problem:
            raise OSError(self.problem)
        if self.data is not None:
            return self.data
        assert self.path is not None
        with open_plain(self.path) as file:
            if self.offset:
                file.seek(self.offset)
            return file.read() if self.length is None else file.read(max(self.length, 0))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the encoded bytes, in hex; the content's identity."""
        return self.sha256 or hashlib.sha256(self.read()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Term:
    """Words or an image that are added to a query, or with a negative ``weight`` taken away.

    The weight counts beside the query's own words and images, which weigh 1 together.

    >>> Query(text="a horse", terms=(Term(text="stripes"), Term(text="grass", weight=-2))).terms[1].weight
    -2.0
    """

    text: str = ""
    image: Image | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        _typed("a term's text", self.text, str, "text")
        _typed(
            "a term's image", self.image, Image | None, "a mmrerank.Image (search(plus=...) takes paths, too)"
        )
        if bool(self.text.strip()) == (self.image is not None):
            raise QueryError("a term has either a text or an image, and not both")
        object.__setattr__(self, "weight", term_weight(self.weight))


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is looked for: words, images, words that must not apply, and earlier turns of a dialogue.

    ``terms`` are added and taken away (`mmrerank.arithmetic`). Raises `QueryError` (a `ValueError`) for more
    than `mmrerank.limits` allows and for what is no text.

    >>> Query(text="and a ball", turns=("a dog",), exclude=("people",)).kind
    'dialogue'
    """

    text: str = ""
    images: tuple[Image, ...] = ()
    exclude: tuple[str, ...] = ()
    turns: tuple[str, ...] = ()
    instruction: str = ""
    id: str = ""
    terms: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        for name in ("images", "exclude", "turns", "terms"):
            _typed(f"a query's {name}", vars(self)[name], tuple | list, "a tuple")
        for term in self.terms:
            _typed("a query's term", term, Term, "a mmrerank.Term")
        for image in self.images:
            _typed("a query's image", image, Image, "a mmrerank.Image (search(images=...) takes paths, too)")
        words = {"text": (self.text,), "exclude": self.exclude, "turns": self.turns, "id": (self.id,)}
        # a method reads them with the words, a comma and a blank between
        words |= {"instruction": (self.instruction,), "terms": tuple(f", {t.text}" for t in self.terms)}
        check_words(words, len(self.images) + sum(t.image is not None for t in self.terms))
        if not (self.text.strip() or self.images or any(t.strip() for t in self.turns)):
            raise ValueError("a query needs a text, an image or a dialogue turn")

    @property
    def kind(self) -> Literal["text", "image", "composed", "dialogue"]:
        """Dialogue when there are earlier turns; composed when there are words beside an image."""
        if self.turns:
            return "dialogue"
        if self.images:
            return "composed" if self.text.strip() else "image"
        return "text"

    @property
    def words(self) -> str:
        """Every word of the query in their order, as one line: what an embedder or a list can show."""
        return ", ".join(t.strip() for t in (*self.turns, self.text) if t.strip())


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Something that can be ranked: an image, a text, or both, with its first-stage score.

    >>> Candidate(id="boat", image=Image(path=Path("boat.jpg")), score=0.31).id
    'boat'
    """

    id: str
    image: Image | None = None
    text: str | None = None
    score: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _typed("a candidate's id", self.id, str, "text")
        _typed("a candidate's text", self.text, str | None, "text")
        _typed("a candidate's image", self.image, Image | None, "a mmrerank.Image (a dictionary takes paths)")
        _typed("a candidate's metadata", self.metadata, Mapping, "a mapping")
        if self.image is None and self.text is None:
            raise ValueError(f"candidate {self.id!r} has neither an image nor a text")


@dataclass(frozen=True, kw_only=True)
class Component:
    """One part of a query. For an exclusion (``excluded``) the requirement is that it does not appear.

    >>> Component(id="c2", kind="exclusion", text="no people").excluded
    True
    """

    id: str
    kind: ComponentKind
    text: str

    @property
    def excluded(self) -> bool:
        """True when the image must *not* show this."""
        return self.kind == "exclusion"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How one image stands to one component; ``note`` says what was seen."""

    component: str
    verdict: VerdictName
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """A model's judgement of one candidate."""

    grade: int | None = None
    verdicts: tuple[Verdict, ...] = ()
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why an order is what it is: components, assessments by candidate id, and a reason for the whole.

    ``scores`` are the method's own numbers by candidate id, higher is better, equal where it found no
    difference. ``relevance`` is the same for a person: 0 to 1, and never higher further down. Both lack
    candidates that the method says nothing about; a method without numbers leaves them empty.

    >>> Explanation(assessments={"boat": Assessment(grade=2)}).no_match
    True
    """

    components: tuple[Component, ...] = ()
    assessments: Mapping[str, Assessment] = field(default_factory=dict)
    reason: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    relevance: Mapping[str, float] = field(default_factory=dict)

    @property
    def no_match(self) -> bool:
        """True when images were graded and none of them met every part of the query."""
        grades = [a.grade for a in self.assessments.values() if a.grade is not None]
        return bool(grades) and max(grades) < MAX_GRADE


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What the calls cost. ``seconds`` is wall time spent waiting for the model. Values add up."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    images: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: value + vars(other)[name] for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Repairs:
    """What had to be mended or given up. Counts add up; all zero means every reply was taken as it came.

    ``failed`` judgements gave no information (the first-stage order stands there); ``repaired`` ones were
    usable after mending; ``written`` ones were asked for again as text, since the labels held too little of
    the probability; ``unknown``, ``repeated`` and ``missing`` count ids in replies that order.
    """

    failed: int = 0
    repaired: int = 0
    unknown: int = 0
    repeated: int = 0
    missing: int = 0
    written: int = 0

    def __add__(self, other: Repairs) -> Repairs:
        return Repairs(**{name: value + vars(other)[name] for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Questions that gave nothing: the kind of failure, how one of them failed in words, and how many.

    ``outside`` is true where the cause lies outside of the questions, such as a server that is gone.

    >>> Failure(kind="timeout", example="vl at localhost gave no answer within 120 s", count=2).text
    'vl at localhost gave no answer within 120 s (2 questions)'
    """

    kind: str
    example: str
    count: int = 1
    outside: bool = False

    @property
    def text(self) -> str:
        """The example, and how many there are."""
        return self.example if self.count == 1 else f"{self.example} ({self.count} questions)"


@dataclass(frozen=True)
class Ranking:
    """Candidates in order, each id once. The rank is the position (the first is rank 1).

    >>> ranking = Ranking(tuple(Candidate(id=i, text="") for i in "abc"))
    >>> ranking.reorder(["c", "z", "a"])[0].ids
    ('c', 'a', 'b')
    """

    candidates: tuple[Candidate, ...]

    def __post_init__(self) -> None:
        _typed("a ranking's candidates", self.candidates, tuple | list, "a tuple")
        for candidate in self.candidates:
            _typed("a ranking's candidate", candidate, Candidate, "a mmrerank.Candidate")
        if len(set(self.ids)) != len(self.candidates):
            seen: set[str] = set()
            twice = next(i for i in self.ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise ValueError(f"candidate id {twice!r} occurs more than once in a ranking")

    @property
    def ids(self) -> tuple[str, ...]:
        """The candidates' ids, best first."""
        return tuple(c.id for c in self.candidates)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)

    def __len__(self) -> int:
        return len(self.candidates)

    def reorder(self, ids: Iterable[str]) -> tuple[Ranking, Repairs]:
        """The same candidates in the order of ``ids``: the only place where an answer becomes a ranking.

        Law: the result is a permutation of ``self``, whatever ``ids`` holds. Unknown ids and repetitions
        are dropped (the first mention counts); missing ids follow at the end in their old order. The
        second value says how much was mended.
        """
        by_id = {c.id: c for c in self.candidates}
        order: dict[str, Candidate] = {}
        unknown = repeated = 0
        for id_ in ids:
            if id_ not in by_id:
                unknown += 1
            elif id_ in order:
                repeated += 1
            else:
                order[id_] = by_id[id_]
        missing = [c for c in self.candidates if c.id not in order]
        repairs = Repairs(unknown=unknown, repeated=repeated, missing=len(missing))
        return Ranking((*order.values(), *missing)), repairs

    def with_head(self, head: Ranking) -> Ranking:
        """A ranking with ``head`` in front: its order, what it found besides included, then the rest.

        >>> a, b, c, d = (Candidate(id=i, text="") for i in "abcd")
        >>> Ranking((a, b, c)).with_head(Ranking((d, b))).ids
        ('d', 'b', 'a', 'c')
        """
        known = set(self.ids)
        found = (c for c in head if c.id not in known)
        return Ranking((*self.candidates, *found)).reorder(head.ids)[0]


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One line of a result. ``score`` is the first stage's; ranks start at 1.

    ``relevance`` (0 to 1, never higher further down a ranking) is the method's; None where it has none.
    ``first_rank`` is None for an image that a method found beyond the first candidates. ``problem`` says why
    its picture cannot be shown or is another one by now; empty when all is well. ``duplicates`` are ids of
    copies that it stands for, best first, where a search was asked to collapse them.

    >>> Hit(candidate=Candidate(id="boat", text="a boat", score=0.3), rank=1, first_rank=4).score
    0.3
    """

    candidate: Candidate
    rank: int
    first_rank: int | None
    assessment: Assessment | None = None
    problem: str = ""
    relevance: float | None = None
    duplicates: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The candidate's id."""
        return self.candidate.id

    @property
    def score(self) -> float | None:
        """First-stage score, or None where there was none (or it was not a number)."""
        score = self.candidate.score
        return None if score is None or math.isnan(score) else float(score)
