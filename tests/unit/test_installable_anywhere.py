"""Every module imports without `fcntl`, `resource`, `pwd`, `grp` and `termios`, as on Windows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mmrerank
import mmrerank_app

CODE = """
import importlib, sys

ABSENT = ("fcntl", "resource", "pwd", "grp", "termios")

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in ABSENT:
            raise ImportError(f"no module named {name!r} on this system")

for name in ABSENT:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Hidden())
for module in sys.argv[1:]:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise SystemExit(f"{module}: {error}")
print(len(sys.argv) - 1)
"""


def modules(package: Path) -> list[str]:
    """All of a package but its ``__main__``, which starts the command."""
    found = []
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        if parts[-1] != "__main__":
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


@pytest.mark.slow
def test_every_module_imports_where_only_unix_modules_are_absent() -> None:
    names = [
        name for package in (mmrerank, mmrerank_app) for name in modules(Path(str(package.__file__)).parent)
    ]
    assert len(names) > 100
    done = subprocess.run(
        [sys.executable, "-c", CODE, *names],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) == len(names)
