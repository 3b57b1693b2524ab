"""What is sent to a language model and what comes back: pure values, no backend.

An `Ask` is one judgement asked for. Its second half (from ``kind`` on) exists for fakes and traces
only: a real backend gives the same reply without it, and a test holds it to that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmrerank.errors import ChatError
from mmrerank.types import (
    Assessment,
    Candidate,
    Component,
    Explanation,
    Image,
    Query,
    Ranking,
    Repairs,
    Usage,
)

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of a message: either text or an image."""

    text: str | None = None
    image: Image | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.image is None):
            raise ValueError("a Part is either text or an image")


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn: a role and its interleaved parts."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text parts joined, with ``[image]`` where an image stands: for traces and golden files."""
        return "".join("[image]" if p.text is None else p.text for p in self.parts)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One question to a model.

    ``schema`` is the JSON schema the reply must follow. With ``choices`` set, no text is generated:
    the reply carries the log-probability of each choice as the next token, normalised over the choices
    (capability ``choice_logprobs``); otherwise text of at most ``max_tokens`` tokens (``generate``).
    ``image_tokens`` bounds the visual tokens of each image. With ``read`` set, neither is wanted but the
    model's hidden states after reading the messages; see `Reply.states`. With ``think``, the model first
    writes at most ``max_tokens`` tokens of thoughts (they come back as the text), and the choices are read
    after those: that takes ``generate`` as well; without choices, a model that thinks may think. ``useful``
    says whether a reply without an error answers the question, so that nothing else is kept as its answer;
    ``says`` tells what a reply says of single images, for events. The driver sets both where it knows the
    ``kind``. A choice is all its spellings together (yes, Yes, `` yes``; `mmrerank.chat.labels`), or with
    ``exact`` only its own: so mean models that were trained to score by one token.

    >>> said = Message(role="user", parts=(Part(text="Is this a boat? Answer yes or no."),))
    >>> Ask(messages=(said,), choices=("yes", "no")).needs
    'choice_logprobs'
    """

    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None = None
    choices: tuple[str, ...] = ()
    max_tokens: int = 1024
    temperature: float = 0.0
    image_tokens: int = 256
    read: Literal["", "attention", "embed", "token_embeddings"] = ""
    think: bool = False
    exact: bool = False

    kind: str = ""
    query: Query | None = None
    shown: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    components: tuple[Component, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    useful: Callable[[Reply], bool] | None = field(default=None, compare=False, repr=False)
    says: Callable[[Reply], Said] | None = field(default=None, compare=False, repr=False)

    @property
    def needs(self) -> str:
        """The capability this question takes."""
        return self.read or ("choice_logprobs" if self.choices else "generate")

    @property
    def transcript(self) -> str:
        """The question as text, for traces."""
        return "\n\n".join(f"{m.role}: {m.text}" for m in self.messages)

    def stripped(self) -> Ask:
        """The same question without what only fakes and traces may read."""
        return replace(
            self, kind="", query=None, shown=(), labels=(), components=(), details={}, useful=None, says=None
        )

    def digest(self) -> str:
        """SHA-256 over everything that can change a real backend's reply: text, pixels, schema, sampling."""
        body = {
            "messages": [
                [m.role, [p.text if p.image is None else {"sha256": p.image.digest} for p in m.parts]]
                for m in self.messages
            ],
            "schema": self.schema,
            "choices": self.choices,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "image_tokens": self.image_tokens,
            # questions that were kept before there was anything else to read keep their digest
            **({"read": self.read} if self.read else {}),
            **({"think": True} if self.think else {}),
            # an answer of before, when only the label's own spelling counted, is no answer to this
            **({"exact": self.exact} if self.choices else {}),
        }
        return hashlib.sha256(json.dumps(body, sort_keys=True, default=list).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Room:
    """What one question to a model may hold, as far as that is known; 0 is not known.

    ``images`` that it shows, ``tokens`` that are read and written together. ``auto`` says by name what
    options that are left at ``auto`` mean for this model. A ``brief`` model writes a few words where others
    write sentences, and gets that much room for its replies.

    >>> Room(images=8).holds(Ask(messages=()))
    True
    """

    images: int = 0
    tokens: int = 0
    auto: Mapping[str, str] = field(default_factory=dict)
    brief: bool = False

    def holds(self, ask: Ask) -> bool:
        """Whether ``ask`` fits: three bytes of text are taken for a token, each image for its budget."""
        parts = [p for m in ask.messages for p in m.parts]
        images = sum(p.image is not None for p in parts)
        text = sum(len(p.text.encode("utf-8", "replace")) for p in parts if p.text)
        tokens = text // _BYTES + images * ask.image_tokens + ask.max_tokens
        return not (0 < self.images < images or 0 < self.tokens < tokens)


_BYTES = 3
"""Bytes of a token in prompts: English takes four or five, Chinese three."""


@dataclass(frozen=True, kw_only=True)
class Ability:
    """Something that a model can do or not: ``why`` says what that rests on, in words for a person."""

    name: str
    on: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class Retrieve(Ask):
    """A question to the first stage instead of the model: which images lie nearest?

    The index is searched with the vector of ``query``, or, where ``toward`` is given, with
    ``norm(query + sum of weight * image)`` over the images it names (Rocchio). At most ``k`` images come
    back in `Reply.found`.
    """

    messages: tuple[Message, ...] = ()
    k: int = 20
    toward: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.query is None:
            raise ValueError("a Retrieve needs the query whose vector is searched with")

    @property
    def needs(self) -> str:
        """An index, which is no capability of a model."""
        return "retrieve"

    @property
    def transcript(self) -> str:
        """What is searched for, and how the search is moved."""
        words = self.query.words if self.query else ""
        moved = f", moved by {len(self.toward)} images" if self.toward else ""
        return f'search the index for {self.k} images: "{words}"{moved}'


@dataclass(frozen=True, kw_only=True)
class Scoring(Ask):
    """A question to a dedicated reranker, which has a prompt of its own: how well do candidates fit?

    ``messages``: an instruction as the system's turn (none: the model's own), then the query, then one turn
    for each candidate, images before words. `Reply.scores` has one number a candidate.
    """

    max_tokens: int = 1

    def __post_init__(self) -> None:
        if len(self._turns) < 2:
            raise ValueError("a Scoring needs a query and a candidate")

    @property
    def _turns(self) -> tuple[Message, ...]:
        return self.messages[1:] if self.instruction else self.messages

    @property
    def instruction(self) -> str:
        """What the model is told to look for; empty for what it was trained to."""
        first = self.messages[:1]
        return first[0].text if first and first[0].role == "system" else ""

    @property
    def asked(self) -> Query:
        """The query as the model is shown it."""
        parts = self._turns[0].parts
        return Query(text=_words(parts), images=tuple(p.image for p in parts if p.image is not None))

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates as the model is shown them; their ids are their places, from 1."""
        found = []
        for n, message in enumerate(self._turns[1:], start=1):
            image = next((p.image for p in message.parts if p.image is not None), None)
            text = _words(message.parts)
            found.append(Candidate(id=str(n), image=image, text=text if text or image is None else None))
        return tuple(found)

    @property
    def needs(self) -> str:
        """A dedicated reranker."""
        return "score"

    def digest(self) -> str:
        """As of any question, but never that of one to a chat."""
        return hashlib.sha256(f"score {super().digest()}".encode()).hexdigest()


def _words(parts: Iterable[Part]) -> str:
    return "".join(p.text for p in parts if p.text is not None)


@dataclass(frozen=True, kw_only=True)
class Stored(Retrieve):
    """Asks the first stage for vectors of its embedder: that of ``query``, and those of the images ``shown``.

    The images' are those that its index holds. The query is read after the images of ``group``, in one
    prompt, where there are any. With ``optional`` an empty reply says that there are none, and they are only
    wanted where the language model of this ranking is the index's embedder itself. They come back in
    `Reply.states`, the query's first.
    """

    group: tuple[Candidate, ...] = ()
    optional: bool = False

    @property
    def transcript(self) -> str:
        """What is asked for."""
        after = f", the query's read after {len(self.group)} images" if self.group else ""
        return f"the index's vectors of the query and of {len(self.shown)} images{after}"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back: text, log-probabilities by choice, states, scores, images, or an error. Never nothing.

    ``states`` by what was to be read: ``attention``: one array ``(tokens,)`` for each image of the prompt in
    order, the attention that its tokens get from the tokens of the last text part, averaged over those and
    summed over heads and layers; ``embed``: one unit vector ``(d,)``; ``token_embeddings``: one array
    ``(n, d)`` of unit rows, of the images' tokens or, without images, of the user's words.
    ``scores``: one number a candidate in answer to a `Scoring`, NaN where nothing is known; higher is better,
    from 0 to 1 or, with ``logits``, any numbers whose sigmoid is.
    ``found``: images of the first stage with their scores, best first, in answer to a `Retrieve`.
    ``mass``: log-probability of all choices together among all tokens, where the backend can tell; far below
    0, the model would rather have said something else. ``bounds``: the choices of which only that is known
    that they have at most the log-probability given. ``written``: the choice was read from a text, since the
    labels held too little of the probability; the driver's affair, not a backend's.
    ``notes``: what was assumed, left out or changed to get this reply, in words for a person.
    """

    text: str = ""
    logprobs: Mapping[str, float] = field(default_factory=dict)
    mass: float | None = None
    bounds: tuple[str, ...] = ()
    states: tuple[NDArray[np.float32], ...] = field(default=(), compare=False)
    scores: tuple[float, ...] = ()
    logits: bool = False
    found: tuple[Candidate, ...] = ()
    usage: Usage = field(default_factory=Usage)
    finish: Literal["stop", "length", "error"] = "stop"
    error: ChatError | None = None
    notes: tuple[str, ...] = ()
    written: bool = False


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one reply says, for who watches a ranking: a judgement or a number of images by id, higher is
    better, with its ``relevance`` from 0 to 1 where that is known; or the order of some, best first; and the
    parts of the query, where the reply names them.
    """

    judged: Mapping[str, Assessment | float] = field(default_factory=dict)
    relevance: Mapping[str, float] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    components: tuple[Component, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Step:
    """One question and its reply as they happened, for audits."""

    kind: str
    digest: str
    shown: tuple[str, ...]
    prompt: str
    reply: str
    logprobs: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    usage: Usage = field(default_factory=Usage)

    @staticmethod
    def of(ask: Ask, reply: Reply) -> Step:
        """Records ``ask`` and ``reply``. An ask whose image is gone has no digest."""
        try:
            digest = ask.digest()
        except OSError:
            digest = ""
        return Step(
            kind=ask.kind,
            digest=digest,
            shown=ask.shown,
            prompt=ask.transcript,
            reply=reply.text or " ".join([*(c.id for c in reply.found), *(f"{s:.6g}" for s in reply.scores)]),
            logprobs=reply.logprobs,
            error=str(reply.error or ""),
            usage=reply.usage,
        )


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Every step of one ranking, in order."""

    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a strategy returns: the order, why, and what had to be mended.

    ``ranking`` holds every candidate it was given, and those that a `Retrieve` found besides.
    ``left_out`` says by id why a candidate was in no question; the driver's affair, not a method's.
    ``notes`` are what a person should know of how the order was found, such as that pictures were left out.
    """

    ranking: Ranking
    explanation: Explanation = field(default_factory=Explanation)
    repairs: Repairs = field(default_factory=Repairs)
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Judging = Generator[list[Ask], list[Reply], Outcome]
"""A strategy at work: yields questions, receives the replies in the same order, returns an `Outcome`."""
