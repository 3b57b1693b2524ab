"""The package on the page about plug-ins, written from it as it stands: every kind is found and works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image as Pillow
from snippets import ROOT, blocks, commands

PAGE = ROOT / "docs/plugins.md"
RUN = """
import json, sys
from command import run
for words in json.loads(sys.argv[1]):
    print("$", *words)
    print(run(*words[1:]).stdout)
"""


def lay_out(folder: Path) -> list[str]:
    """The package, its metadata as an installer writes it, and things to run it on."""
    for block in blocks(PAGE):
        if block.word == "file":
            path = folder / block.value
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, "utf-8")
    (folder / "my_package/__init__.py").touch()
    points = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]
    info = folder / "my_package-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in rows.items())
            for group, rows in points.items()
        )
    )
    pictures = folder / "pictures"
    pictures.mkdir()
    for name, colour in {"red": (250, 20, 20), "blue": (20, 20, 250), "white": (250,) * 3}.items():
        Pillow.new("RGB", (32, 32), colour).save(pictures / f"{name}.png")
    (pictures / "list.csv").write_text("path,place\nred.png,sea\nblue.png,land\n")
    (pictures / "boats.csv").write_text("id,text,image\nq1,a red boat,red.png\nq2,a blue boat,blue.png\n")
    texts = [{"id": n, "text": n} for n in ("a house", "a red boat", "a boat")]
    shown = [{"id": n, "image": f"pictures/{n}.png"} for n in ("blue", "red", "white")]
    for name, candidates in (("requests", texts), ("pictures", shown)):
        request = {"query": {"text": "a red boat"}, "candidates": candidates}
        (folder / f"{name}.jsonl").write_text(json.dumps(request) + "\n")
    return [name for rows in points.values() for name in rows]


@pytest.mark.slow
def test_every_kind_of_plug_in_on_the_page_works(tmp_path: Path) -> None:
    lay_out(tmp_path)
    shown = [c for b in blocks(PAGE) if b.word == "needs" for c in commands(b.text)]
    assert len(shown) >= 10
    path = [str(tmp_path), str(ROOT), str(ROOT / "app"), str(ROOT / "tests/support")]
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:mmrerank", "-c", RUN, json.dumps(shown)],
        cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    printed = {part.partition("\n")[0]: part.partition("\n")[2] for part in done.stdout.split("$ ")[1:]}
    assert "left out" not in done.stderr
    assert "halves" in printed["mmrerank list methods"]
    assert "bright " in printed["mmrerank list models"]
    assert re.search(r"1 +3 ▲ +1.000 +- +white", _of(printed, "--chat brightness:0.4"))
    assert re.search(r"1 +[\d.]+ +red\.png", _of(printed, "a red picture"))
    assert printed["mmrerank sizes by-colour"].strip() == "3"


def _of(printed: dict[str, str], part: str) -> str:
    return next(text for command, text in printed.items() if part in command)
