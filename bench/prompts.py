"""What CoTRR costs with each prompt profile, in calls and tokens: the table of docs/prompts.md.

    python bench/prompts.py [--vocabulary DIR] [--candidates 20] [--image-tokens 1024]

``DIR`` holds Qwen3's ``tokenizer.json``; by default it is the folder ``qwen3`` below ``MMRERANK_TOKENIZERS``.
Every question is the one that a model would be asked; the replies are made up, of a fixed length. No model is
loaded. A question is counted as Qwen's chat template has it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from mmrerank.chat.fakes.scripted import Scripted
from mmrerank.messages import Ask
from mmrerank.rerank import profiles
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Image, Query

SEARCH = Query(text="three children flying a kite at the seaside in the evening, nobody wearing shoes")
PARTS = [
    {"kind": "subject", "text": "children"},
    {"kind": "count", "text": "exactly three children"},
    {"kind": "activity", "text": "the children fly a kite"},
    {"kind": "environment", "text": "at the seaside in the evening"},
    {"kind": "exclusion", "text": "no shoes on the children"},
]
NOTE = "two children hold the line of a kite"
MODES: Mapping[str, Mapping[str, Any]] = {
    "staged": {},
    "staged, `order_images=false`": {"order_images": "false"},
    "single": {"mode": "single"},
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One row: what a ranking takes. Tokens of images are those of the budget."""

    profile: str
    mode: str
    calls: int
    images: int
    words: int
    read: int
    longest: int
    written: int
    most: int


def answered(ask: Ask) -> dict[str, Any]:
    """A reply of usual length: eight words for each part of an image."""
    if ask.kind == "deconstruct":
        return {"components": PARTS}
    if ask.kind == "evaluate":
        one = {c.id: {"note": NOTE, "verdict": "met"} for c in ask.components}
        return {n: {**one, "grade": 3} for n in ask.labels}
    scores = {n: 90 - k for k, n in enumerate(ask.labels)}
    judged = {"note": NOTE, "verdicts": ["met"] * len(PARTS), "grade": 3}
    ordered = {"reason": NOTE, "scores": scores}
    thoughts = {"components": PARTS, "images": dict.fromkeys(ask.labels, judged)}
    return ordered if ask.kind == "order" else {**thoughts, **ordered}


def tokens(ask: Ask, vocabulary: Tokenizer, image_tokens: int) -> tuple[int, int]:
    """Tokens of a question's words, and of all of it."""
    said = "".join(
        f"<|im_start|>{m.role}\n"
        + "".join(
            "<|vision_start|><|image_pad|><|vision_end|>" if p.text is None else p.text for p in m.parts
        )
        + "<|im_end|>\n"
        for m in ask.messages
    )
    ids = vocabulary.encode(f"{said}<|im_start|>assistant\n", add_special_tokens=False).ids
    images = ids.count(vocabulary.token_to_id("<|image_pad|>"))
    return len(ids) - images, len(ids) + images * (image_tokens - 1)


def costs(vocabulary: Tokenizer, *, candidates: int = 20, image_tokens: int = 1024) -> list[Cost]:
    """A row for each named profile and each of `MODES`."""
    group = [Candidate(id=str(n), image=Image(data=f"{n}".encode())) for n in range(candidates)]
    rows = []
    for profile in reversed(profiles.named()):
        for mode, options in MODES.items():
            chat = Scripted(answered)
            method = Reranker("cotrr", chat, prompts=profile.name, image_tokens=image_tokens, **options)
            method.rank(SEARCH, group)
            counted = [tokens(a, vocabulary, image_tokens) for a in chat.asks]
            rows.append(
                Cost(
                    profile=profile.name,
                    mode=mode,
                    calls=len(chat.asks),
                    images=sum(p.image is not None for a in chat.asks for m in a.messages for p in m.parts),
                    words=sum(w for w, _ in counted),
                    read=sum(r for _, r in counted),
                    longest=max(r for _, r in counted),
                    written=sum(len(vocabulary.encode(json.dumps(answered(a))).ids) for a in chat.asks),
                    most=sum(a.max_tokens for a in chat.asks),
                )
            )
    return rows


def table(rows: Sequence[Cost]) -> str:
    """The rows in Markdown."""
    head = ("prompts", "mode", "calls", "images shown", "tokens read", "of them words", "longest question",
            "tokens written", "at most")  # fmt: skip
    lines = [head, ["---"] * 2 + ["---:"] * 7]
    for r in rows:
        counts = (r.calls, r.images, r.read, r.words, r.longest, r.written, r.most)
        lines.append([f"`{r.profile}`", r.mode, *(f"{n:,}" for n in counts)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--vocabulary", type=Path, default=Path(os.environ.get("MMRERANK_TOKENIZERS", "."), "qwen3")
    )
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--image-tokens", type=int, default=1024)
    given = parser.parse_args()
    file = given.vocabulary / "tokenizer.json"
    if not file.is_file():
        print(f"there is no vocabulary of Qwen3 at {file}; name its folder with --vocabulary")
        return
    vocabulary = Tokenizer.from_file(str(file))
    print(table(costs(vocabulary, candidates=given.candidates, image_tokens=given.image_tokens)), end="")


if __name__ == "__main__":
    main()
