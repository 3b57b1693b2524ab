"""What the wheel packs, without the picture book: it still indexes, searches and reranks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from command import tiny_clip
from PIL import Image as Pillow

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
COLOURS = ("red", "green", "blue", "white")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for ``PYTHONPATH`` with the packages of the wheel and no entry point of the picture book."""
    folder = tmp_path_factory.mktemp("installed")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        shutil.copytree(
            ROOT / package,
            folder / Path(package).name,
            ignore=shutil.ignore_patterns("picturebook", "__pycache__"),
        )
    # of this name, so that it hides the one that is installed here
    facts = folder / "mmrerank-0.1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.4\nName: mmrerank\nVersion: 0.1.0\n")
    (facts / "entry_points.txt").write_text("[console_scripts]\nmmrerank = mmrerank.cli.main:main\n")
    return folder


def run(installed: Path, *arguments: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
    paths = {"PYTHONPATH": str(installed), "MMRERANK_LEDGER": "off", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **paths},
        cwd=installed,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    return done


def command(installed: Path, *arguments: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run(installed, "-m", "mmrerank", *arguments, code=code)


def test_the_packages_are_there_and_the_picture_book_is_not(installed: Path) -> None:
    assert sorted(p.name for p in installed.glob("*")) == [
        "mmrerank",
        "mmrerank-0.1.0.dist-info",
        "mmrerank_app",
    ]
    line = "import mmrerank, mmrerank_app.launch; from mmrerank import Reranker; print(mmrerank.__file__)"
    assert run(installed, "-c", line).stdout.strip() == str(installed / "mmrerank/__init__.py")
    listed = command(installed, "--help").stdout.partition("Commands:")[2].partition("\n\n")[0]
    verbs = {line.split()[0] for line in listed.splitlines() if line.strip()}
    assert "search" in verbs
    assert "demo" not in verbs
    names = json.loads(command(installed, "list", "models", "--output", "json").stdout)["models"]
    assert names
    assert "bundled" not in {model["name"] for model in names}
    assert "no such command" in command(installed, "demo", code=2).stderr.casefold()


def test_it_indexes_searches_and_reranks(installed: Path, tmp_path: Path) -> None:
    weights, images = tmp_path / "clip", tmp_path / "images"
    weights.mkdir()
    images.mkdir()
    tiny_clip(weights)
    for colour in COLOURS:
        Pillow.new("RGB", (32, 32), colour).save(images / f"{colour} boat.png")
    index = tmp_path / "index"
    embedder = ("--embedder", f"open_clip:local-dir:{weights}")
    made = command(installed, "index", images, *embedder, "--index", index, "--output", "json")
    assert json.loads(made.stdout)["added"] == len(COLOURS)
    searched = json.loads(
        command(installed, "search", "a red boat", "--index", index, *embedder, "--output", "json").stdout
    )
    ids = [hit["id"] for hit in searched["hits"]]
    assert sorted(ids) == sorted(f"{colour} boat.png" for colour in COLOURS)
    reranked = json.loads(
        command(
            installed, "search", "red boat", "--index", index, *embedder, "--rerank", "cotrr",
            "--chat", "oracle", "--output", "json",
        ).stdout
    )  # fmt: skip
    assert reranked["hits"][0]["id"] == "red boat.png"
    unnamed = command(
        installed, "search", "red boat", "--index", index, *embedder, "--rerank", "cotrr", code=5
    )
    assert "--chat" in unnamed.stderr
    grades = tmp_path / "grades.jsonl"
    grades.write_text(json.dumps({"query": "a boat", "grades": {"blue boat.png": 3}}) + "\n")
    request = tmp_path / "requests.jsonl"
    candidates = [{"id": p.name, "image": str(p)} for p in sorted(images.iterdir())]
    request.write_text(json.dumps({"query": {"text": "a boat"}, "candidates": candidates}) + "\n")
    ranked = command(
        installed, "rerank", "--input", request, "--rerank", "pointwise", "--chat", f"oracle:{grades}",
        "--output", "json",
    )  # fmt: skip
    assert json.loads(ranked.stdout)["hits"][0]["id"] == "blue boat.png"
