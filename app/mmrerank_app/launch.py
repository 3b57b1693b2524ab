"""Builds and serves the page over any index. Listens on loopback by default; fetches and reports nothing.

Pictures reach the browser as small copies inside the page, never as files or paths.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmrerank import registry
from mmrerank.errors import UsageError
from mmrerank.search import ImageSearch
from mmrerank_app.search_tab import search_tab

if TYPE_CHECKING:
    import gradio as gr

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


def build(search: ImageSearch, *, examples: Sequence[str] = (), method: str = "cotrr") -> gr.Blocks:
    """The page over an open index. ``examples`` are offered to be clicked, ``method`` is chosen at first."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported, or it is too late
    import gradio as gr

    with gr.Blocks(title="mmrerank", analytics_enabled=False) as page:
        gr.Markdown(
            "# mmrerank\nImage search that looks before it ranks: an embedding index gathers, "
            "a multimodal model judges each image against each part of your search.",
            elem_id="head",
        )
        search_tab(search, methods=method_names(), method=method, examples=examples)
    return page


def serve(page: gr.Blocks, *, host: str = "127.0.0.1", port: int = 7860, browser: bool = True) -> None:
    """Serves a page until interrupted. Raises `UsageError` when the port cannot be used."""
    import gradio as gr

    fonts: Any = ["system-ui", "sans-serif"]
    theme = gr.themes.Soft(font=fonts, font_mono=["monospace"])
    try:
        page.queue(default_concurrency_limit=1).launch(
            server_name=host,
            server_port=port,
            inbrowser=browser,
            share=False,
            theme=theme,
            css=CSS,
            footer_links=[],
        )
    except OSError as error:
        if "port" not in str(error):
            raise
        raise UsageError(f"cannot listen at {host}:{port}; give another --port ({error})") from error
