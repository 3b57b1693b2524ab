"""Cards: colour cards asked for by the name of their colour."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mmrerank.errors import InputError
from mmrerank.ports import Benchmark, BenchmarkQuery, Task


@dataclass(frozen=True, kw_only=True)
class Options:
    """``prefix`` is put before every query."""

    prefix: str = ""


class Cards(Benchmark):
    """A benchmark of another package, with nothing but what must be written, and an option."""

    Options = Options

    def load(self, data: Path, split: str, options: Options) -> Task:
        """``queries.jsonl``: an id, a text and the cards that are right."""
        file = data / "queries.jsonl"
        if not file.is_file():
            raise InputError(f"there is no {file}")
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        return Task(
            queries={r["id"]: BenchmarkQuery(text=options.prefix + r["text"]) for r in rows},
            qrels={r["id"]: dict.fromkeys(r["relevant"], 1) for r in rows},
        )


BENCHMARK = Cards()
