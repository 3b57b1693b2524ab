"""Labels, best first, out of an order in any shape: scores, ranks, lists, rows, text. Pure, and never raises.

Prose is not an order: "the 3 dogs" is not candidate 3, and "A, D and G show none" does not put A first. Where
two readings are possible (scores on two scales, ranks that contradict the rows) there is no order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

from mmrerank.rerank.loose import loose_value
from mmrerank.rerank.parse import NAMES, named
from mmrerank.rerank.wording import (
    Number,
    field_name,
    folded,
    known_labels,
    label_of,
    label_text,
    number_of,
    one_spaced,
)
from mmrerank.types import Repairs

TOP_SCORE = 99
"""Models are asked to order by scores from 0 to this."""
_MAX_TEXT = 2**14  # characters at the end of a text in which an order in words is looked for
_MAX_LINE = 2**13
_MAX_ENTRIES = 2_000  # entries of an order that are read; the others are of no candidate
_LABEL = re.compile(r"[A-Z0-9]{1,4}")
_BETWEEN = re.compile(r"[>,、;→≻»]|\s+then\s+")
_INTRODUCED = re.compile(r"(?i)^.{0,60}\b(?:rank(?:ing|ed)?|order(?:ed)?)\b[^>,]{0,30}?\b(?:is|are|as)\b")
_TAG = re.compile(r"</?\w+>|\\boxed|\\succ|```\w*")
_POINT = re.compile(r"\s*(?:rank\s*)?#?\s*(\d{1,3})\s*(?:[.):]|st\b|nd\b|rd\b|th\b)[.:]?\s*(?=\S)(.*)", re.I)
_COUNTED = re.compile(r"\s+(?=\d{1,3}[.):]\s)")
_BULLET = re.compile(r"\s*[-*•]\s+(?=\S)(.*)")
_SCORED = re.compile(r"\W*([^:=|(]{1,40}?)\s*(?:[:=|(]|\s-|–|→)\s*(.+)")
_FIELDS = named(
    score=("grade", "rating", "relevance", "mark", "value", "relevance_score", "confidence"),
    rank=("position", "place", "ranking", "order"),
)


def labels_in_order(
    answer: Any, labels: Sequence[str], *, is_ranking: bool = False
) -> tuple[list[str], Repairs]:
    """Known labels, best first, out of an order in any shape, and what was wrong with it.

    * an object ``{label: score}``: by descending score, equal scores in the order of ``labels``;
    * a list of labels, or of objects that name one: by their scores or ranks, or as it stands;
    * text: the labels in its last line that is a list of them and nothing else (``C > A``, ``[3], [1]``), in
      its last numbered list, or with a score each.

    ``is_ranking`` says that the reply calls it one: 1 to n are then places and not scores. Nothing usable
    gives an empty list.
    """
    known = known_labels(labels)
    if isinstance(answer, dict | list) and len(answer) > (most := max(_MAX_ENTRIES, 2 * len(labels))):
        answer = dict(islice(answer.items(), most)) if isinstance(answer, dict) else answer[:most]
    if isinstance(answer, str):
        answer = _listed(answer, labels, known)
    if isinstance(answer, dict):
        return _by_number(answer, labels, known, is_ranking)
    if not isinstance(answer, list):
        return [], Repairs()
    if answer and all(isinstance(i, dict) for i in answer) and any(_numbered(i) for i in answer):
        return _by_rows(answer, labels, known, is_ranking)
    if all(isinstance(i, list | tuple) and len(i) == 2 and isinstance(i[0], str) for i in answer):
        answer = [f"{i[0]}: {i[1]}" for i in answer]
    if all(isinstance(i, str) for i in answer) and any(_scores([i], known) for i in answer):
        scores = _scores(answer, known)
        falls = not is_ranking or _falling(list(scores), scores)
        return _by_number(scores, labels, known, False) if falls else ([], Repairs())
    return _as_it_stands([_name(i) if isinstance(i, dict) else i for i in answer], labels, known)


def label_scores(answer: Any, order: Sequence[str]) -> dict[str, float]:
    """The scores behind ``order`` (of `labels_in_order`), to `TOP_SCORE`; empty where it came of none."""
    if not isinstance(answer, dict) or not order:
        return {}
    known = known_labels(order)
    found: dict[str, Number] = {}
    for key, value in islice(answer.items(), _MAX_ENTRIES):
        label = known.get(label_text(key)) or label_of(key, known)
        number = number_of(_numbered(value).get("score") if isinstance(value, dict) else value)
        if label is not None and number is not None:
            found.setdefault(label, number)
    tops = {i: 100.0 if n.form == "percent" else n.top or TOP_SCORE for i, n in found.items()}
    scores = {i: n.value * TOP_SCORE / tops[i] for i, n in found.items()}
    whole = set(order) == set(scores) and all(scores[a] >= scores[b] for a, b in pairwise(order))
    return {n: scores[n] for n in order} if whole else {}


def _as_it_stands(
    items: Sequence[Any], labels: Sequence[str], known: Mapping[str, str]
) -> tuple[list[str], Repairs]:
    order: dict[str, None] = {}
    unknown = repeated = 0
    for item in items:
        label = label_of(item, known)
        if label is None:
            unknown += 1
        elif label in order:
            repeated += 1
        else:
            order[label] = None
    if not order:
        return [], Repairs()
    return list(order), Repairs(unknown=unknown, repeated=repeated, missing=len(labels) - len(order))


def _by_number(
    answer: Mapping[str, Any], labels: Sequence[str], known: Mapping[str, str], is_ranking: bool
) -> tuple[list[str], Repairs]:
    """By scores; by places where a ranking's numbers are 1 to n, or where places name labels."""
    if places := _places(answer, known):
        return _as_it_stands(places, labels, known)
    numbers: dict[str, Number] = {}
    unknown = repeated = 0
    by_rank = False
    for key, value in answer.items():
        label = known.get(label_text(key)) or (label_of(key, known) if value is not None else None)
        if label is None:
            unknown += 1
            continue
        if isinstance(value, dict):
            fields = _numbered(value)
            by_rank = by_rank or ("rank" in fields and "score" not in fields)
            value = fields.get("score", fields.get("rank"))
        number = number_of(value)
        if label in numbers:
            repeated += 1
        elif number is not None:
            numbers[label] = number
    if not numbers or len({(n.form, n.top) for n in numbers.values()}) > 1:
        return [], Repairs()
    values = {n: v.value for n, v in numbers.items()}
    if by_rank or (is_ranking and sorted(values.values()) == list(range(1, len(labels) + 1))):
        values = {n: -v for n, v in values.items()}
    position = {n: i for i, n in enumerate(labels)}
    order = sorted(values, key=lambda n: (-values[n], position[n]))
    return order, Repairs(unknown=unknown, repeated=repeated, missing=len(labels) - len(order))


def _places(answer: Mapping[str, Any], known: Mapping[str, str]) -> list[Any]:
    """The labels of ``{"1": "C", "2": "A"}``; empty where keys could be labels themselves."""
    numbers = [
        re.fullmatch(r"(?:rank|place|position)?_?(\d+)(?:st|nd|rd|th)?", field_name(k)) for k in answer
    ]
    if not answer or any(label_text(k) in known for k in answer):
        return []
    if [int(m[1]) if m else 0 for m in numbers] != list(range(1, len(answer) + 1)):
        return []
    return list(answer.values()) if all(label_of(v, known) for v in answer.values()) else []


def _numbered(row: Mapping[str, Any]) -> dict[str, Any]:
    """The score and the rank that a row has, as they stand in it."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        name = _FIELDS(key)
        if name and number_of(value) is not None and field_name(key) not in NAMES:
            found.setdefault(name, value)
    return found


def _name(row: Mapping[str, Any]) -> Any:
    """What a row is about: its first field that says so."""
    fields = {field_name(k): v for k, v in row.items()}
    return next((fields[n] for n in NAMES if n in fields), "")


def _by_rows(
    rows: Sequence[Mapping[str, Any]], labels: Sequence[str], known: Mapping[str, str], is_ranking: bool
) -> tuple[list[str], Repairs]:
    """By the scores or the ranks of rows; nothing where a ranking's rows contradict them."""
    unknown = repeated = 0
    found: dict[str, Any] = {}
    ranks: dict[str, Any] = {}
    for row in rows:
        label, fields = label_of(_name(row), known), _numbered(row)
        if label is None:
            unknown += 1
        elif label in found or label in ranks:
            repeated += 1
        else:
            found.update({label: fields["score"]} if "score" in fields else {})
            ranks.update({label: fields["rank"]} if "rank" in fields else {})
    stands = [n for row in rows if (n := label_of(_name(row), known))]
    use = ranks if len(ranks) == len(set(stands)) else found
    order, repairs = _by_number({n: {("rank" if use is ranks else "score"): v} for n, v in use.items()},
                                labels, known, False)  # fmt: skip
    if is_ranking and use is found and not _falling(stands, found):
        return [], Repairs()
    if use is ranks and len(found) == len(ranks) and not _falling(order, found):
        return [], Repairs()
    return order, repairs + Repairs(unknown=unknown, repeated=repeated)


def _falling(order: Sequence[str], scores: Mapping[str, Any]) -> bool:
    values = [number.value for n in order if (number := number_of(scores.get(n))) is not None]
    return all(a >= b for a, b in pairwise(values))


# --- text --------------------------------------------------------------------------------------------


def _listed(text: str, labels: Sequence[str], known: Mapping[str, str]) -> Any:
    """A list of labels, or scores by label, out of text; an empty list where it holds neither."""
    text = _tail(text).strip()
    if text[:1] == "[" and text[-1:] == "]" and "\n" in text:
        try:
            return loose_value(text, 0)[0]
        except ValueError:
            pass
    lines = [line for n in text.splitlines() if (line := one_spaced(n)) and len(line) <= _MAX_LINE]
    if len(lines) > 1 and all(label_text(n) in known for n in lines):
        return lines
    for line in reversed(lines):
        if pieces := _pieces(line, known):
            return pieces
    return _points(lines, labels, known)


def _tail(text: str) -> str:
    return folded(_TAG.sub(" ", text[-_MAX_TEXT:]))[-_MAX_TEXT:]


def _pieces(line: str, known: Mapping[str, str]) -> Any:
    """``C > A``, ``1. C, 2. A`` as a list, ``C: 9, A: 3`` as scores; nothing for any other line."""
    parts = [p for p in _BETWEEN.split(line) if p.strip()]
    if len(parts) > 1 and (scores := _scores(parts, known)):
        return scores
    pieces = _BETWEEN.split(_INTRODUCED.sub("", line.rpartition(":")[2]))
    for counted in (pieces, parts, _COUNTED.split(line)):
        points = [_POINT.fullmatch(p) for p in counted]
        if len(points) > 1 and [int(p[1]) if p else 0 for p in points] == list(range(1, len(points) + 1)):
            pieces = [p[2] for p in points if p]
            break
    if len(pieces) < 2:
        return []
    bare = [label_text(p) for p in pieces]
    if bare[-1] == "" and len(bare) > 2:
        bare, pieces = bare[:-1], pieces[:-1]
    fits = all(_LABEL.fullmatch(b) for b in bare) and any(b in known for b in bare)
    return pieces if fits else []


def _scores(parts: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in parts:
        match = _SCORED.fullmatch(part)
        label = known.get(label_text(match[1])) if match else None
        if match is None or label is None or label in found or number_of(match[2]) is None:
            return {}
        found[label] = match[2]
    return found


def _points(lines: Sequence[str], labels: Sequence[str], known: Mapping[str, str]) -> Any:
    """The last list that stands over several lines."""
    block: list[str] = []
    for line in reversed(lines):
        point = _POINT.fullmatch(line) or _BULLET.fullmatch(line)
        if point or (_SCORED.fullmatch(line) and _scores([line], known)):
            block.append(line)
        elif len(block) > 1:
            break
        else:
            block = []
    block.reverse()
    if len(block) < 2:
        return []
    points = [_POINT.fullmatch(n) for n in block]
    counted = [int(p[1]) if p else 0 for p in points] == list(range(1, len(block) + 1))
    bullets = [b[1] if (b := _BULLET.fullmatch(n)) else n for n in block]
    items = [p[2] for p in points if p] if counted else bullets
    order = [label_of(i, known) for i in items]
    shown = [n for n in labels if n in order]
    if scores := _scores(items, known):
        falls = _falling(list(scores), scores)
        # a numbered list out of the order shown is an order too: both must agree
        return scores if not counted or falls or order == shown else []
    if None in order or len(set(order)) < len(order):
        return []
    bare = all(label_text(i) in known for i in items)
    # a list of remarks in the order shown describes, and does not rank
    return order if bare or (counted and order != shown) else []


def last_label(text: str, labels: Sequence[str]) -> str | None:
    """The one label that a short text is, or that its last line gives as the answer; None for any other."""
    known = known_labels(labels)
    text = _tail(text).strip(" \n\t{}$")
    if found := known.get(label_text(text)):
        return found
    line = one_spaced(text.splitlines()[-1]) if text else ""
    if len(line) > _MAX_LINE:
        return None
    if ">" in line and isinstance(pieces := _pieces(line, known), list) and pieces:
        return known.get(label_text(pieces[0]))
    if chosen := re.fullmatch(r"(?i)\W*(?:i|we)(?:'d| would)? (?:choose|pick|select|prefer)\s+(.*)", line):
        return known.get(label_text(chosen[1]))
    match = re.search(
        r"(?i)\b(?:answer|best|choice|winner|fits best)\b[^:=\n]{0,40}?(?:\bis\b|[:=])(.*)", line
    )
    named_after = label_of(match[1], known) if match else None
    if named_after:
        return named_after
    begins = re.fullmatch(
        r"\W*((?i:image)\s+\w{1,4})\s+(?:is|fits|matches|shows)\b.*\b(?:best|better)\b.*", line
    )
    return known.get(label_text(begins[1])) if begins else None
