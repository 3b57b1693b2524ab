"""`mmrerank setup`: what is recommended for which machine, and what is written where."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mmrerank import catalog, machine
from mmrerank.advice import CHATS, EMBEDDERS_CPU, EMBEDDERS_GPU, advise
from mmrerank.cli.main import cli
from mmrerank.machine import Gpu, Machine, parsed

LAPTOP = Machine(cores=4, memory=8_000_000_000)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of defaults, on a laptop."""
    monkeypatch.setenv("MMRERANK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("mmrerank.machine.look", lambda: LAPTOP)
    return tmp_path / "home/config.yaml"


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["setup", *arguments])


@pytest.mark.parametrize(
    ("memory", "gpu", "embedder", "chat"),
    [
        (8, 0, "clip-b32", None),
        (32, 0, "clip-b32", "qwen2-vl-2b"),
        (0, 0, "clip-b32", None),  # a system that does not say
        (32, 4, "clip-l14-laion", None),
        (32, 12.9, "clip-l14-laion", "qwen2-vl-2b"),
        (64, 25.7, "clip-l14-laion", "qwen3-vl-8b"),
        (256, 85, "qwen3-vl-embedding-2b", "qwen3-vl-8b"),
    ],
)
def test_what_fits(memory: float, gpu: float, embedder: str, chat: str | None) -> None:
    gpus = (Gpu(name="small", memory=10**9), Gpu(name="large", memory=int(gpu * 1e9))) if gpu else ()
    found = advise(Machine(cores=8, memory=int(memory * 1e9), gpus=gpus))
    assert (found.embedder.name, found.chat and found.chat.name) == (embedder, chat)
    if gpu and found.chat:
        assert found.embedder.memory + found.chat.memory <= gpu * 1e9


def test_what_is_recommended_may_be_used_for_anything() -> None:
    for kind, names in (("embedder", (*EMBEDDERS_GPU, *EMBEDDERS_CPU)), ("chat", CHATS)):
        for name in names:
            card = catalog.resolve(kind, name)
            assert card.licence in ("MIT", "Apache-2.0")
            assert card.memory
            assert card.bytes
            assert catalog.repository(kind, name)


def test_nothing_is_written_unless_it_is_agreed(file: Path) -> None:
    for arguments in ([], ["--dry-run"], ["--dry-run", "--yes"], ["--output", "json"]):
        told = run(*arguments)
        assert told.exit_code == 0, told.output
        assert not file.exists()
    assert json.loads(told.stdout)["written"] is False


def test_it_shows_and_writes(file: Path) -> None:
    told = run("--yes")
    assert told.exit_code == 0
    assert "4 cores, 8.0 GB of memory, no GPU" in told.stdout
    assert f"wrote {file}" in told.stderr
    assert "hf download timm/vit_base_patch32_clip_224.openai --local-dir clip-b32" in told.stdout
    assert "--embedder open_clip:local-dir:/PATH/clip-b32" in told.stdout
    assert file.read_text() == "embedder: clip-b32\n"
    assert "holds these already" in run("--yes").stderr


def test_other_lines_of_the_file_stay(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("# mine\nembedder: clip-l14  # old\nk: 5")
    told = run("--embedder", "siglip2-b16", "--chat", "ollama:qwen2.5vl:7b", "--yes", "--output", "json")
    found = json.loads(told.stdout)
    assert found["written"]
    assert found["before"] == {"embedder": "clip-l14"}
    assert file.read_text() == "# mine\nembedder: siglip2-b16\nk: 5\nchat: ollama:qwen2.5vl:7b\n"


def test_a_file_of_another_form_is_left_alone(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("{embedder: clip-l14}\n")
    told = run("--yes")
    assert told.exit_code == 3
    assert file.read_text() == "{embedder: clip-l14}\n"


def test_a_wrong_name_is_no_default(file: Path) -> None:
    told = run("--embedder", "clip-b23", "--yes")
    assert told.exit_code == 2
    assert "Did you mean 'clip-b32'?" in told.stderr
    assert not file.exists()


def test_what_nvidia_smi_says() -> None:
    text = "NVIDIA H200, 143771\nA name, with comma, 100\n[N/A]\n\n"
    assert [g.name for g in parsed(text)] == ["NVIDIA H200", "A name, with comma"]


def test_this_machine_is_looked_at_without_torch() -> None:
    code = "import sys, mmrerank.machine as m; print(m.look().cores); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert int(done.stdout) >= 1
    assert done.returncode == 0 or machine.look().gpus, done.stderr
