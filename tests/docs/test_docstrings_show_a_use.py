"""Every public name shows a use in its docstring, and the examples in docstrings hold."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

import mmrerank

MODULES = [
    "types", "messages", "budget", "results", "search", "reranker", "rerank.combine", "benchmark",
    "ports", "errors", "rerank.methods", "evaluation.score", "evaluation.compare_runs",
    "evaluation.experiment.recommend",
]  # fmt: skip


def test_every_public_name_shows_a_use() -> None:
    lacking = {n for n in mmrerank.__all__ if ">>>" not in (getattr(mmrerank, n).__doc__ or "")}
    assert lacking == set()


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    found = doctest.testmod(import_module(f"mmrerank.{name}"))
    assert found.attempted or name == "search"  # which needs an index
    assert not found.failed
