"""The demo in a terminal: what was asked, ten before and ten after, why, and what it cost."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmrerank.picturebook.run import DemoRun, DemoSearch
from mmrerank.types import Hit

SIGNS = {"met": "✓", "partly": "◐", "missed": "✗", "cannot_tell": "?"}

_PLACES = {1: "in first place", 3: "in the first three", 10: "in the first ten"}


def show(run: DemoRun, console: Console) -> None:
    """Prints every search of ``run``, then where the report lies."""
    for search in run.searches:
        _search(search, console)
    graded = [s for s in run.searches if s.full_in_all]
    if graded:
        console.print(f"Pictures that show everything asked for, over {len(graded)} searches:")
        for places, words in _PLACES.items():
            before = sum(sum(s.before[:places]) for s in graded)
            after = sum(sum(s.after[:places]) for s in graded)
            console.print(f"  {words:<20} {before:>2} before, {after:>2} after reranking")
    for name, seconds in run.seconds.items():
        console.print(f"{name:<18} {seconds:6.1f} s", style="dim")
    console.print(f"Report with pictures: {run.report}", soft_wrap=True)


def _search(search: DemoSearch, console: Console) -> None:
    result = search.result
    console.rule(Text(result.query.words, style="bold"), align="left")
    for c in result.explanation.components:
        console.print(Text.assemble("  ", (f"{c.id} {c.kind:<12}", "cyan"), c.text))
    if result.no_match:
        console.print("  No image meets every part; the closest come first.", style="yellow")
    table = Table(box=None, padding=(0, 2, 0, 1), header_style="dim")
    table.add_column("rank", justify="right")
    table.add_column("before")
    table.add_column("after")
    table.add_column("moved", justify="right")
    table.add_column("grade")
    table.add_column("why", max_width=64)
    for before, after in zip(result.first, result.hits, strict=True):
        table.add_row(str(after.rank), before.id, after.id, _moved(after), _grade(after), Text(_why(after)))
    console.print(table)
    if result.explanation.reason:
        console.print(f"  {result.explanation.reason}", style="italic", markup=False)
    if search.full_in_all is not None:
        console.print(
            f"  Show everything asked for: {sum(search.before)} of the ten before, "
            f"{sum(search.after)} after ({search.full_in_all} in the whole book)"
        )
    for warning in result.warnings:
        console.print(f"  warning: {warning}", style="yellow", markup=False)
    used = result.usage
    console.print(
        f"  {used.calls} calls, {used.input_tokens} tokens in, {used.output_tokens} out, "
        f"{used.images} images, {used.seconds:.1f} s; "
        f"{result.repairs.failed} failed, {result.repairs.repaired} repaired",
        style="dim",
    )
    console.print()


def _moved(hit: Hit) -> str:
    if hit.first_rank is None:
        return "new"
    by = hit.first_rank - hit.rank
    return f"[green]▲{by}[/green]" if by > 0 else f"[red]▼{-by}[/red]" if by < 0 else "="


def _grade(hit: Hit) -> str:
    grade = hit.assessment.grade if hit.assessment else None
    return "" if grade is None else "★" * grade + "☆" * (3 - grade)


def _why(hit: Hit) -> str:
    if hit.assessment is None:
        return ""
    notes = (f"{SIGNS[v.verdict]} {v.note or v.component}" for v in hit.assessment.verdicts)
    return "  ".join(notes) or hit.assessment.reason
