"""Finds and loads plug-ins: built-in ones by file name, foreign ones by entry point. Opens nothing.

A kind is a package; every module in it is a plug-in, but for those whose name starts with an underscore and
those that the package's ``HELPERS`` names. A package of somebody's own adds plug-ins by the entry points of
the kind's group. Listing names and what they are about imports no plug-in.

This module imports neither numpy nor yaml: the command line lists its verbs with it. `mmrerank.registry`
opens and checks what a plug-in gives.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mmrerank.errors import MmrerankError, UsageError
from mmrerank.near import meant

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
    derives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What a part must have where it derives from its base class in `mmrerank.ports`, as it has to."""


KINDS = {
    "strategy": Kind(
        ("mmrerank.rerank.strategies",),
        "mmrerank.strategies",
        ("NEEDS", "FAMILY", "PAPER", "Options", "rank"),
        "method",
        derives={"Options": ("needs", "calls", "settles", "hands_on")},
    ),
    "chat": Kind(
        ("mmrerank.chat", "mmrerank.chat.fakes"),
        "mmrerank.chats",
        ("FORM", "open"),
        "chat",
        {"revision": lambda rest: None},
    ),
    "scorer": Kind(
        ("mmrerank.scorers",), "mmrerank.scorers", ("FORM", "open"), "scorer", {"revision": lambda rest: None}
    ),
    "embedder": Kind(
        ("mmrerank.embed",), "mmrerank.embedders", ("FORM", "open"), "embedder", {"PREPARES": False}
    ),
    "corpus": Kind(("mmrerank.corpus",), "mmrerank.corpora", ("FORM", "accepts", "open"), "corpus"),
    "store": Kind(("mmrerank.index.stores",), "mmrerank.stores", ("open",), "store"),
    "benchmark": Kind(
        ("mmrerank.evaluation.benchmarks",), "mmrerank.benchmarks", ("BENCHMARK",), "benchmark"
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
        there = ", ".join(sorted(known))
        raise UsageError(f"there is no {KINDS[kind].word} {name!r}; there are: {there}.{meant(name, known)}")
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
        for name in sorted(_modules(home.__path__)):
            if name[0] != "_" and name not in helpers:
                found[name] = f"{package}.{name}"
    for name, value in entry_points(KINDS[kind].group):
        if found.setdefault(name, value) != value:
            left_out = f"the {KINDS[kind].word} {name!r} of {value} is left out"
            warn(kind, name, UsageError(f"{left_out}: {found[name]} has that name"))
    return found


def _modules(folders: Any) -> Iterator[str]:
    """The modules and packages in ``folders``, by name."""
    for entry in (e for folder in folders for e in os.scandir(folder)):
        if entry.name.endswith(".py"):
            yield entry.name[:-3]
        elif Path(entry.path, "__init__.py").is_file():
            yield entry.name


def entry_points(group: str) -> list[tuple[str, str]]:
    """Name and value of each entry point of ``group`` that an installed package declares, sorted."""
    points = _scanned(tuple(sys.path))
    if points is None:  # packages in a zip file: only the standard library reads those
        from importlib import metadata

        return sorted({(p.name, p.value) for p in metadata.entry_points(group=group)})
    return sorted({(name, value) for g, name, value in points if g == group})


@cache
def _scanned(path: tuple[str, ...]) -> list[tuple[str, str, str]] | None:
    """Group, name and value of all entry points for mmrerank; None where ``path`` holds a zip file.

    It reads the metadata folders itself, as `importlib.metadata` does: importing that costs half of what
    the whole of ``--help`` does.
    """
    found, seen = [], set()
    for folder in path:
        try:
            entries = os.listdir(folder or ".")  # noqa: PTH208 - `Path` costs more than the reading
        except NotADirectoryError:
            return None
        except OSError:
            continue
        for entry in entries:
            if entry.endswith((".dist-info", ".egg-info")):
                distribution = entry.split("-")[0].lower()
                if distribution not in seen:  # the first on the path is the one that is imported
                    seen.add(distribution)
                    found += _declared(os.path.join(folder, entry, "entry_points.txt"))  # noqa: PTH118
    return found


def _declared(file: str) -> list[tuple[str, str, str]]:
    try:
        with open(file, encoding="utf-8") as handle:  # noqa: PTH123
            text = handle.read()
    except (OSError, UnicodeDecodeError):
        return []
    if "[mmrerank." not in text:
        return []
    found, group = [], ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            group = line.strip("[] ")
        elif "=" in line and line[0] not in "#;":
            name, _, value = line.partition("=")
            found.append((group, name.strip(), value.strip()))
    return found


@cache
def _loaded(kind: str, name: str, where: str) -> Any:
    if ":" in where:
        raise _unusable(kind, name, ValueError("the entry point has to name a file, such as my_package.mine"))
    try:
        module = importlib.import_module(where)
    except MmrerankError:
        raise
    except Exception as error:  # whatever somebody's file raises must cost this plug-in alone
        if where.startswith("mmrerank.") and source_file(where):
            raise
        raise _unusable(kind, name, error) from error
    has = vars(module)
    if lacking := [part for part in KINDS[kind].must if part not in has]:
        what = f"the {KINDS[kind].word} {name!r} ({where})"
        raise UsageError(
            f"{what} cannot be used: it lacks {', '.join(lacking)}; `mmrerank.ports` says what a "
            f"{kind} must have"
        )
    for part, wanted in KINDS[kind].derives.items():
        if lacking := [n for n in wanted if n not in dir(has[part])]:
            raise UsageError(
                f"the {KINDS[kind].word} {name!r} ({where}) cannot be used: its {part} lacks "
                f"{', '.join(lacking)}; derive it from mmrerank.ports.{kind.capitalize()}{part}"
            )
    for part, default in KINDS[kind].may.items():
        has.setdefault(part, default)
    return module


_COMMAND = re.compile(r"mmrerank [^:]*: ")
_DOCSTRING = re.compile(r"""\s*(?:#[^\n]*\s*)*[rR]?("{3}|'{3})(.*?)\1""", re.DOTALL)


@cache
def about(kind: str, name: str) -> str:
    """The first sentence of a plug-in's file, which is not run: a listing must not need what it needs.

    The command that it may begin with is left out. A file that cannot be read costs one warning.
    """
    try:
        found = _DOCSTRING.match(_source(kind, name))
    except UsageError as error:
        warn(kind, name, error)
        return ""
    line = first_sentence(found[2]) if found else ""
    start = _COMMAND.match(line)
    return line if start is None else line[start.end()].upper() + line[start.end() + 1 :]


@cache
def form(kind: str, name: str) -> str:
    """How a plug-in's source text says that it is named (its ``FORM``); empty where it does not."""
    import ast

    try:
        body = ast.parse(_source(kind, name)).body
        for node in body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FORM":
                return str(ast.literal_eval(node.value))
    except (UsageError, SyntaxError, ValueError) as error:
        warn(kind, name, _unusable(kind, name, error))
    return ""


def _source(kind: str, name: str) -> str:
    where = place(kind, name)
    file = source_file(where)
    try:
        if file:
            return Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(kind, name, error) from error
    raise _unusable(kind, name, ModuleNotFoundError(f"there is no module {where}"))


def _unusable(kind: str, name: str, error: Exception) -> UsageError:
    if isinstance(error, UsageError):
        return error
    what = f"the {KINDS[kind].word} {name!r} ({place(kind, name)})"
    return UsageError(f"{what} cannot be used: {type(error).__name__}: {error}")


def source_file(module: str) -> str:
    """The file of a module, of which no package is imported; empty where there is none."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
        for part in rest:
            if spec is None or spec.submodule_search_locations is None:
                return ""
            inner, top = list(spec.submodule_search_locations), f"{top}.{part}"
            spec = importlib.machinery.PathFinder.find_spec(top, inner)
    except (ImportError, ValueError):
        return ""
    return (spec.origin if spec else "") or ""


def first_sentence(text: str | None) -> str:
    """The first paragraph of a docstring on one line, or its first sentence where that is long."""
    line = " ".join((text or "").split("\n\n")[0].replace("``", "").split())
    return line if len(line) <= 160 else line.split(". ")[0].rstrip(".") + "."
