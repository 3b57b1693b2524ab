"""Shared fixtures: one compute thread, no hub, tiny Qwen-VL folders, small pictures, the photographs."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# before anything imports torch: results and timings must not depend on the machine's cores
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MMRERANK_LEDGER"] = "off"  # tests leave nothing in anybody's home
os.environ["MMRERANK_HOME"] = f"{__file__}/home"  # nor are anybody's defaults in force; it cannot be made
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # compiling ranx takes longer than running it as it is
for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
    os.environ.pop(name, None)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from PIL import Image as Pillow  # noqa: E402

from mmrerank.types import Image  # noqa: E402


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder of a tiny random Qwen-VL checkpoint of a kind, built once a session."""
    from tiny_qwen import build
    from transformers.utils import logging

    logging.disable_progress_bar()
    built: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in built:
            built[kind] = build(tmp_path_factory.mktemp(kind), kind)
        return built[kind]

    return folder


@pytest.fixture(scope="session")
def qwen_chats(tiny_qwen: Callable[[str], Path]) -> Callable[[str], Any]:
    """Gives the `transformers` chat over the tiny checkpoint of a kind, loaded once a session."""
    from mmrerank.chat.open import open_chat

    opened: dict[str, Any] = {}

    def chat(kind: str) -> Any:
        if kind not in opened:
            opened[kind] = open_chat(f"transformers:{tiny_qwen(kind)}", device="cpu")
            opened[kind].label_share = 0.0  # random weights would say anything rather than a label
        return opened[kind]

    return chat


@pytest.fixture(scope="session")
def picture() -> Callable[..., Image]:
    """Makes a PNG image of given width, height (pixels) and seed, in memory."""

    def make(width: int = 96, height: int = 96, seed: int = 0) -> Image:
        noise = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
        file = io.BytesIO()
        Pillow.fromarray(noise).resize((width, height), Pillow.Resampling.BICUBIC).save(file, "png")
        return Image(data=file.getvalue())

    return make


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of real photographs (``MMRERANK_PHOTOS``); tests that need it are skipped without it."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("MMRERANK_PHOTOS", root / "../shared/photos")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no photographs at {folder}; set MMRERANK_PHOTOS")
    return folder


@pytest.fixture(scope="session")
def qwen3_vocabulary() -> Path:
    """The folder of Qwen3's tokenizer (below ``MMRERANK_TOKENIZERS``); tests are skipped without it."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("MMRERANK_TOKENIZERS", root / "../shared/tokenizers"), "qwen3").resolve()
    if not (folder / "tokenizer.json").is_file():
        pytest.skip(f"no vocabulary of Qwen3 at {folder}; set MMRERANK_TOKENIZERS")
    return folder
