"""The models and servers that have a name here: ``models.toml``, ``servers.toml`` and rows of other packages.

A model has a short name, a spec and what it is meant for; a server has an address, a variable for its key and
what its protocol needs. A package adds rows by an entry point of the group ``mmrerank.models``, a sequence of
`Card`. Nothing here opens anything.
"""

from __future__ import annotations

import logging
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mmrerank import discovery
from mmrerank.errors import ModelError
from mmrerank.paths import expanded, is_windows_path

_log = logging.getLogger(__name__)
GROUP = "mmrerank.models"


@dataclass(frozen=True, kw_only=True)
class Card:
    """A model with a short name.

    ``kind`` is ``chat``, ``scorer`` or ``embedder``; ``spec`` is what the name stands for. ``corpora`` are
    the domains of the indexes that the model is meant for: empty for a general model; any other is refused
    elsewhere unless it was named. ``domain`` says in words what little it knows (default: the first of
    ``corpora``). ``prompts`` is a folder of prompt files, its prompt profile, and ``profile`` the name under
    which anybody may ask for that; empty for the product's own.
    ``images`` and ``context`` are how many images and tokens one question may hold (0: not known), ``auto``
    what options of methods that are left at ``auto`` mean for this model, such as
    ``{"order_images": "false"}``. A ``brief`` model writes a few words where others write sentences.
    ``label_share`` is the share of the probability below which its labels are asked for again as text, unless
    an option says otherwise (None: the backend's own).

    What a person wants to know before it is fetched, empty or 0 where it is not known: its ``licence``,
    ``parameters``, the ``bytes`` of the download and of ``memory`` that it takes to run, its ``speed``
    (``fast``, ``medium`` or ``slow`` beside others of its kind), and ``download``, the repository of the hub
    where the spec does not name it.
    """

    name: str
    kind: str
    spec: str
    about: str = ""
    domain: str = ""
    corpora: tuple[str, ...] = ()
    prompts: str = ""
    profile: str = ""
    images: int = 0
    context: int = 0
    auto: Mapping[str, str] = field(default_factory=dict)
    brief: bool = False
    label_share: float | None = None
    licence: str = ""
    parameters: int = 0
    bytes: int = 0
    memory: int = 0
    speed: str = ""
    download: str = ""

    def __post_init__(self) -> None:
        if not self.domain and self.corpora:
            object.__setattr__(self, "domain", self.corpora[0])


@dataclass(frozen=True, kw_only=True)
class Server:
    """A kind of server that speaks the OpenAI protocol; the fields are explained in ``servers.toml``."""

    name: str
    url: str
    key: str
    limit: str = "max_tokens"
    quiet: Mapping[str, Any] = field(default_factory=dict)
    chooses: bool = False
    start: str = ""

    @property
    def form(self) -> str:
        """How its models are named on the command line."""
        return f"{self.name}:MODEL@HOST[:PORT]" if self.name == "vllm" else f"{self.name}:MODEL[@HOST]"

    def started(self, model: str, port: int | None) -> str:
        """The command that starts it with ``model``, listening at ``port``."""
        usual = port in (None, urlsplit(self.url).port)
        text = re.sub(r"\[(.*?)\]", "" if usual else r"\1", self.start).replace("MODEL.gguf", "MODEL")
        named = {"MODEL": model, "PORT": str(port)}
        text = re.sub(r"\b(MODEL|PORT)\b", lambda found: named[found[0]], text)
        return " ".join(text.split())

    def at(self, host: str) -> str:
        """The base URL at ``host``, a whole URL or ``HOST[:PORT]``; the usual one where it is empty."""
        if not host:
            return self.url
        if "://" in host:
            return host
        usual = urlsplit(self.url)
        place = host if ":" in host else f"{host}:{usual.port}" if usual.port else host
        return f"{usual.scheme}://{place}{usual.path}"


@cache
def cards() -> tuple[Card, ...]:
    """Every model of the catalogue: the file's in its order, then those of other packages."""
    own = (
        Card(name=name, kind=kind, **entry)
        for kind, entries in _table("models").items()
        for name, entry in entries.items()
    )
    return (*own, *_foreign())


def _foreign() -> list[Card]:
    found: list[Card] = []
    for point in metadata.entry_points(group=GROUP):
        try:
            rows: Sequence[Card] = point.load()
            if wrong := [r for r in rows if not isinstance(r, Card)]:
                raise TypeError(f"{wrong[0]!r} is no mmrerank.catalog.Card")
            found += rows
        except Exception as error:  # somebody's rows must not cost the others
            _log.warning(
                "the models of %s (%s) are left out: %s: %s",
                point.name, point.value, type(error).__name__, error,
            )  # fmt: skip
    return found


def kinds_at(kind: str) -> tuple[str, ...]:
    """The kinds of models that may be named where one of ``kind`` is: scorers stand where chats do."""
    return ("chat", "scorer") if kind == "chat" else (kind,)


def chosen(kind: str, spec: str, corpus: str, *, usual: str = "") -> str:
    """``spec``, or where it is empty the model that is meant for indexes of ``corpus`` (an index's domain).

    A model that is meant for other images is never chosen, only taken when it is named. ``usual`` is taken
    where no other is left. Raises `ModelError` where that is empty too, with what to do in three lines.
    """
    if spec:
        return spec
    for card in cards():
        if card.kind == kind and corpus and corpus in card.corpora:
            return card.name
    if usual:
        return usual
    chat = kind == "chat"
    word, flag, such = (
        ("language model", "--chat", "qwen2.5-vl-7b") if chat else ("embedder", "--embedder", "clip-b32")
    )
    folder = "transformers:FOLDER" if chat else "open_clip:local-dir:FOLDER"
    elsewhere = [c for c in cards() if c.kind == kind and c.corpora]
    only = "".join(f"; {c.name} is meant for the {c.domain} only" for c in elsewhere)
    raise ModelError(
        f"no {word} was named for these images{only}\n"
        f"choose one for good with `mmrerank setup`, or name one now: {flag} {such} (in Python: "
        f"{flag[2:]}=...); `mmrerank list models` shows more\n"
        f"without a model hub, copy a model's folder to this machine and name it: {flag} {folder}"
    )


@cache
def servers() -> tuple[Server, ...]:
    """Every kind of server, in the file's order."""
    return tuple(Server(name=name, **entry) for name, entry in _table("servers").items())


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads((Path(str(files("mmrerank"))) / f"{name}.toml").read_text("utf-8"))


def resolve(kind: str, spec: str) -> Card:
    """The card for a short name, or a plain card around any other spec.

    A model on a server, such as ``ollama:MODEL``, gets a spec of the plug-in that speaks its protocol:
    ``openai:MODEL@NAME+URL``.
    """
    for card in cards():
        if card.kind in kinds_at(kind) and spec in (card.name, card.spec):
            return card
    return Card(name=spec, kind=kind, spec=_served(spec) if kind == "chat" else spec)


_REPOSITORY = re.compile(r"(?:.*:)?([A-Za-z0-9][\w.-]*/[\w.-]+)(@[\w.-]+)?")


def repository(kind: str, spec: str) -> str:
    """The repository of the model hub that ``spec`` names, ``ORG/NAME`` or ``ORG/NAME@REVISION``.

    Empty for a folder, a server, and where it is not known before the model is opened.

    >>> repository("embedder", "qwen3_vl:Qwen/Qwen3-VL-Embedding-2B@256")
    'Qwen/Qwen3-VL-Embedding-2B'
    """
    card = resolve(kind, spec.strip())
    if card.download:
        return card.download
    plugin = card.spec.partition(":")[0]
    found = _REPOSITORY.fullmatch(card.spec)
    of = next((k for k in kinds_at(kind) if plugin in discovery.names(k)), "")
    if found is None or not of or is_local(kind, spec):
        return ""
    form = discovery.form(of, plugin)
    if "hf-hub:" in form and "hf-hub:" in card.spec:
        return found[1] + (found[2] or "")
    return found[1] if "PATH_OR_NAME" in form else ""


def in_words(card: Card) -> str:
    """What is known of a model's download, such as ``about 605 MB, MIT``; empty where nothing is."""
    size = f"{card.bytes / 1e9:.1f} GB" if card.bytes >= 1e9 else f"{card.bytes / 1e6:.0f} MB"
    return ", ".join(part for part in (f"about {size}" if card.bytes else "", card.licence) if part)


def is_local(kind: str, spec: str) -> bool:
    """Whether ``spec`` names a model by a file or folder of this machine.

    A short name and the spec of a row do not: the installed package answers for those. Nor does a name that
    means the same everywhere, unless something here has that name too.
    """
    spec = spec.strip()
    if any(c.kind in kinds_at(kind) and spec in (c.name, c.spec) for c in cards()):
        return False
    rest = spec.partition(":")[2]
    tails = [rest]
    while ":" in tails[-1]:
        tails.append(tails[-1].partition(":")[2])
    texts = {t.strip() for tail in tails for t in (tail, re.sub(r"@[^@]*$", "", tail))} - {""}
    return "local-dir:" in spec or any(
        text.startswith(("~", ".", "/", "\\"))
        or is_windows_path(text)
        or os.path.lexists(expanded(text))  # a plug-in may take any text for a path
        for text in texts
    )


def _served(spec: str) -> str:
    name, _, rest = spec.partition(":")
    server = next((s for s in servers() if s.name == name), None)
    if server is None or name == "openai" or not rest:
        return spec
    model, at, host = rest.partition("@")
    # `Path.exists` raises where nobody may look
    if name == "vllm" and (not at or os.path.exists(expanded(rest))):  # noqa: PTH110
        return spec  # the engine in this process
    if not model or (at and not host):
        return spec
    return f"openai:{model}@{name}+{server.at(host)}"
