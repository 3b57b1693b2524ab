"""The catalogue rows of the two bundled models, registered by an entry point as a stranger's would be."""

from __future__ import annotations

from pathlib import Path

from mmrerank.catalog import Card

DOMAIN = "picture book"
"""What the two models know, and the domain of an index of such pictures."""
FOLDER = Path(__file__).parent
PROMPTS = str(FOLDER / "prompts")
"""The prompt profile that the language model was trained on."""

CARDS = (
    Card(
        name="bundled",
        kind="embedder",
        spec=f"open_clip:local-dir:{FOLDER / 'models' / 'clip'}",
        about="Tiny dual encoder trained on the picture book, shipped with the package",
        corpora=(DOMAIN,),
    ),
    Card(
        name="bundled",
        kind="chat",
        spec=f"transformers:{FOLDER / 'models' / 'vlm'}",
        about="Tiny Qwen-VL-format model trained on the picture book, shipped with the package",
        corpora=(DOMAIN,),
        prompts=PROMPTS,
        profile="compact",
        auto={"order_images": "false"},
        brief=True,
        label_share=0.0,  # it was trained on few labels, and to write no answers to their questions
    ),
)
