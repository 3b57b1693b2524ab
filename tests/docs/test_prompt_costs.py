"""The table of what prompts cost says what they cost now."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_table_is_what_the_questions_take(qwen3_vocabulary: Path) -> None:
    from tokenizers import Tokenizer

    bench = runpy.run_path(str(ROOT / "bench/prompts.py"))
    rows = bench["costs"](Tokenizer.from_file(str(qwen3_vocabulary / "tokenizer.json")))
    shown = (ROOT / "docs/prompts.md").read_text("utf-8").partition("<!-- costs -->\n")[2]
    assert shown.startswith(bench["table"](rows)), "run python bench/prompts.py"
    assert {(r.profile, r.mode) for r in rows} >= {
        (p, m) for p in ("compact", "full") for m in ("staged", "single")
    }

    full = {r.mode: r for r in rows if r.profile == "full"}
    assert full["staged"].read == full["staged"].words + 1024 * full["staged"].images
    assert full["staged"].calls == 22
    assert full["single"].calls == 1
