"""Where a person's own files are: the indexes of ``search --in``, and the file of their defaults.

Makes no folder. ``MMRERANK_HOME`` is one folder for both.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from mmrerank.paths import expanded

VARIABLE = "MMRERANK_HOME"
_NAME = "mmrerank"


def indexes_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where indexes go that ``search --in`` makes, such as ``~/.local/share/mmrerank/indexes``.

    >>> indexes_folder({"MMRERANK_HOME": "/data/search"}).as_posix()
    '/data/search/indexes'
    """
    return _folder("XDG_DATA_HOME", ".local/share", environment) / "indexes"


def defaults_file(environment: Mapping[str, str] | None = None) -> Path:
    """The file of a person's defaults, such as ``~/.config/mmrerank/config.yaml``."""
    return _folder("XDG_CONFIG_HOME", ".config", environment) / "config.yaml"


def _folder(variable: str, usual: str, environment: Mapping[str, str] | None) -> Path:
    env = os.environ if environment is None else environment
    if own := env.get(VARIABLE, "").strip():
        return Path(os.path.abspath(expanded(own)))  # noqa: PTH100 - a linked folder keeps its name
    if (named := env.get(variable, "")) and expanded(named).is_absolute():
        return expanded(named) / _NAME
    if sys.platform == "darwin":
        return expanded("~/Library/Application Support") / _NAME
    if sys.platform == "win32":
        return Path(env.get("LOCALAPPDATA") or expanded("~/AppData/Local")) / _NAME
    return expanded("~") / usual / _NAME
