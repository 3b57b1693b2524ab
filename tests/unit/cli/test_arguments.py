"""What every argument and option goes through: no empty names, and a home for ``~`` (rclone/rclone#4239)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmrerank.cli.main import cli


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("index @ --index x", "SOURCE"),
        ("index . --index @", "--index"),
        ("index . --index x --ids a --vectors @", "--vectors"),
        ("search boat --index @", "--index"),
        ("search boat --run @", "--run"),
        ("search --image @", "--image"),
        ("search boat --embedder @", "--embedder"),
        ("search boat --cache @", "--cache"),
        ("search boat --config @", "--config"),
        ("rerank --input @", "--input"),
        ("score @ --qrels q", "RUN"),
        ("score r --qrels @", "--qrels"),
        ("compare a @ --qrels q", "RUN"),
        ("info @", "INDEX"),
        ("verify @", "INDEX"),
        ("cache info --cache @", "--cache"),
        ("cache clear --cache @", "--cache"),
        ("usage --ledger @", "--ledger"),
        ("doctor --chat @", "--chat"),
        ("eval cirr --run @", "--run"),
    ],
)
def test_an_empty_name_is_an_error_of_usage(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = " " if name == "INDEX" else ""
    result = CliRunner().invoke(cli, [given if a == "@" else a for a in command.split()])
    assert result.exit_code == 2
    assert f"'{name}'" in result.output
    assert "it is empty" in result.output
    assert not list(tmp_path.iterdir())


def test_free_words_may_be_empty_and_an_empty_variable_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(cli, ["search", ""])
    assert (told.exit_code, "give TEXT, --image or --turn" in told.output) == (2, True)
    for variable in ("MMRERANK_INDEX", "MMRERANK_CACHE"):
        monkeypatch.setenv(variable, "")
    assert CliRunner().invoke(cli, ["index", "."]).exit_code == 2
    told = CliRunner().invoke(cli, ["cache", "info"])
    assert (told.exit_code, "no cache is named" in told.output) == (2, True)


def test_a_tilde_is_the_home_folder_wherever_a_path_may_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.trec").write_text("q Q0 a 1 1.0 t\n")
    (tmp_path / "s.trec").write_text("q Q0 b 1 1.0 t\n")
    (tmp_path / "q.txt").write_text("q 0 a 1\n")

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli, list(arguments))
        assert result.exit_code == 0, result.output
        return result.stdout

    body = json.loads(run("score", "~/r.trec", "--qrels=~/q.txt", "--metrics", "RR", "--output", "json"))
    assert body["metrics"]["RR"]["value"] == 1
    run("compare", "one=~/r.trec", "~/s.trec", "--qrels", "~/q.txt", "--metrics", "RR")
    for command in ("info", "verify"):
        told = CliRunner().invoke(cli, [command, "~/no"])
        assert (told.exit_code, f"no index {tmp_path}/no" in told.output) == (4, True)
    told = CliRunner().invoke(cli, ["search", "x"], env={"MMRERANK_INDEX": "~/no"})
    assert f"no index {tmp_path}/no" in told.output


def test_a_run_without_a_file_names_itself(tmp_path: Path) -> None:
    told = CliRunner().invoke(cli, ["compare", "old=", "new=x", "--qrels", "q"])
    assert (told.exit_code, "'old=' names no file" in told.output) == (2, True)


@pytest.mark.parametrize("name", ["-", "https://example.invalid/photos"])
@pytest.mark.parametrize("command", ["index . --index @", "search boat --index @", "info @", "verify @"])
def test_an_index_is_a_folder(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(cli, [name if a == "@" else a for a in command.split()])
    assert told.exit_code == 2
    assert f"{name} is " in told.output
    assert "an index is a folder" in told.output
    assert not list(tmp_path.iterdir())


def test_options_of_a_model_need_the_model() -> None:
    told = CliRunner().invoke(cli, ["doctor", "--chat-option", "timeout=3"])
    assert (told.exit_code, "--chat-option is for --chat" in told.output) == (2, True)
