"""One table as CSV, LaTeX and Markdown."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrerank.evaluation.compare.rendering import Cell, Table, latex, markdown, to_csv

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.lists(TEXT, min_size=2, max_size=2), min_size=1, max_size=5))
def test_any_text_survives_csv(rows: list[list[str]]) -> None:
    table = Table(title="t", columns=["a", "b"], rows=[[Cell(text=t) for t in r] for r in rows])
    read = list(csv.reader(io.StringIO(to_csv(table), newline="")))
    assert read == [["a", "b"], *rows]


def test_latex_and_markdown_word_for_word() -> None:
    table = Table(
        title="T & t",
        columns=["run", "m_1"],
        rows=[
            [Cell(text="a"), Cell(text="-0.5", value=-0.5, numeric=True, strong=True, mark="up")],
            [Cell(text="b"), Cell(text="0.1", value=0.1, numeric=True)],
        ],
        notes=["p ≤ 5%"],
    )
    assert latex(table) == (
        "\\begin{table}\n\\centering\n\\caption{T \\& t. Bold: the best. p $\\leq$ 5\\%}\n"
        "\\begin{tabular}{lr}\n\\toprule\nrun & m\\_1 \\\\\n\\midrule\n"
        "a & $\\mathbf{-0.5}^{\\uparrow}$ \\\\\nb & $0.1$ \\\\\n\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )
    assert markdown(table) == (
        "**T &amp; t**\n\n| run | m\\_1 |\n| --- | ---: |\n| a | **-0.5** ↑ |\n| b | 0.1 |\n"
        "\nBold: the best.  \np ≤ 5%\n"
    )
    assert to_csv(table) == "run,m_1\na,-0.5\nb,0.1\n"
    with pytest.raises(ValueError, match="1 cells"):
        Table(title="", columns=["a", "b"], rows=[[Cell(text="")]])
