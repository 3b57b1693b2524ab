"""One table as a value, and the same table for a terminal, Markdown, LaTeX and CSV.

Texts come from file names, queries and qrels: each rendering escapes what it would take for markup. Which
figures a table holds is decided elsewhere (`comparison_tables`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mmrerank.terminal import one_line

if TYPE_CHECKING:
    from rich.console import Group

Mark = Literal["", "up", "down"]
ARROWS: dict[Mark, str] = {"": "", "up": "↑", "down": "↓"}
_LATEX_MARKS: dict[Mark, str] = {"": "", "up": "^{\\uparrow}", "down": "^{\\downarrow}"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one cell shows. ``value`` is the number behind ``text``, unrounded: CSV says that instead.

    ``numeric`` cells are set as figures; ``strong`` marks the best; ``mark`` says better or worse.
    """

    text: str
    value: float | None = None
    numeric: bool = False
    strong: bool = False
    mark: Mark = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows as long as ``columns``; a column of numbers is set to the right. ``notes`` explain the marks."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row has {len(row)} cells, the table {len(self.columns)} columns")

    @property
    def right(self) -> tuple[bool, ...]:
        """For each column, whether it is set to the right: where any cell is numeric."""
        return tuple(any(row[n].numeric for row in self.rows) for n in range(len(self.columns)))

    @property
    def marked(self) -> tuple[bool, ...]:
        """For each column, whether any cell has a mark: the others then keep its place free."""
        return tuple(any(row[n].mark for row in self.rows) for n in range(len(self.columns)))

    def explained(self, strong: str) -> tuple[str, ...]:
        """The notes, after ``strong`` where any cell is: how this rendering shows it."""
        return ((strong,) if any(c.strong for r in self.rows for c in r) else ()) + (*self.notes,)


def terminal(table: Table) -> Group:
    """The table for `rich`; control characters are shown as escapes and cannot drive the terminal."""
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(
        box=None, padding=(0, 2, 0, 0), header_style="dim"
    )  # fmt: skip
    for name, right in zip(table.columns, table.right, strict=True):
        shown.add_column(Text(one_line(name)), justify="right" if right else "left", overflow="fold")
    # the signs' places are kept where there is none, so that decimals stand below each other
    starred = [any(c.strong for c in column) for column in zip(*table.rows, strict=True)]
    for row in table.rows:
        shown.add_row(
            *(
                Text(
                    one_line(c.text)
                    + ("" if not star else "*" if c.strong else " ")
                    + ("" if not mark else f" {ARROWS[c.mark] or ' '}"),
                    style="bold" if c.strong else "",
                )
                for c, star, mark in zip(row, starred, table.marked, strict=True)
            )
        )
    # above and below, not as the table's title and caption: those would be as narrow as the table
    notes = [Text(one_line(n), style="dim") for n in table.explained("*: the best.")]
    return Group(Text(one_line(table.title), style="bold"), shown, *notes)


def plain(table: Table) -> str:
    """What `terminal` shows, as text without colours."""
    from io import StringIO

    from rich.console import Console

    console = Console(file=StringIO(), width=120, highlight=False, color_system=None)
    console.print(terminal(table))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def html(table: Table) -> str:
    """A ``<table>`` for notebooks, everything escaped."""
    from html import escape

    def cell(c: Cell, right: bool) -> str:
        text = escape(one_line(c.text)) + (f" {ARROWS[c.mark]}" if c.mark else "")
        align = ' style="text-align: right"' if right else ""
        return f"<td{align}>{f'<b>{text}</b>' if c.strong else text}</td>"

    head = "".join(f"<th>{escape(one_line(c))}</th>" for c in table.columns)
    rows = ("".join(cell(c, r) for c, r in zip(row, table.right, strict=True)) for row in table.rows)
    notes = "".join(f"<p>{escape(one_line(n))}</p>" for n in table.explained("Bold: the best."))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    caption = f"<caption>{escape(one_line(table.title))}</caption>"
    head = f"<thead><tr>{head}</tr></thead>"
    return f"<table>{caption}{head}<tbody>{body}</tbody></table>{notes}"


def markdown(table: Table) -> str:
    """A pipe table below its title in bold, notes below it."""
    head = [_markdown(c) for c in table.columns]
    lines = [
        f"**{_markdown(table.title)}**",
        "",
        _row(head),
        _row(["---:" if r else "---" for r in table.right]),
    ]
    for row in table.rows:
        lines.append(
            _row(
                [
                    (f"**{_markdown(c.text)}**" if c.strong and c.text else _markdown(c.text))
                    + (f" {ARROWS[c.mark]}" if c.mark else "")
                    for c in row
                ]
            )
        )
    if notes := table.explained("Bold: the best."):
        # two spaces at the end break the line
        lines += ["", "  \n".join(_markdown(n) for n in notes)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def latex(table: Table) -> str:
    """A ``table`` environment; the document needs ``\\usepackage{booktabs}``."""
    columns = "".join("r" if r else "l" for r in table.right)
    caption = " ".join([f"{_latex(table.title)}.", *map(_latex, table.explained("Bold: the best."))])
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{caption}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(_latex(c) for c in table.columns) + " \\\\",
        "\\midrule",
        *(" & ".join(_latex_cell(c) for c in row) + " \\\\" for row in table.rows),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell) -> str:
    if not cell.text:
        return ""
    if cell.numeric:  # in math, so that a minus is one
        text = cell.text.replace("†", "\\dagger{}")
        body = f"\\mathbf{{{text}}}" if cell.strong else text
        return f"${body}{_LATEX_MARKS[cell.mark]}$"
    text = f"\\textbf{{{_latex(cell.text)}}}" if cell.strong else _latex(cell.text)
    return text + (f"${_LATEX_MARKS[cell.mark]}$" if cell.mark else "")


def to_csv(table: Table) -> str:
    """Column names and rows, values unrounded and texts as they are; no title, notes or marks."""
    rows = [[c.text if c.value is None else repr(c.value) for c in r] for r in table.rows]
    return "".join(_csv_line(row) + "\n" for row in (table.columns, *rows))


def _csv_line(row: Sequence[str]) -> str:
    line = io.StringIO()
    # the writer quotes what its line end holds: a lone carriage return would end a row for a reader
    csv.writer(line, lineterminator="\r\n").writerow(row)
    return line.getvalue().removesuffix("\r\n")


RENDERINGS: dict[str, Callable[[Table], str]] = {"markdown": markdown, "latex": latex, "csv": to_csv}
"""By name, those that are text."""


_MARKDOWN = str.maketrans({**{c: f"\\{c}" for c in "\\`*_[]|~#$"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"})
_LATEX = str.maketrans(
    {
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "<": "\\textless{}",
        ">": "\\textgreater{}",
        "|": "\\textbar{}",
        "[": "{[}",  # after a line's end, a bracket would be taken for its option
        "≤": "$\\leq$",
        "↑": "$\\uparrow$",
        "†": "\\textdagger{}",
        "↓": "$\\downarrow$",
    }
)


def _markdown(text: str) -> str:
    return one_line(text).translate(_MARKDOWN)


def _latex(text: str) -> str:
    return one_line(text).translate(_LATEX)
