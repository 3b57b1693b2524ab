"""The shape of a JSON reply in one line, as a prompt shows it to the model that must write it.

Made from the schema that the reply is held to, so that the two cannot differ. Short where a schema is long:
about a seventh of its tokens for twenty images.

>>> print(reply_shape({"type": "object", "properties": {"best": {"enum": ["A", "B"]}}}))
{"best": "A|B"}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmrerank.messages import Ask

_SAME = "{...}"
"""An object with the same keys as the one before it."""


def reply_shape(schema: Mapping[str, Any]) -> str:
    """One line of JSON with a sign in the place of each value.

    ``"..."`` is a text, ``"a|b"`` one of two words, ``0-3`` a number from 0 to 3, and ``...`` at the end of a
    list any number of further items. Every key is spelt; an object whose keys are those of its neighbour
    before it is ``{...}``. The line is spaced as `json.dumps` does it.
    """
    if "enum" in schema:
        return _one_of(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        return _object(schema.get("properties", {}))
    if kind == "array":
        return f"[{reply_shape(schema.get('items', {}))}, ...]"
    if kind == "boolean":
        return "true|false"
    if kind in ("integer", "number"):
        ends = schema.get("minimum"), schema.get("maximum")
        return "0" if None in ends else f"{ends[0]}-{ends[1]}"
    return '"..."'


def _object(properties: Mapping[str, Any]) -> str:
    entries, before = [], None
    for name, inner in properties.items():
        same = inner == before and inner.get("type") == "object"
        entries.append(f"{json.dumps(name)}: {_SAME if same else reply_shape(inner)}")
        before = inner
    return "{" + ", ".join(entries) + "}"


def _one_of(values: Sequence[Any]) -> str:
    if all(isinstance(v, str) for v in values):
        return json.dumps("|".join(values))
    numbers = [v for v in values if isinstance(v, int) and not isinstance(v, bool)]
    if numbers == list(values) == list(range(values[0], values[-1] + 1)) and len(values) > 2:
        return f"{values[0]}-{values[-1]}"
    return "|".join(json.dumps(v) for v in values)


def shows_shape(ask: Ask) -> bool:
    """Whether a question shows the shape that its reply must have.

    A model is then not told a second time, and may write its reply with white space, as the shape has it.
    """
    line = reply_shape(ask.schema or {})
    return ask.schema is not None and any(line in m.text for m in ask.messages)
