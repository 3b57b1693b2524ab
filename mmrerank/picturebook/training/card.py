"""Model cards: what a trained folder is, from what, with what figures, and what it cannot do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrerank.picturebook.cards import PROMPTS
from mmrerank.rerank import prompting

TRAINED_ON = ("deconstruct", "evaluate", "order", "score", "prefer", "pick", "grade")
_TEXT = {
    "vlm": (
        "Picture-book multimodal model",
        "A Qwen2.5-VL of about 3.5 million parameters, trained from nothing on scenes drawn by "
        "`mmrerank.picturebook`, with the prompts of `mmrerank/picturebook/prompts`.",
        "Knows the picture book's things, colours, places and weathers and nothing else. Its order follows "
        "its verdicts, but the sentence it puts before that order is often wrong. Asked by looking alone "
        "(score, prefer, pick, grade, or order with images), it gains less. It was not trained on `single`. "
        "On photographs its answers mean nothing.",
    ),
    "clip": (
        "Picture-book dual encoder",
        "An open_clip model of about 1.6 million parameters, trained from nothing on scenes and captions "
        "made by `mmrerank.picturebook`.",
        "Knows the picture book and nothing else. On photographs its order means nothing.",
    ),
}


def write_card(folder: Path, kind: str, *, recipe: str, figures: Mapping[str, Any]) -> None:
    """Writes ``folder/README.md``; for the multimodal model it holds the digests of its prompts."""
    title, about, limits = _TEXT[kind]
    lines = [f"# {title}", "", about, "", f"Recipe: `{recipe}`", "", "## Figures", ""]
    lines += [f"- {name}: {json.dumps(value)}" for name, value in figures.items()]
    lines += ["", "## Limits", "", limits, ""]
    if kind == "vlm":
        lines += ["## Prompts it was trained on (SHA-256)", ""]
        with prompting.profile(PROMPTS):
            lines += [f"- {name}: `{prompting.load(name).digest}`" for name in TRAINED_ON]
        lines += [""]
    (folder / "README.md").write_text("\n".join(lines), "utf-8")
