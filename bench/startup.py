"""What starting costs, each beside what it should be near: CPU and wall seconds of processes of their own.

    python bench/startup.py [--repeat 7] [--searches 3] [--embedder SPEC ...]

- `import mmrerank` beside `python -c pass`;
- `mmrerank --help` and each `mmrerank VERB --help` beside the same help of a bare Typer app with as many
  empty verbs;
- `mmrerank search TEXT` beside `import torch`, with the heavy packages that it imported. The second embedder
  is an open_clip model of full size, whose text tower lies in the index. Below 1 the search costs less.

The pairs alternate, so that other work on the machine falls on both; the ratio is of the least CPU seconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image

from mmrerank import discovery

HEAVY = (
    "numpy", "yaml", "PIL", "rich", "jinja2", "openai", "torch", "torchvision", "torch._dynamo", "sympy",
    "timm", "transformers", "tokenizers", "open_clip", "huggingface_hub", "faiss", "xgrammar",
    "gradio", "pandas", "onnxruntime", "pydantic",
)  # fmt: skip
COMMAND = """
import sys
from mmrerank.cli.main import main
try:
    main()
finally:
    if {show}:
        print("heavy:", *[m for m in {heavy} if m in sys.modules], file=sys.stderr)
"""
BARE = """
import typer
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
@app.callback()
def root() -> None:
    "A bare app."
def verb() -> None:
    "A verb."
for name in {names}:
    app.command(name)(verb)
app()
"""
Seconds = tuple[float, float]
"""CPU (user and system, start of Python included) and wall."""


def once(arguments: list[str]) -> tuple[Seconds, str]:
    """What one process took, and its stderr."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{arguments}: {done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (cpu, wall), done.stderr


def beside(name: str, ours: list[str], theirs: list[str], repeat: int) -> str:
    """Prints both, least and median of ``repeat`` runs after one for the disk cache; gives our stderr."""
    _, heard = once(ours)
    once(theirs)
    taken: tuple[list[Seconds], list[Seconds]] = ([], [])
    for _ in range(repeat):
        for found, arguments in zip(taken, (ours, theirs), strict=True):
            found.append(once(arguments)[0])
    cells = [
        f"{pick(s[kind] for s in found):7.3f}"
        for found in taken
        for kind in (0, 1)
        for pick in (min, statistics.median)
    ]
    ratio = min(s[0] for s in taken[0]) / min(s[0] for s in taken[1])
    print(f"{name:36} {' '.join(cells[:4])} | {' '.join(cells[4:])} | {ratio:5.2f}", flush=True)
    return heard


def pictures(folder: Path) -> Path:
    """A few pictures of noise."""
    noise = np.random.default_rng(0)
    folder.mkdir()
    for n in range(4):
        pixels = noise.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{n}.png")
    return folder


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--searches", type=int, default=3)
    parser.add_argument("--embedder", nargs="*", default=["bundled", "open_clip:ViT-B-32:random"])
    args = parser.parse_args()
    names = [name.replace("_", "-") for name in discovery.names("verb")]
    ours = COMMAND.format(show=False, heavy=HEAVY)
    loud = COMMAND.format(show=True, heavy=HEAVY)
    head = "cpu min  median wall min  median"
    print(f"{'seconds':36} {head} | {head} | ratio (cpu min)")
    beside("import mmrerank | pass", ["-c", "import mmrerank"], ["-c", "pass"], 3 * args.repeat)
    with tempfile.TemporaryDirectory() as temporary:
        bare = Path(temporary, "bare.py")
        bare.write_text(BARE.format(names=names), "utf-8")
        for verb in ("", *names):
            help_ = [*([verb] if verb else []), "--help"]
            beside(f"{' '.join(help_)} | bare", ["-c", ours, *help_], [str(bare), *help_], args.repeat)
        folder = pictures(Path(temporary, "pictures"))
        for number, spec in enumerate(args.embedder):
            index = str(Path(temporary, f"index{number}"))
            once(["-c", ours, "index", str(folder), "--index", index, "--embedder", spec])
            search = ["-c", loud, "search", "a red boat", "--index", index, "--embedder", spec]
            heard = beside(f"search, {spec}"[:36], search, ["-c", "import torch"], args.searches)
            print("   ", heard[heard.rfind("heavy:") :].strip())


if __name__ == "__main__":
    main()
