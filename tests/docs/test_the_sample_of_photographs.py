"""The samples in README and tutorial are what the program prints for real photographs and CLIP vectors.

The verdicts are a person's, who looked at the eight photographs: no weights of a real model are here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import run
from snippets import lay_out_photos, marked

from mmrerank import ImageSearch
from mmrerank.chat.fakes.scripted import Scripted
from mmrerank.cli._show import show
from mmrerank.messages import Ask
from mmrerank.ports import Embedder

QUERY = "a large jet flying over an airport runway"
SEEN = {
    "142": ("missed", "parked jets", "partly", "wet tarmac", 0),
    "074": ("met", "jet in flight", "missed", "sky only", 2),
    "031": ("missed", "empty runway", "met", "runway", 1),
    "114": ("met", "jet climbing", "partly", "seen from the side", 2),
    "080": ("met", "jet landing", "met", "runway below", 3),
    "151": ("met", "jet in flight", "missed", "clouds only", 2),
    "022": ("met", "jet taking off", "met", "runway lights below", 3),
    "167": ("missed", "jet on the ground", "met", "runway", 1),
}


class Captions(Embedder):
    """The genuine CLIP vectors of the captions."""

    spec, fingerprint, dim = "open_clip:ViT-B-32:openai", "given", 512

    def __init__(self, folder: Path) -> None:
        texts = (folder / "captions.txt").read_text().splitlines()
        self.known = dict(zip(texts, np.load(folder / "queries.npy"), strict=True))

    def embed_queries(self, queries: Any) -> Any:
        return np.stack([self.known[q.text] for q in queries])


def person(ask: Ask) -> Any:
    if ask.kind == "deconstruct":
        parts = [("subject", "a flying jet"), ("environment", "an airport runway")]
        return {"components": [{"kind": k, "text": t} for k, t in parts]}
    (label,), (name,) = ask.labels, ask.shown
    first, about, second, beside, grade = SEEN[name[:3]]
    one, two = {"note": about, "verdict": first}, {"note": beside, "verdict": second}
    return {label: {"c1": one, "c2": two, "grade": grade}}


def test_it_is_what_the_program_prints(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out_photos(photos, tmp_path)
    run(
        "index", tmp_path / "photos", "--vectors", tmp_path / "vectors.npy", "--ids", tmp_path / "ids.jsonl",
        "--embedder", Captions.spec, "--index", tmp_path / "index",
    )  # fmt: skip
    search = ImageSearch.open(tmp_path / "index", chat=Scripted(person), embedder=Captions(tmp_path))
    for sample, options in (
        ("airport first", {}),
        ("airport", {"rerank": "cotrr", "order": "sum", "candidates": 8}),
    ):
        capsys.readouterr()
        show(search.search(QUERY, k=5, **options))  # type: ignore[arg-type]
        printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        shown = marked("sample", sample)
        assert shown
        for block in shown:
            lines = block.text.rstrip().splitlines()
            assert lines == printed[: len(lines)], str(block)
