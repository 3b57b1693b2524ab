"""Prompt files to messages: strict Jinja2 over Markdown, with user text that cannot forge anything.

A prompt is ``prompts/NAME.md``: a short YAML header (variables, source, version), then ``## system`` and
``## user`` sections. `show` in a template leaves a marker that becomes an image part, so images stand
exactly where the text speaks of them. Everything else that a template prints passes `defuse`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined, Template
from jinja2.loaders import FunctionLoader

from mmrerank.errors import UsageError
from mmrerank.messages import Message, Part, Role
from mmrerank.types import Candidate, Image

_OPEN, _CLOSE = (
    "\ue000",
    "\ue001",
)  # private-use characters: `defuse` removes them from any user text
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f\u0085\u200b-\u200f\u2028-\u202e\u2060-\u2069\ue000-\uf8ff\ufeff]+"
)
_LABEL = re.compile(r"(?i)\b(image\s+\w{1,3}|c\d+\s*(?:\([^)]*\))?)\s*:")
_SECTION = re.compile(r"^## (system|user|assistant)\s*$", re.M)


def defuse(text: str) -> str:
    """User text made harmless: one line, no control or marker characters, no role or label syntax.

    ``<|...|>`` loses its bar (chat-template roles), a straight double quote becomes a single one (it
    would close our quotation), and ``Image X:`` or ``c1 (kind):`` loses its colon.
    """
    text = _UNSAFE.sub(" ", text.encode("utf-8", "replace").decode("utf-8"))
    text = text.replace("<|", "< ").replace("|>", " >").replace('"', "'")
    return _LABEL.sub(r"\1", " ".join(text.split()))


class _Marker(str):
    """Template output that stands for an image or is already safe."""

    __slots__ = ()


def _finalize(value: object) -> object:
    return value if isinstance(value, _Marker) else defuse(str(value))


def _source(name: str) -> str:
    try:
        return (files("mmrerank.rerank") / "prompts" / name).read_text("utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no prompt file mmrerank/rerank/prompts/{name}") from None


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt file, taken apart."""

    name: str
    version: int
    variables: tuple[str, ...]
    body: str
    digest: str


@cache
def load(name: str) -> Prompt:
    """Reads ``prompts/NAME.md``. Raises `UsageError` when the header or the sections are wrong."""
    text = _source(f"{name}.md")
    _, _, rest = text.partition("---\n")
    header, cut, body = rest.partition("\n---\n")
    meta = yaml.safe_load(header) if cut else None
    if not isinstance(meta, dict) or not {"version", "variables", "source"} <= meta.keys():
        raise UsageError(f"prompts/{name}.md needs a header with version, variables and source")
    if not _SECTION.search(body):
        raise UsageError(f"prompts/{name}.md needs a '## user' section")
    # included files count: a change there is a change of this prompt
    parts = [body, *(_source(n) for n in re.findall(r'include "([^"]+)"', body))]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return Prompt(
        name=name,
        version=meta["version"],
        variables=tuple(meta["variables"]),
        body=body,
        digest=digest,
    )


@cache
def _environment() -> Environment:
    # autoescape is about HTML; what we guard against is forged markers, handled by finalize
    return Environment(
        loader=FunctionLoader(_source),
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=False,
        keep_trailing_newline=False,
    )


def render(name: str, **values: Any) -> tuple[Message, ...]:
    """The messages of a prompt. Raises `UsageError` when the values are not those its header declares."""
    prompt = load(name)
    if set(values) != set(prompt.variables):
        raise UsageError(
            f"prompt {name!r} takes {', '.join(prompt.variables)}; it was given {', '.join(values)}"
        )
    images: list[Image] = []

    def show(item: Image | Candidate | Mapping[str, Any]) -> _Marker:
        image = item if isinstance(item, Image) else _get(item, "image")
        text = None if isinstance(item, Image) else _get(item, "text")
        shown = ""
        if image is not None:
            images.append(image)
            shown = f"{_OPEN}{len(images) - 1}{_CLOSE}"
        return _Marker(shown + (f' "{defuse(text)}"' if text else ""))

    messages: list[Message] = []
    pieces = _SECTION.split(prompt.body)[1:]
    for role, body in zip(pieces[::2], pieces[1::2], strict=True):
        text = _template(body).render(**values, show=show)
        messages.append(Message(role=_role(role), parts=_parts(_tidy(text), images)))
    return tuple(messages)


@cache
def _template(body: str) -> Template:
    return _environment().from_string(body)


def _get(item: Any, name: str) -> Any:
    return item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)


def _role(name: str) -> Role:
    return "system" if name == "system" else "assistant" if name == "assistant" else "user"


def _tidy(text: str) -> str:
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _parts(text: str, images: list[Image]) -> tuple[Part, ...]:
    parts: list[Part] = []
    for index, piece in enumerate(_MARK.split(text)):
        if index % 2:
            parts.append(Part(image=images[int(piece)]))
        elif piece:
            parts.append(Part(text=piece))
    return tuple(parts)
