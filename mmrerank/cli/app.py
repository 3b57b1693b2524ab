"""``mmrerank app``: opens the web page on one index. The page itself is the package `app`."""

from __future__ import annotations

from typing import Annotated

import typer

from mmrerank.cli.console import working
from mmrerank.cli.options import CacheFlag, ChatFlag, DeviceFlag, opened
from mmrerank.errors import UsageError

EXAMPLE = """mmrerank app
mmrerank app --index pictures --chat transformers:Qwen/Qwen2.5-VL-7B-Instruct --port 8080"""


def app(
    index: Annotated[
        str | None,
        typer.Option(
            "--index",
            metavar="X",
            show_default=False,
            help="Index folder, or a name below ./indexes (default: demo).",
        ),
    ] = None,
    chat: ChatFlag = None,
    cache: CacheFlag = None,
    device: DeviceFlag = None,
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Address to listen at; 0.0.0.0 lets others in."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port to listen at.")
    ] = 7860,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open a browser window.")
    ] = False,
) -> None:
    """Open the web page: search, see before and after, and why."""
    from mmrerank import config
    from mmrerank_app.launch import launch

    settings = config.load(flags={"index": index, "chat": chat, "device": device, "cache": cache})
    with working():
        backend = opened(settings.chat, device=settings.device, given={}, cache=settings.cache)
    try:
        launch(
            index=settings.index,
            chat=backend,
            embedder=settings.embedder,
            device=settings.device,
            host=host,
            port=port,
            browser=not no_browser,
        )
    except OSError as error:
        if "port" not in str(error):
            raise
        raise UsageError(
            f"cannot listen at {host}:{port}; give another --port ({error})"
        ) from error


COMMAND = app
