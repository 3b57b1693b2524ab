"""Markdown tables and plain lists in a reply, as the rows they show. Pure; anything else gives nothing."""

from __future__ import annotations

import re

_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)+\|?\s*|\s*\|\s*:?-+:?\s*\|\s*")
_ITEM = re.compile(r"\s*(?:[-*•]|\d{1,3}[.)])\s+(?=\S)(.*)")
_MOST_ROWS = 1_000


def table_rows(text: str) -> list[dict[str, str]]:
    """The rows of the last Markdown table in ``text``, cells by their column's name; empty without one.

    >>> table_rows("| Rank | Image |\\n|---|---|\\n| 1 | B |\\n| 2 | A |")
    [{'Rank': '1', 'Image': 'B'}, {'Rank': '2', 'Image': 'A'}]
    """
    lines = text.splitlines()
    rules = [n for n, line in enumerate(lines) if n and "|" in line and _RULE.fullmatch(line)]
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
    """The items of the last bulleted or numbered list in ``text``; empty without one.

    >>> list_items("The parts are:\\n- a boat\\n- red")
    ['a boat', 'red']
    """
    items: list[str] = []
    for line in reversed([n for n in text.splitlines() if n.strip()]):
        if (item := _ITEM.fullmatch(line)) is not None:
            items.insert(0, item[1].strip(" \t*`"))
        elif items:
            break
    return items
