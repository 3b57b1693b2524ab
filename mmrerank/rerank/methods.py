"""How a method is written wherever one is named: ``NAME``, or ``NAME(option=value;option=value)``.

The same in flags, lists of methods and Python: ``pointwise(alpha=0.9;beta=4)``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmrerank import registry
from mmrerank.config import build
from mmrerank.errors import UsageError

_FORM = re.compile(r"\s*([\w-]+)(?:\s*\((.*)\))?\s*")


def parse_method(text: str) -> tuple[str, dict[str, str]]:
    """Name and options of a method. Raises `UsageError` for another form; whether it exists is not asked.

    >>> parse_method("pointwise(alpha=0.9; beta=4)")
    ('pointwise', {'alpha': '0.9', 'beta': '4'})
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"a method is NAME or NAME(option=value;option=value), not {text!r}")
    pairs = [p.partition("=") for p in (match[2] or "").split(";") if p.strip()]
    if any(not equals or not name.strip() for name, equals, _ in pairs):
        raise UsageError(f"options of a method are option=value;option=value, not {match[2]!r}")
    return match[1], {name.strip(): value.strip() for name, _, value in pairs}


def split_methods(text: str) -> list[str]:
    """Methods out of a list with commas between, which count within brackets as text.

    >>> split_methods("none, prp(schedule=heap;top=5)")
    ['none', 'prp(schedule=heap;top=5)']
    """
    return [m for part in re.split(r",(?![^(]*\))", text) if (m := part.strip())]


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """A method with its options as they were given."""

    name: str
    given: Mapping[str, Any] = field(default_factory=dict)
    plain_files: bool = False
    """Whether its files are named after the method alone, whatever the options."""
    among_all: bool = False
    """Whether nobody named it: a model that cannot do what it needs is then asked the others."""

    @property
    def label(self) -> str:
        """Its name in tables: ``prp``, or ``prp(schedule=heap;top=5)``."""
        options = ";".join(f"{k}={v}" for k, v in self.given.items())
        return f"{self.name}({options})" if options else self.name

    @property
    def stem(self) -> str:
        """The name of its files: ``prp``, or ``prp.schedule-heap-top-5``."""
        pairs = "-".join(f"{k}-{v}" for k, v in self.given.items())
        part = "" if self.plain_files else re.sub(r"[^\w.]+", "-", pairs)
        return f"{self.name}.{part}" if part else self.name

    @property
    def options(self) -> Any:
        """The method's ``Options``. Raises `UsageError` for an unknown method, option or value."""
        module = registry.load("strategy", self.name)
        return build(module.Options, self.given, where=f"method {self.name}")


def method_specs(texts: Sequence[str]) -> list[MethodSpec]:
    """The methods that ``texts`` name, each once; ``all`` is every method with its defaults that
    the model can run.

    Raises `UsageError` for what is no method, option or value.
    """
    found: dict[str, MethodSpec] = {}
    for text in texts:
        if text.strip() == "all":
            specs = [MethodSpec(name=n, among_all=True) for n, _ in registry.every("strategy")]
        else:
            name, options = parse_method(text)
            specs = [MethodSpec(name=name, given=options)]
        for spec in specs:
            _ = spec.options  # a wrong one is reported before any work
            found.setdefault(spec.label, spec)
    return list(found.values())
