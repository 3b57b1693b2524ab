"""Builds and serves the page. Listens on loopback unless told otherwise; fetches nothing, reports nothing.

Pictures reach the browser as small copies inside the page, never as files or paths.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from mmrerank import registry
from mmrerank.errors import ImageIndexError
from mmrerank.ports import Chat
from mmrerank.search import ImageSearch
from mmrerank_app.search_tab import search_tab

if TYPE_CHECKING:
    import gradio as gr

_log = logging.getLogger(__name__)
DEMO = "demo"
CSS = """
.gradio-container{width:100%!important;max-width:min(1180px,100vw)!important;margin:0 auto!important}
.gradio-container :is(.main,.wrap,.contain,.column,.block,.html-container){min-width:0;max-width:100%}
footer{display:none!important}
#result{min-width:0;max-width:100%;overflow:hidden;padding:0}
body,.gradio-container{overflow-x:hidden}
#head h1{font-weight:600;margin:.6rem 0 0}#head p{opacity:.75;margin:.2rem 0 .4rem}
"""


def method_names() -> list[str]:
    """Every reranking method there is, in the registry's order; a new strategy file appears by itself."""
    return registry.names("strategy")


def build(search: ImageSearch, *, examples: list[str] | None = None) -> gr.Blocks:
    """The page over an open index."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported, or it is too late
    import gradio as gr

    with gr.Blocks(title="mmrerank", analytics_enabled=False) as page:
        gr.Markdown(
            "# mmrerank\nImage search that looks before it ranks: an embedding index gathers, "
            "a multimodal model judges each image against each part of your search.",
            elem_id="head",
        )
        search_tab(search, methods=method_names(), examples=examples or [])
    return page


def launch(
    *,
    index: str = DEMO,
    chat: str | Chat = "bundled",
    embedder: str = "",
    device: str = "",
    host: str = "127.0.0.1",
    port: int = 7860,
    browser: bool = True,
) -> None:
    """Serves the page until interrupted. The demo's index is made first when it is missing.

    ``chat`` is a backend or its spec, ``embedder`` the spec of what embeds queries (default: what built the
    index), on ``device``. Raises `ImageIndexError` for any other index that is not there, `UsageError` for an
    unknown chat.
    """
    examples: list[str] = []
    if index == DEMO:
        from mmrerank.picturebook.run import example_queries, prepare_demo

        try:
            ImageSearch.open(index)
        except ImageIndexError:
            _log.warning("drawing and indexing the picture book first; this takes a minute")
            prepare_demo(index)
        examples = [q.text for q in example_queries()]
    search = ImageSearch.open(index, chat=chat, embedder=embedder, device=device)
    page = build(search, examples=examples)
    import gradio as gr

    fonts: Any = ["system-ui", "sans-serif"]
    theme = gr.themes.Soft(font=fonts, font_mono=["monospace"])
    page.queue(default_concurrency_limit=1).launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        share=False,
        theme=theme,
        css=CSS,
        footer_links=[],
    )
