"""The examples of README and documentation: found, checked against the real program, and run.

A fenced block of bash or Python has a comment on the line before it: ``<!-- needs: WORDS -->`` says what it
takes to run it, ``<!-- file: PATH -->`` that it is a file of an example package.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from command import run
from typer.core import TyperGroup
from typer.main import get_command

from mmrerank.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(p for p in (ROOT / "docs").rglob("*.md"))]
NEEDS = {
    "nothing",
    "photos",
    "picture-book",
    "plugins",
    "hub",
    "server",
    "gpu",
    "data",
    "make",
    "slow",
    "hand",
}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_COMMENT = re.compile(r"<!-- (\w+): (.*?) -->\n$")
_CODE = re.compile(r"`(mmrerank [a-z][^`]*)`")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: where it stands, its language, its comment (``word: value``) and its text."""

    page: Path
    line: int
    language: str
    word: str
    value: str
    text: str

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.value.replace(",", " ").split()) if self.word == "needs" else frozenset()

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    text = page.read_text("utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        before = text[: fence.start()]
        comment = _COMMENT.search(before)
        found.append(
            Block(
                page=page,
                line=before.count("\n") + 1,
                language=fence[1],
                word=comment[1] if comment else "",
                value=comment[2] if comment else "",
                text=fence[2],
            )
        )
    return found


def every_block() -> list[Block]:
    return [b for page in PAGES for b in blocks(page)]


def marked(word: str, value: str | None = None) -> list[Block]:
    """Blocks with this comment."""
    return [b for b in every_block() if b.word == word and value in (None, b.value)]


def commands(text: str) -> list[list[str]]:
    """The commands of a shell block, continued lines joined, comments left out, pipes cut."""
    lines = text.replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    found = []
    for words in split:
        while "|" in words:
            at = words.index("|")
            found.append(words[:at])
            words = words[at + 1 :]
        if words:
            found.append(words)
    return found


def inline_commands(page: Path) -> Iterator[list[str]]:
    """Commands in running text, but for those with an ellipsis."""
    text = _FENCE.sub("", page.read_text("utf-8"))
    for found in _CODE.finditer(text):
        if "..." not in found[1]:
            yield shlex.split(found[1])


def check_command(words: Sequence[str]) -> None:
    """Raises when the real command line has no such verb or flag, or an argument too many."""
    command: Any = get_command(cli)
    context = command.context_class(command, info_name="mmrerank")
    rest = list(words[1:])
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        name, found, rest = command.resolve_command(context, rest)
        command = found
        context = command.context_class(command, parent=context, info_name=name)
    values, extra, _ = command.make_parser(context).parse_args(rest)
    assert not extra, f"{' '.join(words)}: {extra} is too much"
    for parameter in command.params:
        value = values.get(parameter.name)
        kind = parameter.type_descriptor.annotation
        if value is None or not isinstance(kind, type) or not issubclass(kind, Enum | int | float):
            continue  # files need not be there
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                kind(one)  # raises for a value that is none


def check_python(text: str) -> None:
    """Raises when a block does not compile, or imports what is not there."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            for name in node.names:
                if not hasattr(module, name.name):
                    importlib.import_module(f"{node.module}.{name.name}")


def perform(found: Sequence[Block]) -> str:
    """Runs blocks in order in the working folder, Python ones with shared names; returns what they print."""
    names: dict[str, Any] = {"__name__": "snippet"}
    printed = []
    for block in found:
        if block.language == "python":
            exec(compile(block.text, str(block), "exec"), names)
            continue
        for words in commands(block.text):
            if words[0] == "mmrerank":
                printed.append(run(*words[1:]).stdout)
            else:
                done = subprocess.run(words, capture_output=True, text=True, check=True)
                printed.append(done.stdout)
    return "\n".join(printed)


def lay_out_photos(source: Path, folder: Path) -> None:
    """The photographs under short names, their vectors, and those of their captions as queries."""
    (folder / "photos").mkdir()
    rows = [json.loads(line) for line in (source / "captions.jsonl").read_text("utf-8").splitlines()]
    names = [re.sub(r"^(\d{3})_.*", r"\1.jpg", row["image"]) for row in rows]
    for name, row in zip(names, rows, strict=True):
        (folder / "photos" / name).symlink_to(source / "images" / row["image"])
    (folder / "ids.jsonl").write_text("".join(json.dumps({"image": n}) + "\n" for n in names))
    np.save(folder / "vectors.npy", np.load(source / "clip_vitb32_image.npy"))
    queries = np.load(source / "clip_vitb32_text.npy")
    np.save(folder / "queries.npy", queries / np.linalg.norm(queries, axis=1, keepdims=True))
    (folder / "captions.txt").write_text("\n".join(row["caption"] for row in rows))
