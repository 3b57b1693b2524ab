"""Finds plug-ins: built-in ones by file name, foreign ones by entry point. Each is imported when first used.

A kind is a package; every module in it is a plug-in, but for those whose name starts with an underscore and
those that the package's ``HELPERS`` names. A package of somebody's own adds plug-ins by the entry points of
the kind's group. Listing names imports no plug-in.

A plug-in is checked when it is loaded: what lacks a part of its interface is a `UsageError` that names the
file and the part. Lists of all plug-ins leave a broken one out, with one warning each.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import logging
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from mmrerank import catalog
from mmrerank.errors import MmrerankError, UsageError
from mmrerank.ports import Capability

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in: where built-in ones lie, their entry points' group, what a file must have."""

    packages: tuple[str, ...]
    group: str
    must: tuple[str, ...]
    word: str
    may: Mapping[str, Any] = field(default_factory=dict)
    """What a file may leave out, with what stands there then."""


KINDS = {
    "strategy": Kind(
        ("mmrerank.rerank.strategies",),
        "mmrerank.strategies",
        ("NEEDS", "FAMILY", "PAPER", "Options", "rank"),
        "method",
    ),
    "chat": Kind(
        ("mmrerank.chat", "mmrerank.chat.fakes"),
        "mmrerank.chats",
        ("FORM", "open"),
        "chat",
        {"revision": lambda rest: None},
    ),
    "embedder": Kind(("mmrerank.embed",), "mmrerank.embedders", ("FORM", "open"), "embedder"),
    "corpus": Kind(("mmrerank.corpus",), "mmrerank.corpora", ("FORM", "accepts", "open"), "corpus"),
    "store": Kind(("mmrerank.index.stores",), "mmrerank.stores", ("open",), "store"),
    "benchmark": Kind(
        ("mmrerank.evaluation.benchmarks",), "mmrerank.benchmarks", ("SPLITS", "load"), "benchmark"
    ),
    "verb": Kind(("mmrerank.cli",), "mmrerank.verbs", ("EXAMPLE", "COMMAND"), "command"),
}
_warned: set[tuple[str, str]] = set()


def names(kind: str) -> list[str]:
    """The plug-ins of a kind, sorted; none of them is imported."""
    return sorted(_places(kind))


def place(kind: str, name: str) -> str:
    """The module that holds a plug-in, such as ``mmrerank.rerank.strategies.cotrr``. Raises `UsageError`."""
    known = _places(kind)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(
            f"there is no {KINDS[kind].word} {name!r}; there are: {', '.join(sorted(known))}.{hint}"
        )
    return known[name]


def load(kind: str, name: str) -> Any:
    """The file of a plug-in, imported and checked.

    Raises `UsageError` for an unknown name, naming what exists and what was probably meant, and for a
    plug-in that cannot be imported or lacks a part of its interface.
    """
    where = place(kind, name)
    return _loaded(kind, name, where)


def every(kind: str) -> Iterator[tuple[str, Any]]:
    """Name and file of each plug-in of a kind that works; a broken one costs one warning and is left out."""
    for name in names(kind):
        try:
            yield name, load(kind, name)
        except MmrerankError as error:
            warn(kind, name, error)


def warn(kind: str, name: str, error: Exception) -> None:
    """One warning for a plug-in that does not work, however often it is met."""
    if (kind, name) not in _warned:
        _warned.add((kind, name))
        _log.warning("%s", error)


@cache
def _places(kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for package in KINDS[kind].packages:
        home = importlib.import_module(package)
        helpers: tuple[str, ...] = vars(home).get("HELPERS", ())
        for module in pkgutil.iter_modules(home.__path__):
            if module.name[0] != "_" and module.name not in helpers:
                found[module.name] = f"{package}.{module.name}"
    for point in metadata.entry_points(group=KINDS[kind].group):
        if found.setdefault(point.name, point.value) != point.value:
            warn(
                kind,
                point.name,
                UsageError(
                    f"the {KINDS[kind].word} {point.name!r} of {point.value} is left out: "
                    f"{found[point.name]} has that name"
                ),
            )
    return found


@cache
def _loaded(kind: str, name: str, where: str) -> Any:
    what = f"the {KINDS[kind].word} {name!r} ({where})"
    try:
        module = importlib.import_module(where)
    except MmrerankError:
        raise
    except Exception as error:  # whatever somebody's file raises must cost this plug-in alone
        if where.startswith("mmrerank.") and _exists(where):
            raise
        raise UsageError(f"{what} cannot be used: {type(error).__name__}: {error}") from error
    has = vars(module)
    if lacking := [part for part in KINDS[kind].must if part not in has]:
        raise UsageError(
            f"{what} cannot be used: it lacks {', '.join(lacking)}; `mmrerank.ports` says what a "
            f"{kind} must have"
        )
    for part, default in KINDS[kind].may.items():
        has.setdefault(part, default)
    return module


def _exists(where: str) -> bool:
    try:
        return importlib.util.find_spec(where) is not None
    except ImportError:
        return False


def check(found: object, interface: type, what: str) -> None:
    """Raises `UsageError` when ``found``, which a plug-in gave, lacks a part of its ``interface``."""
    wanted = (*interface.__annotations__, *vars(interface))
    # `dir` looks and asks nothing: a property such as ``capabilities`` may call a server
    there = dir(found)
    if lacking := sorted({n for n in wanted if n[0] != "_" and n not in there}):
        raise UsageError(
            f"{what} gives a {type(found).__name__} that lacks {', '.join(lacking)}; deriving from "
            f"mmrerank.ports.{interface.__name__} gives the optional parts their defaults"
        )


def needs_of(strategy: Any, options: Any) -> tuple[Capability, ...]:
    """The capabilities that a method needs with these options."""
    needs = options.needs()
    return tuple(strategy.NEEDS if needs is None else needs)


def opened(
    kind: str, spec: str, options: Mapping[str, Any], interface: type
) -> tuple[catalog.Card, Any]:
    """What ``spec`` names, a short name of the catalogue or ``PLUGIN:REST``, and its card.

    ``options`` go to the plug-in's ``open``; those that are None count as not given. Raises `UsageError`
    for an unknown form or option, and what the plug-in's ``open`` raises.
    """
    card = catalog.resolve(kind, spec)
    name, _, rest = card.spec.partition(":")
    if name not in names(kind):
        raise UsageError(f"there is no {kind} {spec!r}; {forms(kind)}")
    opener = load(kind, name).open
    given = {k: v for k, v in options.items() if v is not None}
    allowed = set(inspect.signature(opener).parameters) - {"rest"}
    if wrong := sorted(given.keys() - allowed):
        raise UsageError(
            f"{kind} {name!r} takes no {wrong[0]!r}; its options are {', '.join(sorted(allowed))}"
        )
    found = opener(rest, **given)
    check(found, interface, f"{kind} {name!r}")
    return card, found


def forms(kind: str) -> str:
    """How something of a kind can be named, in one line."""
    shapes = [source_facts(kind, name).form for name in names(kind)]
    if kind == "chat":
        shapes += [s.form for s in catalog.servers() if s.name != "openai"]
    short = [c.name for c in catalog.cards() if c.kind == kind]
    return f"forms are {', '.join(s for s in shapes if s)}; short names are {', '.join(short)}"


@dataclass(frozen=True)
class SourceFacts:
    """What a plug-in's source text says without being run: its first sentence and its ``FORM``."""

    about: str = ""
    form: str = ""


@cache
def source_facts(kind: str, name: str) -> SourceFacts:
    """Reads a plug-in's source text: a listing must not need what the plug-in needs."""
    import ast

    try:
        spec = importlib.util.find_spec(place(kind, name))
        tree = ast.parse(Path(str(spec.origin)).read_text("utf-8")) if spec else ast.Module([], [])
    except (ImportError, OSError, SyntaxError, ValueError):
        return SourceFacts()
    return SourceFacts(about=first_sentence(ast.get_docstring(tree)), form=_form(tree))


def first_sentence(text: str | None) -> str:
    """The first paragraph of a docstring on one line, or its first sentence where that is long."""
    line = " ".join((text or "").split("\n\n")[0].replace("``", "").split())
    return line if len(line) <= 160 else line.split(". ")[0].rstrip(".") + "."


def _form(tree: Any) -> str:
    import ast

    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(t, ast.Name) and t.id == "FORM" for t in targets):
            assert isinstance(node, ast.Assign)
            return str(ast.literal_eval(node.value))
    return ""
