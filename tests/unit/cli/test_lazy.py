"""A group of commands that are imported when they run: order, guesses, foreign commands, broken ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmrerank.cli.lazy import VerbGroup
from mmrerank.cli.main import cli

FILES = {
    "wave": '''"""Wave to somebody.

    More that nobody lists.
    """
    from typing import Annotated
    import typer
    EXAMPLE = "mmrerank wave Ada"
    def COMMAND(name: Annotated[str, typer.Argument()], fail: bool = False) -> None:
        "Wave."
        if fail:
            raise RuntimeError("no hand")
        typer.echo(f"hello {name}")
    ''',
    "tools": '''"""``mmrerank tools``: two commands."""
    import typer
    from mmrerank.errors import InputError
    EXAMPLE = "mmrerank tools one"
    COMMAND = typer.Typer()
    @COMMAND.command()
    def one() -> None:
        raise InputError("there is nothing")
    ''',
    "raises": '"""Raises."""\n    raise RuntimeError("not today")',
    "lacks": '"""Lacks the rest."""\n    EXAMPLE = ""',
    "odd": '"""Odd."""\n    EXAMPLE = ""\n    def COMMAND(x: "Unknown") -> None: ...',
    "search": '"""Another search."""',
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for ``PYTHONPATH`` with a package whose commands come in by entry points."""
    site = tmp_path_factory.mktemp("site")
    (site / "guest").mkdir()
    (site / "guest/__init__.py").write_text("import numpy  # not for a list of names\n")
    for name, text in FILES.items():
        (site / f"guest/{name}.py").write_text(text.replace("\n    ", "\n"))
    info = site / "guest-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guest\nVersion: 1.0\n")
    rows = "".join(f"{name} = guest.{name}\n" for name in [*FILES, "gone"])
    (info / "entry_points.txt").write_text(f"[console_scripts]\nx = y:z\n\n[mmrerank.verbs]\n{rows}")
    return site


def run(site: Path, *arguments: str, code: int = 0) -> tuple[str, list[str]]:
    """stdout, and the lines of stderr without those two that every command has: a name twice, a file gone."""
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "mmrerank", *arguments],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    lines = done.stderr.splitlines()
    twice = [n for n in lines if "'search' of guest.search is left out: mmrerank.cli.search" in n]
    gone = [n for n in lines if n not in twice and "cannot be used: ModuleNotFoundError: there is" in n]
    assert len(twice) == len(gone) == 1, done.stderr
    return done.stdout, [n for n in lines if n not in (*twice, *gone)]


def test_foreign_commands_are_listed_behind_ours_without_being_imported(site: Path) -> None:
    out, err = run(site, "--help")
    assert not err
    listed = [line.split(maxsplit=1) for line in out.split("Commands:\n")[1].split("\n\n")[0].splitlines()]
    names = [row[0] for row in listed]
    assert names[: len(VerbGroup.first)] == list(VerbGroup.first)
    assert names[len(VerbGroup.first) :] == sorted(names[len(VerbGroup.first) :])
    about = {row[0]: row[1] for row in listed if len(row) == 2}
    assert about["wave"] == "Wave to somebody."
    assert about["tools"] == "Two commands."


@pytest.mark.slow
def test_foreign_commands_run(site: Path) -> None:
    assert run(site, "wave", "Ada") == ("hello Ada\n", [])
    out, _ = run(site, "wave", "--help")
    assert "Example:\n    mmrerank wave Ada" in out
    assert "--install-completion" not in out
    assert "one" in run(site, "tools", "--help")[0]


def test_their_errors_are_messages(site: Path) -> None:
    _, err = run(site, "wave", "Ada", "--fail", code=1)
    assert err[0] == "internal error: RuntimeError: no hand"
    assert run(site, "tools", "one", code=3)[1] == ["error: there is nothing"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("raises", "RuntimeError: not today"),
        ("lacks", "it lacks COMMAND"),
        ("odd", "NameError: name 'Unknown' is not defined"),
        ("gone", "No module named 'guest.gone'"),
    ],
)
def test_a_broken_command_says_file_and_reason(site: Path, name: str, why: str) -> None:
    (line,) = run(site, name, code=2)[1]
    assert line.startswith(f"error: the command {name!r} (guest.{name}) cannot be used: ")
    assert why in line


@pytest.mark.parametrize(
    ("typed", "meant"), [("serch", "'search'"), ("verfy", "'verify'"), ("rernak", "'rerank'")]
)
def test_a_misspelt_command_gets_a_guess(typed: str, meant: str) -> None:
    done = CliRunner().invoke(cli, [typed])
    assert done.exit_code == 2
    assert f"No such command {typed!r}. Did you mean {meant}" in done.output
