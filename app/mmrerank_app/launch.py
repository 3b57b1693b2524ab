"""Builds and serves the page over any index. Listens on loopback by default; fetches and reports nothing.

Pictures reach the browser as small copies inside the page, never as files or paths. Every request passes
`mmrerank_app.gate` first.
"""

from __future__ import annotations

import os
import socket
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmrerank import registry
from mmrerank.errors import UsageError
from mmrerank.search import ImageSearch
from mmrerank_app.hosts import EVERYWHERE, Hosts
from mmrerank_app.limits import PageLimits
from mmrerank_app.search_tab import Searches, search_tab
from mmrerank_app.telling import Telling
from mmrerank_app.uploads import Uploads
from mmrerank_app.work import Work

if TYPE_CHECKING:
    import gradio as gr
    from starlette.types import ASGIApp

CSS = """
.gradio-container{width:100%!important;max-width:min(1180px,100vw)!important;margin:0 auto!important}
.gradio-container :is(.main,.wrap,.contain,.column,.block,.html-container){min-width:0;max-width:100%}
footer{display:none!important}
#result{min-width:0;max-width:100%;overflow:hidden;padding:0}
body,.gradio-container{overflow-x:hidden}
#head h1{font-weight:600;margin:.6rem 0 0}#head p{opacity:.75;margin:.2rem 0 .4rem}
"""
_SESSIONS = 256
"""Sessions that Gradio keeps: each has a copy of the form, and the last result until it is fetched."""
_STATISTICS = {"GRADIO_ANALYTICS_MAX_EVENTS": "50", "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9)}
"""How long each event took: Gradio would keep 10,000 and go through all of them after each."""


def method_names() -> list[str]:
    """Every reranking method there is, in the registry's order; a new strategy file appears by itself."""
    return registry.names("strategy")


def build(
    search: ImageSearch,
    *,
    examples: Sequence[str] = (),
    method: str = "cotrr",
    limits: PageLimits | None = None,
) -> gr.Blocks:
    """The page over an open index, for `serve`: ``launch()`` of the page itself would do without its checks.

    ``examples`` are offered to be clicked, ``method`` is chosen at first.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported, or it is too late
    for name, value in _STATISTICS.items():
        os.environ.setdefault(name, value)
    import gradio as gr

    uploads = Uploads(limits)
    searches = Searches(search, uploads, telling=Telling(_places(search)), work=Work())
    with gr.Blocks(title="mmrerank", analytics_enabled=False) as page:
        gr.Markdown(
            "# mmrerank\nImage search that looks before it ranks: an embedding index gathers, "
            "a multimodal model judges each image against each part of your search.",
            elem_id="head",
        )
        search_tab(searches, methods=method_names(), method=method, examples=examples)
    page.mmrerank_searches = searches
    return page


def application(page: gr.Blocks, hosts: Hosts, *, framed: bool = False) -> ASGIApp:
    """The page as an ASGI application, with everything that is checked before it.

    ``framed`` is for Hugging Face Spaces, which show a page in a frame of another site.
    """
    import gradio as gr
    from fastapi import FastAPI

    from mmrerank_app.gate import Gate

    searches: Searches = page.mmrerank_searches
    fonts: Any = ["system-ui", "sans-serif"]
    page.state_session_capacity = _SESSIONS
    page.queue(default_concurrency_limit=1, max_size=searches.uploads.limits.waiting, api_open=False)
    page._queue.pending_messages_per_session.max_size = _SESSIONS
    mounted = gr.mount_gradio_app(
        FastAPI(openapi_url=None, docs_url=None, redoc_url=None),
        page,
        path="/",
        theme=gr.themes.Soft(font=fonts, font_mono=["monospace"]),
        css=CSS,
        footer_links=[],
        show_error=False,
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
    )
    return Gate(
        mounted,
        hosts=hosts,
        uploads=searches.uploads,
        knows=page.fns.__contains__,
        at_end=searches.work.close,
        framed=framed,
    )


@dataclass(frozen=True, kw_only=True)
class Listening:
    """A bound socket and the server that will answer there."""

    server: Any
    socket: socket.socket
    address: str

    def run(self) -> None:
        """Serves until interrupted."""
        self.server.run(sockets=[self.socket])


def listen(
    page: gr.Blocks,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    allow_hosts: Sequence[str] = (),
    framed: bool = False,
) -> Listening:
    """Takes the port (0: any that is free). Raises `UsageError` when it cannot be used."""
    import uvicorn

    searches: Searches = page.mmrerank_searches
    app = application(page, Hosts(host, allow=allow_hosts), framed=framed)
    name = host.strip("[]")
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    taken = socket.socket(family)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((name, port))
        taken.listen()  # a browser that is opened at once waits, and is not refused
    except OSError as error:
        taken.close()
        raise UsageError(f"cannot listen at {host}:{port}; give another --port ({error})") from error
    shown = "localhost" if name in EVERYWHERE else f"[{name}]" if ":" in name else name
    settings = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        limit_concurrency=searches.uploads.limits.connections,
        timeout_graceful_shutdown=5,
    )
    return Listening(
        server=uvicorn.Server(settings), socket=taken, address=f"http://{shown}:{taken.getsockname()[1]}"
    )


def serve(
    page: gr.Blocks,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    browser: bool = True,
    allow_hosts: Sequence[str] = (),
    framed: bool = False,
) -> None:
    """Serves a page until interrupted. ``allow_hosts`` are further names under which it answers.

    Raises `UsageError` when the port cannot be used.
    """
    listening = listen(page, host=host, port=port, allow_hosts=allow_hosts, framed=framed)
    import typer

    typer.echo(f"mmrerank is at {listening.address}; Ctrl-C ends it", err=True)
    if browser:
        webbrowser.open(listening.address)
    listening.run()


def _places(search: ImageSearch) -> list[str]:
    """Folders that a text may name: the index and where its images are."""
    facts = search.index.manifest
    return [str(search.index.path), facts.source, *(s.location for s in facts.sources)]
