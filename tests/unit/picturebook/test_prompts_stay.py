"""The language model was trained on these prompts, word for word: its profile renders them as it did then."""

from __future__ import annotations

import runpy
from pathlib import Path

from mmrerank.picturebook.cards import PROMPTS
from mmrerank.rerank import profiles, prompting

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def test_every_prompt_is_rendered_as_it_was_trained_on() -> None:
    with prompting.profile(PROMPTS):
        asks = runpy.run_path(str(GOLDEN / "test_prompts.py"))["ASKS"]
    trained = sorted((GOLDEN / "prompts" / "compact").glob("*.txt"))
    assert len(trained) == 30
    for file in trained:
        text = "\n\n".join(f"{m.role}: {m.text}" for m in asks[file.stem].messages) + "\n"
        assert text == file.read_text("utf-8"), file.stem


def test_the_profile_is_whole() -> None:
    # a prompt that the product gains later is none that this model knows, and results say so
    (compact,) = [p for p in profiles.named() if p.folder == PROMPTS]
    assert set(compact.lacking) == {"describe"}
