"""Running the command line in a test, and small things to run it on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from mmrerank.cli.main import cli

NAMES = ["red boat.jpg", "red house.jpg", "blue boat.jpg", "sub/green tree.jpg", "sub/red boat night.jpg"]
SPEC = "open_clip:ViT-B-32:openai"


def run(*arguments: Any, code: int | None = 0, input: str | None = None) -> Result:
    result = CliRunner().invoke(cli, [str(a) for a in arguments], input=input, prog_name="mmrerank")
    assert code is None or result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def data(*arguments: Any, code: int = 0, input: str | None = None) -> Any:
    """The one JSON document on stdout."""
    result = run(*arguments, "--output", "json", code=code, input=input)
    assert result.stdout.count("\n") == 1
    result.stdout.encode("ascii")
    return json.loads(result.stdout)


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    return path


def tiny_clip(folder: Path) -> Path:
    """An open_clip folder whose model is so small that making and loading it takes no time."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(**model_cfg)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg}))
    return folder
