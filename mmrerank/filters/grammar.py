"""Reads the text of a filter into its tree, by the LALR parser of `lark`.

What cannot be read is refused with its place. No column is looked up here.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from mmrerank.errors import UsageError
from mmrerank.filters.fault import fault
from mmrerank.filters.moments import FORMS, span
from mmrerank.filters.tree import And, Column, Compare, In, Node, Not, Null, Or, Value, leaves

MOST_CHARACTERS = 10_000
"""Of a filter: the values of a long ``in`` are most of it. Raise it here."""
MOST_COMPARISONS = 200
"""Comparisons of a filter: each reads every record."""
MOST_NESTED = 50
"""Brackets and ``not`` in each other."""

GRAMMAR = r"""
start: disjunction
?disjunction: conjunction
            | conjunction (_OR conjunction)+      -> either
?conjunction: negation
            | negation (_AND negation)+           -> both
?negation: atom
         | NOT negation                           -> inverse
?atom: "(" disjunction ")"                        -> bracket
     | column OPERATOR value                      -> compare
     | column _IN list                            -> among
     | column NOT _IN list                        -> not_among
     | column _IS _NULL                           -> null
     | column _IS NOT _NULL                       -> not_null
     | _HAS column                                -> not_null
list: "(" value ("," value)* ")"
column: key ("." key)*
key: NAME -> bare
   | BACKQUOTED -> backquoted
value: TEXT -> text
     | DATE -> date
     | NUMBER -> number
     | TRUE -> true
     | FALSE -> false

_AND.2: /and(?![\w:-])/i
_OR.2: /or(?![\w:-])/i
NOT.2: /not(?![\w:-])/i
_IN.2: /in(?![\w:-])/i
_IS.2: /is(?![\w:-])/i
_NULL.2: /null(?![\w:-])/i
_HAS.2: /has(?![\w:-])/i
TRUE.2: /true(?![\w:-])/i
FALSE.2: /false(?![\w:-])/i
NAME: /[^\W\d][\w:-]*/
BACKQUOTED: /`(?:[^`]|``)+`/
TEXT: /"(?:[^"]|"")*"|'(?:[^']|'')*'/
DATE.2: /[0-9]{4}-[0-9]{2}(?:-[0-9]{2}(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?)?)?(?![\w:.-])/
NUMBER: /[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![\w:.-])/
OPERATOR: /==|!=|<>|<=|>=|!~|=|<|>|~/
%ignore /\s+/
"""

_VALUES = {"TEXT", "DATE", "NUMBER", "TRUE", "FALSE"}
_WANTED = {
    "NAME": "a column", "BACKQUOTED": "a column", "OPERATOR": "a comparison (= != < <= > >= ~ !~)",
    "_IN": "'in'", "_IS": "'is'", "_AND": "'and'", "_OR": "'or'", "LPAR": "'('", "RPAR": "')'",
    "COMMA": "','", "_NULL": "'null'", "NOT": "'not'", "_HAS": "'has'", "$END": "the end",
    **dict.fromkeys(_VALUES, 'a value ("text", 12, true or a date)'),
}  # fmt: skip


def parse(text: str) -> Node:
    """The tree of ``text``. Raises `UsageError` that shows the place of a fault."""
    if not isinstance(text, str):
        raise UsageError(f"a filter is text or a mmrerank.Filter, not {type(text).__name__}")
    if not text.strip():
        raise UsageError("the filter is empty; one is 'taken >= 2024-06-01 and camera ~ \"Pixel\"'")
    if len(text) > MOST_CHARACTERS:
        raise UsageError(f"the filter has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read")
    if (at := next((n for n, c in enumerate(text) if "\ud800" <= c <= "\udfff"), None)) is not None:
        raise fault(text, at, "this is no character: the text was not UTF-8")
    import lark

    try:
        found = _parser().parse(text)
    except lark.UnexpectedInput as error:
        raise _refusal(text, error) from None
    made = _Maker(text).made(found.children[0], 0)
    if (count := sum(1 for _ in leaves(made))) > MOST_COMPARISONS:
        raise UsageError(
            f"the filter has {count} comparisons; at most {MOST_COMPARISONS} are allowed. "
            "Many values of one column are one comparison: column in (1, 2, 3)"
        )
    return made


@cache
def _parser() -> Any:
    import lark

    return lark.Lark(GRAMMAR, parser="lalr", propagate_positions=True, maybe_placeholders=False)


class _Maker:
    """Makes our tree of lark's."""

    def __init__(self, text: str) -> None:
        self._text = text

    def made(self, tree: Any, depth: int) -> Node:
        if depth > MOST_NESTED:
            raise fault(self._text, tree.meta.start_pos, f"more than {MOST_NESTED} brackets in each other")
        parts = tree.children
        match tree.data:
            case "bracket":
                return self.made(parts[0], depth + 1)
            case "either":
                return Or(parts=tuple(self.made(p, depth) for p in parts))
            case "both":
                return And(parts=tuple(self.made(p, depth) for p in parts))
            case "inverse":
                return Not(part=self.made(parts[-1], depth + 1))
            case "null" | "not_null":
                column = next(p for p in parts if not _is_token(p))
                return Null(column=self._column(column), negated=tree.data == "not_null")
            case "among" | "not_among":
                values = tuple(map(self._value, parts[-1].children))
                return In(column=self._column(parts[0]), values=values, negated=tree.data == "not_among")
        operator: Any = {"==": "=", "<>": "!="}.get(str(parts[1]), str(parts[1]))
        return Compare(
            column=self._column(parts[0]),
            operator=operator,
            value=self._value(parts[2]),
            at=parts[1].start_pos,
        )

    def _column(self, tree: Any) -> Column:
        keys = tuple(
            str(k.children[0]) if k.data == "bare" else str(k.children[0])[1:-1].replace("``", "`")
            for k in tree.children
        )
        return Column(keys=keys, at=tree.meta.start_pos)

    def _value(self, tree: Any) -> Value:
        token = tree.children[0]
        at, said = token.start_pos, str(token)
        match tree.data:
            case "text":
                return Value(kind="text", content=said[1:-1].replace(said[0] * 2, said[0]), at=at)
            case "date":
                said = said.upper().replace(" ", "T")
                try:
                    span(said)
                except ValueError:
                    what = f"there is no such date; a date is written {FORMS}, from 1000 on"
                    raise fault(self._text, at, what) from None
                return Value(kind="date", content=said, at=at)
            case "number":
                return Value(kind="number", content=self._number(said, at), at=at)
        return Value(kind="boolean", content=tree.data == "true", at=at)

    def _number(self, said: str, at: int) -> int | float:
        plain = said.lstrip("+-").isdigit()
        if plain and len(said) < 25 and -(2**63) <= int(said) < 2**63:
            return int(said)
        number = float(said)
        if number in (float("inf"), float("-inf")):
            raise fault(self._text, at, "a number is at most 1.8e308")
        return number


def _is_token(part: Any) -> bool:
    return isinstance(part, str)


def _refusal(text: str, error: Any) -> UsageError:
    import lark

    at = len(text) if isinstance(error, lark.UnexpectedEOF) else error.pos_in_stream
    names: set[str] = set()
    if isinstance(error, lark.UnexpectedToken):
        names = set(error.accepts or error.expected)
        if error.token.type == "$END":
            at = len(text)
    elif isinstance(error, lark.UnexpectedCharacters):
        names = set(error.allowed or ())
    wanted = dict.fromkeys(_WANTED[n] for n in _WANTED if n in names)
    what = f"here belongs {_either([*wanted])}" if wanted else "this cannot be read"
    return fault(text, at, what, _hint(text[at:], names))


def _either(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _hint(rest: str, names: set[str]) -> str:
    """What helps with what stands where none of ``names`` does."""
    word = rest.split()[0] if rest.split() else ""
    if rest.startswith(('"', "'")) and "TEXT" in names:
        return "A text ends with the quote that it begins with; a quote within it is written twice."
    if "TEXT" in names and rest[:1].isdigit():
        return f"A date is written {FORMS}; anything else with digits and letters is text, in quotes."
    if "TEXT" in names and word:
        return 'Text is written in quotes: "Pixel".'
    if "NAME" in names and (
        rest[:1].isdigit() or rest.startswith(('"', "'", "=")) or word.lower() in ("and", "or")
    ):
        return "A column comes first; a name with odd characters stands in backquotes: `my column`."
    return ""
