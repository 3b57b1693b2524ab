"""Markdown tables and plain lists in a reply, as the rows they show. Pure; anything else gives nothing."""

from __future__ import annotations

import re

_RULE = re.compile(r"\|?:?-++:?(?:\|:?-++:?)++\|?|\|:?-++:?\|")  # of a line without its blanks
_ITEM = re.compile(r"\s*(?:[-*•]|\d{1,3}[.)])\s+(?=\S)(.*)")
_MOST_ROWS = 1_000


def table_rows(text: str) -> list[dict[str, str]]:
    """The rows of the last Markdown table in ``text``, cells by their column's name; empty without one.

    >>> table_rows("| Rank | Image |\\n|---|---|\\n| 1 | B |\\n| 2 | A |")
    [{'Rank': '1', 'Image': 'B'}, {'Rank': '2', 'Image': 'A'}]
    """
    lines = text.splitlines()[-2 * _MOST_ROWS :]
    rules = [
        n for n, line in enumerate(lines) if n and "|" in line and _RULE.fullmatch("".join(line.split()))
    ]
    if not rules:
        return []
    names = _cells(lines[rules[-1] - 1])
    rows: list[dict[str, str]] = []
    for line in lines[rules[-1] + 1 :][:_MOST_ROWS]:
        cells = _cells(line)
        if "|" not in line or len(cells) != len(names):
            break
        rows.append(dict(zip(names, cells, strict=True)))
    return rows if len(set(names)) == len(names) else []


def _cells(line: str) -> list[str]:
    return [cell.strip(" \t*`") for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def list_items(text: str) -> list[str]:
    """The items of a list in lines that ``text`` is, after one line that announces it; else empty.

    >>> list_items("The parts are:\\n- a boat\\n- red")
    ['a boat', 'red']
    """
    lines = [n.strip() for n in text.splitlines() if n.strip()]
    if lines and (lines[0].strip("*").endswith(":") or lines[0].startswith("#")):
        lines = lines[1:]
    if len(lines) > _MOST_ROWS:
        return []
    items = [_ITEM.fullmatch(line) for line in lines]
    return [i[1].strip(" \t*`") for i in items if i] if all(items) else []
