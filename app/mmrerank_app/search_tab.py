"""The search form and its result: the first stage at once, the reranked result when the model is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mmrerank import config, registry
from mmrerank.errors import MmrerankError, UsageError
from mmrerank.reranker import to_image
from mmrerank.result_page import fragment
from mmrerank.search import ImageSearch
from mmrerank.types import Query

HINT = "Type what you are looking for, or choose a reference image."


def search_tab(search: ImageSearch, *, methods: list[str], method: str, examples: Sequence[str]) -> None:
    """Lays out the form inside the page being built and connects it."""
    import gradio as gr

    def run(*values: Any) -> Iterator[str]:
        yield from answer(search, *values)

    with gr.Row(equal_height=True):
        text = gr.Textbox(
            placeholder="a red boat and a white bird", show_label=False, scale=6, autofocus=True,
            elem_id="query",
        )  # fmt: skip
        go = gr.Button("Search", variant="primary", scale=1, elem_id="go")
    with gr.Row():
        chosen = gr.Dropdown(methods, value=method, label="Method")
        k = gr.Slider(1, 50, value=10, step=1, label="Images shown")
        candidates = gr.Slider(1, 100, value=20, step=1, label="Images judged")
    with gr.Accordion("More: reference image, exclusions, dialogue, method options", open=False), gr.Row():
        # the file as it is: a copy in RGB would turn transparency black before our own decoder sees it
        image = gr.Image(type="filepath", image_mode=None, label="Reference image", height=180)
        with gr.Column():
            exclude = gr.Textbox(label="Must not appear", placeholder="people; cars")
            turns = gr.Textbox(label="Earlier turns, one a line", lines=2)
            options = gr.Textbox(
                label="Method options, name=value one a line", lines=2, placeholder=hint(methods)
            )
    inputs = [text, chosen, k, candidates, image, exclude, turns, options]
    panel = gr.HTML(note(HINT), elem_id="result")
    if examples:
        gr.Examples([[e] for e in examples], inputs=[text], label="Examples", examples_per_page=8)
    for event in (go.click, text.submit):
        event(run, inputs, panel, concurrency_limit=1, show_progress="minimal")


def answer(
    search: ImageSearch,
    text: str,
    method: str,
    k: int,
    candidates: int,
    image: str | None,
    exclude: str,
    turns: str,
    options: str,
) -> Iterator[str]:
    """HTML for the panel: first-stage order, then the reranked result; an error says what to do.

    Where the model fails altogether, the first-stage order stays below the error.
    """
    shown = ""
    try:
        query = query_of(text, image, exclude, turns)
        if query is None:
            yield note(HINT)
            return
        chosen = options_of(options)
        if method != "none":
            # a wrong one is reported before anything is loaded
            config.build(registry.load("strategy", method).Options, chosen, where=f"method {method}")
        first = search.search_batch([query], k=int(k), candidates=int(candidates))[0]
        if method == "none":
            yield fragment(first)
            return
        shown = fragment(first)
        yield note(f"Judging {int(candidates)} images with {method} …") + shown
        done = search.search_batch(
            [query], k=int(k), rerank=method, candidates=int(candidates), options=chosen
        )[0]
        yield fragment(done)
    except MmrerankError as error:
        yield note(str(error), kind="error") + shown


def query_of(text: str, image: str | None, exclude: str, turns: str) -> Query | None:
    """The query of a filled-in form; None when it is empty."""
    images = (to_image(Path(image)),) if image else ()
    earlier = tuple(t.strip() for t in (turns or "").splitlines() if t.strip())
    absent = tuple(w.strip() for w in (exclude or "").split(";") if w.strip())
    if not ((text or "").strip() or images or earlier):
        return None
    return Query(text=(text or "").strip(), images=images, exclude=absent, turns=earlier)


def options_of(text: str) -> dict[str, str]:
    """``name=value`` lines. Raises `UsageError` for a line of another shape."""
    found: dict[str, str] = {}
    for line in (text or "").splitlines():
        if not line.strip():
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise UsageError(f"an option is name=value, not {line.strip()!r}")
        found[name.strip()] = value.strip()
    return found


def hint(methods: list[str]) -> str:
    """The options of the first method that has some, with their defaults."""
    for name in ("cotrr", *methods):
        if name in methods:
            fields = registry.load("strategy", name).Options.__dataclass_fields__
            if fields:
                return f"{name}: " + ", ".join(f"{f}={v.default}" for f, v in fields.items())
    return ""


def note(text: str, *, kind: str = "hint") -> str:
    """A small panel with escaped text."""
    colour = "#a3302b" if kind == "error" else "#6a7078"
    role = "alert" if kind == "error" else "status"
    return (
        f'<p role="{role}" style="border-left:3px solid {colour};padding:.5rem .9rem;margin:.6rem 0">'
        f"{escape(text)}</p>"
    )
