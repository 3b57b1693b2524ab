"""The search form and its result: the first stage at once, the reranked result when the model is done."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from html import escape
from typing import Any

from mmrerank import config, registry
from mmrerank.budget import Budget
from mmrerank.result_page import fragment
from mmrerank.results import SearchResult
from mmrerank.search import ImageSearch
from mmrerank_app.form import Form, read_form
from mmrerank_app.telling import Telling
from mmrerank_app.uploads import Uploads
from mmrerank_app.work import Watched, Work

HINT = "Type what you are looking for, or choose a reference image."
Shown = tuple[str, str | None]
"""The note above the result, and the result; None leaves the result as it is."""


def search_tab(searches: Searches, *, methods: list[str], method: str, examples: Sequence[str]) -> None:
    """Lays out the form inside the page being built and connects it."""
    import gradio as gr

    def run(*values: Any) -> Iterator[tuple[Any, Any]]:
        for above, result in searches.answer(values):
            yield above, gr.skip() if result is None else result

    limits = searches.uploads.limits
    longest = limits.query_chars
    with gr.Row(equal_height=True):
        text = gr.Textbox(
            placeholder="a red boat and a white bird", show_label=False, scale=6, autofocus=True,
            elem_id="query", max_length=longest,
        )  # fmt: skip
        go = gr.Button("Search", variant="primary", scale=1, elem_id="go")
    with gr.Row():
        chosen = gr.Dropdown(methods, value=method, label="Method")
        k = gr.Slider(1, limits.shown, value=min(10, limits.shown), step=1, label="Images shown")
        candidates = gr.Slider(
            1, limits.candidates, value=min(20, limits.candidates), step=1, label="Images judged"
        )
    with gr.Accordion("More: reference image, exclusions, dialogue, method options", open=False), gr.Row():
        # the file as it is: a copy in RGB would turn transparency black before our own decoder sees it
        image = gr.Image(
            type="filepath", image_mode=None, label="Reference image", height=180,
            sources=["upload", "clipboard"], elem_id="reference",
        )  # fmt: skip
        with gr.Column():
            exclude = gr.Textbox(label="Must not appear", placeholder="people; cars", max_length=longest)
            turns = gr.Textbox(label="Earlier turns, one a line", lines=2, max_length=longest)
            options = gr.Textbox(
                label="Method options, name=value one a line", lines=2, placeholder=hint(methods),
                max_length=longest,
            )  # fmt: skip
    inputs = [text, chosen, k, candidates, image, exclude, turns, options]
    above = gr.HTML(note(HINT), elem_id="above")
    panel = gr.HTML("", elem_id="result")
    if examples:
        gr.Examples([[e] for e in examples], inputs=[text], label="Examples", examples_per_page=8)
    for event in (go.click, text.submit):
        # values reach us as they were sent: `read_form` checks them, and Gradio opens no file that they name
        event(run, inputs, [above, panel], concurrency_limit=1, show_progress="minimal", preprocess=False)


class Searches:
    """Answers forms over one index, within the limits of ``uploads``."""

    def __init__(self, search: ImageSearch, uploads: Uploads, *, telling: Telling, work: Work) -> None:
        self.search, self.uploads, self.telling, self.work = search, uploads, telling, work

    def answer(self, values: Sequence[Any]) -> Iterator[Shown]:
        """First-stage order, then the reranked result, as HTML; an error says what to do.

        Where the model fails altogether, the first-stage order stays below the error. A visitor who leaves
        closes this generator: no further question is asked.
        """
        try:
            form = read_form(values, registry.names("strategy"), self.uploads)
            if form.query is None:
                yield note(HINT), ""
                return
            if form.method != "none":
                # a wrong one is reported before anything is loaded
                strategy = registry.load("strategy", form.method)
                config.build(strategy.Options, form.options, where=f"method {form.method}")
            first = yield from self._run(form, "none", "Searching")
            if form.method == "none":
                yield "", self._html(first)
                return
            doing = f"Judging {form.candidates} images with {form.method}"
            yield note(f"{doing} …"), self._html(first)
            done = yield from self._run(form, form.method, doing)
            yield "", self._html(done)
        except (
            Exception
        ) as error:  # whatever went wrong, a visitor must not see where this machine keeps what
            yield note(self.telling.error(error), kind="error"), None

    def _run(self, form: Form, method: str, doing: str) -> Generator[Shown, None, SearchResult]:
        limits, query = self.uploads.limits, form.query
        assert query is not None

        def task(watched: Watched) -> SearchResult:
            return self.search.search_batch(
                [query],
                k=form.k,
                rerank=method,
                candidates=form.candidates,
                options=None if method == "none" else form.options,
                progress=watched.progress,
                budget=Budget(calls=limits.calls, seconds=limits.seconds),
                cancel=watched.left,
            )[0]

        running = self.work.run(task)
        try:
            while True:
                watched = next(running)
                yield note(f"{doing}: {watched.words} …"), None
        except StopIteration as end:
            result: SearchResult = end.value
            return result
        finally:
            running.close()

    def _html(self, result: SearchResult) -> str:
        return fragment(self.telling.result(result))


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
