"""Check the installation, or a language model; says which command fixes what is missing. Changes nothing."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from mmrerank import catalog
from mmrerank.cli.console import Output, emit, table_console, working
from mmrerank.cli.options import ChatOptionsFlag, DeviceFlag, OutputFlag, opened, pairs
from mmrerank.errors import ModelError, UsageError

EXAMPLE = """mmrerank doctor
mmrerank doctor --deep --output json
mmrerank doctor --chat vllm:Qwen/Qwen2.5-VL-7B-Instruct@127.0.0.1"""

Status = Literal["ok", "missing", "broken", "off"]

_BASE = {
    "torch": "torch", "torchvision": "torchvision", "transformers": "transformers",
    "open_clip": "open_clip_torch", "qwen_vl_utils": "qwen-vl-utils", "xgrammar": "xgrammar",
    "openai": "openai", "webdataset": "webdataset", "gradio": "gradio",
}  # fmt: skip
_EXTRAS = {
    "pillow_heif": ("pillow-heif", "heif", "HEIC and HEIF photographs"),
    "vllm": ("vllm", "vllm", "the vLLM backend"),
    "matplotlib": ("matplotlib", "train", "training curves"),
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line. ``needed`` says whether the base does not work without it; ``fix`` is a command or a hint."""

    name: str
    status: Status
    needed: bool = False
    detail: str = ""
    fix: str = ""


def doctor(
    deep: Annotated[
        bool, typer.Option("--deep", help="Also import every package and load the models that came with one.")
    ] = False,
    chat: Annotated[
        str | None,
        typer.Option(
            "--chat",
            metavar="SPEC",
            show_default=False,
            help="Ask this language model a dozen tiny questions instead, and show what it really does.",
        ),
    ] = None,
    chat_option: ChatOptionsFlag = None,
    device: DeviceFlag = None,
    output: OutputFlag = Output.text,
) -> None:
    """Check the installation, or a language model; says which command fixes what is missing."""
    if chat_option and chat is None:
        raise UsageError("--chat-option is for --chat; name the model")
    with working():
        if chat is not None:
            checks = list(_model(chat, pairs(chat_option, "--chat-option"), device or ""))
        else:
            checks = list(_checks(deep))
    broken = [c for c in checks if c.needed and c.status != "ok"]
    if output is Output.json:
        emit({"ok": not broken, "checks": [dataclasses.asdict(c) for c in checks]})
    else:
        _print(checks)
    if broken:
        raise typer.Exit(ModelError.exit_code)


def _model(spec: str, given: Mapping[str, str], device: str) -> Iterator[Check]:
    from mmrerank import registry
    from mmrerank.chat import probe, probe_scores
    from mmrerank.rerank import profiles

    plugin = catalog.resolve("chat", spec).spec.partition(":")[0]
    scores = registry.kind_of("chat", plugin) == "scorer"
    chat = opened(spec, device=device, given=given)
    try:
        if not scores:
            asked = profiles.of(chat.prompts)
            yield Check(name="prompts", status="ok", detail=f"{asked.name}, {len(asked.files)} files")
        for found in (probe_scores if scores else probe).probe(chat):
            yield Check(
                name=found.name, status=found.status, needed=found.status == "broken",
                detail=found.detail, fix=found.fix,
            )  # fmt: skip
    finally:
        chat.close()


def _checks(deep: bool) -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info < (3, 11)
    yield Check(
        name="Python", status="broken" if old else "ok", needed=True, detail=version,
        fix="install Python 3.11 or newer" if old else "",
    )  # fmt: skip
    for module, package in _BASE.items():
        yield _package(module, package, "pip install --upgrade mmrerank", needed=True, deep=deep)
    yield _cuda()
    yield from _faiss(deep)
    for module, (package, extra, purpose) in _EXTRAS.items():
        fix = f"pip install 'mmrerank[{extra}]'  # for {purpose}"
        yield _package(module, package, fix, needed=False, deep=deep)
    for card in catalog.cards():
        if (folder := _folder_of(card)) is not None:
            yield _shipped(card, folder, deep)
    yield from _environment()
    yield _writable(Path("indexes"))


def _package(module: str, package: str, fix: str, *, needed: bool, deep: bool) -> Check:
    if find_spec(module) is None:
        return Check(name=package, status="missing", needed=needed, fix=fix)
    try:
        detail = metadata.version(package)
    except metadata.PackageNotFoundError:
        detail = "installed, version unknown"
    if deep:
        try:
            importlib.import_module(module)
        except Exception as error:  # a broken installation may raise anything
            why = f"{detail}; importing it fails: {type(error).__name__}: {error}"
            return Check(name=package, status="broken", needed=needed, detail=why, fix=fix)
    return Check(name=package, status="ok", needed=needed, detail=detail)


def _cuda() -> Check:
    if find_spec("torch") is None:
        return Check(name="CUDA", status="off", detail="torch is missing")
    try:
        import torch

        if torch.cuda.is_available():
            names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
            return Check(name="CUDA", status="ok", detail=", ".join(sorted(names)))
        built = torch.version.cuda
    except Exception as error:  # a torch that does not even import is a finding, not a crash
        return Check(
            name="CUDA", status="broken", needed=True, detail=f"torch cannot be imported: {error}",
            fix="pip install --force-reinstall torch torchvision",
        )  # fmt: skip
    why = f"torch is built for CUDA {built}, but sees no GPU" if built else "torch is built for CPU"
    return Check(name="CUDA", status="off", detail=f"{why}; everything runs on the CPU")


def _faiss(deep: bool) -> Iterator[Check]:
    there = {d for d in ("faiss-cpu", "faiss-gpu") if _installed(d)}
    if len(there) == 2:
        yield Check(
            name="faiss", status="broken", detail="faiss-cpu and faiss-gpu overwrite each other",
            fix="pip uninstall -y faiss-cpu faiss-gpu && pip install 'mmrerank[cpu]'",
        )  # fmt: skip
        return
    package = next(iter(there), "faiss-cpu")
    fix = "pip install 'mmrerank[cpu]'  # or [gpu]; without it --store exact is used"
    yield _package("faiss", package, fix, needed=False, deep=deep)


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _folder_of(card: catalog.Card) -> Path | None:
    """Where the weights of a row lie that came with a package; None for a model of a hub or a server."""
    folder = Path(card.spec.partition(":")[2].removeprefix("local-dir:"))
    return folder if folder.is_absolute() else None


def _shipped(card: catalog.Card, folder: Path, deep: bool) -> Check:
    name = f"{card.name} {card.kind}"
    fix = "install the package again that the model came with: pip install --force-reinstall ..."
    if not folder.is_dir() or not any(folder.iterdir()):
        return Check(name=name, status="missing", needed=True, detail=f"nothing in {folder}", fix=fix)
    if deep:
        try:
            if card.kind == "embedder":
                from mmrerank.embed.open import open_embedder

                open_embedder(card.name)
            else:
                from mmrerank.chat.open import open_chat

                open_chat(card.name)
        except Exception as error:  # the finding is that it does not load, and why
            return Check(name=name, status="broken", needed=True, detail=str(error), fix=fix)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6
    limits = f"; knows the {card.domain} only" if card.domain else ""
    return Check(
        name=name, status="ok", needed=True,
        detail=f"{size:.1f} MB{', loads' if deep else ''}{limits}",
    )  # fmt: skip


def _environment() -> Iterator[Check]:
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    yield Check(
        name="HF_HUB_OFFLINE", status="ok" if offline else "off",
        detail="set: models come from local folders and the cache only" if offline
        else "not set: models may be downloaded",
    )  # fmt: skip
    for name in ("OPENAI_BASE_URL", *(s.key for s in catalog.servers())):
        # never the value: this output is what people paste into reports
        there = bool(os.environ.get(name))
        yield Check(name=name, status="ok" if there else "off", detail="set" if there else "not set")


def _writable(folder: Path) -> Check:
    name = f"./{folder}"
    try:
        near = folder if folder.is_dir() else folder.resolve().parent
        with tempfile.TemporaryFile(dir=near):
            pass
    except OSError as error:
        return Check(
            name=name, status="broken", detail=f"cannot be written: {error.strerror or error}",
            fix="give --index a folder that can be written, or change to one",
        )  # fmt: skip
    return Check(name=name, status="ok", detail="can be written")


def _print(checks: list[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "off": "dim", "missing": "yellow", "broken": "red"}
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    for check in checks:
        style = "red" if check.needed and check.status != "ok" else styles[check.status]
        word = "OK" if check.status == "ok" else check.status
        detail = "\n".join(filter(None, (check.detail, check.fix and f"-> {check.fix}")))
        table.add_row(Text(word, style=style), Text(check.name), Text(detail))
    table_console().print(table)


COMMAND = doctor
