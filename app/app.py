"""The page as ``gradio app/app.py`` and Hugging Face Spaces start it: `demo` is what they serve.

Shows the index that ``MMRERANK_INDEX`` names, with the model of ``MMRERANK_CHAT``. Without an index it draws
the picture book, which needs no download. Whoever has an index of their own may use ``mmrerank app`` instead.
A Space shows the page in a frame of another site, under the name in ``SPACE_HOST``; elsewhere
``MMRERANK_ALLOW_HOST`` is a further name under which it answers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mmrerank import ImageSearch, config
from mmrerank_app.launch import build, serve

if TYPE_CHECKING:
    import gradio as gr


def make() -> gr.Blocks:
    """The page over the index of the environment, or over the picture book."""
    settings = config.load()
    if settings.index:
        chosen = ImageSearch.open(
            settings.index,
            chat=settings.chat or None,
            embedder=settings.embedder,
            device=settings.device,
            cache=settings.cache,
        )
        return build(chosen)
    from mmrerank.picturebook.run import example_queries, prepare_demo

    prepare_demo()
    drawn = ImageSearch.open("demo", chat=settings.chat or "bundled", device=settings.device)
    return build(drawn, examples=[q.text for q in example_queries()])


demo = make()

if __name__ == "__main__":
    space = os.environ.get("SPACE_HOST", "")
    named = [space, os.environ.get("MMRERANK_ALLOW_HOST", "")]
    serve(
        demo,
        host=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
        browser=False,
        allow_hosts=[name for name in named if name],
        framed=bool(space),
    )
