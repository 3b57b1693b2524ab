"""Every example of README and documentation: marked, parsed by the real command line, compiled, and run.

What cannot run here (weights, servers, published data) or takes long (``hand``) is still parsed. The default
suite runs the quick ones.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from snippets import (
    NEEDS,
    PAGES,
    ROOT,
    Block,
    blocks,
    check_command,
    check_python,
    commands,
    every_block,
    inline_commands,
    lay_out_photos,
    marked,
    perform,
)

from mmrerank import registry

SHELL = ("bash", "console")
RUNS = frozenset({"nothing", "photos", "picture-book"})
"""What blocks may need that are run here; `test_plugins_page` runs those that need plug-ins."""


def _groups(slow: bool) -> list[list[Block]]:
    """Blocks of one page that need the same, in order."""
    found: dict[tuple[Path, frozenset[str]], list[Block]] = {}
    for block in every_block():
        wanted = block.needs & RUNS if "hand" not in block.needs else frozenset()
        if wanted and ("slow" in block.needs) is slow:
            found.setdefault((block.page, wanted), []).append(block)
    return list(found.values())


def _id(group: list[Block]) -> str:
    return f"{group[0].page.stem}-{'-'.join(sorted(group[0].needs & RUNS))}"


def test_every_example_says_what_it_needs() -> None:
    wrong = [
        f"{b}: {b.word} {b.value}"
        for b in every_block()
        if (b.language in (*SHELL, "python")) and not (b.word == "file" or (b.needs and b.needs <= NEEDS))
    ]
    assert wrong == []


def test_every_command_is_one_of_the_real_command_line() -> None:
    told = []
    for page in PAGES:
        shown = [c for b in blocks(page) if b.language in SHELL for c in commands(b.text)]
        own = {"sizes", "boats"} if page.stem == "plugins" else set()
        for words in [*shown, *inline_commands(page)]:
            if words[0] != "mmrerank" or own & set(words):
                continue
            try:
                check_command(words)
            except Exception as error:
                told.append(f"{page.relative_to(ROOT)}: {' '.join(words)}: {error}")
    assert told == []


@pytest.mark.parametrize(
    "line",
    [
        "mmrerank seek",
        "mmrerank search --bogus",
        "mmrerank list nonsense",
        "mmrerank info a b",
        "mmrerank demo x",
    ],
)
def test_a_wrong_command_would_be_found(line: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|is not|too much|got unexpected|'NoneType'"):
        check_command(line.split())


def test_every_target_of_make_and_every_extra_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for block in every_block():
        for words in commands(block.text) if block.language in SHELL else ():
            if words[0] == "make":
                assert set(words[1:]) <= targets, str(block)
            if words[:2] == ["pip", "install"]:
                extras = re.findall(r"\[([\w,]+)\]", " ".join(words))
                assert {e for x in extras for e in x.split(",")} <= set(project["optional-dependencies"]), (
                    str(block)
                )


def test_every_python_example_compiles_and_its_imports_exist() -> None:
    for block in every_block():
        if block.language == "python" and block.word != "file":
            try:
                check_python(block.text)
            except Exception as error:
                raise AssertionError(f"{block}: {error}") from error


@pytest.mark.parametrize("group", _groups(slow=False), ids=_id)
def test_quick_examples_run(
    group: list[Block], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    if "photos" in group[0].needs:
        lay_out_photos(request.getfixturevalue("photos"), tmp_path)
    perform(group)


@pytest.mark.slow
@pytest.mark.parametrize("group", _groups(slow=True), ids=_id)
def test_slow_examples_run(group: list[Block], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    perform(group)


def test_prompts_that_are_shown_are_the_real_ones() -> None:
    for block in marked("prompt"):
        real = ROOT / "mmrerank/rerank/prompts" / f"{block.value}.md"
        assert block.text.strip() == real.read_text("utf-8").strip()


def test_the_readme_names_every_method() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    table = text.partition("## Methods")[2].partition("## Published")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(registry.names("strategy")) - {"none"}


def test_the_readme_is_short_and_names_no_machine() -> None:
    assert 6_000 <= len((ROOT / "README.md").read_bytes()) < 9_000
    for page in PAGES:
        text = page.read_text("utf-8")
        assert not re.search(r"(?i)\bpy\w{2}\.(org|io)|\bdownload\.\w+\.org|/(home|root|tmp)/", text), page
