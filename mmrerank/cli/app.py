"""Open the web page: search, see before and after, and why.

The page itself is the package `mmrerank_app`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from mmrerank.cli.console import say, working
from mmrerank.cli.options import CacheFlag, ChatFlag, DeviceFlag, EmbedderFlag, PromptsFlag, opened
from mmrerank.errors import ModelError, UsageError

EXAMPLE = """mmrerank app --index pictures
mmrerank app --index pictures --chat transformers:Qwen/Qwen2.5-VL-7B-Instruct --port 8080
mmrerank app --index pictures --host 0.0.0.0 --allow-host photos.example.org --limit candidates=200"""


def app(
    index: Annotated[
        str | None,
        typer.Option(
            "--index",
            metavar="X",
            show_default=False,
            help="Index folder, or a name below ./indexes (default: the only one there).",
        ),
    ] = None,
    chat: ChatFlag = None,
    prompts: PromptsFlag = None,
    cache: CacheFlag = None,
    embedder: EmbedderFlag = None,
    device: DeviceFlag = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen at; 0.0.0.0 lets others in.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port to listen at.")
    ] = 7860,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser window.")] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="A further name under which the page answers, as of a proxy before it; may be repeated. "
            "Others are refused, so that no web site can reach the page through a visitor's browser.",
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="NAME=VALUE",
            help="What a visitor may ask for, such as candidates=200, calls=2000, seconds=600 or "
            "upload_mb=50; may be repeated. A wrong name lists all of them.",
        ),
    ] = None,
) -> None:
    """Open the web page: search, see before and after, and why."""
    from mmrerank import ImageIndex, ImageSearch, config, registry
    from mmrerank.cli._models import chosen
    from mmrerank.query_embedder import check_remembered
    from mmrerank_app.launch import build, serve
    from mmrerank_app.limits import PageLimits

    settings = config.load(
        flags={
            "index": index,
            "chat": chat,
            "embedder": embedder,
            "device": device,
            "cache": cache,
            "prompts": prompts,
        }
    )
    method = settings.rerank if settings.rerank != "none" else "cotrr"
    with working():
        limits = PageLimits.parse(limit or [])
        if method not in registry.names("strategy"):
            raise UsageError(
                f"MMRERANK_RERANK: {method!r} is no method that the page can begin with; "
                f"it has {', '.join(registry.names('strategy'))}, and options have a field there"
            )
        opened_index = ImageIndex.open(settings.index)
        if not settings.embedder:  # before the page opens, not at its first search
            check_remembered(opened_index.manifest, opened_index.path)
        backend = None
        try:
            spec = chosen("chat", settings.chat, opened_index.domain)
        except ModelError as error:
            say(f"warning: {error}. Until then the page searches without reranking")
            method = "none"
        else:
            backend = opened(
                spec, device=settings.device, given={}, cache=settings.cache, prompts=settings.prompts
            )
        search = ImageSearch(opened_index, chat=backend, embedder=settings.embedder, device=settings.device)
        page = build(search, method=method, limits=limits)
    serve(page, host=host, port=port, browser=not no_browser, allow_hosts=allow_host or ())


COMMAND = app
