"""Files of checkpoints: fetched from the hub, and completed by another model's processor."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmrerank import hub
from mmrerank.paths import expanded

_OWN = ("config.json", "generation_config.json")
"""What of a folder is the model's and not its processor's, beside the weights."""
_PROCESSOR = ("preprocessor_config.json", "processor_config.json")
_TOKENIZER = ("tokenizer.json", "vocab.json")
_READ = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]


def fetched(name: str, files: Sequence[str], revision: str = "") -> Path:
    """The folder in the hub's cache of a repository, fetched where it is not there. Raises `ModelError`."""
    from huggingface_hub import snapshot_download

    which = f"{name}@{revision}" if revision else name
    with hub.asked(f"the model {which!r}", hub.copied(which, "the folder in the place of its name")):
        return Path(snapshot_download(name, allow_patterns=list(files), revision=revision or None))


@contextmanager
def completed(name: str, processor: str) -> Iterator[str]:
    """A folder of the model ``name``, with the tokenizer and image processor of another where it has none.

    Both are folders or hub names. Within it the folder may be loaded; nothing is copied where links work.
    """
    folder = expanded(name) if expanded(name).is_dir() else fetched(name, _READ) if name.strip() else None
    if folder is None or all(any((folder / f).exists() for f in kind) for kind in (_PROCESSOR, _TOKENIZER)):
        yield name
        return
    other = expanded(processor)
    if not other.is_dir():
        other = fetched(processor, [p for p in _READ if p != "*.safetensors"])
    with tempfile.TemporaryDirectory(prefix="mmrerank-model-") as made:
        there = {f.name: f for f in other.iterdir() if f.is_file() and f.suffix != ".safetensors"}
        own = {f.name: f for f in folder.iterdir() if f.is_file()}
        for file_name, file in {**{n: f for n, f in there.items() if n not in _OWN}, **own}.items():
            if file_name.endswith(".index.json") and file_name not in own:
                continue  # of the other's weights
            _linked(file.resolve(), Path(made) / file_name)
        yield made


def _linked(file: Path, place: Path) -> None:
    try:
        place.symlink_to(file)
    except OSError:  # Windows, without the right to make links
        shutil.copyfile(file, place)
