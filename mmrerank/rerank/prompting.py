"""Prompt files to messages: strict Jinja2 over Markdown, with user text that cannot forge anything.

A prompt is ``prompts/NAME.md``: a short YAML header (variables, source, version), then ``## system`` and
``## user`` sections. `show` in a template leaves a marker that becomes an image part, so images stand
exactly where the text speaks of them. Everything else that a template prints passes `defuse`.

A model may have prompts of its own, its *profile*: a folder whose files stand in place of ours of the same
name. The driver says which profile holds while a method makes its questions (`profile`), so that no method
knows of any.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrerank.errors import UsageError
from mmrerank.limits import in_force
from mmrerank.messages import Message, Part, Role
from mmrerank.reply_shape import reply_shape
from mmrerank.rerank.defusing import defuse as defuse
from mmrerank.types import Candidate, Image

if TYPE_CHECKING:
    from jinja2 import Environment, Template, nodes

_OPEN, _CLOSE = ("\ue000", "\ue001")  # private-use characters: `defuse` removes them from any user text
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")
SHAPE = "shape"
"""The variable that holds the shape of the reply; the only one that a prompt may leave out."""
INCLUDE = re.compile(r"""include\s+["']([^"']+)["']""")
_FILE = re.compile(r"\w+\.md")
SECTION = re.compile(r"^## (system|user|assistant)\s*$", re.M)


class _Marker(str):
    """Template output that stands for an image or is already safe."""

    __slots__ = ()


def _finalize(value: object) -> object:
    return value if isinstance(value, _Marker) else defuse(str(value))


@dataclass(kw_only=True)
class _Held:
    """The profile that holds, and the prompts that were asked of it and that it has not."""

    folder: str = ""
    lacked: dict[str, None] = field(default_factory=dict)


_held: ContextVar[_Held] = ContextVar("prompt profile", default=_Held())  # noqa: B039 # nothing is noted there


@contextmanager
def profile(folder: str) -> Iterator[dict[str, None]]:
    """Within it, prompts come from ``folder``, and ours where it has none of that name; "" is ours alone.

    What it gives fills with the names of prompts in whose place ours stood.
    """
    held = _Held(folder=folder)
    token = _held.set(held)
    try:
        yield held.lacked
    finally:
        _held.reset(token)


def forget() -> None:
    """Has every file read again when it is next asked for."""
    _load.cache_clear()
    _environment.cache_clear()
    _template.cache_clear()


def names(folder: str = "") -> list[str]:
    """Every prompt of a profile, sorted."""
    own = {p.name for p in Path(folder).glob("*.md")} if folder else set()
    ours = {p.name for p in (files("mmrerank.rerank") / "prompts").iterdir()}
    return sorted(Path(n).stem for n in own | ours if n.endswith(".md") and n[0] != "_")


def source(name: str, folder: str) -> str:
    """The text of a file of a profile, ours where it has none of that name. Raises `UsageError`."""
    if not _FILE.fullmatch(name):
        raise UsageError(f"{name!r} is no name of a prompt file, which is letters, digits and _ before .md")
    own = Path(folder) / name
    try:
        if folder and own.is_file():
            return own.read_text("utf-8")
        return (files("mmrerank.rerank") / "prompts" / name).read_text("utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no prompt file mmrerank/rerank/prompts/{name}") from None


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt file in its parts; ``folder`` is the profile it was asked of."""

    name: str
    version: int
    variables: tuple[str, ...]
    body: str
    digest: str
    folder: str = ""


def load(name: str) -> Prompt:
    """The prompt ``NAME.md`` of the profile that holds here. Raises `UsageError` when the file is wrong."""
    held = _held.get()
    if held.folder and not (Path(held.folder) / f"{name}.md").is_file():
        held.lacked[name] = None
    return _load(name, held.folder)


def load_from(name: str, folder: str) -> Prompt:
    """The prompt ``NAME.md`` of the profile in ``folder``, or ours where it has none of that name."""
    return _load(name, folder)


@cache
def _load(name: str, folder: str) -> Prompt:
    import yaml

    text, where = source(f"{name}.md", folder), f"{folder or 'prompts'}/{name}.md"
    header, body = split(text)
    try:
        meta = yaml.safe_load(header)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: its header is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(meta, dict) or not {"version", "variables", "source"} <= meta.keys():
        raise UsageError(f"{where} needs a header with version, variables and source")
    names = meta["variables"]
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise UsageError(f"{where}: variables is a list of names, such as [query, candidates]")
    if "user" not in SECTION.findall(body):
        raise UsageError(f"{where} needs a line '## user', below which the question stands")
    # included files count: a change there is a change of this prompt
    parts = [body, *(source(n, folder) for n in included(body, folder))]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return Prompt(
        name=name, version=meta["version"], variables=tuple(names), body=body, digest=digest, folder=folder
    )


def split(text: str) -> tuple[str, str]:
    """The header of a prompt file and what stands below it; no header where there is none."""
    _, _, rest = text.partition("---\n")
    header, cut, body = rest.partition("\n---\n")
    return (header, body) if cut else ("", text)


def included(body: str, folder: str) -> list[str]:
    """The files that a prompt includes, in their order, and those that these include."""
    found: dict[str, None] = {}
    waiting = INCLUDE.findall(body)
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found[name] = None
            waiting += INCLUDE.findall(source(name, folder))
    return list(found)


def parsed(text: str) -> nodes.Template:
    """A template's tree. Raises Jinja's ``TemplateSyntaxError``."""
    return _environment("").parse(text)


@cache
def _environment(folder: str) -> Environment:
    # autoescape is about HTML; what we guard against is forged markers, handled by finalize
    from jinja2 import StrictUndefined
    from jinja2.loaders import FunctionLoader
    from jinja2.sandbox import SandboxedEnvironment

    # a profile may be somebody else's: its files are text, and no way into Python
    return SandboxedEnvironment(
        loader=FunctionLoader(lambda name: source(name, folder)),
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=False,
        keep_trailing_newline=False,
    )


def render(name: str, *, schema: Mapping[str, Any] | None = None, **values: Any) -> tuple[Message, ...]:
    """The messages of a prompt. ``schema`` is that of the reply; its `reply_shape` is the variable ``shape``.

    A prompt may do without ``shape``. Raises `UsageError` when the other values are not those its header
    declares, or its text asks for more than text.
    """
    from jinja2 import TemplateError

    prompt = load(name)
    if schema is not None and SHAPE in prompt.variables:
        values[SHAPE] = _Marker(reply_shape(schema))
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
        return _Marker(shown + (f' "{defuse(_shortened(text))}"' if text else ""))

    messages: list[Message] = []
    pieces = SECTION.split(prompt.body)[1:]
    for role, body in zip(pieces[::2], pieces[1::2], strict=True):
        try:
            text = _template(body, prompt.folder).render(**values, show=show)
        except (TemplateError, TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"the prompt {name!r} cannot be filled in: {error}") from error
        messages.append(Message(role=_role(role), parts=_parts(_tidy(text), images)))
    return tuple(messages)


def _shortened(text: str) -> str:
    """A candidate's text as far as it is read; the result says what was cut."""
    most = in_force().caption_characters
    return text if len(text) <= most else f"{text[:most]} ..."


@cache
def _template(body: str, folder: str) -> Template:
    return _environment(folder).from_string(body)


def _get(item: Any, name: str) -> Any:
    return item.get(name) if isinstance(item, Mapping) else vars(item).get(name)


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
