"""Rules of the whole tree: what may be named where, how long files and functions are, what is private."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from mmrerank import registry

ROOT = Path(__file__).resolve().parents[2]
CORE = [ROOT / "mmrerank", ROOT / "app/mmrerank_app", ROOT / "configs"]
NEXT_DOOR = ROOT / "mmrerank/picturebook"
NAMED = re.compile(r"picturebook|picture book|picture-book|bundled|\bdemo\b", re.I)
TEXT = {".py", ".toml", ".yaml", ".md", ".html", ".jinja", ".css", ".json"}
MOST_LINES = 400
LONG_FUNCTION, MOST_LONG_FUNCTIONS = 60, 10
MOST_GETATTR = 10


def sources() -> list[Path]:
    """Every Python file of the two packages."""
    return sorted(p for root in CORE[:2] for p in root.rglob("*.py"))


def at(file: Path, line: int, text: str) -> str:
    return f"{file.relative_to(ROOT)}:{line}: {text.strip()}"


def lines(file: Path) -> Iterator[tuple[int, str]]:
    yield from enumerate(file.read_text("utf-8").splitlines(), start=1)


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def offenders(found: list[str]) -> str:
    return "\n" + "\n".join(found)


def test_the_core_names_the_picture_book_nowhere() -> None:
    files = (p for root in CORE for p in sorted(root.rglob("*")) if p.suffix in TEXT)
    found = [
        at(file, number, line)
        for file in files
        if NEXT_DOOR not in file.parents
        for number, line in lines(file)
        if NAMED.search(line)
    ]
    assert not found, offenders(found)


def test_no_file_is_long() -> None:
    counted = {p: len(list(lines(p))) for p in sources()}
    found = [f"{p.relative_to(ROOT)}: {n} lines" for p, n in counted.items() if n > MOST_LINES]
    assert not found, offenders(found)


def test_few_functions_are_long() -> None:
    found = [
        at(file, node.lineno, f"{node.name}: {length} lines")
        for file in sources()
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > LONG_FUNCTION
    ]
    assert len(found) <= MOST_LONG_FUNCTIONS, offenders(found)


def test_attributes_are_declared_and_not_probed() -> None:
    rows = [
        (line, at(file, number, line))
        for file in sources()
        for number, line in lines(file)
        if "getattr(" in line and "def __getattr__" not in line
    ]
    found = [row for _, row in rows]
    assert len(found) <= MOST_GETATTR, offenders(found)
    bare = [row for line, row in rows if "#" not in line]
    assert not bare, "a comment on the line says why:" + offenders(bare)


def test_what_starts_with_an_underscore_stays_in_its_package() -> None:
    modules = {_dotted(file): file for file in sources()}
    found = [
        at(file, line, f"uses {used}")
        for name, file in modules.items()
        for line, used in _private(file, modules)
        if not _inside(name, used, modules)
    ]
    assert not found, offenders(found)


def _dotted(file: Path) -> str:
    root = ROOT / "app" if "mmrerank_app" in file.parts else ROOT
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_private(part: str) -> bool:
    return part.startswith("_") and not part.startswith("__")


def _private(file: Path, modules: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each private module or name that ``file`` takes from our packages."""
    tree = parsed(file)
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        pairs: list[tuple[str, str]] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            pairs = [(a.asname or a.name, f"{node.module}.{a.name}") for a in node.names]
        elif isinstance(node, ast.Import):
            pairs = [(a.asname or a.name, a.name) for a in node.names]
        for name, whole in pairs:
            if whole.split(".")[0] in ("mmrerank", "mmrerank_app"):
                bound[name] = whole
                if any(map(_is_private, whole.split("."))):
                    yield node.lineno, whole
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            whole = bound.get(ast.unparse(node.value), "")
            if whole in modules:
                yield node.lineno, f"{whole}.{node.attr}"


def _inside(user: str, used: str, modules: dict[str, Path]) -> bool:
    """Whether ``user`` lies in the package to which the first private part of ``used`` belongs."""
    parts = used.split(".")
    first = next(n for n, part in enumerate(parts) if _is_private(part))
    owner = ".".join(parts[:first])
    if owner in modules and modules[owner].name != "__init__.py":
        owner = owner.rpartition(".")[0]  # a private name of a module: private to the module's package
    return user == owner or user.startswith(f"{owner}.")


def test_every_built_in_plug_in_is_checked_against_its_interface() -> None:
    """``tests/typing/plugins.py`` is read by mypy; a plug-in that it lacks is not checked."""
    tree = ast.parse((ROOT / "tests/typing/plugins.py").read_text("utf-8"))
    checked = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    there = {
        registry.place(kind, name)
        for kind in ("strategy", "chat", "scorer", "embedder", "store", "corpus")
        for name in registry.names(kind)
    }
    # it takes two files besides a location, so its ``open`` is not that of the interface
    unlike = {"mmrerank.corpus.embeddings"}
    found = sorted(p for p in there - checked - unlike if p.startswith("mmrerank."))
    assert not found, offenders(found)
