"""Finds plug-ins: the plug-in's name is its file's name, and it is imported when first used.

A kind is a package; every module in it whose name does not start with an underscore is a plug-in. Adding
one is adding a file. Listing names imports nothing.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from types import ModuleType

from mmrerank.errors import UsageError

KINDS = {
    "strategy": "mmrerank.rerank.strategies",
    "chat": "mmrerank.chat",
    "embedder": "mmrerank.embed",
    "corpus": "mmrerank.corpus",
    "store": "mmrerank.index.stores",
}


def names(kind: str) -> list[str]:
    """The plug-ins of a kind, sorted; none of them is imported."""
    package = importlib.import_module(KINDS[kind])
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name[0] != "_")


def load(kind: str, name: str) -> ModuleType:
    """The module of a plug-in. Raises `UsageError` naming what exists and what was probably meant."""
    known = names(kind)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"there is no {kind} {name!r}; there are: {', '.join(known)}.{hint}")
    return importlib.import_module(f"{KINDS[kind]}.{name}")
