"""Where the files of a model are: paths as they are typed, and repositories of a hub in its cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mmrerank.errors import ModelError
from mmrerank.paths import expanded, is_windows_path


def place(text: str) -> Path:
    """The absolute path that ``text`` names. Raises `ModelError` where it cannot be one of this system."""
    if is_windows_path(text) and os.name != "nt":
        raise ModelError(f"{text} is a path of Windows, and this system has none; write it as it is here")
    return Path(os.path.abspath(expanded(text)))  # noqa: PTH100 - a linked model keeps its name


def is_folder(text: str) -> bool:
    """Whether ``text`` names a folder; False where nobody may look."""
    return os.path.isdir(expanded(text))  # noqa: PTH112 - `Path.is_dir` raises there


def repository(name: str, needed: str, one_of: Sequence[str], patterns: list[str]) -> Path:
    """The folder in the hub's cache of ``ORG/NAME`` or ``ORG/NAME@REVISION``, fetched where it is not there.

    Holds the file ``needed``, the first of ``one_of`` that there is, and what fits ``patterns``. Raises what
    the hub's client raises.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    which, _, revision = name.partition("@")
    version = revision or None
    folder = Path(hf_hub_download(which, needed, revision=version)).parent
    for file in one_of:
        try:
            hf_hub_download(which, file, revision=version)
            break
        except EntryNotFoundError:
            continue
    snapshot_download(which, allow_patterns=patterns, revision=version)
    return folder
