"""What is sent to a language model and what comes back: pure values, no backend.

An `Ask` is one judgement asked for. Its second half (``kind`` to ``labels``) exists for fakes and traces
only: a real backend gives the same reply without it, and a test holds it to that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mmrerank.errors import ChatError
from mmrerank.types import Component, Image, Query, Usage

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
    ``image_tokens`` bounds the visual tokens of each image.
    """

    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None = None
    choices: tuple[str, ...] = ()
    max_tokens: int = 1024
    temperature: float = 0.0
    image_tokens: int = 256

    kind: str = ""
    query: Query | None = None
    shown: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    components: tuple[Component, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs(self) -> str:
        """The capability this question takes."""
        return "choice_logprobs" if self.choices else "generate"

    def stripped(self) -> Ask:
        """The same question without what only fakes and traces may read."""
        return replace(self, kind="", query=None, shown=(), labels=(), components=(), details={})

    def digest(self) -> str:
        """SHA-256 over everything that can change a real backend's reply: text, pixels, schema, sampling."""
        body = {
            "messages": [
                [
                    m.role,
                    [p.text if p.image is None else {"sha256": p.image.digest} for p in m.parts],
                ]
                for m in self.messages
            ],
            "schema": self.schema,
            "choices": self.choices,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "image_tokens": self.image_tokens,
        }
        return hashlib.sha256(json.dumps(body, sort_keys=True, default=list).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back: a text, or log-probabilities by choice, or an error. Never silently nothing."""

    text: str = ""
    logprobs: Mapping[str, float] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    finish: Literal["stop", "length", "error"] = "stop"
    error: ChatError | None = None


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
            prompt="\n\n".join(f"{m.role}: {m.text}" for m in ask.messages),
            reply=reply.text,
            logprobs=reply.logprobs,
            error=str(reply.error or ""),
            usage=reply.usage,
        )


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Every step of one ranking, in order."""

    steps: tuple[Step, ...] = ()
