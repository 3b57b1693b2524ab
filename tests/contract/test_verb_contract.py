"""What every verb must do: be listed with a sentence, explain itself, show an example."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from mmrerank import registry
from mmrerank.cli.main import cli

NAMES = registry.names("verb")


@pytest.mark.parametrize("name", NAMES)
def test_it_explains_itself(name: str) -> None:
    found = registry.load("verb", name)
    assert callable(found.COMMAND) or isinstance(found.COMMAND, typer.Typer)
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert "--help" in done.output
    assert f"mmrerank {name}" in found.EXAMPLE
    for line in found.EXAMPLE.splitlines():
        assert line[:40] in done.output
    assert registry.about("verb", name)
    assert registry.about("verb", name)[:30] in CliRunner().invoke(cli, ["--help"]).output


@pytest.mark.parametrize("name", NAMES)
def test_a_flag_that_is_not_there_is_a_usage_error(name: str) -> None:
    done = CliRunner().invoke(cli, [name, "--no-such-flag"])
    assert done.exit_code == 2
    assert "no-such-flag" in done.output
