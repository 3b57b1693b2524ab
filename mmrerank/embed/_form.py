"""What an embedder asks its model, as data: sentences, where they stand, pixels, and what is read off.

Loads nothing and runs nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mmrerank.types import Query

Kind = Literal[
    "text", "image", "composed", "dialogue", "document", "document_text", "document_both"
]  # of a query, and of what is found: an image, words, both


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How an image reaches a Qwen-VL model; the steps follow one another, and None or 0 leaves one out.

    ``small``: with a side below one visual token, a square of so many pixels a side. ``square``: squashed to
    so many pixels a side. ``whole``: scaled by Pillow, in its shape, to between so many and so many visual
    tokens. ``limits``: the same by the checkpoint's image processor, ``own`` by the limits that it came with.
    """

    small: int = 0
    square: int = 0
    whole: tuple[int, int] | None = None
    limits: tuple[int, int] | Literal["own"] | None = None


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a family of models is asked for a vector.

    ``says`` holds the sentence for each kind of thing, with ``{images}``, ``{instruction}`` and ``{text}``
    filled in; ``instructions`` are those that stand where a query brings none, or something that is found
    where such things are ``told`` any. An image is written as
    ``shown``, and ``after`` stands behind the last one. The sentence is the whole prompt, or with ``chat``
    the user's turn of the checkpoint's chat template, whose system turn is then ``system``.

    Positions count tokens on all axes where they are ``flat``. The vector is the state of the ``last`` token
    in the last layer, or the ``mean`` over all tokens, of an image over its own from vision_start to
    vision_end. It is cut to the first numbers where fewer are asked for, and scaled by ``norm``. With
    ``apart`` words and images are never in one prompt: their vectors are mixed.
    """

    says: Mapping[Kind, str]
    instructions: Mapping[Kind, str] = field(default_factory=dict)
    shown: str = ""
    after: str = ""
    chat: bool = False
    system: str = ""
    full_stop: bool = False
    told: bool = False
    lines: bool = False
    """Whether the turns of a dialogue stand on a line each; else they are joined by commas."""
    positions: Literal["grid", "flat"] = "grid"
    pooling: Literal["last", "mean"] = "last"
    norm: Literal["l2"] = "l2"
    apart: bool = False
    pixels: Pixels | None = None

    def write(
        self, query: Query, *, document: bool = False, before: int = 0, defuse: Callable[[str], str]
    ) -> Asked:
        """What is asked about ``query``, or about something that is found, which a query can describe too.

        ``before``: how many images stand in front of all. ``defuse`` makes plain text of what somebody wrote.
        """
        kind = _kind(query, document)
        own = query.instruction.strip() if self.told or not document else ""
        given = own or self.instructions.get(kind, "")
        if self.full_stop and given and not unicodedata.category(given[-1]).startswith("P"):
            given += "."
        turns = [t.strip() for t in (*query.turns, query.text) if t.strip()]
        filled = {
            "images": self.shown * len(query.images) + self.after if query.images else "",
            "instruction": defuse(given),
            "text": defuse("\n".join(turns) if self.lines else query.words),
        }
        return Asked(
            text=self.shown * before + self.says[kind].format(**filled),
            system=self.system.format(**filled),
            images=before + len(query.images),
        )


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A prompt, or the turns of one: the user's and the system's, which may be empty."""

    text: str
    system: str
    images: int

    @property
    def turns(self) -> list[dict[str, Any]]:
        """For a chat template; images stand first."""
        content: list[dict[str, str]] = [{"type": "image"}] * self.images
        content += [{"type": "text", "text": self.text}] if self.text else []
        user = {"role": "user", "content": content}
        system = {"role": "system", "content": [{"type": "text", "text": self.system}]}
        return [system, user] if self.system else [user]


def _kind(query: Query, document: bool) -> Kind:
    if not document:
        return "composed" if query.images and query.words else query.kind
    if not query.images:
        return "document_text"
    return "document_both" if query.words else "document"
