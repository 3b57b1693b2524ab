"""Model folders that try to run code: sound weights, and configurations that name Python files of theirs."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
}
MODULE = "evil_module"


class Bomb:
    """Writes ``marker`` when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


def clip_weights() -> dict[str, Any]:
    """Sound weights of `CLIP`."""
    import torch
    from open_clip.model import CLIP as Model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {k: v.contiguous() for k, v in Model(**CLIP).state_dict().items()}


def hostile_clip(folder: Path, marker: Path, **text: Any) -> Path:
    """An open_clip folder whose tokenizer is a Python file; ``text`` is added to its ``text_cfg``."""
    from safetensors.torch import save_file

    write_tokenizer(folder, marker)
    config = {**CLIP, "text_cfg": {**CLIP["text_cfg"], **text}}  # type: ignore[dict-item]
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    save_file(clip_weights(), str(folder / "open_clip_model.safetensors"))
    return folder


def hostile_chat(folder: Path, marker: Path) -> Path:
    """A folder like a Qwen3-VL checkpoint, whose processor and tokenizer are Python files."""
    write_tokenizer(folder, marker)
    auto = {"AutoProcessor": f"{MODULE}.EvilTokenizer"}
    body = {"processor_class": "EvilProcessor", "auto_map": auto}
    (folder / "processor_config.json").write_text(json.dumps(body))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def write_tokenizer(folder: Path, marker: Path) -> None:
    """A sound ``tokenizer.json``, and beside it one that is code."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    folder.mkdir(parents=True, exist_ok=True)
    known = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[BOS]", "[EOS]", "a", "boat", "red"])}
    made = Tokenizer(WordLevel(known, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.save(str(folder / "tokenizer.json"))
    body = {
        "tokenizer_class": "EvilTokenizer", "pad_token": "[PAD]", "unk_token": "[UNK]",
        "auto_map": {"AutoTokenizer": [f"{MODULE}.EvilTokenizer", f"{MODULE}.EvilTokenizer"]},
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(body))
    write_module(folder, marker)


def write_module(folder: Path, marker: Path) -> None:
    """A Python file that writes ``marker`` when it is imported, under every name that is looked for."""
    code = (
        f"open({str(marker)!r}, 'w').close()\n"
        "from transformers import PreTrainedTokenizerFast\n"
        "class EvilTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    for name in (MODULE, "tokenizer", "modeling", "custom_generate/generate"):
        file = folder / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(code)


def bomb_bytes(marker: Path) -> bytes:
    """A plain pickle that writes ``marker``."""
    return pickle.dumps({"state_dict": Bomb(marker)})
