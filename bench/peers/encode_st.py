"""Embeds the images of a folder with sentence-transformers, once for each line on stdin; for bench/index.py.

    python bench/peers/encode_st.py FOLDER BATCH DTYPE

Runs in an interpreter of its own, which needs sentence-transformers, transformers, torch, torchvision and
pillow. The model is CLIP ViT-B/32 with random weights in a temporary folder. Prints ``ready``, and for each
pass a line of JSON: seconds of the clock and of the processor.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import PIL.Image
import torch


def model(folder: str, dtype: str) -> Any:
    """ViT-B/32 of transformers' own defaults, with a tokenizer of a few letters that nothing asks."""
    from sentence_transformers import SentenceTransformer
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer
    from transformers.utils.logging import disable_progress_bar

    marks = ["<|startoftext|>", "<|endoftext|>", "a", "a</w>"]
    Path(folder, "vocab.json").write_text(json.dumps({m: n for n, m in enumerate(marks)}))
    Path(folder, "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    CLIPModel(CLIPConfig()).save_pretrained(folder)
    CLIPProcessor(image_processor=CLIPImageProcessor(), tokenizer=tokenizer).save_pretrained(folder)
    disable_progress_bar()
    options = {"dtype": vars(torch)[dtype]}
    return SentenceTransformer(folder, device="cpu", model_kwargs=options)


def main(images: str, batch: str, dtype: str) -> None:
    """Loads the model and answers."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    files = sorted(Path(images).iterdir())
    with tempfile.TemporaryDirectory() as folder:
        encoder = model(folder, dtype)

        def encode(some: list[Path]) -> Any:
            pictures = [PIL.Image.open(file) for file in some]
            return encoder.encode(pictures, batch_size=int(batch), show_progress_bar=False)

        encode(files[: int(batch)])
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for _ in sys.stdin:
            clock, cpu = time.perf_counter(), time.process_time()
            shape = encode(files).shape
            told = {"wall": time.perf_counter() - clock, "cpu": time.process_time() - cpu, "shape": shape}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
