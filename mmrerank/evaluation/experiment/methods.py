"""Methods as they are named on a command line: ``NAME``, ``NAME(option=value;option=value)``, or ``all``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmrerank import registry
from mmrerank.config import build
from mmrerank.errors import UsageError

_FORM = re.compile(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*")


@dataclass(frozen=True, kw_only=True)
class Named:
    """A method with options. ``label`` is what it is called in tables, ``part`` what its files add to it."""

    name: str
    given: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``prp``, or ``prp(schedule=heap;top=5)``."""
        told = ";".join(f"{k}={v}" for k, v in self.given.items())
        return f"{self.name}({told})" if told else self.name

    @property
    def part(self) -> str:
        """The options as a piece of a file's name."""
        return re.sub(r"[^\w.]+", "-", "-".join(f"{k}-{v}" for k, v in self.given.items()))

    @property
    def stem(self) -> str:
        """The name of its files."""
        return f"{self.name}.{self.part}" if self.part else self.name

    @property
    def options(self) -> Any:
        """The method's options. Raises `UsageError` for an unknown name or value."""
        module = registry.load("strategy", self.name)
        return build(module.Options, self.given, where=f"method {self.name}")


def named(texts: Sequence[str]) -> list[Named]:
    """The methods that ``texts`` name, each once, ``none`` first.

    ``all`` is every method with its defaults. Raises `UsageError` for what is not a method or an option.
    """
    found: dict[str, Named] = {"none": Named(name="none")}
    for text in texts:
        if text.strip() == "all":
            found.update({n: Named(name=n) for n in registry.names("strategy") if n not in found})
            continue
        match = _FORM.fullmatch(text)
        if match is None:
            raise UsageError(f"a method is NAME or NAME(option=value;option=value), not {text!r}")
        pairs = [p.partition("=") for p in (match[2] or "").split(";") if p.strip()]
        if any(not equals for _, equals, _ in pairs):
            raise UsageError(f"options of a method are option=value;option=value, not {match[2]!r}")
        one = Named(name=match[1], given={k.strip(): v.strip() for k, _, v in pairs})
        _ = one.options  # a wrong one is told at once
        found.setdefault(one.label, one)
    return list(found.values())
