"""A person's defaults, and where their own files are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmrerank import config, home
from mmrerank.errors import InputError, UsageError

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the file of defaults."""
    monkeypatch.setenv("MMRERANK_HOME", str(tmp_path))

    def written(text: str) -> Path:
        home.defaults_file().write_text(text, "utf-8")
        return home.defaults_file()

    return written


def test_recipe_environment_and_flags_go_over_the_defaults(write: Write, tmp_path: Path) -> None:
    write("k: 3\ncandidates: 30\nrerank: judge\nembedder: clip-l14\nchat: qwen2-vl-2b\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("candidates: 40\nrerank: listwise\n")
    env = {"MMRERANK_RERANK": "first", home.VARIABLE: str(tmp_path)}
    found = config.load(recipe, environment=env, flags={"device": "cpu"})
    assert (found.k, found.candidates, found.rerank, found.device) == (3, 40, "first", "cpu")
    # a model is taken where nothing else says which, and replaces none
    assert found.embedder == found.chat == ""
    assert config.usual("embedder") == "clip-l14"
    assert config.usual("chat") == "qwen2-vl-2b"


def test_no_file_is_no_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMRERANK_HOME", str(tmp_path / "none"))
    assert config.defaults() == {}
    assert config.usual("chat") == ""
    assert config.load().k == 10
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("embeder: clip-b32", UsageError, "embeder.*Did you mean 'embedder'"),
        ("k: many", UsageError, "must be a number"),
        ("index: photos", UsageError, "an index is named on the command line"),
        ("chat_options: {trust_remote_code: true}", UsageError, "cannot be set in a file"),
        ("- a list", InputError, "must hold a mapping"),
        ("k: [", InputError, "not valid YAML"),
    ],
)
def test_it_is_read_as_strictly_as_a_recipe(
    write: Write, text: str, error: type[Exception], says: str
) -> None:
    file = write(text)
    with pytest.raises(error, match=says) as refused:
        config.load()
    assert str(file) in str(refused.value)


def test_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.setattr("sys.platform", "linux")
    assert home.indexes_folder({}).as_posix() == "/home/x/.local/share/mmrerank/indexes"
    assert home.defaults_file({}).as_posix() == "/home/x/.config/mmrerank/config.yaml"
    xdg = {"XDG_DATA_HOME": "/d", "XDG_CONFIG_HOME": "relative"}  # a relative one counts for nothing
    assert home.indexes_folder(xdg).as_posix() == "/d/mmrerank/indexes"
    assert home.defaults_file(xdg).as_posix() == "/home/x/.config/mmrerank/config.yaml"
    assert home.defaults_file({home.VARIABLE: "~/m"}).as_posix() == "/home/x/m/config.yaml"
    monkeypatch.setattr("sys.platform", "darwin")
    assert home.defaults_file({}).as_posix() == "/home/x/Library/Application Support/mmrerank/config.yaml"
    monkeypatch.setattr("sys.platform", "win32")
    assert home.indexes_folder({"LOCALAPPDATA": "/l"}).as_posix() == "/l/mmrerank/indexes"
