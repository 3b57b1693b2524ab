"""A search result as text: a table of hits, the query's parts above it, warnings and cost below."""

from __future__ import annotations

from mmrerank.cli.console import one_line, table_console
from mmrerank.results import SearchResult, copies_text
from mmrerank.types import Hit

_SIGNS = {"met": "✓", "partly": "~", "missed": "✗", "cannot_tell": "?"}


def show(result: SearchResult) -> None:
    """Prints ``result`` on stdout."""
    from rich.table import Table
    from rich.text import Text

    console = table_console()
    judged = any(h.assessment for h in result.hits)
    valued = any(h.relevance is not None for h in result.hits)
    moved = result.method != "none"
    for c in result.explanation.components:
        console.print(Text(f"{c.id} {c.kind}: {one_line(c.text)}", style="dim"))
    if not result.hits:
        console.print("No image is relevant enough." if result.cut else "Nothing was found.")
    elif result.no_match:
        console.print("No image meets every part of the query; the nearest come first.")
    if result.hits:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("rank", justify="right", no_wrap=True)
        if moved:
            table.add_column("was", justify="right", no_wrap=True)
        table.add_column("score", justify="right", no_wrap=True)
        if valued:
            table.add_column("relevance", justify="right", no_wrap=True)
        if judged:
            table.add_column("grade", justify="right", no_wrap=True)
            table.add_column("parts", no_wrap=True)
        table.add_column("id", overflow="fold")
        if judged:
            table.add_column("reason", overflow="fold", ratio=1)
        for hit in result.hits:
            cells = [str(hit.rank)]
            cells += [moved_text(hit)] if moved else []
            cells += ["" if hit.score is None else f"{hit.score:.4f}"]
            cells += ["-" if hit.relevance is None else f"{hit.relevance:.3f}"] if valued else []
            cells += [_grade(hit), _parts(result, hit)] if judged else []
            cells += [_named(hit)]
            cells += [one_line(hit.assessment.reason) if hit.assessment else ""] if judged else []
            # `Text`, because a name may look like markup
            table.add_row(*(Text(c) for c in cells))
        console.print(table)
    if result.cut:
        console.print(Text(f"{result.cut} not shown: below the threshold of relevance", style="dim"))
    if result.explanation.reason:
        console.print(Text(f"Order: {one_line(result.explanation.reason)}", style="dim"))
    for warning in result.warnings:
        console.print(Text(f"warning: {one_line(warning)}", style="yellow"))
    if cost := usage_line(result):
        console.print(Text(cost, style="dim"))


def _named(hit: Hit) -> str:
    """A hit's id, what is wrong with its file, and on a line of its own the copies that it stands for."""
    name = one_line(f"{hit.id} ({hit.problem})" if hit.problem else hit.id)
    return f"{name}\n{one_line(more)}" if (more := copies_text(hit)) else name


def moved_text(hit: Hit) -> str:
    """Where a hit stood before, with the way it went: ``7 ▲``."""
    if hit.first_rank is None:
        return "new"
    arrow = "▲" if hit.rank < hit.first_rank else "▼" if hit.rank > hit.first_rank else "="
    return f"{hit.first_rank} {arrow}"


def usage_line(result: SearchResult) -> str:
    """What the language model cost and what had to be mended, or nothing when none was asked."""
    used, mended = result.usage, result.repairs
    if not used.calls and not mended.failed:
        return ""
    line = (
        f"{used.calls} calls, {used.images} images, {used.input_tokens} + {used.output_tokens} tokens, "
        f"{used.seconds:.1f} s"
    )
    counts = [
        f"{n} {word}"
        for n, word in (
            (mended.failed, "failed"), (mended.repaired, "repaired"), (mended.unknown, "unknown ids"),
            (mended.repeated, "repeated ids"), (mended.missing, "missing ids"),
            (mended.written, "asked again as text"),
        )
        if n
    ]  # fmt: skip
    return f"{line}; {', '.join(counts)}" if counts else line


def _grade(hit: Hit) -> str:
    grade = hit.assessment.grade if hit.assessment else None
    return "-" if grade is None else str(grade)


def _parts(result: SearchResult, hit: Hit) -> str:
    """One sign per component, in the components' order."""
    verdicts = {v.component: v.verdict for v in hit.assessment.verdicts} if hit.assessment else {}
    return "".join(_SIGNS[verdicts[c.id]] if c.id in verdicts else "·" for c in result.explanation.components)
